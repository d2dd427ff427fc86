"""Read the workers' segments of the baseline for an export, check them, and write them on import, by names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import date
from typing import NamedTuple

import numpy as np
from anyio import to_thread
from psycopg import sql
from psycopg.rows import tuple_row

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.errors import Damaged, InvalidObservation
from chancy_metrics.events.facts import Series, check_series
from chancy_metrics.events.schema import RESOLUTIONS, SEGMENT_COLUMNS, Tables
from chancy_metrics.events.transfer.frames import MAX_FRAME_SEGMENTS, MAX_FRAME_SERIES, Segment, Segments
from chancy_metrics.projections.fold.cell_codec import MAX_CELLS, MAX_CODES, decode_runs, encode_runs
from chancy_metrics.projections.fold.cells import Cells, Ints, concatenate, merge, select, starts_of_runs
from chancy_metrics.projections.rollups.arrays import bigints, integers, take_arrays
from chancy_metrics.projections.rollups.read import read_names
from chancy_metrics.projections.versions.baseline import day_of_segment, segment_of_day
from chancy_metrics.projections.versions.baseline_io import Names
from chancy_metrics.projections.versions.version import BASELINE

#: Most that one segment of a frame, or the segments of one frame together, cost: codes of sketches, and so many a cell.
_MAX_COST = 1_000_000
_CELL_COST = 50
_MAX_FRAME_CELLS = _MAX_COST // _CELL_COST
#: Keys of segments read at once.
_KEYS = 1_000
_NAMES = {width: resolution for resolution, width in RESOLUTIONS.items()}

assert _MAX_FRAME_CELLS < MAX_FRAME_SERIES


class _Source(NamedTuple):
    """All parts that a worker has of one resolution and one absorbed day."""

    worker: str
    number: int
    resolution: str
    fold: int
    day: date
    cells: int

    def __str__(self) -> str:
        return _where(self.worker, self.resolution, self.day)


def _where_of(segment: Segment) -> str:
    return _where(segment.worker, segment.resolution, segment.day)


def _where(worker: str, resolution: str, day: date) -> str:
    return f"the baseline's {resolution} segment of worker {worker[:100]!r} of {day}"


async def read_segment_frames(cursor: Cursor, tables: Tables) -> AsyncIterator[Segments]:
    """Yield the workers' segments of the baseline in the caller's transaction, by worker, resolution and day.

    The same cells give the same frames, whatever ids this database has given their names. Cells of a series without
    a name are left out, as by all readers. Memory is that of one frame, or of what one worker has of one day.

    Raises:
        Damaged: A segment can't be read; without it the export would be refused by an import.
    """
    async with cursor.connection.cursor("metrics_segment_keys", row_factory=tuple_row) as keys:
        await keys.execute(
            sql.SQL(
                """
                SELECT w.name, s.worker, s.resolution, s.fold, sum(greatest(s.cells, 1))::bigint
                FROM {segments} s
                LEFT JOIN {workers} w
                    ON w.id = s.worker
                WHERE s.version = %(baseline)s
                GROUP BY w.name, s.worker, s.resolution, s.fold
                -- By the name's code points, whatever the database's encoding and collation are.
                ORDER BY convert_to(w.name, 'UTF8'), s.resolution, s.fold DESC
                """
            ).format(segments=tables.worker_segments, workers=tables.workers),
            {"baseline": BASELINE},
        )
        waiting: list[_Source] = []
        cells = 0
        while rows := await keys.fetchmany(_KEYS):
            for row in rows:
                source = _source(*row)
                if waiting and (cells + source.cells > _MAX_FRAME_CELLS or len(waiting) == MAX_FRAME_SEGMENTS):
                    for frame in await _frames(cursor, tables, waiting):
                        yield frame
                    waiting, cells = [], 0
                waiting.append(source)
                cells += source.cells
        for frame in await _frames(cursor, tables, waiting) if waiting else ():
            yield frame


def _source(worker: str | None, number: int, width: int, fold: int, cells: int) -> _Source:
    day, resolution = day_of_segment(fold), _NAMES.get(width)
    if worker is None or day is None or resolution is None:
        fault = (
            "has no name in the table of workers"
            if worker is None
            else f"has a segment of resolution {width} s and fold {fold}, which no day writes"
        )
        raise Damaged(f"{fault}: {_WHAT_TO_DO}", where=f"worker {number} of the baseline", kind="segment")
    return _Source(worker, number, resolution, fold, day, cells)


_WHAT_TO_DO = "restore that row from a backup (`chancy-metrics verify` names each one)"


async def _frames(cursor: Cursor, tables: Tables, sources: Sequence[_Source]) -> list[Segments]:
    take_arrays(cursor)
    await cursor.execute(
        sql.SQL(
            """
            SELECT n.place - 1, s.data
            FROM unnest(%(worker)s::integer[], %(width)s::integer[], %(fold)s::bigint[])
                WITH ORDINALITY AS n (worker, width, fold, place)
            -- LIMIT keeps this a look-up for each row, whatever the statistics say.
            CROSS JOIN LATERAL (
                SELECT f.part, f.data
                FROM {segments} f
                WHERE f.version = %(baseline)s
                    AND f.worker = n.worker
                    AND f.resolution = n.width
                    AND f.fold = n.fold
                ORDER BY f.part
                LIMIT 2147483647
            ) AS s
            ORDER BY n.place, s.part
            """
        ).format(segments=tables.worker_segments),
        {
            "baseline": BASELINE,
            "worker": integers(np.array([one.number for one in sources], np.int64)),
            "width": integers(np.array([RESOLUTIONS[one.resolution] for one in sources], np.int64)),
            "fold": bigints(np.array([one.fold for one in sources], np.int64)),
        },
        binary=True,
    )
    places, data = zip(*await cursor.fetchall(), strict=True)
    cells = await to_thread.run_sync(_decoded, sources, places, data)
    _, series = await read_names(cursor, tables, [], np.unique(cells.series).tolist())
    return await to_thread.run_sync(_framed, sources, cells, series)


def _decoded(sources: Sequence[_Source], places: Sequence[int], data: Sequence[bytes]) -> Cells:
    try:
        return decode_runs(data, places, lambda run: str(sources[places[run]]))
    except Damaged as error:
        raise Damaged(f"{error.fault}: {_WHAT_TO_DO}", where=error.where, kind=error.kind) from error


def _framed(sources: Sequence[_Source], cells: Cells, series: Mapping[int, Series]) -> list[Segments]:
    """Return cells, which have the database's ids of series and the places of their sources as workers, as frames."""
    names = sorted(series.values())
    ids = np.array(sorted(series), np.int64)
    places = {one: place for place, one in enumerate(names)}
    ranks = np.array([places[series[number]] for number in ids.tolist()], np.int64)
    known = select(cells, np.isin(cells.series, ids)) if cells.rows else cells
    if not known.rows:
        return []
    merged = merge(known._replace(series=ranks[np.searchsorted(ids, known.series)]))
    if found := _fault(merged, [one.resolution for one in sources], names):
        place, text = found
        raise Damaged(f"{text}: {_WHAT_TO_DO}", where=str(sources[place]), kind="segment")
    starts, parts = _segments_of(merged)
    return [
        _frame(sources, names, merged, starts[first : last + 1], parts[first:last])
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
