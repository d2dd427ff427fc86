"""The series that this plugin measures itself: queues, workers, sizes of tables, and what `verify` has found."""

from __future__ import annotations

from chancy_metrics.events.facts import Series
from chancy_metrics.projections.rules.built_in import bounded_key

#: The gauge of what `verify` has found.
DRIFT = Series("metrics:drift", "gauge", "count")
TABLE_SIZES = ("total_size_bytes", "table_size_bytes", "index_size_bytes")
_SIZE_ENDINGS = tuple(f":{name}" for name in TABLE_SIZES)
#: What a job that has not ended is: due, running, due once more, or due later. Each is one of them.
DEPTHS = ("pending", "running", "retrying", "scheduled")
#: Most jobs of a queue that are counted: where a depth has this value, there are as many or more.
MOST_JOBS = 100_000
WORKERS_ACTIVE = Series("workers:active", "gauge", "workers")
SLOTS_USED = Series("workers:slots_used", "gauge", "slots")
SLOTS = Series("workers:slots", "gauge", "slots")


def is_table_size(key: str) -> bool:
    """Whether a key is one of a table's size: there are three a table, which lists show after all others."""
    return key.startswith("table:") and key.endswith(_SIZE_ENDINGS)


def table_sizes(table: str) -> tuple[Series, ...]:
    """Return the gauges of a table's size: of all, of its rows, of its indexes."""
    return tuple(Series(f"table:{table}:{name}", "gauge", "bytes") for name in TABLE_SIZES)


def queue_depths(queue: str) -> tuple[Series, ...]:
    """Return the gauges of how many jobs a queue holds, in the order of `DEPTHS`."""
    return tuple(Series(bounded_key(f"queue:{queue}:", f"depth:{state}"), "gauge", "jobs") for state in DEPTHS)


def oldest_wait(queue: str) -> Series:
    """Return the gauge of how long the first of a queue's due jobs has waited."""
    return Series(bounded_key(f"queue:{queue}:", "oldest_wait_seconds"), "gauge", "seconds")
