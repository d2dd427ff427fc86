"""End a recording session within a deadline: write what is left, and log what is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from logging import Logger

import anyio
import psycopg
from chancy import Chancy

from chancy_metrics.events.errors import SequenceConflict
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.host.connection import own_connection
from chancy_metrics.plugin.recording.job_hook import JobHook
from chancy_metrics.plugin.recording.recorder import Recorder
from chancy_metrics.plugin.recording.session_row import Held, listed

#: Seconds that all of our work at a worker's stop, or at a block's end, may take together.
STOP_S = 10.0
#: How many of them are reserved for writing how the session ended.
_TELL_S = 2.0
#: Seconds of them the loops may take to end; those that still wait for the database after that are left alone.
LOOPS_S = 1.5
#: Seconds between two cancellations: after the first one psycopg waits for the server to confirm.
_GRACE_S = 0.5
#: Seconds between two attempts to write what is left.
_PAUSE_S = 0.2


async def cancel_all(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel *tasks* until they end, or for `LOOPS_S`; also where the caller is cancelled meanwhile."""
    until = time.monotonic() + LOOPS_S
    pending = set(tasks)
    while pending and time.monotonic() < until:
        for task in pending:
            task.cancel()
        try:
            _, pending = await asyncio.wait(pending, timeout=_GRACE_S)
        except asyncio.CancelledError:
            pending = {task for task in pending if not task.done()}


async def end(chancy: Chancy, recorder: Recorder, hook: JobHook | None, log: Logger, *, within_s: float) -> bool:
    """Write what is left, side by side, and that the session ends here; log as an ERROR what is lost. Never raises.

    Returns:
        Whether everything is written.
    """
    reasons: dict[str, str] = {}
    with anyio.move_on_after(max(0.0, within_s - _TELL_S), shield=True) as writing:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_write, chancy, recorder.close, recorder.held, reasons)
            if hook is not None:
                tasks.start_soon(_write, chancy, hook.close, hook.held, reasons)
    lost = recorder.held() + (hook.held() if hook is not None else Held())
    if writing.cancelled_caught and not reasons:
        reasons["deadline"] = f"the database did not answer within {within_s - _TELL_S:.1f} s"
    why = "; ".join(sorted(set(reasons.values())))
    unwritten = await _tell(chancy, recorder, lost)
    if lost:
        log.error(
            f"the last metrics of worker {recorder.worker_id!r} are lost: {listed(lost)}. They could not be written: "
            + (why or "they were recorded after the last batch was made")
            + (
                f"; `status` shows it only later, because this could not be written either: {unwritten}"
                if unwritten
                else ""
            )
        )
    elif reasons or unwritten:
        log.warning(
            f"all metrics of worker {recorder.worker_id!r} are written, only its end is not: {why or unwritten}"
        )
    return not lost and not reasons


async def _write(
    chancy: Chancy, close: Callable[[Chancy], Awaitable[None]], held: Callable[[], Held], reasons: dict[str, str]
) -> None:
    """Close until that is done or the caller's scope is cancelled; give up where waiting can't help."""
    name = getattr(close, "__qualname__", "close")
    while True:
        try:
            await close(chancy)
        except Exception as error:  # a worker must stop whatever the database does
            reasons[name] = _line(error)
            if not held() or not isinstance(error, (psycopg.OperationalError, SequenceConflict)):
                return
            await anyio.sleep(_PAUSE_S)
        else:
            reasons.pop(name, None)
            return


async def _tell(chancy: Chancy, recorder: Recorder, lost: Held) -> str:
    """Write the end into the session's row; return why that failed, or ""."""
    session_row = recorder.session_row
    if session_row is None or session_row.refused:
        return ""
    with anyio.move_on_after(_TELL_S, shield=True):
        try:
            async with own_connection(chancy) as connection:
                told = await session_row.write(connection, tables_for(chancy.prefix), lost, ends=True)
        except Exception as error:  # a worker must stop whatever the database does
            return _line(error)
        return "" if told else "this role may not"
    return "the database did not answer"


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
