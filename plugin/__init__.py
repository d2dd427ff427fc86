"""The plugin: `Metrics` goes into `Chancy(plugins=[...])` in place of the built-in one."""

from typing import TYPE_CHECKING, Any

from chancy_metrics.events.batch import JobColumns
from chancy_metrics.events.errors import InvalidObservation, MetricsLogError, NotRecording, PluginShared
from chancy_metrics.events.facts import Observation
from chancy_metrics.plugin.metrics import Metrics
from chancy_metrics.projections.rules.rule_set import Derived

if TYPE_CHECKING:
    from chancy_metrics.plugin.reading.window import Metric

__all__ = [
    "Derived",
    "InvalidObservation",
    "JobColumns",
    "Metric",
    "Metrics",
    "MetricsLogError",
    "NotRecording",
    "Observation",
    "PluginShared",
]


def __getattr__(name: str) -> Any:
    # numpy comes with Metric: a worker that only records starts without it.
    if name == "Metric":
        from chancy_metrics.plugin.reading.window import Metric

        return Metric
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
