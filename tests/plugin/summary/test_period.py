"""A time is compared with the same hours of the days before, as far as these are kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.plugin.host.options import DAY_S, DEFAULT_POINTS
from chancy_metrics.plugin.summary.period import windows
from chancy_metrics.projections.buckets import horizons

NOW_S = 1_773_145_845  # 2026-03-10 12:30:45 UTC
KEPT = horizons(NOW_S * 1_000_000, DEFAULT_POINTS, 90 * DAY_S)


def test_the_last_hour_is_compared_with_the_same_hours_of_the_days_that_are_kept() -> None:
    now, *before = windows(KEPT, NOW_S - 3_600, NOW_S)

    assert (now.first_s, now.end_s) == (NOW_S - 45 - 3_600, NOW_S)
    assert [one.days_before for one in before] == [1, 2, 3, 4, 5, 6]
    assert [one.resolution for one in before[1].parts] == ["1hour"]
    noon_s = NOW_S - 1_845
    assert (before[1].first_s, before[1].end_s) == (noon_s - 3_600 - 2 * DAY_S, noon_s + 3_600 - 2 * DAY_S)


def test_a_week_is_compared_with_the_week_before() -> None:
    found = windows(KEPT, NOW_S - 7 * DAY_S, NOW_S)

    assert [one.days_before for one in found] == [0, 7]


def test_a_time_of_which_nothing_is_kept_has_no_window() -> None:
    assert windows(KEPT, NOW_S - 200 * DAY_S, NOW_S - 190 * DAY_S) == []


@given(st.integers(60, 60 * DAY_S))
def test_every_window_holds_all_of_its_time(length_s: int) -> None:
    for one in windows(KEPT, NOW_S - length_s, NOW_S):
        shift = one.days_before * DAY_S
        assert one.first_s <= NOW_S - length_s - shift < NOW_S - shift <= one.end_s
