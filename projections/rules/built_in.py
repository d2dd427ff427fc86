"""The series that a job update feeds: keys, types and units of Chancy's built-in plugin, and wait times.

A change here makes other metrics of the same facts: raise `rule_set.BUILT_IN_RULES` with it. This module and rule_set
import no numpy, since each process that records loads them; job_times and derive do.
"""

from __future__ import annotations

from functools import lru_cache

from chancy_metrics.events.facts import MAX_KEY_BYTES, Series, cut

#: The states of a job that Chancy knows.
STATES = ("pending", "running", "failed", "retrying", "succeeded")


@lru_cache(maxsize=10_000)
def job_series(func: str, queue: str, state: str) -> tuple[Series, ...]:
    """Return the series of updates to *state* of jobs of *func* on *queue*.

    The first four count each update, two take its execution time and two its wait time, where it has them.
    """
    return (
        Series(bounded_key(f"job:{func}:", state), "counter", "count"),
        Series(bounded_key("global:status:", state), "counter", "count"),
        Series(bounded_key(f"queue:{queue}:", "throughput"), "counter", "count"),
        Series(bounded_key(f"queue:{queue}:", state), "counter", "count"),
        *(
            Series(bounded_key(stem, name), "histogram", "seconds")
            for name in ("execution_time", "wait_time")
            for stem in (f"job:{func}:", f"queue:{queue}:")
        ),
    )


def has_wait_time(state: str) -> bool:
    """Whether updates to *state* have a wait time: on a retry RetryPlugin overwrites the time the job was due."""
    return state != "retrying"


def bounded_key(stem: str, ending: str) -> str:
    """Join *stem* and *ending*; a key past 1,024 bytes keeps its ending and gets a hash for what was cut."""
    return cut(stem + ending, MAX_KEY_BYTES, ending=ending)
