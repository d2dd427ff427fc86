"""The options of commands whose work many cores or machines can share: `--processes`, `--dask` and `--read-dsn`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import click
from click.core import ParameterSource
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from chancy_metrics.plugin.host.redaction import without_password
from chancy_metrics.plugin.parallel.executors import dask_cluster, process_pool

#: Names the database that tasks read where no `--read-dsn` does: a password on a command line can be seen by others.
READ_DSN = "CHANCY_METRICS_READ_DSN"

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Sharing(NamedTuple):
    """Who shares the work of a command, as its options say.

    Attributes:
        executor: None: this process does all of it.
        read_dsn: The database that tasks read; None for the app's.
    """

    executor: Executor | None
    read_dsn: str | None


def sharing_options(function: _Function) -> _Function:
    """Give a command the three options, as arguments *processes*, *dask* and *read_dsn* for `open_sharing`."""
    for option in (
        click.option(
            "--read-dsn",
            callback=_check_dsn,
            envvar=READ_DSN,
            help=f"DSN or conninfo of a replica that the tasks read, instead of the app's database; or set {READ_DSN}.",
        ),
        click.option(
            "--dask", metavar="ADDRESS", help="Share the work with a Dask cluster, such as tcp://scheduler:8786."
        ),
        click.option("--processes", type=click.IntRange(1), help="Share the work among so many processes here."),
    ):
        function = option(function)
    return function


@contextmanager
def open_sharing(processes: int | None, dask: str | None, read_dsn: str | None) -> Iterator[Sharing]:
    """Open what the options say for a block."""
    if processes and dask:
        raise click.UsageError("--processes and --dask exclude each other: leave one of them out")
    if dask:
        with dask_cluster(dask) as executor:
            yield Sharing(executor, read_dsn)
    elif processes:
        with process_pool(processes) as executor:
            yield Sharing(executor, read_dsn)
    else:
        ctx = click.get_current_context()
        if ctx.get_parameter_source("read_dsn") is ParameterSource.COMMANDLINE:
            raise click.UsageError("--read-dsn is for the tasks of --processes or --dask: give one of them, too", ctx)
        yield Sharing(None, None)


def _check_dsn(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse what is no DSN."""
    if value is None:
        return None
    try:
        conninfo_to_dict(value)
    except ProgrammingError as error:
        raise click.BadParameter(without_password(" ".join(str(error).split()), value), ctx, parameter) from None
    return value
