"""The time that a report is of, and the same hours of the days before it: pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from chancy_metrics.projections.grid import BucketRange, bucket_ranges

_DAY_S = 86_400
_WEEK_S = 7 * _DAY_S


class Window(NamedTuple):
    """Some time, widened to the buckets that are kept of it; seconds since 1970.

    Attributes:
        days_before: How many days before the reported time; 0 for that itself.
        end_s: Exclusive; of the reported time the present moment, inside its last bucket.
    """

    days_before: int
    first_s: int
    end_s: int
    parts: list[BucketRange]


def windows(horizons: Mapping[str, int], since_s: int, now_s: int) -> list[Window]:
    """Return the time from *since_s* to *now_s*, and then those that it is compared with; [] if nothing is kept of it.

    Up to a day is compared with the same hours of the seven days before, what is longer with as long a time as many
    weeks before as it takes. A time that is no longer kept in full is left out, and so are hours of which only the
    whole day is kept: by default those of the seventh day.
    """
    length_s = now_s - since_s
    if length_s <= _DAY_S:
        days = list(range(1, 8))
    else:
        days = [7 * -(-length_s // _WEEK_S)]
    found = []
    for before in [0, *days]:
        shift = before * _DAY_S
        parts = bucket_ranges(horizons, since_s - shift, now_s - shift)
        if not parts or (before and parts[0].first_s > since_s - shift):
            continue
        if before and length_s <= _DAY_S and parts[0].width_s == _DAY_S:
            continue
        end_s = parts[-1].end_s if before else min(now_s, parts[-1].end_s)
        found.append(Window(before, parts[0].first_s, end_s, parts))
    return found if found and not found[0].days_before else []
