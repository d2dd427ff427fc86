"""The points of one worker, made of its cells: each kind's columns, and sums rounded once."""

from __future__ import annotations

import sys
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.plugin.reading import worker_points
from chancy_metrics.plugin.reading.replica import SeriesColumns
from chancy_metrics.plugin.reading.worker_points import all_columns_of, columns_of
from chancy_metrics.projections.fold.cells import merge
from chancy_metrics.projections.fold.levels import coarsen_expired, derive_points
from tests.projections.fold.test_cells import ROWS, Row, cells_of, with_unique_indexes

_LARGEST = sys.float_info.max


def in_text(columns: dict[int, SeriesColumns]) -> dict[int, dict[str, str]]:
    """Columns that compare equal where both are NaN."""
    return {number: {name: str(rows.tolist()) for name, rows in one.items()} for number, one in columns.items()}


def test_each_series_has_the_columns_of_its_kind_at_each_resolution() -> None:
    series = {3: Series("c", "counter", "x"), 5: Series("g", "gauge", "x"), 9: Series("h", "histogram", "s")}
    rows = [
        Row((1, 3, 60), micro=2_500_000, last_us=61),
        Row((1, 3, 120), micro=500_000, last_us=121),
        Row((1, 5, 60), last=(1, 0, 7.5), last_us=62),
        Row((1, 9, 60), observations=2, micro=3_000_000, minimum=1.0, maximum=2.0, last_us=63, sketch={100_000: 2}),
    ]

    found = columns_of(derive_points({"1min": merge(cells_of(rows))}), series)

    assert found.keys() == series.keys()
    assert {number: list(levels) for number, levels in found.items()} == {key: list(RESOLUTIONS) for key in series}
    assert found[3]["1min"].tolist() == [[60, 61, 2.5], [120, 121, 0.5]]
    assert found[3]["5min"].tolist() == [[0, 121, 3.0]]
    assert found[5]["1day"].tolist() == [[0, 62, 7.5]]
    bucket, last_us, count, total, low, high, *quantiles = found[9]["1min"][0].tolist()
    assert (bucket, last_us, count, total, low, high) == (60, 63, 2, 3.0, 1.0, 2.0)
    assert all(low <= value <= high for value in quantiles)


@settings(deadline=None)
@given(ROWS, st.integers(1, 5), st.integers(-120, 480), st.booleans())
def test_points_are_the_same_in_one_piece_or_many(rows: list[Row], piece: int, horizon_s: int, merged: bool) -> None:
    series = {
        number: Series(f"s{number}", kind, "x") for number, kind in enumerate(["counter", "gauge", "histogram"] * 2)
    }
    mine = [row._replace(key=(1, *row.key[1:]), micro=row.micro // 16) for row in with_unique_indexes(rows)]
    levels = {"1min": cells_of(mine[::2]), "5min": cells_of([row for row in mine[1::2] if not row.key[2] % 300])}
    if merged:
        levels = {resolution: merge(cells) for resolution, cells in levels.items()}
    since = dict.fromkeys(RESOLUTIONS, -(10**6)) | {"1min": horizon_s}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_points, "_PIECE_CELLS", piece)
        found = all_columns_of(levels, series, since)

    wanted = columns_of(derive_points(coarsen_expired(levels, since), since), series)
    assert in_text(found) == in_text(wanted)


@settings(deadline=None)
@given(
    st.integers(-(2**63), 2**63 - 1)
    | st.integers(-(2**43), 2**43).map(lambda whole: whole * 10**6)
    | st.integers(2**53 - 9, 2**53 + 9),
    st.sampled_from([Decimal(0), Decimal("1e-7"), Decimal("-1e320")]),
)
def test_a_sum_is_rounded_once(micro: int, rest: Decimal) -> None:
    cells = cells_of([Row((1, 3, 60), micro=micro, rest=rest)])

    found = columns_of({"1min": cells}, {3: Series("c", "counter", "x")})

    exact = float(Decimal(micro) / 10**6 + rest) if rest else micro / 10**6
    assert found[3]["1min"][0, 2] == max(-_LARGEST, min(_LARGEST, exact))
