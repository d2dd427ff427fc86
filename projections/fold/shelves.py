"""Add up folds whose points take much memory: packed, on shelves of some series each, and taken out shelf by shelf."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from zlib import crc32

import numpy as np

from chancy_metrics.events.facts import Series
from chancy_metrics.projections.fold.accumulator import Accumulator
from chancy_metrics.projections.fold.cells import Cells, concatenate, cut, merge
from chancy_metrics.projections.fold.fold import Fold
from chancy_metrics.projections.fold.packed import PackedCells, pack, unpack

#: Cells, or codes in their sketches, up to which nothing is put on shelves.
FRESH_ROWS, FRESH_CODES = 40_000, 500_000
_SHELVES = 16
#: Least rows of one shelf and resolution that are merged at once.
_WAITING_ROWS = 5_000


class Shelves:
    """Holds what *total* is given, once that has many cells: a series, whatever its number, is always on one shelf.

    Attributes:
        total: Has the sum of all but cells.
    """

    def __init__(self, total: Accumulator) -> None:
        self.total = total
        self._shelf_of: list[int] = []
        self._shelves: list[dict[str, list[PackedCells]]] = []

    def add(self, part: Fold) -> None:
        self.total.add(part)
        self.tidy()

    def tidy(self) -> None:
        """Put cells on shelves if there are many."""
        if self.total.rows > FRESH_ROWS or self.total.codes > FRESH_CODES:
            self._put_away()

    def _put_away(self) -> None:
        self._shelves = self._shelves or [{} for _ in range(_SHELVES)]
        self._shelf_of += [_shelf_of(one) for one in self.total.series[len(self._shelf_of) :]]
        shelf_of, workers = np.array(self._shelf_of, np.int64), len(self.total.workers) + 1
        taken = self.total.take()
        for resolution, cells in ((name, piece) for name in list(taken) for piece in _pieces(taken.pop(name))):
            # With the shelf as part of the worker's number, the merge sorts by shelf, too.
            merged = merge(cells._replace(worker=shelf_of[cells.series] * workers + cells.worker))
            bounds = np.searchsorted(merged.worker, np.arange(_SHELVES + 1) * workers).tolist()
            for shelf, (start, end) in enumerate(pairwise(bounds)):
                if start < end:
                    mine = cut(merged, start, end)
                    self._put(shelf, resolution, mine._replace(worker=mine.worker - shelf * workers))

    def _put(self, shelf: int, resolution: str, cells: Cells) -> None:
        parts = self._shelves[shelf].setdefault(resolution, [])
        parts.append(pack(cells))
        if sum(part.rows for part in parts[1:]) > max(_WAITING_ROWS, parts[0].rows):
            parts[:] = [pack(_merged(parts))]

    def _take(self, shelf: int) -> Fold:
        levels = {resolution: _merged(parts) for resolution, parts in self._shelves[shelf].items()}
        self._shelves[shelf] = {}
        numbers = np.unique(np.concatenate([np.empty(0, np.int64), *(cells.series for cells in levels.values())]))
        series = self.total.series
        return Fold.of_cells(
            self.total.workers,
            [series[number] for number in numbers.tolist()],
            {name: cells._replace(series=np.searchsorted(numbers, cells.series)) for name, cells in levels.items()},
        )


def take_pairs(one: Shelves, other: Shelves) -> Iterator[tuple[Fold, Fold]]:
    """Yield the cells of both in pairs, each of the same series, and forget them: all at once if both have few."""
    if not one._shelves and not other._shelves:
        yield one.total.fold(), other.total.fold()
        return
    one._put_away()
    other._put_away()
    for shelf in range(_SHELVES):
        yield one._take(shelf), other._take(shelf)


def _pieces(cells: Cells) -> Iterator[Cells]:
    """Cut cells into pieces that are merged at once: their merge takes several times their memory."""
    codes_a_row = max(1, len(cells.sketches.codes) // max(1, cells.rows))
    rows = max(1, min(FRESH_ROWS, FRESH_CODES // codes_a_row))
    for start in range(0, cells.rows, rows):
        yield cut(cells, start, min(start + rows, cells.rows))


def _shelf_of(series: Series) -> int:
    return crc32("\0".join(series).encode(errors="backslashreplace")) % _SHELVES


def _merged(parts: list[PackedCells]) -> Cells:
    return unpack(parts[0]) if len(parts) == 1 else merge(concatenate([unpack(part) for part in parts]))
