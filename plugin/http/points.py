"""Answer GET points: every bucket of one series in a window; it is zero where others were recorded, or else missing."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import isnan
from typing import get_args

import msgspec
import numpy as np
from chancy import Chancy
from numpy.typing import NDArray

from chancy_metrics.events.facts import Kind, microseconds
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.plugin.host import clock
from chancy_metrics.plugin.host.moments import from_s
from chancy_metrics.plugin.host.options import Options, Resolution
from chancy_metrics.plugin.http.limits import work
from chancy_metrics.plugin.http.parameters import WrongParameter
from chancy_metrics.plugin.http.series import find_points, find_worker_points
from chancy_metrics.plugin.metrics import metrics_of
from chancy_metrics.plugin.reading.columns import KEPT, Rows
from chancy_metrics.plugin.reading.columns import since as cut
from chancy_metrics.plugin.reading.window import MAX_BUCKETS, default_range_s
from chancy_metrics.projections.buckets import bucket_of, horizons
from chancy_metrics.projections.grid import BucketRange

#: The values of a bucket in which something was recorded, but nothing of the series.
_NOTHING: dict[Kind, dict[str, float]] = {"counter": {"sum": 0.0}, "gauge": {}, "histogram": {"count": 0, "sum": 0.0}}

NAMES: tuple[Resolution, ...] = get_args(Resolution)


class Bucket(msgspec.Struct, frozen=True, omit_defaults=True):
    """One bucket. Without observations a counter is 0, a histogram counts 0, and a gauge has no value.

    Attributes:
        at: Its start.
        missing: The log holds nothing of that time, of any series: it has no values, not even 0.
        partial: It has not ended yet, so its values will grow.
        sum: For counters and histograms.
        last: The latest value, for gauges.
    """

    at: datetime
    missing: bool = False
    partial: bool = False
    sum: float | None = None
    last: float | None = None
    count: int | None = None
    min: float | None = None
    avg: float | None = None
    max: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Points(msgspec.Struct, frozen=True):
    """Every bucket of a window, oldest first.

    Attributes:
        since: Start of the first bucket.
        until: End of the last one, exclusive.
        kept_since: Start of the oldest bucket kept at this resolution; earlier ones are not listed.
        worker_id: The worker whose points these are; None for all workers together.
    """

    key: str
    type: Kind
    unit: str
    resolution: Resolution
    width_s: int
    since: datetime
    until: datetime
    kept_since: datetime
    generated_at: datetime
    worker_id: str | None
    buckets: list[Bucket]


class KeptResolution(msgspec.Struct, frozen=True):
    """A resolution: the width of its buckets and how long they are kept, in seconds."""

    name: Resolution
    width_s: int
    kept_s: int


def kept_resolutions(chancy: Chancy) -> list[KeptResolution]:
    """Return all resolutions, finest first."""
    plugin = metrics_of(chancy)
    return [KeptResolution(name, RESOLUTIONS[name], plugin.retention(name)) for name in NAMES]


async def points_in_window(
    chancy: Chancy,
    key: str,
    resolution: Resolution,
    since: datetime | None,
    until: datetime | None,
    worker_id: str | None,
    *,
    range_s: int | None = None,
) -> Points:
    """Return the kept buckets between *since* and *until*, widened to whole buckets.

    Args:
        since: A day before the end by default, or less where less is kept.
        until: The end of the current bucket by default.
        range_s: Length of a window that ends now, in seconds, instead of *since* and *until*.

    Raises:
        UnknownSeries: No series has this key.
        WrongParameter: The window has more than 1,000 buckets, or ends before the oldest kept one.
    """
    plugin = metrics_of(chancy)
    now = clock.utc_now()
    if range_s is not None:
        since = now - timedelta(seconds=range_s)
    first, last, kept = _bounds(plugin.options, resolution, since, until, now)
    within = BucketRange(resolution, first, last)
    (_, kind, unit), columns, recorded = await find_points(chancy, key, within)
    if worker_id is not None:
        columns = await find_worker_points(chancy, key, worker_id, within)
    width = RESOLUTIONS[resolution]
    starts = range(first, last, width)
    buckets = await work(chancy, _buckets, kind, columns.get(resolution), recorded, starts, now)
    return Points(
        key, kind, unit, resolution, width, from_s(first), from_s(last), from_s(kept), now, worker_id, buckets
    )


def _buckets(kind: Kind, kept: Rows | None, recorded: NDArray[np.int64], starts: range, now: datetime) -> list[Bucket]:
    rows = [] if kept is None else cut(kept, starts.start, starts.stop).tolist()
    values = {row[0]: _values(kind, row[1:]) for row in rows}
    known = set(recorded.tolist())
    return [
        _bucket(from_s(start), starts.step, values.get(start, _NOTHING[kind] if start in known else None), now)
        for start in starts
    ]


def _values(kind: Kind, row: list[float]) -> dict[str, float]:
    """Return the values of a row of the cache by name."""
    values = {
        name: value for name, value in zip(KEPT[kind], row, strict=True) if name != "last_us" and not isnan(value)
    }
    if kind == "histogram":
        values |= {"count": int(values["count"]), "avg": values["sum"] / values["count"]}
    return values


def _bucket(at: datetime, width_s: int, values: dict[str, float] | None, now: datetime) -> Bucket:
    partial = now < at + timedelta(seconds=width_s)
    if values is None:
        return Bucket(at, missing=True, partial=partial)
    return Bucket(at, partial=partial, **values)  # type: ignore[arg-type] # count is the one whole number


def _bounds(
    options: Options, resolution: Resolution, since: datetime | None, until: datetime | None, now: datetime
) -> tuple[int, int, int]:
    """Return start of the first bucket, end of the last, and start of the oldest kept, in seconds since 1970."""
    width = RESOLUTIONS[resolution]
    end = bucket_of(microseconds(now), width) + width
    kept = horizons(microseconds(now), options.max_points, options.maximum_metric_age)[resolution]
    last = end if until is None else bucket_of(microseconds(until) - 1, width) + width
    if last <= kept:
        allowed = f"a moment after {from_s(kept).isoformat()}: buckets of {resolution} are kept since then"
        raise WrongParameter("until", _shown(until), allowed)
    first = last - default_range_s(options, resolution) if since is None else bucket_of(microseconds(since), width)
    first = max(first, kept)
    if (last - first) // width > MAX_BUCKETS:
        allowed = f"a moment at most {MAX_BUCKETS:,} buckets before until, or a resolution wider than {resolution}"
        raise WrongParameter("since", _shown(since), allowed)
    return first, last, kept


def _shown(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat()
