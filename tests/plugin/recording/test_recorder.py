"""What is in the buffer reaches the log once, whatever becomes of the database and of a COMMIT's answer."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import anyio
import psycopg
import pytest
from chancy import Worker
from psycopg import AsyncConnection, sql

from chancy_metrics.events.batch import BatchId
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.errors import InvalidObservation
from chancy_metrics.events.facts import Observation
from chancy_metrics.events.log import append
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.recording.recorder import Recorder
from chancy_metrics.plugin.worker import session
from examples.embedded import Server
from tests.factories import a_host, a_run, an_app, fetch, sequence_all
from tests.faults.proxy import Loss, a_proxy
from tests.faults.truth import Written, logged_counts, logged_values, read_log


def of(log: list[Written], recorder: Recorder) -> list[tuple[int, bool]]:
    return [(written.sequence, written.closes) for written in log if written.producer == recorder.producer]


async def test_a_producer_opens_with_an_empty_batch_and_ends_with_one_that_closes_it(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with a_host(dsn) as (worker, metrics):
        recorder = metrics._session(worker).recorder
        opened = await read_log(connection, tables)
        await metrics.increment_counter("app:x", 1)
        await recorder.append(worker.chancy)

    log = await read_log(connection, tables)
    assert [(written.sequence, written.batch.observations) for written in opened] == [(1, None)] * 2
    assert of(log, recorder) == [(1, False), (2, False), (3, True)]
    assert {written.worker for written in log} == {worker.worker_id}


@pytest.mark.parametrize("losses", [["answer"], ["commit"], ["answer", "answer"], ["commit", "answer", "commit"]])
async def test_a_batch_whose_commit_went_unanswered_is_in_the_log_once(
    losses: list[Loss], dsn: str, server: Server, connection: Connection, tables: Tables
) -> None:
    left = [*losses]
    async with a_proxy(server) as proxy, a_host(proxy.dsn(dsn)) as (worker, metrics):
        recorder = metrics._session(worker).recorder
        proxy.loses = lambda statements: left.pop(0) if left and b"metrics_append" in statements else ""

        for value in range(6):
            await metrics.increment_counter("app:x", value)
            await recorder.append(worker.chancy)

        assert proxy.lost == losses
    log = await read_log(connection, tables)
    assert logged_values(log, "app:x") == [0, 1, 2, 3, 4, 5]
    assert [sequence for sequence, _ in of(log, recorder)] == list(range(1, len(of(log, recorder)) + 1))


async def test_a_sequence_taken_by_other_content_makes_a_new_producer_and_loses_nothing(
    dsn: str, connection: Connection, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_host(dsn) as (worker, metrics):
        recorder = metrics._session(worker).recorder
        taken = BatchId(recorder._clock.today(), recorder.producer, 2)
        async with short_transaction(connection) as cursor:
            await append(cursor, tables, taken, encode((), [a_run("app:foreign")]), worker="another")
        await metrics.increment_counter("app:x", 7)

        first = await recorder.append(worker.chancy)
        second = await recorder.append(worker.chancy)

    log = await read_log(connection, tables)
    assert (first, second) == (False, True)
    assert logged_values(log, "app:x") == [7]
    assert logged_values(log, "app:foreign") == [1]
    assert recorder.producer != taken.producer
    assert f"batch 2 of producer {taken.producer}" in caplog.text


async def test_the_partition_that_is_missing_is_made_by_the_fold_and_nothing_waits_in_memory_for_it(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    days = [row[0] for row in await fetch(connection, "SELECT day FROM {days}", tables)]
    for day in days:
        await connection.execute(sql.SQL("DROP TABLE {}").format(tables.partition(day)))
    await fetch(connection, "TRUNCATE {days}", tables)

    async with a_host(dsn) as (worker, metrics):
        recorder = metrics._session(worker).recorder
        await metrics.increment_counter("app:x", 1)
        assert await recorder.append(worker.chancy)
    await sequence_all(connection, tables)

    log = await read_log(connection, tables)
    assert logged_values(log, "app:x") == [1]
    assert of(log, recorder) == [(1, False), (2, False), (3, True)]


async def test_an_outage_costs_nothing_that_was_recorded_before_or_in_it(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with a_host(dsn) as (worker, metrics):
        recorder = metrics._session(worker).recorder
        for table in ("log", "spill"):
            await connection.execute(f"ALTER TABLE chancy_metrics_{table} RENAME TO gone_{table}")
        await metrics.increment_counter("app:x", 1)
        assert not await recorder.append(worker.chancy)
        for value in range(2, 20_002):
            metrics.sync_increment_counter("app:x", value)
        assert not await recorder.append(worker.chancy)
        for table in ("log", "spill"):
            await connection.execute(f"ALTER TABLE gone_{table} RENAME TO chancy_metrics_{table}")

        assert await recorder.append(worker.chancy)

        log = await read_log(connection, tables)
        assert logged_values(log, "app:x") == list(range(1, 20_002))
        assert len(recorder.buffer) == 0


async def test_a_locked_log_holds_a_pool_of_one_for_no_longer_than_the_lock_wait(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with a_host(dsn, max_connection_pool_size=1) as (worker, metrics):
        recorder = metrics._session(worker).recorder
        await metrics.increment_counter("app:x", 1)
        async with connection.transaction():
            await fetch(connection, "LOCK TABLE {log} IN ACCESS EXCLUSIVE MODE", tables)
            with anyio.fail_after(5):
                assert await recorder.append(worker.chancy)
            assert len(recorder.buffer) == 0
    await sequence_all(connection, tables)

    assert logged_values(await read_log(connection, tables), "app:x") == [1]


async def test_what_was_dropped_and_rejected_is_in_the_next_header(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with a_host(dsn, Metrics(max_buffered_points=10)) as (_, metrics):
        for value in range(25):
            await metrics.increment_counter("app:x", value)
        await metrics.increment_counter("", 1)

    log = await read_log(connection, tables)
    assert logged_values(log, "app:x") == list(range(15, 25))
    assert logged_counts(log) == {"dropped": 15, "rejected:key": 1}


async def test_two_workers_of_one_process_have_ids_and_producers_of_their_own(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with an_app(dsn) as (chancy, metrics):
        workers = [Worker(chancy, worker_id=name, register_signal_handlers=False) for name in ("first", "second")]
        for worker in workers:
            await metrics.on_worker_started(worker=worker)
            await metrics.on_worker_started(worker=worker)

        await metrics.increment_counter("app:direct", 1)
        for worker in workers:
            await worker.increment_counter("app:hub", 1)
        await metrics.on_worker_stopped(worker=workers[0])
        await metrics.increment_counter("app:direct", 2)
        await metrics.on_worker_stopped(worker=workers[1])
        await metrics.on_worker_stopped(worker=workers[1])

    log = await read_log(connection, tables)
    by_worker = {name: [written for written in log if written.worker == name] for name in ("first", "second")}
    assert [logged_values(of, "app:direct") for of in by_worker.values()] == [[1], [2]]
    assert [logged_values(of, "app:hub") for of in by_worker.values()] == [[1], [1]]
    assert [len({written.producer for written in of}) for of in by_worker.values()] == [2, 2]
    assert [sum(written.closes for written in of) for of in by_worker.values()] == [2, 2]


async def test_a_block_records_in_a_process_without_a_worker_and_takes_what_came_before_it(
    dsn: str, connection: Connection, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    async with an_app(dsn) as (chancy, metrics):
        await metrics.increment_counter("app:x", 1)
        await metrics.increment_counter("app:x", 2)
        async with metrics.recording(chancy, worker_id="web-1"):
            await metrics.increment_counter("app:x", 3)

    log = await read_log(connection, tables)
    assert logged_values(log, "app:x") == [1, 2, 3]
    assert [written.sequence for written in log] == [1, 2, 3, 4]
    assert [written.closes for written in log] == [False, False, False, True]
    assert {written.worker for written in log} == {"web-1"}
    assert sum("nobody appends what is recorded in this process" in line for line in caplog.messages) == 1


async def test_an_application_records_with_its_own_transaction_or_not_at_all(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await connection.execute("CREATE TABLE orders (id int)")
    async with an_app(dsn) as (chancy, metrics), await AsyncConnection.connect(dsn) as own:
        for order, commits in ((1, True), (2, False)):
            async with own.transaction(force_rollback=not commits), own.cursor() as cursor:
                await cursor.execute("INSERT INTO orders VALUES (%s)", [order])
                await metrics.record_in_transaction(
                    chancy,
                    cursor,
                    Observation.counter("app:orders"),
                    Observation.histogram("app:total", order, unit="€"),
                )
        with psycopg.connect(dsn) as sync, sync.cursor() as sync_cursor:
            sync_cursor.execute("INSERT INTO orders VALUES (3)")
            metrics.sync_record_in_transaction(chancy, sync_cursor, Observation.counter("app:orders"))
            sync.commit()
            sync_cursor.execute("INSERT INTO orders VALUES (4)")
            metrics.sync_record_in_transaction(chancy, sync_cursor, Observation.counter("app:orders"))
            sync.rollback()

    log = await read_log(connection, tables)
    assert await fetch(connection, "SELECT id FROM orders ORDER BY id", tables) == [(1,), (3,)]
    assert logged_values(log, "app:orders") == [1, 1]
    assert logged_values(log, "app:total") == [1]
    assert all(written.closes and written.sequence == 1 for written in log)


async def test_recording_in_a_transaction_raises_on_what_is_wrong_and_writes_nothing(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with an_app(dsn) as (chancy, metrics), await AsyncConnection.connect(dsn) as own, own.cursor() as cursor:
        with pytest.raises(InvalidObservation, match="must be finite"):
            await metrics.record_in_transaction(
                chancy, cursor, Observation.counter("app:x"), Observation.gauge("app:y", float("nan"))
            )
        with pytest.raises(InvalidObservation, match="without an observation"):
            await metrics.record_in_transaction(chancy, cursor)
        await own.execute("SELECT 1")  # the transaction is as good as before
        await own.commit()

    assert await read_log(connection, tables) == []


async def test_twenty_five_thousand_observations_fit_in_one_transaction(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with an_app(dsn) as (chancy, metrics), await AsyncConnection.connect(dsn) as own, own.cursor() as cursor:
        await metrics.record_in_transaction(chancy, cursor, *(Observation.counter("app:x", n) for n in range(25_000)))
        await own.commit()

    assert sorted(logged_values(await read_log(connection, tables), "app:x")) == list(range(25_000))


async def test_a_forked_child_appends_only_its_own_under_producers_of_its_own(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    program = """
import asyncio, os, sys
from chancy import Chancy
from chancy_metrics.plugin import Metrics

metrics = Metrics()
metrics.sync_increment_counter("app:x", 1)

async def record(value):
    async with Chancy(sys.argv[1], plugins=[metrics]) as chancy, metrics.recording(chancy):
        await metrics.increment_counter("app:x", value)

child = os.fork()
asyncio.run(record(20 if child else 300))
if child:
    os.waitpid(child, 0)
"""
    await anyio.run_process([sys.executable, "-c", program, dsn], cwd=os.getcwd(), stderr=subprocess.DEVNULL)

    log = await read_log(connection, tables)
    by_producer = {written.producer: [] for written in log}
    for producer in by_producer:
        by_producer[producer] = logged_values([written for written in log if written.producer == producer], "app:x")
    assert sorted(by_producer.values()) == [[1, 20], [300]]


async def test_a_stopping_worker_outlives_a_database_that_is_away(
    dsn: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "STOP_S", 2.5)
    async with a_host(dsn) as (worker, metrics):
        await metrics.increment_counter("app:x", 1)
        worker.chancy.dsn = dsn.replace("test_", "nowhere_")
        started = time.monotonic()
        await metrics.on_worker_stopped(worker=worker)
        assert time.monotonic() - started < 10

    [error] = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert error.startswith(f"the last metrics of worker {worker.worker_id!r} are lost: 1 observation. They could not")
    assert "`status` shows it only later" in error


@pytest.mark.slow
async def test_a_pool_whose_connections_jobs_hold_does_not_keep_observations_from_the_log(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with a_host(dsn, max_connection_pool_size=1) as (worker, metrics):
        await metrics.increment_counter("app:x", 1)
        async with worker.chancy.pool.connection():
            assert await metrics._session(worker).recorder.append(worker.chancy)


async def test_what_is_recorded_by_the_first_statement_of_a_transaction_goes_with_it(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with an_app(dsn) as (chancy, metrics), await AsyncConnection.connect(dsn) as own, own.cursor() as cursor:
        await metrics.record_in_transaction(chancy, cursor, Observation.counter("app:orders"))
        await own.rollback()
        await own.set_autocommit(True)
        await metrics.record_in_transaction(chancy, cursor, Observation.counter("app:orders", 2))
    with psycopg.connect(dsn) as sync, sync.cursor() as sync_cursor:
        metrics.sync_record_in_transaction(chancy, sync_cursor, Observation.counter("app:orders", 3))
        sync.rollback()

    assert logged_values(await read_log(connection, tables), "app:orders") == [2]


async def test_an_application_records_on_a_day_without_a_partition_and_its_transaction_stays_whole(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await connection.execute("CREATE TABLE orders (id int)")
    async with an_app(dsn) as (chancy, metrics), await AsyncConnection.connect(dsn) as own:
        for recorded, what in enumerate(("async", "sync"), 1):
            for day in await fetch(connection, "SELECT day FROM {days}", tables):
                await connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(tables.partition(day[0])))
            if what == "async":
                async with own.cursor() as cursor:
                    await cursor.execute("INSERT INTO orders VALUES (1)")
                    await metrics.record_in_transaction(chancy, cursor, Observation.counter("app:orders"))
                    await own.commit()
            else:
                with psycopg.connect(dsn) as sync, sync.cursor() as sync_cursor:
                    sync_cursor.execute("INSERT INTO orders VALUES (2)")
                    metrics.sync_record_in_transaction(chancy, sync_cursor, Observation.counter("app:orders"))
            await metrics.flush(chancy)
            assert (await metrics.get_metrics(chancy))["app:orders"].values_1day[0][1] == recorded

    assert await fetch(connection, "SELECT id FROM orders ORDER BY id", tables) == [(1,), (2,)]
