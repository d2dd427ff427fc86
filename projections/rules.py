"""Which series a job update feeds: the same keys, types and units as Chancy's built-in plugin, and wait times."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from chancy_metrics.events.facts import MAX_KEY_BYTES, Series

#: Number of these rules: raised whenever what follows makes other metrics of the same facts.
RULES = 1


class JobSeries(NamedTuple):
    """The series one kind of job update feeds: each update counts 1, and its times where it has them."""

    counters: tuple[Series, ...]
    execution_times: tuple[Series, ...]
    wait_times: tuple[Series, ...]


@lru_cache(maxsize=10_000)
def job_series(func: str, queue: str, state: str) -> JobSeries:
    """Return the series of updates to *state* of jobs of *func* on *queue*."""
    return JobSeries(
        counters=(
            Series(bounded_key(f"job:{func}:", state), "counter", "count"),
            Series(bounded_key("global:status:", state), "counter", "count"),
            Series(bounded_key(f"queue:{queue}:", "throughput"), "counter", "count"),
            Series(bounded_key(f"queue:{queue}:", state), "counter", "count"),
        ),
        execution_times=_times(func, queue, "execution_time"),
        wait_times=_times(func, queue, "wait_time"),
    )


def has_wait_time(state: str) -> bool:
    """Whether an update tells how long its job waited: RetryPlugin overwrites the time it was due on a retry."""
    return state != "retrying"


def bounded_key(stem: str, ending: str) -> str:
    """Join *stem* and *ending*; a key past 1,024 bytes keeps its ending and gets a hash for what was cut."""
    key = stem + ending
    if len(key.encode()) <= MAX_KEY_BYTES:
        return key
    tail = f"~{sha256(key.encode()).hexdigest()[:16]}:{ending}"
    room = MAX_KEY_BYTES - len(tail.encode())
    return stem.encode()[:room].decode(errors="ignore") + tail


def _times(func: str, queue: str, name: str) -> tuple[Series, ...]:
    return (
        Series(bounded_key(f"job:{func}:", name), "histogram", "seconds"),
        Series(bounded_key(f"queue:{queue}:", name), "histogram", "seconds"),
    )
