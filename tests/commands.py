"""Run `chancy-metrics` in a process of its own, on the app of `tests/app.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def serving(dsn: str, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `serve` on a free port for the length of a block; hand out its address and the process."""
    words = command("serve", "--listen", "127.0.0.1:0", "--json", *arguments)
    environment = os.environ | {"DSN": dsn}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["url"], process
        finally:
            process.kill()
