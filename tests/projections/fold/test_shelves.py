"""What is taken from shelves, shelf by shelf, is what one sum of everything has, each series in one pair."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chancy_metrics.events.facts import Series
from chancy_metrics.projections.fold import shelves
from chancy_metrics.projections.fold.accumulator import Accumulator
from chancy_metrics.projections.fold.fold import Fold
from chancy_metrics.projections.fold.shelves import Shelves, take_pairs
from tests.projections.fold.test_cells import ROWS, Row, cells_of, rows_of, with_unique_indexes

_PARTS = st.lists(ROWS, max_size=5)


def folds_of(parts: list[list[Row]]) -> list[Fold]:
    """Folds whose series and workers have other numbers in each, as those of different ranges do.

    A number stays odd or even: odd ones are gauges, and no series is a gauge in some folds and not in others.
    """
    made = []
    rows = iter(with_unique_indexes([row for part in parts for row in part]))
    for number, part in enumerate(parts):
        mine = [next(rows) for _ in part]
        workers = ["w2", "w1"] if number % 2 else ["w1", "w2"]
        series = [Series(f"app:{(place + 2 * number) % 4}", "counter", "") for place in range(4)]
        made.append(Fold.of_cells(workers, series, {"1min": cells_of(mine)} if mine else {}))
    return made


def points_of(fold: Fold) -> dict[Any, Any]:
    named = {}
    for resolution, cells in fold.cells.items():
        for (worker, series, bucket), row in rows_of(cells).items():
            name = fold.workers[worker - 1] if worker else None
            named[resolution, name, fold.series[series], bucket] = row
    return named


@pytest.mark.parametrize("fresh", [0, 3, 10**9])
@settings(deadline=None)
@given(one=_PARTS, other=_PARTS)
def test_pairs_have_all_cells_of_both_and_each_series_once(
    fresh: int, one: list[list[Row]], other: list[list[Row]]
) -> None:
    sides = [folds_of(one), folds_of(other)]
    expected = []
    with patch.multiple(shelves, FRESH_ROWS=fresh, FRESH_CODES=fresh, _WAITING_ROWS=2):
        filled = []
        for folds in sides:
            whole, shelved = Accumulator(), Shelves(Accumulator())
            for fold in folds:
                whole.add(fold)
                shelved.add(fold)
            expected.append(points_of(whole.fold()))
            filled.append(shelved)
        pairs = list(take_pairs(filled[0], filled[1]))

    for side in (0, 1):
        found = [points_of(pair[side]) for pair in pairs]
        assert {key: row for points in found for key, row in points.items()} == expected[side]
        assert sum(map(len, found)) == len(expected[side])
    of_pairs = [{key[2] for side in pair for key in points_of(side)} for pair in pairs]
    assert sum(map(len, of_pairs)) == len(set().union(*of_pairs))


def test_many_cells_are_packed_and_forgotten_once_they_are_taken() -> None:
    rows = [Row((1, number % 4, number * 60)) for number in range(50)]
    with patch.multiple(shelves, FRESH_ROWS=20):
        one, other = Shelves(Accumulator()), Shelves(Accumulator())
        one.add(folds_of([rows])[0])
        assert one.total.rows == 0
        first = sum(len(points_of(pair[0])) for pair in take_pairs(one, other))
        again = sum(len(points_of(pair[0])) for pair in take_pairs(one, other))
    assert (first, again) == (50, 0)
