"""Make OTLP requests of what exporters read: cumulative sums, gauges and exponential histograms, as the totals are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    ExponentialHistogramDataPoint,
    Metric,
    NumberDataPoint,
)

from chancy_metrics.plugin.telemetry.families import Family, Member
from chancy_metrics.plugin.telemetry.le_buckets import NOTHING
from chancy_metrics.plugin.telemetry.otlp_names import Attributes, Named, kind_of, name_of
from chancy_metrics.projections.fold.sketch import OFFSET, SCALE
from chancy_metrics.projections.totals.read import Total

#: Bytes of the points of one request, before they are compressed: collectors refuse from some megabytes on.
MAX_BYTES = 1_000_000
#: Buckets of a histogram on each side of zero; a wider one is sent at a coarser scale.
MAX_BUCKETS = 4_096
_SCOPE = "chancy-metrics"


class Request(NamedTuple):
    """A request, and how many points it has."""

    body: bytes
    points: int


class _Point(NamedTuple):
    about: str
    named: Named
    member: Member
    monotonic: bool
    data: NumberDataPoint | ExponentialHistogramDataPoint

    @property
    def metric(self) -> tuple[str, str, str, bool]:
        """What points of one metric have in common."""
        return self.named.name, self.named.unit, kind_of(self.member), self.monotonic


def requests_of(
    families: Iterable[Family], resource: Mapping[str, str], now_us: int, *, max_bytes: int = MAX_BYTES
) -> Iterator[Request]:
    """Yield the requests that together send all *families*.

    Args:
        resource: Attributes of the resource.
        now_us: When they were read, by the database's clock.
        max_bytes: Bytes of the points of one request, or one point.
    """
    points = sorted(_points(families, now_us), key=lambda one: (one.metric, one.named.attributes))
    waiting: list[_Point] = []
    size = 0
    for point in points:
        if waiting and size + point.data.ByteSize() > max_bytes:
            yield _request(waiting, resource)
            waiting, size = [], 0
        waiting.append(point)
        size += point.data.ByteSize()
    if waiting:
        yield _request(waiting, resource)


def _points(families: Iterable[Family], now_us: int) -> Iterator[_Point]:
    for family in families:
        for member in family.members:
            if member.total is None and family.kind != "gauge":
                continue  # a counter's 0 before its first observation: its start time says the same
            named = name_of(family, member)
            yield _Point(family.about, named, member, _is_monotonic(member), _data(named, member, now_us))


def _is_monotonic(member: Member) -> bool:
    """Whether it is a counter to which nothing below 0 was added."""
    return kind_of(member) == "counter" and member.total is not None and member.total.min >= 0


def _data(named: Named, member: Member, now_us: int) -> NumberDataPoint | ExponentialHistogramDataPoint:
    total = member.total
    kind = kind_of(member)
    if total is not None and kind == "histogram":
        return _histogram(total, named.attributes, now_us)
    at_us = total.last_us if total is not None and kind == "gauge" else now_us
    point = NumberDataPoint(attributes=_attributes(named.attributes), time_unix_nano=at_us * 1_000)
    if total is not None and kind == "counter":
        point.start_time_unix_nano = min(total.created_us, at_us) * 1_000
    if named.counts:
        point.as_int = round(member.value)
    else:
        point.as_double = member.value
    return point


def _histogram(total: Total, attributes: Attributes, now_us: int) -> ExponentialHistogramDataPoint:
    """Return a sketch as the histogram that it is.

    Imported summaries are in its sum, minimum and maximum alone: it must count as many as its buckets, and a rate does
    not see what never changes.
    """
    sketch = total.sketch or NOTHING
    pairs = list(zip(sketch.codes, sketch.counts, strict=True))
    sides = [
        [(code - OFFSET, count) for code, count in pairs if code > 0],
        [(-code - OFFSET, count) for code, count in reversed(pairs) if code < 0],
    ]
    coarser = _coarser_by(sides)
    point = ExponentialHistogramDataPoint(
        attributes=_attributes(attributes),
        start_time_unix_nano=min(total.created_us, now_us) * 1_000,
        time_unix_nano=now_us * 1_000,
        count=sum(sketch.counts),
        sum=total.sum,
        min=total.min,
        max=total.max,
        scale=SCALE - coarser,
        zero_count=sum(number for code, number in pairs if code == 0),
    )
    for side, buckets in zip(sides, (point.positive, point.negative), strict=True):
        if side:
            buckets.offset = side[0][0] >> coarser
            buckets.bucket_counts.extend(_dense(side, coarser))
    return point


def _coarser_by(sides: Iterable[Sequence[tuple[int, int]]]) -> int:
    """Return by how many scales the histogram has to be coarser, so that no side has more than `MAX_BUCKETS`."""
    coarser = 0
    for side in filter(None, sides):
        while (side[-1][0] >> coarser) - (side[0][0] >> coarser) >= MAX_BUCKETS:
            coarser += 1
    return coarser


def _dense(side: Sequence[tuple[int, int]], coarser: int) -> list[int]:
    """Return the counts of all buckets from the first to the last, those between included."""
    first = side[0][0] >> coarser
    counts = [0] * ((side[-1][0] >> coarser) - first + 1)
    for index, count in side:
        counts[(index >> coarser) - first] += count
    return counts


def _request(points: Sequence[_Point], resource: Mapping[str, str]) -> Request:
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add()
    of_resource.resource.attributes.extend(_attributes(tuple(resource.items())))
    of_scope = of_resource.scope_metrics.add()
    of_scope.scope.name, of_scope.scope.version = _SCOPE, version(_SCOPE)
    last: Metric | None = None
    known: object = None
    for point in points:
        if last is None or point.metric != known:
            last, known = of_scope.metrics.add(), point.metric
            last.name, last.unit, last.description = point.named.name, point.named.unit, point.about
        _data_of(last, point).data_points.append(point.data)
    return Request(request.SerializeToString(), len(points))


def _data_of(metric: Metric, point: _Point) -> Any:
    """Return the part of *metric* that takes points of this kind."""
    kind = kind_of(point.member)
    if kind == "gauge":
        return metric.gauge
    if kind == "histogram":
        metric.exponential_histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        return metric.exponential_histogram
    metric.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    metric.sum.is_monotonic = point.monotonic
    return metric.sum


def _attributes(attributes: Attributes) -> list[KeyValue]:
    made = []
    for key, value in attributes:
        one = KeyValue(key=key)
        one.value.string_value = value
        made.append(one)
    return made
