"""Read the workers' segments of the baseline for an export, check them, and write them on import, by names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import date
from typing import NamedTuple

import numpy as np
from anyio import to_thread
from psycopg import sql
from psycopg.rows import TupleRow, tuple_row

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.errors import Damaged, InvalidObservation
from chancy_metrics.events.facts import Series, check_series
from chancy_metrics.events.schema import RESOLUTIONS, SEGMENT_COLUMNS, Tables
from chancy_metrics.events.transfer.frames import MAX_FRAME_SEGMENTS, MAX_FRAME_SERIES, Segment, Segments
from chancy_metrics.projections.fold.cell_codec import MAX_CELLS, MAX_CODES, decode_runs, encode_runs
from chancy_metrics.projections.fold.cells import Cells, Ints, concatenate, merge, select, starts_of_runs
from chancy_metrics.projections.fold.levels import coarsen_expired
from chancy_metrics.projections.rollups.read import read_names
from chancy_metrics.projections.versions.baseline import day_of_segment, segment_of_day
from chancy_metrics.projections.versions.baseline_io import Names
from chancy_metrics.projections.versions.version import BASELINE

#: Most that one segment of a frame, or the segments of one frame together, cost: codes of sketches, and so many a cell.
_MAX_COST = 1_000_000
_CELL_COST = 50
_MAX_FRAME_CELLS = _MAX_COST // _CELL_COST
#: Workers whose names are read at once.
_KEYS = 1_000
_NAMES = {width: resolution for resolution, width in RESOLUTIONS.items()}

assert _MAX_FRAME_CELLS < MAX_FRAME_SERIES


class _Source(NamedTuple):
    """What a worker has of one resolution and one absorbed day."""

    worker: str
    resolution: str
    day: date

    def __str__(self) -> str:
        return _where(*self)


def _where_of(segment: Segment) -> str:
    return _where(segment.worker, segment.resolution, segment.day)


def _where(worker: str, resolution: str, day: date) -> str:
    return f"the baseline's {resolution} segment of worker {worker[:100]!r} of {day}"


async def read_segment_frames(
    cursor: Cursor, tables: Tables, baseline: int, horizons: Mapping[str, int]
) -> AsyncIterator[Segments]:
    """Yield the workers' cells of a baseline in the caller's transaction, by worker, resolution and absorbed day.

    The same cells give the same frames, whatever ids this database has given their names, and however compaction has
    laid them out: those of a day are merged, and lie where the horizons put them. Cells of a series without a name are
    left out, as by all readers. Memory is that of one worker's cells.

    Args:
        baseline: Its number.
        horizons: Its horizons: resolution -> start of the first bucket, seconds.

    Raises:
        Damaged: A segment can't be read; without it the export would be refused by an import.
    """
    async with cursor.connection.cursor("metrics_segment_keys", row_factory=tuple_row) as keys:
        await keys.execute(
            sql.SQL(
                """
                SELECT w.name, s.worker
                FROM {segments} s
                LEFT JOIN {workers} w
                    ON w.id = s.worker
                WHERE s.version = %(baseline)s
                GROUP BY w.name, s.worker
                -- By the name's code points, whatever the database's encoding and collation are.
                ORDER BY convert_to(w.name, 'UTF8')
                """
            ).format(segments=tables.worker_segments, workers=tables.workers),
            {"baseline": baseline},
        )
        while rows := await keys.fetchmany(_KEYS):
            for worker, number in rows:
                if worker is None:
                    where = f"worker {number} of the baseline"
                    raise Damaged(f"has no name in the table of workers: {_WHAT_TO_DO}", where=where, kind="segment")
                for frame in await _frames(cursor, tables, baseline, worker, number, horizons):
                    yield frame


_WHAT_TO_DO = "restore that row from a backup (`chancy-metrics verify` names each one)"


async def _frames(
    cursor: Cursor, tables: Tables, baseline: int, worker: str, number: int, horizons: Mapping[str, int]
) -> list[Segments]:
    await cursor.execute(
        sql.SQL(
            """
            SELECT resolution, fold, data
            FROM {segments}
            WHERE version = %(baseline)s
                AND worker = %(worker)s
            """
        ).format(segments=tables.worker_segments),
        {"baseline": baseline, "worker": number},
        binary=True,
    )
    rows = await cursor.fetchall()
    days = sorted({day for _, fold, _ in rows if (day := day_of_segment(fold)) is not None})
    levels = await to_thread.run_sync(_decoded, worker, rows, days)
    ids = {one for cells in levels.values() for one in np.unique(cells.series).tolist()}
    _, series = await read_names(cursor, tables, [], sorted(ids))
    return await to_thread.run_sync(_framed, worker, days, levels, series, horizons)


def _decoded(worker: str, rows: Sequence[TupleRow], days: Sequence[date]) -> dict[str, Cells]:
    """Return the cells of a worker's rows (width, fold, data) by resolution, unmerged; days number their workers."""
    levels = {}
    for width in {row[0] for row in rows}:
        mine = [row for row in rows if row[0] == width]
        of = [day_of_segment(fold) for _, fold, _ in mine]
        resolution = _NAMES.get(width)
        if resolution is None or None in of:
            fold = mine[0][1] if resolution is None else mine[of.index(None)][1]
            fault = f"has a segment of resolution {width} s and fold {fold}, which no day writes"
            raise Damaged(f"{fault}: {_WHAT_TO_DO}", where=f"worker {worker[:100]!r} of the baseline", kind="segment")
        where = [_where(worker, resolution, day) for day in of if day is not None]
        places = [days.index(day) for day in of if day is not None]
        try:
            levels[resolution] = decode_runs([row[2] for row in mine], places, where.__getitem__)
        except Damaged as error:
            raise Damaged(f"{error.fault}: {_WHAT_TO_DO}", where=error.where, kind=error.kind) from error
    return levels


def _framed(
    worker: str,
    days: Sequence[date],
    levels: Mapping[str, Cells],
    series: Mapping[int, Series],
    horizons: Mapping[str, int],
) -> list[Segments]:
    """Return one worker's cells, which have the database's ids of series, as frames."""
    names = sorted(series.values())
    ids = np.array(sorted(series), np.int64)
    places = {one: place for place, one in enumerate(names)}
    ranks = np.array([places[series[number]] for number in ids.tolist()], np.int64)
    known = {name: select(cells, np.isin(cells.series, ids)) for name, cells in levels.items()}
    ranked = {
        name: cells._replace(series=ranks[np.searchsorted(ids, cells.series)])
        for name, cells in known.items()
        if cells.rows
    }
    sources: list[_Source] = []
    parts: list[Cells] = []
    for resolution, cells in coarsen_expired(ranked, horizons).items():
        parts.append(cells._replace(worker=len(sources) + cells.worker))
        sources += [_Source(worker, resolution, day) for day in days]
    if not parts:
        return []
    merged = merge(concatenate(parts))
    if found := _fault(merged, [one.resolution for one in sources], names):
        place, text = found
        raise Damaged(f"{text}: {_WHAT_TO_DO}", where=str(sources[place]), kind="segment")
    starts, numbers = _segments_of(merged)
    return [
        _frame(sources, names, merged, starts[first : last + 1], numbers[first:last])
        for first, last in _runs(merged, starts)
    ]


def _frame(sources: Sequence[_Source], names: Sequence[Series], cells: Cells, starts: Ints, parts: Ints) -> Segments:
    """Return the rows from starts[0] to before starts[-1] as a frame; a segment ends where the next one starts."""
    rows = np.arange(cells.rows)
    mine = select(cells, (rows >= starts[0]) & (rows < starts[-1]))
    used, places = np.unique(mine.series, return_inverse=True)
    data = encode_runs(mine._replace(series=places), starts - starts[0], compressed=True)
    of = [sources[place] for place in cells.worker[starts[:-1]].tolist()]
    return Segments(
        [names[number] for number in used.tolist()],
        [
            Segment(source.worker, source.resolution, source.day, part, run)
            for source, part, run in zip(of, parts.tolist(), data, strict=True)
        ],
    )


def _segments_of(cells: Cells) -> tuple[Ints, Ints]:
    """Return where each segment starts among merged cells, and their end; and the number of each among its source's."""
    before = _costs(cells)
    of_source = starts_of_runs(cells.worker)
    begin = np.repeat(before[of_source], np.diff(of_source, append=cells.rows))
    starts = starts_of_runs(cells.worker, (before[:-1] - begin) // _MAX_COST)
    first = np.searchsorted(starts, of_source)
    parts = np.arange(len(starts)) - np.repeat(first, np.diff(first, append=len(starts)))
    return np.append(starts, cells.rows), parts


def _runs(cells: Cells, starts: Ints) -> Iterator[tuple[int, int]]:
    """Yield the first segment of each frame, and the one past its last."""
    costs = np.diff(_costs(cells)[starts]).tolist()
    first = cost = 0
    for number, mine in enumerate(costs):
        if number > first and (cost + mine > _MAX_COST or number - first == MAX_FRAME_SEGMENTS):
            yield first, number
            first, cost = number, 0
        cost += mine
    yield first, len(costs)


def _costs(cells: Cells) -> Ints:
    """Return what the cells before each one cost together, and all of them."""
    return np.concatenate(([0], np.cumsum(_CELL_COST + np.bincount(cells.sketches.owner, minlength=cells.rows))))


def decode_segments(frame: Segments) -> Cells:
    """Return the cells of a frame, merged, with places in its lists as numbers of workers and series.

    Memory is bounded whatever the bytes claim.

    Raises:
        Damaged: The baseline can't hold one of the segments; the message names the first.
    """
    _check_names(frame.series)
    parts = []
    rows = codes = 0
    for place, one in enumerate(frame.segments):
        cells = decode_runs([one.data], [place], lambda _, one=one: _where_of(one))  # type: ignore[misc]
        rows, codes = rows + cells.rows, codes + len(cells.sketches.codes)
        if rows > MAX_CELLS or codes > MAX_CODES:
            fault = f"is in a frame with more than {MAX_CELLS:,} cells, or {MAX_CODES:,} codes of sketches"
            raise Damaged(fault, where=_where_of(one), kind="segment")
        parts.append(cells)
    together = concatenate(parts)
    unknown = together.series >= len(frame.series)
    if unknown.any():
        one = frame.segments[together.worker[np.argmax(unknown)]]
        fault = f"has a cell of series {together.series.max()}, and its frame has {len(frame.series)}"
        raise Damaged(fault, where=_where_of(one), kind="segment")
    if found := _fault(together, [one.resolution for one in frame.segments], frame.series):
        place, text = found
        raise Damaged(text, where=_where_of(frame.segments[place]), kind="segment")
    return together


def _check_names(series: Sequence[Series]) -> None:
    for before, one in zip([None, *series], series, strict=False):
        try:
            check_series(*one)
        except InvalidObservation as error:
            raise Damaged(str(error), where="a series of the baseline's segments", kind="segment") from error
        if before is not None and before >= one:
            raise Damaged(f"stands behind {before.key[:100]!r}", where=f"series {one.key[:100]!r}", kind="segment")


def _fault(cells: Cells, resolutions: Sequence[str], series: Sequence[Series]) -> tuple[int, str] | None:
    """Return the worker and the fault of the first cell that no rollup can hold; None if there is none.

    Args:
        resolutions: By the number of a cell's worker.
        series: By its series' number.
    """
    widths = np.array([RESOLUTIONS[one] for one in resolutions], np.int64)
    kinds = np.array([one.kind for one in series])[cells.series]
    wrong = {
        "has a cell in a bucket between two of its resolution": cells.bucket % widths[cells.worker] != 0,
        "has a gauge without a last value, or one of no gauge": (kinds == "gauge") == np.isnan(cells.last),
        "has a sketch of no histogram": np.isin(
            np.arange(cells.rows), cells.sketches.owner[kinds[cells.sketches.owner] != "histogram"]
        ),
    }
    for text, rows in wrong.items():
        if rows.any():
            return int(cells.worker[np.argmax(rows)]), text
    return None


async def write_segment_frame(cursor: Cursor, tables: Tables, frame: Segments, names: Names) -> None:
    """Write a checked frame's segments into the baseline, which has none of them and whose lock the caller holds."""
    series = await names.series(frame.series)
    workers = await names.workers([one.worker for one in frame.segments])
    rows = await to_thread.run_sync(_rows, frame, [series[one] for one in frame.series], workers)
    async with cursor.copy(
        sql.SQL("COPY {segments} (version, {columns}) FROM STDIN (FORMAT BINARY)").format(
            segments=tables.worker_segments, columns=sql.SQL(SEGMENT_COLUMNS)
        )
    ) as copy:
        copy.set_types(["int4", "int4", "int4", "int8", "int4", "int8", "int8", "int4", "bytea"])
        for row in rows:
            await copy.write_row((BASELINE, *row))


def _rows(frame: Segments, series: Sequence[int], workers: Mapping[str, int]) -> list[tuple[object, ...]]:
    """Return the columns of a frame's segments, with these ids."""
    cells = decode_segments(frame)
    cells = merge(cells._replace(series=np.array(series, np.int64)[cells.series]))
    starts = starts_of_runs(cells.worker)
    first_s, last_s = np.minimum.reduceat(cells.bucket, starts), np.maximum.reduceat(cells.bucket, starts)
    columns = (cells.worker[starts], first_s, last_s, np.diff(starts, append=cells.rows))
    made: list[tuple[object, ...]] = []
    for place, first, last, size, data in zip(
        *(column.tolist() for column in columns),
        encode_runs(cells, np.append(starts, cells.rows), compressed=True),
        strict=True,
    ):
        one = frame.segments[place]
        width = RESOLUTIONS[one.resolution]
        fold = segment_of_day(one.day)
        made.append((workers[one.worker], width, fold, one.part, first, last + width, size, data))
    return made
