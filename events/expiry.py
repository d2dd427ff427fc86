"""Delete old rows of the ledger, producers, sessions and days, which are kept for longer than the log itself."""

from __future__ import annotations

from datetime import date

from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.schema import Tables


async def forget_producers(cursor: Cursor, tables: Tables, *, before: date, chunk: int) -> int:
    """Delete up to *chunk* producers that were last seen before *before*."""
    return await _forget(cursor, tables.producers, "producer", "seen_at", before, chunk)


async def forget_sessions(cursor: Cursor, tables: Tables, *, before: date, chunk: int) -> int:
    """Delete up to *chunk* sessions that were last seen before *before*."""
    return await _forget(cursor, tables.sessions, "session", "seen_at", before, chunk)


async def forget_set_aside(cursor: Cursor, tables: Tables, *, before: date, chunk: int) -> int:
    """Delete up to *chunk* rows that were set aside before *before*."""
    return await _forget(cursor, tables.set_aside, "id", "found_at", before, chunk)


async def _forget(cursor: Cursor, table: sql.Identifier, key: str, moment: str, before: date, chunk: int) -> int:
    """Delete up to *chunk* rows, by *key*, whose *moment* lies before a day (UTC); skip locked ones."""
    await cursor.execute(
        sql.SQL(
            """
            DELETE FROM {table}
            WHERE {key} = ANY(ARRAY(
                SELECT {key}
                FROM {table}
                WHERE {moment} < %(before)s::date::timestamp AT TIME ZONE 'UTC'
                LIMIT %(chunk)s
                FOR UPDATE SKIP LOCKED
            ))
            """
        ).format(table=table, key=sql.Identifier(key), moment=sql.Identifier(moment)),
        {"before": before, "chunk": chunk},
    )
    return cursor.rowcount


async def forget_positions(cursor: Cursor, tables: Tables, *, before: date, chunk: int) -> int:
    """Delete up to *chunk* positions from the start of the ledger, of days before *before* that have left the log.

    The last of them stays: the chain goes on from its hash.
    """
    await cursor.execute(
        sql.SQL(
            """
            WITH oldest AS MATERIALIZED (
                SELECT position, day
                FROM {ledger}
                ORDER BY position
                LIMIT %(chunk)s
            ), anchor AS (
                SELECT coalesce(
                    min(o.position) FILTER (WHERE d.day IS NULL) - 1,
                    max(o.position)
                ) AS position
                FROM oldest o
                LEFT JOIN {days} d
                    ON d.day = o.day
                    AND d.day < %(before)s
                    AND d.state = 'gone'
            )
            DELETE FROM {ledger}
            WHERE position < (SELECT position FROM anchor)
            """
        ).format(ledger=tables.ledger, days=tables.days),
        {"before": before, "chunk": chunk},
    )
    return cursor.rowcount


async def forget_days(cursor: Cursor, tables: Tables, *, before: date) -> int:
    """Delete days that have left the log, have no positions in the ledger, and have no event since *before*.

    The one with the latest event stays: the baseline expires up to there.
    """
    await cursor.execute(
        sql.SQL(
            """
            DELETE FROM {days}
            WHERE day < %(before)s
                AND (last_us < extract(epoch FROM %(before)s::date) * 1000000) IS NOT FALSE -- imported ones are later
                AND state = 'gone'
                AND last_position < coalesce((SELECT min(position) FROM {ledger}), 1)
                AND (last_us < (SELECT max(last_us) FROM {days})) IS NOT FALSE
            """
        ).format(days=tables.days, ledger=tables.ledger),
        {"before": before},
    )
    return cursor.rowcount
