"""Check the rollups against themselves: merged rows against workers' cells, coarse resolutions against fine ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.projections.findings import Check, Findings, Spot
from chancy_metrics.projections.fold.cells import Cells, coarsen, within
from chancy_metrics.projections.fold.diff import diff_projections
from chancy_metrics.projections.fold.levels import Projection, derive_points, merge_workers


def check_workers(live: Projection, first: Mapping[str, int], end: Mapping[str, int] | None, found: Findings) -> None:
    """Compare the merged rows with the points of all workers' cells together.

    Args:
        first: Resolution -> start of the first bucket in *live*, seconds.
        end: The same of the first bucket past its end; None if there is none.
    """
    together = derive_points(merge_workers(live.by_worker), first, end)
    _compare("workers", "the workers' cells together -> the merged row", live, together, live.merged, found)


def check_resolutions(
    live: Projection, first: Mapping[str, int], end: Mapping[str, int] | None, found: Findings
) -> None:
    """Compare each coarse row with the fine rows of its bucket, where all of those are kept.

    Args:
        first: Resolution -> start of the first bucket in *live*, seconds.
        end: The same of the first bucket past its end; None if there is none.
    """
    coarse, summed = {}, {}
    for (fine, _), (resolution, width) in pairwise(RESOLUTIONS.items()):
        begin = {name: max(first[resolution], -(-first[fine] // width) * width) for name in (fine, resolution)}
        stop = None if end is None else dict.fromkeys((fine, resolution), end[resolution])
        both = within({name: live.merged[name] for name in begin if name in live.merged}, begin, stop)
        if resolution in both:
            coarse[resolution] = both[resolution]
        if fine in both:
            summed[resolution] = coarsen(both[fine], width)
    _compare("resolutions", "the finer rows together -> this row", live, summed, coarse, found)


def _compare(
    check: Check,
    what: str,
    live: Projection,
    expected: Mapping[str, Cells],
    there: Mapping[str, Cells],
    found: Findings,
) -> None:
    sides = [Projection(live.workers, live.series, dict(merged), {}) for merged in (expected, there)]
    differ = diff_projections(*sides, limit=found.room)
    silent = Counter({spot._replace(check=check): count for spot, count in differ.spots.items()})
    for difference in differ.differences:
        resolution, bucket = difference.resolution, difference.bucket
        found.add(check, difference.at, f"{what}: {difference.change}", scale=resolution, at=bucket)
        silent[Spot(check, resolution, bucket)] -= 1
    found.add_uncounted(+silent)
