"""Measure pruning a day, prune_days() from closing it to dropping its partition.

Against folding the same events in memory.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from chancy_metrics.events.batch import EncodedBatch, LogBatch
from chancy_metrics.events.database import Connection
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.host.options import DAY_S, DEFAULT_POINTS
from chancy_metrics.plugin.worker.retention import prune_days
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.fold.fold import fold
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.expiry import expire
from chancy_metrics.projections.versions.step import REBUILD_STEP_EVENTS

from .database import Databases, Producer, ask, connections, sequence_all
from .facts import batches_of, job_rows, log_batches
from .harness import Row, Size, Turn, by_turns, check, middle

#: How long ago the first day is; the next ones follow it.
_DAYS_AGO = 60
_TABLES = tables_for("chancy_")


async def run(pool: Databases, size: Size) -> list[Row]:
    events, batch_size, rounds = size.of(1_000_000, 5_000), 1_000, size.of(3, 1)
    first = (datetime.now(UTC) - timedelta(days=_DAYS_AGO)).date()
    evening_us = int(datetime(first.year, first.month, first.day, 23, 59, tzinfo=UTC).timestamp()) * 1_000_000
    encoded = batches_of(job_rows(events, until_us=evening_us, per_second=max(1, events // DAY_S + 1)), batch_size)
    with pool.database() as dsn:
        async with connections(dsn, 1, prepared=False) as (connection,):
            kept = horizons(time.time_ns() // 1_000, DEFAULT_POINTS, 90 * DAY_S)
            await expire(connection, _TABLES, kept)
            contenders = {
                "prune": _pruned(connection, first, encoded),
                "memory": _folded(log_batches(encoded, workers=1)),
            }
            figures = middle(await by_turns(rounds, contenders))
            counted = """
                SELECT sum(r.count)::bigint FROM chancy_metrics_1day r JOIN chancy_metrics_series s ON s.id = r.series
                WHERE r.version = 0 AND starts_with(s.key, 'global:status:')
            """
            check("events in the baseline", await ask(connection, counted), events * (rounds + 1))
    work = f"prune_days(), a day of {events // 1000}k job updates in batches of {batch_size:,}"
    return [
        Row(
            "prune",
            work,
            events / figures["prune"],
            "events/s",
            "median",
            events / figures["memory"],
            "fold in memory",
        ),
        Row("prune", "the same, in seconds", figures["prune"], "s", "median"),
    ]


def _pruned(connection: Connection, first: date, encoded: Sequence[EncodedBatch]) -> Turn:
    turns = 0

    async def turn() -> float:
        nonlocal turns
        day = first + timedelta(days=turns)
        turns += 1
        await make_days(connection, _TABLES, today=day, ahead=0)
        await Producer(connection).append(encoded)
        check("batches sequenced", await sequence_all(connection, _TABLES), len(encoded))
        while not (
            await advance(connection, _TABLES, folded_by="bench", rules=BUILT_IN, step_events=REBUILD_STEP_EVENTS)
        ).caught_up:
            pass
        started = time.perf_counter()
        pruned = await prune_days(
            connection, _TABLES, BUILT_IN, now_us=time.time_ns() // 1_000, log_retention_s=30 * DAY_S
        )
        took = time.perf_counter() - started
        check("days gone", [(one.day, one.state) for one in pruned], [(day, "gone")])
        return took

    return turn


def _folded(batches: Sequence[LogBatch]) -> Turn:
    async def turn() -> float:
        started = time.perf_counter()
        folded = sum(fold(batches[start : start + 100]).events for start in range(0, len(batches), 100))
        took = time.perf_counter() - started
        check("events folded", folded, sum(batch.events for batch in batches))
        return took

    return turn
