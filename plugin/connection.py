"""Connections of our own: never the pool's for long work, whose one or two connections jobs need."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta

from chancy import Chancy
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

#: Seconds to wait for the server when a connection is made.
CONNECT_TIMEOUT_S = 5


@asynccontextmanager
async def own_connection(chancy: Chancy) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """Open a connection for a block; autocommit, and without prepared statements, which poolers lose."""
    connection = await connect(chancy)
    try:
        yield connection
    finally:
        await connection.close()


async def connect(chancy: Chancy) -> AsyncConnection[TupleRow]:
    return await AsyncConnection.connect(
        chancy.dsn, autocommit=True, prepare_threshold=None, connect_timeout=CONNECT_TIMEOUT_S
    )


class DatabaseClock:
    """The database's clock as last seen, carried on by this host's monotonic one.

    It decides in which day's partition a batch lies, so that a wrong host clock opens none a year ahead.
    """

    def __init__(self) -> None:
        self._seen: datetime | None = None
        self._at = -math.inf

    def see(self, now: datetime) -> None:
        self._seen, self._at = now.astimezone(UTC), time.monotonic()

    def today(self) -> date:
        """The database's UTC day; the host's before the database was first asked."""
        if self._seen is None:
            return datetime.now(UTC).date()
        return (self._seen + timedelta(seconds=time.monotonic() - self._at)).date()
