"""Measure how far the live version is behind the log: seconds, and batches that wait."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple
from uuid import UUID

from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.errors import NO_LIVE_VERSION, SchemaMissing
from chancy_metrics.events.facts import microseconds
from chancy_metrics.events.hot_standby import NOW
from chancy_metrics.events.log import APPENDED_US
from chancy_metrics.events.row_bounds import ID_IN_BOUNDS
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.span import Span

#: Most waiting batches that are read one by one.
_BACKLOG = 2_000


class Lag(NamedTuple):
    """How far the live version is behind.

    Attributes:
        waiting_s: Seconds since the oldest event that it lacks was appended.
        silent_s: Seconds since its last step.
    """

    waiting_s: float
    silent_s: float

    @property
    def standstill_s(self) -> float:
        """Seconds for which nobody has folded, although events waited."""
        return min(self.waiting_s, self.silent_s)


async def live_lag(cursor: Cursor, tables: Tables) -> Lag:
    """Measure it by the first batch past the live version's position, the first pending one, and the spill table."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT {now}, coalesce(v.folded_at, v.live_since, v.created_at), p.day, p.producer, p.sequence,
                l.day, l.producer, l.sequence, (SELECT min({appended_us}) FROM {spill} l WHERE {in_bounds})
            FROM {head} h
            JOIN {versions} v
                ON v.version = h.live
            LEFT JOIN {ledger} l
                ON l.position = least(v.position, 9223372036854775806) + 1
            LEFT JOIN (
                SELECT day, producer, sequence
                FROM {pending}
                WHERE {in_bounds}
                ORDER BY id
                LIMIT 1
            ) p
                ON true
            """
        ).format(
            now=NOW,
            head=tables.head,
            versions=tables.versions,
            ledger=tables.ledger,
            pending=tables.pending,
            spill=tables.spill,
            in_bounds=sql.SQL(ID_IN_BOUNDS),
            appended_us=sql.SQL(APPENDED_US),
        )
    )
    row = await cursor.fetchone()
    if row is None:
        raise SchemaMissing(NO_LIVE_VERSION)
    # Not the difference of datetimes: they come in the session's zone, whose clock may have been put back between.
    now_us, folded_us = map(microseconds, row[:2])
    *ids, spilled = row[2:]
    appended = [await appended_us(cursor, tables, *batch_id) for batch_id in (ids[:3], ids[3:]) if batch_id[0]]
    if spilled is not None:
        appended.append(spilled)
    oldest_us = min((at_us for at_us in appended if at_us is not None), default=now_us)
    return Lag(max(0, now_us - oldest_us) / 1e6, (now_us - folded_us) / 1e6)


async def appended_us(cursor: Cursor, tables: Tables, day: date, producer: UUID, sequence: int) -> int | None:
    """Return when a batch was appended, microseconds since 1970; None if it is no longer in the log."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT {appended_us}
            FROM {log} l
            WHERE day = %(day)s
                AND producer = %(producer)s
                AND sequence = %(sequence)s
            """
        ).format(log=tables.log, appended_us=sql.SQL(APPENDED_US)),
        {"day": day, "producer": producer, "sequence": sequence},
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def newest_appended_us(cursor: Cursor, tables: Tables) -> int | None:
    """Return when the last batch of the ledger was appended; None if there is none, or it is no longer in the log."""
    await cursor.execute(
        sql.SQL("SELECT day, producer, sequence FROM {ledger} ORDER BY position DESC LIMIT 1").format(
            ledger=tables.ledger
        )
    )
    row = await cursor.fetchone()
    return await appended_us(cursor, tables, *row) if row else None


async def count_waiting(cursor: Cursor, tables: Tables, position: int) -> int:
    """Count the batches that are not folded at *position*: those past it, pending ones and spilled ones."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT greatest(h.position - %(position)s, 0) + (SELECT count(*) FROM {pending})
                + (SELECT count(*) FROM {spill} WHERE {in_bounds})
            FROM {head} h
            """
        ).format(head=tables.head, pending=tables.pending, spill=tables.spill, in_bounds=sql.SQL(ID_IN_BOUNDS)),
        {"position": position},
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def count_waiting_in(cursor: Cursor, tables: Tables, position: int, span: Span) -> int:
    """Count those of them that have events in *span*; of a long backlog only the first ones are read."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT count(*) + (
                SELECT count(*)
                FROM {spill}
                WHERE (first_us < %(until_us)s) IS NOT FALSE
                    AND (last_us >= %(since_us)s) IS NOT FALSE
                    AND events > 0
            )
            FROM (
                (
                    SELECT day, producer, sequence
                    FROM {ledger}
                    WHERE position > %(position)s
                    ORDER BY position
                    LIMIT %(limit)s
                )
                UNION ALL
                (SELECT day, producer, sequence FROM {pending} ORDER BY id LIMIT %(limit)s)
            ) AS w
            CROSS JOIN LATERAL (
                SELECT first_us, last_us, events
                FROM {log} l
                WHERE l.day = w.day
                    AND l.producer = w.producer
                    AND l.sequence = w.sequence
                LIMIT 1
            ) AS l
            WHERE (l.first_us < %(until_us)s) IS NOT FALSE
                AND (l.last_us >= %(since_us)s) IS NOT FALSE
                AND l.events > 0
            """
        ).format(ledger=tables.ledger, pending=tables.pending, spill=tables.spill, log=tables.log),
        {"position": position, "limit": _BACKLOG, **span._asdict()},
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0
