"""Compute in a thread while this task goes on with other work, such as a statement that the server executes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from anyio import create_task_group, to_thread

_T = TypeVar("_T")


async def run_beside(compute: Callable[[], _T], work: Callable[[], Awaitable[None]]) -> _T:
    """Return what *compute* does, in a thread, while *work* goes on here; raises what either raises."""
    made: list[_T] = []

    async def in_thread() -> None:
        made.append(await to_thread.run_sync(compute))

    try:
        async with create_task_group() as tasks:
            tasks.start_soon(in_thread)
            await work()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    return made[0]
