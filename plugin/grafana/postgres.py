"""The queries of the dashboard over the SQL views, for Grafana's PostgreSQL data source.

The resolution is that of the whole panel: the finest that is kept since the range begins and not finer than Grafana's
interval. Points are shown as they are stored, since quantiles of several buckets can't be averaged.
"""

from __future__ import annotations

from psycopg import sql

from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.grafana.classic import Annotation, Dashboard, Query, Variable

PLUGIN = "grafana-postgresql-datasource"
#: Chancy's own.
_DEFAULT_PREFIX = "chancy_"

#: What "All" stands for: each name that there is, also where there is none yet.
_FUNC, _QUEUE = "func IN ($func)", "queue IN ($queue)"
_RANGE = (
    "resolution = {resolution_for}($__unixEpochFrom(), $__interval_ms / 1000.0)\n    AND $__unixEpochFilter(bucket)"
)
#: The last bucket is left out while it fills, which would look like a collapse.
_FULL = "bucket + width_s <= $__unixEpochTo()"
_ENDED = "measure = 'updates' AND state IN ('succeeded', 'failed')"
#: Seconds of the range that lie in whole buckets.
_COVERED = "greatest($__unixEpochTo() - ceil($__unixEpochFrom() / width_s::numeric) * width_s, 1)"
_FAILED = "coalesce(sum(sum) FILTER (WHERE state = 'failed'), 0) / nullif(sum(sum), 0)"


def _points(columns: str, *where: str, rest: str = "ORDER BY time") -> str:
    conditions = "".join(f"\n    AND {one}" for one in where)
    return f"SELECT {columns}\nFROM {{points}}\nWHERE {_RANGE}{conditions}\n{rest}".rstrip()


def _rate(name: str, *where: str) -> str:
    rest = f"GROUP BY time, {name}, width_s\nORDER BY time"
    return _points(f"time, {name} AS metric, sum(sum) * 60 / width_s AS value", *where, _FULL, rest=rest)


def _quantiles(subject: str, measure: str, name: str, chosen: str) -> str:
    return _points(f"time, {name}, p50, p95, p99", f"subject = '{subject}'", f"measure = '{measure}'", chosen)


#: Panel -> SQL; `{points}` and the like are the names of views and functions.
_SQL = {
    "rate": _points(
        f'sum(sum) * 60 / {_COVERED} AS "jobs a minute"', "subject = 'job'", _ENDED, _FUNC, rest="GROUP BY width_s"
    ),
    "ratio": _points(f'{_FAILED} AS "failure ratio"', "subject = 'job'", _ENDED, _FUNC, rest=""),
    "oldest_wait_now": 'SELECT max(last) AS "oldest wait"\nFROM (\n'
    + _points(
        "DISTINCT ON (queue) last",
        "measure = 'oldest_wait_seconds'",
        _QUEUE,
        "last_at >= to_timestamp($__unixEpochTo() - 600)",  # not of a queue that is gone
        rest="ORDER BY queue, bucket DESC",
    )
    + "\n) AS newest",
    "lag_now": "SELECT lag_s AS lag FROM {pipeline}",
    "throughput": _rate("func", "subject = 'job'", _ENDED, _FUNC),
    "queue_throughput": _rate("queue", "subject = 'queue'", _ENDED, _QUEUE),
    "failures": _points(
        "time, func || ' ' || state AS metric, sum * 60 / width_s AS value",
        "subject = 'job'",
        "measure = 'updates'",
        "state IN ('failed', 'retrying')",
        _FUNC,
        _FULL,
    ),
    "failure_ratio": _points(
        f"time, func AS metric, {_FAILED} AS value",
        "subject = 'job'",
        _ENDED,
        _FUNC,
        rest="GROUP BY time, func\nORDER BY time",
    ),
    "run_time": _quantiles("job", "execution_time", "func", _FUNC),
    "wait_time": _quantiles("queue", "wait_time", "queue", _QUEUE),
    "total_time": _quantiles("job", "total_time", "func", _FUNC),
    "depth": _points("time, queue || ' ' || state AS metric, max AS value", "measure = 'depth'", _QUEUE),
    "oldest_wait": _points("time, queue AS metric, max AS value", "measure = 'oldest_wait_seconds'", _QUEUE),
    "workers": _points("time, measure AS metric, last AS value", "subject = 'workers'"),
    "pipeline": "SELECT lag_s AS lag, waiting_batches, dead_letters, folded_at FROM {pipeline}",
}
_TABLES = {"rate", "ratio", "oldest_wait_now", "lag_now", "pipeline"}


def dashboard(tables: Tables) -> Dashboard:
    """Return the dashboard over the views of an installation."""
    names = {name: tables.view(name) for name in ("points", "pipeline", "keys", "marks")}

    def named(query: str) -> str:
        return sql.SQL(query).format(resolution_for=tables.resolution_for, **names).as_string()

    def variable(name: str, label: str) -> Variable:
        found = named(f"SELECT DISTINCT {name} FROM {{keys}} WHERE {name} IS NOT NULL ORDER BY 1")
        return Variable(name, label, found, found, all_value=name)

    return Dashboard(
        title="Chancy jobs (PostgreSQL)",
        uid="chancy-metrics-postgres",
        plugin=PLUGIN,
        source="Chancy metrics (PostgreSQL)",
        variables=(variable("func", "Function"), variable("queue", "Queue")),
        queries={
            panel: [_target(named(query), "table" if panel in _TABLES else "time_series")]
            for panel, query in _SQL.items()
        },
        marks=Annotation(_target(named("SELECT time, text FROM {marks} WHERE $__timeFilter(time)"), "table")),
        installation="" if tables.prefix == _DEFAULT_PREFIX else tables.prefix,
    )


def _target(query: str, form: str) -> Query:
    return Query({"format": form, "rawQuery": True, "editorMode": "code", "rawSql": query}, is_table=form == "table")
