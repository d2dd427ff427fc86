"""The spill table: batches that the log did not take (locked, broken, day closed), and moving them into the log."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from psycopg import Error, errors, sql

from chancy_metrics.events.batch import BatchId
from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.error_kinds import in_words
from chancy_metrics.events.log import read_columns
from chancy_metrics.events.partitions import attached_days, make_days
from chancy_metrics.events.row_bounds import ID_IN_BOUNDS
from chancy_metrics.events.schema import Tables

#: Milliseconds to wait for the log's locks: while it is locked, batches in it still get positions.
TAKE_LOCK_MS = 10


#: Batches of one transaction, unless the log refuses one.
_TAKE_BATCHES = 200
#: After so many refused batches the rest is left to the next call.
_REFUSED_BATCHES = 10


class _Spilled(NamedTuple):
    batch_id: BatchId
    sha256: bytes


class _Known(NamedTuple):
    logged_as: list[BatchId]
    is_counted: bool


class Taken(NamedTuple):
    """Outcome of moving spilled batches into the log.

    Attributes:
        conflicts: A sentence for each batch whose id was taken by other bytes.
        refused: Why batches stay spilled, other than for a lock; "" if none does.
    """

    conflicts: tuple[str, ...] = ()
    refused: str = ""


async def take_spilled_unless_locked(connection: Connection, tables: Tables) -> Taken:
    """Move spilled batches into the log, in transactions of its own; stop if the log is locked.

    Batches that the log refuses stay spilled and hold up no others. Creates today's partition if it is missing.

    Raises:
        psycopg.Error: The connection is lost, or its server takes no writes.
    """
    conflicts: list[str] = []
    refused: list[BatchId] = []
    reason: Error | None = None
    limit = _TAKE_BATCHES
    try:
        async with short_transaction(connection, lock_timeout_ms=TAKE_LOCK_MS) as cursor:
            if not await _is_any_spilled(cursor, tables):
                return Taken()
            await cursor.execute("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")
            row = await cursor.fetchone()
            assert row is not None
        try:
            await make_days(connection, tables, today=row[0], ahead=0)
        except Error as error:  # batches of other days don't need it
            reason = _unless_lost(connection, error)
        while len(refused) < _REFUSED_BATCHES:
            spilled: list[_Spilled] = []
            try:
                async with short_transaction(connection, lock_timeout_ms=TAKE_LOCK_MS) as cursor:
                    spilled = await _lock_oldest(cursor, tables, limit, refused)
                    taken, found = await _take(cursor, tables, spilled)
            except errors.LockNotAvailable:
                raise
            except Error as error:
                reason = _unless_lost(connection, error)
                if not spilled:
                    break
                if len(spilled) == 1:
                    refused.append(spilled[0].batch_id)
                limit = max(1, len(spilled) // 2)
            else:
                conflicts += found
                if taken < limit:
                    break
                limit = min(2 * limit, _TAKE_BATCHES)
    except errors.LockNotAvailable:
        pass
    except Error as error:
        reason = _unless_lost(connection, error)
    return Taken(tuple(conflicts), "" if reason is None else in_words(reason))


async def take_spilled_of(cursor: Cursor, tables: Tables, producers: Collection[UUID]) -> Taken:
    """Move the spilled batches of *producers* into the log in the caller's transaction, all or none.

    Waits for another process that moves them at the same time.

    Raises:
        psycopg.errors.LockNotAvailable: The log is locked.
        psycopg.Error: As `take_spilled_unless_locked`.
    """
    try:
        async with cursor.connection.transaction():
            conflicts = (await _take(cursor, tables, await _lock_of(cursor, tables, producers)))[1]
    except errors.LockNotAvailable:
        raise
    except Error as error:
        return Taken(refused=in_words(_unless_lost(cursor.connection, error)))
    return Taken(tuple(conflicts))


def _unless_lost(connection: Connection, error: Error) -> Error:
    """Return *error*, or raise it if *connection* is closed."""
    if connection.closed:
        raise error
    return error


async def _is_any_spilled(cursor: Cursor, tables: Tables) -> bool:
    """Whether a batch is spilled."""
    await cursor.execute(
        sql.SQL("SELECT EXISTS (SELECT FROM {spill} WHERE {in_bounds})").format(
            spill=tables.spill, in_bounds=sql.SQL(ID_IN_BOUNDS)
        )
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def _lock_oldest(cursor: Cursor, tables: Tables, limit: int, without: Sequence[BatchId]) -> list[_Spilled]:
    await cursor.execute(
        sql.SQL(
            """
            SELECT s.day, s.producer, s.sequence, s.sha256
            FROM {spill} s
            WHERE {in_bounds}
                AND NOT EXISTS (
                    SELECT
                    FROM unnest(%(producers)s::uuid[], %(sequences)s::bigint[]) AS w (producer, sequence)
                    WHERE w.producer = s.producer
                        AND w.sequence = s.sequence
                )
            ORDER BY appended_at, producer, sequence
            LIMIT %(limit)s
            FOR UPDATE OF s SKIP LOCKED
            """
        ).format(spill=tables.spill, in_bounds=sql.SQL(ID_IN_BOUNDS)),
        _ids(without) | {"limit": limit},
    )
    return [_Spilled(BatchId(*row[:3]), bytes(row[3])) for row in await cursor.fetchall()]


async def _lock_of(cursor: Cursor, tables: Tables, producers: Collection[UUID]) -> list[_Spilled]:
    await cursor.execute(
        sql.SQL(
            """
            SELECT day, producer, sequence, sha256
            FROM {spill}
            WHERE producer = ANY(%(producers)s)
                AND {in_bounds}
            ORDER BY appended_at, producer, sequence
            FOR UPDATE
            """
        ).format(spill=tables.spill, in_bounds=sql.SQL(ID_IN_BOUNDS)),
        {"producers": list(producers)},
    )
    return [_Spilled(BatchId(*row[:3]), bytes(row[3])) for row in await cursor.fetchall()]


async def _take(cursor: Cursor, tables: Tables, spilled: Sequence[_Spilled]) -> tuple[int, list[str]]:
    """Move locked batches into the log; return how many left the spill table, and a sentence for each conflict.

    A batch keeps its id, bytes, worker and append time, and its day unless that is closed: then it gets today. A batch
    that is in the log with the same bytes is dropped; one whose id is taken by other bytes gets a new producer. An id
    with a position whose day has left the log counts as the same batch.
    """
    if not spilled:
        return 0, []
    known = await _known(cursor, tables, [one.batch_id for one in spilled])
    candidates = [logged for one in known.values() for logged in one.logged_as]
    logged = {
        BatchId(*row[:3]): bytes(row[3])
        for row in await read_columns(cursor, tables, candidates, "l.day, l.producer, l.sequence, l.sha256")
    }
    moved: list[BatchId] = []
    doubled: list[BatchId] = []
    conflicts: list[str] = []
    for batch_id, sha256 in spilled:
        there = {logged[one] for one in known[batch_id].logged_as if one in logged}
        if sha256 in there or (not there and known[batch_id].is_counted):
            doubled.append(batch_id)
        elif not there:
            moved.append(batch_id)
        else:
            moved.append(await _give_new_id(cursor, tables, batch_id))
            conflicts.append(
                f"batch {batch_id.sequence} of producer {batch_id.producer} was spilled, and its id is taken by other "
                f"content: it is in the log as producer {moved[-1].producer}; two processes must not share a producer"
            )
    return await _move(cursor, tables, moved) + await _drop(cursor, tables, doubled), conflicts


async def _known(cursor: Cursor, tables: Tables, batch_ids: Sequence[BatchId]) -> dict[BatchId, _Known]:
    """Return the ids, by day, under which each batch may be in the log, and whether it has a position."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT w.number, found.day, found.is_counted
            FROM unnest(%(producers)s::uuid[], %(sequences)s::bigint[])
                WITH ORDINALITY AS w (producer, sequence, number)
            CROSS JOIN LATERAL (
                SELECT day, true AS is_counted
                FROM {ledger}
                WHERE producer = w.producer
                    AND sequence = w.sequence
                UNION ALL
                SELECT day, false
                FROM {pending}
                WHERE producer = w.producer
                    AND sequence = w.sequence
            ) AS found
            """
        ).format(ledger=tables.ledger, pending=tables.pending),
        _ids(batch_ids),
    )
    known = {batch_id: _Known([], False) for batch_id in batch_ids}
    for number, day, is_counted in await cursor.fetchall():
        batch_id = batch_ids[number - 1]
        days, was_counted = known[batch_id]
        known[batch_id] = _Known([*days, batch_id._replace(day=day)], is_counted or was_counted)
    return known


async def _give_new_id(cursor: Cursor, tables: Tables, batch_id: BatchId) -> BatchId:
    new = BatchId(batch_id.day, uuid4(), 1)
    await cursor.execute(
        sql.SQL(
            """
            UPDATE {spill}
            SET producer = %(new)s,
                sequence = 1,
                closes = true
            WHERE producer = %(producer)s
                AND sequence = %(sequence)s
            """
        ).format(spill=tables.spill),
        {"new": new.producer, "producer": batch_id.producer, "sequence": batch_id.sequence},
    )
    return new


async def _move(cursor: Cursor, tables: Tables, batch_ids: Sequence[BatchId]) -> int:
    """Move batches from spill to log and pending; return how many.

    Raises:
        psycopg.Error: The log refuses them, or a rule or trigger keeps them out of pending.
    """
    # If another process writes the same id meanwhile, the batch stays spilled until the next call.
    await cursor.execute(
        sql.SQL(
            """
            WITH taken AS (
                INSERT INTO {log} (
                    day, producer, sequence, worker, first_us, last_us, appended_at, events, closes, codec, payload,
                    sha256
                )
                SELECT d.day, s.producer, s.sequence, s.worker, s.first_us, s.last_us, s.appended_at, s.events,
                    s.closes, s.codec, s.payload, s.sha256
                FROM unnest(%(producers)s::uuid[], %(sequences)s::bigint[])
                    WITH ORDINALITY AS w (producer, sequence, number)
                JOIN {spill} s
                    ON s.producer = w.producer
                    AND s.sequence = w.sequence
                CROSS JOIN LATERAL (
                    SELECT CASE
                        WHEN s.day = ANY(%(days)s::date[]) THEN s.day
                        ELSE (clock_timestamp() AT TIME ZONE 'UTC')::date
                    END AS day
                ) AS d
                WHERE d.day = ANY(%(days)s::date[])
                ORDER BY w.number
                ON CONFLICT DO NOTHING
                RETURNING day, producer, sequence
            ), waiting AS (
                INSERT INTO {pending} (day, producer, sequence)
                SELECT day, producer, sequence
                FROM taken
                RETURNING 1
            ), gone AS (
                DELETE FROM {spill} s
                USING taken t
                WHERE s.producer = t.producer
                    AND s.sequence = t.sequence
                RETURNING 1
            )
            SELECT (SELECT count(*) FROM taken), (SELECT count(*) FROM waiting), (SELECT count(*) FROM gone)
            """
        ).format(log=tables.log, spill=tables.spill, pending=tables.pending),
        _ids(batch_ids) | {"days": await attached_days(cursor, tables)},
    )
    row = await cursor.fetchone()
    assert row is not None
    taken, waiting, gone = row
    if waiting != taken:  # they would never get positions
        raise errors.RaiseException("a rule or a trigger keeps batches out of the pending table")
    return int(gone)


async def _drop(cursor: Cursor, tables: Tables, batch_ids: Sequence[BatchId]) -> int:
    await cursor.execute(
        sql.SQL(
            """
            DELETE FROM {spill} s
            USING unnest(%(producers)s::uuid[], %(sequences)s::bigint[]) AS w (producer, sequence)
            WHERE s.producer = w.producer
                AND s.sequence = w.sequence
            """
        ).format(spill=tables.spill),
        _ids(batch_ids),
    )
    return cursor.rowcount


def _ids(batch_ids: Sequence[BatchId]) -> dict[str, Any]:
    return {
        "producers": [batch_id.producer for batch_id in batch_ids],
        "sequences": [batch_id.sequence for batch_id in batch_ids],
    }
