"""Make the points of one worker, as the replica has those of all workers, of merged cells."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from chancy_metrics.events.facts import Kind, Series
from chancy_metrics.plugin.reading.columns import KEPT, Rows
from chancy_metrics.plugin.reading.replica import SeriesColumns
from chancy_metrics.projections.fold.cells import Cells, select, starts_of_runs
from chancy_metrics.projections.rollups.write import float_columns


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
    number = np.zeros(max(series) + 1, np.int8)
    number[list(series)] = [kinds.index(one.kind) for one in series.values()]
    of_row = number[points.series]
    return {kind: select(points, of_row == which) for which, kind in enumerate(kinds)}


def _cut(columns: dict[int, SeriesColumns], resolution: str, points: Cells, rows: Rows) -> None:
    """Cut the rows of points, sorted by series and bucket, by series."""
    starts = starts_of_runs(points.series)
    ends = [*starts.tolist(), points.rows]
    for number, (start, end) in zip(points.series[starts].tolist(), pairwise(ends), strict=True):
        columns.setdefault(number, {})[resolution] = rows[start:end]
