"""A projector in a process of its own that stops, dead or frozen, before a chosen round trip to the database."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

from chancy_metrics.events import database
from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import tables_for
from chancy_metrics.events.sequencer import sequence
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.totals.advance import advance_totals
from chancy_metrics.projections.versions.advance import advance

#: Does something on a `StoppingConnection`; returns how many round trips that took.
Work = Callable[[str, str, int, signal.Signals], Coroutine[Any, Any, int]]

spawner = multiprocessing.get_context("forkserver")
spawner.set_forkserver_preload(["tests.faults.stopping"])


class StoppingConnection(Connection):
    """Sends itself a signal before round trip number *stop_at*: BEGIN, a statement, COMMIT."""

    trips = 0
    stop_at = 0
    how = signal.SIGKILL

    async def wait(self, *arguments: Any, **options: Any) -> Any:
        type(self).trips += 1
        if self.trips == self.stop_at:
            os.kill(os.getpid(), self.how)
        return await super().wait(*arguments, **options)


async def project(dsn: str, prefix: str, stop_at: int, how: signal.Signals) -> int:
    """Order and fold once; return how many round trips that took."""
    async with await StoppingConnection.connect(dsn, autocommit=True) as connection:
        kind = StoppingConnection
        kind.trips, kind.stop_at, kind.how = 0, stop_at, how
        await sequence(connection, tables_for(prefix))
        await advance(connection, tables_for(prefix), folded_by="stopping")
        return kind.trips


async def count(dsn: str, prefix: str, stop_at: int, how: signal.Signals) -> int:
    """Take a step of the totals, or the next one of building them; return how many round trips that took."""
    async with await StoppingConnection.connect(dsn, autocommit=True) as connection:
        kind = StoppingConnection
        kind.trips, kind.stop_at, kind.how = 0, stop_at, how
        await advance_totals(connection, tables_for(prefix), BUILT_IN, folded_by="stopping")
        return kind.trips


def _run(work: Work, dsn: str, prefix: str, stop_at: int, how: signal.Signals, idle_ms: int) -> None:
    database._IDLE_MS = idle_ms
    asyncio.run(work(dsn, prefix, stop_at, how))


@contextmanager
def stopping(
    dsn: str,
    prefix: str,
    *,
    stop_at: int,
    how: signal.Signals,
    idle_ms: int = database._IDLE_MS,
    work: Work = project,
) -> Iterator[BaseProcess]:
    """Start such a process, which the server puts up with for *idle_ms*; it is gone at the end of the block."""
    process = spawner.Process(target=_run, args=(work, dsn, prefix, stop_at, how, idle_ms), daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()
