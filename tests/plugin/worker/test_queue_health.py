"""Every job that has not ended is in one depth of its queue, read by indexes alone; what can't be read is a gap."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from chancy import Queue, Worker
from psycopg import errors

from chancy_metrics.events.codec import decode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.worker import queue_health
from chancy_metrics.plugin.worker.queue_health import HealthSample, QueueSample, gauges, sample, sample_statement
from chancy_metrics.projections.rules.measured import SLOTS, SLOTS_USED, WORKERS_ACTIVE
from tests.factories import a_host, eventually

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
QUEUES = ("default", "mail", 'it\'s "odd": 1')


class Row(NamedTuple):
    """A row of Chancy's jobs."""

    queue: str
    state: str
    due: datetime = NOW - timedelta(seconds=1)
    attempts: int = 0


async def insert(connection: Connection, *rows: Row) -> None:
    async with connection.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO chancy_jobs (id, queue, func, state, scheduled_at, attempts) VALUES (%s, %s, 'f', %s, %s, %s)",
            [(uuid4(), *row) for row in rows],
        )


async def declare(connection: Connection, *names: str, concurrency: int | None = None) -> None:
    for name in names:
        await connection.execute(
            "INSERT INTO chancy_queues (name, concurrency) VALUES (%s, %s) ON CONFLICT DO NOTHING", (name, concurrency)
        )


async def add_worker(connection: Connection, *queues: str, expires: datetime = NOW + timedelta(seconds=1)) -> None:
    await connection.execute(
        "INSERT INTO chancy_workers (worker_id, queues, expires_at) VALUES (%s, %s, %s)",
        (str(uuid4()), list(queues), expires),
    )


async def test_each_job_that_has_not_ended_is_in_one_depth_of_its_queue(connection: Connection) -> None:
    chance = random.Random(16)
    rows = [
        Row(
            chance.choice([*QUEUES, "undeclared"]),
            chance.choice(["pending", "running", "retrying", "succeeded", "failed"]),
            NOW + timedelta(seconds=chance.choice([-90, -1, 0, 1, 90])),
            chance.choice([0, 0, 1, 2, 7]),
        )
        for _ in range(600)
    ]
    await declare(connection, *QUEUES, "empty")
    await insert(connection, *rows)

    found = await sample(connection, "chancy_", now=NOW)

    depths = Counter((row.queue, depth(row)) for row in rows)
    due = [row for row in rows if depth(row) in ("pending", "retrying")]
    assert {one.name: one[3:] for one in found.queues} == {
        **{
            name: (
                *(depths[name, state] for state in ("pending", "running", "retrying", "scheduled")),
                (NOW - min(row.due for row in due if row.queue == name)).total_seconds(),
            )
            for name in QUEUES
        },
        "empty": (0, 0, 0, 0, 0.0),
    }
    assert min(depths[name, state] for name in QUEUES for state in ("pending", "running", "retrying", "scheduled")) > 5


def depth(row: Row) -> str:
    """The oracle: of one job."""
    if row.state in ("pending", "retrying") and row.due > NOW:
        return "scheduled"
    return row.state


async def test_counting_stops_where_there_are_very_many(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_health, "MOST_JOBS", 10)
    await declare(connection, "default", "mail")
    later = NOW + timedelta(seconds=1)
    await insert(connection, *[Row("default", "pending", attempts=number % 4) for number in range(12)])
    await insert(connection, *[Row("default", "pending", later)] * 7, *[Row("default", "retrying", later, 1)] * 7)
    await insert(connection, *[Row("default", "running")] * 11, *[Row("default", "retrying", attempts=1)] * 9)

    found = await sample(connection, "chancy_", now=NOW)

    assert found.queues == [
        QueueSample("default", None, 0, pending=10, running=10, retrying=9, scheduled=10, oldest_s=1.0),
        QueueSample("mail", None, 0, 0, 0, 0, 0, 0.0),
    ]


async def test_workers_are_those_that_are_alive_and_their_slots_those_of_the_queues_they_serve(
    connection: Connection,
) -> None:
    await declare(connection, "default", "mail", "alone", concurrency=3)
    await add_worker(connection, "default", "mail")
    await add_worker(connection, "default", "deleted")
    await add_worker(connection, "default", expires=NOW - timedelta(seconds=1))
    await insert(connection, *[Row("default", "running")] * 2, Row("mail", "running"))

    found = await sample(connection, "chancy_", now=NOW)

    made = dict(gauges(found, {}))
    assert [(one.name, one.workers) for one in found.queues] == [("alone", 0), ("default", 2), ("mail", 1)]
    assert (made[WORKERS_ACTIVE], made[SLOTS_USED], made[SLOTS]) == (2, 3, 9)


async def test_without_a_queue_there_are_workers_all_the_same(connection: Connection) -> None:
    await add_worker(connection)

    found = await sample(connection, "chancy_", now=NOW)

    assert found == HealthSample(1, [])
    assert dict(gauges(found, {})) == {WORKERS_ACTIVE: 1, SLOTS_USED: 0, SLOTS: 0}


def test_where_a_queue_leaves_its_concurrency_to_workers_they_are_taken_to_be_like_this_one() -> None:
    mail, other = QueueSample("mail", None, 2, 0, 0, 0, 0, 0.0), QueueSample("other", 5, 1, 0, 0, 0, 0, 0.0)
    unserved = QueueSample("unserved", None, 0, 0, 0, 0, 0, 0.0)

    assert dict(gauges(HealthSample(2, [mail, other, unserved]), {"mail": 8}))[SLOTS] == 21
    assert SLOTS not in dict(gauges(HealthSample(2, [mail, other]), {}))


async def test_it_reads_chancys_indexes_alone(connection: Connection) -> None:
    await declare(connection, *QUEUES)
    states = ["pending", "retrying", "running", *["succeeded"] * 7]
    rows = [Row(QUEUES[number % 3], states[number % 10], attempts=number % 2) for number in range(600)]
    await insert(connection, *rows)
    await connection.execute("VACUUM ANALYZE chancy_jobs")

    statement = sample_statement("chancy_").as_string(connection).replace("%(now)s", "NULL").replace("%(most)s", "500")
    async with short_transaction(connection, index_only=True) as cursor:
        await cursor.execute(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {statement}".encode(), binary=False)
        plan = "\n".join(row[0] for row in await cursor.fetchall())

    scans = re.findall(r"(\S.*) on chancy_jobs .*\n\s+Index Cond: (.*)", plan)
    assert len(scans) == len(re.findall("on chancy_jobs", plan)) == 6
    # Releases differ in how they write what a column is compared with.
    read = Counter(
        (
            scan.lstrip("-> ").removeprefix("Index Only Scan using chancy_idx_jobs_"),
            *re.findall(r"\((\w+ [<=>]+) ", condition),
        )
        for scan, condition in scans
    )
    of_queue = ("queue =", "state =")
    assert read == {
        ("queue_state", *of_queue): 1,
        ("fetch_prune", *of_queue): 1,
        ("fetch_prune", *of_queue, "attempts >"): 1,
        ("fetch_prune", *of_queue, "attempts =", "scheduled_at <="): 2,
        ("fetch_prune", *of_queue, "attempts =", "scheduled_at >"): 1,
    }


def keys_in(metrics: Metrics, worker: Worker) -> set[str]:
    """The keys of what waits in memory."""
    batch = metrics._session(worker).buffer.cut()
    if batch is None:
        return set()
    observations = decode(batch.codec, batch.payload, batch.sha256, batch.events).observations
    return set() if observations is None else {series.key for series in observations.series}


async def says(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return text in caplog.text


async def runs(task: str) -> bool:
    return task in {one.get_name() for one in asyncio.all_tasks()}


async def measure(worker: Worker, metrics: Metrics) -> None:
    worker.is_leader.set()
    await metrics._session(worker)._measure_queues()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure whenever a test says so."""
    monkeypatch.setattr(queue_health, "SAMPLE_SHARE", float("inf"))


async def last(metrics: Metrics, worker: Worker, key: str) -> list[float]:
    """The values of a gauge, one a minute that has any, the newest first."""
    await metrics.flush(worker.chancy)
    found: dict[str, Any] = await metrics.get_metrics(worker.chancy, key)
    return [value for _, value in found[key].values_1min] if key in found else []


async def test_an_emptied_queue_shows_0_and_a_deleted_one_stops(dsn: str, connection: Connection) -> None:
    async with a_host(dsn) as (worker, metrics):
        await worker.chancy.declare(Queue("mail", concurrency=2))
        await insert(connection, Row("mail", "pending", datetime.now(UTC) - timedelta(hours=1)))
        await measure(worker, metrics)
        full = [await last(metrics, worker, f"queue:mail:{key}") for key in ("depth:pending", "oldest_wait_seconds")]
        await connection.execute("DELETE FROM chancy_jobs")
        await measure(worker, metrics)
        empty = [await last(metrics, worker, f"queue:mail:{key}") for key in ("depth:pending", "oldest_wait_seconds")]
        await worker.chancy.delete_queue("mail")
        await measure(worker, metrics)
        recorded = keys_in(metrics, worker)

    assert full[0][0] == 1 and 3_600 <= full[1][0] < 3_700
    assert (empty[0][0], empty[1][0]) == (0, 0)
    assert recorded == {"workers:active", "workers:slots_used", "workers:slots"}


async def test_two_leaders_at_once_show_each_job_once(dsn: str, connection: Connection) -> None:
    async with a_host(dsn) as (worker, metrics), a_host(dsn) as (other, others_metrics):
        await worker.chancy.declare(Queue("mail", concurrency=2))
        await insert(connection, *[Row("mail", "pending", datetime.now(UTC) - timedelta(hours=1))] * 7)
        for _ in range(2):
            await measure(worker, metrics)
            await measure(other, others_metrics)
        await others_metrics.flush(other.chancy)
        shown = await last(metrics, worker, "queue:mail:depth:pending")
        window = await metrics.get_metrics(worker.chancy, "queue:mail:depth:pending", resolution="1day", limit=2)

    assert set(shown) == {7}
    assert window["series"]["queue:mail:depth:pending"].summary == 7


async def test_a_sample_that_can_t_be_read_is_a_gap_and_disturbs_nothing_else(
    dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(queue_health, "SAMPLE_MS", 100)
    async with a_host(dsn) as (worker, metrics):
        await worker.chancy.declare(Queue("mail", concurrency=2))
        worker.is_leader.set()
        session = metrics._session(worker)
        async with connection.transaction():
            await connection.execute("LOCK TABLE chancy_jobs")
            loop = asyncio.create_task(session._every(0.001, session._measure_queues))
            await eventually(lambda: says(caplog, "measure_queues failed"))
            await metrics.increment_counter("app:n", 1)
            assert await last(metrics, worker, "app:n") == [1]
            assert await last(metrics, worker, "workers:active") == []
        await eventually(lambda: last(metrics, worker, "queue:mail:depth:pending"))
        loop.cancel()

    assert "QueryCanceled" in caplog.text and "tried again" in caplog.text


async def test_samples_that_take_long_are_rare(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_host(dsn) as (worker, metrics):
        monkeypatch.setattr(queue_health, "SAMPLE_SHARE", 1e-6)  # as if it took ten thousand times as long
        await measure(worker, metrics)
        first = keys_in(metrics, worker)
        await measure(worker, metrics)
        too_soon = keys_in(metrics, worker)
        metrics._session(worker)._queues_at = 0
        await measure(worker, metrics)

        assert (keys_in(metrics, worker), too_soon) == (first, set())


async def test_a_missing_table_raises_what_the_loop_logs(connection: Connection) -> None:
    with pytest.raises(errors.UndefinedTable, match="other_workers"):
        await sample(connection, "other_")


@pytest.mark.parametrize("queue_health", [True, False])
async def test_it_can_be_switched_off(dsn: str, queue_health: bool) -> None:
    async with a_host(dsn, Metrics(queue_health=queue_health)) as (worker, metrics):
        loops = asyncio.create_task(metrics._session(worker).run())
        await eventually(lambda: runs("metrics_table_sizes"))
        measures = await runs("metrics_queue_health")
        loops.cancel()
        await asyncio.wait([loops])

    assert measures == queue_health


async def test_a_worker_that_is_no_leader_measures_nothing(dsn: str) -> None:
    async with a_host(dsn) as (worker, metrics):
        await metrics._session(worker)._measure_queues()

        assert keys_in(metrics, worker) == set()
