"""Short transactions with settings of their own, lock limits, the database's clock, and the types of cursors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from weakref import WeakKeyDictionary

from psycopg import AsyncConnection, AsyncCursor, errors
from psycopg.rows import TupleRow, tuple_row

from chancy_metrics.events.errors import SchemaMissing
from chancy_metrics.events.infinite_times import read_infinite_times
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.transaction_settings import Isolation, settings_for

#: Connections and cursors whose rows are tuples.
Connection = AsyncConnection[TupleRow]
Cursor = AsyncCursor[TupleRow]

#: The server ends a transaction that is idle for so long, so that a frozen process holds no row locks.
_IDLE_MS = 5_000


#: The same of one that reads a snapshot: it holds no row locks, and computes between statements.
_SNAPSHOT_IDLE_MS = 600_000


#: Opens a transaction for one read, or joins the current one and leaves it open.
Transaction = Callable[[], AbstractAsyncContextManager[Cursor]]


_lock_limits_ms = WeakKeyDictionary[Connection, int]()


def limit_locks(connection: Connection, limit_ms: int) -> None:
    """Set the lock limit of transactions of *connection* that pass no `lock_timeout_ms`."""
    _lock_limits_ms[connection] = limit_ms


def lock_limit_ms(connection: Connection) -> int:
    """Return how long transactions of *connection* wait for a lock, milliseconds; 0 for ever."""
    return _lock_limits_ms.get(connection, 0)


@asynccontextmanager
async def short_transaction(
    connection: Connection,
    *,
    isolation: Isolation = "READ COMMITTED",
    lock_timeout_ms: int | None = None,
    idle_timeout_ms: int | None = None,
    index_only: bool = False,
) -> AsyncIterator[Cursor]:
    """Open a transaction that sets isolation, time-outs and formats itself, whatever the session has set.

    Its cursor reads binary results, which no setting changes. Without *lock_timeout_ms* (0: for ever) the limit
    is that of `limit_locks`, and there is none by default.

    With *index_only* the planner leaves sequential and bitmap scans alone: on the pending table they read
    every dead row that a long transaction elsewhere keeps, on the log a whole day for a few batches.
    """
    try:
        async with connection.transaction(), connection.cursor(row_factory=tuple_row, binary=True) as cursor:
            settings = settings_for(
                connection.info.server_version,
                isolation,
                idle_timeout_ms=idle_timeout_ms or (_SNAPSHOT_IDLE_MS if isolation == "REPEATABLE READ" else _IDLE_MS),
                lock_timeout_ms=lock_limit_ms(connection) if lock_timeout_ms is None else lock_timeout_ms,
                index_only=index_only,
            )
            await cursor.execute(settings, binary=False)
            read_infinite_times(cursor)
            yield cursor
    except errors.ReadOnlySqlTransaction:
        # A failover can leave sessions on a server that takes no writes, and a pool would keep them for an hour.
        await connection.close()
        raise


@contextmanager
def needs_schema(tables: Tables) -> Iterator[None]:
    """Replace errors of missing or outdated tables in the block by one that says what to do.

    Raises:
        SchemaMissing: Instead of psycopg's error.
    """
    try:
        yield
    except (errors.UndefinedTable, errors.UndefinedFunction) as error:
        raise SchemaMissing(
            f"the metrics tables under prefix {tables.prefix!r} are missing, or in no schema of this session's "
            f"search_path ({error.diag.message_primary}): run `chancy misc migrate`, or set the search_path that the "
            f"workers have; what is still missing then was dropped, and has to be restored from a backup"
        ) from error
    except errors.UndefinedColumn as error:
        raise SchemaMissing(
            f"the metrics tables under prefix {tables.prefix!r} are older than this code: run `chancy misc migrate` "
            f"({error.diag.message_primary})"
        ) from error


async def database_now_us(cursor: Cursor) -> int:
    """Return the time of the database's clock, microseconds since 1970."""
    await cursor.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])
