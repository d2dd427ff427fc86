"""What the commands of `chancy-metrics` share: the app they work on, and how they end."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
import psycopg
from chancy import Chancy
from chancy.utils import import_string

from chancy_metrics.events.errors import MetricsLogError

from .metrics import Metrics

#: Exit code of a command that ran and found something wrong.
FOUND_SOMETHING = 3

T = TypeVar("T")

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Duration(click.ParamType):  # type: ignore[type-arg] # generic only in newer releases of click
    """A length of time such as 30s, 15m, 24h or 7d, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        try:
            seconds = float(text[:-1]) * _SECONDS[text[-1:]]
        except (ValueError, KeyError):
            self.fail(f"{text!r} is no length of time: write 30s, 15m, 24h or 7d", param, ctx)
        if not 0 <= seconds < 2**31:
            self.fail(f"{text!r} is no sensible length of time", param, ctx)
        return seconds


def load(app: str) -> tuple[Chancy, Metrics]:
    """Return the app at an import path and its plugin; ends the command if there is none."""
    sys.path.insert(0, os.getcwd())
    try:
        found: Chancy | Callable[[], Chancy] = import_string(app)  # type: ignore[no-untyped-call] # Chancy's
        chancy = found if isinstance(found, Chancy) else found()
    except Exception as error:  # whatever the user's module does when it is imported
        raise click.BadParameter(
            f"{app!r} can't be imported: {type(error).__name__}: {error}", param_hint="--app"
        ) from error
    metrics = chancy.plugins.get("chancy.metrics") if isinstance(chancy, Chancy) else None
    if not isinstance(metrics, Metrics):
        raise click.BadParameter(
            f"{app!r} is no Chancy app with this plugin: add chancy_metrics.plugin.Metrics() to its plugins",
            param_hint="--app",
        )
    return chancy, metrics


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work; what the database or this package raises ends the command with one line."""
    try:
        return asyncio.run(work)
    except (MetricsLogError, psycopg.Error) as error:
        raise click.ClickException(" ".join(str(error).split())) from error
