"""The answer in 0.24's shape: all points kept of each series, newest first; which series have such points."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from chancy_metrics.events.facts import Kind, microseconds
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.plugin.host import clock
from chancy_metrics.plugin.host.moments import from_s
from chancy_metrics.plugin.host.options import Options
from chancy_metrics.plugin.reading.columns import MetricValue, Rows, since, values_of
from chancy_metrics.plugin.reading.shown_keys import Names
from chancy_metrics.projections.buckets import horizons

#: Bucket start (aware, UTC) and value.
MetricPair = tuple[datetime, MetricValue]


class Metric:
    """A metric's points at every resolution, newest first; made from the columns when they are read.

    Attributes:
        metric_type: "counter", "gauge" or "histogram".
        unit: Unit of the values.
    """

    def __init__(self, metric_type: Kind, unit: str, columns: Mapping[str, Rows], oldest_s: Mapping[str, int]) -> None:
        self.metric_type = metric_type
        self.unit = unit
        self._columns = columns
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
        if resolution not in self._columns:
            return []
        rows = since(self._columns[resolution], self._oldest_s[resolution])[::-1]
        return list(zip(map(from_s, rows[:, 0].tolist()), values_of(self.metric_type, rows), strict=True))

    def __repr__(self) -> str:
        points = {
            resolution: len(since(rows, self._oldest_s[resolution])) for resolution, rows in self._columns.items()
        }
        return f"Metric({self.metric_type!r}, unit={self.unit!r}, points={points})"


def history(
    options: Options, series: Names, columns: Mapping[int, Mapping[str, Rows]], prefix: str | None
) -> dict[str, Metric]:
    """Make 0.24's answer: every series under *prefix* that has a point kept now."""
    kept = kept_since(options)
    result = {}
    for key, number in series.under(prefix):
        mine = columns.get(number, {})
        if has_kept(mine, kept):
            result[key] = Metric(series[number].kind, series[number].unit, dict(mine), kept)
    return result


def kept_since(options: Options) -> dict[str, int]:
    """Return resolution -> start of the oldest bucket kept now, seconds since 1970."""
    return horizons(microseconds(clock.utc_now()), options.max_points, options.maximum_metric_age)


def has_kept(columns: Mapping[str, Rows], kept: Mapping[str, int]) -> bool:
    # The widest first: it is kept the longest, mostly.
    return any(
        resolution in columns and columns[resolution][-1, 0] >= kept[resolution] for resolution in reversed(tuple(kept))
    )
