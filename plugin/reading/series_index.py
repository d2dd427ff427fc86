"""Find keys of a replica by their start, by words in them, and by likeness to a key that does not exist."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import NamedTuple

from chancy_metrics.events.facts import Kind
from chancy_metrics.projections.rules.measured import is_table_size

#: For a key that does not exist: keys compared with it, on each side of its index in each sorted list, and their
#: letters compared.
_AROUND, _COMPARED = 40, 200


class Listed(NamedTuple):
    """A series that has points, by the key it is shown under."""

    key: str
    type: Kind
    unit: str


def place(key: str) -> tuple[bool, str]:
    """Return the place of a key in lists: by key, and those of sizes of tables after all others."""
    return is_table_size(key), key


class SeriesIndex:
    """Series in the order of `place`; immutable, so that it is made once for many requests."""

    def __init__(self, series: Iterable[Listed]) -> None:
        # Plain tuples of strings: the garbage collector stops tracking them, but never NamedTuples.
        self._series = {key: (kind, unit) for key, kind, unit in series}
        self._keys = sorted(self._series, key=place)
        self._others = bisect_left(self._keys, (True, ""), key=place)
        self._folded = [key.casefold() for key in self._keys]
        self._backwards = sorted(key[::-1] for key in self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, begin: str = "", words: Sequence[str] = ()) -> Sequence[str]:
        """Return the keys that begin with *begin* and have each of *words* in them, in any case; in order.

        Without words it takes slices; with them it checks every key with that prefix.
        """
        others, sizes = self._under(begin, 0, self._others), self._under(begin, self._others, len(self._keys))
        if not words:
            return self._keys[slice(*others)] + self._keys[slice(*sizes)]
        indexes: Iterable[int] = [*range(*others), *range(*sizes)]
        for word in map(str.casefold, words):
            indexes = [index for index in indexes if word in self._folded[index]]
        return [self._keys[index] for index in indexes]

    def _under(self, begin: str, first: int, last: int) -> tuple[int, int]:
        """Return from where to where keys begin with *begin*, of those from *first* to before *last*."""
        first = bisect_left(self._keys, begin, first, last)
        return first, bisect_right(self._keys, begin, first, last, key=lambda key: key[: len(begin)])

    @cached_property
    def categories(self) -> dict[str, list[str]]:
        """First segments of keys -> the segments that follow them, sorted."""
        categories: dict[str, set[str]] = defaultdict(set)
        for key in self._keys:
            category, _, name = key.partition(":")
            categories[category].add(name.split(":", 1)[0])
        return {key: sorted(names) for key, names in categories.items()}

    def series(self, key: str) -> Listed:
        """Return the series of a key; raises KeyError if there is none."""
        return Listed(key, *self._series[key])

    def near(self, key: str) -> list[str]:
        """Return up to three keys like one that does not exist, the most alike first.

        Compares those beside it in the sorted keys, and in the sorted keys read backwards: they share its start or its
        end. So a million keys take as long as a hundred.
        """
        there = {*_around(self._keys, key, 0, self._others), *_around(self._keys, key, self._others, len(self._keys))}
        there.update(one[::-1] for one in _around(self._backwards, key[::-1], 0, len(self._keys)))
        compared = {one[:_COMPARED]: one for one in sorted(there)}
        return [compared[like] for like in get_close_matches(key[:_COMPARED], compared, n=3)]


def _around(ordered: Sequence[str], key: str, first: int, last: int) -> Sequence[str]:
    """Return what is beside *key* from *first* to before *last*, where *ordered* is sorted."""
    index = bisect_left(ordered, key, first, last)
    return ordered[max(first, index - _AROUND) : min(last, index + _AROUND)]
