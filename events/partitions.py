"""The log's days: made weeks ahead, beside open writers and dumps, so that no append ever waits for DDL."""

from __future__ import annotations

from datetime import date, timedelta

from psycopg import AsyncConnection, AsyncCursor, errors, sql
from psycopg.rows import TupleRow

from .log import short_transaction
from .schema import Tables

DAYS_AHEAD = 21
#: An append rides in a job's transaction: DDL that would queue in front of it gives up and comes again.
DDL_LOCK_MS = 100


async def attached_days(cursor: AsyncCursor[TupleRow], tables: Tables) -> list[date]:
    """Return the days that can be appended to, ascending."""
    return [day for day, attached in await _known_days(cursor, tables) if attached]


async def gone_days(cursor: AsyncCursor[TupleRow], tables: Tables) -> set[date]:
    """Return the days whose batches are in the opening, and are to be read from the log no more."""
    await cursor.execute(sql.SQL("SELECT day FROM {days} WHERE state IN ('opening', 'gone')").format(days=tables.days))
    return {row[0] for row in await cursor.fetchall()}


async def make_days(connection: AsyncConnection[TupleRow], tables: Tables, *, today: date, ahead: int) -> list[date]:
    """Make the partitions of *today* and the *ahead* days after it that do not exist; return those made.

    A day that needs longer than `DDL_LOCK_MS` for a lock is left for the next call, and so are those after it.
    """
    async with short_transaction(connection) as cursor:
        known = {day for day, _ in await _known_days(cursor, tables)}
    made = []
    for offset in range(ahead + 1):
        day = today + timedelta(days=offset)
        if day not in known:
            try:
                await _make_day(connection, tables, day)
            except errors.LockNotAvailable:
                break
            except (errors.DuplicateTable, errors.DuplicateObject, errors.UniqueViolation):
                continue  # somebody else made it in the meantime
            made.append(day)
    return made


async def _known_days(cursor: AsyncCursor[TupleRow], tables: Tables) -> list[tuple[date, bool]]:
    """Return every day that must not be made, ascending, and whether it can be appended to.

    A day that is called attached and has no partition, because somebody dropped it, is none of them.
    """
    await cursor.execute(
        sql.SQL(
            """
            SELECT d.day, d.state = 'attached'
            FROM {days} d
            WHERE d.state <> 'attached'
                OR EXISTS (
                    SELECT 1
                    FROM pg_inherits i
                    JOIN pg_class c
                        ON c.oid = i.inhrelid
                    WHERE i.inhparent = %(log)s::regclass
                        AND c.relname = %(stem)s || to_char(d.day, 'YYYYMMDD')
                )
            ORDER BY d.day
            """
        ).format(days=tables.days),
        {"log": tables.log.as_string(cursor), "stem": tables.partition_stem},
    )
    return [(row[0], row[1]) for row in await cursor.fetchall()]


async def _make_day(connection: AsyncConnection[TupleRow], tables: Tables, day: date) -> None:
    # CREATE ... PARTITION OF would wait for every open writer; CREATE, CHECK and ATTACH wait for none.
    async with short_transaction(connection, lock_timeout_ms=DDL_LOCK_MS) as cursor:
        await cursor.execute(
            sql.SQL(
                """
                CREATE TABLE {partition} (
                    LIKE {log} INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING INDEXES,
                    CONSTRAINT day_in_range CHECK (day >= {day} AND day < {end})
                );
                CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON {partition}
                    FOR EACH STATEMENT EXECUTE FUNCTION {refuse_change}();
                ALTER TABLE {log} ATTACH PARTITION {partition} FOR VALUES FROM ({day}) TO ({end});
                ALTER TABLE {partition} DROP CONSTRAINT day_in_range;
                DELETE FROM {days} WHERE day = {day} AND state = 'attached';
                INSERT INTO {days} (day, state, changed_at) VALUES ({day}, 'attached', clock_timestamp())
                """
            ).format(
                partition=tables.partition(day),
                log=tables.log,
                days=tables.days,
                refuse_change=tables.refuse_change,
                day=sql.Literal(day.isoformat()),
                end=sql.Literal((day + timedelta(days=1)).isoformat()),
            )
        )
