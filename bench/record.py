"""Measure one custom observation, validated and awaited in a running session.

Against the same call of the built-in plugin, and of prometheus_client with a label.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from chancy import Chancy
from chancy.plugins.metrics import Metrics as BuiltIn
from prometheus_client import CollectorRegistry, Counter, Histogram

from chancy_metrics.plugin import Metrics

from .database import Databases, a_worker
from .harness import Row, Size, Turn, at_most, best, by_turns, check

_KEYS = 20
_NS = 1_000_000_000


async def run(pool: Databases, size: Size) -> list[Row]:
    calls, slow_calls = size.of(10_000, 400), size.of(1_000, 200)
    rounds = size.of(40, 2)
    with pool.database() as dsn:
        # Nothing is appended but by flush(): the turns measure the calls, and what they leave to be done comes after.
        ours, built_in = Metrics(append_interval=3600, sync_interval=3600), BuiltIn()
        async with a_worker(dsn, ours) as worker, a_worker(dsn, built_in) as other:
            registry = CollectorRegistry()
            counter = Counter("bench_counter", "-", ["name"], registry=registry)
            histogram = Histogram("bench_histogram", "-", ["name"], registry=registry)
            keys = [f"bench:key_{number}" for number in range(_KEYS)]
            figures = best(
                await by_turns(
                    rounds,
                    {
                        "counter": _awaited(ours.increment_counter, keys, calls),
                        "built-in counter": _awaited(built_in.increment_counter, keys, slow_calls),
                        "prometheus counter": _called(lambda key: counter.labels(key).inc(1.5), keys, calls),
                        "histogram": _awaited(ours.record_histogram_value, [f"{key}:h" for key in keys], calls),
                        "built-in histogram": _awaited(
                            built_in.record_histogram_value, [f"{key}:h" for key in keys], slow_calls
                        ),
                        "prometheus histogram": _called(lambda key: histogram.labels(key).observe(1.5), keys, calls),
                    },
                )
            )
            turns = rounds + 1
            check("ours", await _counted(ours, worker.chancy), (turns * calls * 1.5, turns * calls))
            check("built-in", await _counted_by(built_in, other.chancy), (turns * slow_calls * 1.5, turns * slow_calls))
            sampled = sum(registry.get_sample_value("bench_counter_total", {"name": key}) or 0 for key in keys)
            check("prometheus_client", sampled, turns * calls * 1.5)
    rows = []
    for kind, call in (("counter", "increment_counter"), ("histogram", "record_histogram_value")):
        for other_name, target in (("built-in", at_most(1 / 40, "<= 1/40")), ("prometheus", at_most(1 / 3, "<= 1/3"))):
            floor = figures[f"{other_name} {kind}"] * _NS
            rows.append(Row("record", call, figures[kind] * _NS, "ns", "min", floor, other_name, target))
    return rows


def _awaited(call: Callable[..., Awaitable[None]], keys: list[str], calls: int) -> Turn:
    async def turn() -> float:
        rounds = range(calls // len(keys))
        started = time.perf_counter()
        for _ in rounds:
            for key in keys:
                await call(key, 1.5)
        return (time.perf_counter() - started) / calls

    return turn


def _called(call: Callable[[str], None], keys: list[str], calls: int) -> Turn:
    async def turn() -> float:
        rounds = range(calls // len(keys))
        started = time.perf_counter()
        for _ in rounds:
            for key in keys:
                call(key)
        return (time.perf_counter() - started) / calls

    return turn


async def _counted(metrics: Metrics, chancy: Chancy) -> tuple[float, int]:
    """Sum of all counters and number of all values in histograms, as a reader sees them."""
    await metrics.flush(chancy)
    total, values = 0.0, 0
    for metric in (await metrics.get_metrics(chancy, "bench")).values():
        for _, value in metric.values_1day:
            if isinstance(value, dict):
                values += int(value["count"])
            else:
                total += value
    return total, values


async def _counted_by(metrics: Any, chancy: Chancy) -> tuple[float, int]:
    await metrics.flush(chancy)
    answer = await metrics.get_metrics(chancy, "bench", resolution="1day")
    summaries = [metric.summary for metric in answer["series"].values()]
    histograms = [summary for summary in summaries if isinstance(summary, dict)]
    return sum(s for s in summaries if not isinstance(s, dict)), sum(int(s["count"]) for s in histograms)
