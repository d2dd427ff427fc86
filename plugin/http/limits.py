"""How much of a process the page may take: connections to the database, and time of its processor, at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from weakref import WeakKeyDictionary

from chancy import Chancy

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.off_loop import Pace, paced

#: Connections of one process with which requests are answered, and requests that may wait for one, each so long.
MOST_CONNECTIONS, MOST_WAITING, WAIT_S = 4, 200, 6.0
#: Requests of these that may decode batches of the log, each in a thread.
MOST_DECODING = 2
#: What a client is told to wait before it tries again.
RETRY_S = 2

_Result = TypeVar("_Result")


class Busy(MetricsLogError):
    """Too many requests wait for the database already, or this one has for too long."""


class _Room:
    def __init__(self) -> None:
        self.free = asyncio.Semaphore(MOST_CONNECTIONS)
        self.decoding = asyncio.Semaphore(MOST_DECODING)
        self.waiting = 0
        self.pace = Pace()


_rooms: WeakKeyDictionary[Chancy, _Room] = WeakKeyDictionary()


async def work(chancy: Chancy, function: Callable[..., _Result], *arguments: object) -> _Result:
    """Call a function that takes more than some milliseconds in a thread, at the pace of the page."""
    return await _room(chancy).pace.call(function, *arguments)


@asynccontextmanager
async def at_pace(chancy: Chancy) -> AsyncIterator[None]:
    """Let all that takes a processor in a block keep to the pace of the page."""
    with paced(_room(chancy).pace):
        yield


def _room(chancy: Chancy) -> _Room:
    return _rooms.setdefault(chancy, _Room())


@asynccontextmanager
async def room(chancy: Chancy, *, decodes: bool = False) -> AsyncIterator[None]:
    """Let a request of the page open one connection for a block: whoever else needs one is never refused for it.

    Args:
        decodes: It reads batches of the log, which takes a processor, too.

    Raises:
        Busy: There was no room in time.
    """
    mine = _room(chancy)
    if mine.waiting >= MOST_WAITING:
        raise Busy(f"{mine.waiting:,} requests wait for the database in this process already: try again in a moment")
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
            f"this process asks the database {MOST_CONNECTIONS} questions at once, and was busy with others for "
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
