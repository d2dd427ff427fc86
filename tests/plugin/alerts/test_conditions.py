"""Conditions and firings agree with an oracle that looks at each second by itself."""

from __future__ import annotations

from math import ceil, isnan
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chancy_metrics.events.facts import Kind
from chancy_metrics.plugin.alerts.conditions import (
    HOLDS,
    HOLDS_NOT,
    UNKNOWN,
    Firing,
    Judged,
    Points,
    Runs,
    firings,
    judge,
)
from chancy_metrics.plugin.alerts.rules import Rule
from chancy_metrics.projections.fold.sketch import codes
from chancy_metrics.projections.grid import Grid

WIDTHS = (60, 300, 3_600)
A_RULE = Rule("r", "app:n", (), None, 0, "above", 1.0, 0, 0)


class Bucket(NamedTuple):
    """One bucket: how wide, whether the log holds anything in it, and what was observed of the series."""

    width_s: int
    alive: bool
    values: list[float]


def a_grid(buckets: list[Bucket]) -> Grid:
    widths = np.array([one.width_s for one in buckets], np.int64)
    return Grid(np.cumsum(widths) - widths, widths)


def the_points(buckets: list[Bucket]) -> Points:
    """The points of the values, as a fold stores them."""
    filled = [one.values or [np.nan] for one in buckets]
    runs = [np.unique(codes(np.array(one.values)), return_counts=True) if one.values else ([], []) for one in buckets]
    return Points(
        np.array([float(len(one.values)) for one in buckets]),
        np.array([float(sum(one.values)) for one in buckets]),
        np.array([min(one) for one in filled]),
        np.array([max(one) for one in filled]),
        np.array([one[-1] for one in filled]),
        Runs(
            np.cumsum([0, *(len(run) for run, _ in runs)]),
            np.array([code for run, _ in runs for code in run], np.int32),
            np.array([count for _, counts in runs for count in counts], np.int64),
        ),
    )


def alive(buckets: list[Bucket]) -> Any:
    return np.array([one.alive for one in buckets], bool)


def window_of(buckets: list[Bucket], index: int, window_s: int) -> list[Bucket]:
    """The buckets that lie whole in the window that ends with bucket *index*; that one in any case."""
    found, left = [buckets[index]], window_s - buckets[index].width_s
    for one in reversed(buckets[:index]):
        left -= one.width_s
        if left < 0:
            break
        found.insert(0, one)
    return found


def value_by_hand(value: str, window_s: int, window: list[Bucket]) -> float | None:
    values = [number for one in window for number in one.values]
    seconds = sum(one.width_s for one in window)
    known_s = sum(one.width_s for one in window if one.alive)
    if value in ("sum", "count"):
        return (sum(values) if value == "sum" else len(values)) * min(1, window_s / seconds)
    if value == "rate":
        return sum(values) / known_s
    if not values:
        return None
    if value == "p95":
        return sorted(values)[ceil(len(values) * 95 / 100) - 1]
    return {"max": max, "min": min, "last": lambda some: some[-1], "avg": lambda some: sum(some) / len(some)}[value](
        values
    )


def holds_by_hand(rule: Rule, kind: Kind, value: str, buckets: list[Bucket], index: int) -> int:
    window = window_of(buckets, index, rule.window_s)
    count = sum(len(one.values) for one in window)
    whole = sum(one.width_s for one in window) >= rule.window_s and all(one.alive for one in window)
    if not buckets[index].alive:
        return UNKNOWN
    if rule.side == "absent":
        return HOLDS_NOT if count else HOLDS if whole else UNKNOWN
    found = value_by_hand(value, rule.window_s, window)
    if found is None:
        return UNKNOWN if kind == "gauge" else HOLDS_NOT
    met = found > rule.threshold if rule.side == "above" else found < rule.threshold
    answer = HOLDS if met and count >= rule.min_count else HOLDS_NOT
    if value in ("sum", "count") and not whole and met != (rule.side == "above"):
        return UNKNOWN
    if value in ("sum", "count") and not whole and answer == HOLDS_NOT and rule.side == "above":
        return UNKNOWN
    return answer


@st.composite
def buckets(draw: st.DrawFn) -> list[Bucket]:
    """Coarser buckets before finer ones, and nothing observed where the log holds nothing."""
    widths = sorted(draw(st.lists(st.sampled_from(WIDTHS), max_size=30)), reverse=True)
    numbers = st.lists(st.integers(0, 4).map(float), max_size=4)
    made = []
    for width in widths:
        lives = draw(st.booleans()) or draw(st.booleans())
        made.append(Bucket(width, lives, draw(numbers) if lives else []))
    return made


KINDS: list[tuple[Kind, str]] = [
    *(("counter", value) for value in ("sum", "rate")),
    *(("gauge", value) for value in ("max", "min", "avg", "last")),
    *(("histogram", value) for value in ("max", "min", "avg", "count", "sum", "rate", "p95")),
]


def test_a_quantile_is_not_judged_where_observations_were_imported() -> None:
    made = [Bucket(60, True, [1.0, 2.0]), Bucket(60, True, [1.0, 2.0])]
    points = the_points(made)
    points = points._replace(observations=points.observations + np.array([0.0, 7.0]))
    rule = A_RULE._replace(value="p95", window_s=60, side="above", threshold=0.5)

    found = judge(rule, "histogram", a_grid(made), alive(made), points)

    assert found.holds.tolist() == [HOLDS, UNKNOWN]
    assert isnan(found.values[1])


@settings(max_examples=400, deadline=None)
@given(
    buckets(),
    st.sampled_from(KINDS),
    st.sampled_from([60, 120, 600, 3_600, 7_200]),
    st.sampled_from(["above", "below", "absent"]),
    st.integers(0, 6).map(float),
    st.integers(0, 5),
)
def test_each_bucket_is_judged_as_by_hand(
    made: list[Bucket], of: tuple[Kind, str], window_s: int, side: Any, threshold: float, min_count: int
) -> None:
    kind, value = of
    rule = A_RULE._replace(
        value=None if side == "absent" else value, window_s=window_s, side=side, threshold=threshold + 0.5,
        min_count=min_count,
    )  # fmt: skip

    found = judge(rule, kind, a_grid(made), alive(made), the_points(made))

    assert found.holds.tolist() == [holds_by_hand(rule, kind, value, made, index) for index in range(len(made))]
    if side != "absent":
        for index, got in enumerate(found.values.tolist()):
            expected = value_by_hand(value, window_s, window_of(made, index, window_s)) if made[index].alive else None
            assert isnan(got) if expected is None else got == pytest.approx(expected, rel=0.0055)


@given(buckets(), st.data())
def test_a_share_is_of_the_sums_in_the_window(made: list[Bucket], data: st.DataObject) -> None:
    numbers = st.lists(st.integers(0, 4).map(float), max_size=4)
    rest = [one._replace(values=data.draw(numbers) if one.alive else []) for one in made]
    rule = A_RULE._replace(of=("app:n", "app:rest"), window_s=600, threshold=0.45, min_count=3)
    points, others = the_points(made), the_points(rest)

    found = judge(rule, "counter", a_grid(made), alive(made), points, [points, others])

    for index, holds in enumerate(found.holds.tolist()):
        part = sum(sum(one.values) for one in window_of(made, index, 600))
        whole = part + sum(sum(one.values) for one in window_of(rest, index, 600))
        met = whole >= 3 and part / whole > 0.45
        assert holds == (UNKNOWN if not made[index].alive else HOLDS if met else HOLDS_NOT)


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 5]), st.sampled_from([HOLDS, HOLDS_NOT, UNKNOWN])), max_size=30),
    st.integers(0, 8),
)
def test_firings_are_those_of_an_oracle_that_looks_at_each_second(made: list[tuple[int, int]], for_s: int) -> None:
    widths = np.array([width for width, _ in made], np.int64)
    grid = Grid(np.cumsum(widths) - widths, widths)
    judged = Judged(np.array([one for _, one in made], np.int8), np.arange(len(made), dtype=np.float64))

    found = list(firings(A_RULE._replace(for_s=for_s), grid, judged))

    seconds = [holds for width, holds in made for _ in range(width)]
    assert fired_seconds(found, len(seconds)) == by_the_second(seconds, for_s)
    assert sum(one.unknown_s for one in found) == sum(
        fires and holds == UNKNOWN for fires, holds in zip(by_the_second(seconds, for_s), seconds, strict=True)
    )
    assert (
        [one for one in found if one.until_s is None] == found[-1:]
        if ends_firing(seconds, for_s)
        else not [one for one in found if one.until_s is None]
    )


def by_the_second(seconds: list[int], for_s: int) -> list[bool]:
    """Of each second, whether the rule fires in it."""
    held, fires = 0, []
    for holds in seconds:
        if holds == HOLDS_NOT:
            held = 0
        fires.append((held >= for_s and holds == HOLDS) or held > for_s)
        held += holds == HOLDS
    return fires


def ends_firing(seconds: list[int], for_s: int) -> bool:
    return bool(seconds) and by_the_second(seconds, for_s)[-1]


def fired_seconds(found: list[Firing], end_s: int) -> list[bool]:
    spans = [(one.since_s, end_s if one.until_s is None else one.until_s) for one in found]
    return [any(since <= second < until for since, until in spans) for second in range(end_s)]


@pytest.mark.parametrize(("side", "worst"), [("above", (7.0, 120)), ("below", (2.0, 60))])
def test_the_worst_value_is_the_farthest_past_the_threshold_with_its_bucket(
    side: Any, worst: tuple[float, int]
) -> None:
    grid = Grid(np.array([0, 60, 120, 180]), np.full(4, 60))
    judged = Judged(np.array([1, 1, 1, 0], np.int8), np.array([3.0, 2.0, 7.0, 9.0]))

    (only,) = firings(A_RULE._replace(side=side), grid, judged)

    assert (only.worst, only.worst_s) == worst
    assert (only.since_s, only.until_s, only.width_s) == (0, 180, 60)
