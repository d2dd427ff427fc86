"""The thread behind `sync_recording()`: it runs an event loop in which a recorder appends."""

from __future__ import annotations

import asyncio
import atexit
import encodings.idna  # noqa: F401 # see anyio's
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

# The thread would import it itself: a child that is forked meanwhile has such a module by half, for ever.
import anyio._backends._asyncio  # noqa: F401
from chancy import Chancy

from chancy_metrics.plugin.recording.recorder import Recorder
from chancy_metrics.plugin.recording.session_row import listed
from chancy_metrics.plugin.recording.shutdown import STOP_S, cancel_all, end

_Opened = TypeVar("_Opened")

#: Seconds past `STOP_S` after which the thread is given up: a name server that does not answer can't be interrupted.
_GIVEN_UP_S = 5.0


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that needs no other thread: at the interpreter's exit none can be started."""

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        return socket.getaddrinfo(host, port, **options)


class AppendThread:
    """Appends for one recorder from `start` to `stop`, or to the interpreter's exit.

    A daemon thread: it keeps no program from ending. `stop` is called at exit, where it was not before. The recorder
    has a connection of its own.
    """

    def __init__(self, chancy: Chancy, recorder: Recorder, interval_s: float) -> None:
        self._chancy = chancy
        self._recorder = recorder
        self._interval_s = interval_s
        self._pid = os.getpid()
        self._loop = _Loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="metrics_append", daemon=True)

    def start(self) -> None:
        atexit.register(self.stop)
        _at_child_exit(self)
        self._thread.start()

    def stop(self) -> None:
        """Append what is left, and return when it is in the log or said to be lost. Does nothing twice.

        Nor in a child that was forked meanwhile: what it has is its parent's.
        """
        if os.getpid() != self._pid:
            return
        try:
            self._loop.call_soon_threadsafe(self._stopping.set)
        except RuntimeError:  # the loop is closed: it has stopped
            pass
        self._thread.join(STOP_S + _GIVEN_UP_S)
        atexit.unregister(self.stop)
        if self._thread.is_alive():
            self._chancy.log.error(
                f"the thread that appends the metrics of {self._recorder.worker_id!r} did not end within "
                f"{STOP_S + _GIVEN_UP_S:.0f} s; lost, unless it still gets through: {listed(self._recorder.held())}"
            )

    async def flush(self) -> None:
        """Append all that is buffered; called in any event loop. Raises what `Recorder.flush` raises."""
        flushing = self._recorder.flush(self._chancy)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(flushing, self._loop))

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._work())
        except Exception as error:  # a thread's end must not go unnoticed
            self._chancy.log.error(
                f"the thread that appends the metrics of {self._recorder.worker_id!r} has ended, and nothing is "
                f"appended any more: {type(error).__name__}: {error}; lost: {listed(self._recorder.held())}"
            )
        finally:
            self._loop.close()

    async def _work(self) -> None:
        appending = asyncio.create_task(self._append_for_ever())
        await self._stopping.wait()
        until = time.monotonic() + STOP_S
        await cancel_all([appending])
        await end(self._chancy, self._recorder, None, self._chancy.log, within_s=until - time.monotonic())
        if self._recorder.kept_connection is not None:
            await self._recorder.kept_connection.close()

    async def _append_for_ever(self) -> None:
        await self._recorder.open(self._chancy)
        while True:
            await asyncio.sleep(self._interval_s)
            await self._recorder.append(self._chancy)


def _at_child_exit(thread: AppendThread) -> None:
    """Let a child that `multiprocessing` made stop *thread* at its end, where `atexit` is passed over."""
    util, process = sys.modules.get("multiprocessing.util"), sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(thread, thread.stop, exitpriority=100)


class SyncBlock(AbstractContextManager[None], Generic[_Opened]):
    """A block that stays open where the object is dropped, as a server does that never leaves it."""

    def __init__(self, open_block: Callable[[], _Opened], close_block: Callable[[_Opened], None]) -> None:
        self._open_block = open_block
        self._close_block = close_block
        self._opened: list[_Opened] = []

    def __enter__(self) -> None:
        self._opened.append(self._open_block())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close_block(self._opened.pop())
