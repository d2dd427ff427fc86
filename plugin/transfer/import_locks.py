"""Lock the head and the versions against folds while an import begins or ends, and retry while others hold locks."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

import anyio
from psycopg import errors, sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.errors import NO_HEAD, MetricsLogError, SchemaMissing
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.transfer.guard import is_importing
from chancy_metrics.projections.versions.create import drop_generations
from chancy_metrics.projections.versions.version import BASELINE, Version, lock_version, read_versions

#: Seconds for which a lock that another transaction holds is tried again.
PATIENCE_S = 30
_AGAIN_S = 0.1

T = TypeVar("T")


class LedgerEnd(NamedTuple):
    """The last position of the ledger with its hash, and whether an import is unfinished."""

    position: int
    chain: bytes
    importing: bool


async def lock_head(cursor: Cursor, tables: Tables) -> LedgerEnd:
    await cursor.execute(sql.SQL("SELECT position, chain FROM {head} FOR UPDATE").format(head=tables.head))
    row = await cursor.fetchone()
    if row is None:
        raise SchemaMissing(NO_HEAD)
    return LedgerEnd(row[0], bytes(row[1]), await is_importing(cursor, tables))


async def lock_versions(cursor: Cursor, tables: Tables) -> list[Version]:
    """Lock the baseline and all versions that are not dropped; return the latter. Drop the totals.

    These are built anew, as another generation, of what an import brings or leaves.
    """
    await lock_version(cursor, tables, BASELINE, wait=True)
    versions = [one for one in await read_versions(cursor, tables) if one.status != "dropped"]
    for one in versions:
        await lock_version(cursor, tables, one.version, wait=True)
    await drop_generations(cursor, tables)
    return versions


async def retry_locked(work: Callable[[], Awaitable[T]]) -> T:
    """Call *work* until no lock is in its way.

    Raises:
        MetricsLogError: A lock was held for `PATIENCE_S`.
    """
    started = time.monotonic()
    while True:
        try:
            return await work()
        except errors.LockNotAvailable:
            if time.monotonic() - started >= PATIENCE_S:
                raise MetricsLogError(
                    f"a transaction has held a lock that the import needs for {PATIENCE_S} s: run it again"
                ) from None
        await anyio.sleep(_AGAIN_S)
