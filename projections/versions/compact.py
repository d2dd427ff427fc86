"""Compact segments: merge a worker's rows, and coarsen cells past their horizon, so that its history is a few rows."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from psycopg import Rollback, sql

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import Damaged
from chancy_metrics.events.off_loop import in_thread
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.fold.cell_codec import decode_runs
from chancy_metrics.projections.fold.cells import Cells, concatenate, select, starts_of_runs
from chancy_metrics.projections.fold.levels import coarsen_expired
from chancy_metrics.projections.rollups.arrays import bigints, integers, take_arrays
from chancy_metrics.projections.rollups.segments import Segments, encode_segments, insert_segments
from chancy_metrics.projections.rollups.tiers import Segment, is_mostly_past
from chancy_metrics.projections.versions.compact_due import Choice, last_worker, pieces, read_due
from chancy_metrics.projections.versions.version import BASELINE, lock_version_soon, read_baselines, read_versions

#: Statuses in which a version's rows are not compacted: `copy_baseline` goes by their keys.
_SPARED = ("collecting", "copying", "dropped")


class Compacted(NamedTuple):
    """What compaction did.

    Attributes:
        removed: Segments that were replaced.
        written: Segments that replaced them.
        cells: Cells of the replaced ones.
        missed: Segments whose merge was in vain: others replaced them, or held the version's lock.
    """

    removed: int = 0
    written: int = 0
    cells: int = 0
    missed: int = 0

    def __add__(self, other: Compacted) -> Compacted:  # type: ignore[override] # not longer, but more
        return Compacted(*map(sum, zip(self, other, strict=True)))


class _Merged(NamedTuple):
    """Segments to delete, and by resolution those that replace them."""

    replaced: list[Segment]
    made: dict[str, Segments]


class Compaction:
    """Compacts the segments of every version; remembers how far it came.

    Args:
        share: Share of the time that it takes at most; it rests in between.
    """

    def __init__(self, *, share: float = 1.0) -> None:
        self._rest = 1 / share - 1
        self._version = BASELINE
        self._worker = 0

    async def run(
        self, connection: Connection, tables: Tables, kept: Mapping[str, int], *, within_s: float = math.inf
    ) -> Compacted:
        """Go through all workers of every version once, or begin no further ones once *within_s* seconds have passed.

        Segments are read and merged without a lock, since their rows never change; then the version's lock is held
        for milliseconds: all of the merged rows are still there, and are replaced, or none is. So two compactions, or
        one that is killed, only waste work. Damaged segments stay as they are.

        Args:
            connection: An autocommit one outside a transaction.
            kept: The horizons by the settings: resolution -> start of the oldest bucket, seconds. Later ones of a
                version are those of a clock ahead, and do not count.

        Raises:
            ValueError: Merged cells are out of bounds; the others are compacted.
        """
        began = time.monotonic()
        done, wrong = Compacted(), list[ValueError]()
        for version, horizons, by_day in await self._versions(connection, tables, kept):
            while True:
                until = await last_worker(connection, tables, self._worker)
                after, self._version, self._worker = self._worker, version, until or 0
                if until is None:
                    break
                async for choices in read_due(connection, tables, version, horizons, after, until, by_day=by_day):
                    for piece in pieces(choices):
                        started = time.monotonic()
                        try:
                            done += await _compact(connection, tables, version, horizons, piece)
                        except ValueError as error:
                            wrong.append(error)
                        await asyncio.sleep(self._rest * (time.monotonic() - started))
                if time.monotonic() - began >= within_s:
                    return done
        self._version = BASELINE
        if wrong:
            raise wrong[0]
        return done

    async def _versions(
        self, connection: Connection, tables: Tables, kept: Mapping[str, int]
    ) -> list[tuple[int, dict[str, int], bool]]:
        """Return the versions, the newest first, from the one on where it stopped, and their horizons.

        The third says whether it is a baseline, where a day's segments stay apart from those of others.
        """
        async with short_transaction(connection) as cursor:
            versions = [*await read_versions(cursor, tables), *await read_baselines(cursor, tables)]
        there = [one for one in sorted(versions, reverse=True) if one.status not in _SPARED]
        if self._worker:
            there = [one for one in there if one.version <= self._version]
            if there and there[0].version < self._version:  # it is gone
                self._worker = 0
        return [
            (
                one.version,
                {name: min(horizon, kept[name]) for name, horizon in one.horizons.items()},
                one.status == "baseline",
            )
            for one in there
        ]


async def compact(connection: Connection, tables: Tables, kept: Mapping[str, int]) -> Compacted:
    """Go through all workers of every version once, without rest; see `Compaction.run`."""
    return await Compaction().run(connection, tables, kept)


async def _compact(
    connection: Connection, tables: Tables, version: int, horizons: Mapping[str, int], piece: Sequence[Choice]
) -> Compacted:
    """Replace the segments of each choice by one of each resolution."""
    rows = [one for choice in piece for one in choice]
    async with short_transaction(connection, index_only=True) as cursor:
        data = await _read_data(cursor, tables, version, rows)
    merged = await in_thread(_merge, piece, data, horizons)
    if not merged.replaced:
        return Compacted(missed=len(rows) - len(data))
    if not await _replace(connection, tables, version, merged):
        return Compacted(missed=len(rows))
    return Compacted(
        removed=len(merged.replaced),
        written=sum(len(made.data) for made in merged.made.values()),
        cells=sum(one.cells for one in merged.replaced),
        missed=len(rows) - len(data),
    )


async def _read_data(cursor: Cursor, tables: Tables, version: int, rows: Sequence[Segment]) -> dict[Segment, bytes]:
    """Return the data of those rows that are still there."""
    take_arrays(cursor)
    await cursor.execute(
        sql.SQL("SELECT k.number, r.data FROM {rows} LIMIT %(limit)s").format(
            rows=_ROWS.format(segments=tables.worker_segments, columns=sql.SQL("f.data"))
        ),
        {**_keys(version, rows), "limit": len(rows)},
    )
    return {rows[number - 1]: data for number, data in await cursor.fetchall()}


async def _replace(connection: Connection, tables: Tables, version: int, merged: _Merged) -> bool:
    """Replace segments under the version's lock.

    Returns:
        Whether they were; not if one of them is gone, or the version is locked, or may not change now.
    """
    async with short_transaction(connection, index_only=True) as cursor:
        locked = await lock_version_soon(cursor, tables, version)
        if locked is None:
            return False
        if locked.status in _SPARED or (
            # A new version copies the baseline's rows by their keys; it is made under this lock.
            locked.status == "baseline" and any(one.status == "copying" for one in await read_versions(cursor, tables))
        ):
            return False
        take_arrays(cursor)
        await cursor.execute(
            sql.SQL("DELETE FROM {segments} WHERE ctid = ANY(ARRAY(SELECT r.ctid FROM {rows}))").format(
                segments=tables.worker_segments,
                rows=_ROWS.format(segments=tables.worker_segments, columns=sql.SQL("f.ctid")),
            ),
            _keys(version, merged.replaced),
        )
        if cursor.rowcount != len(merged.replaced):
            raise Rollback
        for resolution, made in merged.made.items():
            await insert_segments(cursor, tables, version, resolution, made, beside=True)
        return True
    return False


# LIMIT makes the join a look-up per row, whatever the statistics say.
_ROWS = sql.SQL(
    """
    unnest(
        %(worker)s::integer[], %(resolution)s::integer[], %(fold)s::bigint[], %(part)s::integer[], %(by)s::text[]
    ) WITH ORDINALITY AS k (worker, resolution, fold, part, written_by, number)
    CROSS JOIN LATERAL (
        SELECT {columns}
        FROM {segments} f
        WHERE f.version = %(version)s
            AND f.worker = k.worker
            AND f.resolution = k.resolution
            AND f.fold = k.fold
            AND f.part = k.part
            AND f.xmin = k.written_by::xid
        LIMIT 1
    ) AS r
    """
)


def _keys(version: int, rows: Sequence[Segment]) -> dict[str, object]:
    return {
        "version": version,
        "worker": integers(np.array([one.worker for one in rows])),
        "resolution": integers(np.array([one.resolution for one in rows])),
        "fold": bigints(np.array([one.fold for one in rows])),
        "part": integers(np.array([one.part for one in rows])),
        "by": [one.written_by for one in rows],
    }


def _merge(piece: Sequence[Choice], data: Mapping[Segment, bytes], horizons: Mapping[str, int]) -> _Merged:
    """Return what replaces the sound segments of each choice, as far as their data is there."""
    by_width = {width: horizons[name] for name, width in RESOLUTIONS.items()}
    numbered = [(number, one) for number, choice in enumerate(piece) for one in choice if one in data]
    levels, sound = {}, list[tuple[int, Segment]]()
    for name, width in RESOLUTIONS.items():
        here = [(number, one) for number, one in numbered if one.resolution == width]
        cells, is_sound = _decode(here, data, width)
        if cells is not None:
            levels[name] = cells
        sound += [pair for pair, keeps in zip(here, is_sound, strict=True) if keeps]
    replaced: dict[int, list[Segment]] = {}
    for number, one in sound:
        replaced.setdefault(number, []).append(one)
    # What is left of a choice beside damaged segments may be nothing to merge.
    replaced = {
        number: rows
        for number, rows in replaced.items()
        if len(rows) > 1 or any(is_mostly_past(one, by_width) for one in rows)
    }
    numbers = np.array(list(replaced), np.int64)
    if len(numbers) < len(piece):
        levels = {name: select(cells, np.isin(cells.worker, numbers)) for name, cells in levels.items()}
    worker = np.array([choice[0].worker for choice in piece])
    fold = np.array([max((one.fold for one in replaced.get(number, ())), default=0) for number in range(len(piece))])
    made = {}
    for name, cells in coarsen_expired({name: one for name, one in levels.items() if one.rows}, horizons).items():
        segments = encode_segments(name, cells, compressed=True)
        made[name] = segments._replace(worker=worker[segments.worker], fold=fold[segments.worker])
    return _Merged([one for rows in replaced.values() for one in rows], made)


def _decode(
    rows: Sequence[tuple[int, Segment]], data: Mapping[Segment, bytes], width: int
) -> tuple[Cells | None, list[bool]]:
    """Return the cells of segments with the numbers of their choices as workers, and which of the segments are sound.

    One whose row says something else than its data is not.
    """
    parts: list[Cells] = []
    is_sound = [False] * len(rows)
    ranges = [(0, len(rows))] if rows else []
    while ranges:
        start, end = ranges.pop()
        here = [one for _, one in rows[start:end]]
        try:
            cells = decode_runs([data[one] for one in here], range(start, end))
        except Damaged:
            middle = (start + end) // 2
            ranges += [(start, middle), (middle, end)] if end - start > 1 else []
            continue
        fits = _fits(cells, here, width)
        is_sound[start:end] = fits.tolist()
        if not fits.all():
            cells = select(cells, fits[cells.worker - start])
        parts.append(cells)
    if not parts:
        return None, is_sound
    together = concatenate(parts)
    return together._replace(worker=np.array([number for number, _ in rows])[together.worker]), is_sound


def _fits(cells: Cells, rows: Sequence[Segment], width: int) -> NDArray[np.bool_]:
    """Return which rows say of their cells what is true; the cells of each are a run."""
    starts = starts_of_runs(cells.worker)
    fits: NDArray[np.bool_] = np.diff(starts, append=cells.rows) == np.array([one.cells for one in rows])
    fits &= np.minimum.reduceat(cells.bucket, starts) == np.array([one.first_s for one in rows])
    fits &= np.maximum.reduceat(cells.bucket, starts) + width == np.array([one.end_s for one in rows])
    fits &= ~np.logical_or.reduceat(cells.bucket % width != 0, starts)
    return fits
