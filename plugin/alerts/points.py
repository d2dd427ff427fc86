"""Read the points of some series in each bucket of a grid, and where the log holds anything at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anyio import to_thread
from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.alerts.conditions import Flags, Points, Runs
from chancy_metrics.plugin.reading.binary_copy import read_points
from chancy_metrics.projections.fold.sketch import starts_of
from chancy_metrics.projections.fold.sketch_codec import decode_sound_sketches
from chancy_metrics.projections.grid import BucketRange, Grid
from chancy_metrics.projections.rollups.delta_ring import ChangedPoints
from chancy_metrics.projections.rollups.read import read_sketches

_COUNT, _SUM, _MIN, _MAX, _LAST = 0, 2, 3, 4, 5


async def read_alive(cursor: Cursor, tables: Tables, version: int, parts: Sequence[BucketRange]) -> Flags:
    """Return of each bucket whether any series has a point in it. One look-up a bucket."""
    found: list[bool] = []
    for part in parts:
        await cursor.execute(
            sql.SQL(
                """
                SELECT (
                    SELECT true
                    FROM {rollup} r
                    WHERE r.bucket / 60 = b / 60
                        AND r.version = %(version)s
                    LIMIT 1
                ) IS NOT NULL
                FROM generate_series(%(first)s::bigint, %(last)s::bigint, %(width)s::bigint) AS b
                ORDER BY b
                """
            ).format(rollup=tables.rollup(part.resolution)),
            {
                "version": version,
                "first": part.first_s,
                "last": part.end_s - part.width_s,
                "width": part.width_s,
            },
        )
        found += [row[0] for row in await cursor.fetchall()]
    return np.array(found, bool)


async def read_on_grid(
    cursor: Cursor,
    tables: Tables,
    version: int,
    parts: Sequence[BucketRange],
    grid: Grid,
    series: Sequence[int],
    *,
    sketches: bool,
) -> dict[int, Points]:
    """Return the points of *series* on the grid of *parts*; a series without any is missing."""
    found: dict[int, Points] = {}
    runs: dict[int, list[tuple[int, bytes]]] = {}
    where = sql.SQL("r.version = {version} AND r.series = ANY({series}) AND r.bucket >= {first} AND r.bucket < {end}")
    for part in parts:
        values = {"version": version, "series": list(series), "first": part.first_s, "end": part.end_s}
        rows = await read_points(cursor, tables, part.resolution, where, values)
        await to_thread.run_sync(_put, found, grid, rows)
        if sketches:
            for number, bucket, sketch in await read_sketches(cursor, tables, version, part, series):
                runs.setdefault(number, []).append((bucket, sketch))
    if sketches:
        return await to_thread.run_sync(_with_sketches, found, grid, runs)
    return found


def no_points(grid: Grid) -> Points:
    """Return the points of a series that has none."""
    size = len(grid.starts)
    none = np.full(size, np.nan)
    empty = np.zeros(0, np.int64)
    runs = Runs(np.zeros(size + 1, np.int64), empty.astype(np.int32), empty)
    return Points(np.zeros(size), np.zeros(size), none, none.copy(), none.copy(), runs)


def _put(found: dict[int, Points], grid: Grid, rows: ChangedPoints) -> None:
    places = np.searchsorted(grid.starts, rows.bucket)
    for number in np.unique(rows.series).tolist():
        mine = rows.series == number
        at, values = places[mine], rows.values[mine]
        points = found.setdefault(number, no_points(grid))
        points.observations[at] = values[:, _COUNT]
        points.sum[at] = values[:, _SUM]
        points.minimum[at] = values[:, _MIN]
        points.maximum[at] = values[:, _MAX]
        points.last[at] = values[:, _LAST]


def _with_sketches(found: dict[int, Points], grid: Grid, runs: dict[int, list[tuple[int, bytes]]]) -> dict[int, Points]:
    size = len(grid.starts)
    for number, some in runs.items():
        buckets, sketches = zip(*some, strict=True)
        owner, codes, counts = decode_sound_sketches(sketches)
        places = np.searchsorted(grid.starts, np.array(buckets, np.int64))
        found[number] = found[number]._replace(sketches=Runs(starts_of(places[owner], size), codes, counts))
    return found
