"""Make the points of all resolutions of cells, each of which is at the finest resolution that is kept for its age."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.projections.fold.cells import (
    Cells,
    as_all_workers,
    coarsen,
    is_sorted,
    merge,
    select,
    within,
)
from chancy_metrics.projections.fold.fold import Fold
from chancy_metrics.projections.fold.merge_sorted import merge_sorted


class Projection(NamedTuple):
    """The points of one projection of the log.

    Attributes:
        workers: Worker ids; cells number them from 1.
        series: Series; cells number them from 0.
        merged: Resolution -> the points of all workers together.
        by_worker: Resolution -> each worker's cells, at the finest resolution that is kept for their age.
    """

    workers: list[str]
    series: list[Series]
    merged: dict[str, Cells]
    by_worker: dict[str, Cells]


def projection_of(
    folded: Fold, since: Mapping[str, int] | None = None, until: Mapping[str, int] | None = None
) -> Projection:
    """Return the points of a fold.

    Args:
        since: Resolution -> start of the first bucket, seconds; all by default.
        until: Resolution -> start of the first bucket past the end; no end by default.
    """
    cells = folded.cells if since is None else coarsen_expired(folded.cells, since)
    return Projection(folded.workers, folded.series, derive_points(merge_workers(cells), since, until), cells)


def merge_workers(cells: Mapping[str, Cells]) -> dict[str, Cells]:
    """Return the cells of all workers together."""
    return {resolution: merge(as_all_workers(one)) for resolution, one in cells.items()}


def derive_points(
    cells: Mapping[str, Cells], since: Mapping[str, int] | None = None, until: Mapping[str, int] | None = None
) -> dict[str, Cells]:
    """Return the points of every resolution: the cells of it, and those of the finer ones merged into its buckets.

    Args:
        cells: Resolution -> merged cells, each observation in one of them.
        since: Resolution -> start of the first bucket that is returned, seconds; all by default.
        until: Resolution -> start of the first bucket past the end; no end by default.
    """
    points = {}
    finer: Cells | None = None
    for resolution, width in RESOLUTIONS.items():
        parts = [] if finer is None else [coarsen(finer, width)]
        if resolution in cells:
            parts.append(cells[resolution])
        if not parts:
            continue
        finer = parts[0] if len(parts) == 1 else merge_sorted(*parts)
        points[resolution] = finer
    return {resolution: kept for resolution, kept in within(points, since, until).items() if kept.rows}


def coarsen_expired(cells: Mapping[str, Cells], horizons: Mapping[str, int]) -> dict[str, Cells]:
    """Return *cells* where each that its resolution no longer keeps is in the next one that does, or dropped.

    Args:
        cells: Resolution -> cells of folds, or of segments, merged with each other or not.
        horizons: Resolution -> start of the oldest bucket that is kept, seconds.

    Returns:
        Resolution -> merged cells.
    """
    kept = {}
    expired: Cells | None = None
    for resolution, width in RESOLUTIONS.items():
        together = None if expired is None else coarsen(expired, width)
        if resolution in cells:
            own = cells[resolution]
            own = own if is_sorted(own) else merge(own)
            together = own if together is None else merge_sorted(together, own)
        if together is None:
            continue
        is_kept = together.bucket >= horizons[resolution]
        if is_kept.any():
            kept[resolution] = select(together, is_kept)
        expired = None if is_kept.all() else select(together, ~is_kept)
    return kept
