"""Find the events of a batch that feed one series, and their values: what the fold adds up, event by event."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.batch import DecodedBatch, JobColumns, ObservationColumns
from chancy_metrics.events.facts import Series
from chancy_metrics.projections.rules.built_in import job_series
from chancy_metrics.projections.rules.derive import made_of
from chancy_metrics.projections.rules.job_times import Outcomes, has_times, shown_us, times_of
from chancy_metrics.projections.rules.rule_set import RuleSet

#: Of the series of `job_series`: those that count updates, of the run, wait and total time, and of attempts.
_COLUMNS = slice(4), slice(4, 6), slice(6, 8), slice(8, 10), slice(10, 11)
_Mask = NDArray[np.bool_]


class Fed(NamedTuple):
    """Observations of one series in one batch.

    Attributes:
        indexes: Of the event each was made of.
        at_us: When that event happened by its own clock, microseconds since 1970.
    """

    indexes: NDArray[np.int64]
    at_us: NDArray[np.int64]
    values: NDArray[np.float64]


def fed(batch: DecodedBatch, series: Series, rules: RuleSet, appended_us: int, without: Set[str] = frozenset()) -> Fed:
    """Return the observations of *series* that *batch* makes, by event.

    Rules that fail on it, or are named in *without*, make none.
    """
    parts = [Fed(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    jobs = batch.jobs
    if jobs is not None:
        parts += _updates(jobs, series, appended_us)
        for made in made_of(jobs, rules, appended_us, without).made:
            if made.columns.series == [series]:
                parts.append(Fed(made.rows, made.columns.at_us, made.columns.values))
    if batch.observations is not None:
        parts += _recorded(batch.observations, series, 0 if jobs is None else len(jobs.at_us))
    together = Fed(*map(np.concatenate, zip(*parts, strict=True)))
    order = np.argsort(together.indexes, kind="stable")  # a rule may name its rows in any order
    return Fed(together.indexes[order], together.at_us[order], together.values[order])


def _updates(jobs: JobColumns, series: Series, appended_us: int) -> Iterator[Fed]:
    took_s = shown_us(times_of(jobs, appended_us).took_us) / 1e6
    attempts = Outcomes.of(jobs.combos, jobs.combo).attempts
    values = (np.ones(len(jobs.at_us)), *took_s, attempts.astype(np.float64))
    for mask, value in zip(updates_that_feed(jobs, series.__eq__), values, strict=True):
        rows = np.flatnonzero(mask)
        yield Fed(rows, jobs.at_us[rows], value[rows])


def updates_that_feed(jobs: JobColumns, matches: Callable[[Series], bool]) -> tuple[_Mask, ...]:
    """Return masks of the updates that feed a built-in series that *matches*, one for each of `_COLUMNS`."""
    fed = np.array([[matches(series) for series in job_series(*combo[:3])] for combo in jobs.combos], np.bool_)
    if not fed.any():
        return (np.zeros(len(jobs.at_us), np.bool_),) * len(_COLUMNS)
    has = (True, *has_times(jobs), Outcomes.of(jobs.combos, jobs.combo).attempts >= 0)
    of_combo = (np.logical_or.reduce(fed[:, columns], axis=1) for columns in _COLUMNS)
    return tuple(feeds[jobs.combo] & one for feeds, one in zip(of_combo, has, strict=True))


def _recorded(columns: ObservationColumns, series: Series, first: int) -> Iterator[Fed]:
    bounds = pairwise(accumulate(columns.lengths.tolist(), initial=0))
    for one, (start, end) in zip(columns.series, bounds, strict=True):
        if one == series:
            rows = slice(start, end)
            yield Fed(np.arange(first + start, first + end), columns.at_us[rows], columns.values[rows])
