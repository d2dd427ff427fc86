"""The series that this plugin measures itself, whatever the jobs do: sizes of tables, and what `verify` has found."""

from __future__ import annotations

from chancy_metrics.events.facts import Series

#: The gauge of what `verify` has found.
DRIFT = Series("metrics:drift", "gauge", "count")
TABLE_SIZES = ("total_size_bytes", "table_size_bytes", "index_size_bytes")


def table_sizes(table: str) -> tuple[Series, ...]:
    """Return the gauges of a table's size: of all, of its rows, of its indexes."""
    return tuple(Series(f"table:{table}:{name}", "gauge", "bytes") for name in TABLE_SIZES)
