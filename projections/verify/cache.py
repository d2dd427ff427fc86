"""Check the delta ring that readers follow against the rollups, and stored quantiles against their sketches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from anyio import to_thread
from numpy.typing import NDArray
from psycopg import sql
from psycopg.rows import TupleRow, tuple_row

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.errors import Damaged
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.findings import Findings, bucket_in_words
from chancy_metrics.projections.fold.sketch import quantile_many, starts_of
from chancy_metrics.projections.fold.sketch_codec import decode_sound_sketches
from chancy_metrics.projections.rollups.arrays import bigints, doubles, integers, take_arrays
from chancy_metrics.projections.rollups.delta_ring import COLUMNS, ChangedPoints, unpack_points
from chancy_metrics.projections.rollups.write import FINITE_SUM, QUANTILES
from chancy_metrics.projections.versions.version import Version

#: Ring rows held in memory at once, points that one statement looks up, and sketches unpacked at once.
_FOLDS = 20
_POINTS = 20_000
_SKETCHES = 5_000


async def check_cache(cursor: Cursor, tables: Tables, version: Version, found: Findings) -> None:
    """Compare the newest value of each kept point in the ring with its merged row, in the caller's snapshot."""
    newest: dict[str, ChangedPoints] = {}
    expected = version.folds
    async with cursor.connection.cursor("metrics_ring", row_factory=tuple_row) as ring:
        await ring.execute(
            sql.SQL("SELECT fold, version, position, points FROM {cache} ORDER BY fold DESC").format(
                cache=tables.cache
            ),
            binary=True,
        )
        while rows := await ring.fetchmany(_FOLDS):
            if expected == version.folds and rows[0][2] != version.position:
                found.add(
                    "cache",
                    f"fold {rows[0][0]}",
                    f"it ends at position {rows[0][2]}, the rollups at {version.position}",
                )
            for fold, of_version, _, _ in rows:
                if fold != expected or of_version != version.version:
                    found.add(
                        "cache",
                        f"fold {fold} of version {of_version}",
                        f"fold {expected} of version {version.version} is missing there",
                    )
                expected = fold - 1
            folds = [(row[0], row[3]) for row in rows]
            newest = await to_thread.run_sync(_newest, newest, folds, version.horizons, found)
    if version.folds and expected == version.folds:
        found.add("cache", f"fold {version.folds} of version {version.version}", "the ring is empty")
    take_arrays(cursor)
    for resolution, points in newest.items():
        for start in range(0, len(points.series), _POINTS):
            chunk = _rows(points, slice(start, start + _POINTS))
            await _compare(cursor, tables, version.version, resolution, chunk, found)


async def check_quantiles(
    cursor: Cursor,
    tables: Tables,
    version: int,
    since: Mapping[str, int],
    until: Mapping[str, int] | None,
    found: Findings,
) -> None:
    """Compare the quantiles of each merged histogram row with its sketch, in the caller's snapshot.

    Args:
        since: Resolution -> start of the first bucket, seconds.
        until: The same for the first bucket past the end; None for no end.
    """
    for resolution in RESOLUTIONS:
        async with cursor.connection.cursor("metrics_sketches", row_factory=tuple_row) as sketches:
            await sketches.execute(
                sql.SQL(
                    """
                    SELECT s.key, r.bucket, r.min, r.max, r.p50, r.p95, r.p99, r.sketch, r.count
                    FROM {rollup} r
                    LEFT JOIN {series} s
                        ON s.id = r.series
                    WHERE r.version = %(version)s
                        AND r.sketch IS NOT NULL
                        AND r.bucket >= %(since)s
                        AND r.bucket < %(until)s
                    """
                ).format(rollup=tables.rollup(resolution), series=tables.series),
                {
                    "version": version,
                    "since": since[resolution],
                    "until": 2**63 - 1 if until is None else until[resolution],
                },
                binary=True,
            )
            while rows := await sketches.fetchmany(_SKETCHES):
                await to_thread.run_sync(_check_quantiles, resolution, rows, found)


def _newest(
    newer: dict[str, ChangedPoints], folds: list[tuple[int, bytes]], horizons: Mapping[str, int], found: Findings
) -> dict[str, ChangedPoints]:
    """Add the kept points of older *folds* (newest first) that *newer* lacks."""
    parts = {resolution: [points] for resolution, points in newer.items()}
    for number, data in folds:
        try:
            levels = unpack_points(data)
        except Damaged as error:
            found.add("cache", f"fold {number}", f"its points can't be decoded: {error}")
            continue
        for resolution, points in levels.items():
            kept = points.bucket >= horizons[resolution]
            parts.setdefault(resolution, []).append(_rows(points, kept))
    merged = {}
    for resolution, several in parts.items():
        series, bucket, values = (np.concatenate(columns) for columns in zip(*several, strict=True))
        _, first = np.unique((series.astype(np.int64) << 32) + bucket // 60, return_index=True)
        merged[resolution] = ChangedPoints(series[first], bucket[first], values[first])
    return merged


def _rows(points: ChangedPoints, chosen: slice | NDArray[np.bool_]) -> ChangedPoints:
    return ChangedPoints(points.series[chosen], points.bucket[chosen], points.values[chosen])


async def _compare(
    cursor: Cursor, tables: Tables, version: int, resolution: str, points: ChangedPoints, found: Findings
) -> None:
    await cursor.execute(
        sql.SQL(
            """
            SELECT s.key, n.series, n.bucket, r.series IS NULL
            FROM unnest(
                %(series)s::integer[], %(bucket)s::bigint[], %(count)s::float8[], %(last_us)s::float8[],
                %(sum)s::float8[], %(min)s::float8[], %(max)s::float8[], %(last)s::float8[],
                %(p50)s::float8[], %(p95)s::float8[], %(p99)s::float8[]
            ) AS n (series, bucket, count, last_us, sum, min, max, last, p50, p95, p99)
            LEFT JOIN {rollup} r
                ON r.version = %(version)s
                AND r.series = n.series
                AND r.bucket = n.bucket
            LEFT JOIN {series} s
                ON s.id = n.series
            WHERE (n.count, n.last_us, n.sum, n.min, n.max, n.last, n.p50, n.p95, n.p99) IS DISTINCT FROM (
                r.count::float8, r.last_us::float8, {sum}, r.min, r.max, r.last, r.p50, r.p95, r.p99
            )
            ORDER BY s.key, n.bucket
            """
        ).format(rollup=tables.rollup(resolution), series=tables.series, sum=FINITE_SUM),
        {
            "version": version,
            "series": integers(points.series.astype(np.int64)),
            "bucket": bigints(points.bucket.astype(np.int64)),
        }
        | {
            name: doubles(column, ~np.isnan(column))
            for name, column in zip(COLUMNS, points.values.astype(np.float64).T, strict=True)
        },
    )
    for key, number, bucket, is_missing in await cursor.fetchall():
        found.add(
            "cache",
            f"{key or f'series {number}'} {resolution} {bucket_in_words(bucket)}",
            "the rollup has no such point" if is_missing else "its value differs from the rollup",
        )


def _check_quantiles(resolution: str, rows: list[TupleRow], found: Findings) -> None:
    minimum, maximum = (np.array([row[column] for row in rows], np.float64) for column in (2, 3))
    owner, codes, counts = decode_sound_sketches([row[7] for row in rows])
    starts = starts_of(owner, len(rows))
    observations: NDArray[np.int64] = np.array([row[8] for row in rows], np.int64)
    wrong = starts[1:] == starts[:-1]
    for column, quantile in enumerate(QUANTILES.values(), start=4):
        there = np.array([np.nan if row[column] is None else row[column] for row in rows], np.float64)
        known = quantile_many(starts, codes, counts, quantile, minimum, maximum, observations)
        wrong |= ~((there == known) | (np.isnan(there) & np.isnan(known)))
    for row in np.flatnonzero(wrong).tolist():
        key, bucket = rows[row][:2]
        where = f"{key} {resolution} {bucket_in_words(bucket)}"
        found.add(
            "quantiles",
            where,
            "they differ from those of its sketch, or the sketch is damaged",
            scale=resolution,
            at=bucket,
        )
