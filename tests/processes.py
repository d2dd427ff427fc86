"""Processes of the application in `dashboard_app`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextmanager
def module(dsn: str, *arguments: str) -> Iterator[None]:
    """Run ``python -m arguments`` on a database for the length of a block; it must not end before."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=os.environ | {"DSN": dsn},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
        assert process.poll() is None, f"it ended with {process.returncode}"
    finally:
        process.terminate()
        try:
            process.wait(15)
        finally:
            # Chancy's process executor may have left children.
            if process.poll() is None or _is_group(process.pid):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def web(dsn: str) -> Iterator[str]:
    """Run `chancy worker web` and hand out its address."""
    port = free_port()
    app = ("chancy.cli.cli", "--app", "tests.dashboard_app.chancy")
    with module(dsn, *app, "worker", "web", "--host", "127.0.0.1", "--port", str(port)):
        yield f"http://127.0.0.1:{port}"


def _is_group(number: int) -> bool:
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True
