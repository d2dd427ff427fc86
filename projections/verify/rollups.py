"""Check the rollups against themselves: merged rows against workers' rows, coarse resolutions against fine ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.projections.findings import Check, Findings, Spot
from chancy_metrics.projections.fold.accumulator import within
from chancy_metrics.projections.fold.cells import (
    ALL_WORKERS,
    Cells,
    as_all_workers,
    coarsen,
    merge,
    no_sketches,
    select,
)
from chancy_metrics.projections.fold.diff import diff_folds
from chancy_metrics.projections.fold.fold import Fold


def check_workers(live: Fold, found: Findings) -> None:
    """Compare each merged row with the sum of its workers' rows, which have no sketches."""
    merged, together = {}, {}
    for resolution, cells in live.levels.items():
        of_all = cells.worker == ALL_WORKERS
        merged[resolution] = select(cells, of_all)._replace(sketches=no_sketches())
        of_each = select(cells, ~of_all)
        together[resolution] = merge(as_all_workers(of_each))
    _compare("workers", "the workers' rows together -> the merged row", live, together, merged, found)


def check_resolutions(live: Fold, first: Mapping[str, int], end: Mapping[str, int] | None, found: Findings) -> None:
    """Compare each coarse row with the fine rows of its bucket, where all of those are kept.

    Args:
        first: Resolution -> start of the first bucket in *live*, seconds.
        end: The same of the first bucket past its end; None if there is none.
    """
    coarse, summed = {}, {}
    for (fine, _), (resolution, width) in pairwise(RESOLUTIONS.items()):
        begin = {name: max(first[resolution], -(-first[fine] // width) * width) for name in (fine, resolution)}
        stop = None if end is None else dict.fromkeys((fine, resolution), end[resolution])
        both = within({name: live.levels[name] for name in begin if name in live.levels}, begin, stop)
        if resolution in both:
            coarse[resolution] = both[resolution]
        if fine in both:
            summed[resolution] = coarsen(both[fine], width)
    _compare("resolutions", "the finer rows together -> this row", live, summed, coarse, found)


def _compare(
    check: Check,
    what: str,
    live: Fold,
    expected: Mapping[str, Cells],
    there: Mapping[str, Cells],
    found: Findings,
) -> None:
    sides = [Fold.of_cells(live.workers, live.series, dict(levels)) for levels in (expected, there)]
    differ = diff_folds(*sides, limit=found.room)
    silent = Counter({spot._replace(check=check): count for spot, count in differ.spots.items()})
    for difference in differ.differences:
        resolution, bucket = difference.resolution, difference.bucket
        found.add(check, difference.at, f"{what}: {difference.change}", scale=resolution, at=bucket)
        silent[Spot(check, resolution, bucket)] -= 1
    found.add_uncounted(+silent)
