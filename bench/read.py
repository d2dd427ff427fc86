"""Measure reading 1,000 series of eight hours from a warm replica, against the built-in plugin's queries.

The built-in gets ten narrower prefixes, since it answers 100 series at the most.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

from chancy import Chancy
from chancy.plugins.metrics import Metrics as BuiltIn
from chancy.plugins.metrics import metrics as built_in_module

from chancy_metrics.events.batch import ObservationRun
from chancy_metrics.events.codec import encode
from chancy_metrics.events.facts import KINDS, Kind, Series
from chancy_metrics.plugin import Metrics

from .database import Databases, Producer, a_worker, connections
from .harness import Row, Size, Turn, at_most, best, by_turns, check

_MS = 1_000
_PREFIXES = 10
_STEP = timedelta(minutes=5)
_RANGE = {"resolution": "5min", "range_seconds": 86_400}


async def run(pool: Databases, size: Size) -> list[Row]:
    series, points, rounds = size.of(1_000, 100), size.of(96, 6), size.of(20, 1)
    keys = [(f"bench_{number % _PREFIXES}:{number}", KINDS[number % len(KINDS)]) for number in range(series)]
    now = datetime.now(UTC)
    times = [now - _STEP * (points - 1 - step) for step in range(points)]
    ours = Metrics(append_interval=3600, sync_interval=3600)
    built_in: Any = BuiltIn(max_buffered_points=10_000_000)  # Chancy's has no types
    with pool.database() as dsn:
        async with a_worker(dsn, ours) as worker, a_worker(dsn, built_in) as other:
            async with connections(dsn, 1) as (connection,):
                await Producer(connection).append([encode((), _step(keys, at, n)) for n, at in enumerate(times)])
            await ours.flush(worker.chancy)
            await ours.cleanup(worker.chancy)
            for number, at in enumerate(times):
                with mock.patch.object(built_in_module, "utcnow", lambda at=at: at):
                    for index, (key, kind) in enumerate(keys):
                        built_in._record(key, _value(number, index), kind, "number")
            await built_in.flush(other.chancy)

            check("points", await _in_windows(ours, worker.chancy), await _in_windows(built_in, other.chancy))
            await ours.get_metrics(worker.chancy)
            queries = worker.chancy.pool.get_stats().get("requests_num")
            figures = best(
                await by_turns(
                    rounds,
                    {
                        "copy": _timed(lambda: ours.get_metrics(worker.chancy), series),
                        "read out": _timed(lambda: _read_out(ours, worker.chancy), series * points),
                        "windows": _timed(lambda: _windows(ours, worker.chancy), _PREFIXES),
                        "built-in": _timed(lambda: _windows(built_in, other.chancy), _PREFIXES, built_in),
                    },
                )
            )
            check("connections taken by our reads", worker.chancy.pool.get_stats().get("requests_num"), queries)
    floor = figures["built-in"] * _MS
    works = {
        "copy": f"get_metrics(), {series:,} series, points made when looked at",
        "read out": f"the same, and all {series * points:,} 5-minute points looked at",
        "windows": "the same windows as the built-in's answer",
    }
    return [
        Row(
            "read",
            work,
            figures[name] * _MS,
            "ms",
            "min",
            floor,
            "built-in, 10 queries",
            at_most(1 / 100, "<= 1/100") if name == "copy" else None,
        )
        for name, work in works.items()
    ]


def _step(keys: list[tuple[str, Kind]], at: datetime, number: int) -> list[ObservationRun]:
    at_us = int(at.timestamp() * 1_000_000)
    return [
        ObservationRun(Series(key, kind, "number"), [at_us], array("d", [_value(number, index)]))
        for index, (key, kind) in enumerate(keys)
    ]


def _value(number: int, index: int) -> float:
    return float((number * 31 + index * 17) % 1_000)


async def _windows(metrics: Any, chancy: Chancy) -> int:
    for number in range(_PREFIXES):
        await metrics.get_metrics(chancy, f"bench_{number}", **_RANGE)
    return _PREFIXES


async def _in_windows(metrics: Any, chancy: Chancy) -> dict[str, list[Any]]:
    """Key -> (bucket, value) as both answer, without the quantiles only we have."""
    found: dict[str, list[Any]] = {}
    for number in range(_PREFIXES):
        answer = await metrics.get_metrics(chancy, f"bench_{number}", **_RANGE)
        for key, metric in answer["series"].items():
            found[key] = [(point.timestamp, _common(point.value)) for point in metric.data]
    return found


def _common(value: Any) -> Any:
    if isinstance(value, dict):
        return [float(value[name]) for name in ("count", "sum", "avg", "min", "max")]
    return float(value)


async def _read_out(metrics: Metrics, chancy: Chancy) -> int:
    return sum(len(metric.values_5min) for metric in (await metrics.get_metrics(chancy)).values())


def _timed(call: Callable[[], Awaitable[Any]], expected: int, built_in: BuiltIn | None = None) -> Turn:
    async def turn() -> float:
        if built_in is not None:
            built_in._read_cache.clear()  # it keeps answers for 10 s, of up to 50,000 points: fewer than these
        started = time.perf_counter()
        answer = await call()
        took = time.perf_counter() - started
        check("answer", answer if isinstance(answer, int) else len(answer), expected)
        return took

    return turn
