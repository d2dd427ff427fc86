"""Whoever advances the totals may die or freeze anywhere: nothing is lost or counted twice, and readers go on."""

from __future__ import annotations

import signal
import time

import anyio

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import read_totals
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.totals.advance import advance_totals
from tests.factories import (
    LogWriter,
    a_row,
    a_run,
    an_app,
    connections,
    eventually,
    fetch,
    sequence_all,
    sequence_and_fold,
)
from tests.faults.history import make_history
from tests.faults.stopping import count, stopping
from tests.faults.test_projectors import is_frozen
from tests.projections.totals.test_totals import added_up, caught_up, exact, without_sketches


async def append(connection: Connection, tables: Tables, new: str) -> None:
    """Append what counts 2 in "app:n", and a series that is new."""
    writer = LogWriter(connection, tables, f"worker-{new}")
    for _ in range(2):
        await writer.append(jobs=[a_row()], runs=[a_run("app:n"), a_run(f"app:{new}", [0.1], kind="histogram")])
    await sequence_all(connection, tables)


async def step_trips(connection: Connection, tables: Tables) -> int:
    """How many round trips a step takes that finds something; 4 in "app:n" are counted after it."""
    await append(connection, tables, "zeroth")
    await caught_up(connection, tables)
    await append(connection, tables, "first")
    trips = await count(connection.info.dsn, tables.prefix, 0, signal.SIGCONT)
    assert trips > 15
    return trips


async def test_killed_before_any_round_trip_of_a_step_it_loses_and_repeats_nothing(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    trips = await step_trips(connection, tables)
    expected = 4
    for stop_at in range(1, trips + 1):
        await append(connection, tables, str(stop_at))
        before = (await exact(connection, tables))["app:n"].count
        with stopping(dsn, tables.prefix, stop_at=stop_at, how=signal.SIGKILL, work=count) as process:
            await anyio.to_thread.run_sync(process.join, 20)
            died = process.exitcode
        found = (await exact(connection, tables))["app:n"].count
        expected += 2

        assert died == -signal.SIGKILL, stop_at
        assert found in (before, expected)
    await caught_up(connection, tables)
    await sequence_and_fold(connection, tables)

    assert (await exact(connection, tables))["app:n"].count == expected
    assert without_sketches(await exact(connection, tables)) == await added_up(connection, tables)


async def test_killed_before_any_round_trip_while_they_are_built_they_are_built_once(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await make_history(connection, tables, batches=6)
    stop_at, kills = 1, 0
    while not await exact(connection, tables):
        with stopping(dsn, tables.prefix, stop_at=stop_at, how=signal.SIGKILL, work=count) as process:
            await anyio.to_thread.run_sync(process.join, 20)
            killed = process.exitcode == -signal.SIGKILL
        kills += killed
        # One trip later each time, until a step gets through; then the next step is killed at its first.
        stop_at = stop_at + 1 if killed else 1

    assert kills > 40
    assert without_sketches(await exact(connection, tables)) == await added_up(connection, tables)
    assert await fetch(connection, "SELECT count(*) FROM {versions} WHERE version > 1", tables) == [(1,)]


async def test_while_one_is_frozen_readers_are_answered_soon_and_after_it_all_is_counted(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    trips = await step_trips(connection, tables)
    expected, took_s = 4, []
    async with an_app(dsn) as (chancy, _), connections(dsn, 1) as (other,):
        await read_totals(chancy)
        for stop_at in range(trips, 1, -3):
            await append(connection, tables, str(stop_at))
            with stopping(dsn, tables.prefix, stop_at=stop_at, how=signal.SIGSTOP, idle_ms=500, work=count) as process:
                await eventually(lambda: is_frozen(process), within_s=60)
                started = time.monotonic()
                totals = await read_totals(chancy)
                took_s.append(time.monotonic() - started)
                seen = next(one.count for one in totals.series if one.series.key == "app:n")
                assert seen in (expected, expected + 2)

                async def is_counted() -> bool:
                    await advance_totals(other, tables, BUILT_IN, folded_by="test")
                    return (await exact(connection, tables))["app:n"].count == expected + 2  # noqa: B023

                await eventually(is_counted)
            expected += 2

    assert max(took_s) < 2
