"""The series that a job update feeds: those of Chancy's built-in plugin, wait and total times, and attempts.

A change here makes other metrics of the same facts: raise `rule_set.BUILT_IN_RULES` with it. This module and rule_set
import no numpy, since each process that records loads them; job_times and derive do.
"""

from __future__ import annotations

from functools import lru_cache

from chancy_metrics.events.facts import MAX_KEY_BYTES, Series, cut

#: The states of a job that Chancy knows.
STATES = ("pending", "running", "failed", "retrying", "succeeded")
#: Endings of the keys of the times of each function and queue, in the order of `JobTimes`.
TIMES = ("execution_time", "wait_time", "total_time")


@lru_cache(maxsize=10_000)
def job_series(func: str, queue: str, state: str) -> tuple[Series, ...]:
    """Return the series of updates to *state* of jobs of *func* on *queue*: four counters, six times, attempts."""
    return (*job_counters(func, queue, state), *job_time_series(func, queue), job_attempts(func))


@lru_cache(maxsize=10_000)
def job_counters(func: str, queue: str, state: str) -> tuple[Series, ...]:
    """Return the series that count each update."""
    return (
        Series(bounded_key(f"job:{func}:", state), "counter", "count"),
        Series(bounded_key("global:status:", state), "counter", "count"),
        Series(bounded_key(f"queue:{queue}:", "throughput"), "counter", "count"),
        Series(bounded_key(f"queue:{queue}:", state), "counter", "count"),
    )


@lru_cache(maxsize=10_000)
def job_time_series(func: str, queue: str) -> tuple[Series, ...]:
    """Return the series of the times that an update may have: by `TIMES`, of the function and of the queue."""
    return tuple(
        Series(bounded_key(stem, name), "histogram", "seconds")
        for name in TIMES
        for stem in (f"job:{func}:", f"queue:{queue}:")
    )


@lru_cache(maxsize=10_000)
def job_attempts(func: str) -> Series:
    """Return the series of how many attempts each job took: of functions alone, since a sketch costs each fold."""
    return Series(bounded_key(f"job:{func}:", "attempts"), "histogram", "attempts")


def has_wait_time(state: str) -> bool:
    """Whether updates to *state* have a wait time: on a retry RetryPlugin overwrites the time the job was due."""
    return state != "retrying"


def has_total_time(state: str) -> bool:
    """Whether updates to *state* have a total time: from when the job was created or due until it succeeded."""
    return state == "succeeded"


def has_attempts(state: str) -> bool:
    """Whether updates to *state* say how many attempts the job took in all: it succeeded, or failed for good."""
    return state in ("succeeded", "failed")


def bounded_key(stem: str, ending: str) -> str:
    """Join *stem* and *ending*; a key past 1,024 bytes keeps its ending and gets a hash for what was cut."""
    return cut(stem + ending, MAX_KEY_BYTES, ending=ending)
