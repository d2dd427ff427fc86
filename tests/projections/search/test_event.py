"""An event is listed as it was recorded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import numpy as np

from chancy_metrics.events.batch import LogBatch
from chancy_metrics.events.codec import decode, encode
from chancy_metrics.events.facts import microseconds
from chancy_metrics.projections.search.columns import Matches
from chancy_metrics.projections.search.event import Event, to_events
from tests.factories import a_row, a_run

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
NOON_US = microseconds(NOON)
PRODUCER = UUID(int=7)


def events_of(*, jobs: list = (), runs: list = (), indexes: list[int], appended_us: int = NOON_US) -> list[Event]:  # type: ignore[assignment,type-arg]
    made = encode(jobs, runs)
    batch = LogBatch(3, PRODUCER, 1, "w1", appended_us, made.events, made.codec, made.payload, made.sha256)
    decoded = decode(made.codec, made.payload, made.sha256, made.events)
    return to_events([Matches(batch, decoded, np.array(indexes, np.int64)).with_meta()])


def test_a_job_update_tells_its_times_and_never_more_than_was_recorded() -> None:
    row = a_row(
        NOON_US,
        state="failed",
        created_us=NOON_US - 9_000_000,
        scheduled_us=NOON_US - 8_000_000,
        started_us=NOON_US - 2_000_000,
        completed_us=NOON_US,
        meta=msgspec.msgpack.encode({"customer": 4}),
    )

    [event] = events_of(jobs=[row], indexes=[0])

    assert (event.position, event.index, event.at, event.kind, event.worker) == (3, 0, NOON, "job", "w1")
    assert (event.producer, event.job_id) == (PRODUCER, UUID(bytes=row.job_id))
    assert (event.func, event.queue, event.state) == row.combo[:3]
    assert (event.run_s, event.wait_s) == (2.0, 6.0)
    assert (event.key, event.value, event.meta) == (None, None, {"customer": 4})
    assert event.scheduled_at == NOON - timedelta(seconds=8)


def test_a_retry_does_not_tell_how_long_it_waited() -> None:
    row = a_row(NOON_US, state="retrying", started_us=NOON_US - 1, completed_us=None)

    [event] = events_of(jobs=[row], indexes=[0])

    assert (event.run_s, event.wait_s, event.completed_at) == (None, None, None)


def test_observations_come_after_job_updates_and_each_knows_its_series() -> None:
    runs = [a_run("a", [1.0, 2.0]), a_run("b", [3.0])]

    found = events_of(jobs=[a_row(NOON_US)], runs=runs, indexes=[0, 1, 2, 3])

    assert [(one.index, one.key, one.value) for one in found] == [
        (0, None, None),
        (1, "a", 1.0),
        (2, "a", 2.0),
        (3, "b", 3.0),
    ]


def test_an_event_from_the_future_happened_when_it_was_appended() -> None:
    [event] = events_of(jobs=[a_row(NOON_US + 60_000_000)], indexes=[0])

    assert event.at == NOON


def test_an_attempt_ran_until_it_was_appended_at_the_latest_whatever_its_worker_s_clock_says() -> None:
    late_us = NOON_US + 8 * 3_600_000_000
    row = a_row(late_us, started_us=NOON_US - 250_000, created_us=NOON_US - 750_000, scheduled_us=0)

    [event] = events_of(jobs=[row], indexes=[0])

    assert (event.run_s, event.wait_s, event.completed_at) == (0.25, 0.5, NOON + timedelta(hours=8))
