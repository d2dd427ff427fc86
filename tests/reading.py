"""Every command that only reads, run in this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
from click.testing import CliRunner, Result

from chancy_metrics.plugin.cli.main import main

COMMANDS = [
    ["status"],
    ["status", "--json"],
    ["completeness"],
    ["completeness", "--since", "1h", "--json"],
    ["versions"],
    ["verify"],
    ["verify", "--since", "1d", "--budget", "1s"],
    ["prune", "--dry-run"],
    ["backtest", "examples/alerts.toml", "--since", "1h"],
    ["report"],
    ["report", "--since", "2d", "--json"],
    ["audit", "events", "--since", "1h"],
    ["audit", "events", "--json"],
    ["audit", "explain", "app:n", "--at", "1m"],
    ["audit", "seal"],
    ["audit", "check"],
]


async def read_everything(dsn: str, folder: Path, job_id: str) -> dict[str, Result]:
    """Run `COMMANDS` and those that need a file or a job; return what each one came to."""
    more = [["audit", "job", job_id], ["audit", "export", str(folder / "log.export")]]
    return {
        " ".join(arguments[:2]): await anyio.to_thread.run_sync(invoke, dsn, arguments)
        for arguments in [*COMMANDS, *more]
    }


def invoke(dsn: str, arguments: list[str]) -> Result:
    """Run one command on the database *dsn*."""
    with _environment(DSN=dsn):
        return CliRunner().invoke(main, ["--app", "tests.app.chancy", *arguments])


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = os.environ.copy()
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
