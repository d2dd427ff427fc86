"""Put the functions or queues of the overview in order, by their sums or by a quantile of the whole range."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import numpy as np

from chancy_metrics.plugin.http.overview_rows import MEASURES, Cut, Group, Range, Sums
from chancy_metrics.plugin.reading.columns import COLUMN_OF
from chancy_metrics.plugin.reading.quantiles import Quantiles

#: Columns by which rows are put in order: those that need no sketch, and the others.
PLAIN = ("name", "count", "failed", "retried", "failure_ratio", "change", "run.sum_s", "depth", "oldest_wait")
BY_QUANTILE = tuple(f"{name}.{quantile}" for name in MEASURES for quantile in Quantiles._fields)
#: Rows whose sketches are read at once, and sketches read at most, to put rows in order by a quantile.
_AT_ONCE, MAX_SKETCHES = 100, 100_000
#: By so much of itself a merged quantile may lie outside those of its buckets: the sketch's error, twice.
_SLACK = 0.012

#: Reads the quantiles of histograms, by the numbers of their series.
ReadQuantiles = Callable[[Sequence[int]], Awaitable[dict[int, Quantiles]]]


class Candidate(NamedTuple):
    """A function or queue, its points in the range, and their sums."""

    group: Group
    cut: Cut
    sums: Sums


class Ordered(NamedTuple):
    """Candidates in order; *certain* says whether that of the wanted ones is exact."""

    candidates: list[Candidate]
    certain: bool


def by_sums(candidates: Sequence[Candidate], order: str, window: Range, *, descending: bool) -> Ordered:
    """Return the candidates by one of `PLAIN`, equal ones by count and name; those without a value come last."""
    if order == "name":
        return Ordered(sorted(candidates, key=lambda one: one.group.name, reverse=descending), True)
    ranked = [(_rank(_value(one.sums, order, window), descending), one) for one in candidates]
    return Ordered(_in_order(ranked), True)


def _value(sums: Sums, order: str, window: Range) -> float | None:
    match order:
        case "change":
            return sums.change(window)
        case "run.sum_s":
            return sums.times["run"][1] if "run" in sums.times else None
        case "depth":
            return sums.waiting
        case "oldest_wait":
            return sums.oldest_s
    value: float | None = getattr(sums, order)
    return value


def promise(one: Candidate, order: str, *, descending: bool) -> float:
    """Return the best rank that the candidate may have by one of `BY_QUANTILE`; infinite if it has no value.

    A merged quantile lies between the least and the greatest of its buckets, which the replica has.
    """
    name, _, quantile = order.partition(".")
    rows = one.cut.rows(MEASURES[name])
    values = np.array([]) if rows is None else rows[:, COLUMN_OF["histogram"][quantile]]
    values = values[~np.isnan(values)]
    if not len(values):
        return math.inf
    best = float(values.max() if descending else values.min())
    return _rank(best, descending) - _SLACK * abs(best)


async def by_quantile(
    promising: Sequence[tuple[float, Candidate]],
    order: str,
    window: Range,
    read: ReadQuantiles,
    *,
    descending: bool,
    wanted: int,
) -> Ordered:
    """Return the candidates by one of `BY_QUANTILE`, of which the first *wanted* are to be exact.

    Sketches are read from the most promising candidate on, until no other can come before those that are wanted. Where
    that takes more than `MAX_SKETCHES`, the order is uncertain.

    Args:
        promising: The candidates with what `promise` says of each.
    """
    name, _, quantile = order.partition(".")
    queue = sorted(promising, key=lambda pair: (pair[0], -pair[1].sums.count))
    possible = sum(best < math.inf for best, _ in queue)
    most = max(wanted, MAX_SKETCHES // len(window.buckets))
    known: list[tuple[float, Candidate]] = []

    def is_settled() -> bool:
        if len(known) >= possible:
            return True
        return len(known) >= wanted and sorted(rank for rank, _ in known)[wanted - 1] <= queue[len(known)][0]

    while not is_settled() and len(known) < most:
        chunk = [one for _, one in queue[len(known) : min(len(known) + _AT_ONCE, possible)]]
        numbers = [one.group.series[MEASURES[name]][0] for one in chunk]
        found = await read(numbers)
        for number, one in zip(numbers, chunk, strict=True):
            values = found.get(number)
            known.append((_rank(None if values is None else getattr(values, quantile), descending), one))
    return Ordered(_in_order(known) + [one for _, one in queue[len(known) :]], is_settled())


def _rank(value: float | None, descending: bool) -> float:
    """Return a number that is less for what comes first; infinite for what has no value."""
    if value is None:
        return math.inf
    return -value if descending else value


def _in_order(ranked: Sequence[tuple[float, Candidate]]) -> list[Candidate]:
    return [one for _, one in sorted(ranked, key=lambda pair: (pair[0], -pair[1].sums.count, pair[1].group.name))]
