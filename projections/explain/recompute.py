"""Recompute one point from the log, and compare it with the stored one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import NamedTuple

import numpy as np
from psycopg import sql

from chancy_metrics.events.batch import DecodedBatch, LogBatch
from chancy_metrics.events.codec import decode_batch
from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.facts import EPOCH, Series
from chancy_metrics.events.ledger import chunks, naming_batches, read_ledger
from chancy_metrics.events.log import read_log_rows
from chancy_metrics.events.off_loop import in_thread, portions
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.events.storable_text import storable
from chancy_metrics.projections.explain.breakdown import EventBreakdown
from chancy_metrics.projections.fold.accumulator import Accumulator
from chancy_metrics.projections.fold.cells import Cells, select
from chancy_metrics.projections.fold.fold import Fold, fold
from chancy_metrics.projections.fold.levels import derive_points, merge_workers
from chancy_metrics.projections.fold.points import Difference, Point, to_points
from chancy_metrics.projections.rollups.read import read_merged
from chancy_metrics.projections.rollups.segments import read_segments
from chancy_metrics.projections.rules.rule_set import RuleSet
from chancy_metrics.projections.search.gaps import may_have_matched, read_pruned
from chancy_metrics.projections.search.match import may_match
from chancy_metrics.projections.search.query import EventQuery
from chancy_metrics.projections.search.ranges import last_pruned_position, read_ranges
from chancy_metrics.projections.span import Span
from chancy_metrics.projections.versions.baseline import segment_of_day
from chancy_metrics.projections.versions.imported import read_imported_day
from chancy_metrics.projections.versions.lag import count_waiting_in
from chancy_metrics.projections.versions.left_out import LeftOut, left_out
from chancy_metrics.projections.versions.replay import PAGE, log_snapshot, read_alive
from chancy_metrics.projections.versions.replay_base import ReplayBase, read_replay_base, retry_while_changed
from chancy_metrics.projections.versions.version import Version

_US = 1_000_000


class PointKey(NamedTuple):
    """The key of a point: a bucket of a series, of one worker or (None) of all together.

    Attributes:
        bucket: Its start, seconds since 1970.
    """

    series: Series
    resolution: str
    bucket: int
    worker: str | None

    @property
    def span(self) -> Span:
        return Span(self.bucket * _US, (self.bucket + RESOLUTIONS[self.resolution]) * _US)


class Recomputed(NamedTuple):
    """A point as stored and as recomputed.

    Attributes:
        position: Position of the live version; events past it are in neither.
        is_kept: Whether the live version still keeps its bucket at its resolution.
        stored: None where no point is stored, or it is not kept.
        baseline: The part from events that have left the log, and from what was imported; None where there is neither.
        imported: How many of its observations were imported: no events of theirs were ever in the log.
        recomputed: The baseline and the events in the log together; None where there is nothing.
        breakdown: The events in the log up to *position*.
        left_out: What the version leaves out of the bucket's time; some of it may belong to the point.
        waiting: Batches with events of that time that are not folded yet.
        lost: Position -> cause, of batches that may have fed the point and can't be folded any more.
        is_index_wrong: Whether summaries excluded ranges that hold its events; those ranges were read here.
    """

    version: int
    position: int
    is_kept: bool
    stored: Point | None
    baseline: Point | None
    recomputed: Point | None
    breakdown: EventBreakdown
    left_out: LeftOut
    waiting: int
    lost: dict[int, str]
    is_index_wrong: bool = False
    imported: int = 0

    @property
    def is_compared(self) -> bool:
        """Whether there was anything on either side to compare."""
        return self.is_kept and (self.stored is not None or self.recomputed is not None)

    @property
    def difference(self) -> str:
        """What differs between stored and recomputed, in words; "" for nothing."""
        known = self.stored or self.recomputed
        if not self.is_kept or known is None or self.stored == self.recomputed:
            return ""
        return Difference(*known[:4], self.stored, self.recomputed).change


async def recompute(connection: Connection, tables: Tables, rules: RuleSet, key: PointKey, *, limit: int) -> Recomputed:
    """Fold the events behind a point again, and read the stored point, both at one position of the ledger.

    Reads the log in short transactions and the rest in one snapshot, without locks that others wait for. Memory does
    not grow with the number of events.

    Args:
        limit: How many events each list of the breakdown keeps.

    Raises:
        VersionRefused: The live version has other rules than *rules*.
        MetricsLogError: Days left the log, or versions were swapped, faster than this read them.
    """

    async def attempt(trusts_index: bool) -> Recomputed:
        return await retry_while_changed(
            lambda: _Attempt(connection, tables, rules, key, limit, trusts_index).run(), "a point was explained"
        )

    done = await attempt(True)
    if done.difference:  # the summaries may be wrong: read the whole log
        with_index, done = done, await attempt(False)
        is_wrong = with_index.is_index_wrong or done.breakdown.events > with_index.breakdown.events
        done = done._replace(is_index_wrong=is_wrong)
    return done


class _Attempt:
    def __init__(
        self,
        connection: Connection,
        tables: Tables,
        rules: RuleSet,
        key: PointKey,
        limit: int,
        trusts_index: bool,
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._rules = rules
        self._key = key
        since, until = (EPOCH + timedelta(microseconds=us) for us in key.span if us is not None)
        self._query = EventQuery(since=since, until=until, worker=key.worker)
        self._breakdown = EventBreakdown(key.series, key.span, rules, limit)
        self._total = Accumulator()
        self._trusts_index = trusts_index
        self._lost: dict[int, str] = {}
        self._is_index_broken = False

    async def run(self) -> Recomputed:
        """Raises `ReplayBaseChanged` if the base of the replay changed meanwhile."""
        async with short_transaction(self._connection) as cursor:
            base = await self._base(cursor)
        version, gone = base
        await self._replay(version, gone)
        async with log_snapshot(self._connection, self._tables) as cursor:
            now_base = await self._base(cursor)
            base.check(now_base)
            now = now_base.version
            after = version.position
            while page := await read_ledger(cursor, self._tables, after=after, limit=PAGE, until=now.position):
                for chunk in chunks([row for row in page if row.batch_id.day not in gone]):
                    await self._add_batches(await read_alive(cursor, self._tables, now, chunk))
                after = page[-1].position
            worker, series = await self._ids(cursor)
            stored = await self._read_stored(cursor, now, worker, series)
            baseline = await self._read_cells(cursor, now.baseline, {}, worker, series)
            imported = await self._count_imported(cursor, now.baseline, worker, series)
            missing = await left_out(cursor, self._tables, now.version, self._key.span)
            waiting = await count_waiting_in(cursor, self._tables, now.position, self._key.span)
        is_kept = self._key.bucket >= now.horizons[self._key.resolution]
        self._total.add(self._fold_of(baseline))
        known = {one.position for one in missing.first}
        return Recomputed(
            now.version,
            now.position,
            is_kept,
            self._point(stored) if is_kept else None,  # a row below the horizon is only waiting for clean-up
            self._point(baseline),
            self._point((await in_thread(self._total.fold)).cells.get(self._key.resolution)),
            self._breakdown,
            missing,
            waiting,
            {position: error for position, error in self._lost.items() if position not in known},
            self._is_index_broken,
            imported,
        )

    async def _base(self, cursor: Cursor) -> ReplayBase:
        return await read_replay_base(cursor, self._tables, self._rules, "explain")

    async def _replay(self, version: Version, gone: set[date]) -> None:
        """Add the batches that may have events in the bucket; the skip index excludes ranges without any."""
        async with short_transaction(self._connection) as cursor:
            pruned = await read_pruned(cursor, self._tables, after=0)
        if not self._trusts_index:
            floor = last_pruned_position(pruned, version.position)
            await self._replay_range(version, gone, floor + 1, version.position)
            return
        chunks = read_ranges(self._connection, self._tables, self._query, pruned, 0, version.position)
        async for _, ranges, broken in chunks:
            self._is_index_broken |= bool(broken)
            for first, last in ranges:
                await self._replay_range(version, gone, first, last)

    async def _replay_range(self, version: Version, gone: set[date], first: int, last: int) -> None:
        after = first - 1
        while after < last:
            async with short_transaction(self._connection, index_only=True) as cursor:
                rows = await read_ledger(cursor, self._tables, after=after, limit=PAGE, until=last)
                rows_here = [row for row in rows if row.batch_id.day not in gone]
                in_log = await read_log_rows(cursor, self._tables, [row.batch_id for row in rows_here])
            self._lost |= {
                row.position: "its row is not in the log"
                for row in rows_here
                if row.batch_id not in in_log and may_have_matched(self._query, row)
            }
            wanted = [
                row for row in rows_here if row.batch_id in in_log and may_match(self._query, in_log[row.batch_id])
            ]
            for chunk in chunks(wanted):
                with naming_batches(chunk):
                    async with short_transaction(self._connection) as cursor:
                        batches = await read_alive(cursor, self._tables, version, chunk)
                    await self._add_batches(batches)
            after = rows[-1].position if rows else last

    async def _add_batches(self, batches: Sequence[LogBatch]) -> None:
        mine = [batch for batch in batches if self._key.worker in (None, batch.worker)]
        for some in portions(mine):
            decode = _decode_once()
            await in_thread(self._breakdown.add, some, decode)
            await in_thread(self._add, some, decode)

    def _add(self, batches: Sequence[LogBatch], decode: Callable[[LogBatch], DecodedBatch]) -> None:
        folded = fold(batches, self._rules, only=self._key.series, decode=decode)
        self._lost |= folded.dead
        self._total.add(self._only(folded))

    def _only(self, folded: Fold) -> Fold:
        """Keep the one point: with all workers together, or those of one worker's batches."""
        if self._key.series not in folded.series:
            return folded._replace(cells={}, series=[], workers=[])
        mine = {
            name: self._of_series(cells, folded.series.index(self._key.series)) for name, cells in folded.cells.items()
        }
        cells = self._fold_of(self._one_point(merge_workers(mine))).cells
        return folded._replace(cells=cells, series=[self._key.series], workers=[])

    def _of_series(self, cells: Cells, number: int) -> Cells:
        cells = select(cells, cells.series == number)
        return cells._replace(series=np.zeros(cells.rows, np.int64))

    def _one_point(self, cells: Mapping[str, Cells]) -> Cells | None:
        """Return the cell of the point's bucket at its resolution, made of finer cells too; None if there is none."""
        points = derive_points(cells).get(self._key.resolution)
        if points is None:
            return None
        point = select(points, points.bucket == self._key.bucket)
        return point if point.rows else None

    def _fold_of(self, cell: Cells | None) -> Fold:
        return Fold.of_cells([], [self._key.series], {} if cell is None else {self._key.resolution: cell})

    async def _ids(self, cursor: Cursor) -> tuple[int, int]:
        """Return the ids of the worker and the series; -1 for one without points."""
        await cursor.execute(
            sql.SQL(
                """
                SELECT CASE WHEN %(worker)s::text IS NULL THEN 0
                        ELSE coalesce((SELECT id FROM {workers} WHERE name = %(worker)s), -1) END,
                    coalesce(
                        (SELECT id FROM {series} WHERE key = %(key)s AND kind = %(kind)s AND unit = %(unit)s), -1
                    )
                """
            ).format(workers=self._tables.workers, series=self._tables.series),
            {
                "worker": None if self._key.worker is None else storable(cursor, self._key.worker),
                **self._key.series._asdict(),
            },
        )
        row = await cursor.fetchone()
        assert row is not None
        return row[0], row[1]

    async def _read_stored(self, cursor: Cursor, version: Version, worker: int, series: int) -> Cells | None:
        if self._key.worker is not None:
            return await self._read_cells(cursor, version.version, version.horizons, worker, series)
        since, until = {self._key.resolution: self._key.bucket}, {self._key.resolution: self._end}
        found = await read_merged(cursor, self._tables, version.version, since, until, series=(series, series))
        cells = found.get(self._key.resolution)
        return None if cells is None else cells._replace(series=np.zeros(cells.rows, np.int64))

    async def _count_imported(self, cursor: Cursor, baseline: int, worker: int, series: int) -> int:
        day = await read_imported_day(cursor, self._tables)
        if day is None:
            return 0
        cells = await self._read_cells(cursor, baseline, {}, worker, series, fold=segment_of_day(day.day))
        return 0 if cells is None else int(cells.observations.sum())

    async def _read_cells(
        self,
        cursor: Cursor,
        version: int,
        horizons: Mapping[str, int],
        worker: int,
        series: int,
        *,
        fold: int | None = None,
    ) -> Cells | None:
        """Return the stored cell of one worker, or of all together as far as they are stored by worker."""
        found = await read_segments(
            cursor,
            self._tables,
            version,
            {name: max(self._key.bucket, horizons.get(name, self._key.bucket)) for name in RESOLUTIONS},
            dict.fromkeys(RESOLUTIONS, self._end),
            workers=(worker, worker) if worker else None,
            series=[series],
            fold=fold,
        )
        mine = {name: self._of_series(cells, series) for name, cells in found.items()}
        return await in_thread(lambda: self._one_point(merge_workers(mine)))

    @property
    def _end(self) -> int:
        return self._key.bucket + RESOLUTIONS[self._key.resolution]

    def _point(self, cell: Cells | None) -> Point | None:
        if cell is None or not cell.rows:
            return None
        (point,) = to_points(self._key.resolution, cell, [None], [self._key.series])
        return point._replace(worker=self._key.worker)


def _decode_once() -> Callable[[LogBatch], DecodedBatch]:
    """Return a decoder that keeps what it has decoded: the events behind a point are counted, then folded."""
    known: dict[int, DecodedBatch] = {}

    def decode(batch: LogBatch) -> DecodedBatch:
        if batch.position not in known:
            known[batch.position] = decode_batch(batch)
        return known[batch.position]

    return decode
