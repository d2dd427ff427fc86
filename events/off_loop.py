"""Run long computations in threads, off the event loop, at a pace that leaves the loop time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, Protocol, TypeVar

from anyio import to_thread

#: Longest rest after a call, seconds.
MAX_REST_S = 0.02

#: Events of a portion, unless one batch has more: 10 ms of decoding.
_PORTION_EVENTS = 20_000


class _Sized(Protocol):
    @property
    def events(self) -> int: ...


_Batch = TypeVar("_Batch", bound=_Sized)
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Pace:
    """Run one call at a time, and rest after each for as long as it took.

    A thread that computes takes the interpreter's lock from the event loop for 5 ms at each of the loop's system calls,
    and several threads take it by turns: 10 calls behind one chunk of 100 ms are late by 50 ms. So chunks should take
    less than that; in the rest the loop does all it has to do at once.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def call(
        self, function: Callable[_Arguments, _Result], *arguments: _Arguments.args, **named: _Arguments.kwargs
    ) -> _Result:
        await self._turn.acquire()
        began = time.monotonic()
        try:
            return await to_thread.run_sync(lambda: function(*arguments, **named))
        finally:
            rest_s = min(MAX_REST_S, time.monotonic() - began)
            asyncio.get_running_loop().call_later(rest_s, self._turn.release)


_pace: ContextVar[Pace | None] = ContextVar("chancy_metrics_pace", default=None)


@contextmanager
def paced(pace: Pace) -> Iterator[None]:
    """Let every `in_thread` within the block keep to *pace*."""
    token = _pace.set(pace)
    try:
        yield
    finally:
        _pace.reset(token)


async def in_thread(
    function: Callable[_Arguments, _Result], *arguments: _Arguments.args, **named: _Arguments.kwargs
) -> _Result:
    """Call a function in a thread, at the pace of `paced` if there is one."""
    pace = _pace.get()
    if pace is None:
        return await to_thread.run_sync(lambda: function(*arguments, **named))
    return await pace.call(function, *arguments, **named)


def portions(batches: Sequence[_Batch]) -> Iterator[Sequence[_Batch]]:
    """Cut batches into portions for one call of a thread each; one portion where there is no pace."""
    if _pace.get() is None:
        yield batches
        return
    first = events = 0
    for index, batch in enumerate(batches):
        if first < index and events + batch.events > _PORTION_EVENTS:
            yield batches[first:index]
            first, events = index, 0
        events += batch.events
    if first < len(batches):
        yield batches[first:]
