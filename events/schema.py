"""Names of the metrics log's tables, views and functions, made from Chancy's prefix, and the rollups' resolutions."""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from typing import LiteralString, NamedTuple

from psycopg import sql

from chancy_metrics.events.errors import PrefixTooLong

MIGRATION_KEY = "metrics_log"

#: Names of the tables without the prefix, except the log's partitions (`metrics_log_20261125`).
TABLES = (
    "metrics_log",
    "metrics_pending",
    "metrics_set_aside",
    "metrics_spill",
    "metrics_ledger",
    "metrics_head",
    "metrics_producers",
    "metrics_sessions",
    "metrics_days",
    "metrics_summaries",
    "metrics_versions",
    "metrics_dead_letters",
    "metrics_series",
    "metrics_workers",
    "metrics_1min",
    "metrics_5min",
    "metrics_1hour",
    "metrics_1day",
    "metrics_worker_segments",
    "metrics_totals",
    "metrics_cache",
)

#: Widths of the rollups in seconds, finest first.
RESOLUTIONS = {"1min": 60, "5min": 300, "1hour": 3_600, "1day": 86_400}

#: Names of the views without the prefix, each after those that it reads.
VIEWS = (
    "metrics_keys",
    "metrics_resolutions",
    *(f"metrics_points_{resolution}" for resolution in RESOLUTIONS),
    "metrics_points",
    "metrics_marks",
    "metrics_pipeline",
)

#: A version's columns with the start of the oldest bucket it keeps, by resolution.
HORIZON_COLUMNS: LiteralString = "horizon_1min, horizon_5min, horizon_1hour, horizon_1day"

#: Columns of a rollup but for its version.
ROLLUP_COLUMNS: LiteralString = (
    "series, bucket, count, last_us, sum, min, max, last, last_position, last_index, p50, p95, p99, sketch"
)

#: Columns of a worker's segment but for its version.
SEGMENT_COLUMNS: LiteralString = "worker, resolution, fold, part, first_s, end_s, cells, data"

#: Length of the longest name without its prefix.
_LONGEST_SUFFIX = len("metrics_dead_letters_pkey")
_NAME_BYTES = 63


class Tables(NamedTuple):
    """Quoted identifiers for one prefix; values only ever enter SQL as parameters."""

    prefix: str
    log: sql.Identifier
    pending: sql.Identifier
    set_aside: sql.Identifier
    spill: sql.Identifier
    ledger: sql.Identifier
    head: sql.Identifier
    producers: sql.Identifier
    sessions: sql.Identifier
    days: sql.Identifier
    summaries: sql.Identifier
    versions: sql.Identifier
    dead_letters: sql.Identifier
    series: sql.Identifier
    workers: sql.Identifier
    worker_segments: sql.Identifier
    totals: sql.Identifier
    cache: sql.Identifier
    refuse_change: sql.Identifier
    refuse_append: sql.Identifier
    append: sql.Identifier
    resolution_for: sql.Identifier
    due: sql.Identifier

    def view(self, name: str) -> sql.Identifier:
        """Return the view of this name in `VIEWS`, which is given without `metrics_`; `ValueError` if there is none."""
        return sql.Identifier(f"{self.prefix}{VIEWS[VIEWS.index(f'metrics_{name}')]}")

    def rollup(self, resolution: str) -> sql.Identifier:
        """Return the table of *resolution*; `KeyError` if there is none."""
        RESOLUTIONS[resolution]
        return sql.Identifier(f"{self.prefix}metrics_{resolution}")

    def partition(self, day: date) -> sql.Identifier:
        return sql.Identifier(self.partition_name(day))

    def partition_name(self, day: date) -> str:
        return f"{self.partition_stem}{day:%Y%m%d}"

    @property
    def partition_stem(self) -> str:
        """Return the start of the name of every partition."""
        return f"{self.prefix}metrics_log_"


@lru_cache(maxsize=256)
def tables_for(prefix: str) -> Tables:
    """Name the tables under *prefix*.

    Raises:
        PrefixTooLong: A name would pass PostgreSQL's 63 bytes and be cut.
    """
    size = len(prefix.encode())
    if size + _LONGEST_SUFFIX > _NAME_BYTES:
        raise PrefixTooLong(
            f"prefix {prefix!r} has {size} bytes; PostgreSQL cuts names at {_NAME_BYTES} bytes, "
            f"so chancy-metrics takes prefixes of up to {_NAME_BYTES - _LONGEST_SUFFIX}: choose a shorter one"
        )

    def name(suffix: str) -> sql.Identifier:
        return sql.Identifier(f"{prefix}metrics_{suffix}")

    return Tables(
        prefix,
        log=name("log"),
        pending=name("pending"),
        set_aside=name("set_aside"),
        spill=name("spill"),
        ledger=name("ledger"),
        head=name("head"),
        producers=name("producers"),
        sessions=name("sessions"),
        days=name("days"),
        summaries=name("summaries"),
        versions=name("versions"),
        dead_letters=name("dead_letters"),
        series=name("series"),
        workers=name("workers"),
        worker_segments=name("worker_segments"),
        totals=name("totals"),
        cache=name("cache"),
        refuse_change=name("refuse_change"),
        refuse_append=name("refuse_append"),
        append=name("append"),
        resolution_for=name("resolution_for"),
        due=name("due"),
    )
