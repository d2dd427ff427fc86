"""Families of totals with labels, as exporters send them: what a series is of becomes labels, not part of a name.

A series is of a function or of a queue. These are separate families, so that nobody adds the same job twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from chancy_metrics.events.facts import Kind, Series
from chancy_metrics.plugin.telemetry.custom_names import Labels, custom_names
from chancy_metrics.projections.rules.key_parts import MARK, key_parts
from chancy_metrics.projections.totals.read import Total, Totals

#: Seconds after which the last value of a gauge is not shown any more: of those that the plugin samples itself every
#: `collection_interval`, and of all others, of which some are recorded once a day.
SAMPLED_S, RECORDED_S = 300.0, 25 * 3_600.0

#: States whose counters are shown as 0 from the beginning, so that the first failure is an increase.
_SHOWN_STATES = ("succeeded", "failed", "retrying")


class Member(NamedTuple):
    """One series of a family.

    Attributes:
        value: The sum of a counter or histogram, the last value of a gauge.
        total: All there is of it; None for a counter that is 0 so far, and for what is no series.
    """

    labels: Labels
    value: float
    total: Total | None = None


class Family(NamedTuple):
    """Series of one name, told apart by labels.

    Attributes:
        name: Without the `_total` of a counter's sample.
        unit: The unit, with which the name ends; "" where it does not.
        about: What it is, one sentence.
    """

    name: str
    kind: Kind
    unit: str
    about: str
    members: list[Member]


class _Own(NamedTuple):
    """A family of the plugin's own series; *label* names what they are of."""

    name: str
    label: str
    about: str
    unit: str = ""


_UPDATES = "Job updates to a state"
_TIMES = {
    "execution": "Time from the start of an attempt to its end",
    "wait": "Time from when a job was due to its start",
    "total": "Time from when a job was due first to its success, over all attempts",
}
#: (subject, measure) -> family.
_OWN: dict[tuple[str, str], _Own] = {
    ("job", "updates"): _Own("chancy_jobs", "func", f"{_UPDATES}, by function."),
    ("queue", "updates"): _Own("chancy_queue_jobs", "queue", f"{_UPDATES}, by queue."),
    ("queue", "throughput"): _Own("chancy_queue_throughput", "queue", "Job updates to any state, by queue."),
    ("global", "updates"): _Own("chancy_all_jobs", "", f"{_UPDATES}, of all functions."),
    **{
        (subject, f"{time}_time"): _Own(
            f"chancy_{subject}_{time}{'_time' if time == 'total' else ''}_seconds", label, f"{about}.", "seconds"
        )
        for time, about in _TIMES.items()
        for subject, label in (("job", "func"), ("queue", "queue"))
    },
    ("job", "attempts"): _Own("chancy_job_attempts", "func", "Attempts that ended jobs took in all.", "attempts"),
    ("queue", "depth"): _Own("chancy_queue_depth", "queue", "Jobs in a queue that have not ended."),
    ("queue", "oldest_wait_seconds"): _Own(
        "chancy_queue_oldest_wait_seconds", "queue", "How long the first of a queue's due jobs has waited.", "seconds"
    ),
    ("workers", "active"): _Own("chancy_workers_active", "", "Workers that are running."),
    ("workers", "slots_used"): _Own("chancy_worker_slots_used", "", "Jobs that workers run now."),
    ("workers", "slots"): _Own("chancy_worker_slots", "", "Jobs that workers can run at once."),
    ("table", "total_size_bytes"): _Own(
        "chancy_table_total_size_bytes", "table", "Size of a table with its indexes.", "bytes"
    ),
    ("table", "table_size_bytes"): _Own("chancy_table_size_bytes", "table", "Size of a table's rows.", "bytes"),
    ("table", "index_size_bytes"): _Own("chancy_table_index_size_bytes", "table", "Size of its indexes.", "bytes"),
    ("pipeline", "drift"): _Own("chancy_metrics_drift", "", "Points that the last run of verify found different."),
}
#: Marks are counters, and gauges here: one that is taken back is counted down.
_MARKS = _Own("chancy_marks", "mark", "How often a moment was marked with that text, and not taken back.")
#: Subjects whose gauges the plugin samples itself.
_SAMPLED = ("queue", "workers", "table")


def families_of(totals: Totals, *, sampled_s: float = SAMPLED_S) -> list[Family]:
    """Return the families of all series, by name; gauges that were not sampled lately are absent.

    Args:
        sampled_s: Seconds for which the last value of a gauge counts that the plugin samples itself.
    """
    shown = [one for one in totals.series if _is_shown(one, totals.at_us, sampled_s)]
    families = {one.name: one for one in _custom(shown)}
    for total in shown:
        if _is_mark(total.series):
            family = families.setdefault(_MARKS.name, Family(_MARKS.name, "gauge", "", _MARKS.about, []))
            text = total.series.key.removeprefix(MARK)
            family.members.append(Member(((_MARKS.label, text),), total.sum, total))
        parts = key_parts(total.series)
        if (own := _OWN.get((parts.subject, parts.measure))) is None:
            continue
        family = families.setdefault(own.name, Family(own.name, total.series.kind, own.unit, own.about, []))
        labels = ((own.label, parts.name),) if own.label else ()
        family.members.append(Member(labels + _state(parts.state), _value(total), total))
    for name, label in (("chancy_jobs", "func"), ("chancy_queue_jobs", "queue")):
        if name in families:
            families[name].members.extend(_not_counted_yet(families[name].members, label))
    for family in families.values():
        family.members.sort(key=lambda one: one.labels)
    return [families[name] for name in sorted(families)]


def shown_kind(total: Total) -> Kind:
    """Return the kind as which a total is shown: a counter to which less than nothing was added can fall."""
    series = total.series
    return "gauge" if series.kind == "counter" and total.min < 0 and _is_custom(series) else series.kind


def _custom(totals: list[Total]) -> Iterator[Family]:
    """Make the families of custom metrics."""
    custom = [one for one in totals if _is_custom(one.series)]
    names = custom_names((one.series, shown_kind(one)) for one in custom)
    families: dict[str, Family] = {}
    for total in custom:
        name, unit, labels = names[total.series]
        about = f"Recorded by the app under {'several keys' if labels else total.series.key}."
        family = families.setdefault(name, Family(name, shown_kind(total), unit, about, []))
        family.members.append(Member(labels, _value(total), total))
    yield from families.values()


def _is_custom(series: Series) -> bool:
    parts = key_parts(series)
    return (parts.subject, parts.measure) not in _OWN and not _is_mark(series)


def _is_mark(series: Series) -> bool:
    return series.kind == "counter" and series.key.startswith(MARK)


def _is_shown(total: Total, now_us: int, sampled_s: float) -> bool:
    if total.series.kind != "gauge":
        return True
    kept_s = sampled_s if key_parts(total.series).subject in _SAMPLED else RECORDED_S
    return total.last is not None and now_us - total.last_us <= kept_s * 1e6


def _value(total: Total) -> float:
    if total.series.kind != "gauge":
        return total.sum
    assert total.last is not None
    return total.last


def _state(state: str | None) -> Labels:
    return () if state is None else (("state", state),)


def _not_counted_yet(members: Iterable[Member], label: str) -> list[Member]:
    """Return zeros for the states that a function or queue has no updates to."""
    there = {one.labels for one in members}
    names = dict.fromkeys(value for labels in there for name, value in labels if name == label)
    zeros = (((label, name), ("state", state)) for name in sorted(names) for state in _SHOWN_STATES)
    return [Member(labels, 0.0) for labels in zeros if labels not in there]
