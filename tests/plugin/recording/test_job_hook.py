"""A job update and its event are one: saved together, lost together, and our failures are never the job's."""

from __future__ import annotations

import gc
import time
import weakref
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any, LiteralString

import anyio
import psycopg
import pytest
from chancy import Chancy, Queue, QueuedJob, Worker
from chancy.plugin import Plugin
from psycopg import AsyncConnection, AsyncCursor, AsyncPipeline, sql

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.audit.events import job_life
from tests.factories import a_host, a_job, an_app, claimed, fetch, sequence_all, sequence_and_fold
from tests.faults import jobs as examples
from tests.faults.truth import Update, logged_counts, logged_updates, logged_values, read_log

State = QueuedJob.State


def updates(*jobs: QueuedJob) -> Counter[Update]:
    return Counter(Update(job.id, job.attempts, job.state.value) for job in jobs)


async def flush(worker: Worker, *jobs: QueuedJob) -> None:
    for job in jobs:
        await worker.queue_update(job)
    await worker.flush()


async def saved(connection: Connection) -> set[Any]:
    cursor = await connection.execute("SELECT id FROM chancy_jobs WHERE state <> 'running'")
    return {row[0] for row in await cursor.fetchall()}


class Observer(Plugin):
    """Looks at the transaction after our hook, and spoils it if told to."""

    def __init__(self) -> None:
        super().__init__()
        self.lock_timeouts: list[str] = []
        self.spoil = False

    @staticmethod
    def get_identifier() -> str:
        return "observer"

    async def on_jobs_updated_in_transaction(
        self, *, worker: Worker, jobs: Sequence[QueuedJob], cursor: AsyncCursor[Any]
    ) -> None:
        await cursor.execute("SHOW lock_timeout")
        row = await cursor.fetchone()
        self.lock_timeouts.append(row["lock_timeout"])
        if self.spoil:
            self.spoil = False
            raise psycopg.OperationalError("on purpose")


async def test_an_update_is_in_the_log_when_its_transaction_commits_and_not_before(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    observer = Observer()
    async with a_host(dsn, plugins=[observer]) as (worker, _):
        jobs = await claimed(connection, *(a_job() for _ in range(3)))
        observer.spoil = True
        with pytest.raises(psycopg.OperationalError):
            await flush(worker, *jobs)
        assert logged_updates(await read_log(connection, tables)) == Counter()
        assert await saved(connection) == set()

        await worker.flush()

        assert logged_updates(await read_log(connection, tables)) == updates(*jobs)
        assert await saved(connection) == {job.id for job in jobs}
    assert logged_counts(await read_log(connection, tables)) == Counter()


async def test_an_update_the_host_refuses_is_not_recorded(dsn: str, connection: Connection, tables: Tables) -> None:
    async with a_host(dsn) as (worker, _):
        (job,) = await claimed(connection, a_job())

        await flush(worker, a_job(), job, a_job())

    assert logged_updates(await read_log(connection, tables)) == updates(job)


async def test_the_same_object_twice_in_a_batch_is_two_updates(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with a_host(dsn) as (worker, _):
        (job,) = await claimed(connection, a_job())

        await flush(worker, job, job)
        await flush(worker, job)

    log = await read_log(connection, tables)
    assert logged_updates(log) == Counter({Update(job.id, 1, "succeeded"): 3})
    assert logged_counts(log) == Counter()


async def test_more_updates_than_one_transaction_takes_are_recorded_with_theirs(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with a_host(dsn) as (worker, _):
        jobs = await claimed(connection, *(a_job() for _ in range(2_100)))

        await flush(worker, *jobs)

    log = await read_log(connection, tables)
    assert logged_updates(log) == updates(*jobs)
    assert sorted(len(written.batch.jobs.ids) // 16 for written in log if written.batch.jobs) == [100, 1000, 1000]


async def test_a_job_the_host_did_not_hand_over_in_a_transaction_is_recorded_when_it_was_updated(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with a_host(dsn) as (worker, metrics):
        job = a_job()
        await metrics.on_job_updated(worker=worker, job=job)

    log = await read_log(connection, tables)
    assert logged_updates(log) == updates(job)
    assert logged_counts(log) == {"buffered": 1}


async def test_a_broken_log_saves_the_jobs_and_their_updates_with_them(
    dsn: str, connection: Connection, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_host(dsn) as (worker, metrics):
        jobs = await claimed(connection, *(a_job() for _ in range(9)))
        await fetch(connection, "ALTER TABLE {log} RENAME TO gone", tables)
        await flush(worker, *jobs[:3])
        spilled = await fetch(connection, "SELECT events FROM {spill}", tables)
        await fetch(connection, "ALTER TABLE {spill} RENAME TO gone_too", tables)
        await metrics.increment_counter("app:n", 1)
        await flush(worker, *jobs[3:7])
        await flush(worker, *jobs[7:8])
        assert await saved(connection) == {job.id for job in jobs[:8]}
        await fetch(connection, "ALTER TABLE gone RENAME TO chancy_metrics_log", tables)
        await fetch(connection, "ALTER TABLE gone_too RENAME TO chancy_metrics_spill", tables)

        await flush(worker, jobs[8])
    await sequence_all(connection, tables)

    log = await read_log(connection, tables)
    assert spilled == [(3,)]
    assert logged_updates(log) == updates(*jobs)
    assert logged_counts(log) == {"buffered": 5}
    assert sum("they are in the spill table" in message for message in caplog.messages) == 1
    [said] = [message for message in caplog.messages if "wait in memory" in message]
    assert "neither the log nor the spill table took 4 job updates" in said
    assert "they wait in memory beside 1 observation;" in said


async def test_a_locked_log_costs_one_lock_timeout_and_then_ever_shorter_looks_and_no_update(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    observer = Observer()
    async with a_host(dsn, Metrics(lock_timeout=0.2), plugins=[observer]) as (worker, metrics):
        hook = metrics._session(worker).hook
        jobs = await claimed(connection, *(a_job() for _ in range(41)))
        waits_ms = []
        async with connection.transaction():
            await fetch(connection, "LOCK TABLE {log} IN ACCESS EXCLUSIVE MODE", tables)
            started = time.monotonic()
            await flush(worker, jobs[0])
            first_s = time.monotonic() - started
            with anyio.fail_after(0.2 * 20):  # half of what it took if each waited
                for job in jobs[1:40]:
                    waits_ms.append(hook._lock_wait_ms)
                    await flush(worker, job)
        await flush(worker, jobs[40])

        assert first_s >= 0.2
        assert waits_ms[:5] == [8, 4, 2, 1, 1]
        assert hook._lock_wait_ms == 200
        assert observer.lock_timeouts == ["0"] * 41
        # As if this process were killed now: all of them are in the database.
        assert await fetch(connection, "SELECT count(*), sum(events) FROM {spill}", tables) == [(40, 40)]
    await sequence_all(connection, tables)

    log = await read_log(connection, tables)
    assert logged_updates(log) == updates(*jobs)
    assert logged_counts(log) == Counter()


@pytest.mark.parametrize("pipelines", [True, False], ids=["in one trip", "with an old libpq"])
async def test_the_lock_timeout_a_transaction_came_with_is_put_back(
    dsn: str, connection: Connection, tables: Tables, pipelines: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AsyncPipeline, "is_supported", lambda: pipelines)
    observer = Observer()
    await connection.execute("ALTER ROLE postgres SET lock_timeout = '1234ms'")
    try:
        async with a_host(dsn, plugins=[observer]) as (worker, _):
            for broken in (False, True):
                if broken:
                    await fetch(connection, "ALTER TABLE {pending} RENAME TO gone", tables)
                await flush(worker, *await claimed(connection, a_job()))
            await fetch(connection, "ALTER TABLE gone RENAME TO chancy_metrics_pending", tables)
    finally:
        await connection.execute("ALTER ROLE postgres RESET lock_timeout")

    assert observer.lock_timeouts == ["1234ms"] * 2
    assert await fetch(connection, "SELECT count(*) FROM {spill}", tables) == [(1,)]


async def test_the_lock_timeout_is_put_back_also_where_all_was_in_the_log_already(dsn: str, tables: Tables) -> None:
    found = []
    async with a_host(dsn) as (worker, metrics), await AsyncConnection.connect(dsn) as other, other.cursor() as cursor:
        await other.set_autocommit(True)
        await cursor.execute("SET lock_timeout = '1234ms'")
        jobs = [a_job()]
        for _ in range(2):  # the host was not told that the first one had committed
            async with other.transaction():
                await metrics.on_jobs_updated_in_transaction(worker=worker, jobs=jobs, cursor=cursor)
                await cursor.execute("SHOW lock_timeout")
                found.append(await cursor.fetchone())
        batches = await fetch(other, "SELECT sum(events) FROM {log}", tables)

    assert found == [("1234ms",)] * 2
    assert batches == [(1,)]


async def test_the_second_batch_of_an_attempt_that_had_committed_waits_no_longer_for_a_lock_either(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    async with a_host(dsn) as (worker, metrics), await AsyncConnection.connect(dsn) as other, other.cursor() as cursor:
        jobs = [a_job(), a_job()]
        await metrics.on_jobs_updated_in_transaction(worker=worker, jobs=jobs[:1], cursor=cursor)
        await other.commit()  # which the host is not told
        metrics._session(worker).hook._clock.see(tomorrow)
        async with connection.transaction():
            await connection.execute(sql.SQL("LOCK TABLE {}").format(tables.partition(tomorrow.date())))
            with anyio.fail_after(20):
                await metrics.on_jobs_updated_in_transaction(worker=worker, jobs=jobs, cursor=cursor)
            await other.commit()
        for job in jobs:
            await metrics.on_job_updated(worker=worker, job=job)
    await sequence_all(connection, tables)

    log = await read_log(connection, tables)
    assert logged_updates(log) == updates(*jobs)
    assert logged_counts(log) == Counter()


@pytest.mark.parametrize("before", ["SELECT 1", "SAVEPOINT metrics_log"], ids=["first", "after a savepoint of ours"])
async def test_a_transaction_that_is_lost_already_is_tried_again_by_the_host(
    dsn: str, connection: Connection, tables: Tables, before: LiteralString
) -> None:
    async with a_host(dsn) as (worker, metrics), await AsyncConnection.connect(dsn) as other, other.cursor() as cursor:
        job = a_job()
        await cursor.execute(before)
        with pytest.raises(psycopg.errors.UndefinedTable):
            await cursor.execute("SELECT 1 FROM nothing")
        with pytest.raises(psycopg.OperationalError, match="is lost"):
            await metrics.on_jobs_updated_in_transaction(worker=worker, jobs=[job], cursor=cursor)
        await other.rollback()

    assert logged_updates(await read_log(connection, tables)) == Counter()


@pytest.mark.parametrize("pipelines", [True, False], ids=["in one trip", "with an old libpq"])
async def test_a_missing_function_costs_the_jobs_transaction_nothing(
    dsn: str, connection: Connection, tables: Tables, pipelines: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AsyncPipeline, "is_supported", lambda: pipelines)
    async with a_host(dsn) as (worker, _):
        jobs = await claimed(connection, *(a_job() for _ in range(12)))
        for job in jobs[:10]:  # until it is prepared
            await flush(worker, job)
        await fetch(connection, "ALTER FUNCTION {append} RENAME TO gone", tables)
        await flush(worker, jobs[10])
        await fetch(connection, "ALTER FUNCTION gone RENAME TO chancy_metrics_append", tables)
        await flush(worker, jobs[11])

        assert await saved(connection) == {job.id for job in jobs}
    log = await read_log(connection, tables)
    assert logged_updates(log) == updates(*jobs)
    assert logged_counts(log) == {"buffered": 1}


async def test_a_job_that_can_t_be_encoded_is_saved_and_only_its_update_is_rejected(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with a_host(dsn) as (worker, metrics), await AsyncConnection.connect(dsn) as other, other.cursor() as cursor:
        good, bad = a_job(), a_job(func="app.\x00")
        await cursor.execute("CREATE TEMPORARY TABLE job AS SELECT 1")
        await metrics.on_jobs_updated_in_transaction(worker=worker, jobs=[good, bad], cursor=cursor)
        await other.commit()
        for job in (good, bad):
            await metrics.on_job_updated(worker=worker, job=job)
        await cursor.execute("SELECT count(*) FROM job")
        assert await cursor.fetchone() == (1,)

    log = await read_log(connection, tables)
    assert logged_updates(log) == updates(good)
    assert logged_counts(log) == {"buffered": 1, "rejected:job": 1}


async def test_workers_of_a_serializable_database_record_beside_each_other(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await connection.execute("ALTER ROLE postgres SET default_transaction_isolation = 'serializable'")
    try:
        async with a_host(dsn) as (first, _), a_host(dsn) as (second, _):
            jobs = await claimed(connection, *(a_job() for _ in range(100)))

            async def work(worker: Worker, mine: Sequence[QueuedJob]) -> None:
                for i in range(0, len(mine), 5):
                    for job in mine[i : i + 5]:
                        await worker.queue_update(job)
                    while worker._pending_updates or not worker.outgoing.empty():
                        with suppress(psycopg.errors.SerializationFailure):  # the host's own UPDATEs have them, too
                            await worker.flush()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(work, first, jobs[::2])
                tasks.start_soon(work, second, jobs[1::2])
    finally:
        await connection.execute("ALTER ROLE postgres RESET default_transaction_isolation")

    log = await read_log(connection, tables)
    assert logged_updates(log) == updates(*jobs)
    assert logged_counts(log) == Counter()


async def test_a_wrong_clock_of_the_host_costs_one_batch_its_way_through_the_spill_table(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with a_host(dsn) as (worker, metrics):
        hook = metrics._session(worker).hook
        hook._clock.see(datetime.fromisoformat("2099-01-01T00:00:00+00:00"))
        jobs = await claimed(connection, *(a_job() for _ in range(2)))
        for job in jobs:
            await flush(worker, job)
        assert await fetch(connection, "SELECT day FROM {spill}", tables) == [(date(2099, 1, 1),)]
    await sequence_all(connection, tables)

    log = await read_log(connection, tables)
    assert logged_updates(log) == updates(*jobs)
    assert {day.year for (day,) in await fetch(connection, "SELECT DISTINCT day FROM {log}", tables)} < {2099, 2026}


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("ordered", [True, False])
async def test_an_unconfirmed_batch_whose_day_is_gone_is_looked_up_wherever_it_went(
    committed: bool, ordered: bool, dsn: str, connection: Connection, tables: Tables
) -> None:
    async with a_host(dsn) as (worker, metrics), await AsyncConnection.connect(dsn) as host:
        hook = metrics._session(worker).hook
        first, second, third = await claimed(connection, *(a_job() for _ in range(3)))
        today = datetime.now(UTC)
        hook._clock.see(today + timedelta(days=2))
        async with host.transaction(force_rollback=not committed), host.cursor() as cursor:
            await hook.record(cursor, "chancy_", [first])
        if ordered:
            await sequence_all(connection, tables)
        hook._clock.see(today)
        gone = tables.partition((today + timedelta(days=2)).date())
        await connection.execute(sql.SQL("DROP TABLE {}").format(gone))

        await flush(worker, first, second)
        await flush(worker, third)
    await sequence_all(connection, tables)

    log = await read_log(connection, tables)
    assert logged_updates(log) == updates(*([] if committed and ordered else [first]), second, third)
    assert logged_counts(log) == Counter()


async def test_a_job_that_is_never_announced_is_not_remembered_for_ever(dsn: str, connection: Connection) -> None:
    async with a_host(dsn) as (worker, metrics), await AsyncConnection.connect(dsn) as host, host.cursor() as cursor:
        hook = metrics._session(worker).hook
        (job,) = await claimed(connection, a_job())
        await hook.record(cursor, "chancy_", [job])
        await host.commit()
        kept = weakref.ref(job)
        del job

        for _ in range(2):
            await flush(worker, *await claimed(connection, a_job()))

        gc.collect()
        assert kept() is None


async def test_threads_record_for_their_worker_and_child_processes_loudly_or_in_a_transaction(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with Chancy(dsn, plugins=[examples.metrics]) as chancy:
        await chancy.declare(Queue("threads", executor=Chancy.Executor.Threaded))
        await chancy.declare(Queue("processes", executor=Chancy.Executor.Process))
        async with Worker(chancy, register_signal_handlers=False) as worker:
            worker.send_outgoing_interval = 0.05
            refs = [
                await chancy.push(job)
                for job in (
                    examples.record_in_thread.job,
                    examples.record_in_process.job,
                    examples.record_in_transaction_of_process.job.with_kwargs(dsn=dsn),
                )
            ]
            with anyio.fail_after(60):
                thread, refused, recorded = [await chancy.wait_for_job(ref, interval=0.1) for ref in refs]

    assert (thread.state, refused.state, recorded.state) == (State.SUCCEEDED, State.FAILED, State.SUCCEEDED)
    assert "NotRecording: this is a child process" in refused.errors[0]["traceback"]
    log = await read_log(connection, tables)
    assert logged_values(log, "app:thread") == [1]
    assert logged_values(log, "app:process") == [1]


@pytest.mark.parametrize(
    ("options", "kept"), [({}, "ValueError"), ({"error_messages": True}, "ValueError: no such card")]
)
async def test_a_worker_keeps_what_an_error_says_only_where_it_was_asked_to(
    options: dict[str, bool], kept: str, dsn: str, connection: Connection, tables: Tables
) -> None:
    text = "Traceback (most recent call last):\n  File x\nValueError: no such card\n"
    failed = a_job(state=QueuedJob.State.FAILED, errors=[{"attempt": 0, "traceback": text}])

    async with a_host(dsn, Metrics(sync_interval=1, **options)) as (worker, _metrics):
        await flush(worker, *await claimed(connection, failed))
    await sequence_and_fold(connection, tables)

    async with an_app(dsn) as (chancy, _):
        life = await job_life(chancy, failed.id)
    assert [update.error for update in life.updates] == [kept]
