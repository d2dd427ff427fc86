"""Compare the rollup rows of two versions in SQL: every column and every byte."""

from __future__ import annotations

from collections import Counter

from psycopg import sql
from psycopg.rows import TupleRow

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.fold.exact_sum import canonical
from chancy_metrics.projections.fold.points import Comparison, Difference, Point
from chancy_metrics.projections.versions.version import Version

#: Differences that are read; further ones are only counted.
SHOWN = 1_000
#: Workers whose rows one statement compares.
_WORKERS = 100

_VALUES = (
    *("count", "last_us", "sum", "min", "max", "last"),
    *("last_position", "last_index", "p50", "p95", "p99", "sketch"),
)
#: Columns that a `Difference` shows.
_SHOWN_VALUES = ("count", "sum", "min", "max", "last_us", "last", "sketch")

_SIDE = """
    SELECT version, worker, series, bucket, {values}
    FROM {rollup}
    WHERE version = %(SIDE)s
        AND worker BETWEEN %(first)s AND %(last)s
        AND bucket >= %(horizon)s
"""
_DIFFERENT = f"""
({_SIDE.replace("SIDE", "old")}) AS o
FULL JOIN ({_SIDE.replace("SIDE", "new")}) AS n
    USING (worker, series, bucket)
WHERE ({{same}}) IS NOT TRUE
"""


async def compare(cursor: Cursor, tables: Tables, old: Version, new: Version) -> Comparison:
    """Compare the rows that both versions keep, chunk by chunk in the caller's snapshot.

    The points of *new* are counted; up to `SHOWN` that differ become `Difference`s. Unlike `diff_folds` this compares
    the stored quantiles and the bytes of sums and sketches too, and takes no memory here, however many rows there are.
    """
    points = different = 0
    differences: list[Difference] = []
    await cursor.execute(sql.SQL("SELECT coalesce(max(id), 0) FROM {workers}").format(workers=tables.workers))
    row = await cursor.fetchone()
    chunks = [(0, 0), *((first, first + _WORKERS - 1) for first in range(1, (row[0] if row else 0) + 1, _WORKERS))]
    for resolution in RESOLUTIONS:
        horizon = max(old.horizons[resolution], new.horizons[resolution])
        for first, last in chunks:
            where = {"old": old.version, "new": new.version, "horizon": horizon, "first": first, "last": last}
            there, others = await _count(cursor, tables, resolution, where)
            points, different = points + there, different + others
            if others and len(differences) < SHOWN:
                differences += await _read_differences(cursor, tables, resolution, where, SHOWN - len(differences))
    return Comparison(points, different, differences, Counter())


def _different(tables: Tables, resolution: str) -> sql.Composed:
    # A NUMERIC's text tells 1.0 from 1.00, which are equal and not the same bytes.
    same = sql.SQL(" AND ").join(
        sql.SQL("o.sum::text = n.sum::text" if name == "sum" else f"o.{name} IS NOT DISTINCT FROM n.{name}")
        for name in _VALUES
    )
    values = sql.SQL(", ").join(map(sql.Identifier, _VALUES))
    return sql.SQL(_DIFFERENT).format(rollup=tables.rollup(resolution), values=values, same=same)


async def _count(cursor: Cursor, tables: Tables, resolution: str, where: dict[str, int]) -> tuple[int, int]:
    await cursor.execute(
        sql.SQL(
            """
            SELECT
                (
                    SELECT count(*)
                    FROM {rollup}
                    WHERE version = %(new)s
                        AND worker BETWEEN %(first)s AND %(last)s
                        AND bucket >= %(horizon)s
                ),
                (SELECT count(*) FROM {different})
            """
        ).format(rollup=tables.rollup(resolution), different=_different(tables, resolution)),
        where,
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1]


async def _read_differences(
    cursor: Cursor, tables: Tables, resolution: str, where: dict[str, int], limit: int
) -> list[Difference]:
    columns = sql.SQL(", ").join(sql.Identifier(side, name) for side in "on" for name in ("version", *_SHOWN_VALUES))
    await cursor.execute(
        sql.SQL(
            """
            SELECT w.name, s.key, s.kind, s.unit, d.*
            FROM (
                SELECT worker, series, bucket, {columns}
                FROM {different}
                ORDER BY worker, series, bucket
                LIMIT %(limit)s
            ) AS d (worker, series, bucket)
            JOIN {series} s
                ON s.id = d.series
            LEFT JOIN {workers} w
                ON w.id = d.worker
            ORDER BY d.worker, s.key, d.bucket
            """
        ).format(
            columns=columns, different=_different(tables, resolution), series=tables.series, workers=tables.workers
        ),
        where | {"limit": limit},
        binary=True,
    )
    differences = []
    for name, *of_series, _, _, bucket, old, new in [
        (*row[:7], row[7:15], row[15:]) for row in await cursor.fetchall()
    ]:
        series = Series(*of_series)
        differences.append(
            Difference(
                *(resolution, name, series, bucket),
                *(_point(resolution, name, series, bucket, side) for side in (old, new)),
            )
        )
    return differences


def _point(resolution: str, worker: str | None, series: Series, bucket: int, side: TupleRow) -> Point | None:
    version, count, total, minimum, maximum, last_us, last, sketch = side
    if version is None:
        return None
    shown = count, canonical(total), minimum, maximum, last_us, last, sketch or b""
    return Point(resolution, worker, series, bucket, *shown)
