"""A rebuild gives way to a live version that is behind for longer than it may be, and to nobody who does not fold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from chancy import Chancy

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.host.progress import RebuildProgress
from chancy_metrics.plugin.rebuilds import backfill
from chancy_metrics.plugin.rebuilds.rebuild import Rebuilt, rebuild
from chancy_metrics.projections.versions.advance import advance
from tests.factories import LogWriter, a_run, an_app, damage, fetch, now_us, sequence_all, sequence_and_fold
from tests.faults.history import assert_equals_replay

#: So long that no test lasts as long: only the times that it sets itself count.
INTERVAL_S = 10_000
BATCHES = 6


class Throttled:
    """A rebuild in the background, in steps of one batch, and what it tells."""

    def __init__(self, chancy: Chancy, *, throttle_s: float | None) -> None:
        self.told: list[RebuildProgress] = []
        self.done: Rebuilt | None = None
        self._chancy = chancy
        self._throttle_s = throttle_s
        self._news = anyio.Event()

    async def run(self) -> None:
        self.done = await rebuild(self._chancy, throttle_s=self._throttle_s, on_progress=self._hear)

    async def waits(self, times: int = 3) -> list[RebuildProgress]:
        """Let it check the live version and wait that often; return what it reported meanwhile."""
        first = len(self.told)
        while sum(one.waits for one in self.told[first:]) < times:
            self._news = anyio.Event()
            await self._news.wait()
        return self.told[first:]

    @property
    def has_waited(self) -> bool:
        return any(one.waits for one in self.told)

    def _hear(self, progress: RebuildProgress) -> None:
        self.told.append(progress)
        self._news.set()


@asynccontextmanager
async def throttled(
    dsn: str, monkeypatch: pytest.MonkeyPatch, *, throttle_s: float | None = None
) -> AsyncIterator[Throttled]:
    """Rebuild through a block and to its end."""
    monkeypatch.setattr(backfill, "BACKFILL_EVENTS", 20)  # a row of the ledger
    monkeypatch.setattr(backfill, "_POLL_S", 0.001)
    async with an_app(dsn, Metrics(sync_interval=INTERVAL_S)) as (chancy, _):
        running = Throttled(chancy, throttle_s=throttle_s)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(running.run)
                yield running


async def make_ledger(connection: Connection, tables: Tables) -> None:
    """Some batches that are in the live version, which has just folded them."""
    for _ in range(BATCHES):
        await LogWriter(connection, tables).append(runs=[a_run("app:n", [1.0] * 30, at_us=now_us())])
    await sequence_and_fold(connection, tables)


async def let_wait(connection: Connection, tables: Tables, waiting_s: float, *, silent_s: float = 0) -> None:
    """Append an event that has been waiting for so long, and let the last fold be *silent_s* ago."""
    await LogWriter(connection, tables).append(runs=[a_run("app:n", [1.0] * 30, at_us=now_us())])
    await damage(
        connection,
        tables,
        f"UPDATE {{log}} SET appended_at = clock_timestamp() - interval '{waiting_s} s'"
        " WHERE (producer, sequence) IN (SELECT producer, sequence FROM {pending})",
    )
    await fetch(
        connection,
        f"UPDATE {{versions}} SET folded_at = clock_timestamp() - interval '{silent_s} s' WHERE status = 'live'",
        tables,
    )


async def steps(connection: Connection, tables: Tables) -> tuple[int, int]:
    """Return how many steps the version that is backfilled has taken, and its position."""
    [row] = await fetch(connection, "SELECT folds, position FROM {versions} WHERE version = 2", tables)
    return row[0], row[1]


async def test_no_step_is_taken_while_the_live_version_is_behind_and_all_are_when_it_has_caught_up(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_ledger(connection, tables)
    await let_wait(connection, tables, 1.6 * INTERVAL_S)

    async with throttled(dsn, monkeypatch) as running:
        await running.waits()
        before = await steps(connection, tables)
        meanwhile = await running.waits(20)
        after = await steps(connection, tables)
        await sequence_and_fold(connection, tables)

    assert before == after == (1, 1)
    assert {(one.phase, one.position, one.events, one.waits) for one in meanwhile} == {("backfilling", 1, 30, True)}
    assert running.done is not None
    assert (running.done.differences, running.done.position) == ([], BATCHES + 1)
    await assert_equals_replay(connection, tables)


async def test_a_live_version_that_catches_up_in_part_is_given_way_to_until_it_has(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_ledger(connection, tables)
    for waiting_s in (1.9 * INTERVAL_S, 1.6 * INTERVAL_S):
        await let_wait(connection, tables, waiting_s)
    await sequence_all(connection, tables)

    async with throttled(dsn, monkeypatch) as running:
        await running.waits()
        assert (await advance(connection, tables, folded_by="live", step_events=20)).position == BATCHES + 1
        await running.waits()
        between = await steps(connection, tables)
        await sequence_and_fold(connection, tables)

    assert between == (1, 1)
    assert running.done is not None and running.done.swapped


@pytest.mark.parametrize(
    ("throttle_s", "waiting", "gives_way"),
    [
        (None, 1.45, False),  # half an interval by default
        (None, 1.55, True),
        (0, 0.95, False),
        (0, 1.05, True),
        (INTERVAL_S, 1.95, False),
        (INTERVAL_S, 2.05, True),
    ],
)
async def test_events_may_wait_for_a_sync_interval_and_the_throttle_and_no_longer(
    dsn: str,
    connection: Connection,
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
    throttle_s: float | None,
    waiting: float,
    gives_way: bool,
) -> None:
    await make_ledger(connection, tables)
    await let_wait(connection, tables, waiting * INTERVAL_S)

    async with throttled(dsn, monkeypatch, throttle_s=throttle_s) as running:
        if gives_way:
            await running.waits()
            await sequence_and_fold(connection, tables)

    assert running.has_waited is gives_way
    assert running.done is not None and running.done.swapped


async def test_it_does_not_wait_for_a_live_version_that_nobody_folds(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_ledger(connection, tables)
    await let_wait(connection, tables, 4 * INTERVAL_S, silent_s=3.1 * INTERVAL_S)

    async with throttled(dsn, monkeypatch) as running:
        pass

    assert not running.has_waited
    assert running.done is not None
    assert (running.done.swapped, running.done.position) == (True, BATCHES)  # what has no position yet waits on


async def test_it_stops_waiting_where_the_projector_falls_silent(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_ledger(connection, tables)
    await let_wait(connection, tables, 4 * INTERVAL_S, silent_s=2.9 * INTERVAL_S)

    async with throttled(dsn, monkeypatch) as running:
        await running.waits()
        before = await steps(connection, tables)
        silent = f"UPDATE {{versions}} SET folded_at = folded_at - interval '{INTERVAL_S / 5} s' WHERE status = 'live'"
        await fetch(connection, silent, tables)

    assert before == (1, 1)
    assert running.done is not None and running.done.swapped
