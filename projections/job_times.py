"""How long job updates ran, and how long they had waited."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.columns import JobColumns

from .job_series import has_wait_time

#: Longest duration kept, 142 years: beyond it float64 can't hold every microsecond.
MAX_DURATION_US = 2**52

_Ints = NDArray[np.int64]
_Bools = NDArray[np.bool_]


class JobTimes(NamedTuple):
    """The durations of updates: how long each ran (row 0) and how long it waited (row 1).

    Attributes:
        known: Whether it has that duration.
        took_us: Microseconds; meaningless where not known, below zero where clocks or claims overlap.
    """

    known: _Bools
    took_us: _Ints


def job_times(
    created_us: _Ints,
    scheduled_us: _Ints,
    started_us: _Ints,
    completed_us: _Ints,
    has_started: _Bools,
    has_completed: _Bools,
    may_wait: _Bools,
) -> JobTimes:
    """Work out the durations of updates from their columns; *may_wait* is `has_wait_time` of each one's state."""
    return JobTimes(
        np.stack((has_started & has_completed, has_started & may_wait)),
        np.stack((completed_us - started_us, started_us - np.maximum(created_us, scheduled_us))),
    )


def times_of(jobs: JobColumns) -> JobTimes:
    """The durations of one batch's updates."""
    may_wait = np.array([has_wait_time(combo.state) for combo in jobs.combos], np.bool_)
    columns = (jobs.created_us, jobs.scheduled_us, jobs.started_us, jobs.completed_us)
    return job_times(*columns, jobs.has_started, jobs.has_completed, may_wait[jobs.combo])


def shown_us(took_us: _Ints) -> _Ints:
    """What of a duration is counted: never less than none."""
    return np.clip(took_us, 0, MAX_DURATION_US)
