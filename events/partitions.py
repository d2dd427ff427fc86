"""The log's partitions, one a day: create them ahead, close days to appends, detach and drop days in the baseline."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from typing import Literal, NamedTuple

from psycopg import Rollback, errors, sql

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.schema import Tables

DAYS_AHEAD = 21
#: Appends run in jobs' transactions: DDL that would make them queue gives up and is retried later.
DDL_LOCK_MS = 100
#: Detaching waits for users of the log, such as a dump; a later call finishes a detach left pending after this.
DETACH_S = 2.0

#: A day takes batches; takes none; is in the baseline; its partition is dropped.
DayState = Literal["attached", "closed", "absorbed", "gone"]


class LogDay(NamedTuple):
    """A day of the log that has not left it.

    Attributes:
        size_bytes: Of its partition with its indexes; 0 where there is none.
    """

    day: date
    state: DayState
    size_bytes: int


async def attached_days(cursor: Cursor, tables: Tables) -> list[date]:
    """Return the days that can be appended to, ascending."""
    return [day for day, attached in await _known_days(cursor, tables) if attached]


async def days_in_log(cursor: Cursor, tables: Tables) -> list[date]:
    """Return the days whose batches are read from the log, ascending."""
    await cursor.execute(
        sql.SQL("SELECT day FROM {days} WHERE state IN ('attached', 'closed') ORDER BY day").format(days=tables.days)
    )
    return [row[0] for row in await cursor.fetchall()]


async def gone_days(cursor: Cursor, tables: Tables) -> set[date]:
    """Return the days whose batches are in the baseline, and are no longer read from the log."""
    await cursor.execute(sql.SQL("SELECT day FROM {days} WHERE state IN ('absorbed', 'gone')").format(days=tables.days))
    return {row[0] for row in await cursor.fetchall()}


async def make_days(connection: Connection, tables: Tables, *, today: date, ahead: int) -> list[date]:
    """Create missing partitions of *today* and the *ahead* days after it; return the days created.

    Where a lock takes longer than `DDL_LOCK_MS`, that day and those after it are left to the next call.
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
                continue  # another process made it meanwhile
            made.append(day)
    return made


async def _known_days(cursor: Cursor, tables: Tables) -> list[tuple[date, bool]]:
    """Return the days that need no partition, ascending, and whether they can be appended to.

    An attached day whose partition somebody dropped is not among them.
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


async def _make_day(connection: Connection, tables: Tables, day: date) -> None:
    # CREATE ... PARTITION OF would wait for every open writer; CREATE, CHECK and ATTACH wait for none.
    async with short_transaction(connection, lock_timeout_ms=DDL_LOCK_MS) as cursor:
        await cursor.execute(
            sql.SQL(
                """
                CREATE TABLE {partition} (
                    LIKE {log} INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING INDEXES INCLUDING CONSTRAINTS,
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
            ),
            binary=False,  # several statements
        )


async def days_before(cursor: Cursor, tables: Tables, end: date) -> list[LogDay]:
    """Return the days before *end* that have not left the log, oldest first."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT day, state
            FROM {days}
            WHERE day < %(end)s
                AND state <> 'gone'
            ORDER BY day
            """
        ).format(days=tables.days),
        {"end": end},
    )
    days = []
    for day, state in await cursor.fetchall():
        await cursor.execute(
            "SELECT coalesce(pg_total_relation_size(to_regclass(%(partition)s)), 0)",
            {"partition": tables.partition(day).as_string(cursor)},
        )
        row = await cursor.fetchone()
        days.append(LogDay(day, state, row[0] if row else 0))
    return days


async def close_day(connection: Connection, tables: Tables, day: date) -> str | None:
    """Close *day* to appends; return a sentence if that was not possible.

    The lock that CREATE TRIGGER needs is granted when no open transaction has a row in the day, so the day is complete
    after that.
    """
    try:
        async with short_transaction(connection, lock_timeout_ms=DDL_LOCK_MS) as cursor:
            if await _set_state(cursor, tables, day, "attached", "closed") and await _attachment(cursor, tables, day):
                await cursor.execute(
                    sql.SQL(
                        """
                        CREATE TRIGGER refuse_append BEFORE INSERT ON {partition}
                            FOR EACH ROW EXECUTE FUNCTION {refuse_append}()
                        """
                    ).format(partition=tables.partition(day), refuse_append=tables.refuse_append)
                )
            await cursor.execute(
                sql.SQL("SELECT EXISTS (SELECT FROM {spill} WHERE day = %(day)s)").format(spill=tables.spill),
                {"day": day},
            )
            if await cursor.fetchone() == (True,):
                raise Rollback
            return None
    except errors.LockNotAvailable:
        return _lock_reason(day)
    return f"batches of {day} are spilled: a worker's next fold takes them into the log, or `chancy-metrics fold`"


async def remove_day(connection: Connection, tables: Tables, day: date) -> str | None:
    """Detach and drop the partition of a day that is in the baseline; return a sentence if not yet possible.

    Never makes others wait: it gives up on locks it can't get at once, and a later call goes on. *connection* is in
    autocommit and outside a transaction.
    """
    try:
        async with short_transaction(connection, lock_timeout_ms=DDL_LOCK_MS) as cursor:
            state = await _attachment(cursor, tables, day)
            if state == "detaching":
                await cursor.execute(_detach(tables, day, "FINALIZE"))
        if state == "attached":
            # It runs outside transactions only, where a pooler would lose a lock_timeout. asyncio's time-out cancels
            # once and lets psycopg wait for the server's answer; anyio's would cancel that too.
            async with asyncio.timeout(DETACH_S):
                await connection.execute(_detach(tables, day, "CONCURRENTLY"))
        async with short_transaction(connection, lock_timeout_ms=DDL_LOCK_MS) as cursor:
            if await _set_state(cursor, tables, day, "absorbed", "gone"):
                await cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(tables.partition(day)))
    except (errors.LockNotAvailable, errors.QueryCanceled, TimeoutError):
        return _lock_reason(day)
    except (errors.UndefinedTable, errors.ObjectNotInPrerequisiteState):  # not attached, or detaching, any more
        return f"another process removes {day}; the next call tries again"
    return None


def _lock_reason(day: date) -> str:
    return f"an open transaction holds {day}: no lock within {DDL_LOCK_MS} ms; the next call tries again"


def _detach(tables: Tables, day: date, how: Literal["CONCURRENTLY", "FINALIZE"]) -> sql.Composed:
    return sql.SQL("ALTER TABLE {log} DETACH PARTITION {partition} {how}").format(
        log=tables.log, partition=tables.partition(day), how=sql.SQL(how)
    )


async def _set_state(cursor: Cursor, tables: Tables, day: date, old: DayState, new: DayState) -> bool:
    """Change the state of a day; False if it was not *old* any more."""
    await cursor.execute(
        sql.SQL(
            """
            UPDATE {days}
            SET state = %(new)s,
                changed_at = clock_timestamp()
            WHERE day = %(day)s
                AND state = %(old)s
            """
        ).format(days=tables.days),
        {"day": day, "old": old, "new": new},
    )
    return cursor.rowcount == 1


async def _attachment(cursor: Cursor, tables: Tables, day: date) -> Literal["attached", "detaching", "detached", ""]:
    """Return whether the day's partition is attached; "" if it does not exist."""
    await cursor.execute(
        """
        SELECT CASE i.inhdetachpending WHEN true THEN 'detaching' WHEN false THEN 'attached' ELSE 'detached' END
        FROM pg_class c
        LEFT JOIN pg_inherits i
            ON i.inhrelid = c.oid
        WHERE c.oid = to_regclass(%(partition)s)
        """,
        {"partition": tables.partition(day).as_string(cursor)},
    )
    row = await cursor.fetchone()
    return row[0] if row else ""
