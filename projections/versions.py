"""Versions of the projection: a cursor over the ledger, a set of rules, and the rows it has made."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple
from uuid import uuid4

import numpy as np
from anyio import CapacityLimiter, to_thread
from psycopg import AsyncConnection, AsyncCursor, sql
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from chancy_metrics.events.codec import CODEC
from chancy_metrics.events.errors import SchemaMissing
from chancy_metrics.events.ledger import LedgerRow, read_ledger
from chancy_metrics.events.log import LogBatch, read_batches, short_transaction
from chancy_metrics.events.schema import RESOLUTIONS, Tables

from .cells import ALL_WORKERS, Cells, merge, select
from .fold import Fold, fold
from .numbers import number_series, number_workers, still_numbered
from .ring import RING_SIZE, pack_points
from .rules import RULES
from .store import store

#: One step folds at most so many events (or one batch): a transaction stays short and memory bounded.
STEP_EVENTS = 20_000
STEP_BATCHES = 1_000
#: A batch of a codec this code does not know waits so long for a newer projector before it is left out.
CODEC_PATIENCE_US = 600 * 1_000_000

#: Why a step did nothing that another process took at the same time: trying again soon is right.
BUSY = "somebody else folds"

Announce = Callable[[AsyncCursor[TupleRow]], Awaitable[None]]


class Version(NamedTuple):
    """A version's row.

    Attributes:
        position: Last position of the ledger that is in its rows.
        folds: How many steps it has taken.
        horizons: Resolution -> start of the oldest bucket it keeps, seconds.
    """

    version: int
    rules: int
    user_rules: int
    status: str
    position: int
    folds: int
    horizons: dict[str, int]


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


_limiter: CapacityLimiter | None = None


async def live_version(cursor: AsyncCursor[TupleRow], tables: Tables) -> Version:
    """Return the version that readers see.

    Raises:
        SchemaMissing: There is none.
    """
    await cursor.execute(
        _select_version(tables, sql.SQL("WHERE v.version = (SELECT live FROM {head})").format(head=tables.head))
    )
    row = await cursor.fetchone()
    if row is None:
        raise SchemaMissing("the metrics log has no live version: run `chancy misc migrate`")
    return _version(row)


async def advance(
    connection: AsyncConnection[TupleRow],
    tables: Tables,
    *,
    folder: str,
    announce: Announce | None = None,
    user_rules: int = 0,
) -> Advanced:
    """Fold the next stretch of the ledger into the live version: exactly once, whoever else tries the same.

    What is read lies in the ledger for ever, so it is read and folded before any lock is taken; under the lock
    the version must still stand where it stood. Rows, position and the ring row are one transaction. Bounded
    by `STEP_EVENTS`: call again until `caught_up`.
    """
    async with short_transaction(connection, index_only=True) as cursor:
        version = await live_version(cursor, tables)
        if (version.rules, version.user_rules) != (RULES, user_rules):
            return Advanced(0, version.position, False, f"version {version.version} has rules of other code")
        rows = _bounded(await read_ledger(cursor, tables, after=version.position, limit=STEP_BATCHES))
        batches = await read_batches(cursor, tables, [(row.position, row.batch_id) for row in rows])
        await cursor.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        now = await cursor.fetchone()
    if not rows:
        return Advanced(0, version.position, True)
    waiting = _unreadable(batches, now[0] if now else 0)
    if waiting is not None:
        rows = [row for row in rows if row.position < waiting]
        batches = [batch for batch in batches if batch.position < waiting]
        if not rows:
            return Advanced(0, version.position, False, f"position {waiting} waits for newer code")
    started = time.monotonic_ns()
    folded = await to_thread.run_sync(fold, batches, limiter=_fold_limiter())
    levels, series, workers = await _number(connection, tables, folded)
    lost = {row.position: "its row is not in the log" for row in rows} if len(batches) < len(rows) else {}
    for batch in batches:
        lost.pop(batch.position, None)
    async with short_transaction(connection) as cursor:
        await cursor.execute(
            _select_version(tables, sql.SQL("WHERE v.version = %(version)s FOR UPDATE OF v SKIP LOCKED")),
            {"version": version.version},
        )
        row = await cursor.fetchone()
        if row is None or (locked := _version(row)).position != version.position or locked.status != "live":
            return Advanced(0, version.position, False, BUSY)
        if not await still_numbered(cursor, tables, series, workers):
            return Advanced(0, version.position, False, "names were cleaned up meanwhile")
        kept = {name: select(cells, cells.bucket >= locked.horizons[name]) for name, cells in levels.items()}
        counts = folded.counts + Counter({"expired": _expired(levels, kept)})
        changed = await store(cursor, tables, version.version, kept)
        await _bury(cursor, tables, version.version, folded.dead | lost)
        await _write_ring(cursor, tables, version.version, locked.folds + 1, rows[-1].position, pack_points(changed))
        await _move(cursor, tables, version.version, rows[-1].position, counts, folder, folded.events, started)
        if announce is not None:
            await announce(cursor)
    return Advanced(folded.events, rows[-1].position, False)


def _bounded(rows: Sequence[LedgerRow]) -> list[LedgerRow]:
    """Cut after `STEP_EVENTS`, but never before the first row."""
    kept: list[LedgerRow] = []
    events = 0
    for row in rows:
        events += row.events
        if kept and events > STEP_EVENTS:
            break
        kept.append(row)
    return kept


def _unreadable(batches: Sequence[LogBatch], now_us: int) -> int | None:
    """Position of the first batch that newer code may still come to read."""
    return next(
        (b.position for b in batches if b.codec != CODEC and now_us - b.appended_us < CODEC_PATIENCE_US),
        None,
    )


class _Numbered(NamedTuple):
    """A fold's cells in the database's numbers, in the order of those."""

    levels: dict[str, Cells]
    series: list[int]
    workers: list[int]


async def _number(connection: AsyncConnection[TupleRow], tables: Tables, folded: Fold) -> _Numbered:
    if not folded.levels:
        return _Numbered({}, [], [])
    by_series = await number_series(connection, tables, folded.series)
    by_name = await number_workers(connection, tables, folded.workers)
    series = [by_series[one] for one in folded.series]
    workers = [by_name[name] for name in folded.workers]
    return _Numbered(await to_thread.run_sync(_renumbered, folded.levels, series, workers), series, workers)


def _renumbered(levels: dict[str, Cells], series: list[int], workers: list[int]) -> dict[str, Cells]:
    series_numbers, worker_numbers = np.array(series, np.int64), np.array([ALL_WORKERS, *workers], np.int64)
    return {
        resolution: merge(cells._replace(worker=worker_numbers[cells.worker], series=series_numbers[cells.series]))
        for resolution, cells in levels.items()
    }


def _expired(levels: dict[str, Cells], kept: dict[str, Cells]) -> int:
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


def _select_version(tables: Tables, where: sql.Composable) -> sql.Composed:
    return sql.SQL(
        """
        SELECT v.version, v.rules, v.user_rules, v.status, v.position, v.folds,
            v.horizon_1min, v.horizon_5min, v.horizon_1hour, v.horizon_1day
        FROM {versions} v
        {where}
        """
    ).format(versions=tables.versions, where=where)


def _version(row: TupleRow) -> Version:
    version, rules, user_rules, status, position, folds, *horizons = row
    kept = dict(zip(RESOLUTIONS, horizons, strict=True))
    return Version(version, rules, user_rules, status, position, folds, kept)


async def _bury(cursor: AsyncCursor[TupleRow], tables: Tables, version: int, dead: dict[int, str]) -> None:
    if dead:
        await cursor.executemany(
            sql.SQL(
                "INSERT INTO {dead_letters} (version, position, error) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
            ).format(dead_letters=tables.dead_letters),
            [(version, position, error.replace("\x00", "")) for position, error in sorted(dead.items())],
        )


async def _write_ring(
    cursor: AsyncCursor[TupleRow], tables: Tables, version: int, number: int, position: int, points: bytes
) -> None:
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
        {"fold": number, "version": version, "position": position, "token": uuid4(), "points": points},
    )


async def _move(
    cursor: AsyncCursor[TupleRow],
    tables: Tables,
    version: int,
    position: int,
    counts: Counter[str],
    folder: str,
    events: int,
    started_ns: int,
) -> None:
    await cursor.execute(
        sql.SQL("SELECT counts FROM {versions} WHERE version = %(version)s").format(versions=tables.versions),
        {"version": version},
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
            "version": version,
            "position": position,
            "counts": Jsonb(dict(total)),
            "folder": folder,
            "events": events,
            "fold_us": (time.monotonic_ns() - started_ns) // 1000,
        },
    )
