"""Measure the memory of a reading process's replica, of series with all their buckets, quantiles included.

Against the lists of tuples that the built-in plugin held up to 0.24, which has no quantiles.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from chancy import Chancy
from psycopg import sql

from chancy_metrics.events.database import Connection
from chancy_metrics.events.facts import Kind
from chancy_metrics.events.schema import RESOLUTIONS, tables_for
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.host.options import DEFAULT_POINTS

from .database import Databases, an_app, connections
from .harness import Row, Size, Turn, at_most, best, by_turns, check

_TABLES = tables_for("chancy_")
_KB = 1_024
_POINTS = sum(DEFAULT_POINTS.values())
#: Ours has three more values in each.
_WORKS: dict[Kind, str] = {
    "histogram": "a histogram with quantiles",
    "counter": "a counter",
}


async def run(pool: Databases, size: Size) -> list[Row]:
    series, rounds = size.of(50, 3), size.of(2, 1)
    rows = []
    for kind, work in _WORKS.items():
        with pool.database() as dsn:
            async with connections(dsn, 1) as (connection,), an_app(dsn) as chancy:
                await _fill(connection, kind, series)
                turns = {"copy": _copied(chancy, series), "tuples": _tuples(kind, series)}
                figures = best(await by_turns(rounds, turns))
        rows.append(
            Row(
                "memory",
                f"the copy's, {work} of {_POINTS} points",
                figures["copy"] / series / _KB,
                "kB",
                "min",
                figures["tuples"] / series / _KB,
                "0.24's tuples, a series",
                at_most(1 / 5, "<= 1/5"),
            )
        )
    return rows


async def _fill(connection: Connection, kind: Kind, series: int) -> None:
    """Give every bucket kept now a point, in the rollups themselves: only who reads them is measured."""
    await connection.execute(
        sql.SQL(
            "INSERT INTO {} (key, kind, unit) SELECT 'bench:' || n, {}, 'number' FROM generate_series(1, {}) AS n"
        ).format(_TABLES.series, sql.Literal(kind), sql.Literal(series))
    )
    quantiles = sql.SQL("n * 0.5, n * 0.95, n * 0.99" if kind == "histogram" else "NULL, NULL, NULL")
    for resolution, width in RESOLUTIONS.items():
        newest = int(datetime.now(UTC).timestamp()) // width * width
        await connection.execute(
            sql.SQL(
                """
                INSERT INTO {rollup} (version, series, bucket, count, last_us, sum, min, max, p50, p95, p99)
                SELECT 1, s.id, {newest} - {width} * n, 1000 + n, ({newest} - {width} * n) * 1000000::bigint,
                    1.5 * n + s.id, 0.25 * n, n, {quantiles}
                FROM {series} s, generate_series(0, {last}) AS n
                """
            ).format(
                quantiles=quantiles,
                rollup=_TABLES.rollup(resolution),
                series=_TABLES.series,
                newest=sql.Literal(newest),
                width=sql.Literal(width),
                last=sql.Literal(DEFAULT_POINTS[resolution] - 1),
            )
        )


def _copied(chancy: Chancy, series: int) -> Turn:
    async def turn() -> float:
        metrics = Metrics()
        with _Traced() as traced:
            await metrics.get_metrics(chancy)
        held = traced.grown
        answer = await metrics.get_metrics(chancy)
        check("series", len(answer), series)
        # A bucket may have ended since they were filled.
        points = min(sum(map(len, metric.values.values())) for metric in answer.values())
        check("points", points in range(_POINTS - 2, _POINTS + 1), True)
        return held

    return turn


def _tuples(kind: Kind, series: int) -> Turn:
    async def turn() -> float:
        with _Traced() as traced:
            cache = {f"bench:{number}": dict(_levels(kind, number)) for number in range(series)}
        check("points", sum(len(points) for levels in cache.values() for points in levels.values()), series * _POINTS)
        return traced.grown

    return turn


def _levels(kind: Kind, number: int) -> Iterator[tuple[str, list[tuple[datetime, Any]]]]:
    """0.24's lists of one series, newest first: each point had a time and values of its own, made out of JSON."""
    for resolution, width in RESOLUTIONS.items():
        newest = int(datetime.now(UTC).timestamp()) // width * width
        yield (
            resolution,
            [
                (datetime.fromtimestamp(newest - width * step, UTC), _value(kind, number + step))
                for step in range(DEFAULT_POINTS[resolution])
            ],
        )


def _value(kind: Kind, index: int) -> Any:
    if kind != "histogram":
        return 1.5 * index
    count, total = 1_000 + index, 1.5 * index
    return {"count": count, "sum": total, "avg": total / count, "min": 0.25 * index, "max": 1.0 * index}


class _Traced:
    """Bytes that were allocated in its block and are still held at its end."""

    def __init__(self) -> None:
        self.grown = 0.0

    def __enter__(self) -> _Traced:
        gc.collect()
        tracemalloc.start()
        return self

    def __exit__(self, *_: object) -> None:
        gc.collect()
        self.grown = float(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
