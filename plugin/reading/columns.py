"""The points of one series, compact: one immutable array a resolution, newest last."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.facts import Kind
from chancy_metrics.projections.rollups.delta_ring import COLUMNS

Rows = NDArray[np.float64]

#: Columns a kind keeps, after the bucket; float64 holds counts, seconds and microseconds exactly.
KEPT: dict[Kind, tuple[str, ...]] = {
    "counter": ("last_us", "sum"),
    "gauge": ("last_us", "last"),
    "histogram": ("last_us", "count", "sum", "min", "max", "p50", "p95", "p99"),
}
_INDEX = {kind: [COLUMNS.index(name) for name in names] for kind, names in KEPT.items()}


def rows_of(kind: Kind, bucket: NDArray[np.int64], values: Rows) -> Rows:
    """Make a track's rows, (bucket, *KEPT[kind]), of points in the wire's columns."""
    return np.column_stack((bucket, values[:, _INDEX[kind]]))


def put(track: Rows | None, rows: Rows) -> Rows:
    """Return *track* with *rows* in it, which replace those of the same bucket; the track itself stays as it was."""
    if track is None or len(rows) > 1:
        rows = rows[np.argsort(rows[:, 0])]
    if track is None:
        return rows
    newest = track[-1, 0]
    if rows[0, 0] >= newest:  # nearly always
        return np.concatenate((track[:-1] if rows[0, 0] == newest else track, rows))
    place = int(np.searchsorted(track[:, 0], rows[0, 0]))
    tail = track[place:]
    tail = np.concatenate((tail[~np.isin(tail[:, 0], rows[:, 0])], rows))
    return np.concatenate((track[:place], tail[np.argsort(tail[:, 0])]))


def since(track: Rows, start_s: int, end_s: int | None = None) -> Rows:
    """Return the rows of buckets from *start_s*, inclusive, to *end_s*, exclusive."""
    low = int(np.searchsorted(track[:, 0], start_s))
    high = len(track) if end_s is None else int(np.searchsorted(track[:, 0], end_s))
    return track[low:high]


def without_before(track: Rows, start_s: int) -> Rows:
    """Return *track* without the buckets before *start_s*, and let go of their memory."""
    kept = since(track, start_s)
    return track if len(kept) == len(track) else kept.copy()
