"""What is recorded stays in the buffer until it is cut out: all of it, once, in bounded memory."""

from __future__ import annotations

import logging
import math
import sys
import threading
from collections import Counter
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from chancy_metrics.events.batch import DecodedBatch
from chancy_metrics.events.codec import count_kinds, decode
from chancy_metrics.events.errors import InvalidObservation
from chancy_metrics.events.facts import Series
from chancy_metrics.events.kept_meta import encode_meta
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.recording import buffer
from chancy_metrics.plugin.recording.buffer import Buffer
from tests.factories import a_row


def record(into: Buffer, *values: Any, key: str = "app:x") -> None:
    for value in values:
        into.record("counter", key, value, "count")


def cut(into: Buffer) -> list[DecodedBatch]:
    """Every batch that is left, decoded."""
    batches = []
    while batch := into.cut():
        batches.append(decode(batch.codec, batch.payload, batch.sha256, batch.events))
    return batches


def values_of(batches: list[DecodedBatch]) -> list[float]:
    return [value for batch in batches if batch.observations for value in batch.observations.values.tolist()]


def funcs_of(batches: list[DecodedBatch]) -> list[str]:
    return [combo.func for batch in batches if batch.jobs for combo in batch.jobs.combos]


def counts_of(batches: list[DecodedBatch]) -> Counter[str]:
    return sum((Counter(batch.counts) for batch in batches), Counter())


def test_one_nan_costs_one_rejection_and_nothing_else() -> None:
    held = Buffer(1000)

    record(held, 1)
    with pytest.raises(InvalidObservation):
        record(held, math.nan)
    record(held, 5)

    batches = cut(held)
    assert sum(values_of(batches)) == 6
    assert counts_of(batches) == {"rejected:value": 1}


@pytest.mark.parametrize("value", [math.inf, -math.inf, True, "1", None, 2**2000, np.bool_(True), np.float64("nan")])
def test_what_is_refused_leaves_the_buffer_as_it_was(value: Any) -> None:
    held = Buffer(1000)
    record(held, 1.0)

    for _ in range(2):  # also at the second time, when the series is known
        with pytest.raises(InvalidObservation):
            record(held, value)
        with pytest.raises(InvalidObservation):
            record(held, value, key="app:new")

    batches = cut(held)
    assert values_of(batches) == [1.0]
    assert counts_of(batches) == {"rejected:value": 4}


def test_numbers_of_every_kind_arrive_as_the_nearest_float_and_zero_without_a_sign() -> None:
    held = Buffer(1000)
    given: list[Any] = [-0.0, 2**70, Decimal("0.1"), np.float32(0.1), 1e308, 1e308, 5e-324, 2**53 + 1, -3]

    record(held, *given, *given)

    values = values_of(cut(held))
    assert values == [float(value) for value in given] * 2
    assert math.copysign(1, values[0]) == math.copysign(1, values[9]) == 1


def test_a_key_that_can_not_be_hashed_is_refused_like_any_other_wrong_one() -> None:
    class Key(str):
        __slots__ = ()

        def __hash__(self) -> int:
            raise RuntimeError("no")

    held = Buffer(1000)

    with pytest.raises(InvalidObservation):
        held.record("counter", ["app:x"], 1, "count")
    held.record("counter", Key("app:x"), 1, "count")

    batches = cut(held)
    assert values_of(batches) == [1]
    assert counts_of(batches) == {"rejected:key": 1}


def test_a_key_with_two_types_and_units_makes_a_series_each() -> None:
    held = Buffer(1000)

    held.record("counter", "app:x", 1, None)
    held.record("counter", "app:x", 2, "bytes")
    held.record("gauge", "app:x", 3, None)
    held.record("counter", "app:x", 4, "count")

    (batch,) = cut(held)
    assert batch.observations
    runs = dict(zip(batch.observations.series, batch.observations.lengths.tolist(), strict=True))
    assert runs == {
        Series("app:x", "counter", "count"): 2,
        Series("app:x", "counter", "bytes"): 1,
        Series("app:x", "gauge", "number"): 1,
    }


@pytest.mark.parametrize("open_runs", [10_000, 0])
def test_eight_threads_lose_and_double_nothing_while_another_cuts(
    open_runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer, "_MAX_OPEN_RUNS", open_runs)
    each = 50_000 if open_runs else 5_000
    held = Buffer(10_000_000)
    batches: list[DecodedBatch] = []
    was_cut, recorded = threading.Event(), threading.Event()

    def record_many(thread: int) -> None:
        for i in range(each):
            record(held, thread * each + i, key=f"app:{i % 7}")
            if i == each // 2:
                assert was_cut.wait(30)  # so that one half is recorded before a cut, and one after it

    def cut_often() -> None:
        while not recorded.is_set():
            batches.extend(cut(held))
            if batches:
                was_cut.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=record_many, args=(thread,)) for thread in range(8)]
        cutter = threading.Thread(target=cut_often)
        for thread in [*threads, cutter]:
            thread.start()
        for thread in threads:
            thread.join()
        recorded.set()
        cutter.join()
    finally:
        sys.setswitchinterval(interval)
    batches += cut(held)

    assert sorted(values_of(batches)) == list(range(8 * each))
    assert len(held) == 0


def test_observations_keep_their_order_and_get_the_time_they_were_made_at(monkeypatch: pytest.MonkeyPatch) -> None:
    instants = iter(range(1_000_000_999, 2_000_000_000, 1_000_000))
    monkeypatch.setattr(buffer, "time_ns", lambda: next(instants))
    held = Buffer(1000)

    record(held, 3, 1, 2)

    (batch,) = cut(held)
    assert batch.observations
    assert batch.observations.values.tolist() == [3, 1, 2]
    assert batch.observations.at_us.tolist() == [1_000_000, 1_001_000, 1_002_000]


@pytest.mark.parametrize("most", [1, 7, 100, 5_000, 200_000])
def test_past_the_limit_the_oldest_go_and_the_next_header_says_how_many(most: int) -> None:
    held = Buffer(most)
    made = most * 2 + 3

    for i in range(made):
        record(held, i)
        assert len(held) <= most + max(1, most // 10)
    batches = cut(held)

    kept = values_of(batches)
    assert kept == list(range(made - len(kept), made))
    assert max(1, most - most // 10) <= len(kept) <= max(2, most)
    assert counts_of(batches) == {"dropped": made - len(kept)}
    assert batches[0].counts == {"dropped": made - len(kept)}
    assert cut(held) == []


def test_a_batch_holds_ten_thousand_observations_at_the_most() -> None:
    held = Buffer(1_000_000)

    record(held, *range(25_000))

    assert [len(values_of([batch])) for batch in cut(held)] == [10_000, 10_000, 5_000]


def test_job_updates_are_kept_beside_observations_counted_as_buffered_and_appended_first() -> None:
    held = Buffer(1000)
    record(held, 1)

    held.record_job(a_row(func="app.a"))
    held.record_job(a_row(func="app.b"))

    assert len(held) == 3
    updates, observations = cut(held)
    assert funcs_of([updates]) == ["app.a", "app.b"] and updates.counts == {"buffered": 2}
    assert values_of([observations]) == [1] and not observations.jobs


def test_a_full_buffer_drops_observations_before_job_updates_and_counts_each_by_its_kind() -> None:
    held = Buffer(100)
    for i in range(90):
        held.record_job(a_row(func=f"app.{i}"))

    record(held, *range(1_000))

    assert len(held) <= 110
    assert held.held() == {"observations": 10, "job_updates": 90, "dropped": 990}
    for i in range(90, 200):
        held.record_job(a_row(func=f"app.{i}"))
    assert held.held() == {"observations": 10, "job_updates": 90, "dropped": 990, "dropped_job_updates": 110}
    batches = cut(held)
    assert funcs_of(batches) == [f"app.{i}" for i in range(110, 200)]
    assert values_of(batches) == list(range(990, 1_000))
    assert counts_of(batches) == {"buffered": 200, "dropped": 990, "dropped_job_updates": 110}


def test_what_a_batch_s_header_says_was_dropped_is_held_until_the_batch_is_in_the_log() -> None:
    held = Buffer(10)
    for _ in range(13):
        held.record_job(a_row())
    record(held, 1)
    batch = held.cut()

    assert batch and count_kinds(batch) == {"job_updates": 1, "dropped_job_updates": 4}


def test_what_can_not_be_encoded_is_dropped_and_counted_and_stops_nothing() -> None:
    held = Buffer(10)
    held.record_job(a_row(created_us=2**80))
    held.record_job(a_row(func="app.good"))

    with pytest.raises(ValueError, match="out of range"):
        held.cut()

    batches = cut(held)
    assert funcs_of(batches) == ["app.good"]
    assert counts_of(batches) == {"buffered": 2, "dropped_job_updates": 1}


def test_counts_alone_make_a_batch_and_nothing_makes_none() -> None:
    held = Buffer(1000)
    assert held.cut() is None

    held.count("rejected:key", 3)

    assert counts_of(cut(held)) == {"rejected:key": 3}


def recording_into_a_buffer(metrics: Metrics) -> Buffer:
    """Let direct calls go into a buffer that nobody appends."""
    held = metrics._router.new_buffer()
    metrics._router._blocks.append(SimpleNamespace(recorder=SimpleNamespace(buffer=held)))  # type: ignore[arg-type]
    metrics._router.route()
    return held


async def test_invalid_observations_never_raise_and_warn_once_with_key_value_and_rule(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics()
    held = recording_into_a_buffer(metrics)

    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            await metrics.increment_counter("app:x", math.nan)
        await metrics.record_gauge("", 1)
        metrics.sync_record_histogram_value("app:x", 1, unit="")

    assert caplog.messages == ["metrics: rejected an observation: value nan of key 'app:x' must be finite"]
    assert counts_of(cut(held)) == {"rejected:value": 50, "rejected:key": 1, "rejected:unit": 1}


async def test_a_strict_plugin_raises_what_is_wrong_and_counts_it_too() -> None:
    metrics = Metrics(strict=True)
    held = recording_into_a_buffer(metrics)

    with pytest.raises(InvalidObservation, match="value nan of key 'app:x' must be finite"):
        await metrics.increment_counter("app:x", math.nan)
    with pytest.raises(InvalidObservation, match="key ''"):
        metrics.sync_record_gauge("", 1)

    assert counts_of(cut(held)) == {"rejected:value": 1, "rejected:key": 1}


def test_updates_that_wait_keep_so_much_meta_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer, "BUFFERED_META_BYTES", 1_000)
    monkeypatch.setattr(buffer, "_CHUNK_META_BYTES", 400)
    waiting = Buffer(1_000)
    meta = encode_meta({"a": "x" * 190})  # five of them fit, three close a batch

    for _ in range(8):
        waiting.record_job(a_row(meta=meta))
    batches = cut(waiting)
    waiting.record_job(a_row(meta=meta))
    after = cut(waiting)

    assert [len(one.jobs.meta) for one in batches if one.jobs] == [3, 2]
    assert [one.counts.get("cut:meta", 0) for one in batches] == [3, 0]
    assert [one.counts.get("cut:meta", 0) for one in after] == [0]
