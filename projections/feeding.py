"""Which events of a batch feed one series, and with which values: what the fold adds up, told apart again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.columns import DecodedBatch, JobColumns, ObservationColumns
from chancy_metrics.events.facts import Series

from .derive import made_of
from .job_series import job_series
from .job_times import shown_us, times_of
from .rules import RuleSet

#: How many of a job update's series count it; two of its run time and two of its wait time come behind them.
_COUNTERS = 4


class Fed(NamedTuple):
    """Observations of one series in one batch.

    Attributes:
        indexes: Of the event each was made of.
        at_us: When that event happened by its own clock, microseconds since 1970.
    """

    indexes: NDArray[np.int64]
    at_us: NDArray[np.int64]
    values: NDArray[np.float64]


def fed(batch: DecodedBatch, series: Series, rules: RuleSet) -> Fed:
    """Return what *batch* feeds *series* with.

    Raises:
        RuleFailed: A rule raised.
    """
    parts = [Fed(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    jobs = batch.jobs
    if jobs is not None:
        parts += _updates(jobs, series)
        for made in made_of(jobs, rules):
            if made.columns.series == [series]:
                parts.append(Fed(made.rows, made.columns.at_us, made.columns.values))
    if batch.observations is not None:
        parts += _recorded(batch.observations, series, 0 if jobs is None else len(jobs.at_us))
    return Fed(*map(np.concatenate, zip(*parts, strict=True)))


def _updates(jobs: JobColumns, series: Series) -> Iterator[Fed]:
    places = np.array([_places(job_series(*combo[:3]), series) for combo in jobs.combos])
    if not places.any():
        return
    counts, runs, waits = places[jobs.combo].T
    times = times_of(jobs)
    rows = np.flatnonzero(counts)
    yield Fed(rows, jobs.at_us[rows], np.ones(len(rows)))
    for takes, known, took_us in zip((runs, waits), times.known, times.took_us, strict=True):
        rows = np.flatnonzero(takes & known)
        yield Fed(rows, jobs.at_us[rows], shown_us(took_us[rows]) / 1e6)


def _places(names: tuple[Series, ...], series: Series) -> tuple[bool, bool, bool]:
    """Whether *series* counts the update, takes its run time, takes its wait time."""
    run, wait = names[_COUNTERS : _COUNTERS + 2], names[_COUNTERS + 2 :]
    return series in names[:_COUNTERS], series in run, series in wait


def _recorded(columns: ObservationColumns, series: Series, first: int) -> Iterator[Fed]:
    bounds = pairwise(accumulate(columns.lengths.tolist(), initial=0))
    for one, (start, end) in zip(columns.series, bounds, strict=True):
        if one == series:
            rows = slice(start, end)
            yield Fed(np.arange(first + start, first + end), columns.at_us[rows], columns.values[rows])
