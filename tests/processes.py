"""Chancy's own commands on the application of `dashboard_app`, as processes."""

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
def chancy_command(dsn: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``chancy --app tests.dashboard_app.chancy arguments`` for the length of a block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "chancy.cli.cli", "--app", "tests.dashboard_app.chancy", *arguments],
        cwd=ROOT,
        env=os.environ | {"DSN": dsn},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
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


@contextmanager
def web(dsn: str) -> Iterator[str]:
    """Run the stock dashboard and hand out its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with chancy_command(dsn, "worker", "web", "--host", "127.0.0.1", "--port", str(port)):
        yield f"http://127.0.0.1:{port}"


def _is_group(number: int) -> bool:
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True
