"""A fold that crosses to another process as bytes is the same fold."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.events.errors import Damaged
from chancy_metrics.projections.fold import fold_codec
from chancy_metrics.projections.fold.cells import Cells
from chancy_metrics.projections.fold.fold import Fold, fold
from chancy_metrics.projections.fold.fold_codec import decode_fold, encode_fold
from tests.projections.fold.test_fold import HORIZONS, SOURCES, Source, folded, job, log_batch, run, source


def assert_same(one: Cells, other: Cells) -> None:
    for name in Cells._fields:
        mine, theirs = getattr(one, name), getattr(other, name)
        if name == "rest":
            assert {row: str(value) for row, value in mine.items()} == {
                row: str(value) for row, value in theirs.items()
            }
        else:
            for column, as_well in zip(*((x if name == "sketches" else (x,)) for x in (mine, theirs)), strict=True):
                np.testing.assert_array_equal(column, as_well)


@pytest.mark.slow
@given(SOURCES, HORIZONS, st.sampled_from([1, 3, 250_000]))
def test_a_fold_is_decoded_to_the_last_bit(sources: list[Source], horizons: dict[str, int], run_cells: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fold_codec, "_RUN_CELLS", run_cells)
        whole = fold([log_batch(batch) for batch in sources], horizons=horizons)

        again = decode_fold(encode_fold(whole))

    assert again._replace(cells={}) == whole._replace(cells={})
    assert again.cells.keys() == whole.cells.keys()
    for resolution, cells in whole.cells.items():
        assert_same(again.cells[resolution], cells)


def test_what_could_not_be_folded_comes_along() -> None:
    lost = Fold(
        3, [], [], {}, folded().counts, {7: "its row is not in the log"}, {(8, "cost"): "KeyError: 'a'"}, {0: 3}
    )

    assert decode_fold(encode_fold(lost)) == lost


def test_other_bytes_are_no_fold() -> None:
    data = encode_fold(folded(source(job(), run(1.5))))
    parts = msgspec.msgpack.decode(data)
    parts[2] = parts[2][:1]  # names of all series but one are missing

    for wrong in (b"", data[:-3], msgspec.msgpack.encode(parts)):
        with pytest.raises(Damaged, match="is no fold"):
            decode_fold(wrong)
