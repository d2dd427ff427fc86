"""Import the Chancy app that `--app` names."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import click
from chancy import Chancy
from chancy.utils import import_string

from chancy_metrics.plugin.host.redaction import without_password
from chancy_metrics.plugin.metrics import Metrics


def load(app: str) -> tuple[Chancy, Metrics]:
    """Return the app at an import path and its plugin.

    Raises:
        BadParameter: It can't be imported, or has no such plugin.
    """
    sys.path.insert(0, os.getcwd())
    try:
        found: Chancy | Callable[[], Chancy] = import_string(app)  # type: ignore[no-untyped-call] # Chancy's
        chancy = found if isinstance(found, Chancy) else found()
    except (Exception, SystemExit) as error:  # the user's module may raise anything when it is imported
        raise click.BadParameter(
            f"{app!r} can't be imported: {type(error).__name__}: {without_password(str(error))}", param_hint="--app"
        ) from error
    metrics = chancy.plugins.get("chancy.metrics") if isinstance(chancy, Chancy) else None
    if not isinstance(metrics, Metrics):
        raise click.BadParameter(
            f"{app!r} is not a Chancy app with this plugin: add chancy_metrics.plugin.Metrics() to its plugins",
            param_hint="--app",
        )
    return chancy, metrics
