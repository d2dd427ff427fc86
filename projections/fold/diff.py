"""Compare two projections column by column in numpy; only the points that differ become Python objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from decimal import Decimal
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.projections.findings import Spot
from chancy_metrics.projections.fold.cells import ALL_WORKERS, Cells, Ints, concatenate, group_rows, select, sizes_of
from chancy_metrics.projections.fold.exact_sum import EXACT
from chancy_metrics.projections.fold.levels import Projection
from chancy_metrics.projections.fold.points import Comparison, Difference, diff, to_points
from chancy_metrics.projections.fold.sketch import starts_of

#: Columns without NaN.
_PLAIN = ("observations", "last_us", "minimum", "maximum", "last_position", "last_index")

_T = TypeVar("_T", bound=Hashable)


def diff_projections(old: Projection, new: Projection, *, limit: int) -> Comparison:
    """Compare two projections exactly, column by column: their merged points, and their workers' cells.

    All that either has are compared and counted; up to *limit* that differ become `Difference`s.
    """
    workers, *worker_numbers = _common(old.workers, new.workers)
    series, *series_numbers = _common(old.series, new.series)
    points = different = 0
    differences: list[Difference] = []
    spots = Counter[Spot]()
    for resolution in RESOLUTIONS:
        parts, sides = [], []
        for side, cells in _cells_of(old, new, resolution):
            if cells.rows:
                worker = np.append(ALL_WORKERS, worker_numbers[side] + 1)[cells.worker]
                parts.append(cells._replace(worker=worker, series=series_numbers[side][cells.series]))
                sides.append(np.full(cells.rows, side))
        if not parts:
            continue
        both, side_of = concatenate(parts), np.concatenate(sides)
        order, starts = group_rows(both.worker, both.series, both.bucket // 60)
        paired = sizes_of(starts, both.rows) == 2
        differs = ~paired
        differs[paired] = _differ(both, order[starts[paired]], order[starts[paired] + 1])
        points += len(starts)
        different += int(np.count_nonzero(differs))
        buckets, counts = np.unique(both.bucket[order[starts[differs]]], return_counts=True)
        for bucket, count in zip(buckets.tolist(), counts.tolist(), strict=True):
            spots[Spot("difference", resolution, bucket)] += count
        shown = np.flatnonzero(differs)[: max(0, limit - len(differences))]
        if len(shown):
            chosen = np.zeros(both.rows, bool)
            chosen[order[starts[shown]]] = True
            chosen[order[starts[shown[paired[shown]]] + 1]] = True
            mine, others = (
                to_points(resolution, select(both, chosen & (side_of == side)), [None, *workers], series)
                for side in (0, 1)
            )
            differences += diff(mine, others)
    return Comparison(points, different, differences, spots)


def _cells_of(old: Projection, new: Projection, resolution: str) -> Iterator[tuple[int, Cells]]:
    """Yield the cells of both at *resolution*, each with the number of its side."""
    for side, projection in enumerate((old, new)):
        for levels in (projection.merged, projection.by_worker):
            if resolution in levels:
                yield side, levels[resolution]


def _common(old: Sequence[_T], new: Sequence[_T]) -> tuple[list[_T], Ints, Ints]:
    """Return the union of both lists, and the index in it of each item of *old* and of *new*."""
    numbers: dict[_T, int] = {}
    old_numbers, new_numbers = (
        np.array([numbers.setdefault(one, len(numbers)) for one in side], np.int64) for side in (old, new)
    )
    return list(numbers), old_numbers, new_numbers


def _differ(cells: Cells, first: Ints, second: Ints) -> NDArray[np.bool_]:
    """Whether row `first[i]` has another value than row `second[i]`."""
    differs = np.zeros(len(first), bool)
    for name in _PLAIN:
        column = getattr(cells, name)
        differs |= column[first] != column[second]
    mine, others = cells.last[first], cells.last[second]
    differs |= (mine != others) & ~(np.isnan(mine) & np.isnan(others))
    differs[_other_sums(cells, first, second)] = True
    differs[_other_sketches(cells, first, second)] = True
    return differs


def _other_sums(cells: Cells, first: Ints, second: Ints) -> Ints:
    """Return the pairs whose sums differ, whichever way each is split into millionths and a rest."""
    micro, rest = cells.micro.copy(), dict[int, Decimal]()
    for row in cells.rest:
        total = cells.sum_of(row)
        millionths = EXACT.scaleb(total, 6)
        fits = abs(millionths) < 2**63 and millionths == millionths.to_integral_value()
        micro[row] = int(millionths) if fits else 0
        if not fits:
            rest[row] = total
    has_rest = np.zeros(cells.rows, bool)
    has_rest[list(rest)] = True
    differs = micro[first] != micro[second]
    for pair in np.flatnonzero(has_rest[first] | has_rest[second]).tolist():
        differs[pair] |= rest.get(int(first[pair])) != rest.get(int(second[pair]))
    return np.flatnonzero(differs)


def _other_sketches(cells: Cells, first: Ints, second: Ints) -> Ints:
    """Return the pairs whose sketches differ."""
    starts = starts_of(cells.sketches.owner, cells.rows)
    lengths = starts[1:] - starts[:-1]
    other_length = np.flatnonzero(lengths[first] != lengths[second])
    same_length = np.flatnonzero((lengths[first] == lengths[second]) & (lengths[first] > 0))
    sizes = lengths[first[same_length]]
    inside = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    mine = np.repeat(starts[first[same_length]], sizes) + inside
    others = np.repeat(starts[second[same_length]], sizes) + inside
    wrong = (cells.sketches.codes[mine] != cells.sketches.codes[others]) | (
        cells.sketches.counts[mine] != cells.sketches.counts[others]
    )
    return np.append(other_length, np.repeat(same_length, sizes)[wrong])
