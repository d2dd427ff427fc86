"""Write what an export holds into the database: ledger entries with their batches, gone days, producers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import msgspec
from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.facts import EPOCH
from chancy_metrics.events.ledger import LedgerEntry
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.transfer.frames import GoneDay, Producer


async def write_entries(
    cursor: Cursor, tables: Tables, entries: Sequence[LedgerEntry], *, after: int, chain: bytes
) -> None:
    """Write *entries* and their batches after position *after*, and move the head to the last of them.

    Raises:
        MetricsLogError: The head is not at *after* with hash *chain*; nothing may be committed then.
    """
    last = entries[-1]
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
            f"the ledger of this database does not end at position {after} any more: another import runs, or other "
            "batches got positions"
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
        for entry in entries:
            if (row := entry.row) is not None:
                appended_at = EPOCH + timedelta(microseconds=row.appended_us)
                await copy.write_row((*row[:6], appended_at, *row[7:10], entry.payload, row.sha256))
    async with cursor.copy(
        sql.SQL(
            """
            COPY {ledger} (position, day, producer, sequence, events, bytes, chain)
            FROM STDIN (FORMAT BINARY)
            """
        ).format(ledger=tables.ledger)
    ) as copy:
        copy.set_types(["int8", "date", "uuid", "int8", "int4", "int4", "bytea"])
        for entry in entries:
            await copy.write_row((entry.position, *entry.batch_id, entry.events, len(entry.payload), entry.chain))


async def write_gone_days(cursor: Cursor, tables: Tables, gone: Sequence[GoneDay]) -> None:
    """Record these days as gone from the log; a day that is closed here becomes absorbed."""
    await cursor.executemany(
        sql.SQL(
            """
            INSERT INTO {days} AS d (day, state, changed_at, last_position, last_us)
            VALUES (%(day)s, 'gone', clock_timestamp(), %(last_position)s, %(last_us)s)
            ON CONFLICT (day) DO UPDATE
            SET state = CASE d.state WHEN 'closed' THEN 'absorbed' ELSE 'gone' END,
                changed_at = excluded.changed_at,
                last_position = excluded.last_position,
                last_us = excluded.last_us
            """
        ).format(days=tables.days),
        [msgspec.structs.asdict(one) for one in gone],
    )


async def write_producers(cursor: Cursor, tables: Tables, producers: Sequence[Producer]) -> None:
    await cursor.executemany(
        sql.SQL(
            """
            INSERT INTO {producers} (producer, worker, last_sequence, closed, holes, seen_at)
            VALUES (
                %(producer)s, %(worker)s, %(last_sequence)s, %(closed)s, %(holes)s,
                timestamptz 'epoch' + %(seen_us)s * interval '1 microsecond'
            )
            ON CONFLICT (producer) DO NOTHING
            """
        ).format(producers=tables.producers),
        [msgspec.structs.asdict(one) for one in producers],
    )
