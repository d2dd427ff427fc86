"""The order: a gapless position for every batch, given late, by short transactions that never decode.

Reading the log by an id taken at INSERT would skip for ever what a slow writer commits late; a position is
given only to what is committed, so every reader after this one needs nothing but an integer cursor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import LiteralString, NamedTuple, Protocol, TypeVar
from uuid import UUID, uuid4

from psycopg import errors, sql

from chancy_metrics.events.batch import BatchId, LogRow
from chancy_metrics.events.bounds import ID_IN_BOUNDS
from chancy_metrics.events.chain import link
from chancy_metrics.events.classify import in_words, is_out_of_memory
from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import OutOfMemory
from chancy_metrics.events.log import APPENDED_US, read_columns
from chancy_metrics.events.partitions import attached_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.spill import take_spilled_of, take_spilled_unless_locked

SEQUENCE_LIMIT = 2_000
#: Milliseconds each lock is waited for while the end of the ledger is held: others want it, too.
ORDER_LOCK_MS = 200
#: Events, and bytes of payload, that are read, decoded or held at once; or one batch, whatever it holds.
CHUNK_EVENTS = 50_000
CHUNK_BYTES = 32 << 20
#: The columns of a `LogRow`, in `read_columns`.
LOG_ROW: LiteralString = (
    f"l.day, l.producer, l.sequence, l.worker, l.first_us, l.last_us, {APPENDED_US}, l.events, l.closes, l.codec, "
    "l.sha256"
)


class Sequenced(NamedTuple):
    """What one call of `sequence()` did.

    Attributes:
        batches: How many got a position.
        position: The last position in the ledger; None if somebody else holds the order.
        last_id: Largest pending id seen: the `after` of the next call.
        conflicts: Of batches whose id is taken by one with other bytes, a sentence each; they went into the log as
            producers of their own.
        refused: Why spilled batches stay where they are though the log is not locked; "" where none does.
        set_aside: How many rows of pending are about no batch, and got no position.
    """

    batches: int
    position: int | None
    last_id: int
    conflicts: tuple[str, ...] = ()
    refused: str = ""
    set_aside: int = 0


class LedgerRow(NamedTuple):
    """One place in the order.

    Attributes:
        size_bytes: How long the payload of its batch is.
    """

    position: int
    batch_id: BatchId
    events: int
    size_bytes: int


class _Entry(NamedTuple):
    """A place in the order as it is written."""

    position: int
    row: LogRow
    size_bytes: int
    chain: bytes


class _Pending(NamedTuple):
    id: int
    batch_id: BatchId


class _SetAside(NamedTuple):
    """A row of pending that is about no batch; its day as text, since it may be one that no `date` can hold."""

    day: str
    producer: UUID
    sequence: int
    why: str


class _Producer(NamedTuple):
    producer: UUID
    worker: str
    last_sequence: int
    closed: bool
    holes: int
    seen_us: int


async def sequence(
    connection: Connection,
    tables: Tables,
    *,
    after: int = 0,
    settled: int = 0,
    limit: int = SEQUENCE_LIMIT,
) -> Sequenced:
    """Give the next positions to up to *limit* committed batches, exactly once each, in one transaction.

    Batches of one producer get theirs in the order of their sequences. What waits for a position and is no batch (none
    is in the log under its id, or no log could hold one) is set aside: it gets none, and keeps nobody from theirs.
    Safe to call from anywhere at any time: whoever does not get the lock leaves. With *after* only pending ids past it
    are looked at, which spares the dead rows below; a call now and then with the id up to which all is *settled* finds
    what committed late. Before that, spilled batches are taken into the log, if it can be written to now; those that it
    refuses hold up nothing: what their producers appended after them gets its place, and they are a hole before it
    until they come.

    Where the log can be read and not written, producers wait that have a spilled batch before those in the log, and no
    others.

    Raises:
        psycopg.errors.LockNotAvailable: Somebody holds a lock on the log, and its batches can't be read; nothing
            was done, and a later call does it.
    """
    conflicts, refused = await take_spilled_unless_locked(connection, tables)
    async with short_transaction(connection, lock_timeout_ms=ORDER_LOCK_MS, index_only=True) as cursor:
        await cursor.execute(
            sql.SQL("SELECT 1 FROM {pending} WHERE id > %(after)s LIMIT 1").format(pending=tables.pending),
            {"after": after},
        )
        if await cursor.fetchone() is None:
            return Sequenced(0, await _position(cursor, tables), after, conflicts, refused)
    async with short_transaction(connection, lock_timeout_ms=ORDER_LOCK_MS, index_only=True) as cursor:
        # The lock and the read are two statements: a lock taken by the statement that reads is younger than
        # its snapshot, and what another sequencer took meanwhile would be taken twice.
        await cursor.execute(
            sql.SQL("SELECT position, chain FROM {head} FOR UPDATE SKIP LOCKED").format(head=tables.head)
        )
        head = await cursor.fetchone()
        if head is None:
            return Sequenced(0, None, after, conflicts, refused)
        position, chain = int(head[0]), bytes(head[1])
        taken, odd = await _take(cursor, tables, after, limit)
        known = await _producers(cursor, tables, {row.batch_id.producer for row in taken})
        waiting: list[_Pending] = []
        if gaps := _gaps(taken, known):
            # A predecessor committed late, below *after*, or is spilled still: it was committed before its successor.
            try:
                found = await take_spilled_of(cursor, tables, gaps)
            except errors.LockNotAvailable:  # those of others need not wait for it
                waiting = [row for row in taken if row.batch_id.producer in gaps]
                taken = [row for row in taken if row.batch_id.producer not in gaps]
                await _put_back(cursor, tables, waiting)
            else:
                conflicts, refused = conflicts + found.conflicts, refused or found.refused
                others, others_odd = await _take(cursor, tables, settled, limit)
                taken, odd = taken + others, odd + others_odd
                known = await _producers(cursor, tables, {row.batch_id.producer for row in taken})
        rows = await _read_sized(cursor, tables, [row.batch_id for row in taken])
        odd += [_removed(row.batch_id) for row in taken if row.batch_id not in rows]
        there = [row for row in sorted(taken) if row.batch_id in rows]
        ordered, copies, told = await _settle_ids(cursor, tables, _in_sequence(there), known, rows)
        conflicts += tuple(told)
        odd += copies.odd
        rows |= copies.rows
        await _set_aside(cursor, tables, odd)
        entries = []
        for batch_id in ordered:
            row, size = rows[batch_id]
            position += 1
            chain = link(chain, position, row)
            entries.append(_Entry(position, row, size, chain))
        await _write(cursor, tables, entries)
        await _write_producers(cursor, tables, [entry.row for entry in entries], known)
        await cursor.execute(
            sql.SQL("UPDATE {head} SET position = %(position)s, chain = %(chain)s").format(head=tables.head),
            {"position": position, "chain": chain},
        )
    last_id = min([max([after, *(row.id for row in taken)]), *(row.id - 1 for row in waiting)])
    return Sequenced(len(entries), position, last_id, conflicts, refused, len(odd))


async def read_ledger(
    cursor: Cursor, tables: Tables, *, after: int, limit: int, until: int | None = None
) -> list[LedgerRow]:
    """Return up to *limit* rows past position *after* (and up to *until*, inclusive), in order; [] when caught up."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT position, day, producer, sequence, events, bytes
            FROM {ledger}
            WHERE position > %(after)s
                AND position <= %(until)s
            ORDER BY position
            LIMIT %(limit)s
            """
        ).format(ledger=tables.ledger),
        {"after": after, "limit": limit, "until": until if until is not None else 2**63 - 1},
    )
    return [LedgerRow(row[0], BatchId(*row[1:4]), *row[4:]) for row in await cursor.fetchall()]


class _Sized(Protocol):
    @property
    def position(self) -> int: ...
    @property
    def events(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...


_Row = TypeVar("_Row", bound=_Sized)


def chunks(rows: Iterable[_Row], *, events: int = CHUNK_EVENTS, size: int = CHUNK_BYTES) -> Iterator[list[_Row]]:
    """Cut *rows* into runs of at most so many events and bytes, or of one batch, none of them empty."""
    chunk: list[_Row] = []
    has_events = has_bytes = 0
    for row in rows:
        if chunk and (has_events + row.events > events or has_bytes + row.size_bytes > size):
            yield chunk
            chunk, has_events, has_bytes = [], 0, 0
        chunk.append(row)
        has_events += row.events
        has_bytes += row.size_bytes
    if chunk:
        yield chunk


@contextmanager
def naming(rows: Sequence[_Sized]) -> Iterator[None]:
    """Read or look through a chunk of the order.

    Raises:
        OutOfMemory: There was too little memory for that, which says nothing of where; this names the chunk.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        first, last, size = rows[0].position, rows[-1].position, sum(row.size_bytes for row in rows)
        what = f"the batch at position {first}" if first == last else f"the batches at positions {first} to {last}"
        raise OutOfMemory(
            f"too little memory for {what}, {size:,} bytes ({in_words(error)}): try it where there is more"
        ) from error


async def in_ledger(cursor: Cursor, tables: Tables, producer: UUID, sequence: int) -> bool:
    """Whether this batch has a position: true also long after its day has left the log."""
    await cursor.execute(
        sql.SQL("SELECT 1 FROM {ledger} WHERE producer = %(producer)s AND sequence = %(sequence)s").format(
            ledger=tables.ledger
        ),
        {"producer": producer, "sequence": sequence},
    )
    return await cursor.fetchone() is not None


async def _position(cursor: Cursor, tables: Tables) -> int:
    await cursor.execute(sql.SQL("SELECT position FROM {head}").format(head=tables.head))
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def _take(cursor: Cursor, tables: Tables, after: int, limit: int) -> tuple[list[_Pending], list[_SetAside]]:
    """Take rows out of pending: what may be a batch's, and what can't be any's."""
    await cursor.execute(
        sql.SQL(
            """
            DELETE FROM {pending}
            WHERE id = ANY(ARRAY(
                SELECT id
                FROM {pending}
                WHERE id > %(after)s
                ORDER BY id
                LIMIT %(limit)s
            ))
            RETURNING id, CASE WHEN {in_bounds} THEN day END, producer, sequence, day::text
            """
        ).format(pending=tables.pending, in_bounds=sql.SQL(ID_IN_BOUNDS)),
        {"after": after, "limit": limit},
    )
    taken, odd = [], []
    for number, day, producer, sequence, text in await cursor.fetchall():
        if day is None:
            odd.append(_SetAside(text, producer, sequence, "no log can hold a batch of this id"))
        else:
            taken.append(_Pending(number, BatchId(day, producer, sequence)))
    return taken, odd


async def _put_back(cursor: Cursor, tables: Tables, rows: Sequence[_Pending]) -> None:
    """Undo what `_take` did with these rows."""
    await cursor.execute(
        sql.SQL(
            """
            INSERT INTO {pending} (id, day, producer, sequence) OVERRIDING SYSTEM VALUE
            SELECT *
            FROM unnest(%(ids)s::bigint[], %(days)s::date[], %(producers)s::uuid[], %(sequences)s::bigint[])
            """
        ).format(pending=tables.pending),
        {
            "ids": [row.id for row in rows],
            "days": [row.batch_id.day for row in rows],
            "producers": [row.batch_id.producer for row in rows],
            "sequences": [row.batch_id.sequence for row in rows],
        },
    )


async def _producers(cursor: Cursor, tables: Tables, producers: set[UUID]) -> dict[UUID, int]:
    """Return the last sequence of each producer that has one, also where clean-up took its row: the ledger stays."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT wanted.producer, coalesce(
                p.last_sequence,
                (SELECT max(sequence) FROM {ledger} l WHERE l.producer = wanted.producer)
            )
            FROM unnest(%(ids)s::uuid[]) AS wanted (producer)
            LEFT JOIN {producers} p
                ON p.producer = wanted.producer
            """
        ).format(ledger=tables.ledger, producers=tables.producers),
        {"ids": sorted(producers)},
    )
    return {row[0]: row[1] for row in await cursor.fetchall() if row[1] is not None}


def _gaps(taken: Sequence[_Pending], known: dict[UUID, int]) -> set[UUID]:
    """Return the producers of which *taken* does not go on, one by one, where the ledger ends."""
    numbers: dict[UUID, set[int]] = {}
    for row in taken:
        producer, number = row.batch_id.producer, row.batch_id.sequence
        if number > known.get(producer, 0):
            numbers.setdefault(producer, set()).add(number)
    return {producer for producer, mine in numbers.items() if max(mine) - known.get(producer, 0) > len(mine)}


def _in_sequence(taken: Sequence[_Pending]) -> list[BatchId]:
    """Keep the order of arrival, but let each producer's places hold its batches in sequence."""
    waiting: dict[UUID, list[BatchId]] = {}
    for row in taken:
        waiting.setdefault(row.batch_id.producer, []).append(row.batch_id)
    for batches in waiting.values():
        batches.sort(key=lambda batch_id: batch_id.sequence, reverse=True)
    return [waiting[row.batch_id.producer].pop() for row in taken]


class _Copies(NamedTuple):
    """Rows of the log under ids of their own; *odd* is what can't be copied now."""

    rows: dict[BatchId, tuple[LogRow, int]]
    odd: list[_SetAside]


async def _settle_ids(
    cursor: Cursor,
    tables: Tables,
    ordered: Sequence[BatchId],
    known: dict[UUID, int],
    rows: dict[BatchId, tuple[LogRow, int]],
) -> tuple[list[BatchId], _Copies, list[str]]:
    """Return which batches get a position, one for each id.

    A batch that was cut anew for another day, of which both came, is one batch. Another one under the same id is not:
    it is copied to a producer of its own, so that whoever takes somebody's next id hides nothing.

    Returns:
        The batches, the copies among them, and a sentence for each of those.
    """
    kept: dict[tuple[UUID, int], bytes | None] = {}
    result: list[BatchId] = []
    copies = _Copies({}, [])
    told = []
    for batch_id in ordered:
        key = batch_id.producer, batch_id.sequence
        if key not in kept and batch_id.sequence <= known.get(batch_id.producer, 0):
            day = await _placed_day(cursor, tables, *key)
            if day is not None:
                there = await read_log_rows(cursor, tables, [batch_id._replace(day=day)])
                kept[key] = next((row.sha256 for row in there.values()), None)
        if key not in kept:
            kept[key] = rows[batch_id][0].sha256
            result.append(batch_id)
        elif kept[key] not in (None, rows[batch_id][0].sha256):
            copy = await _copy(cursor, tables, batch_id)
            if copy is None:
                copies.odd.append(_SetAside(str(batch_id.day), *key, "its id is taken, and its day takes no copy"))
                continue
            copies.rows[copy] = (await _read_sized(cursor, tables, [copy]))[copy]
            result.append(copy)
            told.append(
                f"batch {batch_id.sequence} of producer {batch_id.producer} is in the log on {batch_id.day} and, with "
                f"other content, on another day: it counts as producer {copy.producer}; two processes must not share "
                "a producer"
            )
    return result, copies, told


async def _placed_day(cursor: Cursor, tables: Tables, producer: UUID, sequence: int) -> date | None:
    """The day under which a batch has its position; None if it has none."""
    await cursor.execute(
        sql.SQL("SELECT day FROM {ledger} WHERE producer = %(producer)s AND sequence = %(sequence)s").format(
            ledger=tables.ledger
        ),
        {"producer": producer, "sequence": sequence},
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def _copy(cursor: Cursor, tables: Tables, batch_id: BatchId) -> BatchId | None:
    """Append a batch once more, as the only one of a new producer; None where the log takes neither its day nor today.

    It keeps its bytes, its worker and the time it was appended.
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


def set_aside_sentence(rows: int) -> str:
    """Say that so many rows of pending are no batches."""
    what = "entry that waited for a position was" if rows == 1 else "entries that waited for a position were"
    return (
        f"{rows:,} {what} set aside, since no batch is in the log under that id: somebody wrote what is no batch, or "
        "removed it by force; `chancy-metrics audit check` names the first ones"
    )


async def _set_aside(cursor: Cursor, tables: Tables, odd: Sequence[_SetAside]) -> None:
    if odd:
        await cursor.execute(
            sql.SQL(
                """
                INSERT INTO {set_aside} (day, producer, sequence, why)
                SELECT *
                FROM unnest(%(day)s::text[], %(producer)s::uuid[], %(sequence)s::bigint[], %(why)s::text[])
                """
            ).format(set_aside=tables.set_aside),
            {name: [getattr(one, name) for one in odd] for name in _SetAside._fields},
        )


async def read_log_rows(cursor: Cursor, tables: Tables, batch_ids: Sequence[BatchId]) -> dict[BatchId, LogRow]:
    """Return the rows of these batches that are in the log, without their payloads."""
    rows = [LogRow(*row) for row in await read_columns(cursor, tables, batch_ids, LOG_ROW)]
    return {BatchId(*row[:3]): row for row in rows}


async def _read_sized(
    cursor: Cursor, tables: Tables, batch_ids: Sequence[BatchId]
) -> dict[BatchId, tuple[LogRow, int]]:
    """Return the same, and how long their payloads are, which are not read for that."""
    rows = await read_columns(cursor, tables, batch_ids, f"{LOG_ROW}, octet_length(l.payload)")
    return {BatchId(*row[:3]): (LogRow(*row[:-1]), row[-1]) for row in rows}


def _removed(batch_id: BatchId) -> _SetAside:
    return _SetAside(str(batch_id.day), batch_id.producer, batch_id.sequence, "its row is not in the log")


async def _write(cursor: Cursor, tables: Tables, entries: Sequence[_Entry]) -> None:
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


async def _write_producers(cursor: Cursor, tables: Tables, rows: Sequence[LogRow], known: dict[UUID, int]) -> None:
    by_producer: dict[UUID, list[LogRow]] = {}
    for row in rows:
        by_producer.setdefault(row.producer, []).append(row)
    long_lived = [
        _progress(producer, mine, known.get(producer, 0))
        for producer, mine in sorted(by_producer.items())
        if producer in known or len(mine) > 1 or not (mine[0].closes and mine[0].sequence == 1)
    ]
    await cursor.execute(
        sql.SQL(
            """
            INSERT INTO {producers} AS p (producer, worker, last_sequence, closed, holes, seen_at)
            SELECT producer, worker, last_sequence, closed, holes, to_timestamp(seen_us / 1000000.0)
            FROM unnest(
                %(producer)s::uuid[], %(worker)s::text[], %(last_sequence)s::bigint[], %(closed)s::boolean[],
                %(holes)s::bigint[], %(seen_us)s::bigint[]
            ) AS n (producer, worker, last_sequence, closed, holes, seen_us)
            ON CONFLICT (producer) DO UPDATE
            SET last_sequence = greatest(p.last_sequence, excluded.last_sequence),
                closed = p.closed OR excluded.closed,
                holes = p.holes + excluded.holes,
                seen_at = greatest(p.seen_at, excluded.seen_at)
            """
        ).format(producers=tables.producers),
        {
            "producer": [row.producer for row in long_lived],
            "worker": [row.worker for row in long_lived],
            "last_sequence": [row.last_sequence for row in long_lived],
            "closed": [row.closed for row in long_lived],
            "holes": [row.holes for row in long_lived],
            "seen_us": [row.seen_us for row in long_lived],
        },
    )


def _progress(producer: UUID, rows: Sequence[LogRow], last: int) -> _Producer:
    """Count what is missing between *last* and the new rows; a late one fills its hole again."""
    holes = 0
    for row in rows:
        if row.sequence > last:
            holes += row.sequence - last - 1
            last = row.sequence
        else:
            holes -= 1
    return _Producer(
        producer, rows[0].worker, last, any(row.closes for row in rows), holes, max(row.appended_us for row in rows)
    )
