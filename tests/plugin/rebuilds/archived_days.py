"""Three days that left the log, and rebuilds from their archives."""

from __future__ import annotations

import uuid
from concurrent.futures import Executor
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from chancy_metrics.events.batch import BatchId
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.ledger import read_ledger
from chancy_metrics.events.log import append, read_batches
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics, prune, rebuild
from chancy_metrics.plugin.rebuilds.rebuild import Rebuilt
from chancy_metrics.projections.fold.fold import fold
from chancy_metrics.projections.fold.levels import projection_of
from chancy_metrics.projections.fold.points import Point, diff, points_of
from chancy_metrics.projections.rules.rule_set import RuleSet
from chancy_metrics.projections.versions.replay import replay, stored
from chancy_metrics.projections.versions.version import live_version
from tests.factories import a_row, a_run, an_app, sequence_and_fold
from tests.rules import first

TODAY = datetime.now(UTC).date()
DAYS = [TODAY - timedelta(days=ago) for ago in (5, 4, 3)]
HOUR_US = 3_600_000_000


def keep_from(day: date) -> float:
    """The retention, in seconds, by which *day* is the first that stays."""
    return (datetime.now(UTC) - datetime.combine(day, time(12), UTC)).total_seconds()


def noon(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()) * 1_000_000


async def add(connection: Connection, tables: Tables, day: date, worker: str, *, late_us: int = 0) -> None:
    at = noon(day) - late_us
    runs = [
        a_run("app:n", [1.0, 0.1], at_us=at),
        a_run("app:t", [0.5, 3.0], kind="histogram", unit="s", at_us=at + 60_000_000),
        a_run("app:g", [7.0], kind="gauge", unit="x", at_us=at),
    ]
    async with short_transaction(connection) as cursor:
        batch = encode([a_row(at), a_row(at + 1_000_000)], runs, counts={"dropped": 2})
        await append(cursor, tables, BatchId(day, uuid.uuid4(), 1), batch, worker=worker, closes=True)


class Log:
    """All batches of a log, before any left it."""

    def __init__(self, batches: list[Any]) -> None:
        self._batches = batches

    def points(self, rules: RuleSet, since: dict[str, int]) -> list[Point]:
        return points_of(projection_of(fold(self._batches, rules, since), since), since)


async def a_log(connection: Connection, tables: Tables) -> Log:
    await make_days(connection, tables, today=DAYS[0], ahead=5)
    for number, day in enumerate(DAYS):
        for worker in ("w1", "w2"):
            await add(connection, tables, day, worker, late_us=number * 20 * HOUR_US)
    await add(connection, tables, TODAY, "w1")
    await sequence_and_fold(connection, tables)
    return await read_log(connection, tables)


async def read_log(connection: Connection, tables: Tables) -> Log:
    async with short_transaction(connection) as cursor:
        rows = await read_ledger(cursor, tables, after=0, limit=100)
        return Log(await read_batches(cursor, tables, [(row.position, row.batch_id) for row in rows]))


def plain() -> Metrics:
    return Metrics(sync_interval=1)


def newer() -> Metrics:
    return Metrics(sync_interval=1, rules=[first], rules_version=1)


async def prune_all(dsn: str, folder: Path) -> None:
    async with an_app(dsn, plain()) as (chancy, _):
        pruned = await prune(chancy, archive=folder, keep_s=86_400)
    assert [one.blocker for one in pruned] == [None] * len(pruned)
    assert {one.day for one in pruned} >= set(DAYS)


async def from_archives(dsn: str, place: Path | str, executor: Executor | None = None) -> Rebuilt:
    async with an_app(dsn, newer()) as (chancy, _):
        return await rebuild(chancy, archive=place, executor=executor)


async def live_points(connection: Connection, tables: Tables) -> tuple[list[Point], dict[str, int]]:
    async with short_transaction(connection) as cursor:
        live = await live_version(cursor, tables)
    return await stored(connection, tables), live.horizons


async def assert_exact(connection: Connection, tables: Tables, log: Log, rules: RuleSet) -> None:
    points, horizons = await live_points(connection, tables)
    of_jobs = [one for one in points if not one.series.key.startswith("metrics:")]
    assert diff(log.points(rules, horizons), of_jobs) == []
    assert diff(points, await replay(connection, tables, rules)) == []


RULES = newer().options.rules


class Killed(BaseException):
    """The process is gone."""
