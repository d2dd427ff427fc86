"""Decide what is usual at the same hours of the days before, and what is outside of that: pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import median

import msgspec

#: A change matters if it is at least so many times as much, or as little, as is usual, and outside what all days had.
RATIO = 2.0
#: Fewer jobs or observations than this are compared with nothing.
MIN_COUNT = 20
#: A count changes by so many of its standard deviations at least, if jobs came at random.
_DEVIATIONS = 3.0


class Usual(msgspec.Struct, frozen=True):
    """What was there at the same hours of the days before.

    Attributes:
        median: Of the days.
        least: Of the days; so *most*.
        days: How many could be compared.
    """

    median: float
    least: float
    most: float
    days: int


def usual(days: Sequence[float]) -> Usual | None:
    """Return what is usual; None without any day to compare with."""
    return Usual(median(days), min(days), max(days), len(days)) if days else None


def is_outside(now: float, before: Usual | None, *, least_difference: float = 0.0) -> bool:
    """Whether *now* is outside what all days had, `RATIO` times their median, and by so much."""
    if before is None or before.least <= now <= before.most:
        return False
    if abs(now - before.median) < least_difference:
        return False
    return now >= RATIO * before.median or now * RATIO <= before.median


def counts_differ(now: float, before: Usual | None) -> bool:
    """Whether a number of jobs is outside what is usual, by more than chance makes it."""
    if before is None or max(now, before.median) < MIN_COUNT:
        return False
    return is_outside(now, before, least_difference=_DEVIATIONS * sqrt(max(now, before.median)))
