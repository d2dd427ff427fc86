"""Encode a fold as bytes, for another process or machine, and decode it: the same cells, names and counts."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np

from chancy_metrics.events.decoding import HOSTILE, decode_as, fault_of
from chancy_metrics.events.errors import Damaged
from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.projections.fold.cell_codec import decode_runs, encode_runs
from chancy_metrics.projections.fold.cells import Cells, starts_of_runs
from chancy_metrics.projections.fold.fold import Fold

_KIND = "fold"
#: Most cells of one run.
_RUN_CELLS = 250_000


class _Runs(msgspec.Struct, array_like=True, frozen=True):
    """Cells of one resolution: runs, each of one of the fold's *workers*."""

    workers: list[int]
    runs: list[bytes]


class _Fold(msgspec.Struct, array_like=True, frozen=True):
    events: int
    workers: list[str]
    series: list[Series]
    cells: dict[str, _Runs]
    counts: dict[str, int]
    dead: dict[int, str]
    failed: list[tuple[int, str, str]]
    days: dict[int, int]


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(_Fold)


def encode_fold(fold: Fold) -> bytes:
    """Encode a fold, whose cells are merged.

    Raises:
        ValueError: A cell has a number out of bounds.
    """
    failed = [(position, rule, error) for (position, rule), error in fold.failed.items()]
    cells = {resolution: _encode(one) for resolution, one in fold.cells.items()}
    return _encoder.encode(
        _Fold(fold.events, fold.workers, fold.series, cells, fold.counts, fold.dead, failed, fold.days)
    )


def decode_fold(data: bytes) -> Fold:
    """Decode a fold.

    Raises:
        Damaged: The bytes are something else.
    """
    read = decode_as(_decoder, data, _KIND)
    try:
        cells = {resolution: _decode(read, runs) for resolution, runs in read.cells.items() if RESOLUTIONS[resolution]}
    except (*HOSTILE, KeyError) as error:
        raise Damaged(f"is no {_KIND}: {fault_of(error)}", kind=_KIND) from error
    failed = {(position, rule): error for position, rule, error in read.failed}
    return Fold(read.events, read.workers, read.series, cells, Counter(read.counts), read.dead, failed, dict(read.days))


def _encode(cells: Cells) -> _Runs:
    of_worker = starts_of_runs(cells.worker)
    place = np.arange(cells.rows) - np.repeat(of_worker, np.diff(of_worker, append=cells.rows))
    starts = starts_of_runs(cells.worker, place // _RUN_CELLS)
    return _Runs(cells.worker[starts].tolist(), encode_runs(cells, np.append(starts, cells.rows)))


def _decode(read: _Fold, runs: _Runs) -> Cells:
    cells = decode_runs(runs.runs, runs.workers)
    if cells.rows and not (
        cells.worker.min() >= 1 and cells.worker.max() <= len(read.workers) and cells.series.max() < len(read.series)
    ):
        raise ValueError("a cell is of a worker or a series that has no name")
    return cells
