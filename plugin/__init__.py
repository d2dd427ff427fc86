"""The plugin: `Metrics` goes into `Chancy(plugins=[...])` in place of the built-in one."""

from chancy_metrics.events.facts import Observation

from .metrics import Metrics
from .window import Metric

__all__ = ["Metric", "Metrics", "Observation"]
