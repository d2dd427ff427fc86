"""Locks of others: a dump stops nothing, a locked rollup stops the fold alone, and nothing of ours locks every day."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from functools import partial

import anyio
from psycopg import sql

from chancy_metrics.events.batch import BatchId
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.log import append, read_batches
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.sequencer import sequence
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.worker.maintenance import Maintenance
from chancy_metrics.projections.versions.advance import advance
from tests.factories import (
    LogWriter,
    a_run,
    append_as,
    connections,
    eventually,
    fetch,
    sequence_all,
    sequence_and_fold,
    total,
)

FAR = date(2031, 5, 1)
#: How long an append may wait for a partition in the making.
MAX_WAIT_S = 0.1


@asynccontextmanager
async def dump(connection: Connection, tables: Tables) -> AsyncIterator[None]:
    """The locks pg_dump holds from its beginning to its end."""
    async with connection.transaction():
        cursor = await connection.execute(
            "SELECT quote_ident(relname) FROM pg_class WHERE relkind IN ('r', 'p') AND relname LIKE %s",
            [f"{tables.prefix}metrics%"],
        )
        tables = sql.SQL(", ").join([sql.SQL(row[0]) for row in await cursor.fetchall()])
        await connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(tables))
        yield


async def test_no_append_waits_while_days_are_made_beside_a_dump_and_an_open_writer(dsn: str, tables: Tables) -> None:
    waits: list[float] = []
    made: list[date] = []
    async with connections(dsn, 4) as (dumping, writer, maker, appender):

        async def append_until_made() -> None:
            while not made:
                started = time.monotonic()
                await LogWriter(appender, tables).append(runs=[a_run()])
                waits.append(time.monotonic() - started)

        async with dump(dumping, tables), writer.transaction():
            await append_as(writer.cursor(), tables, a_run())
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(append_until_made)
                made += await make_days(maker, tables, today=FAR, ahead=20)

    assert len(made) == 21
    assert max(waits) < MAX_WAIT_S


async def test_a_dump_stops_neither_ordering_nor_folding_nor_cleaning(dsn: str, tables: Tables) -> None:
    async with connections(dsn, 2) as (dumping, connection), dump(dumping, tables):
        with anyio.fail_after(10):
            await LogWriter(connection, tables).append(runs=[a_run("app:n", at_us=0)])
            await sequence_and_fold(connection, tables)
            removed = await Maintenance(Metrics().options).clean(connection, tables)

        assert removed == 4 + 1 + 2  # points, a segment, names


async def test_a_locked_rollup_stops_the_fold_alone_and_costs_no_count(dsn: str, tables: Tables) -> None:
    async with connections(dsn, 4) as (locking, folding, other, connection):
        async with anyio.create_task_group() as tasks, locking.transaction():
            await fetch(locking, "LOCK TABLE {r1hour} IN SHARE MODE", tables)  # as CREATE INDEX does
            await LogWriter(connection, tables).append(runs=[a_run("app:n")])
            await sequence_all(connection, tables)
            tasks.start_soon(partial(advance, folding, tables, folded_by="waits"))

            async def waits() -> bool:
                cursor = await connection.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'",
                    [folding.info.backend_pid],
                )
                return await cursor.fetchone() is not None

            await eventually(waits)
            with anyio.fail_after(5):
                await LogWriter(connection, tables).append(runs=[a_run("app:n")])
                assert (await sequence(connection, tables)).batches == 1
                assert (await advance(other, tables, folded_by="leaves")).reason == "another process folds"
        await sequence_and_fold(connection, tables)

        assert await total(connection, tables, "app:n") == [2] * 4


async def locked_days(connection: Connection, tables: Tables) -> set[str]:
    """The partitions of the log this session has locked."""
    cursor = await connection.execute(
        "SELECT DISTINCT c.relname FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
        " WHERE l.pid = pg_backend_pid() AND c.relkind = 'r' AND c.relname LIKE %s",
        [f"{tables.partition_stem}%"],
    )
    return {row[0] for row in await cursor.fetchall()}


async def test_no_statement_on_the_log_locks_another_day_than_its_own(connection: Connection, tables: Tables) -> None:
    today = datetime.now(UTC).date()
    batch, batch_id = encode((), [a_run()]), BatchId(today, uuid.uuid4(), 1)

    locked = []
    async with short_transaction(connection) as cursor:
        await append(cursor, tables, batch_id, batch, worker="w")
        locked.append(await locked_days(connection, tables))
    async with short_transaction(connection) as cursor:
        assert (await append(cursor, tables, batch_id, batch, worker="w")).state == "known"
        locked.append(await locked_days(connection, tables))
    async with connection.transaction():
        await sequence(connection, tables)
        locked.append(await locked_days(connection, tables))
    async with short_transaction(connection) as cursor:
        await read_batches(cursor, tables, [(1, batch_id)])
        locked.append(await locked_days(connection, tables))

    assert locked == [{tables.partition_name(today)}] * 4
