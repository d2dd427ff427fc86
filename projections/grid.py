"""Cut a range of time into buckets that follow on each other, each of the finest resolution that is kept there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.schema import RESOLUTIONS


class BucketRange(NamedTuple):
    """Buckets of one resolution, from *first_s*, inclusive, to *end_s*, exclusive: their starts, seconds since 1970."""

    resolution: str
    first_s: int
    end_s: int

    @property
    def width_s(self) -> int:
        return RESOLUTIONS[self.resolution]


class Grid(NamedTuple):
    """Buckets without a gap between them, oldest first: their starts and widths, seconds."""

    starts: NDArray[np.int64]
    widths: NDArray[np.int64]

    @property
    def ends(self) -> NDArray[np.int64]:
        return self.starts + self.widths


def bucket_ranges(horizons: Mapping[str, int], first_s: int, end_s: int) -> list[BucketRange]:
    """Return the time between two moments as ranges of buckets, each at the finest resolution that is kept there.

    The first and the last one are widened to whole buckets; what is older than every horizon is left out.

    Args:
        horizons: Resolution -> start of the oldest bucket that is kept, seconds since 1970.
    """
    begins: list[tuple[str, int]] = []
    for name in reversed(RESOLUTIONS):  # the coarsest first
        begin = horizons[name]
        while begins and begins[-1][1] >= begin:  # this one is finer, and reaches as far back
            begins.pop()
        if begins:  # not inside a bucket of the coarser one before it
            begin = _up(begin, RESOLUTIONS[begins[-1][0]])
        begins.append((name, begin))
    ends = [begin for _, begin in begins[1:]] + [2**62]
    found = []
    for (name, begin), end in zip(begins, ends, strict=True):
        width = RESOLUTIONS[name]
        part = BucketRange(name, max(begin, first_s // width * width), min(end, _up(end_s, width)))
        if part.first_s < part.end_s:
            found.append(part)
    return found


def grid_of(parts: Sequence[BucketRange]) -> Grid:
    """Return the buckets of ranges that follow on each other."""
    starts = [np.arange(one.first_s, one.end_s, one.width_s, dtype=np.int64) for one in parts]
    widths = [np.full(len(some), one.width_s, dtype=np.int64) for some, one in zip(starts, parts, strict=True)]
    empty = np.zeros(0, np.int64)
    return Grid(np.concatenate([empty, *starts]), np.concatenate([empty, *widths]))


def _up(at_s: int, width_s: int) -> int:
    return -(-at_s // width_s) * width_s
