"""Judge a rule in each bucket of a grid: pure, and with three answers, since what nobody recorded is unknown.

A counter, and any count, without a point is 0 where the log holds anything at all; where the log holds nothing it is
unknown. A gauge that was not sampled is unknown. A quantile, mean or share of nothing does not meet its condition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.facts import Kind
from chancy_metrics.plugin.alerts.rules import ADDED_UP, Rule, quantile_of
from chancy_metrics.projections.fold.sketch import merge_runs, quantile_many, starts_of
from chancy_metrics.projections.grid import Grid

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

#: What `Judged.holds` has.
HOLDS, HOLDS_NOT, UNKNOWN = 1, 0, -1
#: Windows whose sketches are merged at once.
_AT_ONCE = 64


class Runs(NamedTuple):
    """A sketch for each bucket of a grid: that of bucket k is the run from starts[k] to before starts[k + 1]."""

    starts: Ints
    codes: NDArray[np.int32]
    counts: Ints


class Points(NamedTuple):
    """The points of one series in each bucket of a grid; where there is none, `observations` is 0."""

    observations: Floats
    sum: Floats
    minimum: Floats
    maximum: Floats
    last: Floats
    sketches: Runs | None = None


class Judged(NamedTuple):
    """Of each bucket: whether the condition holds at its end, and the value that was judged; NaN for none."""

    holds: NDArray[np.int8]
    values: Floats


class _Windows(NamedTuple):
    """The window that ends with each bucket.

    Attributes:
        first: Its first bucket.
        seconds: How long it is: shorter than asked for at the beginning, longer in buckets that are wider than it.
        known_s: How much of it the log holds anything of.
        whole: Whether it is as long as asked for, and known.
    """

    first: Ints
    seconds: Ints
    known_s: Floats
    whole: Flags

    def add(self, column: Floats) -> Floats:
        return _reduce(np.add, column, self.first, 0.0)


def judge(rule: Rule, kind: Kind, grid: Grid, alive: Flags, points: Points, whole: Sequence[Points] = ()) -> Judged:
    """Judge *rule* in each bucket, for one series.

    Args:
        alive: Of each bucket, whether the log holds anything there, of any series.
        whole: For a share, the points of the counters of its whole.
    """
    windows = _windows(grid, alive, rule.window_s)
    observations = windows.add(points.observations)
    value = rule.value_of(kind)
    if value == "points":
        holds = np.where(observations > 0, HOLDS_NOT, np.where(windows.whole, HOLDS, UNKNOWN))
        return _known(alive, holds, np.full(len(grid.starts), np.nan))
    if value == "share":
        observations = np.sum([windows.add(one.sum) for one in whole], axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(observations > 0, windows.add(points.sum) / observations, np.nan)
    else:
        values = _values(value, rule.window_s, windows, points, observations)
    met = values > rule.threshold if rule.side == "above" else values < rule.threshold
    holds = np.where(met & (observations >= rule.min_count), HOLDS, HOLDS_NOT)
    if kind == "gauge":
        holds[np.isnan(values)] = UNKNOWN
    elif value != "share":  # a quantile of observations that were imported
        holds[np.isnan(values) & (observations > 0)] = UNKNOWN
    if value in ADDED_UP:  # what is missing could only be added
        certain = holds == HOLDS if rule.side == "above" else ~met
        holds[~windows.whole & ~certain] = UNKNOWN
    return _known(alive, holds, values)


def _known(alive: Flags, holds: NDArray[np.int_], values: Floats) -> Judged:
    return Judged(np.where(alive, holds, UNKNOWN).astype(np.int8), np.where(alive, values, np.nan))


def _windows(grid: Grid, alive: Flags, window_s: int) -> _Windows:
    first = np.minimum(np.searchsorted(grid.starts, grid.ends - window_s), np.arange(len(grid.starts)))
    seconds = grid.ends - grid.starts[first]
    known_s = _reduce(np.add, np.where(alive, grid.widths, 0).astype(np.float64), first, 0.0)
    return _Windows(first, seconds, known_s, (seconds >= window_s) & (known_s == seconds))


def _values(value: str, window_s: int, windows: _Windows, points: Points, observations: Floats) -> Floats:
    if value == "max":
        return _nan_for_none(_reduce(np.maximum, points.maximum, windows.first, -np.inf), observations)
    if value == "min":
        return _nan_for_none(_reduce(np.minimum, points.minimum, windows.first, np.inf), observations)
    if value == "last":
        return _latest(points, windows.first)
    if quantile := quantile_of(value):
        return _quantiles(points, windows.first, quantile, observations.astype(np.int64))
    total = observations if value == "count" else windows.add(points.sum)
    with np.errstate(divide="ignore", invalid="ignore"):
        if value == "avg":
            return _nan_for_none(total / observations, observations)
        if value == "rate":
            return _nan_for_none(total / windows.known_s, windows.known_s)
        # A bucket that is wider than the window has several of it, each with its part on average.
        return total * np.minimum(1.0, window_s / windows.seconds)


def _reduce(ufunc: np.ufunc, column: Floats, first: Ints, neutral: float) -> Floats:
    """Return *ufunc* over each window of a column. Each by itself: differences of running sums are not exact."""
    if not len(first):
        return np.zeros(0)
    padded = np.append(np.where(np.isnan(column), neutral, column), neutral)
    ends = np.arange(1, len(first) + 1)
    result: Floats = ufunc.reduceat(padded, np.column_stack([first, ends]).ravel())[::2]
    return result


def _nan_for_none(values: Floats, of: Floats) -> Floats:
    return np.where(of > 0, values, np.nan)


def _latest(points: Points, first: Ints) -> Floats:
    """Return the last value of the latest point in each window."""
    places = np.arange(len(first))
    latest = np.maximum.accumulate(np.where(points.observations > 0, places, -1))
    return np.where(latest >= first, points.last[np.maximum(latest, 0)], np.nan)


def _quantiles(points: Points, first: Ints, quantile: tuple[int, int], observations: Ints) -> Floats:
    """Return a quantile of each window, of the sketches of its buckets together; NaN where they lack observations."""
    assert points.sketches is not None
    minimum = _reduce(np.minimum, points.minimum, first, np.inf)
    maximum = _reduce(np.maximum, points.maximum, first, -np.inf)
    parts = []
    for begin in range(0, len(first), _AT_ONCE):
        some = range(begin, min(begin + _AT_ONCE, len(first)))
        owner, codes, counts = merge_runs(*_gather(points.sketches, first, some))
        starts = starts_of(owner, len(some))
        here = slice(some.start, some.stop)
        parts.append(quantile_many(starts, codes, counts, quantile, minimum[here], maximum[here], observations[here]))
    return np.concatenate([np.zeros(0), *parts])


def _gather(runs: Runs, first: Ints, some: range) -> tuple[Ints, NDArray[np.int32], Ints]:
    """Return whose each code is, of the windows that end with *some* buckets, with the codes and their counts."""
    slices = [slice(runs.starts[first[one]], runs.starts[one + 1]) for one in some]
    lengths = [one.stop - one.start for one in slices]
    return (
        np.repeat(np.arange(len(some)), lengths),
        np.concatenate([runs.codes[one] for one in slices]),
        np.concatenate([runs.counts[one] for one in slices]),
    )


class Firing(NamedTuple):
    """A time in which a rule fires; moments in seconds since 1970.

    Attributes:
        until_s: When the condition did not hold any more; None if it held to the end.
        unknown_s: Seconds of it in which the condition could not be judged.
        worst: The most extreme value, and *worst_s* the start of its bucket; NaN for a rule without values.
        width_s: Width of the bucket it begins in: the grain at which it was judged.
    """

    since_s: float
    until_s: float | None
    unknown_s: float
    worst: float
    worst_s: float
    width_s: int


def firings(rule: Rule, grid: Grid, judged: Judged) -> Iterator[Firing]:
    """Yield when *rule* fires: once its condition has held for longer than `for`, until it does not hold.

    Unknown buckets count to neither: a rule that fires goes on, one that has held for some time waits.
    """
    since_s: float | None = None
    held_s = unknown_s = 0.0
    worst, worst_s, width_s = np.nan, 0, 0
    columns = (grid.starts, grid.widths, judged.holds, judged.values)
    for start, width, holds, value in zip(*(column.tolist() for column in columns), strict=True):
        if holds == UNKNOWN:
            unknown_s += width if since_s is not None else 0
            continue
        if holds == HOLDS_NOT:
            if since_s is not None:
                yield Firing(since_s, start, unknown_s, worst, worst_s, width_s)
            since_s, held_s, unknown_s, worst = None, 0.0, 0.0, np.nan
            continue
        if np.isnan(worst) or (value > worst if rule.side == "above" else value < worst):
            worst, worst_s = value, start
        if since_s is None and held_s + width > rule.for_s:
            since_s, width_s = start + rule.for_s - held_s, width
        held_s += width
    if since_s is not None:
        yield Firing(since_s, None, unknown_s, worst, worst_s, width_s)
