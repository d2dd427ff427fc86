"""Open connections that wait for locks for seconds at most, and name the locked table and who holds it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg import errors

from chancy_metrics.events.database import Connection, limit_locks, needs_schema
from chancy_metrics.events.errors import TableLocked
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin.host.connection import Database, own_connection

#: Milliseconds to wait for a lock that somebody else holds on one of our tables.
LOCK_LIMIT_MS = 3_000
#: The same for a rebuild, which also waits for the folds of the live version.
REBUILD_LOCK_LIMIT_MS = 30_000
_QUERY_CHARS = 80


@asynccontextmanager
async def bounded_connection(
    database: Database, name: str = "", *, lock_limit_ms: int | None = None
) -> AsyncIterator[Connection]:
    """Open a connection of our own, autocommit, in whose short transactions no statement waits long for a lock.

    Args:
        name: Its `application_name`.
        lock_limit_ms: `LOCK_LIMIT_MS` by default.

    Raises:
        TableLocked: A statement waited too long; the message names the table and who holds the lock.
        SchemaMissing: The tables are missing or older than this code.
    """
    limit_ms = LOCK_LIMIT_MS if lock_limit_ms is None else lock_limit_ms
    with needs_schema(tables_for(database.prefix)):
        async with naming_locks(database, f"for {limit_ms / 1_000:g} s"), own_connection(database, name) as connection:
            limit_locks(connection, limit_ms)
            yield connection


@asynccontextmanager
async def naming_locks(database: Database, waited: str) -> AsyncIterator[None]:
    """Name the locked table and who holds the lock, if a statement in the block has waited for it in vain.

    Args:
        waited: What follows on "could not be read": how long, or by what.

    Raises:
        TableLocked: Instead of psycopg's error.
    """
    try:
        yield
    except errors.LockNotAvailable as error:
        raise TableLocked(await _who_locks(database, tables_for(database.prefix), waited)) from error


async def _who_locks(database: Database, tables: Tables, waited: str) -> str:
    try:
        async with own_connection(database) as connection:
            cursor = await connection.execute(
                """
                SELECT c.relname, l.granted, l.pid, a.usename, a.application_name, a.query,
                    extract(epoch FROM clock_timestamp() - a.xact_start)::bigint
                FROM pg_locks l
                JOIN pg_class c
                    ON c.oid = l.relation
                LEFT JOIN pg_stat_activity a
                    ON a.pid = l.pid
                WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                    AND l.mode = 'AccessExclusiveLock'
                    AND (starts_with(c.relname, %(ours)s) OR c.relname = %(workers)s)
                ORDER BY l.granted DESC, length(c.relname), a.xact_start -- the table, not its partitions
                LIMIT 1
                """,
                {"ours": f"{tables.prefix}metrics_", "workers": f"{tables.prefix}workers"},
            )
            row = await cursor.fetchone()
    except psycopg.Error:
        row = None
    if row is None:
        return f"a metrics table was locked {waited} and is free again, or who holds it can't be seen: try again"
    table, granted, pid, user, application, query, since_s = row
    does = "holds" if granted else "waits for"
    who = f"process {pid}" + (f" (user {user}, application {application!r})" if user else " (a prepared transaction)")
    query = " ".join((query or "").split())[:_QUERY_CHARS]
    doing = f" since {since_s:,} s with {query!r}" if since_s is not None else ""
    return (
        f"table {table} could not be read {waited}: {who} {does} it exclusively{doing}; nothing is said of it before "
        f"that ends (SELECT pg_terminate_backend({pid}) ends it)"
    )
