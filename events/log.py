"""The append-only log: append a batch in the caller's transaction, with limited lock waits; read batches by id."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from struct import Struct
from struct import error as StructError
from typing import Any, Literal, LiteralString, NamedTuple, cast
from uuid import UUID

import psycopg
from psycopg import AsyncCursor, DatabaseError, Error, errors, sql
from psycopg.rows import TupleRow, tuple_row

from chancy_metrics.events.batch import BatchId, EncodedBatch, LogBatch, LogRow
from chancy_metrics.events.database import Cursor
from chancy_metrics.events.facts import EPOCH, bounded_worker
from chancy_metrics.events.one_trip import Statement, call, can_call
from chancy_metrics.events.row_bounds import END_US
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.events.storable_text import storable_worker

#: `appended_at` as an integer, in `read_columns`. A time that no clock gives, such as infinity, becomes the end of the
#: last day of a log: readers don't fail on it, and its hash in the ledger does not match.
APPENDED_US: LiteralString = f"greatest(0, least({END_US}, extract(epoch FROM l.appended_at) * 1000000))::bigint"
#: The columns of a `LogRow`, in `read_columns`.
_LOG_ROW: LiteralString = (
    f"l.day, l.producer, l.sequence, l.worker, l.first_us, l.last_us, {APPENDED_US}, l.events, l.closes, l.codec, "
    "l.sha256"
)

#: Milliseconds for which `append_in_transaction` waits for a lock of the log.
_LOCK_WAIT_MS = 100

#: Types of the arguments of `metrics_append`.
_TYPES = (
    *("integer", "bytea", "date", "uuid", "bigint", "text", "bigint", "bigint", "integer", "boolean", "smallint"),
    *("bytea", "bytea"),
)
_int2, _int4, _int8 = Struct("!h").pack, Struct("!i").pack, Struct("!q").pack
#: PostgreSQL counts days from here.
_DAY_0 = date(2000, 1, 1).toordinal()

_APPEND = """
SELECT {append}(
    %(lock_wait_ms)s::integer, %(earlier)b, %(day)s::date, %(producer)s, %(sequence)s::bigint, %(worker)s::text,
    %(first_us)s::bigint, %(last_us)s::bigint, %(events)s::integer, %(closes)s, %(codec)s::smallint, %(payload)b,
    %(sha256)b
)
"""


State = Literal["appended", "spilled", "known", "taken"]


class Appended(NamedTuple):
    """What `append` did with a batch; the transaction stays usable in any case.

    Attributes:
        state: "appended" to the log; "spilled" into the spill table, from which `sequence` takes it into the log;
            "known": an earlier transaction wrote this id, nothing was written; "taken": the same, with other bytes.
        now: The database's clock.
        error: Why a spilled batch was not appended to the log.
    """

    state: State
    now: datetime
    error: Error | None

    @property
    def is_written(self) -> bool:
        """Whether this transaction wrote it."""
        return self.state in ("appended", "spilled")

    @property
    def spill_note(self) -> str:
        """Say where a spilled batch is and why."""
        return (
            f"the log did not take them ({type(self.error).__name__}: {self.error}); they are in the spill table, from "
            "which a fold takes them into the log when it can"
        )


async def append(
    cursor: AsyncCursor[Any],
    tables: Tables,
    batch_id: BatchId,
    batch: EncodedBatch,
    *,
    worker: str,
    closes: bool = False,
    lock_wait_ms: int = 0,
    earlier: bytes | None = None,
    savepoint: LiteralString | None = None,
) -> Appended:
    """Append one batch in the caller's transaction; if the log can't take it now, to the spill table.

    Args:
        lock_wait_ms: Limit for each lock of the log; 0 waits for ever. A spilled batch adds 10 ms at most.
        earlier: The sha256 of other bytes that an earlier transaction, which has ended, may have written under this
            id. The id is looked up first; "known" means that they are there. The same bytes need no lookup: they may
            end up both in the log and spilled, and `sequence` drops one.
        savepoint: The name of one to make first, in the same trip to the server.

    Raises:
        psycopg.Error: Neither the log nor the spill table took it. If the server answered, the transaction stays
            usable, once it is rolled back to the savepoint; without one that holds for whatever goes wrong in the
            function, and not for one that is missing or forbidden.
    """
    worker = storable_worker(cursor, worker)
    connection = cursor.connection
    make_savepoint = None if savepoint is None else f"SAVEPOINT {savepoint}".encode()
    arguments = _in_binary(batch_id, batch, worker, lock_wait_ms=lock_wait_ms, closes=closes, earlier=earlier)
    if arguments and can_call(connection) and tables.prefix.isascii():
        answer = await call(connection, _statement(tables.prefix), arguments, savepoint=make_savepoint)
        encoding = "ascii" if answer.isascii() else connection.info.encoding
        return _appended(answer.decode(encoding, "replace"))
    values = batch_id._asdict() | batch._asdict()
    values |= {"worker": worker, "lock_wait_ms": lock_wait_ms, "closes": closes, "earlier": earlier}
    async with connection.cursor(row_factory=tuple_row) as own:
        if make_savepoint is not None:
            await own.execute(make_savepoint)
        await own.execute(_append_statement(tables), values)
        return _appended(_only(await own.fetchone()))


async def append_in_transaction(
    cursor: AsyncCursor[Any],
    tables: Tables,
    producer: UUID,
    batch: EncodedBatch,
    *,
    worker: str,
    lock_wait_ms: int = _LOCK_WAIT_MS,
) -> Appended:
    """Append the single batch of a producer of its own, on the database's day. Raises what `append` raises."""
    async with cursor.connection.cursor(row_factory=tuple_row) as own:
        values = _single_values(producer, batch, storable_worker(own, worker), lock_wait_ms)
        await own.execute(_append_statement(tables), values)
        return _appended(_only(await own.fetchone()))


def sync_append_in_transaction(
    cursor: psycopg.Cursor[Any],
    tables: Tables,
    producer: UUID,
    batch: EncodedBatch,
    *,
    worker: str,
    lock_wait_ms: int = _LOCK_WAIT_MS,
) -> None:
    """Append like `append_in_transaction`, synchronously."""
    with cursor.connection.cursor(row_factory=tuple_row) as own:
        values = _single_values(producer, batch, storable_worker(own, worker), lock_wait_ms)
        own.execute(_append_statement(tables), values)
        _appended(_only(own.fetchone()))


async def read_batches(cursor: Cursor, tables: Tables, positions: Sequence[tuple[int, BatchId]]) -> list[LogBatch]:
    """Return the batches at *positions* (position, id), in that order; one that is not in the log is left out."""
    by_id = {(batch_id.producer, batch_id.sequence): position for position, batch_id in positions}
    columns = f"l.producer, l.sequence, l.worker, {APPENDED_US}, l.events, l.codec, l.payload, l.sha256"
    rows = await read_columns(cursor, tables, [batch_id for _, batch_id in positions], columns)
    batches = (LogBatch(by_id[row[0], row[1]], *row) for row in rows)
    return sorted(batch._replace(worker=bounded_worker(batch.worker)) for batch in batches)


async def read_columns(
    cursor: Cursor, tables: Tables, batch_ids: Sequence[BatchId], columns: LiteralString
) -> list[TupleRow]:
    """Return *columns* of `l`, the log, for those of *batch_ids* that are in it, by day.

    One index lookup a batch: a join may be planned as a scan of a day that has no statistics yet. The day is passed
    as a value, so that other partitions are not locked.
    """
    found: list[TupleRow] = []
    for day in sorted({batch_id.day for batch_id in batch_ids}):
        wanted = [batch_id for batch_id in batch_ids if batch_id.day == day]
        await cursor.execute(
            sql.SQL(
                """
                SELECT found.*
                FROM unnest(%(producers)s::uuid[], %(sequences)s::bigint[]) AS wanted (producer, sequence)
                CROSS JOIN LATERAL (
                    SELECT {columns}
                    FROM {log} l
                    WHERE l.day = %(day)s
                        AND l.producer = wanted.producer
                        AND l.sequence = wanted.sequence
                    LIMIT 1
                ) AS found
                """
            ).format(columns=sql.SQL(columns), log=tables.log),
            {
                "day": day,
                "producers": [batch_id.producer for batch_id in wanted],
                "sequences": [batch_id.sequence for batch_id in wanted],
            },
            binary=True,
        )
        found += await cursor.fetchall()
    return found


async def read_log_rows(cursor: Cursor, tables: Tables, batch_ids: Sequence[BatchId]) -> dict[BatchId, LogRow]:
    """Return the rows of these batches that are in the log, without their payloads."""
    rows = [LogRow(*row) for row in await read_columns(cursor, tables, batch_ids, _LOG_ROW)]
    return {BatchId(*row[:3]): row for row in rows}


async def read_whole_rows(
    cursor: Cursor, tables: Tables, batch_ids: Sequence[BatchId]
) -> dict[BatchId, tuple[LogRow, bytes]]:
    """Return the rows of these batches that are in the log, and their payloads."""
    rows = await read_columns(cursor, tables, batch_ids, f"{_LOG_ROW}, l.payload")
    return {BatchId(*values[:3]): (LogRow(*values), payload) for *values, payload in rows}


async def read_sized_rows(
    cursor: Cursor, tables: Tables, batch_ids: Sequence[BatchId]
) -> dict[BatchId, tuple[LogRow, int]]:
    """Return the rows of these batches that are in the log, and the lengths of their payloads, which are not read."""
    rows = await read_columns(cursor, tables, batch_ids, f"{_LOG_ROW}, octet_length(l.payload)")
    return {BatchId(*row[:3]): (LogRow(*row[:-1]), row[-1]) for row in rows}


def _append_statement(tables: Tables) -> sql.Composed:
    return sql.SQL(_APPEND).format(append=tables.append)


@lru_cache
def _statement(prefix: str) -> Statement:
    casts = ", ".join(f"${number}::{type_}" for number, type_ in enumerate(_TYPES, 1))
    return Statement(f"SELECT {tables_for(prefix).append.as_string(None)}({casts})".encode("ascii"))


def _in_binary(
    batch_id: BatchId, batch: EncodedBatch, worker: str, *, lock_wait_ms: int, closes: bool, earlier: bytes | None
) -> list[bytes | None] | None:
    """Return the function's arguments as PostgreSQL's binary format has them; None where one does not fit."""
    try:
        return [
            _int4(lock_wait_ms),
            earlier,
            _int4(batch_id.day.toordinal() - _DAY_0),
            batch_id.producer.bytes,
            _int8(batch_id.sequence),
            worker.encode("ascii"),
            None if batch.first_us is None else _int8(batch.first_us),
            None if batch.last_us is None else _int8(batch.last_us),
            _int4(batch.events),
            b"\x01" if closes else b"\x00",
            _int2(batch.codec),
            batch.payload,
            batch.sha256,
        ]
    except (StructError, UnicodeEncodeError):  # psycopg knows the connection's encoding, and has errors for the others
        return None


def _single_values(producer: UUID, batch: EncodedBatch, worker: str, lock_wait_ms: int) -> dict[str, Any]:
    batch_id = {"day": None, "producer": producer, "sequence": 1, "worker": worker}
    return batch._asdict() | batch_id | {"closes": True, "earlier": None, "lock_wait_ms": lock_wait_ms}


def _only(row: TupleRow | None) -> str:
    assert row is not None
    text: str | bytes = row[0]
    # psycopg gives bytes where the client's encoding is SQL_ASCII
    return text if isinstance(text, str) else text.decode("ascii", "replace")


def _appended(answer: str) -> Appended:
    state, now_us, *failure = answer.split(" ", 3)
    error = _error(*failure) if failure else None
    if state == "refused":
        assert error is not None
        raise error
    return Appended(cast(State, state), EPOCH + timedelta(microseconds=int(now_us)), error)


def _error(code: str, text: str) -> Error:
    """Return the error that the function caught, as psycopg would raise it."""
    try:
        return errors.lookup(code)(text)
    except KeyError:  # our own SQLSTATE, or one newer than psycopg
        return DatabaseError(f"{text} ({code})")
