"""A key's parts are the names that it was made of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.events.facts import Series
from chancy_metrics.projections.rules.built_in import STATES, job_series
from chancy_metrics.projections.rules.key_parts import KeyParts, key_parts, own_series
from chancy_metrics.projections.rules.measured import (
    DEPTHS,
    DRIFT,
    SLOTS,
    SLOTS_USED,
    WORKERS_ACTIVE,
    oldest_wait,
    queue_depths,
    table_sizes,
)

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200)


@given(NAMES, NAMES, st.sampled_from(STATES))
def test_the_parts_of_a_job_updates_series_are_its_names(func: str, queue: str, state: str) -> None:
    assert [key_parts(series) for series in job_series(func, queue, state)] == [
        KeyParts("job", func, "updates", state),
        KeyParts("global", "", "updates", state),
        KeyParts("queue", queue, "throughput"),
        KeyParts("queue", queue, "updates", state),
        KeyParts("job", func, "execution_time"),
        KeyParts("queue", queue, "execution_time"),
        KeyParts("job", func, "wait_time"),
        KeyParts("queue", queue, "wait_time"),
        KeyParts("job", func, "total_time"),
        KeyParts("queue", queue, "total_time"),
        KeyParts("job", func, "attempts"),
    ]


@given(NAMES)
def test_the_parts_of_what_we_measure(table: str) -> None:
    names = ("total_size_bytes", "table_size_bytes", "index_size_bytes")
    assert [key_parts(series) for series in table_sizes(table)] == [KeyParts("table", table, name) for name in names]
    assert key_parts(DRIFT) == KeyParts("pipeline", "", "drift")


@given(NAMES)
def test_the_parts_of_the_health_of_queues(queue: str) -> None:
    depths = [KeyParts("queue", queue, "depth", state) for state in DEPTHS]
    assert [key_parts(series) for series in queue_depths(queue)] == depths
    assert key_parts(oldest_wait(queue)) == KeyParts("queue", queue, "oldest_wait_seconds")
    assert [key_parts(series) for series in (WORKERS_ACTIVE, SLOTS_USED, SLOTS)] == [
        KeyParts("workers", "", name) for name in ("active", "slots_used", "slots")
    ]


def test_another_kind_or_unit_is_the_applications() -> None:
    for series in (Series("job:app.mail:failed", "counter", "euro"), Series("global:status:failed", "gauge", "count")):
        assert key_parts(series) == KeyParts("custom", "", series.key)


@given(NAMES, NAMES, st.sampled_from(STATES))
def test_a_key_of_ours_is_known_without_its_kind_and_unit(func: str, queue: str, state: str) -> None:
    mine = [*job_series(func, queue, state), *queue_depths(queue), oldest_wait(queue), WORKERS_ACTIVE, DRIFT]

    assert [own_series(series.key) for series in mine if len(series.key) < 200] == [
        series for series in mine if len(series.key) < 200
    ]
    assert own_series("app:orders") is None
