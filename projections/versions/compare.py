"""Compare two versions: their merged rows in SQL, every column and every byte, and their workers' cells in numpy."""

from __future__ import annotations

from collections import Counter
from functools import partial

from anyio import to_thread
from psycopg import sql
from psycopg.rows import TupleRow

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.fold.accumulator import Accumulator
from chancy_metrics.projections.fold.diff import diff_projections
from chancy_metrics.projections.fold.exact_sum import canonical
from chancy_metrics.projections.fold.levels import Projection
from chancy_metrics.projections.fold.points import NO_COMPARISON, Comparison, Difference, Point
from chancy_metrics.projections.fold.shelves import Shelves, take_pairs
from chancy_metrics.projections.rollups.read import add_stored, stream_worker_cells
from chancy_metrics.projections.versions.version import Version

#: Differences that are read; further ones are only counted.
SHOWN = 1_000
#: Cells of workers that are compared at once, unless one worker has more.
_CELLS = 500_000

_VALUES = (
    *("count", "last_us", "sum", "min", "max", "last"),
    *("last_position", "last_index", "p50", "p95", "p99", "sketch"),
)
#: Columns that a `Difference` shows.
_SHOWN_VALUES = ("count", "sum", "min", "max", "last_us", "last", "sketch")

_SIDE = """
    SELECT version, series, bucket, {values}
    FROM {rollup}
    WHERE version = %(SIDE)s
        AND bucket >= %(horizon)s
"""
_DIFFERENT = f"""
({_SIDE.replace("SIDE", "old")}) AS o
FULL JOIN ({_SIDE.replace("SIDE", "new")}) AS n
    USING (series, bucket)
WHERE ({{same}}) IS NOT TRUE
"""


async def compare(cursor: Cursor, tables: Tables, old: Version, new: Version) -> Comparison:
    """Compare the merged points and the workers' cells that both versions keep, in the caller's snapshot.

    The points and cells of *new* are counted; up to `SHOWN` that differ become `Difference`s. The database compares
    the merged rows, their stored quantiles and the bytes of their sums and sketches too; memory here is bounded by
    `_CELLS`.
    """
    points = different = 0
    differences: list[Difference] = []
    horizons = {name: max(old.horizons[name], new.horizons[name]) for name in RESOLUTIONS}
    for resolution, horizon in horizons.items():
        where = {"old": old.version, "new": new.version, "horizon": horizon}
        there, others = await _count(cursor, tables, resolution, where)
        points, different = points + there, different + others
        if others and len(differences) < SHOWN:
            differences += await _read_differences(cursor, tables, resolution, where, SHOWN - len(differences))
    for workers in await _chunks_of_workers(cursor, tables, old, new):
        sides = Shelves(Accumulator()), Shelves(Accumulator())
        for side, version in zip(sides, (old, new), strict=True):
            await add_stored(side, stream_worker_cells(cursor, tables, version.version, horizons, workers=workers))
        limit = SHOWN - len(differences)
        there, compared = await to_thread.run_sync(partial(_compare_cells, limit=limit), *sides)
        points += there
        different += compared.different
        differences += compared.differences
    return Comparison(points, different, differences, Counter())


def _compare_cells(old: Shelves, new: Shelves, limit: int) -> tuple[int, Comparison]:
    """Return how many cells the new one has, and where they differ."""
    points, compared = 0, NO_COMPARISON
    for pair in take_pairs(old, new):
        sides = [Projection(side.workers, side.series, {}, side.cells) for side in pair]
        points += sum(cells.rows for cells in sides[1].by_worker.values())
        compared = compared.plus(diff_projections(*sides, limit=limit - len(compared.differences)))
    return points, compared


async def _chunks_of_workers(cursor: Cursor, tables: Tables, old: Version, new: Version) -> list[tuple[int, int]]:
    """Return the first and the last id of some workers each, who have about `_CELLS` cells together."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT worker, sum(cells)
            FROM {segments}
            WHERE version IN (%(old)s, %(new)s)
            GROUP BY worker
            ORDER BY worker
            """
        ).format(segments=tables.worker_segments),
        {"old": old.version, "new": new.version},
    )
    chunks: list[tuple[int, int]] = []
    size = _CELLS
    for worker, cells in await cursor.fetchall():
        if size + cells > _CELLS:
            chunks.append((worker, worker))
            size = 0
        chunks[-1] = (chunks[-1][0], worker)
        size += cells
    return chunks


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
            SELECT s.key, s.kind, s.unit, d.*
            FROM (
                SELECT series, bucket, {columns}
                FROM {different}
                ORDER BY series, bucket
                LIMIT %(limit)s
            ) AS d (series, bucket)
            JOIN {series} s
                ON s.id = d.series
            ORDER BY s.key, d.bucket
            """
        ).format(columns=columns, different=_different(tables, resolution), series=tables.series),
        where | {"limit": limit},
        binary=True,
    )
    differences = []
    for *of_series, _, bucket, old, new in [(*row[:5], row[5:13], row[13:]) for row in await cursor.fetchall()]:
        series = Series(*of_series)
        sides = (_point(resolution, series, bucket, side) for side in (old, new))
        differences.append(Difference(resolution, None, series, bucket, *sides))
    return differences


def _point(resolution: str, series: Series, bucket: int, side: TupleRow) -> Point | None:
    version, count, total, minimum, maximum, last_us, last, sketch = side
    if version is None:
        return None
    shown = count, canonical(total), minimum, maximum, last_us, last, sketch or b""
    return Point(resolution, None, series, bucket, *shown)
