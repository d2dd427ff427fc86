"""Add up float64 exactly, into decimals: the same in every order and grouping, and on every CPU."""

from __future__ import annotations

import math
import sys
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation

import numpy as np
from numpy.typing import NDArray

# A float64 is a multiple of 2**-1074.
LEAST_BIT = 1074
# 309 digits before the point and 1,074 after it make one float64; the rest is room for 10**600 of them.
EXACT = Context(
    prec=2000,
    rounding=ROUND_HALF_EVEN,
    Emin=-999_999,
    Emax=999_999,
    capitals=1,
    clamp=0,
    flags=[],
    traps=[Inexact, InvalidOperation],
)
ZERO = Decimal(0)
#: 64 bits hold whole numbers below this as millionths; float64 adds them up exactly.
_MAX_WHOLE = 2.0**43


def exact_sums(values: NDArray[np.float64], groups: NDArray[np.int64], size: int) -> list[Decimal]:
    """Return the exact sum of each group's values, in canonical form.

    The values are cut into slices of bits, from the top: each slice is a whole number small enough for
    float64 to add up without rounding, and what is left makes the next one, until nothing is. The wider
    apart the exponents, the more slices; whole numbers need one.

    Args:
        values: Finite numbers.
        groups: The group of each value, 0 to size - 1.
        size: How many groups there are; one without values sums to 0.

    Raises:
        ValueError: If a value is infinite or not a number.
    """
    if not values.size:
        return [ZERO] * size
    peak = _peak(values)
    if not math.isfinite(peak):
        raise ValueError(f"can't sum {values.size} values: inf or nan among them; leave those out")
    largest = int(np.bincount(groups, minlength=size).max())
    # 2**bits * largest <= 2**53, up to where float64 adds whole numbers exactly.
    bits = 53 - (largest - 1).bit_length()
    if peak < 2.0**bits and bool((np.trunc(values) == values).all()):
        return list(map(Decimal, _add_up(groups, values, size).tolist()))

    slices: list[tuple[int, NDArray[np.int64]]] = []
    rest, part = values.copy(), np.empty_like(values)
    while peak:
        shift = min(bits - math.frexp(peak)[1], LEAST_BIT)
        _scale(rest, shift, part)
        np.trunc(part, out=part)
        slices.append((shift, _add_up(groups, part, size)))
        rest -= np.multiply(part, 2.0**-shift, out=part)
        left = np.count_nonzero(rest)
        if left < rest.size // 2:
            keep = np.flatnonzero(rest)
            rest, groups, part = rest[keep], groups[keep], part[:left]
        peak = _peak(rest) if left else 0.0
    return _join(slices, size)


def sums_in_millionths(
    values: NDArray[np.float64], groups: NDArray[np.int64], size: int
) -> tuple[NDArray[np.int64], dict[int, Decimal]]:
    """Return `exact_sums` as whole millionths, and group -> the sum of each other group, whose millionths are 0."""
    if values.size and bool((np.trunc(values) == values).all()) and _peak(values) * values.size < _MAX_WHOLE:
        return _add_up(groups, values, size) * 1_000_000, {}
    return np.zeros(size, np.int64), {
        group: total for group, total in enumerate(exact_sums(values, groups, size)) if total
    }


def add(a: Decimal, b: Decimal) -> Decimal:
    """Return a + b, never rounded, in canonical form.

    Raises:
        decimal.Inexact: If the sum has more digits than any sum of float64s.
    """
    return canonical(EXACT.add(a, b))


def canonical(a: Decimal) -> Decimal:
    """Return the one form of a number: no positive exponent, no -0, no zeros at the end of a fraction.

    What PostgreSQL's trim_scale() returns is in this form already.
    """
    # normalize() makes 1E+2 of 100; adding 0 brings its exponent back to 0, and makes 0 of -0.
    return EXACT.add(EXACT.normalize(a), ZERO)


def to_float(total: Decimal) -> float:
    """Return the nearest finite float64; beyond the largest one that, since JSON has no infinity."""
    return max(-sys.float_info.max, min(sys.float_info.max, float(total)))


def _peak(values: NDArray[np.float64]) -> float:
    """Return the greatest magnitude; nan if there is a nan."""
    high, low = float(values.max()), float(values.min())
    return high if high > -low else -low


def _scale(values: NDArray[np.float64], shift: int, out: NDArray[np.float64]) -> None:
    """Put values * 2**shift into *out*; only what falls far below 1 is rounded."""
    # ldexp would do, at fifteen times the cost; but 2.0**1024 is no float64.
    first = min(shift, sys.float_info.max_exp - 1)
    np.multiply(values, 2.0**first, out=out)
    if first < shift:
        out *= 2.0 ** (shift - first)


def _add_up(groups: NDArray[np.int64], whole: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    return np.bincount(groups, weights=whole, minlength=size).astype(np.int64)


def _join(slices: list[tuple[int, NDArray[np.int64]]], size: int) -> list[Decimal]:
    """Return each group's total over all slices; one is its shift and its sums in units of 2**-shift."""
    unit = max([0, *(shift for shift, _ in slices)])
    totals = [0] * size
    for shift, sums in slices:
        used = np.flatnonzero(sums)
        for group, part in zip(used.tolist(), sums[used].tolist(), strict=True):
            totals[group] += part << (unit - shift)
    least = EXACT.scaleb(Decimal(5**unit), -unit)
    return [canonical(EXACT.multiply(Decimal(total), least)) for total in totals]
