"""A whole rebuild, from making the version to the swap, against folding the same log in memory and decoding it."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from chancy_metrics.events.codec import decode
from chancy_metrics.events.log import LogBatch
from chancy_metrics.events.schema import tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.rebuild import rebuild
from chancy_metrics.projections.advance import advance
from chancy_metrics.projections.fold import fold

from .database import Databases, Producer, an_app, ask, connections, order
from .facts import batches_of, job_rows, log_batches
from .harness import Row, Size, at_least, check

#: Job updates a second of the whole cluster: a million of them take about a quarter of an hour.
_PER_SECOND = 1_000
_BATCH = 1_000


async def run(pool: Databases, size: Size) -> list[Row]:
    events = size.of(1_000_000, 20_000)
    rows = job_rows(events, until_us=time.time_ns() // 1_000 - 60_000_000, per_second=_PER_SECOND)
    encoded = batches_of(rows, _BATCH)
    in_memory = log_batches(encoded, workers=1)
    del rows
    with pool.database() as dsn:
        async with connections(dsn, 1, prepared=False) as (connection,):
            await Producer(connection).append(encoded)
            check("batches ordered", await order(connection, tables("chancy_")), len(encoded))
            live = await _live(connection)
            check("events in the live version", await _counted(connection), events)
            rebuilds: list[float] = []
            cpu: list[float] = []
            for _ in range(size.of(3, 1)):
                cpu_before = time.process_time()
                async with an_app(dsn, Metrics()) as chancy:
                    done = await rebuild(chancy)
                rebuilds.append(done.seconds)
                cpu.append(time.process_time() - cpu_before)
                check("events rebuilt, points that differ", (done.events, done.different), (events, 0))
                check("events in the rebuilt version", await _counted(connection), events)
    decoded, folded = _decoded(in_memory), _folded(in_memory)
    best, best_cpu = min(rebuilds), min(cpu)
    work = f"rebuild of {events // 1000:,}k job updates, compared and swapped"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        Row("rebuild", work, events / best, "events/s", "min", events / folded, "fold in memory", at_least(0.4)),
        Row(
            "rebuild",
            "of that, by the CPU time of our process",
            events / best_cpu,
            "events/s",
            "min",
            events / folded,
            "fold in memory",
        ),
        Row("rebuild", work, events / best, "events/s", "min", events / decoded, "decoding alone"),
        Row("rebuild", work, events / best, "events/s", "min", events / live, "live folding of the same"),
        Row("rebuild", "peak memory of this process", peak, "MB", "min"),
    ]


async def _live(connection: AsyncConnection[TupleRow]) -> float:
    started = time.perf_counter()
    while not (await advance(connection, tables("chancy_"), folder="bench")).caught_up:
        pass
    return time.perf_counter() - started


async def _counted(connection: AsyncConnection[TupleRow]) -> int:
    query = """
        SELECT sum(r.count)::bigint
        FROM chancy_metrics_1day r
        JOIN chancy_metrics_series s ON s.id = r.series
        WHERE r.worker = 0 AND r.version = (SELECT live FROM chancy_metrics_head)
            AND starts_with(s.key, 'global:status:')
    """
    return int(await ask(connection, query))


def _folded(batches: Sequence[LogBatch]) -> float:
    started = time.perf_counter()
    for start in range(0, len(batches), 10):
        fold(batches[start : start + 10])
    return time.perf_counter() - started


def _decoded(batches: Sequence[LogBatch]) -> float:
    started = time.perf_counter()
    for batch in batches:
        decode(batch.codec, batch.payload, batch.sha256, batch.events)
    return time.perf_counter() - started
