"""The append-only log: append a batch in the caller's transaction, with limited lock waits; read batches by id."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, LiteralString, NamedTuple
from uuid import UUID

import psycopg
from psycopg import AsyncCursor, DatabaseError, Error, errors, sql
from psycopg.rows import TupleRow, tuple_row

from chancy_metrics.events.batch import BatchId, EncodedBatch, LogBatch, LogRow
from chancy_metrics.events.database import Cursor
from chancy_metrics.events.facts import bounded_worker
from chancy_metrics.events.row_bounds import END_US
from chancy_metrics.events.schema import Tables
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

_APPEND = """
SELECT state, at, error_code, error_text
FROM {append}(
    %(lock_wait_ms)s::integer, %(earlier)b, %(day)s::date, %(producer)s, %(sequence)s::bigint, %(worker)s::text,
    %(first_us)s::bigint, %(last_us)s::bigint, %(events)s::integer, %(closes)s, %(codec)s::smallint, %(payload)b,
    %(sha256)b
)
"""


class Appended(NamedTuple):
    """What `append` did with a batch; the transaction stays usable in any case.

    Attributes:
        state: "appended" to the log; "spilled" into the spill table, from which `sequence` takes it into the log;
            "known": an earlier transaction wrote this id, nothing was written; "taken": the same, with other bytes.
        now: The database's clock.
        error: Why a spilled batch was not appended to the log.
    """

    state: Literal["appended", "spilled", "known", "taken"]
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
    cursor: Cursor,
    tables: Tables,
    batch_id: BatchId,
    batch: EncodedBatch,
    *,
    worker: str,
    closes: bool = False,
    lock_wait_ms: int = 0,
    earlier: bytes | None = None,
) -> Appended:
    """Append one batch in the caller's transaction; if the log can't take it now, to the spill table.

    Args:
        lock_wait_ms: Limit for each lock of the log; 0 waits for ever. A spilled batch adds 10 ms at most.
        earlier: The sha256 of other bytes that an earlier transaction, which has ended, may have written under this
            id. The id is looked up first; "known" means that they are there. The same bytes need no lookup: they may
            end up both in the log and spilled, and `sequence` drops one.

    Raises:
        psycopg.Error: Neither the log nor the spill table took it. The transaction stays usable if the server
            answered.
    """
    await send(
        cursor,
        tables,
        batch_id,
        batch,
        worker=worker,
        closes=closes,
        lock_wait_ms=lock_wait_ms,
        earlier=earlier,
    )
    return await receive(cursor)


async def send(
    cursor: Cursor,
    tables: Tables,
    batch_id: BatchId,
    batch: EncodedBatch,
    *,
    worker: str,
    closes: bool = False,
    lock_wait_ms: int = 0,
    earlier: bytes | None = None,
) -> None:
    """Send the statement of `append`; in a pipeline this does not wait. `receive` returns its outcome."""
    values = _values(batch_id, batch, storable_worker(cursor, worker), lock_wait_ms)
    values |= {"closes": closes, "earlier": earlier}
    await cursor.execute(_append_statement(tables), values, binary=True)


async def receive(cursor: Cursor) -> Appended:
    return _appended(await cursor.fetchone())


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
        await own.execute(_append_statement(tables), values, binary=True)
        return _appended(await own.fetchone())


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
        own.execute(_append_statement(tables), values, binary=True)
        _appended(own.fetchone())


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
    # Executed in binary: psycopg can't read every DateStyle that the caller's session may have.
    return sql.SQL(_APPEND).format(append=tables.append)


def _values(batch_id: BatchId, batch: EncodedBatch, worker: str, lock_wait_ms: int) -> dict[str, Any]:
    return batch_id._asdict() | batch._asdict() | {"worker": worker, "lock_wait_ms": lock_wait_ms}


def _single_values(producer: UUID, batch: EncodedBatch, worker: str, lock_wait_ms: int) -> dict[str, Any]:
    batch_id = {"day": None, "producer": producer, "sequence": 1, "worker": worker}
    return batch._asdict() | batch_id | {"closes": True, "earlier": None, "lock_wait_ms": lock_wait_ms}


def _appended(row: TupleRow | None) -> Appended:
    assert row is not None
    state, now, code, text = row
    error = None if code is None else _error(code, text)
    if state == "refused":
        assert error is not None
        raise error
    return Appended(state, now, error)


def _error(code: str, text: str) -> Error:
    """Return the error that the function caught, as psycopg would raise it."""
    try:
        return errors.lookup(code)(text)
    except KeyError:  # our own SQLSTATE, or one newer than psycopg
        return DatabaseError(f"{text} ({code})")
