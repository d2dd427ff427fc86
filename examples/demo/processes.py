"""The demo's processes: each leads a group of its own, and whatever is left of the groups ends with the block."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[2]


class ProcessFailed(Exception):
    """A process of the demo ended on its own, or badly; the message holds the end of its log."""


class Processes:
    """Start, watch and end Python modules.

    On Linux we adopt what a killed process leaves (the children of its process executor), so that
    ending a group also waits until all of it is gone.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ending: set[str] = set()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER

    def start(self, name: str, module: str, *arguments: str) -> None:
        """Start ``python -m module arguments`` under *name*, logging to a file of that name."""
        with self._log(name).open("wb") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise `ProcessFailed` if one has ended that should not have."""
        for name, process in self._running.items():
            if name not in self._ending and process.poll() is not None:
                raise self._failure(name, process.returncode)

    def kill(self, name: str) -> None:
        """SIGKILL it and its children, as when its machine is lost."""
        _end_group(self._running.pop(name))

    async def stop(self, *names: str) -> None:
        """SIGTERM, then wait until all have ended; `ProcessFailed` if one did not end well within 20 s."""
        for name in names:
            self._running[name].terminate()
        for name in names:
            await self._end(name, timeout_s=20)

    async def run(self, name: str, module: str, *arguments: str, timeout_s: float = 20) -> str:
        """Run a module to its end and return what it printed; `ProcessFailed` if it did not end well in time."""
        self.start(name, module, *arguments)
        await self._end(name, timeout_s=timeout_s)
        return self._log(name).read_text()

    async def _end(self, name: str, *, timeout_s: float) -> None:
        process = self._running[name]
        self._ending.add(name)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while process.poll() is None:  # noqa: ASYNC110  # a child's end sets no event
                    await asyncio.sleep(0.02)
        self.kill(name)
        if process.returncode:
            raise self._failure(name, process.returncode)

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _failure(self, name: str, code: int) -> ProcessFailed:
        log = self._log(name).read_text().splitlines()[-20:]
        return ProcessFailed("\n".join([f"{name} ended with exit code {code}; the end of its log:", *log]))

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._running):
            self.kill(name)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-process.pid, 0)
