"""The queries of the dashboard over the exported families, for Grafana's Prometheus data source.

Every scrape reads the same totals, so that copies of a series that several targets expose are one: `max`, never `sum`.
"""

from __future__ import annotations

from chancy_metrics.plugin.grafana.classic import Annotation, Dashboard, Query, Variable

PLUGIN = "prometheus"

_FUNC, _QUEUE = 'job=~"$job",func=~"$func"', 'job=~"$job",queue=~"$queue"'
_ENDED = 'state=~"succeeded|failed"'
_WINDOW = "[$__rate_interval]"


def _rate(by: str, selector: str, *, window: str = _WINDOW) -> str:
    """Return what a counter rose by a second, by labels: of one target, whichever was scraped best."""
    return f"max by ({by}, state) (rate({selector}{window}))"


def _quantile(q: float, family: str, label: str, chosen: str) -> str:
    """Return a quantile: of native histograms where these are stored, otherwise of classic buckets."""
    native = f"histogram_quantile({q}, sum by ({label}) (rate({family}{{{chosen}}}{_WINDOW})))"
    classic = f"histogram_quantile({q}, max by ({label}, le) (rate({family}_bucket{{{chosen}}}{_WINDOW})))"
    return f"{native} or {classic}"


def _quantiles(family: str, label: str, chosen: str) -> list[tuple[str, str]]:
    return [(_quantile(q, family, label, chosen), f"{{{{{label}}}}} p{100 * q:g}") for q in (0.5, 0.95, 0.99)]


_JOBS = f"chancy_jobs_total{{{_FUNC},{_ENDED}}}"
_FAILED_JOBS = f'chancy_jobs_total{{{_FUNC},state="failed"}}'
_WHOLE = "[$__range]"
#: Panel -> PromQL and the name of its series.
_PROMQL: dict[str, list[tuple[str, str]]] = {
    "rate": [(f"sum({_rate('func', _JOBS, window=_WHOLE)}) * 60", "jobs a minute")],
    "ratio": [
        (
            f"sum({_rate('func', _FAILED_JOBS, window=_WHOLE)}) / sum({_rate('func', _JOBS, window=_WHOLE)})",
            "failure ratio",
        )
    ],
    "oldest_wait_now": [(f"max(chancy_queue_oldest_wait_seconds{{{_QUEUE}}})", "oldest wait")],
    "lag_now": [('max(chancy_metrics_lag_seconds{job=~"$job"})', "lag")],
    "throughput": [(f"sum by (func) ({_rate('func', _JOBS)}) * 60", "{{func}}")],
    "queue_throughput": [
        (f"sum by (queue) ({_rate('queue', f'chancy_queue_jobs_total{{{_QUEUE},{_ENDED}}}')}) * 60", "{{queue}}")
    ],
    "failures": [
        (
            f"""{_rate("func", f'chancy_jobs_total{{{_FUNC},state=~"failed|retrying"}}')} * 60""",
            "{{func}} {{state}}",
        )
    ],
    "failure_ratio": [
        (f"sum by (func) ({_rate('func', _FAILED_JOBS)}) / sum by (func) ({_rate('func', _JOBS)})", "{{func}}")
    ],
    "run_time": _quantiles("chancy_job_execution_seconds", "func", _FUNC),
    "wait_time": _quantiles("chancy_queue_wait_seconds", "queue", _QUEUE),
    "total_time": _quantiles("chancy_job_total_time_seconds", "func", _FUNC),
    "depth": [(f"max by (queue, state) (chancy_queue_depth{{{_QUEUE}}})", "{{queue}} {{state}}")],
    "oldest_wait": [(f"max by (queue) (chancy_queue_oldest_wait_seconds{{{_QUEUE}}})", "{{queue}}")],
    "workers": [
        (f'max({family}{{job=~"$job"}})', name)
        for family, name in (
            ("chancy_workers_active", "active"),
            ("chancy_worker_slots", "slots"),
            ("chancy_worker_slots_used", "slots_used"),
        )
    ],
    "pipeline": [
        (f'max(chancy_metrics_{family}{{job=~"$job"}})', name)
        for family, name in (
            ("lag_seconds", "lag"),
            ("waiting_batches", "waiting batches"),
            ("dead_letters", "dead letters"),
        )
    ],
}
#: Marks that are more than five minutes before, or than none.
_MARKS = 'max by (mark) (chancy_marks{job=~"$job"}%s)'
_NEW_MARKS = f"{_MARKS % ''} > ({_MARKS % ' offset 5m'} or {_MARKS % ''} * 0)"


def dashboard() -> Dashboard:
    """Return the dashboard over the exported families."""
    return Dashboard(
        title="Chancy jobs (Prometheus)",
        uid="chancy-metrics-prometheus",
        plugin=PLUGIN,
        source="Chancy metrics (Prometheus)",
        variables=(
            _variable("job", "Scrape job", "chancy_metrics_readable"),
            _variable("func", "Function", 'chancy_jobs_total{job=~"$job"}'),
            _variable("queue", "Queue", 'chancy_queue_jobs_total{job=~"$job"}'),
        ),
        queries={panel: [_target(*one) for one in queries] for panel, queries in _PROMQL.items()},
        marks=Annotation(_target(_NEW_MARKS, ""), {"titleFormat": "{{mark}}", "step": "60s"}),
    )


def _variable(name: str, label: str, family: str) -> Variable:
    found = f"label_values({family}, {name})"
    query = {"qryType": 1, "query": found, "refId": "PrometheusVariableQueryEditor-VariableQuery"}
    return Variable(name, label, query, found, all_value=".*")


def _target(expr: str, legend: str) -> Query:
    return Query({"expr": expr, "legendFormat": legend, "range": True, "instant": False, "editorMode": "code"})
