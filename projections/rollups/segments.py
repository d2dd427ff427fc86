"""Write workers' cells as segments, and read them back: a row per worker, resolution and fold, its cells as bytes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import NamedTuple

import numpy as np
from anyio import to_thread
from psycopg import sql
from psycopg.rows import TupleRow, tuple_row

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.errors import Damaged
from chancy_metrics.events.schema import RESOLUTIONS, SEGMENT_COLUMNS, Tables
from chancy_metrics.projections.fold.cell_codec import decode_runs, encode_runs
from chancy_metrics.projections.fold.cells import Cells, Ints, concatenate, merge, select, starts_of_runs, within
from chancy_metrics.projections.fold.levels import coarsen_expired
from chancy_metrics.projections.rollups.arrays import bigints, blobs, integers, take_arrays

#: Most cells of one segment; of a histogram's, so many codes count as one more.
SEGMENT_CELLS = 250_000
_CODES_A_CELL = 4
#: Segments written by one statement.
_CHUNK_ROWS = 5_000
#: Segments read at once, by number and by size; how many at first, before their size is known.
_READ_ROWS, _READ_BYTES, _FIRST_ROWS = 500, 1 << 20, 1
#: Least cells that are merged at once: merging after each chunk would sort all cells again every time.
_WAITING_CELLS = 200_000

_NEXT_PART = """
s.part + coalesce(
    (
        SELECT max(e.part) + 1
        FROM {segments} e
        WHERE e.version = %(version)s
            AND e.worker = s.worker
            AND e.resolution = %(resolution)s
            AND e.fold = s.fold
    ),
    0
)
"""


class Segments(NamedTuple):
    """Rows of segments, all of one resolution, as columns."""

    worker: Ints
    fold: Ints
    part: Ints
    first_s: Ints
    end_s: Ints
    cells: Ints
    data: list[bytes]


async def write_segments(
    cursor: Cursor, tables: Tables, version: int, fold: int, cells: Mapping[str, Cells], *, compressed: bool = False
) -> None:
    """Write each worker's cells as a segment of each resolution; the caller holds the version's lock.

    Args:
        fold: Number of the version's fold that adds them; of the baseline, the number of the absorbed day.
        cells: Resolution -> merged cells of single workers, with the database's ids.
    """
    for resolution, one in cells.items():
        if one.rows:
            segments = await to_thread.run_sync(partial(encode_segments, resolution, one, compressed=compressed))
            await insert_segments(cursor, tables, version, resolution, segments._replace(fold=segments.fold + fold))


async def insert_segments(
    cursor: Cursor, tables: Tables, version: int, resolution: str, segments: Segments, *, beside: bool = False
) -> None:
    """Insert segments; the caller holds the version's lock.

    Args:
        beside: Number parts after those that are there of the same worker, resolution and fold.
    """
    take_arrays(cursor)
    part = sql.SQL(_NEXT_PART if beside else "s.part").format(segments=tables.worker_segments)
    for start in range(0, len(segments.data), _CHUNK_ROWS):
        here = slice(start, start + _CHUNK_ROWS)
        await cursor.execute(
            sql.SQL(
                """
                INSERT INTO {segments} (version, {columns})
                SELECT %(version)s, s.worker, %(resolution)s, s.fold, {part}, s.first_s, s.end_s, s.cells, s.data
                FROM unnest(
                    %(worker)s::integer[], %(fold)s::bigint[], %(part)s::integer[], %(first)s::bigint[],
                    %(end)s::bigint[], %(cells)s::integer[], %(data)s::bytea[]
                ) AS s (worker, fold, part, first_s, end_s, cells, data)
                """
            ).format(segments=tables.worker_segments, columns=sql.SQL(SEGMENT_COLUMNS), part=part),
            {
                "version": version,
                "resolution": RESOLUTIONS[resolution],
                "worker": integers(segments.worker[here]),
                "fold": bigints(segments.fold[here]),
                "part": integers(segments.part[here]),
                "first": bigints(segments.first_s[here]),
                "end": bigints(segments.end_s[here]),
                "cells": integers(segments.cells[here]),
                "data": blobs(segments.data[here]),
            },
        )


def encode_segments(resolution: str, cells: Cells, *, compressed: bool) -> Segments:
    """Return merged cells as segments of each worker; those of one worker differ in their parts, from 0, and fold 0."""
    of_worker = starts_of_runs(cells.worker)
    # What a worker's cells before it weigh says in which part a cell is.
    weights = 1 + np.bincount(cells.sketches.owner, minlength=cells.rows) // _CODES_A_CELL
    before = np.cumsum(weights) - weights
    place = before - np.repeat(before[of_worker], np.diff(of_worker, append=cells.rows))
    starts = starts_of_runs(cells.worker, place // SEGMENT_CELLS)
    return Segments(
        cells.worker[starts],
        np.zeros(len(starts), np.int64),
        place[starts] // SEGMENT_CELLS,
        np.minimum.reduceat(cells.bucket, starts),
        np.maximum.reduceat(cells.bucket, starts) + RESOLUTIONS[resolution],
        np.diff(starts, append=cells.rows),
        encode_runs(cells, np.append(starts, cells.rows), compressed=compressed),
    )


async def read_segments(
    cursor: Cursor,
    tables: Tables,
    version: int,
    since: Mapping[str, int],
    until: Mapping[str, int] | None = None,
    *,
    workers: tuple[int, int] | None = None,
    series: Sequence[int] | None = None,
    fold: int | None = None,
) -> dict[str, Cells]:
    """Return the workers' cells of *version* in the caller's snapshot, at the finest resolution that *since* keeps.

    The result does not depend on how the cells lie in segments. A damaged segment is left out: `verify` finds it.

    Args:
        since: Resolution -> start of the first bucket, seconds.
        until: Resolution -> start of the first bucket past the end; no end by default.
        workers: Ids of the first and the last worker, to read only the cells of those from one to the other.
        series: Ids of series, to read only their cells.
        fold: Number of a fold, to read only what that added.

    Returns:
        Resolution -> merged cells, with the database's ids.
    """
    reach = min(since.values()), 2**63 - 1 if until is None else max(until.values())
    parts = await _read_parts(cursor, tables, version, reach, workers=workers, series=series, fold=fold)
    return await to_thread.run_sync(_kept, parts, since, until)


async def read_unmerged(
    cursor: Cursor, tables: Tables, version: int, since: Mapping[str, int], *, worker: int, series: Sequence[int]
) -> dict[str, Cells]:
    """Return a worker's cells of some series as they lie in segments, for `coarsen_expired`; see `read_segments`."""
    reach = min(since.values()), 2**63 - 1
    parts = await _read_parts(cursor, tables, version, reach, workers=(worker, worker), series=series)
    return await to_thread.run_sync(lambda: {resolution: concatenate(several) for resolution, several in parts.items()})


async def read_window(
    cursor: Cursor,
    tables: Tables,
    version: int,
    resolution: str,
    first_s: int,
    end_s: int,
    *,
    worker: int,
    series: Sequence[int],
) -> Cells:
    """Return a worker's points of one resolution in the caller's snapshot: merged cells, with the database's ids.

    Neither coarser segments are read nor those of other times: their cells are in none of these points.

    Args:
        first_s: Start of the first bucket, no older than the resolution is kept.
        end_s: Start of the first bucket past the end.
        series: Ids of series, to read only their cells.
    """
    width = RESOLUTIONS[resolution]
    parts = await _read_parts(
        cursor, tables, version, (first_s, end_s), workers=(worker, worker), series=series, widest=width, cut=True
    )
    return await to_thread.run_sync(_coarsened, [cells for several in parts.values() for cells in several], width)


def _coarsened(parts: Sequence[Cells], width: int) -> Cells:
    if not parts:
        return decode_runs([], [])
    return merge(concatenate([one._replace(bucket=one.bucket // width * width) for one in parts]))


async def _read_parts(
    cursor: Cursor,
    tables: Tables,
    version: int,
    reach: tuple[int, int],
    *,
    workers: tuple[int, int] | None,
    series: Sequence[int] | None,
    fold: int | None = None,
    widest: int = max(RESOLUTIONS.values()),
    cut: bool = False,
) -> dict[str, list[Cells]]:
    """Return the cells of the segments that have some in *reach*, and with *cut* of those only the ones in it."""
    parts: dict[str, list[Cells]] = {}
    chunks = stream_segments(
        *(cursor, tables, version, reach), workers=workers, series=series, fold=fold, widest=widest, cut=cut
    )
    async with aclosing(chunks):
        async for levels in chunks:
            for resolution, cells in levels.items():
                mine = parts.setdefault(resolution, [])
                mine.append(cells)
                if sum(waiting.rows for waiting in mine[1:]) > max(_WAITING_CELLS, mine[0].rows):
                    mine[:] = [await to_thread.run_sync(lambda several: merge(concatenate(several)), mine)]
    return parts


async def stream_segments(
    cursor: Cursor,
    tables: Tables,
    version: int,
    reach: tuple[int, int],
    *,
    workers: tuple[int, int] | None = None,
    series: Sequence[int] | None = None,
    fold: int | None = None,
    widest: int = max(RESOLUTIONS.values()),
    cut: bool = False,
) -> AsyncGenerator[dict[str, Cells]]:
    """Yield the cells of segments as they lie there, some segments at a time; see `read_segments`.

    Args:
        reach: Start of the first bucket, and of the first past the end, seconds: segments without any of these are
            left out, and with *cut* the cells of others in the same segment, too.
        widest: Width of the coarsest resolution that is read.
    """
    decode = partial(
        _decoded,
        series=None if series is None else np.array(series, np.int64),
        names={width: resolution for resolution, width in RESOLUTIONS.items()},
        reach=reach if cut else None,
    )
    async with cursor.connection.cursor("metrics_segments", row_factory=tuple_row) as segments:
        await segments.execute(
            sql.SQL(
                """
                SELECT resolution, worker, data
                FROM {segments}
                WHERE version = %(version)s
                    AND resolution <= %(widest)s
                    AND end_s > %(since)s
                    AND first_s < %(until)s
                    {of_worker}
                    {of_fold}
                """
            ).format(
                segments=tables.worker_segments,
                of_worker=sql.SQL("" if workers is None else "AND worker BETWEEN %(first)s AND %(last)s"),
                of_fold=sql.SQL("" if fold is None else "AND fold = %(fold)s"),
            ),
            {
                "version": version,
                "widest": widest,
                "since": reach[0],
                "until": reach[1],
                "first": workers[0] if workers else None,
                "last": workers[1] if workers else None,
                "fold": fold,
            },
            binary=True,
        )
        size = _FIRST_ROWS
        while rows := await segments.fetchmany(size):
            # As many more as those that came say: a fold's segments are small, a compaction's are large.
            size = max(1, min(_READ_ROWS, _READ_BYTES * len(rows) // (sum(len(row[2]) for row in rows) + 1)))
            levels = await to_thread.run_sync(decode, rows)
            del rows  # not held while the caller works
            yield levels


def _kept(
    parts: Mapping[str, list[Cells]], since: Mapping[str, int], until: Mapping[str, int] | None
) -> dict[str, Cells]:
    kept = coarsen_expired({resolution: concatenate(several) for resolution, several in parts.items()}, since)
    return {resolution: cells for resolution, cells in within(kept, None, until).items() if cells.rows}


def kept_cells(
    levels: Mapping[str, Cells], since: Mapping[str, int], until: Mapping[str, int] | None
) -> dict[str, Cells]:
    """Return cells that segments hold, unmerged, at the finest resolution that *since* keeps, up to before *until*."""
    if any(cells.bucket.min(initial=2**63 - 1) < since[resolution] for resolution, cells in levels.items()):
        levels = coarsen_expired(levels, since)
    return {resolution: cells for resolution, cells in within(levels, None, until).items() if cells.rows}


def _decoded(
    rows: Sequence[TupleRow], series: Ints | None, names: Mapping[int, str], reach: tuple[int, int] | None
) -> dict[str, Cells]:
    """Return the cells of segments (width, worker, data) by resolution, unmerged."""
    levels = {}
    for width in {row[0] for row in rows} & names.keys():
        here = [row for row in rows if row[0] == width]
        cells = decode_sound([row[2] for row in here], [row[1] for row in here])
        if series is not None:
            cells = select(cells, np.isin(cells.series, series))
        if reach is not None:
            cells = select(cells, (cells.bucket >= reach[0]) & (cells.bucket < reach[1]))
        if cells.rows:
            levels[names[width]] = cells
    return levels


def decode_sound(data: Sequence[bytes], workers: Sequence[int]) -> Cells:
    """Return the cells of segments, unmerged; a damaged segment counts as empty, so that folds and readers go on."""
    try:
        return decode_runs(data, workers)
    except Damaged:
        parts = []
        for one, worker in zip(data, workers, strict=True):
            try:
                parts.append(decode_runs([one], [worker]))
            except Damaged:
                continue
        return concatenate(parts) if parts else decode_runs([], [])
