"""The log breaks, or is locked, under a running worker: the same jobs, in the same order, none of them twice."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from chancy import Chancy, Queue, Worker
from chancy.plugins.leadership import ImmediateLeadership
from psycopg import AsyncConnection

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics, completeness, read_status
from tests.factories import an_app, eventually, fetch, sequence_all
from tests.faults import jobs as examples
from tests.faults.truth import Update, logged_counts, logged_updates, logged_values, read_log

LOCK_TIMEOUT_S = 0.1
#: What a flush of a few jobs may take on a busy machine, beside the wait for the lock.
SLACK_S = 1.5


class TimedWorker(Worker):
    """Keeps how long each flush took."""

    flushes_s: list[float]

    async def flush(self) -> None:
        started = time.monotonic()
        await super().flush()
        self.flushes_s.append(time.monotonic() - started)


BREAK = {
    "locked": "BEGIN; LOCK TABLE {log} IN ACCESS EXCLUSIVE MODE",
    "renamed": "ALTER TABLE {log} RENAME TO gone",
    "without its pending table": "ALTER TABLE {pending} RENAME TO gone",
    "refusing": "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
    " CREATE TRIGGER refuse BEFORE INSERT ON {pending} FOR EACH ROW EXECUTE FUNCTION refuse()",
    "dropped": "DROP TABLE {log} CASCADE",
}
MEND = {
    "locked": "COMMIT",
    "renamed": "ALTER TABLE gone RENAME TO chancy_metrics_log",
    "without its pending table": "ALTER TABLE gone RENAME TO chancy_metrics_pending",
    "refusing": "DROP TRIGGER refuse ON {pending}",
}


@asynccontextmanager
async def a_running_worker(dsn: str, **options: Any) -> AsyncIterator[TimedWorker]:
    """A worker that does one job after the other, and saves each at once."""
    metrics = Metrics(sync_interval=1, lock_timeout=LOCK_TIMEOUT_S, append_interval=0.05)
    async with an_app(dsn, metrics, plugins=[ImmediateLeadership()], **options) as (chancy, _):
        await chancy.declare(Queue("order", executor=Chancy.Executor.Async, concurrency=1, polling_interval=1))
        worker = TimedWorker(chancy, register_signal_handlers=False)
        worker.flushes_s = []
        worker.send_outgoing_interval = 0.01
        examples.done.clear()
        async with worker:
            yield worker


async def run_jobs(worker: Worker, connection: Connection, numbers: range) -> None:
    """Push jobs, and wait until they were run and saved."""
    for number in numbers:
        await worker.chancy.push(examples.note.job.with_kwargs(number=number))
    await eventually(lambda: saved(connection, number + 1))


async def saved(connection: Connection, how_many: int) -> bool:
    cursor = await connection.execute("SELECT count(*) FROM chancy_jobs WHERE state = 'succeeded'")
    return await cursor.fetchone() == (how_many,)


async def updates_saved(connection: Connection) -> Counter[Update]:
    cursor = await connection.execute("SELECT id, attempts, state FROM chancy_jobs")
    return Counter([Update(*row) for row in await cursor.fetchall()])


@pytest.mark.parametrize("trouble", BREAK)
async def test_jobs_run_as_if_nothing_had_happened_to_the_log(
    trouble: str, dsn: str, connection: Connection, tables: Tables
) -> None:
    async with a_running_worker(dsn) as worker, await AsyncConnection.connect(dsn, autocommit=True) as breaker:
        await run_jobs(worker, connection, range(3))
        await fetch(breaker, BREAK[trouble], tables)
        worker.flushes_s.clear()

        await run_jobs(worker, connection, range(3, 10))

        assert examples.done == list(range(10))
        assert set(await updates_saved(connection)) == {
            Update(update.job_id, 1, "succeeded") for update in await updates_saved(connection)
        }
        assert max(worker.flushes_s) < LOCK_TIMEOUT_S + SLACK_S
        if trouble in MEND:
            await fetch(breaker, MEND[trouble], tables)
        await run_jobs(worker, connection, range(10, 12))
        assert examples.done == list(range(12))

    if trouble in MEND:
        await sequence_all(connection, tables)
        log = await read_log(connection, tables)
        assert logged_updates(log) == await updates_saved(connection)
        assert logged_counts(log) == Counter()


FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON {pending} FOR EACH ROW EXECUTE FUNCTION full_disk();
CREATE TRIGGER full_disk BEFORE INSERT ON {spill} FOR EACH ROW EXECUTE FUNCTION full_disk();
"""


async def test_a_full_disk_costs_neither_an_update_nor_an_observation(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with a_running_worker(dsn) as worker:
        await fetch(connection, FULL, tables)
        await run_jobs(worker, connection, range(5))
        await worker.increment_counter("app:x", 1)

        async def held() -> bool:
            return (await completeness(worker.chancy)).in_memory == {"observations": 1, "job_updates": 5}

        await eventually(held)
        status = await read_status(worker.chancy)
        await fetch(connection, "DROP FUNCTION full_disk CASCADE", tables)
        await run_jobs(worker, connection, range(5, 7))

    await sequence_all(connection, tables)
    log = await read_log(connection, tables)
    assert [reason for reason in status.unhealthy if "held in memory" in reason]
    assert logged_updates(log) == await updates_saved(connection)
    assert (logged_values(log, "app:x"), logged_counts(log)) == ([1], Counter(buffered=5))


async def test_a_locked_log_does_not_starve_a_worker_whose_pool_holds_one_connection(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with (
        a_running_worker(dsn, max_connection_pool_size=1) as worker,
        await AsyncConnection.connect(dsn, autocommit=True) as breaker,
    ):
        await fetch(breaker, BREAK["locked"], tables)
        await worker.increment_counter("app:x", 1)  # what the recorder tries to append meanwhile

        await run_jobs(worker, connection, range(5))

        assert examples.done == list(range(5))
        await fetch(breaker, MEND["locked"], tables)

    await sequence_all(connection, tables)
    log = await read_log(connection, tables)
    assert logged_updates(log) == await updates_saved(connection)
    assert logged_values(log, "app:x") == [1]
