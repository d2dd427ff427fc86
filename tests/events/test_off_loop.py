"""Work off the event loop: one chunk at a time with a rest behind it where there is a pace, and else at once."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import NamedTuple

import pytest

from chancy_metrics.events import off_loop
from chancy_metrics.events.off_loop import Pace, in_thread, paced, portions


class Sized(NamedTuple):
    events: int


def compute(seconds: float) -> tuple[float, float]:
    """Take so long without letting go; when it began and ended."""
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        pass
    return began, time.monotonic()


async def test_without_a_pace_threads_work_beside_each_other() -> None:
    both = threading.Barrier(2, timeout=30)

    assert {*await asyncio.gather(in_thread(both.wait), in_thread(both.wait))} == {0, 1}


async def test_at_a_pace_one_chunk_follows_the_other_after_a_pause_as_long_as_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(off_loop, "MAX_REST_S", 0.03)
    pace = Pace()
    with paced(pace):
        spans = sorted(await asyncio.gather(in_thread(compute, 0.02), in_thread(compute, 0.1), pace.call(compute, 0)))

    (_, first_ended), (second_began, second_ended), (third_began, _) = spans
    assert second_began - first_ended > 0.015
    assert third_began - second_ended > 0.025


async def test_an_error_of_a_chunk_lets_the_next_one_in() -> None:
    pace = Pace()
    with pytest.raises(ZeroDivisionError):
        await pace.call(divmod, 1, 0)

    assert await pace.call(divmod, 7, 2) == (3, 1)


def test_batches_are_cut_into_chunks_only_where_there_is_a_pace() -> None:
    batches = [Sized(events) for events in (9_000, 9_000, 2_000, 1, 50_000, 3, 4)]
    assert [*portions(batches)] == [batches]

    with paced(Pace()):
        cut = [[one.events for one in some] for some in portions(batches)]
        assert [*portions([])] == []

    assert cut == [[9_000, 9_000, 2_000], [1], [50_000], [3, 4]]
