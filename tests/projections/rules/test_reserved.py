"""What job updates and our own measurements make can be added to by nobody, whichever way they come."""

from __future__ import annotations

import pytest
from chancy import QueuedJob, Worker
from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.events.codec import decode, encode
from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import InvalidObservation
from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Derived, Metrics, Observation
from chancy_metrics.plugin.health.completeness import completeness
from chancy_metrics.projections.rules.built_in import STATES, job_series
from chancy_metrics.projections.rules.derive import _observations
from chancy_metrics.projections.rules.measured import (
    DRIFT,
    SLOTS,
    SLOTS_USED,
    WORKERS_ACTIVE,
    oldest_wait,
    queue_depths,
    table_sizes,
)
from chancy_metrics.projections.rules.reserved import check_own_series
from tests.factories import LogWriter, a_host, a_row, a_run, fetch, now_us, sequence_and_fold, total

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=2_000)

RESERVED = [
    *job_series("app.work", "mail", "failed"),
    *table_sizes("jobs"),
    *table_sizes("metrics"),
    *queue_depths("mail"),
    oldest_wait("mail"),
    WORKERS_ACTIVE,
    SLOTS_USED,
    SLOTS,
    DRIFT,
    Series("global:status:anything", "counter", "count"),
]
FREE = [
    Series("job:app.work:emails", "counter", "count"),
    Series("queue:mail:depth", "gauge", "number"),
    Series("global:status", "counter", "count"),
    Series("global:orders", "counter", "count"),
    Series("app:job:app.work:failed", "counter", "count"),
    Series("job:failed", "counter", "count"),
    Series("table:jobs:rows", "gauge", "number"),
    Series("metrics:drift:own", "gauge", "count"),
    # What WorkflowPlugin records.
    Series("workflows:poll_runs", "counter", "count"),
    Series("workflows:state:failed", "counter", "count"),
    Series("workflow:nightly:failed", "counter", "count"),
    Series("workflow:nightly:execution_time", "histogram", "seconds"),
    # The same keys as other metrics.
    Series("global:status:failed", "gauge", "count"),
    Series("job:app.work:failed", "counter", "euro"),
    Series("queue:mail:execution_time", "histogram", "number"),
    Series("table:jobs:total_size_bytes", "gauge", "number"),
]


def test_the_states_are_chancys() -> None:
    assert set(STATES) == {state.value for state in QueuedJob.State}


@given(NAMES, NAMES, st.sampled_from(STATES))
def test_every_series_that_a_job_update_feeds_is_reserved(func: str, queue: str, state: str) -> None:
    for series in job_series(func, queue, state):
        with pytest.raises(InvalidObservation, match="is a metric of this plugin's own") as caught:
            check_own_series(*series)
        assert caught.value.rule == "reserved"


@pytest.mark.parametrize("series", FREE, ids=str)
def test_other_keys_kinds_and_units_stay_allowed(series: Series) -> None:
    assert check_own_series(*series) == series


async def test_what_is_reserved_is_refused_and_counted_whichever_way_it_comes(
    dsn: str, connection: Connection, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_host(dsn) as (worker, metrics), worker.chancy.pool.connection() as own, own.cursor() as cursor:
        worker.is_leader.set()
        for _ in range(2):  # also when our own gauges have been measured
            for series in RESERVED:
                await record(metrics, worker, series)
                one = Observation(series.kind, series.key, 1_000, series.unit)
                with pytest.raises(InvalidObservation, match="take another key"):
                    await metrics.record_in_transaction(worker.chancy, cursor, one)
                with pytest.raises(InvalidObservation, match="take another key"):
                    metrics.sync_record_in_transaction(worker.chancy, cursor, one)
            await metrics._session(worker)._measure_tables()
        for series in FREE:
            await record(metrics, worker, series)
        await own.rollback()
        await metrics.flush(worker.chancy)
        found = await completeness(worker.chancy)
        shown = await metrics.get_metrics(worker.chancy)

    assert found.rejected == {"reserved": 2 * 3 * len(RESERVED)}
    assert "is a metric of this plugin's own" in caplog.text
    assert shown["table:jobs:total_size_bytes"].values_1day[0][1] > 1_000
    assert shown["workflow:nightly:failed"].values_1day[0][1] == 3_000
    kept = {(row[0], row[1], row[2]) for row in await fetch(connection, "SELECT key, kind, unit FROM {series}", tables)}
    assert kept & {*RESERVED} == {*table_sizes("jobs"), *table_sizes("metrics")}
    assert kept >= {*FREE}


async def record(metrics: Metrics, worker: Worker, series: Series) -> None:
    """Record in a coroutine, in a thread, and through the hub."""
    key, kind, unit = series
    name = {"counter": "increment_counter", "gauge": "record_gauge", "histogram": "record_histogram_value"}[kind]
    await getattr(metrics, name)(key, 1_000, unit=unit)
    getattr(metrics, f"sync_{name}")(key, 1_000, unit=unit)
    await getattr(worker, name)(key, 1_000, unit=unit)


def test_a_strict_plugin_raises_on_what_is_reserved() -> None:
    with pytest.raises(InvalidObservation, match="take another key"):
        Metrics(strict=True).sync_increment_counter("global:status:succeeded", 1)


@pytest.mark.parametrize("series", RESERVED, ids=str)
def test_a_rule_can_make_nothing_that_is_reserved(series: Series) -> None:
    batch = encode([a_row()])
    jobs = decode(batch.codec, batch.payload, batch.sha256, batch.events).jobs
    assert jobs is not None

    with pytest.raises(InvalidObservation, match="take another key"):
        getattr(Derived, series.kind)(series.key, [0], 1, unit=series.unit)
    with pytest.raises(InvalidObservation, match="take another key"):
        _observations(Derived(series, [0], 1), jobs)


async def test_what_is_in_a_log_already_is_a_fact_and_is_folded(connection: Connection, tables: Tables) -> None:
    await LogWriter(connection, tables).append(
        jobs=[a_row(now_us())], runs=[a_run("global:status:succeeded", at_us=now_us())]
    )

    await sequence_and_fold(connection, tables)

    assert await total(connection, tables, "global:status:succeeded") == [2] * 4
