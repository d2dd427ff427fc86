"""Columns unpack to what was packed, each run as narrow as its own values."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.projections.fold.byte_columns import Narrow, WrongRun, pack, pack_floats, unpack, unpack_floats

WIDE = st.integers(0, 3) | st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1, 255, 256, 2**32])
RUNS = st.lists(st.lists(WIDE, max_size=5), max_size=5)


def starts_of(runs: list[list[int]] | list[list[float]]) -> np.ndarray:
    return np.cumsum([0, *map(len, runs)])


@given(RUNS, st.booleans(), st.booleans())
def test_columns_unpack_to_what_was_packed(runs: list[list[int]], transposed: bool, constant: bool) -> None:
    values, starts = np.array(list(chain.from_iterable(runs)), np.int64), starts_of(runs)

    columns = pack(values, starts, transposed=transposed, constant=constant)

    turned = [transposed] * len(runs)
    assert unpack(columns, np.diff(starts), turned, constant=constant).tolist() == values.tolist()
    for column, run in zip(columns, runs, strict=True):
        bound = Narrow if run and not constant else int
        assert isinstance(column, bound) or len(set(run)) > 1


@given(st.lists(st.lists(st.floats(allow_nan=False), max_size=5), max_size=5), st.booleans())
def test_floats_unpack_to_what_was_packed(runs: list[list[float]], transposed: bool) -> None:
    values, starts = np.array(list(chain.from_iterable(runs)), np.float64), starts_of(runs)

    columns = pack_floats(values, starts, transposed=transposed)

    assert unpack_floats(columns, np.diff(starts), [transposed] * len(runs)).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("span", "width"),
    [(1, 1), (255, 1), (256, 2), (2**16 - 1, 2), (2**16, 4), (2**32 - 1, 4), (2**32, 8), (2**63 + 5, 8)],
)
def test_a_column_is_as_narrow_as_its_values(span: int, width: int) -> None:
    base = -(2**62)

    column, other = pack(np.array([base, base + span, 7, 7, 7]), np.array([0, 2, 5]))

    assert isinstance(column, Narrow)
    assert len(column.data) == 2 * width
    assert other == 7


@pytest.mark.parametrize("size", [1, 3, 5, 6, 7, 9, 12, 14, 18, 24, 32])
def test_bytes_that_make_no_column_are_refused_by_run(size: int) -> None:
    with pytest.raises(WrongRun, match=f"run 1: {size} bytes do not make a column of 2"):
        unpack([3, Narrow(0, bytes(size))], np.array([2, 2]), [False, False])


def test_bytes_that_make_other_floats_are_refused_by_run() -> None:
    with pytest.raises(WrongRun, match="run 1: 9 bytes do not make 1 floats"):
        unpack_floats([bytes(8), bytes(9)], np.array([1, 1]), [False, False])
