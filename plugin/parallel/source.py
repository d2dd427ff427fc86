"""Where a task reads: the app's database or a replica, which must be of the same log and far enough."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
from psycopg import sql

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin.host.bounded_connection import REBUILD_LOCK_LIMIT_MS, bounded_connection
from chancy_metrics.plugin.host.connection import Database

#: The `application_name` of a task's connection.
TASK = "chancy-metrics task"
#: Seconds to wait for a replica that is behind, and between two looks.
_PATIENCE_S, _POLL_S = 60, 0.1


class Source(NamedTuple):
    """A database to read, as plain data.

    Attributes:
        is_replica: Whether it is another database than the app's.
        position: Ledger position that a replica must have, and *chain* the hash there: proof that it holds this log.
    """

    dsn: str
    prefix: str
    is_replica: bool = False
    position: int = 0
    chain: bytes = b""

    def __repr__(self) -> str:
        """Leave out the DSN: a cluster's logs show the arguments of a task that failed."""
        return f"Source(prefix={self.prefix!r}, position={self.position})"


def check_read_dsn(executor: Executor | None, read_dsn: str | None) -> None:
    """Raise if there are no tasks that would read from *read_dsn*."""
    if read_dsn is not None and executor is None:
        raise MetricsLogError("read_dsn says where the tasks of an executor read: give an executor, too")


def source_of(chancy: Database, read_dsn: str | None) -> Source:
    """Return where tasks read: *read_dsn*, or by default the app's database; `proven_at` adds what it must have."""
    return Source(read_dsn or chancy.dsn, chancy.prefix, read_dsn is not None)


async def proven_at(cursor: Cursor, tables: Tables, source: Source, position: int | None = None) -> Source:
    """Return *source*; a replica with the proof that it has *position*, by default the end of the ledger.

    Args:
        cursor: Of the app's database.
    """
    if not source.is_replica:
        return source
    last, chain = await _end(cursor, tables, position)
    return source._replace(position=last if position is None else position, chain=chain)


@asynccontextmanager
async def connected(source: Source) -> AsyncIterator[Connection]:
    """Open a connection to *source* for a block, once that has the position it must have.

    Raises:
        MetricsLogError: It holds another log, or has not got there within a minute; or as `bounded_connection`.
    """
    async with bounded_connection(source, TASK, lock_limit_ms=REBUILD_LOCK_LIMIT_MS) as connection:
        await _wait_for(connection, source)
        yield connection


async def _wait_for(connection: Connection, source: Source) -> None:
    tables, began_s = tables_for(source.prefix), time.monotonic()
    while source.position:
        async with short_transaction(connection) as cursor:
            last, chain = await _end(cursor, tables, source.position)
        if chain == source.chain:
            return
        if chain or last > source.position:
            raise MetricsLogError(
                f"the database to read from holds another log: its ledger has another hash at position "
                f"{source.position}; give --read-dsn a replica of the app's database"
            )
        if time.monotonic() - began_s > _PATIENCE_S:
            raise MetricsLogError(
                f"the database to read from is at position {last} of the ledger, and {source.position} has not come "
                f"within {_PATIENCE_S} s: wait until the replica has caught up, then run the command again"
            )
        await anyio.sleep(_POLL_S)


async def _end(cursor: Cursor, tables: Tables, position: int | None = None) -> tuple[int, bytes]:
    """Return the last position of the ledger, 0 if it is empty, and the hash there, or at *position*; b"" for none."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT coalesce(e.last, 0), coalesce(o.chain, '')
            FROM (SELECT max(position) AS last FROM {ledger}) AS e
            LEFT JOIN {ledger} o
                ON o.position = coalesce(%(position)s, e.last)
            """
        ).format(ledger=tables.ledger),
        {"position": position},
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1]
