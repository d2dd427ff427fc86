"""Bounds of the numbers in runs of cells, those of the rollups' rows, and the error for a run that is out of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.facts import FIRST_US
from chancy_metrics.events.row_bounds import FAR_US
from chancy_metrics.projections.fold.byte_columns import WrongRun
from chancy_metrics.projections.fold.cells import Cells, Ints, starts_of_runs
from chancy_metrics.projections.fold.sketch import MAX_CODE

#: Starts of buckets, seconds since 1970.
FIRST_S, LAST_S = FIRST_US // 1_000_000 - 86_400, FAR_US // 1_000_000
NO_SKETCH = "the codes of a sketch do not ascend within their bounds, or count more than all observations"

_MAX_COUNT = 2**53
_MAX_POSITION = 2**62
_MAX_INT32 = 2**31 - 1

_Bools = NDArray[np.bool_]


def check_cells(cells: Cells, starts: Ints) -> None:
    """Check cells of runs; run k is rows starts[k] to before starts[k + 1].

    Raises:
        WrongRun: A run does not ascend, or a number of it is out of bounds or contradicts others.
    """
    heads = starts[:-1]
    ascends = np.empty(cells.rows, bool)
    ascends[:1] = True
    ascends[1:] = (cells.series[1:] > cells.series[:-1]) | (
        (cells.series[1:] == cells.series[:-1]) & (cells.bucket[1:] > cells.bucket[:-1])
    )
    ascends[heads] = True
    gauge = ~np.isnan(cells.last)
    wrong = {
        "its cells do not ascend": ~ascends,
        "a series is out of bounds": _outside(cells.series, 0, _MAX_INT32),
        "a bucket is out of bounds": _outside(cells.bucket, FIRST_S, LAST_S),
        "a number of observations is out of bounds": _outside(cells.observations, 1, _MAX_COUNT),
        "a time is out of bounds": _outside(cells.last_us, FIRST_US, FAR_US),
        "a minimum or maximum is not finite, or they contradict each other": ~(
            np.isfinite(cells.minimum) & np.isfinite(cells.maximum) & (cells.minimum <= cells.maximum)
        ),
        "the last value of a gauge is out of bounds, or a cell that is none has its position": np.isinf(cells.last)
        | _outside(cells.last_position, 0, np.where(gauge, _MAX_POSITION, 0))
        | _outside(cells.last_index, 0, np.where(gauge, _MAX_INT32, 0)),
    }
    for fault, rows in wrong.items():
        refuse_rows(rows, starts, fault)
    owner, run_codes, counts = cells.sketches
    if len(owner):
        bad = (np.abs(run_codes) > MAX_CODE) | _outside(counts, 1, _MAX_COUNT)
        bad[1:] |= (owner[1:] < owner[:-1]) | ((owner[1:] == owner[:-1]) & (run_codes[1:] <= run_codes[:-1]))
        first = starts_of_runs(owner)
        # In float64 too, which does not wrap around.
        total, about = np.add.reduceat(counts, first), np.add.reduceat(counts.astype(np.float64), first)
        bad[first] |= (total > cells.observations[owner[first]]) | (about > 2 * _MAX_COUNT)
        refuse_rows(bad, np.searchsorted(owner, starts), NO_SKETCH)


def refuse_rows(wrong: _Bools, starts: Ints, fault: str) -> None:
    """Raise `WrongRun` for the run of the first row that is *wrong*."""
    if wrong.any():
        raise WrongRun(int(np.searchsorted(starts, np.argmax(wrong), side="right")) - 1, fault)


def refuse_runs(wrong: _Bools, fault: str) -> None:
    """Raise `WrongRun` for the first run that is *wrong*."""
    if wrong.any():
        raise WrongRun(int(np.argmax(wrong)), fault)


def _outside(values: Ints, low: int, high: int | Ints) -> _Bools:
    return (values < low) | (values > high)
