"""Bucket boundaries and how long each resolution is kept; buckets are UTC and begin at multiples of their width."""

from __future__ import annotations

from collections.abc import Mapping

from chancy_metrics.events.schema import RESOLUTIONS


def bucket_of(at_us: int, width_s: int) -> int:
    """Return the start of the bucket that holds *at_us*, seconds since 1970."""
    return at_us // (width_s * 1_000_000) * width_s


def retention_s(resolution: str, max_points: Mapping[str, int], maximum_metric_age_s: int) -> int:
    """Return how far back *resolution* is kept, seconds: a number of buckets or an age, whichever is shorter."""
    return min(max_points[resolution] * RESOLUTIONS[resolution], maximum_metric_age_s)


def horizons(now_us: int, max_points: Mapping[str, int], maximum_metric_age_s: int) -> dict[str, int]:
    """Return resolution -> start of the oldest bucket kept, seconds since 1970.

    The current bucket counts, and a bucket that is kept in part is kept whole.
    """
    oldest = {}
    for resolution, width in RESOLUTIONS.items():
        end = bucket_of(now_us, width) + width
        oldest[resolution] = (end - retention_s(resolution, max_points, maximum_metric_age_s)) // width * width
    return oldest
