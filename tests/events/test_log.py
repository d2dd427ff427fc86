"""The log takes each batch once, whatever becomes of a COMMIT's answer, and never changes what it has."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import anyio
import psycopg
import pytest
from psycopg import AsyncConnection, sql

from chancy_metrics.events.batch import BatchId
from chancy_metrics.events.codec import MAX_PAYLOAD_BYTES, encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.log import append, append_in_transaction, read_batches, sync_append_in_transaction
from chancy_metrics.events.schema import Tables
from tests.factories import LogWriter, a_row, a_run, connections, fetch


async def waits(connection: Connection, process: int) -> bool:
    """Whether the backend *process* waits for a lock."""
    cursor = await connection.execute(
        "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", [process]
    )
    return await cursor.fetchone() is not None


async def test_a_batch_and_its_pending_row_are_one_and_have_every_column(
    connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables, "worker-1")
    batch = encode([a_row(at_us=1_000_000)], [a_run(values=[1.0, 2.0], at_us=2_000_000)], {"dropped": 3})

    batch_id = await writer.append(batch=batch)

    assert await fetch(connection, "SELECT day, producer, sequence FROM {pending}", tables) == [tuple(batch_id)]
    columns = "day, producer, sequence, worker, first_us, last_us, events, closes, codec, payload, sha256"
    [row] = await fetch(connection, f"SELECT {columns} FROM {{log}}", tables)
    assert row == (*batch_id, "worker-1", 1_000_000, 2_000_000, 3, False, 1, batch.payload, batch.sha256)


async def test_a_second_append_of_the_same_batch_writes_nothing(connection: Connection, tables: Tables) -> None:
    batch_id, batch = BatchId(datetime.now(UTC).date(), uuid.uuid4(), 1), encode((), [a_run()])
    async with short_transaction(connection) as cursor:
        first = await append(cursor, tables, batch_id, batch, worker="w")

    async with short_transaction(connection) as cursor:
        second = await append(cursor, tables, batch_id, batch, worker="w")

    assert first == ("appended", first.now, None) and abs((datetime.now(UTC) - first.now).total_seconds()) < 60
    assert second == ("known", second.now, None)
    assert await fetch(connection, "SELECT count(*) FROM {log}", tables) == [(1,)]
    assert await fetch(connection, "SELECT count(*) FROM {pending}", tables) == [(1,)]


@pytest.mark.parametrize(("ends", "taken"), [("commit", True), ("rollback", False)])
async def test_a_conflicting_append_answers_only_when_the_first_transaction_has_ended(
    dsn: str, tables: Tables, ends: str, taken: bool
) -> None:
    batch_id, batch = BatchId(datetime.now(UTC).date(), uuid.uuid4(), 1), encode((), [a_run()])
    answers = []
    async with connections(dsn, 3) as (first, second, watcher), anyio.create_task_group() as tasks:
        await first.set_autocommit(False)
        await append(first.cursor(), tables, batch_id, batch, worker="w")

        async def again() -> None:
            async with short_transaction(second) as cursor:
                answers.append(await append(cursor, tables, batch_id, batch, worker="w"))

        tasks.start_soon(again)
        with anyio.fail_after(10):
            while not await waits(watcher, second.info.backend_pid):
                await anyio.lowlevel.checkpoint()
        assert answers == []
        await getattr(first, ends)()

    assert [answer.state for answer in answers] == ["known" if taken else "appended"]
    async with connections(dsn, 1) as (connection,):
        assert await fetch(connection, "SELECT count(*) FROM {log}", tables) == [(1,)]


async def test_another_batch_under_a_taken_id_is_refused_and_never_dropped(
    connection: Connection, tables: Tables
) -> None:
    batch_id = await LogWriter(connection, tables).append(runs=[a_run()])
    other = encode((), [a_run(values=[2.0])])

    async with short_transaction(connection) as cursor:
        assert (await append(cursor, tables, batch_id, other, worker="w")).state == "taken"
        assert (await append(cursor, tables, batch_id, other, worker="w", earlier=b"some")).state == "taken"


async def test_what_is_appended_in_a_transaction_is_there_if_and_only_if_it_commits(dsn: str, tables: Tables) -> None:
    producers = [uuid.uuid4() for _ in range(4)]
    async with await AsyncConnection.connect(dsn) as mine:
        await append_in_transaction(mine.cursor(), tables, producers[0], encode((), [a_run()]), worker="w")
        await mine.commit()
        await append_in_transaction(mine.cursor(), tables, producers[1], encode((), [a_run()]), worker="w")
        await mine.rollback()
    with psycopg.connect(dsn) as ours:
        sync_append_in_transaction(ours.cursor(), tables, producers[2], encode((), [a_run()]), worker="w")
        ours.commit()
        sync_append_in_transaction(ours.cursor(), tables, producers[3], encode((), [a_run()]), worker="w")
        ours.rollback()

    async with connections(dsn, 1) as (connection,):
        rows = await fetch(connection, "SELECT producer, sequence, closes FROM {log}", tables)
    assert sorted(rows) == sorted([(producers[0], 1, True), (producers[2], 1, True)])


@pytest.mark.parametrize("setting", ["bytea_output = escape", "DateStyle = 'German'", "TimeZone = 'Pacific/Apia'"])
async def test_session_settings_change_nothing_that_is_read_back(
    connection: Connection, tables: Tables, setting: str
) -> None:
    batch = encode([a_row()])
    batch_id = await LogWriter(connection, tables).append(batch=batch)
    await connection.execute(sql.SQL("SET {}").format(sql.SQL(setting)))

    async with short_transaction(connection) as cursor:
        [row] = await read_batches(cursor, tables, [(7, batch_id)])

    assert (row.position, row.events, row.payload, row.sha256) == (7, 1, batch.payload, batch.sha256)
    assert abs(datetime.now(UTC).timestamp() - row.appended_us / 1e6) < 60


async def test_batches_are_read_in_the_order_asked_for_and_missing_ones_left_out(
    connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    one, two = await writer.append(runs=[a_run()]), await writer.append(runs=[a_run(values=[2.0, 3.0])])

    async with short_transaction(connection) as cursor:
        rows = await read_batches(cursor, tables, [(2, one), (3, writer.next_id()), (1, two)])

    assert [(row.position, row.sequence, row.events) for row in rows] == [(1, 2, 2), (2, 1, 1)]


@pytest.mark.parametrize("change", ["UPDATE {log} SET worker = 'x'", "DELETE FROM {log}", "TRUNCATE {log}"])
async def test_nothing_in_the_log_can_be_changed(connection: Connection, tables: Tables, change: str) -> None:
    await LogWriter(connection, tables).append(runs=[a_run()])

    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="append-only"):
        await fetch(connection, change, tables)


async def test_transactions_of_ours_have_their_own_isolation_and_timeouts(dsn: str) -> None:
    hostile = "-c default_transaction_isolation=serializable -c idle_in_transaction_session_timeout=0"
    async with await AsyncConnection.connect(dsn, autocommit=True, options=hostile) as connection:
        async with short_transaction(connection) as cursor:
            await cursor.execute(
                "SELECT current_setting('transaction_isolation'),"
                " current_setting('idle_in_transaction_session_timeout')"
            )
            inside = await cursor.fetchone()
        cursor = await connection.execute("SELECT current_setting('idle_in_transaction_session_timeout')")

        assert inside == ("read committed", "5s")
        assert await cursor.fetchone() == ("0",)


async def test_no_table_takes_a_batch_that_no_recorder_makes(connection: Connection, tables: Tables) -> None:
    columns = await fetch(
        connection,
        "SELECT pg_get_constraintdef(c.oid)"
        " FROM pg_attribute a JOIN pg_constraint c ON c.contypid = a.atttypid WHERE a.attname = 'payload'"
        " AND a.attrelid IN ('chancy_metrics_log'::regclass, 'chancy_metrics_spill'::regclass)",
        tables,
    )

    assert sum(f"octet_length(VALUE) <= {MAX_PAYLOAD_BYTES}" in text for (text,) in columns) == 2
    with pytest.raises(ValueError, match="too large"):
        encode([a_row(meta=b"x" * MAX_PAYLOAD_BYTES)])
