"""Limit what the page takes of a process: database connections, threads, and waiting requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from weakref import WeakKeyDictionary

from chancy import Chancy

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.off_loop import Pace, paced

#: Connections per process for answers; requests that may wait for one; seconds each may wait.
MAX_CONNECTIONS, MAX_WAITING, WAIT_S = 4, 200, 6.0
#: Requests that may decode batches of the log at once, each in a thread.
MAX_DECODING = 2
#: Seconds after which a refused client may try again.
RETRY_S = 2

_Result = TypeVar("_Result")


class Busy(MetricsLogError):
    """Too many requests wait for the database, or this one has waited too long."""


class _Room:
    def __init__(self) -> None:
        self.free = asyncio.Semaphore(MAX_CONNECTIONS)
        self.decoding = asyncio.Semaphore(MAX_DECODING)
        self.waiting = 0
        self.pace = Pace()


_rooms: WeakKeyDictionary[Chancy, _Room] = WeakKeyDictionary()


async def work(chancy: Chancy, function: Callable[..., _Result], *arguments: object) -> _Result:
    """Call *function*, which takes more than some milliseconds, in a thread at the pace of the page."""
    return await _room(chancy).pace.call(function, *arguments)


@asynccontextmanager
async def at_pace(chancy: Chancy) -> AsyncIterator[None]:
    """Keep all processor work in a block to the pace of the page."""
    with paced(_room(chancy).pace):
        yield


def _room(chancy: Chancy) -> _Room:
    return _rooms.setdefault(chancy, _Room())


@asynccontextmanager
async def room(chancy: Chancy, *, decodes: bool = False) -> AsyncIterator[None]:
    """Let a request of the page open one connection for a block, so that jobs and the app always get theirs.

    Args:
        decodes: It also decodes batches of the log, which takes processor time.

    Raises:
        Busy: No connection was free in time.
    """
    mine = _room(chancy)
    if mine.waiting >= MAX_WAITING:
        raise Busy(f"{mine.waiting:,} requests of this process wait for the database already: try again in a moment")
    mine.waiting += 1
    taken: list[asyncio.Semaphore] = []
    try:
        async with asyncio.timeout(WAIT_S):
            for one in (mine.decoding, mine.free) if decodes else (mine.free,):
                await one.acquire()
                taken.append(one)
    except BaseException as error:
        for one in taken:
            one.release()
        if not isinstance(error, TimeoutError):
            raise
        raise Busy(
            f"this process answers {MAX_CONNECTIONS} requests from the database at once, and none ended within "
            f"{WAIT_S:g} s: try again in a moment"
        ) from None
    finally:
        mine.waiting -= 1
    try:
        async with at_pace(chancy):
            yield
    finally:
        for one in taken:
            one.release()
