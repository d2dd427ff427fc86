"""The sequencer: give each committed batch its position in the ledger, without gaps and without decoding it.

A cursor over ids taken at INSERT would skip what a slow writer commits late. Positions are given to committed batches
only, so every reader of the ledger needs nothing but an integer cursor.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import NamedTuple
from uuid import UUID, uuid4

from psycopg import errors, sql

from chancy_metrics.events.batch import BatchId, LogRow
from chancy_metrics.events.chain import link
from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.log import read_log_rows, read_sized_rows
from chancy_metrics.events.partitions import attached_days
from chancy_metrics.events.pending import PendingRow, SetAsideRow, put_back, set_aside, take_pending
from chancy_metrics.events.producers import last_sequences, write_producers
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.spill import take_spilled_of, take_spilled_unless_locked

SEQUENCE_LIMIT = 2_000
#: Milliseconds to wait for each lock while the head is locked, which other sequencers need.
LEDGER_LOCK_MS = 200


class Sequenced(NamedTuple):
    """Outcome of one call of `sequence()`.

    Attributes:
        batches: How many got a position.
        position: The last position in the ledger; None if another sequencer holds the lock.
        last_id: Largest pending id seen; the `after` of the next call.
        conflicts: A sentence for each batch whose id was taken by other bytes; it went into the log under a producer
            of its own.
        refused: Why spilled batches stay spilled though the log is not locked; "" if none does.
        set_aside: How many rows of pending were set aside, since there is no batch for them.
    """

    batches: int
    position: int | None
    last_id: int
    conflicts: tuple[str, ...] = ()
    refused: str = ""
    set_aside: int = 0


class _Entry(NamedTuple):
    """A row of the ledger to be written."""

    position: int
    row: LogRow
    size_bytes: int
    chain: bytes


async def sequence(
    connection: Connection,
    tables: Tables,
    *,
    after: int = 0,
    settled: int = 0,
    limit: int = SEQUENCE_LIMIT,
) -> Sequenced:
    """Give the next positions to up to *limit* committed batches, exactly once each, in one transaction.

    Batches of one producer get theirs in the order of their sequences. A row of pending whose batch is not in the log,
    or whose id is out of bounds, is set aside without a position. Concurrent calls are safe: one that does not get the
    lock returns at once.

    Spilled batches are taken into the log first, if it can be written to. Those that it refuses are holes until they
    come; later batches of their producers don't wait for them. If the log can be read but not written, only producers
    with a spilled batch before those in the log wait.

    Args:
        after: Pending ids up to this are not read, which skips dead rows.
        settled: Pending id up to which no row will come; rows between it and *after* are read if a producer has a gap.

    Raises:
        psycopg.errors.LockNotAvailable: A lock on the log keeps its batches from being read; nothing was done.
    """
    conflicts, refused = await take_spilled_unless_locked(connection, tables)
    async with short_transaction(connection, lock_timeout_ms=LEDGER_LOCK_MS, index_only=True) as cursor:
        await cursor.execute(
            sql.SQL("SELECT 1 FROM {pending} WHERE id > %(after)s LIMIT 1").format(pending=tables.pending),
            {"after": after},
        )
        if await cursor.fetchone() is None:
            return Sequenced(0, await _position(cursor, tables), after, conflicts, refused)
    async with short_transaction(connection, lock_timeout_ms=LEDGER_LOCK_MS, index_only=True) as cursor:
        # Lock and read are two statements: a statement that locks and reads has a snapshot from before the lock, and
        # would take again what another sequencer took meanwhile.
        await cursor.execute(
            sql.SQL("SELECT position, chain FROM {head} FOR UPDATE SKIP LOCKED").format(head=tables.head)
        )
        head = await cursor.fetchone()
        if head is None:
            return Sequenced(0, None, after, conflicts, refused)
        position, chain = int(head[0]), bytes(head[1])
        taken, odd = await take_pending(cursor, tables, after, limit)
        known = await last_sequences(cursor, tables, {row.batch_id.producer for row in taken})
        waiting: list[PendingRow] = []
        if gaps := _gaps(taken, known):
            # The predecessor committed late, below *after*, or is still spilled: it was committed before its successor.
            try:
                found = await take_spilled_of(cursor, tables, gaps)
            except errors.LockNotAvailable:  # other producers need not wait
                waiting = [row for row in taken if row.batch_id.producer in gaps]
                taken = [row for row in taken if row.batch_id.producer not in gaps]
                await put_back(cursor, tables, waiting)
            else:
                conflicts, refused = conflicts + found.conflicts, refused or found.refused
                others, others_odd = await take_pending(cursor, tables, settled, limit)
                taken, odd = taken + others, odd + others_odd
                known = await last_sequences(cursor, tables, {row.batch_id.producer for row in taken})
        rows = await read_sized_rows(cursor, tables, [row.batch_id for row in taken])
        odd += [_removed(row.batch_id) for row in taken if row.batch_id not in rows]
        there = [row for row in sorted(taken) if row.batch_id in rows]
        in_sequence, copies, sentences = await _settle_ids(cursor, tables, _in_sequence(there), known, rows)
        conflicts += tuple(sentences)
        odd += copies.odd
        rows |= copies.rows
        await set_aside(cursor, tables, odd)
        entries = []
        for batch_id in in_sequence:
            row, size = rows[batch_id]
            position += 1
            chain = link(chain, position, row)
            entries.append(_Entry(position, row, size, chain))
        await _write_entries(cursor, tables, entries)
        await write_producers(cursor, tables, [entry.row for entry in entries], known)
        await cursor.execute(
            sql.SQL("UPDATE {head} SET position = %(position)s, chain = %(chain)s").format(head=tables.head),
            {"position": position, "chain": chain},
        )
    last_id = min([max([after, *(row.id for row in taken)]), *(row.id - 1 for row in waiting)])
    return Sequenced(len(entries), position, last_id, conflicts, refused, len(odd))


async def _position(cursor: Cursor, tables: Tables) -> int:
    await cursor.execute(sql.SQL("SELECT position FROM {head}").format(head=tables.head))
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


def _gaps(taken: Sequence[PendingRow], known: dict[UUID, int]) -> set[UUID]:
    """Return the producers whose sequences in *taken* don't continue those in the ledger without a gap."""
    numbers: dict[UUID, set[int]] = {}
    for row in taken:
        producer, number = row.batch_id.producer, row.batch_id.sequence
        if number > known.get(producer, 0):
            numbers.setdefault(producer, set()).add(number)
    return {producer for producer, mine in numbers.items() if max(mine) - known.get(producer, 0) > len(mine)}


def _in_sequence(taken: Sequence[PendingRow]) -> list[BatchId]:
    """Return the ids in order of arrival, but those of each producer in order of sequence."""
    waiting: dict[UUID, list[BatchId]] = {}
    for row in taken:
        waiting.setdefault(row.batch_id.producer, []).append(row.batch_id)
    for batches in waiting.values():
        batches.sort(key=lambda batch_id: batch_id.sequence, reverse=True)
    return [waiting[row.batch_id.producer].pop() for row in taken]


class _Copies(NamedTuple):
    """Batches copied to new ids, and *odd*: rows that can't be copied."""

    rows: dict[BatchId, tuple[LogRow, int]]
    odd: list[SetAsideRow]


async def _settle_ids(
    cursor: Cursor,
    tables: Tables,
    in_sequence: Sequence[BatchId],
    known: dict[UUID, int],
    rows: dict[BatchId, tuple[LogRow, int]],
) -> tuple[list[BatchId], _Copies, list[str]]:
    """Return which batches get a position, one for each id.

    The same bytes under two days are one batch. Other bytes under a taken id are a batch of their own: it is copied to
    a new producer, so that a process which uses another's id hides nothing.

    Returns:
        The batches, the copies among them, and a sentence for each of those.
    """
    kept: dict[tuple[UUID, int], bytes | None] = {}
    result: list[BatchId] = []
    copies = _Copies({}, [])
    sentences = []
    for batch_id in in_sequence:
        key = batch_id.producer, batch_id.sequence
        if key not in kept and batch_id.sequence <= known.get(batch_id.producer, 0):
            day = await _day_in_ledger(cursor, tables, *key)
            if day is not None:
                there = await read_log_rows(cursor, tables, [batch_id._replace(day=day)])
                kept[key] = next((row.sha256 for row in there.values()), None)
        if key not in kept:
            kept[key] = rows[batch_id][0].sha256
            result.append(batch_id)
        elif kept[key] not in (None, rows[batch_id][0].sha256):
            copy = await _copy(cursor, tables, batch_id)
            if copy is None:
                copies.odd.append(SetAsideRow(str(batch_id.day), *key, "its id is taken, and its day takes no copy"))
                continue
            copies.rows[copy] = (await read_sized_rows(cursor, tables, [copy]))[copy]
            result.append(copy)
            sentences.append(
                f"batch {batch_id.sequence} of producer {batch_id.producer} is in the log on {batch_id.day} and, with "
                f"other content, on another day: it counts as producer {copy.producer}; two processes must not share "
                "a producer"
            )
    return result, copies, sentences


async def _day_in_ledger(cursor: Cursor, tables: Tables, producer: UUID, sequence: int) -> date | None:
    """Return the day that the ledger has for a batch; None if it has no position."""
    await cursor.execute(
        sql.SQL("SELECT day FROM {ledger} WHERE producer = %(producer)s AND sequence = %(sequence)s").format(
            ledger=tables.ledger
        ),
        {"producer": producer, "sequence": sequence},
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def _copy(cursor: Cursor, tables: Tables, batch_id: BatchId) -> BatchId | None:
    """Append a copy of a batch under a new producer; None if the log takes neither its day nor today.

    The copy has the same bytes, worker and append time.
    """
    copied = BatchId(batch_id.day, uuid4(), 1)
    await cursor.execute(
        sql.SQL(
            """
            INSERT INTO {log} (
                day, producer, sequence, worker, first_us, last_us, appended_at, events, closes, codec, payload, sha256
            )
            SELECT d.day, %(new)s, 1, l.worker, l.first_us, l.last_us, l.appended_at, l.events, true, l.codec,
                l.payload, l.sha256
            FROM {log} l
            CROSS JOIN LATERAL (
                SELECT CASE
                    WHEN l.day = ANY(%(days)s::date[]) THEN l.day
                    ELSE (clock_timestamp() AT TIME ZONE 'UTC')::date
                END AS day
            ) AS d
            WHERE l.day = %(day)s
                AND l.producer = %(producer)s
                AND l.sequence = %(sequence)s
                AND d.day = ANY(%(days)s::date[])
            RETURNING day
            """
        ).format(log=tables.log),
        batch_id._asdict() | {"new": copied.producer, "days": await attached_days(cursor, tables)},
    )
    row = await cursor.fetchone()
    return copied._replace(day=row[0]) if row else None


def _removed(batch_id: BatchId) -> SetAsideRow:
    return SetAsideRow(str(batch_id.day), batch_id.producer, batch_id.sequence, "its row is not in the log")


async def _write_entries(cursor: Cursor, tables: Tables, entries: Sequence[_Entry]) -> None:
    await cursor.execute(
        sql.SQL(
            """
            INSERT INTO {ledger} (position, day, bytes, producer, sequence, events, chain)
            SELECT *
            FROM unnest(
                %(position)s::bigint[], %(day)s::date[], %(bytes)s::integer[], %(producer)s::uuid[],
                %(sequence)s::bigint[], %(events)s::integer[], %(chain)s::bytea[]
            )
            """
        ).format(ledger=tables.ledger),
        {
            "position": [entry.position for entry in entries],
            "day": [entry.row.day for entry in entries],
            "bytes": [entry.size_bytes for entry in entries],
            "producer": [entry.row.producer for entry in entries],
            "sequence": [entry.row.sequence for entry in entries],
            "events": [entry.row.events for entry in entries],
            "chain": [entry.chain for entry in entries],
        },
    )
