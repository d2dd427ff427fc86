"""Find workers' segments that no fold can have written, and those whose names are gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from anyio import to_thread
from numpy.typing import NDArray
from psycopg import sql
from psycopg.rows import tuple_row

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.errors import Damaged
from chancy_metrics.events.row_bounds import FIRST_DAY, LAST_DAY
from chancy_metrics.events.schema import HORIZON_COLUMNS, RESOLUTIONS, Tables
from chancy_metrics.projections.findings import Findings, Spot
from chancy_metrics.projections.fold.cell_codec import decode_runs
from chancy_metrics.projections.fold.cells import Cells, Ints, concatenate, starts_of_runs
from chancy_metrics.projections.rollups.arrays import bigints, integers, take_arrays
from chancy_metrics.projections.rollups.read import read_names

#: Segments that are named.
_SHOWN = 20
#: Bytes, or cells, that are decoded at once, or one segment; and keys that are read at once.
_CHUNK_BYTES = 2 << 20
_CHUNK_CELLS = 250_000
_KEYS = 5_000
_NAMES = {width: resolution for resolution, width in RESOLUTIONS.items()}
_WIDTHS = np.array([*RESOLUTIONS.values()])
#: Numbers that segments of the baseline have instead of a fold's: days since 1970, below zero.
_FIRST_NUMBER = -(LAST_DAY - FIRST_DAY).days - 1

_LEFT_OUT = "; readers leave it out"


class _Row(NamedTuple):
    """A segment's row but for its bytes; and the horizons of its version, seconds."""

    version: int
    worker: int
    width: int
    fold: int
    part: int
    first_s: int
    end_s: int
    cells: int
    size: int
    horizons: Sequence[int]

    @property
    def resolution(self) -> str:
        return _NAMES.get(self.width, f"{self.width} s")


class _Chunk(NamedTuple):
    """Rows, faults by place among them, and the cells of the others, whose workers are places among the rows."""

    rows: Sequence[_Row]
    faults: dict[int, str]
    cells: Cells


async def check_segments(cursor: Cursor, tables: Tables, found: Findings) -> None:
    """Report segments whose bytes, columns and names do not fit each other, in the caller's snapshot.

    Reads each segment once, a few megabytes at a time. Expired cells may have a series without a name: a segment stays
    until all of its cells have expired.
    """
    faults = 0
    async for rows in _read_rows(cursor, tables):
        chunk = await to_thread.run_sync(_decoded, rows, await _read_data(cursor, tables, rows))
        ids = (np.unique(column).tolist() for column in ([row.worker for row in rows], chunk.cells.series))
        workers, series = await read_names(cursor, tables, *ids)
        for row, fault in await to_thread.run_sync(_faults, chunk, workers, set(series)):
            faults += 1
            if faults <= _SHOWN:
                name = workers.get(row.worker)
                who = f"worker number {row.worker}" if name is None else f"worker {name}"
                where = f"{who} {row.resolution}, fold {row.fold} of version {row.version}"
                found.add("rollups", where, f"{fault}; {_what_to_do(row)}")
    found.add_uncounted(Counter({Spot("rollups"): max(0, faults - _SHOWN)}))


def _what_to_do(row: _Row) -> str:
    return "a rebuild makes it anew" if row.fold >= 0 else "its day may have left the log: restore it from a backup"


async def _read_rows(cursor: Cursor, tables: Tables) -> AsyncIterator[list[_Row]]:
    """Yield the rows of all versions that are not dropped, in chunks whose bytes fit into memory."""
    async with cursor.connection.cursor("metrics_segment_rows", row_factory=tuple_row) as keys:
        await keys.execute(
            sql.SQL(
                """
                SELECT s.version, s.worker, s.resolution, s.fold, s.part, s.first_s, s.end_s, s.cells,
                    octet_length(s.data), ARRAY[{horizons}]
                FROM {segments} s
                JOIN {versions} v
                    ON v.version = s.version
                WHERE v.status <> 'dropped'
                ORDER BY s.version, s.worker, s.resolution, s.fold, s.part
                """
            ).format(segments=tables.worker_segments, versions=tables.versions, horizons=sql.SQL(HORIZON_COLUMNS))
        )
        waiting: list[_Row] = []
        size = cells = 0
        while rows := await keys.fetchmany(_KEYS):
            for row in (_Row(*columns) for columns in rows):
                if waiting and (size + row.size > _CHUNK_BYTES or cells + row.cells > _CHUNK_CELLS):
                    yield waiting
                    waiting, size, cells = [], 0, 0
                waiting.append(row)
                size, cells = size + row.size, cells + max(0, row.cells)
        if waiting:
            yield waiting


async def _read_data(cursor: Cursor, tables: Tables, rows: Sequence[_Row]) -> list[bytes]:
    """Return the bytes of each row."""
    take_arrays(cursor)
    version, worker, width, fold, part = (np.array(column, np.int64) for column in list(zip(*rows, strict=True))[:5])
    await cursor.execute(
        sql.SQL(
            """
            SELECT s.data
            FROM unnest(
                %(version)s::integer[], %(worker)s::integer[], %(width)s::integer[], %(fold)s::bigint[],
                %(part)s::integer[]
            ) WITH ORDINALITY AS n (version, worker, width, fold, part, place)
            -- LIMIT keeps this a look-up for each row, whatever the statistics say.
            CROSS JOIN LATERAL (
                SELECT f.data
                FROM {segments} f
                WHERE f.version = n.version
                    AND f.worker = n.worker
                    AND f.resolution = n.width
                    AND f.fold = n.fold
                    AND f.part = n.part
                LIMIT 1
            ) AS s
            ORDER BY n.place
            """
        ).format(segments=tables.worker_segments),
        {
            "version": integers(version),
            "worker": integers(worker),
            "width": integers(width),
            "fold": bigints(fold),
            "part": integers(part),
        },
        binary=True,
    )
    return [row[0] for row in await cursor.fetchall()]


def _decoded(rows: Sequence[_Row], data: Sequence[bytes]) -> _Chunk:
    places = range(len(rows))
    try:
        return _Chunk(rows, {}, decode_runs(data, places))
    except Damaged:
        parts, faults = [decode_runs([], [])], {}
        for place, one in enumerate(data):
            try:
                parts.append(decode_runs([one], [place]))
            except Damaged as error:
                faults[place] = f"it {error.fault}{_LEFT_OUT}"
        return _Chunk(rows, faults, concatenate(parts))


def _faults(chunk: _Chunk, workers: Mapping[int, str], series: set[int]) -> Iterator[tuple[_Row, str]]:
    """Return each row with a fault, and its first one."""
    cells = chunk.cells
    faults = dict(chunk.faults)
    starts = starts_of_runs(cells.worker)
    widths = np.array([row.width if row.width in _NAMES else 1 for row in chunk.rows], np.int64)[cells.worker]
    kept = _kept(chunk, widths)
    nameless = kept & ~np.isin(cells.series, list(series))
    has_worker = np.isin([row.worker for row in chunk.rows], list(workers))
    columns = _by_row(cells, starts, widths, kept, nameless)
    for place, first_s, last_s, size, uneven, is_kept, unnamed in columns:
        row = chunk.rows[place]
        if fault := _columns_fault(row, first_s, last_s, size):
            faults[place] = fault
        elif uneven:
            faults[place] = f"{uneven:,} of its cells begin between two buckets"
        elif is_kept and not has_worker[place]:
            faults[place] = f"its worker has no name{_LEFT_OUT}"
        elif unnamed:
            faults[place] = f"{unnamed:,} of its cells have a series without a name; readers leave them out"
    return ((chunk.rows[place], faults[place]) for place in sorted(faults))


def _columns_fault(row: _Row, first_s: int, last_s: int, size: int) -> str | None:
    """Return why a row's columns are not those of its cells, as a clause; None if they are."""
    if row.width not in _NAMES:
        return f"its resolution is {row.width} s, which is none{_LEFT_OUT}"
    if not (_FIRST_NUMBER <= row.fold < 0 if row.version == 0 else row.fold >= _FIRST_NUMBER):
        return f"no fold and no day has the number {row.fold}"
    if row.cells != size:
        return f"it has {size:,} cells, and its row says {row.cells:,}"
    if (row.first_s, row.end_s) != (first_s, last_s + row.width):
        return f"its cells are from {first_s} to {last_s + row.width}, and its row says {row.first_s} to {row.end_s}"
    return None


def _by_row(
    cells: Cells, starts: Ints, widths: Ints, kept: NDArray[np.bool_], nameless: NDArray[np.bool_]
) -> Iterator[tuple[int, int, int, int, int, int, int]]:
    """Yield of each row that has cells: its place, first and last bucket, number of cells, and how many of them are
    uneven, kept, and kept without a name of their series.
    """
    if not cells.rows:
        return
    columns = [
        cells.worker[starts],
        np.minimum.reduceat(cells.bucket, starts),
        np.maximum.reduceat(cells.bucket, starts),
        np.diff(starts, append=cells.rows),
        *(np.add.reduceat(mask.astype(np.int64), starts) for mask in (cells.bucket % widths != 0, kept, nameless)),
    ]
    yield from zip(*(column.tolist() for column in columns), strict=True)


def _kept(chunk: _Chunk, widths: Ints) -> NDArray[np.bool_]:
    """Return which cells are in a bucket that their version keeps, of their resolution or a coarser one."""
    cells = chunk.cells
    horizons = np.array([row.horizons for row in chunk.rows], np.int64).reshape(-1, len(_WIDTHS))[cells.worker]
    kept = np.zeros(cells.rows, bool)
    for number, width in enumerate(_WIDTHS.tolist()):
        kept |= (widths <= width) & (cells.bucket // width * width >= horizons[:, number])
    return kept
