"""Cells merge as a commutative monoid, exactly; grouping, coarsening and selecting agree with plain Python."""

from __future__ import annotations

import random
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chancy_metrics.projections.fold.cells import (
    Cells,
    Sketches,
    add_up,
    coarsen,
    concatenate,
    cut,
    group_rows,
    merge,
    select,
    sizes_of,
    starts_of_runs,
)

Key = tuple[int, int, int]


class Row(NamedTuple):
    """A row of cells in plain Python; *last* is (time, position, index, value) of a gauge."""

    key: Key
    observations: int = 1
    micro: int = 0
    rest: Decimal = Decimal(0)
    minimum: float = 0.0
    maximum: float = 0.0
    last_us: int = 0
    last: tuple[int, int, float] | None = None
    sketch: dict[int, int] = {}  # noqa: RUF012


KEYS = st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(-2, 8).map(lambda minute: minute * 60))
FINITE = st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0)
ROWS = st.lists(
    st.builds(
        Row,
        key=KEYS,
        observations=st.integers(1, 2**40),
        micro=st.integers(-(2**63) + 1, 2**63 - 1) | st.integers(0, 10**9) | st.sampled_from([2**62, 2**63 - 1]),
        rest=st.sampled_from([Decimal(0), Decimal("0.1"), Decimal("-1e-300"), Decimal("1e300")]),
        minimum=FINITE,
        maximum=FINITE,
        last_us=st.integers(-5, 5),
        last=st.none() | st.tuples(st.integers(1, 3), st.integers(0, 3), st.integers(0, 10**6).map(float)),
        sketch=st.dictionaries(st.integers(-3, 3), st.integers(1, 2**40), max_size=3),
    ),
    max_size=12,
)


def cells_of(rows: list[Row]) -> Cells:
    def ints(values: list[int]) -> Any:
        return np.array(values, np.int64)

    runs = [(row, code, count) for row, r in enumerate(rows) for code, count in sorted(r.sketch.items())]
    return Cells(
        worker=ints([row.key[0] for row in rows]),
        series=ints([row.key[1] for row in rows]),
        bucket=ints([row.key[2] for row in rows]),
        observations=ints([row.observations for row in rows]),
        last_us=ints([row.last_us for row in rows]),
        micro=ints([row.micro for row in rows]),
        rest={number: row.rest for number, row in enumerate(rows) if row.rest},
        minimum=np.array([row.minimum for row in rows], np.float64),
        maximum=np.array([row.maximum for row in rows], np.float64),
        last=np.array([row.last[2] if row.last else np.nan for row in rows], np.float64),
        last_position=ints([row.last[0] if row.last else 0 for row in rows]),
        last_index=ints([row.last[1] if row.last else 0 for row in rows]),
        sketches=Sketches(
            ints([owner for owner, _, _ in runs]),
            np.array([code for _, code, _ in runs], np.int32),
            ints([count for *_, count in runs]),
        ),
    )


def rows_of(cells: Cells) -> dict[Key, tuple[Any, ...]]:
    sketches: dict[int, dict[int, int]] = {}
    runs = list(zip(*(column.tolist() for column in cells.sketches), strict=True))
    assert runs == sorted(runs)
    for owner, code, count in runs:
        assert code not in sketches.setdefault(owner, {})
        sketches[owner][code] = count
    found: dict[Key, tuple[Any, ...]] = {}
    for row in range(cells.rows):
        key = (int(cells.worker[row]), int(cells.series[row]), int(cells.bucket[row]))
        assert key not in found
        last = (int(cells.last_position[row]), int(cells.last_index[row]), float(cells.last[row]))
        found[key] = (
            int(cells.observations[row]),
            Fraction(cells.sum_of(row)),
            float(cells.minimum[row]),
            float(cells.maximum[row]),
            int(cells.last_us[row]),
            last if last[2] == last[2] else None,
            sketches.get(row, {}),
        )
    assert list(found) == sorted(found)
    return found


def expected(rows: list[Row]) -> dict[Key, tuple[Any, ...]]:
    result: dict[Key, tuple[Any, ...]] = {}
    for key in sorted({row.key for row in rows}):
        mine = [row for row in rows if row.key == key]
        gauges = [(row.last_us, *row.last) for row in mine if row.last]
        sketch: dict[int, int] = {}
        for row in mine:
            for code, count in row.sketch.items():
                sketch[code] = sketch.get(code, 0) + count
        result[key] = (
            sum(row.observations for row in mine),
            sum((Fraction(row.micro, 10**6) + Fraction(row.rest) for row in mine), Fraction(0)),
            min(row.minimum for row in mine),
            max(row.maximum for row in mine),
            max(row.last_us for row in mine),
            max(gauges)[1:] if gauges else None,
            sketch,
        )
    return result


def with_unique_indexes(rows: list[Row]) -> list[Row]:
    """Make every odd series a gauge, in all of its rows, and give each an index of its own.

    One (time, position, index) is one observation, and no series is a gauge in some rows and not in others.
    """
    gauges = {n: row.last or (1, 0, 0.0) for n, row in enumerate(rows) if row.key[1] % 2}
    return [row._replace(last=(gauges[n][0], n, gauges[n][2]) if n in gauges else None) for n, row in enumerate(rows)]


@settings(deadline=None)
@given(ROWS.map(with_unique_indexes))
def test_merged_rows_equal_plain_python(rows: list[Row]) -> None:
    assert rows_of(merge(cells_of(rows))) == expected(rows)


@settings(deadline=None)
@given(ROWS.map(with_unique_indexes), st.integers(0, 12), st.integers(0, 12), st.randoms(use_true_random=False))
def test_merge_is_associative_and_commutative(rows: list[Row], cut: int, second: int, source: random.Random) -> None:
    parts = [merge(cells_of(part)) for part in (rows[:cut], rows[cut : cut + second], rows[cut + second :])]
    source.shuffle(parts)

    result = merge(concatenate([merge(concatenate(parts[:2])), parts[2]]))

    assert rows_of(result) == rows_of(merge(cells_of(rows)))


@settings(deadline=None)
@given(ROWS.map(with_unique_indexes))
def test_merging_merged_cells_changes_nothing(rows: list[Row]) -> None:
    once = merge(cells_of(rows))

    assert rows_of(merge(once)) == rows_of(once)


@settings(deadline=None)
@given(ROWS.map(with_unique_indexes), st.sampled_from([60, 300, 3_600]))
def test_coarsening_equals_merging_the_coarser_rows(rows: list[Row], width_s: int) -> None:
    coarser = [row._replace(key=(*row.key[:2], row.key[2] // width_s * width_s)) for row in rows]

    assert rows_of(coarsen(merge(cells_of(rows)), width_s)) == expected(coarser)


@settings(deadline=None)
@given(ROWS.map(with_unique_indexes), st.sets(KEYS))
def test_selecting_rows_keeps_all_that_is_theirs(rows: list[Row], chosen: set[Key]) -> None:
    cells = merge(cells_of(rows))
    keep = np.array([key in chosen for key in rows_of(cells)], bool)

    assert rows_of(select(cells, keep)) == {key: row for key, row in rows_of(cells).items() if key in chosen}


@settings(deadline=None)
@given(ROWS.map(with_unique_indexes), st.integers(0, 12), st.integers(0, 12))
def test_cutting_out_rows_keeps_all_that_is_theirs(rows: list[Row], start: int, size: int) -> None:
    cells = merge(cells_of(rows))
    start, end = min(start, cells.rows), min(start + size, cells.rows)

    assert list(rows_of(cut(cells, start, end)).items()) == list(rows_of(cells).items())[start:end]


WIDE = st.integers(0, 2) | st.integers(-(2**40), 2**40) | st.sampled_from([-(2**62), 2**62])


@settings(deadline=None)
@given(st.lists(st.tuples(WIDE, WIDE, WIDE), min_size=1, max_size=30))
def test_rows_are_grouped_in_a_stable_order_however_wide_their_columns_are(rows: list[tuple[int, int, int]]) -> None:
    order, starts = group_rows(*(np.array(column, np.int64) for column in zip(*rows, strict=True)))

    ordered = sorted(range(len(rows)), key=lambda row: rows[row])
    heads = [at for at, row in enumerate(ordered) if at == 0 or rows[row] != rows[ordered[at - 1]]]
    assert order.tolist() == ordered
    assert starts.tolist() == heads
    assert sizes_of(starts, len(rows)).tolist() == np.diff([*heads, len(rows)]).tolist()


def test_no_rows_have_no_runs() -> None:
    empty = np.empty(0, np.int64)

    assert starts_of_runs(empty).tolist() == []
    assert sizes_of(empty, 0).tolist() == []


@pytest.mark.parametrize("top", [2**61, 2**62, 2**63 - 1, -(2**63) + 1])
def test_sums_near_64_bits_are_exact(top: int) -> None:
    micro, rest = add_up(np.array([top, top, 1, -1], np.int64), np.array([0, 2]))

    assert [Fraction(int(m), 10**6) + Fraction(rest.get(row, 0)) for row, m in enumerate(micro)] == [
        Fraction(2 * top, 10**6),
        0,
    ]


def test_only_sums_that_64_bits_do_not_hold_are_decimals() -> None:
    micro, rest = add_up(np.array([2**62, 2**62, 5, 2**62, 2**62, -(2**62), 7], np.int64), np.array([0, 2, 3, 6]))

    assert micro.tolist() == [0, 5, 2**62, 7]
    assert rest == {0: Decimal(2**63) / 10**6}
