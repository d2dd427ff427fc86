"""Merge cells that are merged each: rows that meet are added up, the others are only put in their places."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.projections.fold.cells import Cells, Ints, Sketches, concatenate, merge, no_sketches, select
from chancy_metrics.projections.fold.sketch import starts_of


class _Part(NamedTuple):
    """Rows of cells, ascending, and where each goes."""

    cells: Cells
    rows: Ints
    to: Ints


def merge_sorted(one: Cells, other: Cells) -> Cells:
    """Return `merge()` of two that are merged each.

    Much cheaper than that where few rows meet: the other ones are neither sorted nor added up.
    """
    keys = _keys(one, other) if one.rows and other.rows else None
    if keys is None or not all(map(_ascend, keys)):
        return merge(concatenate([one, other]))
    mine, others = keys
    at = np.searchsorted(mine, others)
    meets = mine.take(at, mode="clip") == others
    fresh = np.flatnonzero(~meets)
    # Each of mine moves behind those of the others that lie before it.
    to_mine = np.arange(one.rows) + np.cumsum(np.bincount(at[fresh], minlength=one.rows + 1))[:-1]
    to_others = at[fresh] + np.arange(len(fresh))
    size = one.rows + len(fresh)
    if len(fresh) == other.rows:
        return _placed([_Part(one, np.arange(one.rows), to_mine), _Part(other, fresh, to_others)], size)
    both = at[meets]
    is_met = np.zeros(one.rows, bool)
    is_met[both] = True
    together = merge(concatenate([select(one, is_met), select(other, meets)]))
    if together.rows != len(both):  # buckets that are on no grid
        return merge(concatenate([one, other]))
    alone = np.flatnonzero(~is_met)
    parts = [
        _Part(one, alone, to_mine[alone]),
        _Part(other, fresh, to_others),
        _Part(together, np.arange(together.rows), to_mine[both]),
    ]
    return _placed(parts, size)


def _keys(one: Cells, other: Cells) -> tuple[Ints, Ints] | None:
    """Return a number for each row of both, by which (worker, series, bucket) ascend; None where 64 bits do not do."""
    columns = [(one.worker, other.worker), (one.series, other.series), (one.bucket, other.bucket)]
    lows = [min(int(mine.min()), int(others.min())) for mine, others in columns]
    highs = [max(int(mine.max()), int(others.max())) for mine, others in columns]
    spans = [high - low + 1 for low, high in zip(lows, highs, strict=True)]
    if math.prod(spans) >= 2**63:
        return None
    keys = [np.zeros(one.rows, np.int64), np.zeros(other.rows, np.int64)]
    for pair, low, span in zip(columns, lows, spans, strict=True):
        for key, column in zip(keys, pair, strict=True):
            if span > 1:
                key *= span
                key += column
                key -= low
    return keys[0], keys[1]


def _ascend(keys: Ints) -> bool:
    return bool((keys[1:] > keys[:-1]).all())


def _placed(parts: list[_Part], size: int) -> Cells:
    """Return *size* rows, each from the part that has it."""
    parts = [part for part in parts if len(part.rows)]
    plain = ("series", "bucket", "observations", "last_us", "micro", "minimum", "maximum")
    columns: dict[str, NDArray[Any]] = {name: _column(parts, size, name) for name in plain}
    workers = {int(part.cells.worker[end]) for part in parts for end in (0, -1)}
    one_worker = len(workers) == 1
    columns["worker"] = np.full(size, workers.pop(), np.int64) if one_worker else _column(parts, size, "worker")
    if all(np.isnan(part.cells.last).all() for part in parts):
        columns |= {"last": np.full(size, np.nan)}
        columns |= {"last_position": np.zeros(size, np.int64), "last_index": np.zeros(size, np.int64)}
    else:
        columns |= {name: _column(parts, size, name) for name in ("last", "last_position", "last_index")}
        none = np.isnan(columns["last"])
        columns["last_position"][none] = 0  # cells of a fold may have some
        columns["last_index"][none] = 0
    return Cells(**columns, rest=_rest(parts), sketches=_sketches(parts, size))


def _column(parts: list[_Part], size: int, name: str) -> NDArray[Any]:
    first = getattr(parts[0].cells, name)
    made = np.empty(size, first.dtype)
    for part in parts:
        values = getattr(part.cells, name)
        made[part.to] = values if len(part.rows) == part.cells.rows else values[part.rows]
    return made


def _rest(parts: list[_Part]) -> dict[int, Decimal]:
    rest: dict[int, Decimal] = {}
    for part in parts:
        if part.cells.rest:
            moved = np.full(part.cells.rows, -1)
            moved[part.rows] = part.to
            rest |= {int(moved[row]): value for row, value in part.cells.rest.items() if moved[row] >= 0}
    return rest


def _sketches(parts: list[_Part], size: int) -> Sketches:
    parts = [part for part in parts if len(part.cells.sketches.owner)]
    if not parts:
        return no_sketches()
    starts = [starts_of(part.cells.sketches.owner, part.cells.rows) for part in parts]
    lengths = np.zeros(size, np.int64)
    for part, start in zip(parts, starts, strict=True):
        lengths[part.to] = np.diff(start)[part.rows]
    ends = np.cumsum(lengths)
    run_codes, counts = np.empty(int(ends[-1]), np.int32), np.empty(int(ends[-1]), np.int64)
    for part, start in zip(parts, starts, strict=True):
        own = np.diff(start)[part.rows]
        # Where each code lies, and where it goes: as far behind the first one of its row.
        behind = np.arange(int(own.sum())) - np.repeat(np.cumsum(own) - own, own)
        to = behind + np.repeat((ends - lengths)[part.to], own)
        if len(part.rows) == part.cells.rows:
            run_codes[to], counts[to] = part.cells.sketches.codes, part.cells.sketches.counts
        else:
            at = behind + np.repeat(start[part.rows], own)
            run_codes[to], counts[to] = part.cells.sketches.codes[at], part.cells.sketches.counts[at]
    return Sketches(np.repeat(np.arange(size), lengths), run_codes, counts)
