"""The rules an observation must keep."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.events.errors import InvalidObservation
from chancy_metrics.events.facts import Series, check_series, check_value, instants, microseconds


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Broken:
    def __float__(self) -> float:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0, 0.0),
        (2**70, 2.0**70),
        (2**53 + 1, 2.0**53),
        (-(2**1023), -(2.0**1023)),
        (1e308, 1e308),
        (5e-324, 5e-324),
        (Decimal("0.1"), 0.1),
        (Decimal("1E-400"), 0.0),
        (Fraction(1, 3), 1 / 3),
        (Fraction(2**1100, 2**1099 + 1), 2.0),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float64(0.1), 0.1),
        (np.float16(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.int8(-3), -3.0),
        (np.uint64(2**64 - 1), 2.0**64),
    ],
)
def test_every_kind_of_real_number_is_taken_as_the_nearest_float(value: Any, number: float) -> None:
    assert check_value(value, "app:x") == number
    assert type(check_value(value, "app:x")) is float


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        Decimal("1E+400"),
        2**2000,
        Fraction(2**2000),
        np.float32("nan"),
        np.float64("inf"),
        np.longdouble("1e4000"),
        True,
        False,
        np.bool_(True),
        np.array(True),
        "1",
        np.str_("1"),
        b"1",
        bytearray(b"1"),
        memoryview(b"1"),
        None,
        1j,
        np.complex64(1),
        np.complex128(1),
        np.timedelta64(5, "s"),
        [1],
        Mute(),
        Broken(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_finite_real_number_is_refused_by_key_and_rule(value: Any) -> None:
    with pytest.raises(InvalidObservation, match=r"value .* of key 'app:x' must be ") as refusal:
        check_value(value, "app:x")

    assert refusal.value.rule == "value"


def test_a_refusal_shows_a_value_that_can_not_be_shown_and_cuts_a_long_one() -> None:
    with pytest.raises(InvalidObservation, match="<Mute whose repr raised RuntimeError> of key"):
        check_value(Mute(), "app:x")
    with pytest.raises(InvalidObservation) as refusal:
        check_value("9" * 10_000, "app:x")

    assert len(str(refusal.value)) < 200


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.fractions())
def test_a_number_is_rounded_once_to_the_nearest_float(value: float | int | Fraction) -> None:
    try:
        nearest = float(value)
    except OverflowError:
        nearest = math.inf

    if math.isinf(nearest):
        with pytest.raises(InvalidObservation):
            check_value(value, "app:x")
    else:
        assert check_value(value, "app:x") == nearest


def test_negative_zero_is_recorded_as_zero() -> None:
    assert math.copysign(1, check_value(-0.0, "app:x")) == 1
    assert math.copysign(1, check_value(np.float64(-0.0), "app:x")) == 1


@pytest.mark.parametrize("key", ["a", "é" * 512, "a" * 1024, "app:x y\n'\"\\%_", "\U0001f600"])
def test_a_key_of_1_to_1024_bytes_makes_a_series(key: str) -> None:
    assert check_series(key, "counter", "count") == Series(key, "counter", "count")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "1 to 1024 bytes"),
        ("a" * 1025, "1025 bytes; at most 1024"),
        ("é" * 513, "1026 bytes; at most 1024"),
        ("a\x00b", "NUL"),
        ("a\ud800", "lone surrogate"),
        (None, "1 to 1024 bytes"),
        (b"app", "1 to 1024 bytes"),
        (1, "1 to 1024 bytes"),
        (Mute(), "repr raised RuntimeError"),
    ],
)
def test_any_other_key_is_refused_with_the_reason(key: Any, reason: str) -> None:
    with pytest.raises(InvalidObservation, match=reason) as refusal:
        check_series(key, "counter", "count")

    assert refusal.value.rule == "key"


@pytest.mark.parametrize("unit", ["", "u" * 65, "a\x00", "\udfff", None, 1, Mute()])
def test_a_unit_that_is_not_1_to_64_characters_is_refused(unit: Any) -> None:
    with pytest.raises(InvalidObservation, match="unit") as refusal:
        check_series("app:x", "gauge", unit)

    assert refusal.value.rule == "unit"
    assert check_series("app:x", "gauge", "é" * 64).unit == "é" * 64


def test_a_string_of_a_foreign_kind_becomes_a_plain_one() -> None:
    class Key(str):
        __slots__ = ()

    series = check_series(Key("app:x"), "gauge", Key("s"))

    assert (type(series.key), type(series.unit)) == (str, str)


class Unhashable(tzinfo):
    """As dateutil's are."""

    __hash__ = None  # type: ignore[assignment]

    def utcoffset(self, dt: datetime | None) -> timedelta:
        return timedelta(hours=2)

    def dst(self, dt: datetime | None) -> timedelta:
        return timedelta(0)


class NeedsATime(tzinfo):
    """An offset that depends on the time, and no answer without one."""

    def utcoffset(self, dt: datetime | None) -> timedelta:
        assert dt is not None
        return timedelta(hours=1 if dt.month < 6 else 2)

    def dst(self, dt: datetime | None) -> timedelta:
        return timedelta(0)


ZONES = st.sampled_from(
    [
        *(UTC, timezone(timedelta(hours=5, minutes=30)), timezone.min, Unhashable(), NeedsATime()),
        *map(ZoneInfo, ("UTC", "Europe/Berlin", "Asia/Kolkata")),
    ]
)


@given(st.lists(st.datetimes(timezones=ZONES), min_size=1))
def test_microseconds_are_exact_in_every_zone_and_century(times: list[datetime]) -> None:
    since = instants(times).absolute()

    assert since == [microseconds(time) for time in times]
    for time, us in zip(times, since, strict=True):
        assert timedelta(microseconds=us) == time - datetime(1970, 1, 1, tzinfo=UTC)
