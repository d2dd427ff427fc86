"""Measure how late timers of a leading worker's event loop are while 10,000 events/s are appended and folded.

Against the same worker without a metrics plugin.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain

from chancy import Chancy, Worker
from chancy.plugin import Plugin
from chancy.plugins.leadership import ImmediateLeadership

from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.folding.projector import fold_all

from .database import Databases, Producer, an_app, ask, connections
from .facts import batches_of, job_rows
from .harness import Row, Size, Target, by_turns, check, percentile

_MS = 1_000
_BATCH = 200
_TICK_S = 0.002
_FOLDED = """
SELECT coalesce(sum(r.count), 0)::bigint
FROM chancy_metrics_1day r
JOIN chancy_metrics_series s
    ON s.id = r.series
WHERE starts_with(s.key, 'global:status:')
"""


async def run(pool: Databases, size: Size) -> list[Row]:
    seconds, settle_s, rounds = size.of(8, 1), size.of(3, 1), size.of(4, 1)
    events_per_s = size.of(10_000, 1_000)
    samples: dict[str, list[list[float]]] = {"with": [], "without": []}
    folded: list[float] = []
    with pool.database() as dsn:
        async with an_app(dsn) as outside, connections(dsn, 1) as (connection,):

            async def with_plugin() -> float:
                async with _running(dsn, Metrics(sync_interval=1)), _load(dsn, events_per_s):
                    await asyncio.sleep(settle_s)
                    before = await ask(connection, _FOLDED)
                    delays = await delays_for(seconds)
                    folded.append((await ask(connection, _FOLDED) - before) / seconds)
                samples["with"].append(delays)
                return percentile(delays, 0.99)

            async def without() -> float:
                async with _running(dsn), _load(dsn, events_per_s):
                    await asyncio.sleep(settle_s)
                    delays = await delays_for(seconds)
                samples["without"].append(delays)
                await fold_all(outside)  # the next turn of the plugin is not to catch up
                return percentile(delays, 0.99)

            await by_turns(rounds, {"with": with_plugin, "without": without})
    rate = statistics.mean(folded[1:])
    if not size.smoke and rate < events_per_s / 2:
        raise RuntimeError(f"benchmark broken: {rate:.0f} events/s were folded, {events_per_s} appended")
    rows = []
    for q, name in ((0.99, "p99"), (0.5, "median")):
        # The first turn of each is not counted.
        ours, floor = (percentile(list(chain(*samples[side][1:])), q) * _MS for side in ("with", "without"))
        target = Target("difference", "<=", 5, "<= +5 ms") if q == 0.99 else None
        work = f"event-loop delay, {name}, folding {rate:,.0f} events/s"
        rows.append(Row("delay", work, ours, "ms", "p99" if q == 0.99 else "median", floor, "no plugin", target))
    return rows


async def delays_for(seconds: float) -> list[float]:
    """How late a timer that is due every tick comes; while the loop stands still, all those due meanwhile are late."""
    found = []
    started = time.perf_counter()
    for number in range(int(seconds / _TICK_S)):
        due = started + number * _TICK_S
        if (left := due - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        found.append(time.perf_counter() - due)
    return found


@asynccontextmanager
async def _running(dsn: str, *plugins: Plugin) -> AsyncIterator[Chancy]:
    leadership = ImmediateLeadership()  # type: ignore[no-untyped-call] # Chancy's has no types
    async with (
        an_app(dsn, leadership, *plugins) as chancy,
        Worker(chancy, register_signal_handlers=False),
    ):
        yield chancy


@asynccontextmanager
async def _load(dsn: str, events_per_s: int) -> AsyncIterator[None]:
    """A process that appends job updates for the length of a block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.delay", dsn, str(events_per_s), stdout=PIPE
    )
    assert process.stdout is not None
    try:
        check("the load's first word", await process.stdout.readline(), b"ready\n")
        yield
        check("the load's exit", process.returncode, None)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _append_for_ever(dsn: str, events_per_s: int) -> None:
    rows = job_rows(events_per_s, until_us=time.time_ns() // 1_000, per_second=events_per_s)
    batches = batches_of(rows, _BATCH)
    async with connections(dsn, 1) as (connection,):
        producers = [Producer(connection, worker=f"worker-{number}") for number in range(4)]
        print("ready", flush=True)
        due = time.monotonic()
        number = 0
        while True:
            await producers[number % len(producers)].append([batches[number % len(batches)]])
            number += 1
            due += _BATCH / events_per_s
            await asyncio.sleep(max(0, due - time.monotonic()))


if __name__ == "__main__":
    asyncio.run(_append_for_ever(sys.argv[1], int(sys.argv[2])))
