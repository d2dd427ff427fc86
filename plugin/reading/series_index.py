"""The keys of one copy of the cache, in the orders in which they are looked for: by beginning, by what is in them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import NamedTuple

from chancy_metrics.events.facts import Kind

#: Keys compared letter by letter with one that nobody has, on each side of its place in each order; letters compared.
_AROUND, _COMPARED = 40, 200


class Listed(NamedTuple):
    """A series that has points, by the key it is shown under."""

    key: str
    type: Kind
    unit: str


class SeriesIndex:
    """Series in the order of their keys; unchanging, so that it is made once for many requests."""

    def __init__(self, series: Iterable[Listed]) -> None:
        # Plain tuples of texts: the collector of garbage looks at them once, and at named ones each time.
        self._series = {key: (kind, unit) for key, kind, unit in series}
        self._keys = sorted(self._series)
        self._folded = [key.casefold() for key in self._keys]
        self._backwards = sorted(key[::-1] for key in self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, begin: str = "", words: Sequence[str] = ()) -> Sequence[str]:
        """Return the keys that begin with *begin* and have each of *words* in them, in any case; in order.

        Without words it takes a slice; with them it looks at every key that begins so.
        """
        first = bisect_left(self._keys, begin)
        last = bisect_right(self._keys, begin, lo=first, key=lambda key: key[: len(begin)])
        if not words:
            return self._keys[first:last]
        places: Iterable[int] = range(first, last)
        for word in map(str.casefold, words):
            places = [place for place in places if word in self._folded[place]]
        return [self._keys[place] for place in places]

    @cached_property
    def categories(self) -> dict[str, list[str]]:
        """First segments of keys -> the segments that follow on them, in order."""
        categories: dict[str, set[str]] = defaultdict(set)
        for key in self._keys:
            category, _, name = key.partition(":")
            categories[category].add(name.split(":", 1)[0])
        return {key: sorted(names) for key, names in categories.items()}

    def series(self, key: str) -> Listed:
        """Return the series of a key that is there."""
        return Listed(key, *self._series[key])

    def near(self, key: str) -> list[str]:
        """Return up to three keys that are like one that is not there, the most alike first.

        Compared are those beside its place in the order of keys, and in that of keys read backwards: they share their
        beginning or their end with it. So it takes as long among a million keys as among a hundred.
        """
        there = {*_around(self._keys, key), *(one[::-1] for one in _around(self._backwards, key[::-1]))}
        compared = {one[:_COMPARED]: one for one in sorted(there)}
        return [compared[like] for like in get_close_matches(key[:_COMPARED], compared, n=3)]


def _around(ordered: Sequence[str], key: str) -> Sequence[str]:
    place = bisect_left(ordered, key)
    return ordered[max(0, place - _AROUND) : place + _AROUND]
