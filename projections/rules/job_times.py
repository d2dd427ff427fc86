"""Work out how long job updates ran, had waited and took in all, and whether their times are skewed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.batch import JobColumns
from chancy_metrics.events.facts import SKEW_US
from chancy_metrics.projections.rules.built_in import has_attempts, has_total_time, has_wait_time

#: Longest duration kept, 142 years: beyond it float64 can't hold every microsecond.
MAX_DURATION_US = 2**52
#: An attempt past it counts as this one: sums of attempts stay far from 64 bits.
MAX_ATTEMPTS = 1_000_000

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


class Outcomes(NamedTuple):
    """What an update says besides its times, of each one.

    Attributes:
        waits: Whether its state has a wait time; *succeeded*: a total time.
        is_first: Whether it is of the first attempt, so that the time it was due is the one it was pushed with: on a
            retry RetryPlugin overwrites that.
        attempts: How many attempts the job took; -1 where it has not ended.
    """

    waits: _Bools
    succeeded: _Bools
    is_first: _Bools
    attempts: _Ints

    @classmethod
    def of(cls, kinds: Iterable[Sequence[Any]], kind: _Ints) -> Outcomes:
        """Return those of updates.

        Args:
            kinds: Combos, or as much of each as func, queue, state and attempt.
            kind: Which of *kinds* each update is.
        """
        rows = np.array([_outcome(one[2], one[3]) for one in kinds], np.int64).reshape(-1, 4)
        flags, attempts = rows[:, :3].astype(np.bool_), rows[:, 3]
        waits, succeeded, is_first = flags.T.take(kind, axis=1)
        return cls(waits, succeeded, is_first, attempts[kind])


@lru_cache(maxsize=1_000)
def _outcome(state: str, attempt: int) -> tuple[bool, bool, bool, int]:
    attempts = min(max(attempt, 0), MAX_ATTEMPTS) if has_attempts(state) else -1
    return has_wait_time(state), has_total_time(state), attempt <= 1, attempts


class JobTimes(NamedTuple):
    """The durations of updates, a row each: how long it ran, how long it waited, how long the job took in all.

    A job takes from when it was due until it succeeds. Where it took more than one attempt, nothing in the log says
    when it was due at first, and it takes from its creation on.

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


def job_times(own: OwnTimes, outcomes: Outcomes, appended_us: _Ints | int) -> JobTimes:
    """Work out the durations of updates from their own times.

    Skewed is an update that happened, started or completed after it was appended, happened before it was created or
    started, completed before it started or was due, started before it was due, or took more than `MAX_DURATION_US`.

    Args:
        appended_us: When each was appended.
    """
    started_us = believed_us(own.started_us, appended_us)
    completed_us = believed_us(own.completed_us, appended_us)
    due_us = np.maximum(own.created_us, own.scheduled_us)
    known = _known(own, outcomes)
    began_us = np.where(outcomes.is_first, due_us, own.created_us)
    took_us = np.stack((completed_us - started_us, started_us - due_us, completed_us - began_us))
    latest_us = appended_us + SKEW_US
    skewed = (known & ((took_us < -SKEW_US) | (took_us > MAX_DURATION_US))).any(axis=0)
    skewed |= (own.at_us > latest_us) | (own.at_us - own.created_us < -SKEW_US)
    skewed |= own.has_started & ((own.started_us > latest_us) | (own.at_us - own.started_us < -SKEW_US))
    skewed |= own.has_completed & (own.completed_us > latest_us)
    return JobTimes(known, took_us, skewed)


def times_of(jobs: JobColumns, appended_us: int) -> JobTimes:
    """Return the durations of one batch's updates."""
    return job_times(OwnTimes.of([jobs]), Outcomes.of(jobs.combos, jobs.combo), appended_us)


def has_times(jobs: JobColumns) -> _Bools:
    """Return which durations one batch's updates have: `JobTimes.known`."""
    return _known(OwnTimes.of([jobs]), Outcomes.of(jobs.combos, jobs.combo))


def shown_us(took_us: _Ints) -> _Ints:
    """Limit durations to 0 and `MAX_DURATION_US`."""
    return np.clip(took_us, 0, MAX_DURATION_US)


def _known(own: OwnTimes, outcomes: Outcomes) -> _Bools:
    ran = own.has_started & own.has_completed
    return np.stack((ran, own.has_started & outcomes.waits, own.has_completed & outcomes.succeeded))
