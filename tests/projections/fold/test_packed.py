"""Packed cells are the same cells when they are unpacked, and take a quarter of the memory."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.projections.fold.cells import Cells, Sketches
from chancy_metrics.projections.fold.packed import PackedCells, pack, unpack
from tests.projections.fold.test_cells import ROWS, Row, cells_of

_FAR = st.integers(-(2**63), 2**63 - 1)


def assert_same(one: Cells, other: Cells) -> None:
    for name, column in one._asdict().items():
        if name == "rest":
            assert column == other.rest
        elif name == "sketches":
            assert [(part.dtype, part.tolist()) for part in column] == [
                (part.dtype, part.tolist()) for part in other.sketches
            ]
        else:
            found = getattr(other, name)
            assert column.dtype == found.dtype
            assert column.tobytes() == found.tobytes(), name


@given(ROWS)
def test_unpacking_gives_what_was_packed(rows: list[Row]) -> None:
    assert_same(cells_of(rows), unpack(pack(cells_of(rows))))


@given(st.lists(st.tuples(_FAR, _FAR, _FAR), min_size=1, max_size=5))
def test_numbers_however_far_apart_are_kept(numbers: list[tuple[int, int, int]]) -> None:
    cells = cells_of([Row((0, 0, 0))] * len(numbers))
    observations, micro, last_us = np.array(numbers, np.int64).T.copy()
    cells = cells._replace(observations=observations, micro=micro, last_us=last_us)

    assert_same(cells, unpack(pack(cells)))


def test_cells_of_histograms_take_a_quarter_of_the_memory() -> None:
    rows, codes = 1_000, 10
    at = 1_790_000_000 + np.arange(rows) % 50 * 300
    cells = cells_of([Row((1, 0, 0))] * rows)._replace(
        series=np.arange(rows) // 50,
        bucket=at,
        last_us=at * 1_000_000 + np.arange(rows) * 250_000,
        micro=np.arange(rows) * 1_000_000,
        sketches=Sketches(
            np.repeat(np.arange(rows), codes),
            np.tile(100_000 + 30 * np.arange(codes), rows).astype(np.int32),
            np.ones(rows * codes, np.int64),
        ),
    )
    narrow = pack(cells)

    before = sum(column.nbytes for column in cells if isinstance(column, np.ndarray))
    before += sum(column.nbytes for column in cells.sketches)
    assert size_of(narrow) < before / 4


def size_of(packed: PackedCells) -> int:
    columns = [*packed.ints.values(), packed.after, packed.sizes, packed.codes, packed.counts]
    return sum(column.more.nbytes for column in columns) + packed.minimum.nbytes + packed.maximum.nbytes
