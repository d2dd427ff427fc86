"""Map keys to series: the key that each series is shown under, and the keys below a prefix."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from functools import cached_property
from operator import itemgetter

from chancy_metrics.events.facts import Series

_KEY = itemgetter(0)


class Names(Mapping[int, Series]):
    """Series by number; immutable, so that their keys are computed once."""

    def __init__(self, series: Mapping[int, Series] | None = None) -> None:
        self._series = dict(series or {})

    def __getitem__(self, number: int) -> Series:
        return self._series[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._series)

    def __len__(self) -> int:
        return len(self._series)

    def under(self, prefix: str | None) -> list[tuple[str, int]]:
        """Return key and number of every series at or below *prefix*, in whole segments, by key; all for "" or None."""
        if not prefix:
            return self._shown
        first = bisect_left(self._shown, prefix, key=_KEY)
        below = bisect_left(self._shown, f"{prefix}:", key=_KEY)
        end = bisect_left(self._shown, f"{prefix};", key=_KEY)  # ";" follows ":"
        exact = [one for one in self._shown[first : first + 1] if one[0] == prefix]
        return exact + self._shown[below:end]

    def number_of(self, key: str) -> int | None:
        """Return the number of the series shown under *key*; None if there is none."""
        index = bisect_left(self._shown, key, key=_KEY)
        return self._shown[index][1] if index < len(self._shown) and self._shown[index][0] == key else None

    @cached_property
    def _shown(self) -> list[tuple[str, int]]:
        return sorted(shown_keys(self._series).items())


def shown_keys(series: Mapping[int, Series]) -> dict[str, int]:
    """Return key -> series number.

    Of several series with one key, the one with the smallest number has the key itself; the others have their type
    and unit appended to it.
    """
    shown: dict[str, int] = {}
    later: list[int] = []
    for number in sorted(series):
        if shown.setdefault(series[number].key, number) != number:
            later.append(number)
    for number in later:
        key, kind, unit = series[number]
        while key in shown:
            key += f":{kind}:{unit}"
        shown[key] = number
    return shown
