"""Make, merge and cut the points of one series: an immutable float64 array per resolution, oldest first."""

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
    """Return rows (bucket, *KEPT[kind]) of points that have the ring's columns."""
    return np.column_stack((bucket, values[:, _INDEX[kind]]))


def put(old: Rows | None, rows: Rows) -> Rows:
    """Return a new array: *old* with *rows* merged in, which replace those of the same bucket."""
    if old is None or len(rows) > 1:
        rows = rows[np.argsort(rows[:, 0])]
    if old is None:
        return rows
    newest = old[-1, 0]
    if rows[0, 0] >= newest:  # nearly always
        return np.concatenate((old[:-1] if rows[0, 0] == newest else old, rows))
    first = int(np.searchsorted(old[:, 0], rows[0, 0]))
    tail = old[first:]
    tail = np.concatenate((tail[~np.isin(tail[:, 0], rows[:, 0])], rows))
    return np.concatenate((old[:first], tail[np.argsort(tail[:, 0])]))


def since(rows: Rows, start_s: int, end_s: int | None = None) -> Rows:
    """Return the rows of buckets from *start_s*, inclusive, to *end_s*, exclusive."""
    low = int(np.searchsorted(rows[:, 0], start_s))
    high = len(rows) if end_s is None else int(np.searchsorted(rows[:, 0], end_s))
    return rows[low:high]


def without_before(rows: Rows, start_s: int) -> Rows:
    """Return *rows* without the buckets before *start_s*, and free their memory."""
    kept = since(rows, start_s)
    return rows if len(kept) == len(rows) else kept.copy()


MetricValue = float | dict[str, float | int]


COLUMN_OF = {kind: {name: index for index, name in enumerate(("bucket", *names))} for kind, names in KEPT.items()}


def values_of(kind: Kind, rows: Rows) -> list[float] | list[dict[str, float | int]]:
    """Return the value of each row. Column by column: an answer may have 100,000 rows."""
    *_, values = columns = rows.T.tolist()
    if kind != "histogram":
        return values  # type: ignore[no-any-return] # numpy does not say what tolist() holds
    column = COLUMN_OF[kind]
    summaries: list[dict[str, float | int]] = [
        {"count": int(count), "sum": total, "avg": total / count, "min": low, "max": high}
        for count, total, low, high in zip(*(columns[column[n]] for n in ("count", "sum", "min", "max")), strict=True)
    ]
    quantiles = ("p50", "p95", "p99")
    for summary, *known in zip(summaries, *(columns[column[name]] for name in quantiles), strict=True):
        if known[0] == known[0]:  # a worker's own points have none, nor have those that were imported
            summary.update(zip(quantiles, known, strict=True))
    return summaries
