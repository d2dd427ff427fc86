"""Merging cells that are merged already equals merging them from scratch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chancy_metrics.projections.fold.cells import Cells, concatenate, merge
from chancy_metrics.projections.fold.merge_sorted import merge_sorted
from tests.projections.fold.test_cells import ROWS, Row, cells_of, rows_of, with_unique_indexes

_MANY = st.lists(ROWS, max_size=4).map(lambda lists: with_unique_indexes([row for rows in lists for row in rows]))


def merged_at_once(*parts: Cells) -> Cells:
    return merge(concatenate(list(parts)))


@settings(deadline=None)
@given(_MANY, st.integers(0, 40))
def test_merging_sorted_cells_equals_merging_all_rows(rows: list[Row], cut: int) -> None:
    one, other = merge(cells_of(rows[:cut])), merge(cells_of(rows[cut:]))

    assert rows_of(merge_sorted(one, other)) == rows_of(merged_at_once(one, other))


@settings(deadline=None)
@given(_MANY)
def test_rows_that_do_not_meet_stay_as_they_are(rows: list[Row]) -> None:
    early, late = (merge(cells_of([row for row in rows if (row.key[2] < 120) is first])) for first in (True, False))

    assert rows_of(merge_sorted(early, late)) == rows_of(early) | rows_of(late)


@pytest.mark.parametrize("far", [2**40, 2**62], ids=["a number for each row", "no number of 64 bits"])
def test_keys_however_far_apart_are_told_apart(far: int) -> None:
    one = cells_of([Row((0, 0, 0), micro=1), Row((0, 1, far), micro=2)])
    other = cells_of([Row((0, 0, 60), micro=4), Row((0, 1, far), micro=8), Row((3, 0, -far), micro=16)])

    assert rows_of(merge_sorted(one, other)) == rows_of(merged_at_once(one, other))


def test_cells_that_do_not_ascend_or_lie_on_no_grid_are_merged_all_the_same() -> None:
    unsorted = cells_of([Row((0, 1, 0), micro=1), Row((0, 0, 60), micro=2)])
    off_grid = cells_of([Row((0, 0, 60), micro=4), Row((0, 0, 61), micro=8)])

    for one, other in ((unsorted, off_grid), (off_grid, off_grid)):
        assert rows_of(merge_sorted(one, other)) == rows_of(merged_at_once(one, other))


def test_positions_that_belong_to_no_gauge_are_cleared() -> None:
    left = np.array([7])
    one = cells_of([Row((0, 0, 0))])._replace(last_position=left, last_index=left)
    other = cells_of([Row((0, 1, 0), last=(3, 2, 1.0))])

    for merged in (merge_sorted(one, other), merge_sorted(one, one._replace(series=left))):
        assert merged.last_position[0] == merged.last_index[0] == 0
