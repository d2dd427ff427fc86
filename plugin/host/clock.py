"""This host's clock, for every kind of fact: a test that stops `datetime.now` stops all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import repeat, starmap

from chancy_metrics.events.facts import microseconds


def now_us() -> int:
    """Microseconds since 1970, by the clock that Chancy takes a job's end from."""
    return microseconds(datetime.now(UTC))


def same_clock(time_ns: Callable[[], int]) -> Callable[[], int]:
    """Return *time_ns*, or the clock of `now_us` if freezegun has replaced it, which gives threads the real time."""
    return _now_ns if getattr(time_ns, "__module__", "").startswith("freezegun") else time_ns


def read_times(clock: Callable[[], int], limit: int) -> Iterator[int]:
    """Yield the time *limit* times: `next()` reads and counts in one atomic call, which += 1 would not be."""
    return starmap(clock, repeat((), limit))


def _now_ns() -> int:
    return now_us() * 1_000


def utc_now() -> datetime:
    return datetime.now(UTC)
