"""Thirty days with late events across them, pruned day by day, and rebuilt after each of them: nothing differs."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, time, timedelta

from chancy import Chancy

from chancy_metrics.events.batch import ObservationRun
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.facts import JobRow
from chancy_metrics.events.log import append
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.rebuilds.rebuild import Rebuilt, rebuild
from chancy_metrics.plugin.worker.retention import prune_days
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.versions.compare import compare
from chancy_metrics.projections.versions.create import drop_version
from chancy_metrics.projections.versions.expiry import drop_versions, expire
from chancy_metrics.projections.versions.version import read_version
from tests.factories import LogWriter, a_row, a_run, an_app, fetch, now_us
from tests.faults.history import WORKERS, assert_equals_replay, catch_up

DAYS = 30
DAY_S = 86_400
FIRST = datetime.now(UTC).date() - timedelta(days=DAYS)
#: Raw events are kept for so many days; the numbers for 5, 12, 20 and 90.
RAW_DAYS = 3
POINTS = {"1min": 5 * 1_440, "5min": 12 * 288, "1hour": 20 * 24, "1day": 90}
#: How many days late an event is: into days that are raw, pruned, below a horizon, below the last one.
LATE_DAYS = (0, 0, 0, 0, 1, 1, 2, 4, 7, 13, 25, 100)


def some_facts(chance: random.Random, day: date) -> tuple[list[JobRow], list[ObservationRun]]:
    """Facts that reach the log on *day*, and happened then or long before."""
    start_us = int(datetime.combine(day, time(), UTC).timestamp()) * 1_000_000

    def at_us() -> int:
        return (
            start_us
            + chance.choice((0, 1, 43_199, 43_200, 86_399)) * 1_000_000
            - chance.choice(LATE_DAYS) * (DAY_S * 1_000_000)
        )

    jobs = [a_row(at_us(), state=chance.choice(("succeeded", "failed"))) for _ in range(3)]
    kinds = (("app:n", "counter", 0.1), ("app:level", "gauge", 7.0), ("app:size", "histogram", 1e-9))
    return jobs, [
        a_run(key, [chance.random() * scale, scale], kind=kind, at_us=at_us())  # type: ignore[arg-type]
        for key, kind, scale in kinds
    ]


async def live_a_day(
    connection: Connection, tables: Tables, writers: list[LogWriter], chance: random.Random, day: date
) -> None:
    await make_days(connection, tables, today=day, ahead=0)
    for _ in range(chance.randint(1, 4)):
        writer = chance.choice(writers)
        async with short_transaction(connection) as cursor:
            await append(cursor, tables, writer.next_id(day), encode(*some_facts(chance, day)), worker=writer.worker)


async def prune_to(connection: Connection, tables: Tables, day: date) -> None:
    """Let what is older go as it would at noon of the day after *day*'s last raw one."""
    noon = datetime.combine(day + timedelta(days=RAW_DAYS + 1), time(12), UTC)
    [pruned] = await prune_days(
        connection,
        tables,
        BUILT_IN,
        now_us=int(noon.timestamp() * 1_000_000),
        log_retention_s=RAW_DAYS * DAY_S,
    )
    assert (pruned.day, pruned.state, pruned.blocker) == (day, "gone", None)


async def rebuild_and_compare(chancy: Chancy, connection: Connection, tables: Tables) -> Rebuilt:
    """Rebuild, and compare with the first version too, which was never made again."""
    done = await rebuild(chancy)
    assert (done.differences, done.swapped) == ([], True)
    await catch_up(connection, tables, BUILT_IN, 1, done.version)
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        first, made = await read_version(cursor, tables, 1), await read_version(cursor, tables, done.version)
        assert first is not None and made is not None and first.position == made.position
        found = await compare(cursor, tables, first, made)
    assert (found.different, found.differences) == (0, [])
    assert found.points >= done.points > 0
    if done.replaced != 1:
        assert await drop_version(connection, tables, done.replaced)
        await drop_versions(connection, tables, now_us=now_us())
    return done


async def test_thirty_days_are_pruned_one_by_one_and_rebuilt_after_each_and_nothing_differs(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    chance = random.Random(30)
    writers = [LogWriter(connection, tables, worker) for worker in WORKERS]
    await expire(connection, tables, horizons(now_us(), POINTS, 90 * DAY_S))
    rebuilds = []
    async with an_app(dsn, Metrics(max_points_per_resolution=POINTS)) as (chancy, _):  # type: ignore[arg-type]
        for number in range(DAYS + RAW_DAYS):
            day = FIRST + timedelta(days=number)
            if number < DAYS:
                await live_a_day(connection, tables, writers, chance, day)
                await catch_up(connection, tables, BUILT_IN, *{1, *(one.version for one in rebuilds[-1:])})
            if number >= RAW_DAYS:
                await prune_to(connection, tables, day - timedelta(days=RAW_DAYS))
                rebuilds.append(await rebuild_and_compare(chancy, connection, tables))
                await expire(connection, tables, horizons(now_us(), POINTS, 90 * DAY_S))

    assert len(rebuilds) == DAYS
    assert await fetch(connection, "SELECT count(*) FROM {log}", tables) == [(0,)]
    assert rebuilds[-1].events == 0 and rebuilds[-1].points > 300
    for resolution in RESOLUTIONS:
        opened = f"SELECT count(*) > 10 FROM {{r{resolution}}} WHERE version = 0"
        assert await fetch(connection, opened, tables) == [(True,)], resolution
    [(expired,)] = await fetch(connection, "SELECT counts ->> 'expired' FROM {versions} WHERE version = 1", tables)
    assert int(expired) > 10
    await assert_equals_replay(connection, tables)
