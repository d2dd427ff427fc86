"""A block of `recording()` or `sync_recording()`: its recorder, and the task or the thread that appends."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from chancy import Chancy

from chancy_metrics.plugin.host.connection import DatabaseClock
from chancy_metrics.plugin.recording.append_thread import AppendThread
from chancy_metrics.plugin.recording.buffer import Buffer
from chancy_metrics.plugin.recording.recorder import KeptConnection, Recorder
from chancy_metrics.plugin.recording.session_row import SessionRow
from chancy_metrics.plugin.recording.shutdown import STOP_S, cancel_all, end


class Block(NamedTuple):
    """One block while it is open.

    Attributes:
        thread: Appends for `sync_recording()`; None for `recording()`.
        interval_s: Seconds between appends.
        pid: The process that opened it: a child that was forked inside has a copy that it must not touch.
    """

    chancy: Chancy
    recorder: Recorder
    thread: AppendThread | None
    interval_s: float
    pid: int

    @property
    def is_inherited(self) -> bool:
        """Whether this process was forked inside the block."""
        return self.pid != os.getpid()

    async def flush(self) -> None:
        """Append all that is buffered. Raises what `Recorder.flush` raises."""
        if self.thread is not None:
            await self.thread.flush()
        else:
            await self.recorder.flush(self.chancy)


def make_block(
    chancy: Chancy,
    worker_id: str | None,
    buffer: Buffer,
    clock: DatabaseClock,
    *,
    interval_s: float,
    threaded: bool,
    forked: bool,
) -> Block:
    """Return a block that appends *buffer*, not begun yet.

    Args:
        forked: Whether this process was forked after the plugin was made.
    """
    name = worker_id or socket.gethostname()
    # A thread has another event loop than the pool's, and after a fork the pool may be the parent's.
    kept = KeptConnection() if threaded or forked else None
    session_row = SessionRow(name, lambda: recorder.producers, chancy.log, append_interval_s=interval_s)
    recorder = Recorder(
        name, buffer, DatabaseClock() if threaded else clock, chancy.log, session_row=session_row, kept_connection=kept
    )
    thread = AppendThread(chancy, recorder, interval_s) if threaded else None
    return Block(chancy, recorder, thread, interval_s, os.getpid())


@asynccontextmanager
async def appending(block: Block, close: Callable[[Block], None]) -> AsyncIterator[None]:
    """Append in a task of the running event loop until the body ends; then *close*, and append what is left.

    A child that was forked inside does none of the latter.
    """
    chancy, recorder = block.chancy, block.recorder
    loops = []
    try:
        if recorder.kept_connection is None:
            await chancy.pool.open()
        await recorder.open(chancy)
        loops = [asyncio.create_task(_append_for_ever(block), name="metrics_append")]
        yield
    finally:
        if not block.is_inherited:
            until = time.monotonic() + STOP_S
            close(block)
            await cancel_all(loops)
            await end(chancy, recorder, None, chancy.log, within_s=until - time.monotonic())
            if recorder.kept_connection is not None:
                await recorder.kept_connection.close()


async def _append_for_ever(block: Block) -> None:
    while True:
        await asyncio.sleep(block.interval_s)
        await block.recorder.append(block.chancy)
