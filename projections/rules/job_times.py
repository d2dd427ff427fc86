"""Work out how long job updates ran and how long they had waited, and whether their times are skewed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.batch import JobColumns
from chancy_metrics.events.facts import SKEW_US
from chancy_metrics.projections.rules.built_in import has_wait_time

#: Longest duration kept, 142 years: beyond it float64 can't hold every microsecond.
MAX_DURATION_US = 2**52

_Ints = NDArray[np.int64]
_Bools = NDArray[np.bool_]


class OwnTimes(NamedTuple):
    """When updates happened, by the clocks that wrote it; columns as in `JobColumns`."""

    at_us: _Ints
    created_us: _Ints
    scheduled_us: _Ints
    started_us: _Ints
    completed_us: _Ints
    has_started: _Bools
    has_completed: _Bools

    @classmethod
    def of(cls, batches: Sequence[JobColumns]) -> OwnTimes:
        """Return the times of at least one batch, concatenated."""
        return cls(*(np.concatenate([getattr(jobs, name) for jobs in batches]) for name in cls._fields))


class JobTimes(NamedTuple):
    """The durations of updates: how long each ran (row 0) and how long it waited (row 1).

    Attributes:
        known: Whether it has that duration.
        took_us: Microseconds; meaningless where not known, below zero where clocks or claims overlap.
        skewed: Of each update, whether its times contradict the database's clock by more than `SKEW_US`, which is
            ordinary up to there: a claim may have begun before the job it then claims was there.
    """

    known: _Bools
    took_us: _Ints
    skewed: _Bools


def believed_us(own_us: _Ints, appended_us: _Ints | int) -> _Ints:
    """Limit times to the append: nothing happened after it."""
    return np.minimum(own_us, appended_us)


def believed(jobs: JobColumns, appended_us: int) -> JobColumns:
    """Limit when updates happened, started and completed to the append; they may be due later."""
    return jobs._replace(
        at_us=believed_us(jobs.at_us, appended_us),
        started_us=believed_us(jobs.started_us, appended_us),
        completed_us=believed_us(jobs.completed_us, appended_us),
    )


def job_times(own: OwnTimes, may_wait: _Bools, appended_us: _Ints | int) -> JobTimes:
    """Work out the durations of updates from their own times.

    Skewed is an update that happened, started or completed after it was appended, happened before it was created or
    started, completed before it started, started before it was due, or took more than `MAX_DURATION_US`.

    Args:
        may_wait: `has_wait_time` of each one's state.
        appended_us: When each was appended.
    """
    started_us = believed_us(own.started_us, appended_us)
    completed_us = believed_us(own.completed_us, appended_us)
    known = _known(own, may_wait)
    took_us = np.stack((completed_us - started_us, started_us - np.maximum(own.created_us, own.scheduled_us)))
    latest_us = appended_us + SKEW_US
    skewed = (known & ((took_us < -SKEW_US) | (took_us > MAX_DURATION_US))).any(axis=0)
    skewed |= (own.at_us > latest_us) | (own.at_us - own.created_us < -SKEW_US)
    skewed |= own.has_started & ((own.started_us > latest_us) | (own.at_us - own.started_us < -SKEW_US))
    skewed |= own.has_completed & (own.completed_us > latest_us)
    return JobTimes(known, took_us, skewed)


def times_of(jobs: JobColumns, appended_us: int) -> JobTimes:
    """Return the durations of one batch's updates."""
    return job_times(OwnTimes.of([jobs]), _may_wait(jobs), appended_us)


def has_times(jobs: JobColumns) -> _Bools:
    """Return which durations one batch's updates have: `JobTimes.known`."""
    return _known(OwnTimes.of([jobs]), _may_wait(jobs))


def shown_us(took_us: _Ints) -> _Ints:
    """Limit durations to 0 and `MAX_DURATION_US`."""
    return np.clip(took_us, 0, MAX_DURATION_US)


def _known(own: OwnTimes, may_wait: _Bools) -> _Bools:
    return np.stack((own.has_started & own.has_completed, own.has_started & may_wait))


def _may_wait(jobs: JobColumns) -> _Bools:
    may_wait = np.array([has_wait_time(combo.state) for combo in jobs.combos], np.bool_)
    return may_wait[jobs.combo]
