"""What `worker_id` reads: one worker's points, from the database."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from chancy_metrics.events.database import Connection
from chancy_metrics.events.facts import microseconds
from chancy_metrics.events.schema import Tables
from tests.factories import LogWriter, a_host, a_run, an_app, sequence_and_fold


async def test_where_one_worker_is_alone_its_points_are_the_merged_ones(dsn: str) -> None:
    async with a_host(dsn) as (worker, metrics):
        for value in (0.1, 0.2, 2.5):
            await metrics.increment_counter("app:n", value)
            await metrics.record_gauge("app:level", value)
            await metrics.record_histogram_value("app:took", value, unit="seconds")
            await metrics.record_gauge("app:n", value, unit="slots")
        await metrics.flush(worker.chancy)

        for prefix in (None, "app", "app:n", "app:n:gauge:slots", "app:n:gauge", "other"):
            merged = await metrics.get_metrics(worker.chancy, prefix)
            mine = await metrics.get_metrics(worker.chancy, prefix, worker.worker_id)
            assert {key: metric.values for key, metric in merged.items()} == {
                key: metric.values for key, metric in mine.items()
            }
            windows = [
                await metrics.get_metrics(worker.chancy, prefix, worker_id, resolution="1hour")
                for worker_id in (None, worker.worker_id)
            ]
            summaries = [{key: (m.type, m.unit, m.summary) for key, m in one["series"].items()} for one in windows]
            assert summaries[0] == summaries[1]
            assert sorted(summaries[0]) == sorted(merged)


async def test_a_worker_sees_its_own_points_and_an_unknown_one_none(
    dsn: str, tables: Tables, connection: Connection
) -> None:
    now_us = microseconds(datetime.now(UTC))
    for worker, value in (("one", 1.0), ("two", 20.0)):
        run = a_run("app:n", [value], at_us=now_us)
        await LogWriter(connection, tables, worker).append(runs=[run])
    await sequence_and_fold(connection, tables)

    async with an_app(dsn) as (chancy, metrics):
        asked = {worker: await metrics.get_metrics(chancy, "app", worker) for worker in ("one", "two", "", "three")}
        unknown = await metrics.get_metrics(chancy, "app", "three", limit=1)

    assert {worker: [metric.values_1day[0][1] for metric in found.values()] for worker, found in asked.items()} == {
        "one": [1.0],
        "two": [20.0],
        "": [21.0],
        "three": [],
    }
    assert {key: metric.data for key, metric in unknown["series"].items()} == {"app:n": []}


@pytest.mark.parametrize(("prefix", "worker"), [("app\x00", "one"), ("app", "o\x00ne"), ("app\x00", None)])
async def test_a_name_no_database_can_hold_matches_nothing(dsn: str, prefix: str, worker: str | None) -> None:
    async with an_app(dsn) as (chancy, metrics):
        assert await metrics.get_metrics(chancy, prefix, worker) == {}
