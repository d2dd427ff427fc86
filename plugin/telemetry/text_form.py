"""Write families as text: OpenMetrics 1.0, or Prometheus' format 0.0.4 for clients that don't take it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import Metric, exposition
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.utils import floatToGoString

from chancy_metrics.plugin.telemetry.families import Family, Member
from chancy_metrics.plugin.telemetry.le_buckets import le_buckets


class _Collector:
    """Hands families to a generator of prometheus_client, which asks a registry for them."""

    def __init__(self, families: Iterable[Family], *, with_created: bool) -> None:
        self._families = families
        self._with_created = with_created

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.about, family.kind, family.unit)
            for member in family.members:
                _add(metric, member, self._with_created)
            yield metric


def openmetrics_text(families: Iterable[Family]) -> bytes:
    """Write OpenMetrics 1.0."""
    collector = _Collector(families, with_created=True)
    return bytes(openmetrics.generate_latest(collector))  # type: ignore[no-untyped-call]


def plain_text(families: Iterable[Family]) -> bytes:
    """Write format 0.0.4, which knows no time since when a counter counts."""
    return bytes(exposition.generate_latest(_Collector(families, with_created=False)))


def _add(metric: Metric, member: Member, with_created: bool) -> None:
    name, labels, total = metric.name, dict(member.labels), member.total
    if metric.type == "gauge":
        metric.add_sample(name, labels, member.value)
        return
    if metric.type == "counter":
        metric.add_sample(f"{name}_total", labels, member.value)
    elif total is not None:
        for boundary, count in le_buckets(total):
            le = floatToGoString(boundary)  # type: ignore[no-untyped-call]
            metric.add_sample(f"{name}_bucket", {**labels, "le": le}, count)
        if total.min >= 0:  # a sum that can fall may not be sent, nor the count without it
            metric.add_sample(f"{name}_count", labels, total.count)
            metric.add_sample(f"{name}_sum", labels, total.sum)
    if with_created and total is not None:
        metric.add_sample(f"{name}_created", labels, total.created_us / 1e6)
