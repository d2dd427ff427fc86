"""Classic histogram buckets of a sketch: how many values are at most each of some powers of two, boundaries of it.

Boundaries must not change while a series lives, or its quantiles are wrong for a while: those of times and attempts are
fixed, and those of custom histograms, whose scale nobody knows, grow with their range, in steps of 256.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import frexp, inf, ldexp

from chancy_metrics.projections.fold.sketch import OFFSET, STEPS
from chancy_metrics.projections.rules.key_parts import key_parts
from chancy_metrics.projections.totals.read import Sketch, Total

#: The sketch of a histogram of which only summaries were imported.
NOTHING = Sketch([], [])
#: Exponents of the first and last boundary by unit: 1 ms to 18 h, and 1 to 64 attempts.
_FIXED = {"seconds": range(-10, 17), "attempts": range(7)}
#: The boundaries of other histograms begin and end at multiples of this exponent.
_STEP = 8
_MAX_BOUNDARIES = 65
#: Of powers of two that are floats.
_MIN_EXPONENT, _MAX_EXPONENT = -1_072, 1_023


def le_buckets(total: Total) -> list[tuple[float, int]]:
    """Return (boundary, number of values at most that) of a histogram's total, ascending; the last boundary is inf.

    Imported summaries are in no sketch, and so below inf only. Their number never changes, and a rate does not see it.
    """
    codes, counts = total.sketch or NOTHING
    counted = [0, *accumulate(counts)]
    found = [(boundary, counted[bisect_right(codes, last)]) for boundary, last in _boundaries(total, codes)]
    return [*found, (inf, total.count)]


def _boundaries(total: Total, codes: list[int]) -> Iterator[tuple[float, int]]:
    """Yield each boundary with the code of the last bucket below it."""
    is_own = key_parts(total.series).subject != "custom"
    exponents: Sequence[int] | None = _FIXED.get(total.series.unit) if is_own else None
    if exponents is None:
        if total.min <= 0:
            yield 0.0, 0
        exponents = _exponents(total, codes)
    for exponent in exponents:
        yield ldexp(1.0, exponent), exponent * STEPS - 1 + OFFSET


def _exponents(total: Total, codes: list[int]) -> Sequence[int]:
    """Return those of a custom histogram."""
    if not codes or codes[-1] <= 0:
        return ()
    smallest = codes[bisect_right(codes, 0)] - OFFSET
    low, high = smallest // STEPS, frexp(total.max)[1]
    step = 1
    while (high - low) / step >= _MAX_BOUNDARIES:
        step *= 2
    first, last = low // (unit := max(step, _STEP)) * unit, -(-high // unit) * unit
    return [one for one in range(first, last + 1, step) if _MIN_EXPONENT <= one <= _MAX_EXPONENT]
