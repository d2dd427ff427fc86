"""Reserved series, made of job updates or measured by this plugin: observations of others are refused."""

from __future__ import annotations

from chancy_metrics.events.errors import InvalidObservation
from chancy_metrics.events.facts import Kind, Series, check_series
from chancy_metrics.projections.rules.key_parts import key_parts


def check_own_series(key: object, kind: Kind, unit: object) -> Series:
    """Return the series of an observation that an application or a rule makes.

    Raises:
        InvalidObservation: Key or unit break their rule, or the series is one of this plugin's.
    """
    series = check_series(key, kind, unit)
    refuse_reserved(series)
    return series


def refuse_reserved(series: Series) -> None:
    """Refuse a reserved series; the same key with another kind or unit is allowed.

    Raises:
        InvalidObservation: The series is one of this plugin's.
    """
    if key_parts(series).subject != "custom":
        raise InvalidObservation(
            "reserved",
            f"key {series.key!r} as a {series.kind} in {series.unit!r} is a metric of this plugin's own: what is "
            "recorded under it would be added to what it counts or measures itself; take another key",
        )
