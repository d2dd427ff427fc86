"""A range of the order together with its batches, every column and byte of them: out of the database and into it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from psycopg import sql

from chancy_metrics.events.batch import BatchId, LogRow
from chancy_metrics.events.database import Cursor
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.facts import EPOCH
from chancy_metrics.events.schema import Tables

#: Places one statement reads.
PAGE = 2_000


class LedgerEntry(NamedTuple):
    """A place in the order, and its batch where that is in the log.

    Attributes:
        chain: The hash there.
        row: None where the batch has left the log, or is lost.
        payload: b"" without a row.
        size_bytes: How long the ledger says the payload is; 0 in what comes from a file.
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
    """Return up to *limit* places past *after* up to *until*, inclusive, in order, without their batches."""
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


async def write_entries(
    cursor: Cursor, tables: Tables, places: Sequence[LedgerEntry], *, after: int, chain: bytes
) -> None:
    """Put *places* and their batches behind position *after*, and the head at the last of them.

    Raises:
        MetricsLogError: The head is not at *after* with hash *chain*; nothing may be committed then.
    """
    last = places[-1]
    await cursor.execute(
        sql.SQL(
            """
            UPDATE {head}
            SET position = %(position)s,
                chain = %(chain)s
            WHERE position = %(after)s
                AND chain = %(before)s
            """
        ).format(head=tables.head),
        {"position": last.position, "chain": last.chain, "after": after, "before": chain},
    )
    if cursor.rowcount != 1:
        raise MetricsLogError(
            f"the order of this database does not end at position {after} any more: another import runs, or batches "
            "got places of their own"
        )
    async with cursor.copy(
        sql.SQL(
            """
            COPY {log} (
                day, producer, sequence, worker, first_us, last_us, appended_at, events, closes, codec, payload, sha256
            )
            FROM STDIN (FORMAT BINARY)
            """
        ).format(log=tables.log)
    ) as copy:
        copy.set_types(
            ["date", "uuid", "int8", "text", "int8", "int8", "timestamptz", "int4", "bool", "int2", "bytea", "bytea"]
        )
        for place in places:
            if (row := place.row) is not None:
                appended_at = EPOCH + timedelta(microseconds=row.appended_us)
                await copy.write_row((*row[:6], appended_at, *row[7:10], place.payload, row.sha256))
    async with cursor.copy(
        sql.SQL(
            """
            COPY {ledger} (position, day, producer, sequence, events, bytes, chain)
            FROM STDIN (FORMAT BINARY)
            """
        ).format(ledger=tables.ledger)
    ) as copy:
        copy.set_types(["int8", "date", "uuid", "int8", "int4", "int4", "bytea"])
        for place in places:
            await copy.write_row((place.position, *place.batch_id, place.events, len(place.payload), place.chain))
