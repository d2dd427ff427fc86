"""Open connections of our own for long work, since jobs need the pool's; the database's clock; pipelined statements."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

from chancy import Chancy
from psycopg import AsyncConnection, Error, OperationalError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import PoolTimeout

from chancy_metrics.events.database import Connection, Cursor, database_now_us
from chancy_metrics.events.facts import SKEW_US, microseconds
from chancy_metrics.events.silent_server import Patience
from chancy_metrics.plugin.host.clock import now_us
from chancy_metrics.plugin.host.moments import from_us
from chancy_metrics.plugin.host.redaction import without_password

#: Seconds to wait for the server when a connection is made.
CONNECT_TIMEOUT_S = 5
#: Seconds to wait for a connection of the pool; past it one of our own is opened.
POOL_WAIT_S = 2
#: What our connections are made with unless the DSN says otherwise. Where packets are swallowed, what was sent is given
#: up after 20 s, and a connection that only waits after 10 + 3 * 5 s; on a Unix socket none of this means anything.
_UNLESS_GIVEN = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
#: First release that ends idle sessions.
_IDLE_SESSION_TIMEOUT = 140_000


class Database(Protocol):
    """Where the metrics log is: a Chancy app, or what a task on another machine is told of it."""

    @property
    def dsn(self) -> str: ...

    @property
    def prefix(self) -> str: ...


@asynccontextmanager
async def own_connection(database: Database, name: str = "") -> AsyncIterator[Connection]:
    """Open a connection for a block; autocommit, and without prepared statements, which poolers lose.

    Args:
        name: Its `application_name`, by which others see that its owner lives.
    """
    connection = await connect(database, name)
    try:
        yield connection
    finally:
        await connection.close()


async def connect(database: Database, name: str = "") -> Connection:
    """Open a connection that the caller closes.

    Raises:
        psycopg.Error: It can't be had; the text says nothing of the DSN's password.
    """
    # PostgreSQL cuts longer names, and says so each time.
    shown = name.encode()[:63].decode(errors="ignore") or None
    try:
        given = conninfo_to_dict(database.dsn)
        connection = await AsyncConnection.connect(
            make_conninfo(database.dsn, **{name: value for name, value in _UNLESS_GIVEN.items() if name not in given}),
            autocommit=True,
            prepare_threshold=None,
            application_name=shown,
            client_encoding="UTF8",
        )
    except Error as error:
        raise type(error)(without_password(str(error), database.dsn)) from None
    except (UnicodeError, ValueError):  # a host, or a DSN, that no call can take
        raise OperationalError("the DSN names no host that there can be, or holds NUL") from None
    try:
        with Patience(CONNECT_TIMEOUT_S).waiting(connection):
            await _stay_open(connection)
    except BaseException:
        await connection.close()
        raise
    return connection


async def _stay_open(connection: Connection) -> None:
    """Lift the limit of idle sessions for the whole session: not for a pooler, which would hand it on."""
    if connection.info.server_version >= _IDLE_SESSION_TIMEOUT:
        await connection.execute(
            # A pooler tells its clients another pid than the server's.
            "SELECT set_config('idle_session_timeout', '0', false) WHERE pg_backend_pid() = %(pid)s",
            {"pid": connection.info.backend_pid},
        )


@asynccontextmanager
async def any_connection(chancy: Chancy) -> AsyncIterator[Connection]:
    """Take a connection of the pool for a block; one of our own where jobs hold all of them, or it can't connect."""
    async with AsyncExitStack() as stack:
        try:
            connection = await stack.enter_async_context(chancy.pool.connection(timeout=POOL_WAIT_S))
        except PoolTimeout:  # or the pool waits ever longer to connect again
            connection = await stack.enter_async_context(own_connection(chancy))
        yield connection


class DatabaseClock:
    """The database's clock as last seen, carried on by this host's monotonic one, so it is never ahead of it.

    It decides the day whose partition a batch goes to, so that a wrong host clock creates none a year ahead, and shows
    whether the host's clock is behind.
    """

    #: Kept in a class, where freezegun does not look: the database's clock goes on.
    _monotonic_s = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self._seen: datetime | None = None
        self._at = -math.inf

    def see(self, now: datetime) -> None:
        self._seen, self._at = now.astimezone(UTC), self._monotonic_s()

    async def ask(self, cursor: Cursor) -> None:
        """See the database's clock: this host's may have slept."""
        self.see(from_us(await database_now_us(cursor)))

    def today(self) -> date:
        """The database's UTC day; the host's before the database was first asked."""
        now = self._now()
        return datetime.now(UTC).date() if now is None else now.date()

    def is_ahead_of_host(self) -> bool:
        """Whether the host's clock is behind the database's by more than is ordinary, as far as that is known."""
        now = self._now()
        return now is not None and microseconds(now) - now_us() > SKEW_US

    def _now(self) -> datetime | None:
        return self._seen and self._seen + timedelta(seconds=self._monotonic_s() - self._at)
