"""Make cells of job updates and of observations: one of each worker, series and bucket.

The bucket is of the finest resolution that is kept for the age of an event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import chain, starmap
from operator import itemgetter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.batch import JobColumns, LogBatch, ObservationColumns
from chancy_metrics.events.facts import SKEW_US, Series
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.projections.fold.cells import (
    Cells,
    Floats,
    Ints,
    Sketches,
    add_up,
    group_rows,
    select,
    sizes_of,
    starts_of_runs,
)
from chancy_metrics.projections.fold.exact_sum import sums_in_millionths
from chancy_metrics.projections.fold.sketch import codes, merge_runs
from chancy_metrics.projections.rules.built_in import job_attempts, job_counters, job_time_series
from chancy_metrics.projections.rules.job_times import (
    Outcomes,
    OwnTimes,
    believed_us,
    job_times,
    shown_us,
)

_MINUTE_US = 60_000_000
_ONE_US = 1_000_000
_FINEST, *_, _COARSEST = RESOLUTIONS
#: Values of a group on average from which on adding up their codes takes less time than it saves.
_MANY_VALUES = 32
_FUNC_QUEUE_STATE_ATTEMPT = itemgetter(slice(4))

_T = TypeVar("_T")
_N = TypeVar("_N", np.int64, np.float64)


class Numbers(dict[_T, int]):
    """Numbers keys from 0, in the order in which they are first seen."""

    def __missing__(self, key: _T) -> int:
        number = self[key] = len(self)
        return number

    def of(self, keys: Iterable[_T]) -> Ints:
        return np.array(list(map(self.__getitem__, keys)), np.int64)


def job_cells(
    jobs: list[tuple[LogBatch, JobColumns]],
    workers: Numbers[str],
    series: Numbers[Series],
    counts: Counter[str],
    horizons: Mapping[str, int] | None,
) -> list[Cells]:
    """Return the cells of counters and times, which come in pairs, and those of attempts."""
    kinds = Numbers[tuple[str, str, str, int]]()  # func, queue, state, attempt
    kind = np.concatenate(
        [kinds.of(map(_FUNC_QUEUE_STATE_ATTEMPT, columns.combos))[columns.combo] for _, columns in jobs]
    )
    own = OwnTimes.of([columns for _, columns in jobs])
    worker, appended_us = _worker_and_append_time(jobs, workers)
    outcomes = Outcomes.of(kinds, kind)
    known, took_us, skewed = job_times(own, outcomes, appended_us)
    counts["skewed"] += int(np.count_nonzero(skewed))
    at_us = believed_us(own.at_us, appended_us)
    # Group by (worker, kind, bucket) first: everything after works on groups, which are few.
    bucket = _bucket_keys(at_us, horizons)
    order, starts = group_rows(worker, kind, bucket)
    heads, size = order[starts], len(starts)
    observations, at_us = sizes_of(starts, len(order)), at_us[order]
    last_us = np.maximum.reduceat(at_us, starts)
    # The times of each update, one below the other, without those it does not have.
    timed_rows = np.flatnonzero(known.take(order, axis=1))
    micro = shown_us(took_us.take(order, axis=1).ravel()[timed_rows])
    timed = np.repeat(np.arange(2 * size, 5 * size), np.tile(observations, 3))[timed_rows]
    starts = starts_of_runs(timed)
    total, rest = add_up(micro, starts)
    timed_observations = sizes_of(starts, len(timed_rows))

    def below(counted: NDArray[_N], of_times: NDArray[_N]) -> NDArray[_N]:
        return np.concatenate((counted, counted, of_times))

    # Every group feeds two pairs of counters, and a pair of histograms with each of the times it has.
    measure, group = np.divmod(np.concatenate((np.arange(2 * size), timed[starts])), size)
    head = heads[group]
    # Histograms do not depend on the state, so there are fewer of them to look up.
    names = Numbers[tuple[str, str]]()
    name = names.of(kind[:2] for kind in kinds)
    counters = series.of(chain.from_iterable(job_counters(*kind[:3]) for kind in kinds)).reshape(-1, 2, 2)
    histograms = series.of(chain.from_iterable(starmap(job_time_series, names))).reshape(-1, 3, 2)
    fed = np.concatenate((counters, histograms[name]), axis=1)
    counted = _cells(
        worker=worker[head],
        series=fed[kind[head], measure],
        bucket=bucket[head] * 60,
        observations=below(observations, timed_observations),
        last_us=below(last_us, np.maximum.reduceat(np.tile(at_us, 3)[timed_rows], starts)),
        sums=(
            below(observations * _ONE_US, total),
            {2 * size + row: value for row, value in rest.items()},
        ),
        minimum=below(np.ones(size), np.minimum.reduceat(micro, starts) / _ONE_US),
        maximum=below(np.ones(size), np.maximum.reduceat(micro, starts) / _ONE_US),
        sketches=_sketches(np.repeat(np.arange(2 * size, len(head)), timed_observations), micro / _ONE_US),
    )
    # The updates of a group are of one attempt.
    ended = np.flatnonzero(outcomes.attempts[heads] >= 0)
    head, observations = heads[ended], observations[ended]
    attempts = outcomes.attempts[head]
    of_func = series.of(job_attempts(kind[0]) for kind in kinds)
    tried = _cells(
        worker=worker[head],
        series=of_func[kind[head]][:, None],
        bucket=bucket[head] * 60,
        observations=observations,
        last_us=last_us[ended],
        sums=(observations * attempts * _ONE_US, {}),
        minimum=attempts.astype(np.float64),
        maximum=attempts.astype(np.float64),
        sketches=Sketches(np.arange(len(head)), codes(attempts.astype(np.float64)), observations),
    )
    return [counted, tried]


def observation_cells(
    observations: list[tuple[LogBatch, ObservationColumns]],
    workers: Numbers[str],
    series: Numbers[Series],
    counts: Counter[str],
    horizons: Mapping[str, int] | None,
) -> Cells:
    number = np.concatenate([np.repeat(series.of(columns.series), columns.lengths) for _, columns in observations])
    # A -0.0 would make minimum and maximum depend on the order.
    values = np.concatenate([columns.values for _, columns in observations]) + 0.0
    worker, appended_us = _worker_and_append_time(observations, workers)
    at_us = np.concatenate([columns.at_us for _, columns in observations])
    counts["skewed"] += int(np.count_nonzero(at_us > appended_us + SKEW_US))
    at_us = believed_us(at_us, appended_us)
    bucket = _bucket_keys(at_us, horizons)
    order, starts = group_rows(worker, number, bucket)
    heads = order[starts]
    group = np.repeat(np.arange(len(starts)), sizes_of(starts, len(order)))
    values, at_us = values[order], at_us[order]
    kinds = np.array([key.kind for key in series])[number[heads]]
    histogram = (kinds == "histogram")[group]
    cells = _cells(
        worker=worker[heads],
        series=number[heads][:, None],
        bucket=bucket[heads] * 60,
        observations=sizes_of(starts, len(order)),
        last_us=np.maximum.reduceat(at_us, starts),
        sums=sums_in_millionths(values, group, len(starts)),
        minimum=np.minimum.reduceat(values, starts),
        maximum=np.maximum.reduceat(values, starts),
        sketches=_sketches(group[histogram], values[histogram]),
    )
    # Rows of a group are in the order of position and index: of those at its last instant the last one counts.
    latest = np.maximum.reduceat(np.where(at_us == cells.last_us[group], np.arange(len(order)), 0), starts)
    position, index = (
        np.concatenate(column)[order[latest]]
        for column in zip(
            *((np.full(len(c.values), b.position), np.arange(len(c.values))) for b, c in observations), strict=True
        )
    )
    last = np.where(kinds == "gauge", values[latest], np.nan)
    return cells._replace(last=last, last_position=position, last_index=index)


def _bucket_keys(at_us: Ints, horizons: Mapping[str, int] | None) -> Ints:
    """Return a key for each event's bucket, at the finest resolution that is kept for its age: see `by_resolution`.

    What no resolution keeps is in a bucket of the last one, before its horizon.
    """
    minute = at_us // _MINUTE_US
    keys = minute * len(RESOLUTIONS)
    if horizons is None or not len(minute) or minute.min() * 60 >= horizons[_FINEST]:
        return keys
    is_left = np.ones(len(minute), bool)
    for number, (resolution, width) in enumerate(RESOLUTIONS.items()):
        bucket = minute // (width // 60) * (width // 60)
        is_here = is_left & (bucket * 60 >= horizons[resolution]) if resolution != _COARSEST else is_left
        keys[is_here] = bucket[is_here] * len(RESOLUTIONS) + number
        is_left &= ~is_here
    return keys


def by_resolution(cells: Cells, horizons: Mapping[str, int] | None) -> dict[str, Cells]:
    """Return cells whose `bucket` is 60 times a key of `_bucket_keys` by resolution, with the start of their bucket."""
    minute, number = np.divmod(cells.bucket // 60, len(RESOLUTIONS))
    cells = cells._replace(bucket=minute * 60)
    levels = {}
    for at, resolution in enumerate(RESOLUTIONS):
        is_here = number == at
        if resolution == _COARSEST and horizons is not None:
            is_here &= cells.bucket >= horizons[resolution]
        if is_here.any():
            levels[resolution] = select(cells, is_here)
    return levels


def _worker_and_append_time(
    decoded: Sequence[tuple[LogBatch, JobColumns | ObservationColumns]], workers: Numbers[str]
) -> tuple[Ints, Ints]:
    """Return the number of each row's worker and when the row was appended, microseconds since 1970."""
    sizes = [len(columns.at_us) for _, columns in decoded]
    worker = np.repeat(workers.of(batch.worker for batch, _ in decoded) + 1, sizes)
    return worker, np.repeat([batch.appended_us for batch, _ in decoded], sizes)


def _cells(
    *,
    worker: Ints,
    series: Ints,
    bucket: Ints,
    observations: Ints,
    last_us: Ints,
    sums: tuple[Ints, dict[int, Decimal]],
    minimum: Floats,
    maximum: Floats,
    sketches: Sketches,
) -> Cells:
    """Make a cell for each group and each of its series.

    Args:
        series: A row a group, a column a series; the other columns hold one value a group.
        sketches: Of the groups.
    """
    size, width = series.shape
    micro, rest = sums
    return Cells(
        worker=np.repeat(worker, width),
        series=series.ravel(),
        bucket=np.repeat(bucket, width),
        observations=np.repeat(observations, width),
        last_us=np.repeat(last_us, width),
        micro=np.repeat(micro, width),
        rest={row * width + copy: total for row, total in rest.items() for copy in range(width)},
        minimum=np.repeat(minimum, width),
        maximum=np.repeat(maximum, width),
        last=np.full(size * width, np.nan),
        last_position=np.zeros(size * width, np.int64),
        last_index=np.zeros(size * width, np.int64),
        sketches=Sketches(
            np.add.outer(np.arange(width), sketches.owner * width).ravel(),
            np.tile(sketches.codes, width),
            np.tile(sketches.counts, width),
        ),
    )


def _sketches(owner: Ints, values: Floats) -> Sketches:
    """Return the sketches of groups: of the *values* of each, whose *owner* it is; unmerged where they are few.

    Equal codes of a group are added up here, before each of its series gets them.
    """
    unmerged = Sketches(owner, codes(values), np.ones(len(values), np.int64))
    # So few values of a group rarely have a code in common.
    if len(values) < _MANY_VALUES * len(starts_of_runs(owner)):
        return unmerged
    return Sketches(*merge_runs(*unmerged))
