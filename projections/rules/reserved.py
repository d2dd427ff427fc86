"""Reserved series, made of job updates or measured by this plugin: observations of others are refused."""

from __future__ import annotations

import re
from functools import lru_cache

from chancy_metrics.events.errors import InvalidObservation
from chancy_metrics.events.facts import Kind, Series, check_series
from chancy_metrics.projections.rules.built_in import STATES, job_series

#: The gauge of what `verify` has found.
DRIFT = Series("metrics:drift", "gauge", "count")
TABLE_SIZES = ("total_size_bytes", "table_size_bytes", "index_size_bytes")


def table_sizes(table: str) -> tuple[Series, ...]:
    """Return the gauges of a table's size: of all, of its rows, of its indexes."""
    return tuple(Series(f"table:{table}:{name}", "gauge", "bytes") for name in TABLE_SIZES)


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
    pattern = _patterns().get((series.kind, series.unit))
    if pattern is not None and pattern.fullmatch(series.key):
        raise InvalidObservation(
            "reserved",
            f"key {series.key!r} as a {series.kind} in {series.unit!r} is a metric of this plugin's own: what is "
            "recorded under it would be added to what it counts or measures itself; take another key",
        )


@lru_cache(maxsize=1)
def _patterns() -> dict[tuple[str, str], re.Pattern[str]]:
    """Return what matches the reserved keys, by kind and unit."""
    made = {series for state in STATES for series in job_series("*", "*", state)}
    # Not only the states there are: nobody else's counter belongs among those that are shown as all states.
    made |= {Series("global:status:*", "counter", "count"), *table_sizes("*"), DRIFT}
    keys: dict[tuple[str, str], list[str]] = {}
    for key, kind, unit in sorted(made):
        keys.setdefault((kind, unit), []).append(".*".join(map(re.escape, key.split("*"))))
    return {known: re.compile("|".join(one), re.DOTALL) for known, one in keys.items()}
