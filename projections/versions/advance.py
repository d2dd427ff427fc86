"""One step of a version, in two halves: live folding, rebuild, resume and catching up are these."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from anyio import CapacityLimiter, to_thread
from psycopg import sql
from psycopg.types.json import Jsonb

from chancy_metrics.events.batch import LogBatch
from chancy_metrics.events.classify import in_words, is_deterministic, may_be_of_a_batch
from chancy_metrics.events.codec import CODEC
from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import StuckAt
from chancy_metrics.events.ledger import CHUNK_BYTES, LedgerRow, chunks, read_ledger
from chancy_metrics.events.log import read_batches
from chancy_metrics.events.partitions import gone_days
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.events.storable import storable_worker
from chancy_metrics.projections.fold.cells import kept_of
from chancy_metrics.projections.fold.fold import fold
from chancy_metrics.projections.rollups.delta_ring import write_ring
from chancy_metrics.projections.rollups.ids import Numbered, number, still_numbered
from chancy_metrics.projections.rollups.write import store
from chancy_metrics.projections.rules.rule_set import BUILT_IN, RuleSet
from chancy_metrics.projections.versions.counts import added_counts
from chancy_metrics.projections.versions.grace import CODEC_PATIENCE_US
from chancy_metrics.projections.versions.left_out import LeftOut, summed_up, write_left_out
from chancy_metrics.projections.versions.version import live_version, lock_version, read_version

#: One step folds at most so many events (or one batch): a transaction stays short and memory bounded.
STEP_EVENTS = 20_000
#: A rebuild's steps are larger: the fewer there are, the fewer times is a row of a coarse bucket written again.
REBUILD_STEP_EVENTS = 250_000
#: One step reads at most one ledger row for so many events, and so many bytes of payload an event.
_EVENTS_A_ROW = 20
_BYTES_AN_EVENT = CHUNK_BYTES // STEP_EVENTS

#: Why a step did nothing that another process took at the same time: trying again soon is right.
BUSY = "somebody else folds"
#: Versions that take steps; the others have to become one of these first.
ADVANCING = ("backfilling", "ready", "live", "standby")

Announce = Callable[[Cursor], Awaitable[None]]


class Advanced(NamedTuple):
    """What one step did.

    Attributes:
        events: How many it folded.
        position: Where the version stands now.
        caught_up: Nothing was left in the ledger when it looked.
        reason: Why it did nothing, in words; "" if it did, or if nothing was there.
        left_out: What of these events is not in the version; None where all of it is.
    """

    events: int
    position: int
    caught_up: bool
    reason: str = ""
    left_out: LeftOut | None = None


class Step(NamedTuple):
    """A range of the ledger, read and folded: what `write` adds to a version.

    Attributes:
        before: Position at which the version must still stand.
        position: Of the range's last batch.
        days: Start of a day, seconds since 1970 -> how many recorded events are in it.
        dead: Position -> why its batch is not in here.
        failed: Position and name of a rule -> why nothing of that rule is.
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


async def advance(
    connection: Connection,
    tables: Tables,
    *,
    folded_by: str,
    rules: RuleSet = BUILT_IN,
    version: int | None = None,
    until: int | None = None,
    step_events: int = STEP_EVENTS,
    announce: Announce | None = None,
    lock_wait_ms: int | None = None,
) -> Advanced:
    """Fold the next range of the ledger into a version: exactly once, whoever else tries the same.

    What is read lies in the ledger for ever, so it is read and folded before any lock is taken; under the lock
    the version must still stand where it stood. Rows, position and, of the live version, the ring row are one
    transaction. Bounded by *step_events*: call again until `caught_up`. What can't be folded or stored is narrowed
    down to its batch, which is left out; errors that may pass are raised.

    Args:
        version: Its number; the live one by default.
        until: Position past which nothing is folded; the end of the ledger by default.
        lock_wait_ms: How long a locked table is waited for where it is to be read; by default what `limit_locks` says.
    """
    try:
        range = await read(
            connection,
            tables,
            rules=rules,
            version=version,
            until=until,
            step_events=step_events,
            lock_wait_ms=lock_wait_ms,
        )
        if isinstance(range, Advanced):
            return range
        return await write(connection, tables, range, folded_by=folded_by, announce=announce)
    except Exception as error:
        if not may_be_of_a_batch(error):
            raise
    return await narrow(
        connection,
        tables,
        folded_by=folded_by,
        rules=rules,
        version=version,
        until=until,
        step_events=step_events,
        announce=announce,
    )


async def read(
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
    """The first half of `advance`: read and fold, without a lock; what there is nothing to do for is said at once.

    Args:
        without: Names of rules that are not asked.
        after: Where the version will stand when the range is written; where it stands by default.
    """
    async with short_transaction(connection, lock_timeout_ms=lock_wait_ms, index_only=True) as cursor:
        mine = await (live_version(cursor, tables) if version is None else read_version(cursor, tables, version))
        if mine is None:
            return Advanced(0, 0, False, f"there is no version {version}")
        if reason := mine.refuses(rules):
            return Advanced(0, mine.position, False, reason)
        before = mine.position if after is None else after
        rows = await _next_rows(cursor, tables, before, until, step_events)
        gone = await gone_days(cursor, tables)
        places = [(row.position, row.batch_id) for row in rows if row.batch_id.day not in gone]
        batches = [batch._replace(without=without) for batch in await read_batches(cursor, tables, places)]
        await cursor.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        now = await cursor.fetchone()
    if not rows:
        return Advanced(0, before, True)
    waiting = _unreadable(batches, now[0] if now else 0)
    if waiting is not None:
        rows = [row for row in rows if row.position < waiting]
        batches = [batch for batch in batches if batch.position < waiting]
        if not rows:
            return Advanced(0, before, False, f"position {waiting} waits for newer code")
    position = rows[-1].position
    started_ns = time.monotonic_ns()
    folded = await to_thread.run_sync(fold, batches, rules, limiter=_fold_limiter())
    numbered = await number(connection, tables, folded)
    lost = {place: "its row is not in the log" for place, _ in places if place <= position}
    for batch in batches:
        del lost[batch.position]
    return Step(
        version=mine.version,
        before=before,
        position=position,
        events=folded.events,
        numbered=numbered,
        counts=folded.counts,
        days=folded.days,
        dead=folded.dead | lost,
        failed=folded.failed,
        started_ns=started_ns,
    )


async def write(
    connection: Connection,
    tables: Tables,
    range: Step,
    *,
    folded_by: str,
    announce: Announce | None = None,
) -> Advanced:
    """The second half of `advance`: add *range* to its version, if that still stands where it begins."""
    async with short_transaction(connection, index_only=True) as cursor:
        locked = await lock_version(cursor, tables, range.version)
        if locked is None or locked.position != range.before:
            return Advanced(0, range.before, False, BUSY)
        if not range.before and not await _is_ordered(cursor, tables, range.position):
            return Advanced(0, 0, False, BUSY)  # an import was taken back while this was read
        if locked.status not in ADVANCING:
            return Advanced(0, range.before, False, f"it is {locked.status}")
        numbered = range.numbered
        if not await still_numbered(cursor, tables, numbered.series, numbered.workers):
            return Advanced(0, range.before, False, BUSY)  # names were cleaned up meanwhile
        kept = kept_of(numbered.levels, locked.horizons)
        counts = range.counts + Counter({"expired": too_late(range.days, locked.horizons)})
        changed = await store(cursor, tables, range.version, kept)
        await write_left_out(cursor, tables, range.version, range.dead, range.failed)
        if locked.status == "live":
            await write_ring(
                cursor,
                tables,
                version=range.version,
                fold=locked.folds + 1,
                position=range.position,
                points=changed,
            )
        await _move(cursor, tables, range, counts, folded_by)
        if announce is not None and locked.status == "live":
            await announce(cursor)
    left_out = summed_up(range.version, range.dead, range.failed)
    return Advanced(range.events, range.position, False, left_out=left_out or None)


async def _is_ordered(cursor: Cursor, tables: Tables, position: int) -> bool:
    await cursor.execute(
        sql.SQL("SELECT 1 FROM {ledger} WHERE position = %(position)s").format(ledger=tables.ledger),
        {"position": position},
    )
    return await cursor.fetchone() is not None


async def narrow(
    connection: Connection,
    tables: Tables,
    *,
    folded_by: str,
    rules: RuleSet = BUILT_IN,
    version: int | None = None,
    until: int | None = None,
    step_events: int = STEP_EVENTS,
    announce: Announce | None = None,
) -> Advanced:
    """Do what `advance` does where its step has failed by its data: by halves, and halves of those that fail.

    What fails alone is left out: of the user's rules those without which the batch can be stored, else the batch.

    Raises:
        StuckAt: It fails alone, and nobody knows whether that may pass; the version stands right before it.
    """
    async with short_transaction(connection, index_only=True) as cursor:
        mine = await (live_version(cursor, tables) if version is None else read_version(cursor, tables, version))
        if mine is None:
            return Advanced(0, 0, False, f"there is no version {version}")
        rows = await _next_rows(cursor, tables, mine.position, until, step_events)
    positions = [row.position for row in rows]
    if not positions:
        return Advanced(0, mine.position, True)
    halving = _Halving(connection, tables, mine.version, rules, folded_by, announce)
    done = await halving.fold(mine.position, positions)
    left_out = summed_up(mine.version, halving.dead, halving.failed)
    return done._replace(events=halving.events, left_out=left_out or None)


async def leave_out(
    connection: Connection, tables: Tables, version: int, position: int, reason: str, *, folded_by: str
) -> Advanced:
    """Step past the batch at *position*, right before which *version* stands, without anything of it."""
    range = _nothing(version, position - 1, position, {position: reason})
    return await write(connection, tables, range, folded_by=folded_by)


async def set_aside(
    connection: Connection,
    tables: Tables,
    error: Exception,
    *,
    folded_by: str,
    version: int | None = None,
    announce: Announce | None = None,
) -> Advanced:
    """Step past the batch behind *version* (the live one by default), for which there was too little memory.

    Its dead letter says how large it is. A version that is filled where there is more memory takes it up again.
    """
    async with short_transaction(connection, index_only=True) as cursor:
        mine = await (live_version(cursor, tables) if version is None else read_version(cursor, tables, version))
        rows = await read_ledger(cursor, tables, after=mine.position, limit=1) if mine is not None else []
    if mine is None or not rows:
        return Advanced(0, mine.position if mine else 0, True)
    (row,) = rows
    reason = (
        f"too little memory for its {row.events:,} events of {row.size_bytes:,} bytes: {in_words(error)}; "
        "`chancy-metrics rebuild` where there is more takes it up"
    )
    range = _nothing(mine.version, mine.position, row.position, {row.position: reason})
    return await write(connection, tables, range, folded_by=folded_by, announce=announce)


def _nothing(version: int, before: int, position: int, dead: dict[int, str]) -> Step:
    """A range with nothing in it but dead letters."""
    nothing = Numbered({}, [], [])
    return Step(version, before, position, 0, nothing, Counter(), {}, dead, {}, time.monotonic_ns())


class _Halving:
    """One narrowing down of a range that can't be folded, or stored, as a whole: what it has done so far."""

    def __init__(
        self,
        connection: Connection,
        tables: Tables,
        version: int,
        rules: RuleSet,
        folded_by: str,
        announce: Announce | None,
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._version = version
        self._rules = rules
        self._folded_by = folded_by
        self._announce = announce
        self.events = 0
        self.dead: dict[int, str] = {}
        self.failed: dict[tuple[int, str], str] = {}

    async def fold(self, before: int, positions: Sequence[int]) -> Advanced:
        """Fold the batches at *positions*, the first of them next to *before*."""
        try:
            return await self._step(before, positions[-1])
        except Exception as error:
            if not may_be_of_a_batch(error):
                raise
            if len(positions) == 1:
                if is_deterministic(error):
                    return await self._leave_out(before, positions[0], error)
                raise StuckAt(
                    f"version {self._version} can't get past position {positions[0]}: {in_words(error)}; if that comes "
                    f"again, `chancy-metrics discard {positions[0]} --why ...` leaves the batch out"
                ) from error
        middle = len(positions) // 2
        done = await self.fold(before, positions[:middle])
        if done.position < positions[middle - 1]:  # somebody else folds, or newer code has to
            return done
        return await self.fold(done.position, positions[middle:])

    async def _step(self, before: int, until: int, *, without: Mapping[str, str] | None = None) -> Advanced:
        range = await read(
            self._connection,
            self._tables,
            rules=self._rules,
            version=self._version,
            after=before,
            until=until,
            step_events=sys.maxsize,
            without=frozenset(without or ()),
        )
        if isinstance(range, Advanced):
            return range
        if without:
            failed = {(until, name): reason for name, reason in without.items()}
            range = range._replace(failed=range.failed | failed)
        return await self._write(range)

    async def _leave_out(self, before: int, position: int, error: Exception) -> Advanced:
        reason = in_words(error)
        tables = self._rules.names
        for some in [*([name] for name in tables), *([tables] if len(tables) > 1 else [])]:
            try:
                return await self._step(before, position, without=dict.fromkeys(some, f"can't be stored: {reason}"))
            except Exception as again:
                if not is_deterministic(again):
                    raise
        dead = {position: f"can't be stored: {reason}"}
        return await self._write(_nothing(self._version, before, position, dead))

    async def _write(self, range: Step) -> Advanced:
        done = await write(self._connection, self._tables, range, folded_by=self._folded_by, announce=self._announce)
        if not done.reason:
            self.events += done.events
            self.dead |= range.dead
            self.failed |= range.failed
        return done


async def _next_rows(
    cursor: Cursor, tables: Tables, after: int, until: int | None, step_events: int
) -> list[LedgerRow]:
    """Return the places of one step, bounded by events and bytes, but at least one; [] when caught up."""
    limit = max(1, step_events // _EVENTS_A_ROW)
    rows = await read_ledger(cursor, tables, after=after, limit=limit, until=until)
    size = min(CHUNK_BYTES, step_events * _BYTES_AN_EVENT)
    return next(chunks(rows, events=step_events, size=size), [])


def _unreadable(batches: Sequence[LogBatch], now_us: int) -> int | None:
    """Position of the first batch that newer code may still come to read."""
    return next(
        (b.position for b in batches if b.codec != CODEC and now_us - b.appended_us < CODEC_PATIENCE_US),
        None,
    )


def too_late(days: Mapping[int, int], horizons: Mapping[str, int]) -> int:
    """How many events came too late for every resolution, by the one that is kept longest."""
    horizon = horizons[list(RESOLUTIONS)[-1]]
    return sum(events for day, events in days.items() if day < horizon)


def _fold_limiter() -> CapacityLimiter:
    global _limiter
    if _limiter is None:
        _limiter = CapacityLimiter(1)
    return _limiter


async def _move(cursor: Cursor, tables: Tables, range: Step, counts: Counter[str], folded_by: str) -> None:
    total = await added_counts(cursor, tables, range.version, counts)
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
            "version": range.version,
            "position": range.position,
            "counts": None if total is None else Jsonb(total),
            "folded_by": storable_worker(cursor, folded_by),
            "events": range.events,
            "fold_us": (time.monotonic_ns() - range.started_ns) // 1000,
        },
    )
