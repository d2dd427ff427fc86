"""Abandon an unfinished import: delete what it has written, so that the log is as empty as before."""

from __future__ import annotations

import time
from datetime import date
from functools import partial

import msgspec
from chancy import Chancy
from psycopg import errors, sql

from chancy_metrics.events.database import Connection, needs_schema, short_transaction
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.partitions import DDL_LOCK_MS, remove_day
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.events.transfer.guard import delete_ledger, end_importing, is_importing
from chancy_metrics.plugin.host.connection import own_connection
from chancy_metrics.plugin.transfer.import_locks import lock_head, lock_versions, retry_locked
from chancy_metrics.projections.versions.baseline_io import empty_versions


class Abandoned(msgspec.Struct, frozen=True):
    """How much of an unfinished import was deleted."""

    positions: int
    batches: int
    events: int
    took_s: float


async def abandon_import(chancy: Chancy) -> Abandoned:
    """Delete all that an unfinished import has written; the log is as empty as before it.

    One transaction. What workers appended meanwhile stays pending and gets its positions with the next fold. Readers of
    the ledger wait for the transaction; appends do not.

    Raises:
        MetricsLogError: No import is unfinished, or a lock could not be had; nothing has changed.
    """
    started = time.monotonic()
    tables = tables_for(chancy.prefix)
    async with own_connection(chancy) as connection:
        with needs_schema(tables):
            for day in await _days_half_gone(connection, tables):
                await retry_locked(partial(_remove, connection, tables, day))
            positions, batches, events = await retry_locked(partial(_abandon, connection, tables))
    return Abandoned(positions, batches, events, round(time.monotonic() - started, 3))


async def _abandon(connection: Connection, tables: Tables) -> tuple[int, int, int]:
    async with short_transaction(connection, lock_timeout_ms=DDL_LOCK_MS) as cursor:
        state = await lock_head(cursor, tables)
        if not state.importing:
            raise MetricsLogError("no import into this database is unfinished: there is nothing to abandon")
        await lock_versions(cursor, tables)
        await end_importing(cursor, tables)
        await cursor.execute("SET LOCAL lock_timeout = 0")
        found = await delete_ledger(cursor, tables)
        await empty_versions(cursor, tables)
    return found


async def _days_half_gone(connection: Connection, tables: Tables) -> list[date]:
    """Return the days that the unfinished import has closed and whose partitions still exist."""
    async with short_transaction(connection) as cursor:
        if not await is_importing(cursor, tables):
            return []
        await cursor.execute(sql.SQL("SELECT day FROM {days} WHERE state = 'absorbed'").format(days=tables.days))
        return [row[0] for row in await cursor.fetchall()]


async def _remove(connection: Connection, tables: Tables, day: date) -> None:
    if await remove_day(connection, tables, day):
        raise errors.LockNotAvailable
