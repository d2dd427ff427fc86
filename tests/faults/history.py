"""A history in the log and in the baseline, and a load that goes on while something is done to it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import anyio
import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from chancy_metrics.events.batch import ObservationRun
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.facts import JobRow
from chancy_metrics.events.log import append
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.events.sequencer import sequence
from chancy_metrics.plugin.worker.retention import prune_days
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.rules.rule_set import BUILT_IN, RuleSet
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.outcome import Outcome
from chancy_metrics.projections.versions.replay import replay, stored
from chancy_metrics.projections.versions.version import read_version
from tests.factories import LogWriter, a_row, a_run, connections, fetch, now_us, sequence_and_fold

MINUTE_US = 60_000_000
TWENTY_MINUTES_US = 20 * MINUTE_US
DAY_S = 86_400
KEPT_US = 2 * DAY_S * 1_000_000
WORKERS = ("worker-a", "worker-b", "worker-c")


def some_facts(chance: random.Random, how_many: int) -> tuple[list[JobRow], list[ObservationRun]]:
    """Facts of every kind from the last two days, gauges with equal times and sums with many digits among them."""
    steps = KEPT_US // TWENTY_MINUTES_US
    now = now_us() // MINUTE_US * MINUTE_US
    times = [now - chance.randrange(steps) * TWENTY_MINUTES_US for _ in range(max(1, how_many // 5))]
    jobs = [a_row(at_us, state=chance.choice(("succeeded", "failed"))) for at_us in times]
    kinds = (("app:n", "counter", 0.1), ("app:level", "gauge", 7.0), ("app:size", "histogram", 1e-9))
    return jobs, [
        a_run(key, [chance.random() * scale], kind=kind, at_us=at_us)  # type: ignore[arg-type]
        for at_us in times
        for key, kind, scale in kinds
    ]


async def make_history(connection: Connection, tables: Tables, *, batches: int = 40, seed: int = 1) -> None:
    """Fold so many batches of a hundred facts, and let as many before them go into the baseline."""
    chance = random.Random(seed)
    gone = datetime.now(UTC).date() - timedelta(days=3)
    await make_days(connection, tables, today=gone, ahead=0)
    writers = [LogWriter(connection, tables, worker) for worker in WORKERS]
    for day in (gone, None):
        for number in range(batches):
            writer = writers[number % len(writers)]
            batch = encode(*some_facts(chance, 100))
            async with short_transaction(connection) as cursor:
                await append(cursor, tables, writer.next_id(day), batch, worker=writer.worker)
    await sequence_and_fold(connection, tables)
    [pruned] = await prune_days(connection, tables, BUILT_IN, now_us=now_us(), log_retention_s=DAY_S)
    assert pruned.state == "gone", pruned.blocker


class Load:
    """What a load has done so far.

    Attributes:
        appended: Batches whose commit was answered.
        folds: Steps of the live version.
    """

    def __init__(self, dsn: str, tables: Tables, *, facts: int, pause_s: float) -> None:
        self.appended = 0
        self.folds = 0
        self.ends = False
        self._dsn = dsn
        self._tables = tables
        self._facts = facts
        self._pause_s = pause_s

    async def append(self, connection: Connection) -> None:
        chance = random.Random(self.appended)
        writer = LogWriter(connection, self._tables, "worker-live")
        while not self.ends:
            jobs, runs = some_facts(chance, self._facts)
            await writer.append(jobs=jobs, runs=runs)
            self.appended += 1
            await anyio.sleep(self._pause_s)

    async def fold(self, connection: Connection, rules: RuleSet) -> None:
        while not self.ends:
            await sequence(connection, self._tables)
            done = await advance(connection, self._tables, folded_by=f"live {rules.pair}", rules=rules)
            self.folds += done.events > 0
            await anyio.sleep(self._pause_s)

    async def outlive(self, work: Callable[[Connection], Awaitable[None]]) -> None:
        """Do *work* on a new connection whenever the server has been away."""
        while not self.ends:
            try:
                async with connections(self._dsn, 1) as (connection,):
                    await work(connection)
            except psycopg.Error:
                await anyio.sleep(self._pause_s)


@asynccontextmanager
async def live_load(
    dsn: str,
    tables: Tables,
    *,
    rules: Sequence[RuleSet] = (BUILT_IN,),
    facts: int = 10,
    pause_s: float = 0.05,
) -> AsyncIterator[Load]:
    """Append and fold all through a block, also after the server was away.

    Args:
        rules: Of those who fold side by side; as in life, only code with the live version's rules can.
    """
    load = Load(dsn, tables, facts=facts, pause_s=pause_s)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(load.outlive, load.append)
        for mine in rules:
            tasks.start_soon(load.outlive, partial(load.fold, rules=mine))
        try:
            yield load
        finally:
            load.ends = True


async def catch_up(connection: Connection, tables: Tables, rules: RuleSet, *versions: int) -> None:
    """Order what is there and fold it into *versions*."""
    while (await sequence(connection, tables)).batches:
        pass
    for version in versions:
        while not (done := await advance(connection, tables, folded_by="test", rules=rules, version=version)).caught_up:
            assert done.outcome is not Outcome.REFUSED, done.reason


async def assert_same_bytes(connection: Connection, tables: Tables, one: int, other: int) -> None:
    """Two versions at one position have the same rows, every column and byte, where both keep them."""
    assert await rows_of(connection, tables, one, other) == await rows_of(connection, tables, other, one)
    [(same, many)] = await fetch(
        connection,
        "SELECT count(DISTINCT position) = 1, count(*) FROM {versions} WHERE version IN (%(one)s, %(other)s)",
        tables,
        one=one,
        other=other,
    )
    assert (same, many) == (True, 2)


async def rows_of(connection: Connection, tables: Tables, version: int, beside: int) -> dict[str, list[TupleRow]]:
    """All rows of *version* past its horizons and those of *beside*, as text, which tells 1.0 from 1.00."""
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        both = [await read_version(cursor, tables, number) for number in (version, beside)]
        found = {}
        for resolution in RESOLUTIONS:
            await cursor.execute(
                sql.SQL(
                    "SELECT (r.*)::text FROM (SELECT series, bucket, count, last_us, sum, min, max, last,"
                    " last_position, last_index, p50, p95, p99, sketch FROM {rollup}"
                    " WHERE version = %(version)s AND bucket >= %(horizon)s) AS r ORDER BY series, bucket"
                ).format(rollup=tables.rollup(resolution)),
                {"version": version, "horizon": max(one.horizons[resolution] for one in both if one)},
            )
            found[resolution] = await cursor.fetchall()
    assert all(found.values())
    return found


async def assert_equals_replay(connection: Connection, tables: Tables, rules: RuleSet = BUILT_IN) -> None:
    assert [str(one) for one in diff(await stored(connection, tables), await replay(connection, tables, rules))] == []
