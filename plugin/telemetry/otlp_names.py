"""Name series for OpenTelemetry: by its messaging conventions where they fit, and otherwise below `chancy.`."""

from __future__ import annotations

import re
from typing import NamedTuple

from chancy_metrics.events.facts import Kind, Series
from chancy_metrics.plugin.telemetry.families import Family, Member
from chancy_metrics.projections.rules.key_parts import KeyParts, key_parts

#: Bytes of a metric's name by OpenTelemetry's rules.
MAX_NAME = 255

Attributes = tuple[tuple[str, str], ...]


class Named(NamedTuple):
    """How a series is sent.

    Attributes:
        unit: By UCUM, as OpenTelemetry asks for.
        counts: Whether its values are whole numbers for ever.
    """

    name: str
    unit: str
    attributes: Attributes
    counts: bool = False


class _Own(NamedTuple):
    name: str
    unit: str
    counts: bool = False


_FUNCTION, _QUEUE, _STATE = "code.function.name", "messaging.destination.name", "chancy.job.state"
_LABELS = {"job": _FUNCTION, "queue": _QUEUE, "table": "db.collection.name"}
_SYSTEM = ("messaging.system", "chancy")
#: (subject, measure) -> name. The conventions have one name for what a queue's workers do, and no split by function.
_OWN: dict[tuple[str, str], _Own] = {
    ("queue", "execution_time"): _Own("messaging.process.duration", "s"),
    ("job", "execution_time"): _Own("chancy.job.execution.duration", "s"),
    ("job", "wait_time"): _Own("chancy.job.wait.duration", "s"),
    ("queue", "wait_time"): _Own("chancy.queue.wait.duration", "s"),
    ("job", "total_time"): _Own("chancy.job.total.duration", "s"),
    ("queue", "total_time"): _Own("chancy.queue.total.duration", "s"),
    ("job", "attempts"): _Own("chancy.job.attempts", "{attempt}"),
    ("job", "updates"): _Own("chancy.job.updates", "{update}", counts=True),
    ("queue", "updates"): _Own("chancy.queue.updates", "{update}", counts=True),
    ("queue", "throughput"): _Own("chancy.queue.throughput", "{update}", counts=True),
    ("global", "updates"): _Own("chancy.updates", "{update}", counts=True),
    ("queue", "depth"): _Own("chancy.queue.depth", "{job}"),
    ("queue", "oldest_wait_seconds"): _Own("chancy.queue.oldest_wait", "s"),
    ("workers", "active"): _Own("chancy.workers.active", "{worker}"),
    ("workers", "slots_used"): _Own("chancy.workers.slots.used", "{slot}"),
    ("workers", "slots"): _Own("chancy.workers.slots", "{slot}"),
    ("table", "total_size_bytes"): _Own("chancy.table.size", "By"),
    ("table", "table_size_bytes"): _Own("chancy.table.rows.size", "By"),
    ("table", "index_size_bytes"): _Own("chancy.table.indexes.size", "By"),
    ("pipeline", "drift"): _Own("chancy.metrics.drift", "{point}"),
}
_UNITS = {
    "seconds": "s",
    "milliseconds": "ms",
    "microseconds": "us",
    "minutes": "min",
    "hours": "h",
    "days": "d",
    "bytes": "By",
    "percent": "%",
    "ratio": "1",
    "count": "1",
    "number": "1",
}
#: Beginnings that no key of an app takes.
_TAKEN = ("chancy.", "messaging.")


def name_of(family: Family, member: Member) -> Named:
    """Return the name, unit and attributes of a family's member."""
    if member.total is None:
        return _of_pipeline(family, member)
    series = member.total.series
    parts = key_parts(series)
    own = _OWN.get((parts.subject, parts.measure))
    if own is None:
        return Named(_custom_name(series.key), _unit(series.unit), (("chancy.key", series.key),))
    return Named(own.name, own.unit, _attributes(own, parts), own.counts)


def kind_of(member: Member) -> Kind:
    """Return a member's kind; what is no series is a gauge."""
    series: Series | None = member.total.series if member.total else None
    return "gauge" if series is None else series.kind


def _attributes(own: _Own, parts: KeyParts) -> Attributes:
    found = [(_LABELS[parts.subject], parts.name)] if parts.subject in _LABELS else []
    if parts.subject == "queue":
        found.append(_SYSTEM)
    if own.name.startswith("messaging."):
        found.append(("messaging.operation.name", "process"))
    if parts.state is not None:
        found.append((_STATE, parts.state))
    return tuple(found)


def _of_pipeline(family: Family, member: Member) -> Named:
    """Return the name of what is no series: `chancy_metrics_lag_seconds` is sent as `chancy.metrics.lag` in s."""
    name = family.name.removeprefix("chancy_metrics_")
    if family.unit == "seconds":
        name = name.removesuffix("_seconds")
    attributes = tuple((f"chancy.metrics.{label}", value) for label, value in member.labels)
    return Named(f"chancy.metrics.{name}", _UNITS.get(family.unit, "1"), attributes)


def _custom_name(key: str) -> str:
    """Return the name for a key of the app; two keys may share one, and differ in the attribute `chancy.key`."""
    name = re.sub(r"[^A-Za-z0-9_.\-/]", "_", key.replace(":", "."))
    if not re.match("[A-Za-z]", name) or name.startswith(_TAKEN):
        name = f"custom.{name}"
    return name[:MAX_NAME]


def _unit(unit: str) -> str:
    """Return a unit by UCUM; one that it does not know as an annotation, such as {euro}."""
    if (known := _UNITS.get(unit)) is not None:
        return known
    text = re.sub(r"[^!-z|~]", "", unit)
    return f"{{{text}}}" if text else "1"
