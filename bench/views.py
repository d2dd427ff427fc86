"""Measure SQL on the views, of 1,000 series with 90 days of hours and of days: one series, and a hundred functions."""

from __future__ import annotations

import time

from chancy_metrics.events.database import Connection

from .database import Databases, an_app, connections
from .harness import Row, Size, Turn, by_turns, check, middle

_DAY_S = 86_400
_DAYS = 90
_FIRST_S = 20_000 * _DAY_S
_SERIES = """
INSERT INTO chancy_metrics_series (key, kind, unit)
SELECT format('job:app.f%%s:%%s', n, k.ending), k.kind, k.unit
FROM generate_series(1, %(functions)s) AS n
CROSS JOIN (VALUES ('succeeded', 'counter', 'count'), ('failed', 'counter', 'count'), ('retrying', 'counter', 'count'),
    ('running', 'counter', 'count'), ('pending', 'counter', 'count'), ('execution_time', 'histogram', 'seconds'),
    ('wait_time', 'histogram', 'seconds'), ('total_time', 'histogram', 'seconds'),
    ('attempts', 'histogram', 'attempts'), ('custom', 'counter', 'count')) AS k (ending, kind, unit)
"""
_POINTS = """
INSERT INTO {rollup} (version, series, bucket, count, last_us, sum, min, max, p50, p95, p99)
SELECT 1, s.id, bucket, 60, bucket * 1000000, 60, 1, 1, 1, 1, 1
FROM generate_series(%(first)s::bigint, %(end)s::bigint - 1, %(width)s) AS bucket
CROSS JOIN chancy_metrics_series s
"""
_WEEK = f"bucket BETWEEN {_FIRST_S + 60 * _DAY_S} AND {_FIRST_S + 67 * _DAY_S - 1}"
_HOURS = "FROM chancy_metrics_points_1hour WHERE"
#: What is read -> query, and the rows that it has for each function, or by itself.
_QUERIES = {
    "a week of hours of one series": (f"SELECT time, sum {_HOURS} key = 'job:app.f7:failed' AND {_WEEK}", 0, 168),
    "the same, filtered by time": (
        f"SELECT time, sum {_HOURS} key = 'job:app.f7:failed' AND time >= to_timestamp({_FIRST_S + 60 * _DAY_S})"
        f" AND time < to_timestamp({_FIRST_S + 67 * _DAY_S})",
        0,
        168,
    ),
    "a week of hours, p95 of all functions": (
        f"SELECT time, func, p95 {_HOURS} measure = 'execution_time' AND {_WEEK} ORDER BY time",
        168,
        0,
    ),
    "90 days of days, one counter of all functions": (
        "SELECT time, func, sum FROM chancy_metrics_points_1day"
        " WHERE subject = 'job' AND measure = 'updates' AND state = 'failed' ORDER BY time",
        _DAYS,
        0,
    ),
}


async def run(pool: Databases, size: Size) -> list[Row]:
    functions, rounds = size.of(100, 10), size.of(15, 1)
    with pool.database() as dsn:
        async with an_app(dsn), connections(dsn, 1, prepared=False) as (connection,):
            await connection.execute(_SERIES.encode(), {"functions": functions})
            for resolution, width in (("1hour", 3_600), ("1day", _DAY_S)):
                query = _POINTS.replace("{rollup}", f"chancy_metrics_{resolution}")
                bounds = {"first": _FIRST_S, "end": _FIRST_S + _DAYS * _DAY_S, "width": width}
                await connection.execute(query.encode(), bounds)
            await connection.execute("VACUUM ANALYZE")
            contenders = {
                work: _read(connection, query, functions * each + alone)
                for work, (query, each, alone) in _QUERIES.items()
            }
            took = middle(await by_turns(rounds, contenders))
    return [Row("views", work, took[work], "ms", "median") for work in _QUERIES]


def _read(connection: Connection, query: str, rows: int) -> Turn:
    async def turn() -> float:
        began = time.perf_counter()
        found = await (await connection.execute(query.encode())).fetchall()
        took = time.perf_counter() - began
        check("rows", len(found), rows)
        return took * 1_000

    return turn
