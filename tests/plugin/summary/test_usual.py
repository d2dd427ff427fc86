"""What is usual comes from the days before, and only what is far outside it is a change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.plugin.summary.usual import Usual, counts_differ, is_outside, usual

DAYS = st.lists(st.floats(0, 1e6), min_size=1, max_size=7)


@given(DAYS, st.floats(0, 1e6))
def test_what_any_day_had_is_never_outside(days: list[float], now: float) -> None:
    before = usual(days)

    assert not is_outside(days[0], before)
    if is_outside(now, before):
        assert now < min(days) or now > max(days)


@pytest.mark.parametrize(
    ("now", "days", "outside"),
    [
        (20, [10, 9, 11], True),
        (19, [10, 9, 11], False),  # not twice the median
        (20, [10, 9, 25], False),  # one day had more
        (5, [10, 9, 11], True),
        (6, [10, 9, 11], False),
        (0, [10, 9, 11], True),
        (1, [0, 0, 0], True),
        (0, [0, 0, 0], False),
        (9, [], False),
    ],
)
def test_outside_is_twice_or_half_the_median_and_beyond_all_days(now: float, days: list[float], outside: bool) -> None:
    assert is_outside(now, usual(days)) is outside


@pytest.mark.parametrize(
    ("now", "median", "differ"),
    [(19, 0, False), (20, 0, True), (40, 20, True), (39, 20, False), (0, 20, True), (10, 20, False), (0, 19, False)],
)
def test_a_count_changes_by_more_than_chance(now: float, median: float, differ: bool) -> None:
    assert counts_differ(now, Usual(median, median, median, 1)) is differ
