"""A range of time is cut into buckets of the finest resolution kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.grid import BucketRange, bucket_ranges, grid_of

NOW_S = 1_773_145_800  # 2026-03-10 12:30:00 UTC
NOON_S = NOW_S - 1_800
POINTS = {"1min": 60, "5min": 288, "1hour": 168, "1day": 90}
KEPT = horizons(NOW_S * 1_000_000, POINTS, 90 * 86_400)


def test_the_last_hour_is_read_by_minutes_and_what_is_older_by_what_is_kept_of_it() -> None:
    assert bucket_ranges(KEPT, NOW_S - 3 * 86_400, NOW_S) == [
        BucketRange("1hour", NOON_S - 3 * 86_400, NOON_S - 82_800),
        BucketRange("5min", NOON_S - 82_800, NOON_S - 1_500),
        BucketRange("1min", NOON_S - 1_500, NOW_S),
    ]


def test_a_moment_in_a_bucket_stands_for_the_whole_of_it() -> None:
    assert bucket_ranges(KEPT, NOW_S - 90, NOW_S - 10) == [BucketRange("1min", NOW_S - 120, NOW_S)]


def test_time_before_every_horizon_has_no_bucket() -> None:
    assert bucket_ranges(KEPT, 0, min(KEPT.values()) - 1) == []
    assert len(grid_of([]).starts) == 0


kept_points = st.fixed_dictionaries({name: st.integers(1, 400) for name in RESOLUTIONS})


@given(kept_points, st.integers(1, 90 * 86_400), st.integers(0, 100 * 86_400), st.integers(0, 90_000))
def test_the_buckets_are_kept_and_leave_no_gap(points: dict[str, int], age_s: int, since_s: int, until_s: int) -> None:
    kept = horizons(NOW_S * 1_000_000, points, age_s)
    first_s, end_s = sorted((NOW_S - since_s, NOW_S - until_s))
    parts = bucket_ranges(kept, first_s, end_s)
    grid = grid_of(parts)

    assert all(one.first_s >= kept[one.resolution] and one.first_s % one.width_s == 0 for one in parts)
    assert (grid.ends[:-1] == grid.starts[1:]).all()
    if parts:
        assert grid.ends[-1] >= end_s
        assert grid.starts[0] <= max(first_s, min(kept.values()))
    for one in parts:  # a finer resolution is left out only for the rest of a bucket of a coarser one
        finer = [name for name, width in RESOLUTIONS.items() if width < one.width_s]
        assert all(one.end_s - one.width_s < kept[name] for name in finer)
