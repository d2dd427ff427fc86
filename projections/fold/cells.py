"""Cells: points of one resolution as numpy columns, and how they are merged, coarsened and selected, exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.projections.fold.exact_sum import EXACT, ZERO, add, canonical
from chancy_metrics.projections.fold.sketch import merge_runs

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: The worker number of the rows that hold all workers together.
ALL_WORKERS = 0


class Sketches(NamedTuple):
    """Quantile sketches of many cells: `counts[i]` values of `codes[i]` belong to cell `owner[i]`; sorted by both."""

    owner: Ints
    codes: NDArray[np.int32]
    counts: Ints


class Cells(NamedTuple):
    """Points of one resolution, one row each; rows of equal (worker, series, bucket) only before `merge()`.

    Attributes:
        worker: Number of the worker, `ALL_WORKERS` for the rows that hold all of them.
        series: Number of the series.
        bucket: Start of the bucket, seconds since 1970.
        observations: How many observations.
        last_us: Time of the latest event, microseconds since 1970.
        micro: Sum in millionths, without `rest`.
        rest: Row -> the rest of its sum, which is no whole number of millionths or too large; exact.
        last: Latest value of a gauge; NaN in other rows, whose `last_position` and `last_index` are 0.
        sketches: Of the merged histogram rows.
    """

    worker: Ints
    series: Ints
    bucket: Ints
    observations: Ints
    last_us: Ints
    micro: Ints
    rest: dict[int, Decimal]
    minimum: Floats
    maximum: Floats
    last: Floats
    last_position: Ints
    last_index: Ints
    sketches: Sketches

    @property
    def rows(self) -> int:
        return len(self.worker)

    def sum_of(self, row: int) -> Decimal:
        """The exact sum of *row*."""
        return add(_decimal(self.micro[row]), self.rest.get(row, ZERO))


def as_all_workers(cells: Cells) -> Cells:
    """Return *cells*, unmerged, as rows of `ALL_WORKERS`, whichever worker each belongs to."""
    return cells._replace(worker=np.full(cells.rows, ALL_WORKERS))


def no_sketches() -> Sketches:
    return Sketches(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64))


def concatenate(parts: list[Cells]) -> Cells:
    """Put cells one after the other, still unmerged."""
    if len(parts) == 1:
        return parts[0]
    offsets = np.cumsum([0] + [part.rows for part in parts])
    rest = {
        row + int(offset): value
        for part, offset in zip(parts, offsets, strict=False)
        for row, value in part.rest.items()
    }
    sketches = Sketches(
        np.concatenate([part.sketches.owner + offset for part, offset in zip(parts, offsets, strict=False)]),
        np.concatenate([part.sketches.codes for part in parts]),
        np.concatenate([part.sketches.counts for part in parts]),
    )
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in Cells._fields
        if name not in ("rest", "sketches")
    }
    return Cells(**columns, rest=rest, sketches=sketches)


def merge(cells: Cells) -> Cells:
    """Merge rows of equal (worker, series, bucket) and sort by them. Associative and commutative."""
    if not cells.rows:
        return cells
    return _reduce(cells, *group_rows(cells.worker, cells.series, cells.bucket // 60))


def is_sorted(cells: Cells) -> bool:
    """Whether rows ascend by (worker, series, bucket) and their sketches by code, so that merging changes nothing.

    Those of a fold before its first merge may still have positions that belong to no gauge.
    """
    sketches = cells.sketches
    return _ascend(cells.worker, cells.series, cells.bucket) and _ascend(sketches.owner, sketches.codes)


def _ascend(*columns: NDArray[np.int64] | NDArray[np.int32]) -> bool:
    """Whether each row is greater than the one before, by the first column first."""
    if len(columns[0]) > 1 and columns[0][0] > columns[0][-1]:
        return False
    greater: NDArray[np.bool_] | None = None
    for column in columns[::-1]:
        more = column[1:] > column[:-1]
        if greater is not None:
            more |= (column[1:] == column[:-1]) & greater
        greater = more
    return greater is None or bool(greater.all())


def coarsen(cells: Cells, width_s: int) -> Cells:
    """Merge the rows of merged cells into buckets *width_s* wide; that keeps their order, so nothing is sorted."""
    cells = cells._replace(bucket=cells.bucket // width_s * width_s)
    starts = starts_of_runs(cells.worker, cells.series, cells.bucket)
    return cells if len(starts) == cells.rows else _reduce(cells, slice(None), starts)


def select(cells: Cells, keep: NDArray[np.bool_]) -> Cells:
    """Return the rows of merged cells where *keep* holds."""
    if keep.all():
        return cells
    moved = np.cumsum(keep) - 1
    kept = keep[cells.sketches.owner]
    columns = {name: getattr(cells, name)[keep] for name in Cells._fields if name not in ("rest", "sketches")}
    return Cells(
        **columns,
        rest={int(moved[row]): value for row, value in cells.rest.items() if keep[row]},
        sketches=Sketches(moved[cells.sketches.owner[kept]], cells.sketches.codes[kept], cells.sketches.counts[kept]),
    )


def cut(cells: Cells, start: int, end: int) -> Cells:
    """Return rows *start* to before *end* of merged cells; their columns are views."""
    if (start, end) == (0, cells.rows):
        return cells
    owner, codes, counts = cells.sketches
    codes_of = slice(*np.searchsorted(owner, (start, end)).tolist())
    columns = {name: getattr(cells, name)[start:end] for name in Cells._fields if name not in ("rest", "sketches")}
    return Cells(
        **columns,
        rest={row - start: value for row, value in cells.rest.items() if start <= row < end},
        sketches=Sketches(owner[codes_of] - start, codes[codes_of], counts[codes_of]),
    )


def kept_of(levels: Mapping[str, Cells], horizons: Mapping[str, int]) -> dict[str, Cells]:
    """Return the cells of buckets that start at or after the horizons, by resolution."""
    return {resolution: select(cells, cells.bucket >= horizons[resolution]) for resolution, cells in levels.items()}


def within(
    cells: Mapping[str, Cells], since: Mapping[str, int] | None, until: Mapping[str, int] | None
) -> dict[str, Cells]:
    """Return the cells of buckets from *since* to before *until*, by resolution; None is no bound."""
    kept = dict(cells) if since is None else kept_of(cells, since)
    if until is None:
        return kept
    return {resolution: select(one, one.bucket < until[resolution]) for resolution, one in kept.items()}


def group_rows(*columns: Ints) -> tuple[Ints, Ints]:
    """Return the stable order that sorts rows by *columns*, by the first one first, and where its groups start."""
    rows = len(columns[0])
    bits = rows.bit_length()
    lows = [int(column.min()) for column in columns]
    spans = [int(column.max()) - low + 1 for column, low in zip(columns, lows, strict=True)]
    if math.prod(spans) << bits >= 2**63:
        order = np.lexsort(columns[::-1])
        return order, starts_of_runs(*(column[order] for column in columns))
    keys = columns[0] - lows[0]
    for column, low, span in zip(columns[1:], lows[1:], spans[1:], strict=True):
        keys *= span
        keys += column
        keys -= low
    # The low bits of the key hold the row: a plain sort is several times faster than an argsort.
    keys <<= bits
    keys |= np.arange(rows)
    keys.sort()
    return keys & ((1 << bits) - 1), starts_of_runs(keys >> bits)


def starts_of_runs(*columns: Ints) -> Ints:
    """Return where rows differ from the row before; the first one does."""
    changed = np.empty(len(columns[0]), bool)
    changed[:1] = True
    np.not_equal(columns[0][1:], columns[0][:-1], out=changed[1:])
    for column in columns[1:]:
        changed[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(changed)


def sizes_of(starts: Ints, rows: int) -> Ints:
    """Return the number of rows of each group."""
    sizes = np.empty_like(starts)
    np.subtract(starts[1:], starts[:-1], out=sizes[:-1])
    sizes[-1:] = rows - starts[-1:]
    return sizes


def add_up(micro: Ints, starts: Ints) -> tuple[Ints, dict[int, Decimal]]:
    """Add up millionths per group; a sum that 64 bits do not hold is 0 there, and a decimal."""
    totals = np.add.reduceat(micro, starts)
    if max(int(micro.max(initial=0)), -int(micro.min(initial=0))) * len(micro) < 2**63:
        return totals, {}
    rest = {}
    # Rounding in float64 is far from making up a factor of two.
    size = np.add.reduceat(np.abs(micro.astype(np.float64)), starts)
    ends = np.append(starts[1:], len(micro))
    for group in np.flatnonzero(size >= 2.0**62).tolist():
        total = sum(micro[starts[group] : ends[group]].tolist())
        if abs(total) >= 2**63:
            rest[group] = _decimal(total)
            totals[group] = 0
    return totals, rest


def _decimal(micro: int) -> Decimal:
    return canonical(EXACT.scaleb(Decimal(int(micro)), -6))


def _reduce(cells: Cells, order: Ints | slice, starts: Ints) -> Cells:
    """Make one row of each group of rows; *order* puts groups together, each begins at one of *starts*."""
    group = np.empty(cells.rows, np.int64)
    group[order] = np.repeat(np.arange(len(starts)), sizes_of(starts, cells.rows))
    micro, rest = add_up(cells.micro[order], starts)
    for row, value in cells.rest.items():
        to = int(group[row])
        rest[to] = add(rest.get(to, ZERO), value)
    last, last_position, last_index = _latest(cells, group, len(starts))
    return Cells(
        worker=cells.worker[order][starts],
        series=cells.series[order][starts],
        bucket=cells.bucket[order][starts],
        observations=np.add.reduceat(cells.observations[order], starts),
        last_us=np.maximum.reduceat(cells.last_us[order], starts),
        micro=micro,
        rest=rest,
        minimum=np.minimum.reduceat(cells.minimum[order], starts),
        maximum=np.maximum.reduceat(cells.maximum[order], starts),
        last=last,
        last_position=last_position,
        last_index=last_index,
        sketches=Sketches(*merge_runs(group[cells.sketches.owner], cells.sketches.codes, cells.sketches.counts)),
    )


def _latest(cells: Cells, group: Ints, size: int) -> tuple[Floats, Ints, Ints]:
    """Return value, position and index of each group's latest gauge, by (time, position, index)."""
    last, position, index = np.full(size, np.nan), np.zeros(size, np.int64), np.zeros(size, np.int64)
    gauges = np.flatnonzero(~np.isnan(cells.last))
    if len(gauges):
        by_age = gauges[np.lexsort((cells.last_index[gauges], cells.last_position[gauges], cells.last_us[gauges]))]
        to = group[by_age]  # later ones overwrite earlier ones
        last[to] = cells.last[by_age]
        position[to] = cells.last_position[by_age]
        index[to] = cells.last_index[by_age]
    return last, position, index
