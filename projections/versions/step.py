"""One step of a version: read and fold a range of the ledger without locks, then write it under the version's lock."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from datetime import date
from typing import NamedTuple

from anyio import CapacityLimiter, to_thread
from psycopg import sql
from psycopg.types.json import Jsonb

from chancy_metrics.events.batch import LogBatch
from chancy_metrics.events.codec import CODEC
from chancy_metrics.events.database import Connection, Cursor, database_now_us, short_transaction
from chancy_metrics.events.ledger import CHUNK_BYTES, LedgerRow, chunks, read_ledger
from chancy_metrics.events.log import read_batches
from chancy_metrics.events.partitions import gone_days
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.events.storable_text import storable_worker
from chancy_metrics.projections.fold.cells import Cells
from chancy_metrics.projections.fold.fold import Fold, fold
from chancy_metrics.projections.fold.levels import coarsen_expired, derive_points, merge_workers
from chancy_metrics.projections.rollups.delta_ring import ChangedPoints, write_ring
from chancy_metrics.projections.rollups.ids import Numbered, number, still_numbered
from chancy_metrics.projections.rollups.segments import write_segments
from chancy_metrics.projections.rollups.totals import add_totals
from chancy_metrics.projections.rollups.write import store
from chancy_metrics.projections.rules.rule_set import BUILT_IN, RuleSet
from chancy_metrics.projections.versions.counts import added_counts
from chancy_metrics.projections.versions.grace import CODEC_PATIENCE_US
from chancy_metrics.projections.versions.left_out import summed_up, write_left_out
from chancy_metrics.projections.versions.outcome import Advanced
from chancy_metrics.projections.versions.version import (
    ADVANCING,
    TOTALS,
    Version,
    live_version,
    lock_version_soon,
    read_version,
)

#: Most events of one step, unless one batch has more: keeps its transaction short and its memory bounded.
STEP_EVENTS = 20_000
#: Most events of one step of a rebuild: the fewer steps, the less often the row of a coarse bucket is rewritten.
REBUILD_STEP_EVENTS = 250_000
#: A step reads at most one ledger row per so many events, and so many bytes of payload per event.
_EVENTS_A_ROW = 20
_BYTES_AN_EVENT = CHUNK_BYTES // STEP_EVENTS

Announce = Callable[[Cursor], Awaitable[None]]


class Step(NamedTuple):
    """A range of the ledger, read and folded, for `write_step` to add to a version.

    Attributes:
        before: Position of the version that the range follows.
        position: Position of the range's last batch.
        days: Start of a UTC day, seconds since 1970 -> number of recorded events in it.
        dead: Position -> why its batch is left out.
        failed: Position and name of a rule -> why that rule's metrics of the batch are left out.
    """

    version: int
    before: int
    position: int
    events: int
    numbered: Numbered
    counts: Counter[str]
    days: dict[int, int]
    dead: dict[int, str]
    failed: dict[tuple[int, str], str]
    started_ns: int


_limiter: CapacityLimiter | None = None


async def read_step(
    connection: Connection,
    tables: Tables,
    *,
    rules: RuleSet = BUILT_IN,
    version: int | None = None,
    after: int | None = None,
    until: int | None = None,
    step_events: int = STEP_EVENTS,
    without: frozenset[str] = frozenset(),
    lock_wait_ms: int | None = None,
) -> Step | Advanced:
    """Read and fold the next range of the ledger, without a lock.

    Args:
        without: Names of rules to leave out.
        after: Position that the range follows; that of the version by default.

    Returns:
        The step to write; or, if there is none to take, how that ended.
    """
    async with short_transaction(connection, lock_timeout_ms=lock_wait_ms, index_only=True) as cursor:
        mine = await (live_version(cursor, tables) if version is None else read_version(cursor, tables, version))
        if mine is None:
            return Advanced.refused(0, f"there is no version {version}")
        if reason := mine.refuses(rules):
            return Advanced.refused(mine.position, reason)
        before = mine.position if after is None else after
        gone = await gone_days(cursor, tables)
        read = await read_range(cursor, tables, before, until, step_events, gone, without=without)
    started_ns = time.monotonic_ns()
    if not read.rows:
        if read.waiting is None:
            return Advanced.nothing_left(before)
        return Advanced.refused(before, f"position {read.waiting} waits for a worker with newer code")
    folded = await to_thread.run_sync(read.fold, rules, mine.horizons, limiter=_fold_limiter())
    return await make_step(connection, tables, mine.version, before, read.position, folded, started_ns)


class LogRange(NamedTuple):
    """A range of the ledger with those of its batches that are in the log, read and not folded.

    Attributes:
        rows: [] where there are none, or the first one waits.
        lost: Positions whose rows are missing from the log.
        waiting: Position of a batch of newer code, which the range ends before, since it may still be folded by that.
    """

    rows: list[LedgerRow]
    batches: list[LogBatch]
    lost: list[int]
    waiting: int | None

    @property
    def position(self) -> int:
        """The last position of the range."""
        return self.rows[-1].position

    def fold(self, rules: RuleSet, horizons: Mapping[str, int]) -> Fold:
        """Fold the batches; those that are lost are in `dead`, too."""
        folded = fold(self.batches, rules, horizons)
        return folded._replace(dead=folded.dead | dict.fromkeys(self.lost, "its row is not in the log"))


async def read_range(
    cursor: Cursor,
    tables: Tables,
    after: int,
    until: int | None,
    step_events: int,
    gone: Set[date],
    *,
    without: frozenset[str] = frozenset(),
) -> LogRange:
    """Read the next range past *after*, bounded as `next_rows` says, but for the batches of days that are *gone*.

    Args:
        without: Names of rules that the fold is to leave out.
    """
    rows = await next_rows(cursor, tables, after, until, step_events)
    wanted = [(row.position, row.batch_id) for row in rows if row.batch_id.day not in gone]
    batches = [batch._replace(without=without) for batch in await read_batches(cursor, tables, wanted)]
    unknown = [batch for batch in batches if batch.codec != CODEC]
    waiting = _first_waiting(unknown, await database_now_us(cursor)) if unknown else None
    if waiting is not None:
        rows = [row for row in rows if row.position < waiting]
        batches = [batch for batch in batches if batch.position < waiting]
    found = {batch.position for batch in batches}
    lost = [at for at, _ in wanted if rows and at <= rows[-1].position and at not in found]
    return LogRange(rows, batches, lost, waiting)


async def make_step(
    connection: Connection, tables: Tables, version: int, before: int, position: int, folded: Fold, started_ns: int
) -> Step:
    """Make the step that adds what was folded, past *before* and up to *position*, to a version; new names get ids."""
    return Step(
        version=version,
        before=before,
        position=position,
        events=folded.events,
        numbered=await number(connection, tables, folded),
        counts=folded.counts,
        days=folded.days,
        dead=folded.dead,
        failed=folded.failed,
        started_ns=started_ns,
    )


async def write_step(
    connection: Connection,
    tables: Tables,
    step: Step,
    *,
    folded_by: str,
    announce: Announce | None = None,
) -> Advanced:
    """Add *step* to its version, if that is still at `step.before`: rows, position and ring row in one transaction."""
    async with short_transaction(connection, index_only=True) as cursor:
        # A compaction holds the lock for milliseconds: too short to throw away what is folded.
        locked = await lock_version_soon(cursor, tables, step.version)
        if locked is None or locked.position != step.before:
            return Advanced.busy(step.before)
        if not step.before and not await _is_ordered(cursor, tables, step.position):
            return Advanced.busy(0)  # an import was undone since the step was read
        if locked.status not in ADVANCING:
            return Advanced.refused(step.before, f"it is {locked.status}")
        numbered = step.numbered
        if not await still_numbered(cursor, tables, numbered.series, numbered.workers):
            return Advanced.busy(step.before)  # the clean-up deleted one of its names since
        counts = step.counts + Counter({"expired": too_late(step.days, locked.horizons)})
        if locked.status in TOTALS:
            await add_totals(cursor, tables, locked.version, numbered.cells, is_served=locked.status == "totals")
        else:
            changed = await add_cells(cursor, tables, locked, numbered.cells)
        await write_left_out(cursor, tables, step.version, step.dead, step.failed)
        if locked.status == "live":
            await write_ring(
                cursor,
                tables,
                version=step.version,
                fold=locked.folds + 1,
                position=step.position,
                points=changed,
            )
        await _move(cursor, tables, step, counts, folded_by)
        if announce is not None and locked.status == "live":
            await announce(cursor)
    left_out = summed_up(step.version, step.dead, step.failed)
    return Advanced(step.events, step.position, left_out=left_out or None)


async def add_cells(
    cursor: Cursor, tables: Tables, version: Version, cells: Mapping[str, Cells]
) -> dict[str, ChangedPoints]:
    """Add workers' cells, which have the database's ids, to a version as its next fold; the caller holds its lock.

    Returns:
        Resolution -> the merged points that changed.
    """
    kept, points = await to_thread.run_sync(_kept_points, cells, version.horizons)
    changed = await store(cursor, tables, version.version, points, tells=version.status == "live")
    await write_segments(cursor, tables, version.version, version.folds + 1, kept)
    return changed


def _kept_points(cells: Mapping[str, Cells], horizons: Mapping[str, int]) -> tuple[dict[str, Cells], dict[str, Cells]]:
    """Return the cells at the resolutions that are kept now, and the merged points of them."""
    kept = coarsen_expired(cells, horizons)
    return kept, derive_points(merge_workers(kept), horizons)


async def _is_ordered(cursor: Cursor, tables: Tables, position: int) -> bool:
    await cursor.execute(
        sql.SQL("SELECT 1 FROM {ledger} WHERE position = %(position)s").format(ledger=tables.ledger),
        {"position": position},
    )
    return await cursor.fetchone() is not None


async def next_rows(cursor: Cursor, tables: Tables, after: int, until: int | None, step_events: int) -> list[LedgerRow]:
    """Return the ledger rows of one step, bounded by events and bytes, but at least one; [] when caught up."""
    limit = max(1, step_events // _EVENTS_A_ROW)
    rows = await read_ledger(cursor, tables, after=after, limit=limit, until=until)
    size = min(CHUNK_BYTES, step_events * _BYTES_AN_EVENT)
    return next(chunks(rows, events=step_events, size=size), [])


def _first_waiting(unknown: Sequence[LogBatch], now_us: int) -> int | None:
    """Return the position of the first batch of an unknown codec that a newer worker may still fold."""
    return next((batch.position for batch in unknown if now_us - batch.appended_us < CODEC_PATIENCE_US), None)


def too_late(days: Mapping[int, int], horizons: Mapping[str, int]) -> int:
    """Return how many events lie before the horizon of the resolution that is kept longest."""
    horizon = horizons[list(RESOLUTIONS)[-1]]
    return sum(events for day, events in days.items() if day < horizon)


def _fold_limiter() -> CapacityLimiter:
    global _limiter
    if _limiter is None:
        _limiter = CapacityLimiter(1)
    return _limiter


async def _move(cursor: Cursor, tables: Tables, step: Step, counts: Counter[str], folded_by: str) -> None:
    total = await added_counts(cursor, tables, step.version, counts)
    await cursor.execute(
        sql.SQL(
            """
            UPDATE {versions}
            SET position = %(position)s,
                folds = folds + 1,
                counts = coalesce(%(counts)s, counts),
                folded_at = clock_timestamp(),
                folding_since = CASE WHEN folded_by = %(folded_by)s THEN folding_since ELSE clock_timestamp() END,
                folded_by = %(folded_by)s,
                fold_events = %(events)s,
                fold_us = %(fold_us)s
            WHERE version = %(version)s
            """
        ).format(versions=tables.versions),
        {
            "version": step.version,
            "position": step.position,
            "counts": None if total is None else Jsonb(total),
            "folded_by": storable_worker(cursor, folded_by),
            "events": step.events,
            "fold_us": (time.monotonic_ns() - step.started_ns) // 1000,
        },
    )
