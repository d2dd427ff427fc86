"""A range of time, and which buckets of each resolution lie in it whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import NamedTuple

from chancy_metrics.events.schema import RESOLUTIONS

_US = 1_000_000
_DAY_S = RESOLUTIONS["1day"]
_HOUR_S = RESOLUTIONS["1hour"]


class Span(NamedTuple):
    """From *since_us* to before *until_us*, microseconds since 1970; None is without an end on that side."""

    since_us: int | None = None
    until_us: int | None = None

    @property
    def is_everything(self) -> bool:
        return self.since_us is None and self.until_us is None

    def first_buckets(self, horizons: Mapping[str, int]) -> dict[str, int]:
        """Resolution -> start of the first bucket that lies in it whole and is kept, seconds."""
        if self.since_us is None:
            return dict(horizons)
        return {
            resolution: max(horizons[resolution], -(-self.since_us // (width * _US)) * width)
            for resolution, width in RESOLUTIONS.items()
        }

    def end_buckets(self) -> dict[str, int] | None:
        """Resolution -> start of the first bucket that does not lie in it whole; None without an end."""
        if self.until_us is None:
            return None
        return {resolution: self.until_us // (width * _US) * width for resolution, width in RESOLUTIONS.items()}


def draw(span: Span, horizons: Mapping[str, int], now_us: int, chance: Random) -> Iterator[Span]:
    """Yield days of *span* in random order, whole or one hour of each where hours are kept; then the rest, whole.

    An hour costs less and shows the finer resolutions alone. The present day is one of them. Whoever takes all has
    the whole of *span*.
    """
    first_s = max(min(horizons.values()), -(2**62) if span.since_us is None else span.since_us // _US)
    end_s = now_us // _US + 1 if span.until_us is None else -(-span.until_us // _US)
    days = list(range(first_s // _DAY_S * _DAY_S, end_s, _DAY_S))
    chance.shuffle(days)
    rest = []
    for day in days:
        hours = range(max(day, first_s // _HOUR_S * _HOUR_S), min(day + _DAY_S, end_s), _HOUR_S)
        if hours and day >= horizons["1hour"] and chance.random() < 0.5:
            rest.append(day)
            yield _inside(span, chance.choice(hours), _HOUR_S)
        else:
            yield _inside(span, day, _DAY_S)
    for day in rest:
        yield _inside(span, day, _DAY_S)


def _inside(span: Span, start_s: int, width_s: int) -> Span:
    """The part of *span* that lies in so many seconds from *start_s* on."""
    since_us, until_us = start_s * _US, (start_s + width_s) * _US
    return Span(
        since_us if span.since_us is None else max(since_us, span.since_us),
        until_us if span.until_us is None else min(until_us, span.until_us),
    )
