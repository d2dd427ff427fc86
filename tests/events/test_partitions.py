"""The log's days are made ahead, beside open writers and dumps, without an append that waits."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, date, datetime, timedelta

import anyio
import psycopg
import pytest
from psycopg import sql

from chancy_metrics.events.batch import BatchId
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.log import append
from chancy_metrics.events.partitions import DAYS_AHEAD, DDL_LOCK_MS, attached_days, close_day, make_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from tests.factories import LogWriter, a_host, a_run, an_app, connections, fetch, sequence_all

FAR = date(2031, 5, 1)


async def days_of(connection: Connection, tables: Tables) -> list[date]:
    async with short_transaction(connection) as cursor:
        return await attached_days(cursor, tables)


async def append_on(connection: Connection, tables: Tables, day: date) -> None:
    async with short_transaction(connection) as cursor:
        await append(cursor, tables, BatchId(day, uuid.uuid4(), 1), encode((), [a_run()]), worker="w", closes=True)


async def test_migration_makes_today_and_the_weeks_ahead(connection: Connection, tables: Tables) -> None:
    today = datetime.now(UTC).date()

    days = await days_of(connection, tables)

    assert [today + timedelta(days=n) for n in range(DAYS_AHEAD)] == [day for day in days if day >= today][:DAYS_AHEAD]


async def test_days_are_made_once(connection: Connection, tables: Tables) -> None:
    first = await make_days(connection, tables, today=FAR, ahead=2)
    again = await make_days(connection, tables, today=FAR + timedelta(days=1), ahead=2)

    assert first == [FAR, FAR + timedelta(days=1), FAR + timedelta(days=2)]
    assert again == [FAR + timedelta(days=3)]
    assert [day for day in await days_of(connection, tables) if day >= FAR] == first + again


async def test_two_that_make_the_same_days_at_once_both_end_well(dsn: str, tables: Tables) -> None:
    made: list[date] = []

    async def make(connection: Connection) -> None:
        made.extend(await make_days(connection, tables, today=FAR, ahead=9))

    async with connections(dsn, 4) as several:
        async with anyio.create_task_group() as tasks:
            for connection in several:
                tasks.start_soon(make, connection)
        await make(several[0])

    assert sorted(made) == [FAR + timedelta(days=n) for n in range(10)]


async def test_a_day_that_can_not_have_its_lock_is_left_for_the_next_call(dsn: str, tables: Tables) -> None:
    async with connections(dsn, 2) as (holder, maker):
        async with holder.transaction():
            await fetch(holder, "LOCK TABLE {log} IN SHARE UPDATE EXCLUSIVE MODE", tables)  # as VACUUM does
            started = time.monotonic()
            during = await make_days(maker, tables, today=FAR, ahead=1)
            waited = time.monotonic() - started

        assert during == []
        assert waited < 1 + DDL_LOCK_MS / 1000
        assert await make_days(maker, tables, today=FAR, ahead=1) == [FAR, FAR + timedelta(days=1)]


@pytest.mark.parametrize("change", ["UPDATE {} SET worker = 'x'", "DELETE FROM {}", "TRUNCATE {}"])
async def test_nothing_in_a_partition_can_be_changed(connection: Connection, tables: Tables, change: str) -> None:
    batch_id = await LogWriter(connection, tables).append(runs=[a_run()])

    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="append-only"):
        await connection.execute(sql.SQL(change).format(tables.partition(batch_id.day)))


async def test_partitions_store_payloads_uncompressed_as_the_log_says(connection: Connection, tables: Tables) -> None:
    await make_days(connection, tables, today=FAR, ahead=0)

    cursor = await connection.execute(
        "SELECT DISTINCT attstorage FROM pg_attribute WHERE attrelid::regclass::text = %s AND attname = 'payload'",
        [tables.partition_name(FAR)],
    )

    assert await cursor.fetchall() == [("e",)]


async def test_midnight_divides_two_days(connection: Connection, tables: Tables) -> None:
    """The day is what the batch says, whatever zone the session has."""
    today = datetime.now(UTC).date()
    await append_on(connection, tables, today)
    await append_on(connection, tables, today + timedelta(days=1))

    rows = await fetch(connection, "SELECT tableoid::regclass::text FROM {log} ORDER BY day", tables)
    assert [row[0] for row in rows] == [tables.partition_name(today + timedelta(days=n)) for n in range(2)]
    await sequence_all(connection, tables)
    assert await fetch(connection, "SELECT count(*) FROM {ledger}", tables) == [(2,)]


async def test_a_partition_dropped_by_force_is_missed_and_made_again(connection: Connection, tables: Tables) -> None:
    today = datetime.now(UTC).date()
    await connection.execute(sql.SQL("DROP TABLE {}").format(tables.partition(today)))

    assert today not in await days_of(connection, tables)
    assert await make_days(connection, tables, today=today, ahead=3) == [today]
    await append_on(connection, tables, today)


async def test_a_day_that_was_closed_is_never_made_again(connection: Connection, tables: Tables) -> None:
    await fetch(connection, "INSERT INTO {days} VALUES (%(day)s, 'gone', now())", tables, day=FAR)

    assert await make_days(connection, tables, today=FAR, ahead=1) == [FAR + timedelta(days=1)]
    assert FAR not in await days_of(connection, tables)


async def test_a_worker_that_finds_no_partition_makes_it_and_loses_nothing(dsn: str, tables: Tables) -> None:
    async with connections(dsn, 1) as (connection,):
        async with a_host(dsn, Metrics(sync_interval=1)) as (worker, metrics):
            for day in await days_of(connection, tables):
                await connection.execute(sql.SQL("DROP TABLE {}").format(tables.partition(day)))
            await metrics.increment_counter("app:n", 3)

            await metrics.flush(worker.chancy)  # finds that there is none, and makes it
            await metrics.flush(worker.chancy)

            found = await metrics.get_metrics(worker.chancy, "app")
        assert found["app:n"].values_1day[0][1] == 3.0


async def test_down_drops_a_partition_that_is_on_its_way_out_too(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await make_days(connection, tables, today=FAR, ahead=0)
    assert await close_day(connection, tables, FAR) is None
    await fetch(connection, "UPDATE {days} SET state = 'absorbed' WHERE day = %(day)s", tables, day=FAR)
    await connection.execute(sql.SQL("ALTER TABLE {} DETACH PARTITION {}").format(tables.log, tables.partition(FAR)))

    async with an_app(dsn) as (chancy, metrics):
        await metrics.migrate(chancy, to_version=0)

    cursor = await connection.execute("SELECT relname FROM pg_class WHERE relname LIKE 'chancy_metrics%'")
    assert await cursor.fetchall() == []
