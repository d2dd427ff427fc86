"""One step of a version, in two halves: live folding, rebuild, resume and catching up are these."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple
from uuid import uuid4

from anyio import CapacityLimiter, to_thread
from psycopg import AsyncConnection, AsyncCursor, sql
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from chancy_metrics.events.codec import CODEC
from chancy_metrics.events.ledger import LedgerRow, read_ledger
from chancy_metrics.events.log import LogBatch, read_batches, short_transaction
from chancy_metrics.events.partitions import gone_days
from chancy_metrics.events.schema import RESOLUTIONS, Tables

from .cells import ALL_WORKERS, Cells, kept_of
from .fold import fold
from .numbers import Numbered, number, still_numbered
from .ring import RING_SIZE, pack_points
from .rules import BUILT_IN, RuleSet
from .store import store
from .versions import Version, live_version, lock_version, read_version

#: One step folds at most so many events (or one batch): a transaction stays short and memory bounded.
STEP_EVENTS = 20_000
#: A rebuild's steps are larger: the fewer there are, the fewer times is a row of a coarse bucket written again.
REBUILD_STEP_EVENTS = 250_000
#: One step reads at most one ledger row for so many events.
_EVENTS_A_ROW = 20
#: A batch of a codec this code does not know waits so long for a newer projector before it is left out.
CODEC_PATIENCE_US = 600 * 1_000_000

#: Why a step did nothing that another process took at the same time: trying again soon is right.
BUSY = "somebody else folds"
#: Versions that take steps; the others have to become one of these first.
ADVANCING = ("filling", "ready", "live", "resting")

Announce = Callable[[AsyncCursor[TupleRow]], Awaitable[None]]


class Advanced(NamedTuple):
    """What one step did.

    Attributes:
        events: How many it folded.
        position: Where the version stands now.
        caught_up: Nothing was left in the ledger when it looked.
        reason: Why it did nothing, in words; "" if it did, or if nothing was there.
    """

    events: int
    position: int
    caught_up: bool
    reason: str = ""


class Stretch(NamedTuple):
    """A stretch of the ledger, read and folded: what `write` adds to a version.

    Attributes:
        before: Position at which the version must still stand.
        position: Of the stretch's last batch.
        dead: Position -> why its batch is not in here.
    """

    version: int
    before: int
    position: int
    events: int
    numbered: Numbered
    counts: Counter[str]
    dead: dict[int, str]
    started_ns: int


_limiter: CapacityLimiter | None = None


async def advance(
    connection: AsyncConnection[TupleRow],
    tables: Tables,
    *,
    folder: str,
    rules: RuleSet = BUILT_IN,
    version: int | None = None,
    until: int | None = None,
    step_events: int = STEP_EVENTS,
    announce: Announce | None = None,
) -> Advanced:
    """Fold the next stretch of the ledger into a version: exactly once, whoever else tries the same.

    What is read lies in the ledger for ever, so it is read and folded before any lock is taken; under the lock
    the version must still stand where it stood. Rows, position and, of the live version, the ring row are one
    transaction. Bounded by *step_events*: call again until `caught_up`.

    Args:
        version: Its number; the live one by default.
        until: Position past which nothing is folded; the end of the ledger by default.
    """
    stretch = await read(connection, tables, rules=rules, version=version, until=until, step_events=step_events)
    if isinstance(stretch, Advanced):
        return stretch
    return await write(connection, tables, stretch, folder=folder, announce=announce)


async def read(
    connection: AsyncConnection[TupleRow],
    tables: Tables,
    *,
    rules: RuleSet = BUILT_IN,
    version: int | None = None,
    after: int | None = None,
    until: int | None = None,
    step_events: int = STEP_EVENTS,
) -> Stretch | Advanced:
    """The first half of `advance`: read and fold, without a lock; what there is nothing to do for is said at once.

    Args:
        after: Where the version will stand when the stretch is written; where it stands by default.
    """
    async with short_transaction(connection, index_only=True) as cursor:
        mine = await (live_version(cursor, tables) if version is None else read_version(cursor, tables, version))
        if mine is None:
            return Advanced(0, 0, False, f"there is no version {version}")
        if reason := mine.refuses(rules):
            return Advanced(0, mine.position, False, reason)
        before = mine.position if after is None else after
        limit = step_events // _EVENTS_A_ROW
        rows = _bounded(await read_ledger(cursor, tables, after=before, limit=limit, until=until), step_events)
        gone = await gone_days(cursor, tables)
        places = [(row.position, row.batch_id) for row in rows if row.batch_id.day not in gone]
        batches = await read_batches(cursor, tables, places)
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
    dead = folded.dead | lost
    return Stretch(mine.version, before, position, folded.events, numbered, folded.counts, dead, started_ns)


async def write(
    connection: AsyncConnection[TupleRow],
    tables: Tables,
    stretch: Stretch,
    *,
    folder: str,
    announce: Announce | None = None,
) -> Advanced:
    """The second half of `advance`: add *stretch* to its version, if that still stands where it begins."""
    async with short_transaction(connection, index_only=True) as cursor:
        locked = await lock_version(cursor, tables, stretch.version)
        if locked is None or locked.position != stretch.before:
            return Advanced(0, stretch.before, False, BUSY)
        if locked.status not in ADVANCING:
            return Advanced(0, stretch.before, False, f"it is {locked.status}")
        numbered = stretch.numbered
        if not await still_numbered(cursor, tables, numbered.series, numbered.workers):
            return Advanced(0, stretch.before, False, BUSY)  # names were cleaned up meanwhile
        kept = kept_of(numbered.levels, locked.horizons)
        counts = stretch.counts + Counter({"expired": _expired(numbered.levels, kept)})
        changed = await store(cursor, tables, stretch.version, kept)
        await bury(cursor, tables, stretch.version, stretch.dead)
        if locked.status == "live":
            await _write_ring(cursor, tables, locked, stretch.position, pack_points(changed))
        await _move(cursor, tables, stretch, counts, folder)
        if announce is not None and locked.status == "live":
            await announce(cursor)
    return Advanced(stretch.events, stretch.position, False)


def _bounded(rows: Sequence[LedgerRow], most: int) -> list[LedgerRow]:
    """Cut after so many events, but never before the first row."""
    kept: list[LedgerRow] = []
    events = 0
    for row in rows:
        events += row.events
        if kept and events > most:
            break
        kept.append(row)
    return kept


def _unreadable(batches: Sequence[LogBatch], now_us: int) -> int | None:
    """Position of the first batch that newer code may still come to read."""
    return next(
        (b.position for b in batches if b.codec != CODEC and now_us - b.appended_us < CODEC_PATIENCE_US),
        None,
    )


def _expired(levels: Mapping[str, Cells], kept: Mapping[str, Cells]) -> int:
    """How many observations came too late for every resolution, counted in the coarsest."""
    coarsest = list(RESOLUTIONS)[-1]

    def observations(cells: Cells) -> int:
        return int(cells.tally[cells.worker == ALL_WORKERS].sum())

    return observations(levels[coarsest]) - observations(kept[coarsest]) if coarsest in levels else 0


def _fold_limiter() -> CapacityLimiter:
    global _limiter
    if _limiter is None:
        _limiter = CapacityLimiter(1)
    return _limiter


async def bury(cursor: AsyncCursor[TupleRow], tables: Tables, version: int, dead: dict[int, str]) -> None:
    if dead:
        await cursor.executemany(
            sql.SQL(
                "INSERT INTO {dead_letters} (version, position, error) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
            ).format(dead_letters=tables.dead_letters),
            [(version, position, error.replace("\x00", "")) for position, error in sorted(dead.items())],
        )


async def _write_ring(
    cursor: AsyncCursor[TupleRow], tables: Tables, version: Version, position: int, points: bytes
) -> None:
    number = version.folds + 1
    await cursor.execute(
        sql.SQL("DELETE FROM {cache} WHERE fold <= %(oldest)s").format(cache=tables.cache),
        {"oldest": number - RING_SIZE},
    )
    await cursor.execute(
        sql.SQL(
            """
            INSERT INTO {cache} (fold, version, position, token, points)
            VALUES (%(fold)s, %(version)s, %(position)s, %(token)s, %(points)b)
            """
        ).format(cache=tables.cache),
        {"fold": number, "version": version.version, "position": position, "token": uuid4(), "points": points},
    )


async def _move(
    cursor: AsyncCursor[TupleRow], tables: Tables, stretch: Stretch, counts: Counter[str], folder: str
) -> None:
    await cursor.execute(
        sql.SQL("SELECT counts FROM {versions} WHERE version = %(version)s").format(versions=tables.versions),
        {"version": stretch.version},
    )
    row = await cursor.fetchone()
    total = Counter(row[0] if row else {}) + counts
    await cursor.execute(
        sql.SQL(
            """
            UPDATE {versions}
            SET position = %(position)s,
                folds = folds + 1,
                counts = %(counts)s,
                folded_at = clock_timestamp(),
                folder_since = CASE WHEN folded_by = %(folder)s THEN folder_since ELSE clock_timestamp() END,
                folded_by = %(folder)s,
                fold_events = %(events)s,
                fold_us = %(fold_us)s
            WHERE version = %(version)s
            """
        ).format(versions=tables.versions),
        {
            "version": stretch.version,
            "position": stretch.position,
            "counts": Jsonb(dict(total)),
            "folder": folder,
            "events": stretch.events,
            "fold_us": (time.monotonic_ns() - stretch.started_ns) // 1000,
        },
    )
