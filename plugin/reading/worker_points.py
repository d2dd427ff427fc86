"""Make the points of one worker, as the replica has those of all workers, of merged cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np

from chancy_metrics.events.facts import Kind, Series
from chancy_metrics.plugin.reading.columns import KEPT, Rows
from chancy_metrics.plugin.reading.replica import SeriesColumns
from chancy_metrics.projections.fold.cells import Cells, cut, is_sorted, merge, select, starts_of_runs
from chancy_metrics.projections.fold.levels import coarsen_expired, derive_points
from chancy_metrics.projections.rollups.write import float_columns

#: Cells that are worked on at once: their columns stay in the processor's cache, and their memory is used again.
_PIECE_CELLS = 50_000


def all_columns_of(
    cells: Mapping[str, Cells], series: Mapping[int, Series], since: Mapping[str, int]
) -> dict[int, SeriesColumns]:
    """Return the points of every resolution of each series, by its number.

    Args:
        cells: Resolution -> one worker's cells, of folds or segments; of no other series than these.
        since: Resolution -> start of the oldest bucket that is kept, seconds.
    """
    columns: dict[int, SeriesColumns] = {}
    for piece in _by_series(cells):
        columns |= columns_of(derive_points(coarsen_expired(piece, since), since), series)
    return columns


def _by_series(cells: Mapping[str, Cells]) -> Iterator[dict[str, Cells]]:
    """Yield the cells of some series after the other, about as many each time."""
    levels = [(resolution, one if is_sorted(one) else merge(one)) for resolution, one in cells.items() if one.rows]
    if not levels:
        return
    _, largest = max(levels, key=lambda level: level[1].rows)
    pieces = -(-sum(one.rows for _, one in levels) // _PIECE_CELLS)
    inner = np.unique(largest.series[np.arange(1, pieces) * largest.rows // pieces])
    ends = {resolution: [0, *np.searchsorted(one.series, inner).tolist(), one.rows] for resolution, one in levels}
    for piece in range(len(inner) + 1):
        yield {resolution: cut(one, *ends[resolution][piece : piece + 2]) for resolution, one in levels}


def columns_of(levels: Mapping[str, Cells], series: Mapping[int, Series]) -> dict[int, SeriesColumns]:
    """Return the columns of each series, by its number.

    Args:
        levels: Resolution -> one worker's points, merged; of no other series than these.
    """
    columns: dict[int, SeriesColumns] = {}
    for resolution, points in levels.items():
        for kind, mine in _by_kind(points, series).items():
            _cut(columns, resolution, mine, float_columns(mine, KEPT[kind]))
    return columns


def _by_kind(points: Cells, series: Mapping[int, Series]) -> dict[Kind, Cells]:
    kinds = sorted({one.kind for one in series.values()})
    if len(kinds) == 1:
        return {kinds[0]: points}
    numbers = sorted(series)
    kind_of = np.array([kinds.index(series[number].kind) for number in numbers], np.int8)
    of_row = kind_of[np.searchsorted(numbers, points.series)]
    return {kind: select(points, of_row == which) for which, kind in enumerate(kinds)}


def _cut(columns: dict[int, SeriesColumns], resolution: str, points: Cells, rows: Rows) -> None:
    """Cut the rows of points, sorted by series and bucket, by series."""
    starts = starts_of_runs(points.series)
    ends = [*starts.tolist(), points.rows]
    for number, (start, end) in zip(points.series[starts].tolist(), pairwise(ends), strict=True):
        columns.setdefault(number, {})[resolution] = rows[start:end]
