"""Check the ledger as a whole: its head, the batches of each log day, each producer's sequence, set-aside rows."""

from __future__ import annotations

from collections import Counter
from datetime import date

from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.row_bounds import ID_IN_BOUNDS
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.findings import Findings, Spot

#: Batches or producers that one statement returns; the others are only counted.
_SHOWN = 100


async def check_day(cursor: Cursor, tables: Tables, day: date, found: Findings) -> None:
    """Check that each batch in the log's *day* is in the ledger or waits for its position."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT l.producer, l.sequence, count(*) OVER ()
            FROM {log} l
            WHERE l.day = %(day)s
                -- Also under another day: of a batch that was cut again for a later day, the ledger has one.
                AND NOT EXISTS (
                    SELECT 1 FROM {ledger} o WHERE o.producer = l.producer AND o.sequence = l.sequence
                )
                AND NOT EXISTS (
                    SELECT 1 FROM {pending} p WHERE p.producer = l.producer AND p.sequence = l.sequence
                )
            LIMIT %(shown)s
            """
        ).format(log=tables.log, ledger=tables.ledger, pending=tables.pending),
        {"day": day, "shown": _SHOWN},
    )
    lost = await cursor.fetchall()
    for producer, sequence, _ in lost:
        where = f"batch {sequence} of producer {producer} on {day}"
        found.add("log", where, "it is not in the ledger", scale="day", at=day.toordinal())
    if lost:
        found.add_uncounted(Counter({Spot("log", "day", day.toordinal()): lost[0][2] - len(lost)}))


async def check_head(cursor: Cursor, tables: Tables, found: Findings) -> None:
    """Check that the head is at the end of the ledger, and the live version not past it."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT h.position, h.chain = o.chain, (SELECT max(position) FROM {ledger}), v.position
            FROM {head} h
            JOIN {versions} v
                ON v.version = h.live
            LEFT JOIN {ledger} o
                ON o.position = h.position
            """
        ).format(head=tables.head, ledger=tables.ledger, versions=tables.versions)
    )
    for position, is_same, last, folded in await cursor.fetchall():
        if (last or 0) != position:
            found.add("head", f"position {position}", f"the ledger ends at position {last or 0}")
        elif is_same is False:
            found.add("head", f"position {position}", "the ledger has another hash there")
        if folded > position:
            found.add("head", f"position {position}", f"the live version is past it, at {folded}")


async def check_producers(cursor: Cursor, tables: Tables, found: Findings) -> None:
    """Check that the ledger has each producer's batches without a hole, up to its last known one."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT o.producer, o.first, o.last, o.batches, p.last_sequence, count(*) OVER ()
            FROM (
                SELECT producer, min(sequence) AS first, max(sequence) AS last, count(*) AS batches
                FROM {ledger}
                GROUP BY producer
            ) AS o
            LEFT JOIN {producers} p
                ON p.producer = o.producer
            WHERE (
                    o.batches <> o.last - o.first + 1
                    OR o.last <> p.last_sequence
                    -- Where retention has taken the ledger's beginning, a producer's may be gone with it.
                    OR (o.first > 1 AND EXISTS (SELECT 1 FROM {ledger} WHERE position = 1))
                )
                -- A missing batch may be waiting for its position.
                AND NOT EXISTS (SELECT 1 FROM {pending} w WHERE w.producer = o.producer)
                AND NOT EXISTS (SELECT 1 FROM {spill} s WHERE s.producer = o.producer)
            LIMIT %(shown)s
            """
        ).format(ledger=tables.ledger, producers=tables.producers, pending=tables.pending, spill=tables.spill),
        {"shown": _SHOWN},
    )
    broken = await cursor.fetchall()
    for producer, first, last, batches, known, _ in broken:
        if known is not None and known != last:
            text = f"its last batch in the ledger is {last}, not {known}"
        else:
            begin = first if batches != last - first + 1 else 1
            text = f"{last - begin + 1 - batches} of its batches {begin} to {last} are missing from the ledger"
        found.add("producers", f"producer {producer}", text)
    if broken:
        found.add_uncounted(Counter({Spot("producers"): broken[0][5] - len(broken)}))


async def check_set_aside(cursor: Cursor, tables: Tables, found: Findings) -> None:
    """Report entries of the pending and spill tables that are no batch."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT day, producer, sequence, why, count(*) OVER ()
            FROM (
                SELECT id, day, producer, sequence, why
                FROM {set_aside}
                UNION ALL
                SELECT NULL, day::text, producer, sequence, 'this row of the spill table is out of bounds'
                FROM {spill}
                WHERE NOT ({in_bounds})
            ) AS odd
            ORDER BY id
            LIMIT %(shown)s
            """
        ).format(set_aside=tables.set_aside, spill=tables.spill, in_bounds=sql.SQL(ID_IN_BOUNDS)),
        {"shown": _SHOWN},
    )
    odd = await cursor.fetchall()
    for day, producer, sequence, why, _ in odd:
        found.add("pending", f"batch {sequence} of producer {producer} on {day}", f"it has no position: {why}")
    if odd:
        found.add_uncounted(Counter({Spot("pending"): odd[0][4] - len(odd)}))
