"""Sums are exact: laws by Hypothesis, with Fraction as the oracle."""

from __future__ import annotations

import random
import sys
from decimal import Decimal, Inexact
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.projections.fold.exact_sum import add, canonical, exact_sums, sums_in_millionths, to_float

FLOATS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.builds(lambda digits, exponent: float(f"{digits}e{exponent}"), st.integers(-999, 999), st.integers(-322, 305)),
    st.sampled_from([5e-324, 2.0**-1022, 0.1, 1.0, 2.0**53, 1e16, sys.float_info.max, -0.0]),
    st.integers(-(2**53), 2**53).map(float),
)


@st.composite
def cancelling(draw: st.DrawFn) -> list[float]:
    """Lists in which many values meet their opposite."""
    values = draw(st.lists(FLOATS, max_size=40))
    opposites = [-value for value in values if draw(st.booleans())]
    return draw(st.permutations(values + opposites))


def sums_of(values: list[float], groups: list[int], size: int) -> list[Decimal]:
    return exact_sums(np.array(values, dtype=np.float64), np.array(groups, dtype=np.int64), size)


def sum_of(values: list[float]) -> Decimal:
    return sums_of(values, [0] * len(values), 1)[0]


def same(a: Decimal, b: Decimal) -> bool:
    """Equal down to the digits and the exponent."""
    return a.as_tuple() == b.as_tuple()


@given(cancelling(), st.data())
def test_every_group_s_sum_is_what_fractions_add_up_to(values: list[float], data: st.DataObject) -> None:
    groups = data.draw(st.lists(st.integers(0, 4), min_size=len(values), max_size=len(values)))

    totals = sums_of(values, groups, 6)

    for group, total in enumerate(totals):
        mine = (Fraction(value) for value, at in zip(values, groups, strict=True) if at == group)
        assert Fraction(total) == sum(mine)
        assert same(total, canonical(total))


@given(cancelling() | st.lists(st.integers(-(2**44), 2**44).map(float), max_size=5), st.data())
def test_millionths_and_rests_add_up_to_the_exact_sums(values: list[float], data: st.DataObject) -> None:
    groups = data.draw(st.lists(st.integers(0, 4), min_size=len(values), max_size=len(values)))

    micro, rest = sums_in_millionths(np.array(values, np.float64), np.array(groups, np.int64), 6)

    for group, total in enumerate(sums_of(values, groups, 6)):
        assert Fraction(int(micro[group]), 1_000_000) + Fraction(rest.get(group, 0)) == Fraction(total)


@given(cancelling(), st.randoms(use_true_random=False))
def test_order_changes_nothing(values: list[float], shuffler: random.Random) -> None:
    shuffled = values[:]
    shuffler.shuffle(shuffled)

    assert same(sum_of(shuffled), sum_of(values))


@given(cancelling(), st.integers(0, 80))
def test_sums_of_two_parts_add_up_to_the_sum_of_the_whole(values: list[float], cut: int) -> None:
    parts = add(sum_of(values[:cut]), sum_of(values[cut:]))

    assert same(parts, sum_of(values))


@pytest.mark.parametrize("low, high", [(0, 0), (-3, 3), (-12, 300), (-323, 308)])
def test_many_values_sum_exactly_however_far_apart_they_are(low: int, high: int) -> None:
    source = np.random.default_rng(7)
    values = source.standard_normal(3000) * 10.0 ** source.uniform(low, high, 3000)
    groups = source.integers(0, 5, 3000)

    totals = exact_sums(values, groups, 5)

    for group, total in enumerate(totals):
        assert Fraction(total) == sum(map(Fraction, values[groups == group].tolist()))


@pytest.mark.parametrize("value", [2.0**53 - 1, 2.0**53, 2.0**52 + 0.5, sys.float_info.max, 5e-324])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 1000])
def test_values_at_the_limits_of_a_slice_sum_exactly(value: float, count: int) -> None:
    assert Fraction(sum_of([value] * count)) == Fraction(value) * count


def test_a_tenth_ten_times_reads_as_one() -> None:
    assert to_float(sum_of([0.1] * 10)) == 1.0


def test_summing_leaves_the_values_as_they_were() -> None:
    values = np.array([0.1, 1e300, -5e-324])

    exact_sums(values, np.zeros(3, dtype=np.int64), 1)

    assert values.tolist() == [0.1, 1e300, -5e-324]


def test_groups_without_values_sum_to_zero() -> None:
    assert sums_of([], [], 2) == [Decimal(0), Decimal(0)]
    assert [str(total) for total in sums_of([0.5, -0.5, -0.0], [1, 1, 2], 4)] == ["0", "0", "0", "0"]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="inf or nan"):
        sum_of([1.0, value, 2.0])


@given(FLOATS, FLOATS, FLOATS)
def test_add_is_associative_and_commutative(x: float, y: float, z: float) -> None:
    a, b, c = map(Decimal, (x, y, z))

    assert same(add(a, b), add(b, a))
    assert same(add(add(a, b), c), add(a, add(b, c)))


def test_add_refuses_to_round() -> None:
    with pytest.raises(Inexact):
        add(Decimal("1e1500"), Decimal("1e-1500"))


@pytest.mark.parametrize(
    "text, expected",
    [("-0", "0"), ("0.000", "0"), ("0E+7", "0"), ("1E+3", "1000"), ("100", "100"), ("-2.50", "-2.5")],
)
def test_equal_numbers_have_one_form(text: str, expected: str) -> None:
    assert str(canonical(Decimal(text))) == expected


@given(cancelling())
def test_to_float_is_the_nearest_float(values: list[float]) -> None:
    exact = sum(map(Fraction, values), Fraction(0))
    largest = sys.float_info.max
    try:
        expected = float(exact)
    except OverflowError:
        expected = largest if exact > 0 else -largest

    assert to_float(sum_of(values)) == expected


def test_to_float_stops_at_the_largest_float() -> None:
    largest = sys.float_info.max

    assert to_float(sum_of([largest, largest])) == largest
    assert to_float(sum_of([-largest, -largest])) == -largest
    assert to_float(Decimal("-1e5000")) == -largest
