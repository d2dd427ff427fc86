"""Run `chancy-metrics` in a process of its own, on the app of `tests/app.py`."""

from __future__ import annotations

import os
import subprocess
import sys

APP = "tests.app.chancy"


def command(*arguments: str, app: str = APP) -> list[str]:
    return [sys.executable, "-m", "chancy_metrics.plugin.cli", "--app", app, *arguments]


def run(dsn: str, *arguments: str, app: str = APP, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, within a minute."""
    return subprocess.run(
        command(*arguments, app=app),
        env=os.environ | {"DSN": dsn} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
