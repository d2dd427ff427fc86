"""Delete the totals of series that have been without a point for too long."""

from __future__ import annotations

from psycopg import sql

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.versions.version import lock_version, read_generations


async def expire_totals(connection: Connection, tables: Tables, *, before_us: int, chunk: int) -> int:
    """Delete up to *chunk* totals without a point since *before_us* that are served; return the number deleted.

    Under the lock of their generation, since a step adds to rows that it has found. If that is taken, they are left
    for the next call. A series that comes back counts from 0 again.
    """
    async with short_transaction(connection) as cursor:
        for one in await read_generations(cursor, tables):
            locked = await lock_version(cursor, tables, one.version)
            if locked is None or locked.status != "totals":
                continue
            await cursor.execute(
                sql.SQL(
                    """
                    DELETE FROM {totals}
                    WHERE ctid = ANY(ARRAY(
                        SELECT ctid
                        FROM {totals}
                        WHERE version = %(generation)s
                            AND last_us < %(before_us)s
                        LIMIT %(chunk)s
                    ))
                    """
                ).format(totals=tables.totals),
                {"generation": locked.version, "before_us": before_us, "chunk": chunk},
            )
            return cursor.rowcount
    return 0
