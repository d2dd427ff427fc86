"""Measure the delay from a counter's increment in one process to its sum in another, with sync_interval=1.

A third process folds.
"""

from __future__ import annotations

import asyncio
import bisect
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chancy import Chancy, Worker
from chancy.plugins.leadership import ImmediateLeadership

from chancy_metrics.plugin import Metrics

from .database import Databases, an_app
from .harness import Row, Size, Statistic, Target, check, percentile

_KEY = "bench:fresh"
_EVERY_S = 0.02
_POLL_S = 0.004
_LATEST_S = 20


async def run(pool: Databases, size: Size) -> list[Row]:
    rows = []
    settings = ((0.25, Target("ours", "<=", 1.5, "<= 1.5 s")), (1.0, None))
    for append_interval, target in settings[: size.of(2, 1)]:
        ages = await _measure(pool, size, append_interval)
        figures: list[tuple[Statistic, float, Target | None]] = [("median", 0.5, None), ("p99", 0.99, target)]
        for name, q, goal in figures:
            work = f"recorded here, read there, {name}, append_interval={append_interval:g}"
            rows.append(Row("freshness", work, percentile(ages, q), "s", name, target=goal))
    return rows


async def _measure(pool: Databases, size: Size, append_interval: float) -> list[float]:
    """Ages of all increments when they were first seen, by recorders whose timers start at different phases."""
    seconds, recorders = size.of(6, 2), size.of(6, 1)
    metrics = Metrics(sync_interval=1)
    ages: list[float] = []
    with pool.database() as dsn:
        async with _process("lead", dsn) as leader, an_app(dsn, metrics) as chancy:
            await _line(leader)
            async with Worker(chancy, register_signal_handlers=False):
                for number in range(recorders):
                    await asyncio.sleep(number / recorders)
                    async with _process("record", dsn, str(append_interval), str(seconds)) as recorder:
                        ages += await _ages(metrics, chancy, recorder, seen=len(ages))
    return ages


async def _ages(metrics: Metrics, chancy: Chancy, recorder: Process, *, seen: int) -> list[float]:
    """Watch the counter until all of the recorder's increments have come; clocks are the machine's monotonic one."""
    answer = asyncio.create_task(_line(recorder))
    sightings: list[tuple[int, float]] = []
    deadline = time.monotonic() + 60
    while not answer.done() or sightings[-1][0] < seen + len(json.loads(answer.result())):
        total = round(await _total(metrics, chancy))
        if not sightings or total > sightings[-1][0]:
            sightings.append((total, time.monotonic()))
        if time.monotonic() > deadline:
            raise RuntimeError(f"benchmark broken: only {sightings[-1:]} was seen")
        await asyncio.sleep(_POLL_S)
    stamps = json.loads(answer.result())
    check("increments seen", sightings[-1][0], seen + len(stamps))
    totals = [total for total, _ in sightings]
    return [
        sightings[bisect.bisect_left(totals, seen + number)][1] - stamp for number, stamp in enumerate(stamps, start=1)
    ]


async def _total(metrics: Metrics, chancy: Chancy) -> float:
    found = await metrics.get_metrics(chancy, _KEY)
    if _KEY not in found:
        return 0.0
    return sum(value for _, value in found[_KEY].values_1day if not isinstance(value, dict))


async def _lead(dsn: str) -> None:
    leadership = ImmediateLeadership()  # type: ignore[no-untyped-call] # Chancy's has no types
    async with (
        an_app(dsn, leadership, Metrics(sync_interval=1)) as chancy,
        Worker(chancy, register_signal_handlers=False),
    ):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)  # until the parent closes it, or ends


async def _record(dsn: str, append_interval: float, seconds: float) -> None:
    """Increment for so long; then print the time of each increment, when the last one has been appended."""
    metrics = Metrics(sync_interval=1, append_interval=append_interval)
    stamps = []
    async with an_app(dsn, metrics) as chancy, Worker(chancy, register_signal_handlers=False):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            stamps.append(time.monotonic())
            await metrics.increment_counter(_KEY, 1)
            await asyncio.sleep(_EVERY_S)
        print(json.dumps(stamps), flush=True)
        # A stop would append at once; the last increments are to wait like the others.
        await asyncio.sleep(append_interval * 2)


@asynccontextmanager
async def _process(*arguments: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.freshness", *arguments, stdin=PIPE, stdout=PIPE, limit=1 << 24
    )
    try:
        yield process
    finally:
        await process.communicate(b"")  # which closes its stdin: it stops like any worker


async def _line(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(_LATEST_S):
        return (await process.stdout.readline()).decode()


if __name__ == "__main__":
    role, dsn, *numbers = sys.argv[1:]
    asyncio.run(_lead(dsn) if role == "lead" else _record(dsn, *map(float, numbers)))
