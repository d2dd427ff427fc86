"""Every kind of fact takes one clock: where freezegun stops it, it stands for all of them."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from chancy import QueuedJob
from freezegun import freeze_time

from chancy_metrics.events.codec import decode
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.plugin import Observation
from chancy_metrics.plugin.audit.events import events
from chancy_metrics.plugin.audit.marks import mark
from chancy_metrics.plugin.health.completeness import completeness
from chancy_metrics.plugin.recording.buffer import Buffer
from tests.factories import a_host, a_job, now_us


async def test_all_kinds_of_facts_stand_at_the_time_of_a_frozen_clock(dsn: str) -> None:
    stopped = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=20)
    async with a_host(dsn) as (worker, metrics):
        await metrics.increment_counter("app:before", 1)
        await metrics.increment_counter("app:n", 1)
        with freeze_time(stopped, real_asyncio=True):
            await metrics.increment_counter("app:n", 1)  # the series was recorded with the real clock
            await metrics.record_gauge("app:level", 1)
            await metrics.record_histogram_value("app:took", 1)
            await worker.increment_counter("app:hub", 1)
            thread = threading.Thread(target=metrics.sync_increment_counter, args=("app:thread", 1))
            thread.start()
            thread.join()
            async with worker.chancy.pool.connection() as connection, connection.cursor() as cursor:
                await metrics.record_in_transaction(worker.chancy, cursor, Observation.counter("app:own"))
            await mark(worker.chancy, "deploy")
            with pytest.raises(MetricsLogError, match="lies ahead"):
                await mark(worker.chancy, "tomorrow", at=stopped + timedelta(seconds=2))
            ended = datetime.now(UTC)  # as Chancy's executors do
            await metrics.on_job_updated(worker=worker, job=a_job(completed_at=ended))
            retrying = a_job(completed_at=None, state=QueuedJob.State.RETRYING)
            await metrics.on_job_updated(worker=worker, job=retrying)
            await metrics.flush(worker.chancy)
            shown = await metrics.get_metrics(worker.chancy, "app:level", resolution="1min", limit=1)
        await metrics.increment_counter("app:after", 1)
        await metrics.increment_counter("app:n", 1)
        await metrics.flush(worker.chancy)
        found = [event async for event in events(worker.chancy)]

    frozen = [event.key or event.state for event in found if event.at == stopped]
    assert sorted(filter(None, frozen)) == sorted(
        [f"app:{name}" for name in ("hub", "level", "n", "own", "thread", "took")]
        + ["mark:deploy", "succeeded", "retrying"]
    )
    real = {event.key for event in found if event.at > stopped + timedelta(minutes=15)}
    assert {"app:before", "app:after", "app:n"} <= real
    assert [point.value for point in shown["series"]["app:level"].data] == [1.0]


def test_a_buffer_follows_a_clock_that_stops_ticks_and_goes_on() -> None:
    buffer = Buffer(100)
    started_us = now_us()

    buffer.record("counter", "app:n", 1.0, "count")
    with freeze_time("2026-03-10T12:00:00.000001Z") as clock:
        for value in (2.0, 3.0):
            buffer.record("counter", "app:n", value, "count")
            clock.tick(0.25)
    buffer.record("counter", "app:n", 4.0, "count")

    batch = buffer.cut()
    assert batch is not None
    columns = decode(batch.codec, batch.payload, batch.sha256, batch.events).observations
    assert columns is not None and columns.values.tolist() == [1.0, 2.0, 3.0, 4.0]
    first, *stopped, last = columns.at_us.tolist()
    assert stopped == [1_773_144_000_000_001, 1_773_144_000_250_001]
    assert started_us <= first <= last <= time.time_ns() // 1_000


@pytest.mark.parametrize(("hours", "skewed"), [(0, 0), (-8, 4)])
async def test_observations_of_a_host_whose_clock_is_behind_count_as_skewed(dsn: str, hours: int, skewed: int) -> None:
    async with a_host(dsn) as (worker, metrics):
        if hours:
            with freeze_time(datetime.now(UTC) + timedelta(hours=hours), real_asyncio=True):
                await metrics.increment_counter("app:n", 1)
                await metrics.increment_counter("app:n", 1)
                await metrics.record_gauge("app:level", 1)
                async with worker.chancy.pool.connection() as connection, connection.cursor() as cursor:
                    await metrics.record_in_transaction(worker.chancy, cursor, Observation.counter("app:own"))
                await metrics.flush(worker.chancy)
        await metrics.increment_counter("app:n", 1)
        await metrics.flush(worker.chancy)

        assert (await completeness(worker.chancy)).skewed == skewed


async def test_an_observation_ahead_of_the_database_counts_as_skewed_once(dsn: str) -> None:
    async with a_host(dsn) as (worker, metrics):
        with freeze_time(datetime.now(UTC) + timedelta(hours=8), real_asyncio=True):
            await metrics.increment_counter("app:n", 1)
            await metrics.flush(worker.chancy)

        assert (await completeness(worker.chancy)).skewed == 1


def test_a_buffer_made_under_a_frozen_clock_follows_the_real_one_later() -> None:
    with freeze_time("2020-01-01"):
        buffer = Buffer(100)
    buffer.record("counter", "app:n", 1.0, "count")

    batch = buffer.cut()

    assert batch is not None
    columns = decode(batch.codec, batch.payload, batch.sha256, batch.events).observations
    assert columns is not None and now_us() - columns.at_us[0] < 60_000_000
