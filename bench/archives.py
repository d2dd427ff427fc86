"""Measure a rebuild of days that left the log, from their archives.

Against folding the same events in memory, and by two processes against one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from chancy import Chancy

from chancy_metrics.events.batch import EncodedBatch
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.host.options import DAY_S, DEFAULT_POINTS
from chancy_metrics.plugin.parallel.executors import process_pool
from chancy_metrics.plugin.rebuilds.rebuild import rebuild
from chancy_metrics.plugin.worker.retention import prune_days
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.fold.fold import fold
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.expiry import expire
from chancy_metrics.projections.versions.step import REBUILD_STEP_EVENTS

from .database import Databases, Producer, an_app, connections, sequence_all
from .facts import batches_of, job_rows, log_batches
from .harness import Row, Size, check
from .parallel import start_processes

#: How long ago the first day is; the next ones follow it.
_DAYS_AGO = 60
_TABLES = tables_for("chancy_")


async def run(pool: Databases, size: Size) -> list[Row]:
    events, days = size.of(500_000, 5_000), size.of(4, 2)
    first = (datetime.now(UTC) - timedelta(days=_DAYS_AGO)).date()
    folded_s = 0.0
    with pool.database() as dsn, tempfile.TemporaryDirectory() as folder:
        async with connections(dsn, 1, prepared=False) as (connection,), an_app(dsn, Metrics()) as chancy:
            await expire(connection, _TABLES, horizons(time.time_ns() // 1_000, DEFAULT_POINTS, 90 * DAY_S))
            for day in (first + timedelta(days=number) for number in range(days)):
                evening_us = int(datetime(day.year, day.month, day.day, 23, 59, tzinfo=UTC).timestamp()) * 1_000_000
                rows = job_rows(events, until_us=evening_us, per_second=max(1, events // DAY_S + 1))
                encoded = batches_of(rows, 1_000)
                folded_s += _folded(encoded)
                await make_days(connection, _TABLES, today=day, ahead=0)
                await Producer(connection).append(encoded)
                await sequence_all(connection, _TABLES)
                while not (
                    await advance(
                        *(connection, _TABLES), folded_by="bench", rules=BUILT_IN, step_events=REBUILD_STEP_EVENTS
                    )
                ).caught_up:
                    pass
                now_us = time.time_ns() // 1_000
                pruned = await prune_days(
                    *(connection, _TABLES, BUILT_IN),
                    now_us=now_us,
                    log_retention_s=30 * DAY_S,
                    archive=Path(folder),
                )
                check("days gone", [(one.day, one.state) for one in pruned], [(day, "gone")])
            with process_pool(2) as two:
                await start_processes(two)
                one_s, two_s = [await _rebuilt(chancy, folder, days, executor) for executor in (None, two)]
    work = f"rebuild(archive=) of {days} days of {events // 1000}k job updates, compared and swapped"
    by_one, by_two, in_memory = (days * events / took for took in (one_s, two_s, folded_s))
    return [
        Row("archives", work, by_one, "events/s", "min", in_memory, "fold in memory"),
        Row("archives", f"{work}, by 2 processes", by_two, "events/s", "min", by_one, "one process"),
    ]


async def _rebuilt(chancy: Chancy, folder: str, days: int, executor: Executor | None) -> float:
    started = time.perf_counter()
    done = await rebuild(chancy, archive=folder, executor=executor)
    took = time.perf_counter() - started
    check("days folded", done.archives and len(done.archives.folded), days)
    check("differences", done.different, 0)
    return took


def _folded(encoded: Sequence[EncodedBatch]) -> float:
    batches = log_batches(encoded, workers=1)
    started = time.perf_counter()
    for start in range(0, len(batches), 50):
        fold(batches[start : start + 50])
    return time.perf_counter() - started
