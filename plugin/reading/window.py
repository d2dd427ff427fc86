"""The two shapes of an answer: 0.24's whole history, newest first, and 0.26's window, oldest first."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, TypedDict

import numpy as np

from chancy_metrics.events.facts import Kind, microseconds
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.plugin.host.moments import from_s, from_us, is_aware
from chancy_metrics.plugin.host.options import Options
from chancy_metrics.plugin.reading.columns import KEPT, Rows, since
from chancy_metrics.plugin.reading.shown_keys import Names
from chancy_metrics.projections.buckets import bucket_of, horizons, retention_s

MetricValue = float | dict[str, float | int]
#: Bucket start (aware, UTC) and value.
MetricPair = tuple[datetime, MetricValue]

MAX_BUCKETS = 1_000
MAX_SERIES = 100
DAY_S = 86_400

_COLUMN = {kind: {name: place for place, name in enumerate(("bucket", *names))} for kind, names in KEPT.items()}


class Metric:
    """A metric's points at every resolution, newest first; made from the cache's columns when they are looked at.

    Attributes:
        metric_type: "counter", "gauge" or "histogram".
        unit: Unit of the values.
    """

    def __init__(self, metric_type: Kind, unit: str, tracks: Mapping[str, Rows], oldest_s: Mapping[str, int]) -> None:
        self.metric_type = metric_type
        self.unit = unit
        self._tracks = tracks
        self._oldest_s = oldest_s

    @property
    def values_1min(self) -> list[MetricPair]:
        return self._pairs("1min")

    @property
    def values_5min(self) -> list[MetricPair]:
        return self._pairs("5min")

    @property
    def values_1hour(self) -> list[MetricPair]:
        return self._pairs("1hour")

    @property
    def values_1day(self) -> list[MetricPair]:
        return self._pairs("1day")

    @property
    def values(self) -> dict[str, list[MetricPair]]:
        """Points by resolution: a number for counters and gauges, for histograms a dict of
        count, sum, avg, min, max and, from the cache, p50, p95 and p99."""
        return {resolution: self._pairs(resolution) for resolution in RESOLUTIONS}

    def _pairs(self, resolution: str) -> list[MetricPair]:
        if resolution not in self._tracks:
            return []
        rows = since(self._tracks[resolution], self._oldest_s[resolution])[::-1]
        return list(zip(map(from_s, rows[:, 0].tolist()), _values(self.metric_type, rows), strict=True))

    def __repr__(self) -> str:
        points = {resolution: len(since(rows, self._oldest_s[resolution])) for resolution, rows in self._tracks.items()}
        return f"Metric({self.metric_type!r}, unit={self.unit!r}, points={points})"


@dataclass(frozen=True)
class MetricPoint:
    """An observed value for one bucket.

    Attributes:
        timestamp: Start of the bucket, aware, UTC.
        sampled_at: Time of the latest observation in it.
    """

    timestamp: datetime
    value: MetricValue
    sampled_at: datetime


@dataclass
class WindowMetric:
    """A metric's points in a window of time, oldest first; buckets without observations have none."""

    type: Kind
    unit: str
    data: list[MetricPoint]

    @property
    def aggregation(self) -> Literal["sum", "last", "summary"]:
        """How `summary` sums up."""
        aggregations: dict[Kind, Literal["sum", "last", "summary"]] = {
            "counter": "sum",
            "gauge": "last",
            "histogram": "summary",
        }
        return aggregations[self.type]

    @property
    def sampled_at(self) -> datetime | None:
        """Time of the latest observation in the window."""
        return max((point.sampled_at for point in self.data), default=None)

    @property
    def summary(self) -> MetricValue | None:
        """The counter's total, the gauge's latest value, the histogram's statistics; None without observations."""
        if not self.data:
            return None
        if self.type == "gauge":
            return max(self.data, key=lambda point: point.sampled_at).value
        if self.type == "counter":
            return _total([point.value for point in self.data if isinstance(point.value, float)])
        values = [point.value for point in self.data if isinstance(point.value, dict)]
        count, total = sum(value["count"] for value in values), _total([value["sum"] for value in values])
        least, most = min(value["min"] for value in values), max(value["max"] for value in values)
        return {"count": int(count), "sum": total, "avg": total / count, "min": least, "max": most}


class Window(TypedDict):
    """0.26's answer: metrics by key; times are UTC, `end` is exclusive."""

    start: datetime
    end: datetime
    resolution: str
    generated_at: datetime
    series: dict[str, WindowMetric]


def utc_now() -> datetime:
    return datetime.now(UTC)


def check_window(
    options: Options,
    resolution: str = "5min",
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    range_seconds: int | None = None,
    limit: int | None = None,
) -> tuple[datetime, datetime]:
    """Return start (inclusive) and end (exclusive) of a query in UTC, by 0.26's rules and with its messages.

    Unlike 0.26's, a query without a length never breaks one: it is cut to whole buckets and to 1,000 of them,
    and the current bucket may be asked for even where less than a bucket is kept.

    Raises:
        ValueError: The window breaks one of them.
    """
    try:
        return _by_rules_of_026(options, resolution, start, end, range_seconds, limit)
    except OverflowError as error:  # in the years 1 and 9999
        raise ValueError(str(error)) from error


def _by_rules_of_026(
    options: Options,
    resolution: str,
    start: datetime | None,
    end: datetime | None,
    range_seconds: int | None,
    limit: int | None,
) -> tuple[datetime, datetime]:
    if resolution not in RESOLUTIONS:
        raise ValueError("resolution must be 1min, 5min, 1hour or 1day")
    # Before anything is added to them: the clock of a zone may be put back in between.
    start, end = (m.astimezone(UTC) if m is not None and is_aware(m) else m for m in (start, end))
    width = RESOLUTIONS[resolution]
    kept = max(width, retention_s(resolution, options.max_points, options.maximum_metric_age))
    if limit is not None:
        if start is not None or range_seconds is not None:
            raise ValueError("limit cannot be combined with start or range")
        if not 1 <= limit <= options.max_points[resolution]:
            raise ValueError("limit exceeds the retained bucket count")
        range_seconds = limit * width
    if end is None:
        end = from_s(bucket_of(microseconds(utc_now()), width) + width)
    if start is None:
        span = default_range_s(options, resolution) if range_seconds is None else range_seconds
        if not width <= span <= kept or span % width:
            raise ValueError("range must be a multiple of resolution within retention")
        start = end - timedelta(seconds=span)
    elif range_seconds is not None:
        raise ValueError("start cannot be combined with range")
    if any(not is_aware(moment) or microseconds(moment) % (width * 1_000_000) for moment in (start, end)):
        raise ValueError("start and end must be timezone-aware bucket boundaries")
    length = (end - start).total_seconds()
    if not 0 < length <= kept:
        raise ValueError("requested window exceeds retention")
    if length / width > MAX_BUCKETS:
        raise ValueError("requested window exceeds 1000 buckets")
    return start, end


def default_range_s(options: Options, resolution: str) -> int:
    """A day, or what is kept if that is less, in whole buckets and at most 1,000 of them."""
    width = RESOLUTIONS[resolution]
    kept = retention_s(resolution, options.max_points, options.maximum_metric_age)
    return max(width, min(DAY_S, kept, MAX_BUCKETS * width) // width * width)


def history(
    options: Options, series: Names, tracks: Mapping[int, Mapping[str, Rows]], prefix: str | None
) -> dict[str, Metric]:
    """Make 0.24's answer: every series under *prefix* that has a point kept now."""
    kept = kept_since(options)
    result = {}
    for key, number in series.under(prefix):
        mine = tracks.get(number, {})
        if has_kept(mine, kept):
            result[key] = Metric(series[number].kind, series[number].unit, dict(mine), kept)
    return result


def kept_since(options: Options) -> dict[str, int]:
    """Return resolution -> start of the oldest bucket kept now, seconds since 1970."""
    return horizons(microseconds(utc_now()), options.max_points, options.maximum_metric_age)


def has_kept(tracks: Mapping[str, Rows], kept: Mapping[str, int]) -> bool:
    # The widest first: it is kept the longest, mostly.
    return any(
        resolution in tracks and tracks[resolution][-1, 0] >= kept[resolution] for resolution in reversed(tuple(kept))
    )


def window(
    options: Options,
    series: Names,
    tracks: Mapping[int, Mapping[str, Rows]],
    prefix: str | None,
    resolution: str,
    start: datetime,
    end: datetime,
) -> Window:
    """Make 0.26's answer: every series under *prefix*, also those without a point in the window.

    Raises:
        ValueError: More than 100 series match.
    """
    now = utc_now()
    oldest = horizons(microseconds(now), options.max_points, options.maximum_metric_age)[resolution]
    matching = series.under(prefix)
    if len(matching) > MAX_SERIES:
        raise ValueError("prefix matches more than 100 series; choose a narrower prefix")
    first, last = max(int(start.timestamp()), oldest), int(end.timestamp())
    found = {}
    for key, number in matching:
        rows = tracks.get(number, {}).get(resolution)
        kind = series[number].kind
        points = [] if rows is None else _points(kind, since(rows, first, last))
        found[key] = WindowMetric(kind, series[number].unit, points)
    return {"start": start, "end": end, "resolution": resolution, "generated_at": now, "series": found}


def _points(kind: Kind, rows: Rows) -> list[MetricPoint]:
    sampled = rows[:, _COLUMN[kind]["last_us"]].tolist()
    return list(map(MetricPoint, map(from_s, rows[:, 0].tolist()), _values(kind, rows), map(from_us, sampled)))


def _values(kind: Kind, rows: Rows) -> list[float] | list[dict[str, float | int]]:
    """What each row is worth, made column by column: an answer may have 100,000 of them."""
    *_, values = columns = rows.T.tolist()
    if kind != "histogram":
        return values  # type: ignore[no-any-return] # numpy does not say what tolist() holds
    column = _COLUMN[kind]
    summaries: list[dict[str, float | int]] = [
        {"count": int(count), "sum": total, "avg": total / count, "min": least, "max": most}
        for count, total, least, most in zip(*(columns[column[n]] for n in ("count", "sum", "min", "max")), strict=True)
    ]
    quantiles = ("p50", "p95", "p99")
    if not np.isnan(rows[:, column["p50"]]).any():  # a worker's own points have none
        for summary, *known in zip(summaries, *(columns[column[name]] for name in quantiles), strict=True):
            summary.update(zip(quantiles, known, strict=True))
    return summaries


def _total(values: Sequence[float]) -> float:
    """Add up, rounding once; beyond the largest float64 it is that one, since JSON has no infinity."""
    try:
        return math.fsum(values)
    except OverflowError:
        return max(-sys.float_info.max, min(sys.float_info.max, sum(values)))
