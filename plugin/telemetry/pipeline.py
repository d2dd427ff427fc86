"""The health of the pipeline as families of its own, so that alerts can be written on it.

Where the status could not be read, only that is said: its other families are absent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from chancy_metrics.plugin.health.status import Status
from chancy_metrics.plugin.telemetry.families import Family, Member
from chancy_metrics.projections.totals.read import Totals


def pipeline_families(status: Status | None, totals: Totals | None) -> list[Family]:
    """Return the families, by name.

    Args:
        status: None if it could not be read.
        totals: The same.
    """
    readable = [
        Member((("part", part),), float(found is not None)) for part, found in (("status", status), ("totals", totals))
    ]
    families = [
        Family(
            "chancy_metrics_readable", "gauge", "", "Whether that part of this scrape could be read: 1 or 0.", readable
        )
    ]
    if totals is not None:
        about = "Generation of the totals: a counter may have fallen only where this has risen."
        families.append(_gauge("chancy_metrics_generation", totals.generation, about))
    if status is not None:
        families += _of_status(status)
    return sorted(families)


def _of_status(status: Status) -> Iterator[Family]:
    complete, verified = status.completeness, status.verified
    yield _gauge(
        "chancy_metrics_healthy", not status.unhealthy, "Whether `chancy-metrics status` says healthy: 1 or 0."
    )
    yield _gauge(
        "chancy_metrics_lag_seconds", status.oldest_waiting_s, "Age of the oldest event that is not folded.", "seconds"
    )
    yield _gauge(
        "chancy_metrics_waiting_batches", complete.waiting, "Batches of events that are not folded.", "batches"
    )
    yield _gauge("chancy_metrics_spilled_batches", status.spilled_batches, "Batches in the spill table.", "batches")
    yield _gauge("chancy_metrics_dead_letters", complete.dead_letters, "Batches that could not be folded.")
    yield _gauge("chancy_metrics_discarded", complete.discarded, "Batches that could not be folded and are given up.")
    yield _gauge("chancy_metrics_failing_rules", len(complete.failing_rules), "Rules of the app that failed.")
    yield _gauge("chancy_metrics_holes", complete.holes, "Batches missing from their producers' sequences.")
    yield _gauge("chancy_metrics_set_aside", complete.set_aside, "Entries that waited for a position and are no batch.")
    lost = Counter(dropped=complete.dropped, dropped_job_updates=complete.dropped_job_updates) + Counter(complete.lost)
    yield _gauge(
        "chancy_metrics_lost_job_updates",
        lost["job_updates"] + lost["dropped_job_updates"] + complete.rejected.get("job", 0),
        "Job updates that are known to be lost.",
    )
    yield _gauge(
        "chancy_metrics_lost_observations",
        lost["observations"] + lost["dropped"],
        "Observations that are known to be lost, without rejected ones.",
    )
    if status.folded_at is not None:
        yield _gauge(
            "chancy_metrics_last_fold_timestamp_seconds",
            status.folded_at.timestamp(),
            "When the last fold ended.",
            "seconds",
        )
    if verified is not None:
        yield _gauge(
            "chancy_metrics_last_verify_timestamp_seconds",
            verified.at.timestamp(),
            "When the last run of verify began that compared something.",
            "seconds",
        )
        yield _gauge(
            "chancy_metrics_verify_findings",
            verified.different + verified.found,
            "Differences and other faults that verify found and that are open.",
        )


def _gauge(name: str, value: float, about: str, unit: str = "") -> Family:
    return Family(name, "gauge", unit, about, [Member((), float(value))])
