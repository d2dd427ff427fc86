"""Choose which segments of a worker to merge: many of one size, and those that are mostly past their horizon."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from chancy_metrics.events.schema import RESOLUTIONS

#: Segments of one tier that are merged.
FAN_OUT = 8
#: Cells with which each further tier begins; the last one's segments are merged with no others.
TIERS = (64, 512, 4_096, 32_768, 65_536)
#: Segments of fewer cells are merged with cells that arrive from a finer resolution: a row costs as much as they do.
SMALL_CELLS = 512
#: Most segments, cells and bytes of one choice, unless its first segment has more.
MOST_SEGMENTS = 1_000
MOST_CELLS = 500_000
MOST_BYTES = 32 << 20

_NEXT = dict(pairwise(RESOLUTIONS.values()))


class Segment(NamedTuple):
    """The row of a segment, without its data.

    Attributes:
        resolution: Width of its buckets, seconds.
        size_bytes: Of its data.
        written_by: Id of the transaction that wrote it: a later row may have the same key.
    """

    worker: int
    resolution: int
    fold: int
    part: int
    first_s: int
    end_s: int
    cells: int
    size_bytes: int
    written_by: str


def tier_of(cells: int) -> int:
    """Return the tier of a segment: its cells, logarithmically."""
    return bisect_right(TIERS, cells)


def is_mostly_past(segment: Segment, horizons: Mapping[int, int]) -> bool:
    """Whether the middle of its time is before the horizon of its resolution.

    Args:
        horizons: Width of a resolution's buckets -> start of the oldest one that is kept, seconds.
    """
    return segment.first_s + segment.end_s < 2 * horizons[segment.resolution]


def choose(segments: Sequence[Segment], horizons: Mapping[int, int]) -> list[Segment]:
    """Return which of one worker's segments to replace by one of each resolution; [] if they are few.

    Segments that are mostly past their horizon are chosen with the small ones of the next resolution, which their
    cells go to. Of a tier with `FAN_OUT` segments all are chosen, with those of the tiers below. So a cell is rewritten
    about once a tier, and a resolution has fewer than `FAN_OUT` segments a tier.
    """
    past = sorted((one for one in segments if is_mostly_past(one, horizons)), key=lambda one: one.end_s)
    chosen = dict.fromkeys(past)
    arriving = Counter[int]()
    for one in past:
        if one.resolution in _NEXT:
            arriving[_NEXT[one.resolution]] += one.cells * one.resolution // _NEXT[one.resolution]
    sizes = Counter((one.resolution, tier_of(one.cells)) for one in segments)
    full = {
        resolution: max((tier for tier in range(len(TIERS)) if sizes[resolution, tier] >= FAN_OUT), default=-1)
        for resolution in RESOLUTIONS.values()
    }
    for one in sorted(segments, key=lambda one: one.cells):
        joins = one.resolution in arriving and one.cells < max(SMALL_CELLS, arriving[one.resolution])
        if joins or tier_of(one.cells) <= full[one.resolution]:
            chosen[one] = None
    kept = list(_bounded(chosen))
    is_fewer = len(kept) > len({one.resolution for one in kept})
    return kept if past or is_fewer else []


def choose_whole(segments: Sequence[Segment], horizons: Mapping[int, int]) -> list[Segment]:
    """Return all of *segments*, those of one worker and day, if one of them is mostly past its horizon; else []."""
    if not any(is_mostly_past(one, horizons) for one in segments):
        return []
    in_order = sorted(segments, key=lambda one: (not is_mostly_past(one, horizons), one.cells))
    return list(_bounded(dict.fromkeys(in_order)))


def _bounded(segments: Mapping[Segment, None]) -> Iterator[Segment]:
    cells = size_bytes = 0
    for number, one in enumerate(segments):
        cells, size_bytes = cells + one.cells, size_bytes + one.size_bytes
        if number and (number >= MOST_SEGMENTS or cells > MOST_CELLS or size_bytes > MOST_BYTES):
            return
        yield one
