"""Read the ledger: rows in order of position, rows of a day by event time, and chunks of bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import NamedTuple, Protocol, TypeVar

from psycopg import sql

from chancy_metrics.events.batch import BatchId, LogRow
from chancy_metrics.events.database import Cursor
from chancy_metrics.events.error_kinds import in_words, is_out_of_memory
from chancy_metrics.events.errors import OutOfMemory
from chancy_metrics.events.log import APPENDED_US
from chancy_metrics.events.schema import Tables

#: Largest chunk that is read, decoded or held at once: events, and bytes of payload. A larger batch is one chunk.
CHUNK_EVENTS = 50_000
CHUNK_BYTES = 32 << 20


class LedgerRow(NamedTuple):
    """A row of the ledger, without its hash.

    Attributes:
        size_bytes: Size of the batch's payload.
    """

    position: int
    batch_id: BatchId
    events: int
    size_bytes: int


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


async def find_range_end(
    cursor: Cursor, tables: Tables, *, after: int, until: int, events: int, size: int, limit: int
) -> int | None:
    """Return the last position of the range past *after* in which a limit is reached, or *until*; None if none is left.

    One index range scan of up to *limit* rows.

    Args:
        events: Number of events at which the range ends, with the batch that reaches it.
        size: The same in bytes of payload.
        limit: Number of rows at which the range ends.
    """
    await cursor.execute(
        sql.SQL(
            """
            SELECT coalesce(min(position) FILTER (WHERE events >= %(events)s OR bytes >= %(size)s), max(position))
            FROM (
                SELECT position, sum(events) OVER by_position AS events, sum(bytes) OVER by_position AS bytes
                FROM (
                    SELECT position, events, bytes
                    FROM {ledger}
                    WHERE position > %(after)s
                        AND position <= %(until)s
                    ORDER BY position
                    LIMIT %(limit)s
                ) AS next
                WINDOW by_position AS (ORDER BY position ROWS UNBOUNDED PRECEDING)
            ) AS summed
            """
        ).format(ledger=tables.ledger),
        {"after": after, "until": until, "events": events, "size": size, "limit": limit},
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return] # psycopg's rows have no types


async def find_batches(
    cursor: Cursor, tables: Tables, day: date, *, since_us: int | None, until_us: int | None, until: int
) -> list[LedgerRow]:
    """Return the ledger rows of the batches of *day* that may have events in a range of time, in order of position.

    Reads the day's rows once, without their payloads.

    Args:
        since_us: Begin of the range, inclusive, microseconds since 1970; None for no limit.
        until_us: End of the range, exclusive; None for no limit.
        until: Last position to read, inclusive.
    """
    await cursor.execute(
        sql.SQL(
            """
            SELECT o.position, o.day, o.producer, o.sequence, o.events, o.bytes
            FROM {log} l
            JOIN {ledger} o
                ON o.producer = l.producer
                AND o.sequence = l.sequence
                AND o.day = l.day
            CROSS JOIN LATERAL (SELECT {appended_us}) AS a (appended_us)
            WHERE l.day = %(day)s
                AND (l.events > 0 OR o.events > 0)
                -- A batch without event times may have events at any time.
                AND (l.first_us IS NULL OR least(l.first_us, a.appended_us) < %(until_us)s)
                AND (l.last_us IS NULL OR least(l.last_us, a.appended_us) >= %(since_us)s)
                AND o.position <= %(until)s
            ORDER BY o.position
            """
        ).format(log=tables.log, ledger=tables.ledger, appended_us=sql.SQL(APPENDED_US)),
        {
            "day": day,
            "since_us": -(2**63) if since_us is None else since_us,
            "until_us": 2**63 - 1 if until_us is None else until_us,
            "until": until,
        },
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
    """Cut *rows* into chunks of at most so many events and bytes, or of one batch; none is empty."""
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
def naming_batches(rows: Sequence[_Sized]) -> Iterator[None]:
    """Name the batches of a chunk where memory runs out in the block.

    Raises:
        OutOfMemory: Instead of an error that says nothing of the batches.
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


#: Entries that one statement reads.
PAGE = 2_000


class LedgerEntry(NamedTuple):
    """A row of the ledger with its hash, and its batch if that is in the log.

    Attributes:
        chain: The hash at this position.
        row: None where the batch has left the log, or is lost.
        payload: b"" without a row.
        size_bytes: Size of the payload by the ledger; 0 in an entry from a file.
    """

    position: int
    batch_id: BatchId
    events: int
    chain: bytes
    row: LogRow | None = None
    payload: bytes = b""
    size_bytes: int = 0


async def read_entries(
    cursor: Cursor, tables: Tables, *, after: int, until: int, limit: int = PAGE
) -> list[LedgerEntry]:
    """Return up to *limit* entries past position *after*, up to *until* (inclusive), in order, without batches."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT position, day, producer, sequence, events, chain, bytes
            FROM {ledger}
            WHERE position > %(after)s
                AND position <= %(until)s
            ORDER BY position
            LIMIT %(limit)s
            """
        ).format(ledger=tables.ledger),
        {"after": after, "until": until, "limit": limit},
        binary=True,
    )
    return [
        LedgerEntry(row[0], BatchId(*row[1:4]), row[4], row[5], size_bytes=row[6]) for row in await cursor.fetchall()
    ]
