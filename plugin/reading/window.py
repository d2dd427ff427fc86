"""The answer in 0.26's shape, a range of time of each series, oldest first; check the range that is asked for."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, TypedDict

from chancy_metrics.events.facts import Kind, microseconds
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.plugin.host import clock
from chancy_metrics.plugin.host.moments import from_s, from_us, is_aware
from chancy_metrics.plugin.host.options import Options
from chancy_metrics.plugin.reading.columns import COLUMN_OF, MetricValue, Rows, since, values_of
from chancy_metrics.plugin.reading.shown_keys import Names
from chancy_metrics.projections.buckets import bucket_of, horizons, retention_s

MAX_BUCKETS = 1_000
MAX_SERIES = 100
DAY_S = 86_400


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
            return finite_total([point.value for point in self.data if isinstance(point.value, float)])
        values = [point.value for point in self.data if isinstance(point.value, dict)]
        count, total = sum(value["count"] for value in values), finite_total([value["sum"] for value in values])
        low, high = min(value["min"] for value in values), max(value["max"] for value in values)
        return {"count": int(count), "sum": total, "avg": total / count, "min": low, "max": high}


class Window(TypedDict):
    """0.26's answer: metrics by key; times are UTC, `end` is exclusive."""

    start: datetime
    end: datetime
    resolution: str
    generated_at: datetime
    series: dict[str, WindowMetric]


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
        end = from_s(bucket_of(microseconds(clock.utc_now()), width) + width)
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


def window(
    options: Options,
    series: Names,
    columns: Mapping[int, Mapping[str, Rows]],
    prefix: str | None,
    resolution: str,
    start: datetime,
    end: datetime,
) -> Window:
    """Make 0.26's answer: every series under *prefix*, also those without a point in the window.

    Raises:
        ValueError: More than 100 series match.
    """
    now = clock.utc_now()
    oldest = horizons(microseconds(now), options.max_points, options.maximum_metric_age)[resolution]
    matching = series.under(prefix)
    if len(matching) > MAX_SERIES:
        raise ValueError("prefix matches more than 100 series; choose a narrower prefix")
    first, last = max(int(start.timestamp()), oldest), int(end.timestamp())
    found = {}
    for key, number in matching:
        rows = columns.get(number, {}).get(resolution)
        kind = series[number].kind
        points = [] if rows is None else _points(kind, since(rows, first, last))
        found[key] = WindowMetric(kind, series[number].unit, points)
    return {"start": start, "end": end, "resolution": resolution, "generated_at": now, "series": found}


def _points(kind: Kind, rows: Rows) -> list[MetricPoint]:
    sampled = rows[:, COLUMN_OF[kind]["last_us"]].tolist()
    return list(map(MetricPoint, map(from_s, rows[:, 0].tolist()), values_of(kind, rows), map(from_us, sampled)))


def finite_total(values: Sequence[float]) -> float:
    """Add up, rounding once; beyond the largest float64 it is that one, since JSON has no infinity."""
    try:
        return math.fsum(values)
    except OverflowError:
        return max(-sys.float_info.max, min(sys.float_info.max, sum(values)))
