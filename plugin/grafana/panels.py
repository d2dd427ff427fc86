"""The panels of a dashboard, whatever data source they read: titles, units, explanations, and where they stand."""

from __future__ import annotations

from typing import Literal, NamedTuple

#: Columns of Grafana's grid.
_COLUMNS = 24
#: How a panel draws: one number, lines, or bars where a missing bucket is zero.
Shape = Literal["stat", "lines", "bars"]


class Panel(NamedTuple):
    """One panel.

    Attributes:
        name: By which a data source finds its query.
        unit: Grafana's id of the unit.
        about: What it shows, for the person who is woken up by it.
        legend: How a series is named where a query does not say it.
    """

    name: str
    title: str
    shape: Shape
    unit: str
    about: str
    legend: str = ""

    @property
    def width(self) -> int:
        return 6 if self.shape == "stat" else 12

    @property
    def height(self) -> int:
        return 4 if self.shape == "stat" else 8


_ENDED = "Jobs that ended, succeeded or failed for good"
_QUANTILES = "The quantiles of a point are of its own time: none is an average of others"
PANELS = (
    Panel("rate", "Jobs a minute", "stat", "none", f"{_ENDED}, a minute over the range."),
    Panel("ratio", "Failure ratio", "stat", "percentunit", "Failed ones among the jobs that ended in the range."),
    Panel("oldest_wait_now", "Oldest wait", "stat", "s", "How long the first due job of any chosen queue has waited."),
    Panel("lag_now", "Lag", "stat", "s", "Age of the oldest event that is in none of these numbers yet."),
    Panel("throughput", "Throughput by function", "bars", "none", f"{_ENDED}, a minute."),
    Panel("queue_throughput", "Throughput by queue", "bars", "none", f"{_ENDED}, a minute."),
    Panel(
        "failures",
        "Failures by function",
        "bars",
        "none",
        "Jobs that failed for good, and attempts to be retried, a minute.",
    ),
    Panel(
        "failure_ratio", "Failure ratio by function", "lines", "percentunit", "Failed ones among the jobs that ended."
    ),
    Panel(
        "run_time",
        "Run time by function",
        "lines",
        "s",
        f"From the start of an attempt to its end. {_QUANTILES}.",
        "func",
    ),
    Panel(
        "wait_time", "Wait time by queue", "lines", "s", f"From when a job was due to its start. {_QUANTILES}.", "queue"
    ),
    Panel(
        "total_time",
        "Total time by function",
        "lines",
        "s",
        f"From when a job was due first to its success, over all attempts. {_QUANTILES}.",
        "func",
    ),
    Panel(
        "depth",
        "Queue depth",
        "lines",
        "none",
        "Jobs that have not ended: due (pending, retrying), running, or due later (scheduled).",
    ),
    Panel("oldest_wait", "Oldest wait by queue", "lines", "s", "How long the first due job of a queue had waited."),
    Panel(
        "workers",
        "Workers",
        "lines",
        "none",
        "Workers that run, the jobs they can run at once, and those that they do.",
    ),
    Panel(
        "pipeline",
        "Pipeline",
        "lines",
        "none",
        "Seconds that these numbers are late, batches of events that wait, and batches that could not be folded.",
    ),
)


def positions() -> dict[str, dict[str, int]]:
    """Return where each panel stands on the grid: rows of panels of one height, from left to right."""
    found, x, y, height = {}, 0, 0, 0
    for panel in PANELS:
        if x + panel.width > _COLUMNS or (height and panel.height != height):
            x, y = 0, y + height
        height = panel.height
        found[panel.name] = {"x": x, "y": y, "w": panel.width, "h": height}
        x += panel.width
    return found
