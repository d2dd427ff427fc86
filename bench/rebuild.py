"""Measure a whole rebuild, from creating the version to the swap, and how long events wait for the live version.

Against folding the same log in memory, and against decoding it.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from chancy import Chancy, Worker
from chancy.plugins.leadership import ImmediateLeadership

from chancy_metrics.events.batch import LogBatch
from chancy_metrics.events.codec import decode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.rebuilds.rebuild import rebuild
from chancy_metrics.projections.fold.fold import fold
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.lag import live_lag

from .database import Databases, Producer, an_app, ask, connections, sequence_all
from .facts import batches_of, job_rows, log_batches
from .harness import Row, Size, at_least, check, percentile

#: Job updates a second of the whole cluster: a million of them take about a quarter of an hour.
_PER_SECOND = 1_000
_BATCH = 1_000


async def run(pool: Databases, size: Size) -> list[Row]:
    events = size.of(1_000_000, 20_000)
    encoded = batches_of(
        job_rows(events, until_us=time.time_ns() // 1_000 - 60_000_000, per_second=_PER_SECOND), _BATCH
    )
    in_memory = log_batches(encoded, workers=1)
    with pool.database() as dsn:
        async with connections(dsn, 1, prepared=False) as (connection,):
            await Producer(connection).append(encoded)
            check("batches sequenced", await sequence_all(connection, tables_for("chancy_")), len(encoded))
            live = await _live(connection)
            check("events in the live version", await _counted(connection), events)
            turns = [
                (*await _rebuilt(dsn, connection, events), _folded(in_memory), _decoded(in_memory))
                for _ in range(size.of(5, 1))
            ]
        lags = await _lags(dsn, size)
    took, cpu, folded, decoded = map(min, zip(*turns, strict=True))
    work = f"rebuild of {events // 1000:,}k job updates, compared and swapped"
    floors = {"fold in memory": folded, "decoding alone": decoded, "live folding of the same": live}
    rows = [
        Row(
            *("rebuild", work, events / took, "events/s", "min", events / floor, against),
            at_least(0.5) if against == "fold in memory" else None,
        )
        for against, floor in floors.items()
    ]
    rows.append(
        Row(
            *("rebuild", "of that, by the CPU time of our process", events / cpu, "events/s", "min"),
            *(events / folded, "fold in memory"),
        )
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows.append(Row("rebuild", "peak memory of this process, the log's copy included", peak, "MB", "min"))
    quiet, busy = (percentile(several, 0.99) for several in lags)
    lag = "oldest event waiting for the live version, sync_interval=1"
    rows.append(Row("rebuild", lag, busy, "s", "p99", quiet, "without a rebuild beside it"))
    return rows


async def _rebuilt(dsn: str, connection: Connection, events: int) -> tuple[float, float]:
    """Rebuild once; return seconds, and seconds of this process's CPU."""
    before = time.process_time()
    async with an_app(dsn, Metrics()) as chancy:
        done = await rebuild(chancy)
    cpu_s = time.process_time() - before
    check("events rebuilt, points that differ", (done.events, done.different), (events, 0))
    check("events in the rebuilt version", await _counted(connection), events)
    return done.took_s, cpu_s


async def _lags(dsn: str, size: Size) -> tuple[list[float], list[float]]:
    """Sample how long the oldest event has waited: under load alone, and with rebuilds beside it."""
    with _worker_under_load(dsn):
        async with connections(dsn, 1, prepared=False) as (looking,), an_app(dsn, Metrics(sync_interval=1)) as chancy:
            await asyncio.sleep(size.of(5, 1))
            quiet = await _sample(looking, asyncio.create_task(asyncio.sleep(size.of(10, 2))))
            busy = await _sample(looking, asyncio.create_task(_rebuilds(chancy, size.of(5, 1))))
    return quiet, busy


async def _rebuilds(chancy: Chancy, how_many: int) -> None:
    for _ in range(how_many):
        check("points that differ", (await rebuild(chancy)).different, 0)


async def _sample(connection: Connection, beside: asyncio.Task[None]) -> list[float]:
    lags = []
    while not beside.done():
        async with short_transaction(connection, index_only=True) as cursor:
            lags.append((await live_lag(cursor, tables_for("chancy_"))).waiting_s)
        await asyncio.sleep(0.02)
    await beside
    return lags


@contextmanager
def _worker_under_load(dsn: str) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-m", "bench.rebuild", dsn], stdin=subprocess.PIPE) as process:
        yield
        process.communicate(b"")  # which ends it


async def _work(dsn: str) -> None:
    """Lead and fold every second, and append 5,000 job updates a second, until stdin ends."""
    leadership = ImmediateLeadership()  # type: ignore[no-untyped-call] # Chancy's has no types
    encoded = batches_of(job_rows(200, until_us=time.time_ns() // 1_000, per_second=5_000), 200)
    async with (
        an_app(dsn, leadership, Metrics(sync_interval=1)) as chancy,
        Worker(chancy, register_signal_handlers=False),
        connections(dsn, 1) as (connection,),
    ):
        producer = Producer(connection, worker="load")
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        while not ended.done():
            await producer.append(encoded)
            await asyncio.sleep(0.04)


async def _live(connection: Connection) -> float:
    started = time.perf_counter()
    while not (await advance(connection, tables_for("chancy_"), folded_by="bench")).caught_up:
        pass
    return time.perf_counter() - started


async def _counted(connection: Connection) -> int:
    query = """
        SELECT sum(r.count)::bigint
        FROM chancy_metrics_1day r
        JOIN chancy_metrics_series s ON s.id = r.series
        WHERE r.version = (SELECT live FROM chancy_metrics_head)
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


if __name__ == "__main__":
    asyncio.run(_work(sys.argv[1]))
