"""Read the points of a version back from the database: merged rows, and workers' segments, as cells with names."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from decimal import Decimal

import numpy as np
from anyio import to_thread
from psycopg import sql
from psycopg.rows import TupleRow, tuple_row

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.fold.cells import ALL_WORKERS, Cells, Sketches, concatenate, cut, merge, select
from chancy_metrics.projections.fold.exact_sum import canonical
from chancy_metrics.projections.fold.fold import Fold
from chancy_metrics.projections.fold.levels import Projection
from chancy_metrics.projections.fold.shelves import Shelves
from chancy_metrics.projections.fold.sketch_codec import decode_sound_sketches
from chancy_metrics.projections.grid import BucketRange
from chancy_metrics.projections.rollups.segments import kept_cells, read_segments, stream_segments
from chancy_metrics.projections.rollups.soundness import ALL_TIME, rollup_of, sound

#: Rows read at once.
_CHUNK_ROWS = 5_000
_OF_SERIES = sql.SQL("AND series BETWEEN %(first)s AND %(last)s")
#: Whether a sum is a number of millionths that 64 bits hold.
_WHOLE_MICRO = sql.SQL("(scale(sum) <= 6 AND abs(sum) < 9000000000000)")


async def read_projection(
    cursor: Cursor,
    tables: Tables,
    version: int,
    since: Mapping[str, int],
    until: Mapping[str, int] | None = None,
) -> Projection:
    """Return the stored points of *version* in the caller's snapshot, without rows that are not sound.

    Args:
        since: Resolution -> start of the first bucket, seconds.
        until: Resolution -> start of the first bucket past the end; no end by default.
    """
    merged = await read_merged(cursor, tables, version, since, until)
    by_worker = await read_segments(cursor, tables, version, since, until)
    workers, series = await _read_names(cursor, tables, [*merged.values(), *by_worker.values()])
    return Projection(
        list(workers.values()),
        list(series.values()),
        await to_thread.run_sync(_with_names, merged, workers, series),
        await to_thread.run_sync(_with_names, by_worker, workers, series),
    )


async def read_worker_cells(
    cursor: Cursor,
    tables: Tables,
    version: int,
    since: Mapping[str, int],
    until: Mapping[str, int] | None = None,
    *,
    workers: tuple[int, int] | None = None,
) -> Fold:
    """Return the workers' stored cells, or those of the workers between two ids, like `read_projection`."""
    cells = await read_segments(cursor, tables, version, since, until, workers=workers)
    return await _with_names_of(cursor, tables, cells)


async def stream_stored(
    cursor: Cursor,
    tables: Tables,
    version: int,
    since: Mapping[str, int],
    until: Mapping[str, int] | None = None,
) -> AsyncGenerator[Fold]:
    """Yield the stored points of *version*, some at a time, merged rows and workers' cells: see `read_projection`.

    Their sum has the merged rows under `ALL_WORKERS`, and those cells under the workers.
    """
    for resolution in [name for name in RESOLUTIONS if name in since]:
        async with aclosing(_stream_merged(cursor, tables, version, resolution, since, until)) as chunks:
            async for cells in chunks:
                yield await _with_names_of(cursor, tables, {resolution: cells})
    async with aclosing(stream_worker_cells(cursor, tables, version, since, until)) as parts:
        async for part in parts:
            yield part


def stored_projection(stored: Fold) -> Projection:
    """Return the points in the sum, or a part of it, that `stream_stored` yields."""
    merged: dict[str, Cells] = {}
    by_worker: dict[str, Cells] = {}
    for resolution, cells in stored.cells.items():
        end = int(np.searchsorted(cells.worker, ALL_WORKERS, side="right"))
        for side, start, stop in ((merged, 0, end), (by_worker, end, cells.rows)):
            if start < stop:
                side[resolution] = cut(cells, start, stop)
    return Projection(stored.workers, stored.series, merged, by_worker)


async def add_stored(shelves: Shelves, parts: AsyncGenerator[Fold]) -> None:
    """Add what is read to *shelves*."""
    async with aclosing(parts):
        async for part in parts:
            await to_thread.run_sync(shelves.add, part)


async def stream_worker_cells(
    cursor: Cursor,
    tables: Tables,
    version: int,
    since: Mapping[str, int],
    until: Mapping[str, int] | None = None,
    *,
    workers: tuple[int, int] | None = None,
) -> AsyncGenerator[Fold]:
    """Yield what adds up to `read_worker_cells`, some segments at a time."""
    reach = min(since.values()), 2**63 - 1 if until is None else max(until.values())
    async with aclosing(stream_segments(cursor, tables, version, reach, workers=workers)) as chunks:
        async for levels in chunks:
            kept = await to_thread.run_sync(kept_cells, levels, since, until)
            yield await _with_names_of(cursor, tables, kept)


async def _with_names_of(cursor: Cursor, tables: Tables, levels: Mapping[str, Cells]) -> Fold:
    workers, series = await _read_names(cursor, tables, list(levels.values()))
    named = await to_thread.run_sync(_with_names, levels, workers, series)
    return Fold.of_cells(list(workers.values()), list(series.values()), named)


async def read_merged(
    cursor: Cursor,
    tables: Tables,
    version: int,
    since: Mapping[str, int],
    until: Mapping[str, int] | None = None,
    *,
    series: tuple[int, int] | None = None,
) -> dict[str, Cells]:
    """Return the stored points of all workers together, with the database's ids, without rows that are not `sound`.

    Args:
        since: Resolution -> start of the first bucket, seconds; other resolutions are not read.
        until: Resolution -> start of the first bucket past the end; no end by default.
        series: Ids of a first and a last series, to read only their points and those of the ids between.
    """
    levels = {}
    for resolution in [name for name in RESOLUTIONS if name in since]:
        async with aclosing(_stream_merged(cursor, tables, version, resolution, since, until, series=series)) as chunks:
            parts = [cells async for cells in chunks]
        if parts:
            levels[resolution] = await to_thread.run_sync(lambda parts: merge(concatenate(parts)), parts)
    return levels


async def read_days(cursor: Cursor, tables: Tables, version: int) -> Fold:
    """Return the merged points of all days of *version*, in the caller's snapshot, without rows that are not sound."""
    return await _with_names_of(cursor, tables, await read_merged(cursor, tables, version, {"1day": 0}))


async def read_totals(cursor: Cursor, tables: Tables, generation: int) -> Fold:
    """Return the totals of *generation* like `read_days`: those of all time, as one bucket under "1day"."""
    parts = [cells async for cells in _stream_merged(cursor, tables, generation, ALL_TIME, {ALL_TIME: 0}, None)]
    levels = {"1day": await to_thread.run_sync(lambda: merge(concatenate(parts)))} if parts else {}
    return await _with_names_of(cursor, tables, levels)


async def _stream_merged(
    cursor: Cursor,
    tables: Tables,
    version: int,
    resolution: str,
    since: Mapping[str, int],
    until: Mapping[str, int] | None,
    *,
    series: tuple[int, int] | None = None,
) -> AsyncGenerator[Cells]:
    async with cursor.connection.cursor("metrics_rollup", row_factory=tuple_row) as rollup:
        await rollup.execute(
            sql.SQL(
                """
                SELECT series, bucket, count, last_us,
                    CASE WHEN {whole} THEN (sum * 1000000)::bigint ELSE 0 END,
                    CASE WHEN {whole} THEN 0 ELSE sum END,
                    min, max, last, last_position, last_index, coalesce(sketch, '')
                FROM {rollup}
                WHERE version = %(version)s
                    AND bucket >= %(since)s
                    AND bucket < %(until)s
                    AND {sound}
                    {only}
                """
            ).format(
                rollup=rollup_of(tables, resolution),
                whole=_WHOLE_MICRO,
                sound=sound(tables, resolution),
                only=sql.SQL("") if series is None else _OF_SERIES,
            ),
            {
                "version": version,
                "since": since[resolution],
                "until": 2**63 - 1 if until is None else until[resolution],
                "first": series and series[0],
                "last": series and series[1],
            },
            binary=True,
        )
        while rows := await rollup.fetchmany(_CHUNK_ROWS):
            yield await to_thread.run_sync(_cells, rows)


def _cells(rows: Sequence[TupleRow]) -> Cells:
    """Return rows as unmerged cells."""
    columns = zip(*rows, strict=True)
    series, bucket, count, last_us, micro, rest, minimum, maximum, last, position, index, sketch = columns
    with_sketch = np.array([row for row, data in enumerate(sketch) if data], np.int64)
    owner, codes, counts = decode_sound_sketches([data for data in sketch if data])
    return Cells(
        worker=np.full(len(rows), ALL_WORKERS),
        series=np.array(series, np.int64),
        bucket=np.array(bucket, np.int64),
        observations=np.array(count, np.int64),
        last_us=np.array(last_us, np.int64),
        micro=np.array(micro, np.int64),
        rest={row: canonical(Decimal(value)) for row, value in enumerate(rest) if value},
        minimum=np.array(minimum, np.float64),
        maximum=np.array(maximum, np.float64),
        last=np.array([np.nan if one is None else one for one in last], np.float64),
        last_position=np.array([one or 0 for one in position], np.int64),
        last_index=np.array([one or 0 for one in index], np.int64),
        sketches=Sketches(with_sketch[owner], codes, counts),
    )


async def _read_names(
    cursor: Cursor, tables: Tables, cells: Sequence[Cells]
) -> tuple[dict[int, str], dict[int, Series]]:
    """Return id -> name of the workers and of the series that *cells* have; ids without a name are missing."""
    workers = {number for one in cells for number in np.unique(one.worker).tolist()} - {ALL_WORKERS}
    series = {number for one in cells for number in np.unique(one.series).tolist()}
    return await read_names(cursor, tables, sorted(workers), sorted(series))


async def read_names(
    cursor: Cursor, tables: Tables, workers: list[int], series: list[int]
) -> tuple[dict[int, str], dict[int, Series]]:
    """Return id -> name of these workers and of these series, by id; ids without a name are missing."""
    return (
        dict(await _rows_of(cursor, tables.workers, ["name"], workers)),
        {row[0]: Series(*row[1:]) for row in await _rows_of(cursor, tables.series, ["key", "kind", "unit"], series)},
    )


async def _rows_of(cursor: Cursor, table: sql.Identifier, columns: Sequence[str], numbers: list[int]) -> list[TupleRow]:
    await cursor.execute(
        sql.SQL("SELECT id, {columns} FROM {table} WHERE id = ANY(%(numbers)s::integer[]) ORDER BY id").format(
            columns=sql.SQL(", ").join(map(sql.Identifier, columns)), table=table
        ),
        {"numbers": numbers},
    )
    return await cursor.fetchall()


def _with_names(
    levels: Mapping[str, Cells], workers: Mapping[int, str], series: Mapping[int, Series]
) -> dict[str, Cells]:
    """Number cells by the place of their names instead of by ids; leave out cells whose names are missing."""
    worker_ids, series_ids = np.array([ALL_WORKERS, *workers], np.int64), np.array([*series], np.int64)
    named = {}
    for resolution, cells in levels.items():
        known = select(cells, np.isin(cells.worker, worker_ids) & np.isin(cells.series, series_ids))
        if known.rows:
            # Both ascend, so the order of the cells stays.
            named[resolution] = known._replace(
                worker=np.searchsorted(worker_ids, known.worker), series=np.searchsorted(series_ids, known.series)
            )
    return named


async def first_day(cursor: Cursor, tables: Tables, version: int) -> int | None:
    """Return the start of the first day that *version* has a point in, seconds since 1970; None without any."""
    await cursor.execute(
        sql.SQL("SELECT min(bucket) FROM {rollup} WHERE version = %(version)s").format(rollup=tables.rollup("1day")),
        {"version": version},
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def read_sketches(
    cursor: Cursor, tables: Tables, version: int, part: BucketRange, series: Sequence[int]
) -> list[tuple[int, int, bytes]]:
    """Return (series, bucket, sketch) of the merged points of *series* that have one, in that order.

    They are as they are stored: `decode_sound_sketches` takes a damaged one as empty.
    """
    await cursor.execute(
        sql.SQL(
            """
            SELECT series, bucket, sketch
            FROM {rollup}
            WHERE version = %(version)s
                AND series = ANY(%(series)s::integer[])
                AND bucket >= %(first)s
                AND bucket < %(end)s
                AND sketch IS NOT NULL
            ORDER BY series, bucket
            """
        ).format(rollup=tables.rollup(part.resolution)),
        {"version": version, "series": list(series), "first": part.first_s, "end": part.end_s},
    )
    return await cursor.fetchall()
