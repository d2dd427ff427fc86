"""How far the live version is behind what was appended."""

from __future__ import annotations

from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

from psycopg import AsyncCursor, sql
from psycopg.rows import TupleRow

from chancy_metrics.events.errors import SchemaMissing
from chancy_metrics.events.schema import Tables


class Lag(NamedTuple):
    """Seconds the oldest event that the live version lacks has been waiting, and seconds since its last step."""

    waiting_s: float
    silent_s: float

    @property
    def standstill_s(self) -> float:
        """Seconds for which nobody has folded, though events waited."""
        return min(self.waiting_s, self.silent_s)


async def live_lag(cursor: AsyncCursor[TupleRow], tables: Tables) -> Lag:
    """Look at the first batch past the live version's position and the first that has no position yet."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT clock_timestamp(), coalesce(v.folded_at, v.live_since, v.created_at), p.day, p.producer, p.sequence,
                l.day, l.producer, l.sequence
            FROM {head} h
            JOIN {versions} v
                ON v.version = h.live
            LEFT JOIN {ledger} l
                ON l.position = v.position + 1
            LEFT JOIN (
                SELECT day, producer, sequence
                FROM {pending}
                ORDER BY id
                LIMIT 1
            ) p
                ON true
            """
        ).format(head=tables.head, versions=tables.versions, ledger=tables.ledger, pending=tables.pending)
    )
    row = await cursor.fetchone()
    if row is None:
        raise SchemaMissing("the metrics log has no live version: run `chancy misc migrate`")
    now, folded_at, *places = row
    appended = [await appended_at(cursor, tables, *place) for place in (places[:3], places[3:]) if place[0]]
    oldest = min((moment for moment in appended if moment is not None), default=now)
    return Lag(max(0.0, (now - oldest).total_seconds()), (now - folded_at).total_seconds())


async def appended_at(
    cursor: AsyncCursor[TupleRow], tables: Tables, day: date, producer: UUID, sequence: int
) -> datetime | None:
    """When a batch was appended; None if it is not in the log any more."""
    await cursor.execute(
        sql.SQL(
            "SELECT appended_at FROM {log} WHERE day = %(day)s AND producer = %(producer)s AND sequence = %(sequence)s"
        ).format(log=tables.log),
        {"day": day, "producer": producer, "sequence": sequence},
    )
    row = await cursor.fetchone()
    return row[0] if row else None
