"""Say what the replay of a rule came to: its firings, and its worst, usual and rare values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
import numpy as np

from chancy_metrics.events.humanize import span
from chancy_metrics.plugin.alerts.conditions import Firing, Floats, Judged
from chancy_metrics.plugin.alerts.rules import Rule
from chancy_metrics.plugin.alerts.watched import Watched
from chancy_metrics.plugin.host.moments import from_s
from chancy_metrics.projections.grid import Grid
from chancy_metrics.projections.rules.key_parts import own_series

#: The part of the time in which a value is not as extreme as the "rare" one.
_RARE = 0.99


class RuleFiring(msgspec.Struct, frozen=True):
    """A time in which a rule would have fired, for one series.

    Attributes:
        until: Exclusive; None if it would still fire at the end.
        firing_s: How long, in seconds; to the end if it would still fire.
        unknown_s: Seconds of it in which the log, or a gauge, has nothing.
        worst: The value farthest past the threshold, and *worst_at* the start of its bucket; None without values.
        width_s: Width of the buckets by which it was found.
    """

    key: str
    since: datetime
    until: datetime | None
    firing_s: float
    unknown_s: float
    worst: float | None
    worst_at: datetime | None
    width_s: int


class RuleReplay(msgspec.Struct, frozen=True):
    """What a rule would have done.

    Attributes:
        condition: The rule in words.
        is_share: Whether its values are shares, 0 to 1, of a counter in a sum of counters.
        unit: Unit of its values; "" for a share, and where there is no series.
        series: How many series it watches.
        firings: By start.
        firing_s: Seconds in which it would have fired, for any of its series; those of several at once count each.
        longest_s: Seconds of the longest firing.
        worst: The most extreme of all values, whether the rule fired or not; None if there was none.
        usual: The median of its values, by time.
        rare: The value that is passed in 1 % of the time only: above it, or below it for `below`.
        known: Part of the time of its series that could be judged, 0 to 1.
    """

    name: str
    condition: str
    is_share: bool
    unit: str
    series: int
    firings: list[RuleFiring]
    firing_s: float
    longest_s: float
    worst: float | None
    worst_at: datetime | None
    worst_key: str | None
    usual: float | None
    rare: float | None
    known: float


class JudgedSeries(NamedTuple):
    """One series of a rule, judged in each bucket, with its firings."""

    key: str
    judged: Judged
    firings: list[Firing]


def sum_up(rule: Rule, watched: Sequence[Watched], done: Sequence[JudgedSeries], grid: Grid) -> RuleReplay:
    """Sum up the series of *rule*, all judged on *grid*."""
    end_s = float(grid.ends[-1]) if len(grid.starts) else 0.0
    fired = sorted(
        (_firing(one.key, firing, end_s) for one in done for firing in one.firings),
        key=lambda one: (one.since, one.key),
    )
    values = np.concatenate([np.zeros(0), *(one.judged.values for one in done)])
    widths = np.tile(grid.widths, len(done)).astype(np.float64)
    known_s = sum(float(grid.widths[one.judged.holds >= 0].sum()) for one in done)
    worst, place = _worst(rule, values)
    unit = "" if rule.of or rule.side == "absent" or not watched else watched[0].series.unit
    return RuleReplay(
        name=rule.name,
        condition=in_words(rule, watched),
        is_share=bool(rule.of),
        unit=unit,
        series=len(watched),
        firings=fired,
        firing_s=sum(one.firing_s for one in fired),
        longest_s=max((one.firing_s for one in fired), default=0.0),
        worst=worst,
        worst_at=None if worst is None else from_s(int(grid.starts[place % len(grid.starts)])),
        worst_key=None if worst is None else done[place // len(grid.starts)].key,
        usual=_by_time(values, widths, 0.5),
        rare=_by_time(values, widths, _RARE if rule.side == "above" else 1 - _RARE),
        known=known_s / widths.sum() if widths.sum() else 0.0,
    )


def _firing(key: str, firing: Firing, end_s: float) -> RuleFiring:
    has_value = not np.isnan(firing.worst)
    return RuleFiring(
        key=key,
        since=from_s(firing.since_s),
        until=None if firing.until_s is None else from_s(firing.until_s),
        firing_s=(end_s if firing.until_s is None else firing.until_s) - firing.since_s,
        unknown_s=firing.unknown_s,
        worst=firing.worst if has_value else None,
        worst_at=from_s(firing.worst_s) if has_value else None,
        width_s=firing.width_s,
    )


def _worst(rule: Rule, values: Floats) -> tuple[float | None, int]:
    """Return the most extreme value and its place."""
    if np.isnan(values).all():
        return None, 0
    place = int(np.nanargmax(values) if rule.side == "above" else np.nanargmin(values))
    return float(values[place]), place


def _by_time(values: Floats, widths: Floats, quantile: float) -> float | None:
    """Return the value that is not passed for a part of the time; None without values."""
    there = np.flatnonzero(~np.isnan(values))
    if not len(there):
        return None
    order = there[np.argsort(values[there])]
    passed = np.cumsum(widths[order])
    return float(values[order[np.searchsorted(passed, quantile * passed[-1])]])


def in_words(rule: Rule, watched: Sequence[Watched]) -> str:
    """Return the condition of *rule* in words."""
    over = f" over {span(rule.window_s)}" if rule.window_s else ""
    lasting = f" for {span(rule.for_s)}" if rule.for_s else ""
    if rule.side == "absent":
        return f"{rule.series} has no point{over}{lasting}"
    limit = f"{rule.side} {rule.threshold:g}"
    enough = f", of at least {rule.min_count:,}" if rule.min_count else ""
    if rule.of:
        return f"{rule.series} / ({' + '.join(rule.of)}){over} {limit}{enough}{lasting}"
    series = watched[0].series if watched else own_series(rule.series)
    value = rule.value or "value" if series is None else rule.value_of(series.kind)
    unit = "" if series is None or series.unit == "count" else f" {series.unit}"
    return f"{value} of {rule.series}{over} {limit}{unit}{enough}{lasting}"
