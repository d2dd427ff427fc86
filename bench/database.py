"""The PostgreSQL all benchmarks share, a migrated database for each that asks, and a producer that appends to it."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import uuid4

import psycopg
from chancy import Chancy, Queue, Worker
from chancy.plugin import Plugin
from chancy.plugins.metrics import Metrics as BuiltIn
from psycopg import AsyncConnection, sql

from chancy_metrics.events.batch import BatchId, EncodedBatch
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.log import append
from chancy_metrics.events.partitions import attached_days
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.events.sequencer import SEQUENCE_LIMIT, sequence
from chancy_metrics.plugin import Metrics
from examples.embedded import Server

#: As a server is run in earnest, but for fsync: the disk's variation would hide everything else.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "wal_compression": "off",
    "timezone": "Etc/UTC",  # as most servers have it
}
_TEMPLATE = "bench_template"
#: Chancy's own logger writes to stdout, where the table goes.
_LOG = logging.getLogger("bench")
_LOG.setLevel(logging.ERROR)


class Databases:
    """Hands out databases in which Chancy, our plugin and the built-in one are migrated."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._numbers = itertools.count(1)
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
        asyncio.run(_migrate(server.dsn(_TEMPLATE)))

    @contextmanager
    def database(self) -> Iterator[str]:
        """A database for the length of a block; its DSN."""
        name = f"bench_{next(self._numbers)}"
        with psycopg.connect(self._server.dsn(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*map(sql.Identifier, (name, _TEMPLATE)))
            )
            try:
                yield self._server.dsn(name)
            finally:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def databases() -> Iterator[Databases]:
    with Server(None, prefix="bench-", **SETTINGS) as server:
        yield Databases(server)


async def _migrate(dsn: str) -> None:
    for plugin in (Metrics(), BuiltIn()):
        async with an_app(dsn, plugin) as chancy:
            await chancy.migrate()
            # Every worker has this queue; with its process executor it would start processes in each turn.
            await chancy.declare(Queue("default", executor=Chancy.Executor.Async))


@asynccontextmanager
async def an_app(dsn: str, *plugins: Plugin) -> AsyncIterator[Chancy]:
    """An open app with these plugins and no others."""
    async with Chancy(dsn, plugins=list(plugins), no_default_plugins=True, log=_LOG) as chancy:
        yield chancy


@asynccontextmanager
async def a_worker(dsn: str, *plugins: Plugin) -> AsyncIterator[Worker]:
    """A worker whose plugins have been told that it runs; its loops don't, so that only what is called happens."""
    async with an_app(dsn, *plugins) as chancy:
        worker = Worker(chancy, register_signal_handlers=False)
        for plugin in plugins:
            await plugin.on_worker_started(worker=worker)
        yield worker
        for plugin in plugins:
            await plugin.on_worker_stopped(worker=worker)


@asynccontextmanager
async def connections(dsn: str, count: int, *, prepared: bool = True) -> AsyncIterator[list[Connection]]:
    """Open connections for a block, with prepared statements as Chancy's pool has them, or without, as ours have."""
    threshold = 5 if prepared else None
    opened = [await AsyncConnection.connect(dsn, autocommit=True, prepare_threshold=threshold) for _ in range(count)]
    try:
        yield opened
    finally:
        for connection in opened:
            await connection.close()


class Producer:
    """Appends batches in transactions of its own, as `Recorder` does."""

    def __init__(self, connection: Connection, *, worker: str = "bench") -> None:
        self.tables: Tables = tables_for("chancy_")
        self._connection = connection
        self._worker = worker
        self._producer = uuid4()
        self._sequence = 0

    async def append(self, batches: Sequence[EncodedBatch]) -> None:
        async with short_transaction(self._connection) as cursor:
            day = (await attached_days(cursor, self.tables))[0]
        for batch in batches:
            self._sequence += 1
            batch_id = BatchId(day, self._producer, self._sequence)
            async with short_transaction(self._connection) as cursor:
                await append(cursor, self.tables, batch_id, batch, worker=self._worker)


async def sequence_all(connection: Connection, tables: Tables) -> int:
    """Give every committed batch its position; return how many got one."""
    total = 0
    while True:
        sequenced = await sequence(connection, tables)
        total += sequenced.batches
        if sequenced.batches < SEQUENCE_LIMIT:
            return total


async def ask(connection: Connection, query: str, **values: Any) -> Any:
    """The first column of the first row."""
    cursor = await connection.execute(query.encode(), values)
    row = await cursor.fetchone()
    assert row is not None
    return row[0]
