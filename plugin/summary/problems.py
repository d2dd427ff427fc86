"""Decide what in a report is wrong, and word each problem with what to do about it: pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from chancy_metrics.events.humanize import counted, moment, span
from chancy_metrics.plugin.health.status import Status
from chancy_metrics.plugin.summary.changes import is_wrong
from chancy_metrics.plugin.summary.report import Failures, Flow, Problem, QueueState, Waiting
from chancy_metrics.plugin.summary.usual import MIN_COUNT, RATIO, Usual
from chancy_metrics.projections.rules.measured import MOST_JOBS

#: A job that is due may wait for so long, a queue with due jobs end none, and nothing at all be recorded, seconds.
PATIENCE_S = 300.0


def problems(
    status: Status,
    until: datetime,
    recorded_at: datetime | None,
    flow: Flow,
    waiting: Waiting,
    failures: Failures,
    silence_s: float,
) -> list[Problem]:
    """Return what is wrong, what concerns everything first.

    Args:
        recorded_at: When anything was last recorded in the time; None if nothing was.
        silence_s: For how long nothing may be recorded.
    """
    found = _silent(status, until, recorded_at, silence_s)
    found += [Problem("pipeline", reason) for reason in status.unhealthy]
    due = sum(one.due for one in waiting.queues)
    if waiting.workers == 0 and due:
        found.append(Problem("no_worker", f"{counted(due, 'job')} due, and no worker is active: start one"))
    found += [one for queue in waiting.queues for one in _of_queue(queue, until)]
    if not flow.done and flow.usual is not None and flow.usual.least >= MIN_COUNT:
        found.append(Problem("no_flow", f"no job is done; at these hours {_usually(flow.usual)} are"))
    found += _failing(failures)
    return found


def _silent(status: Status, until: datetime, recorded_at: datetime | None, silence_s: float) -> list[Problem]:
    if not status.position or (recorded_at is not None and (until - recorded_at).total_seconds() <= silence_s):
        return []
    since = "in all this time" if recorded_at is None else f"since {moment(recorded_at)}"
    return [Problem("silent", f"nothing was recorded {since}: no worker runs, or none can write to the database")]


def _of_queue(one: QueueState, until: datetime) -> Iterator[Problem]:
    """Yield what is wrong with a queue."""
    waits_s = one.oldest_wait_s
    if not one.due or waits_s is None or waits_s <= PATIENCE_S:
        return
    least = "at least " if one.due >= MOST_JOBS else ""
    due = f"queue {one.queue}: {least}{counted(one.due, 'job')} due, the oldest for {span(waits_s)}"
    if one.ended_at is None or (until - one.ended_at).total_seconds() > PATIENCE_S:
        ended = "none of its jobs has ended " + (
            f"since {moment(one.ended_at)}" if one.ended_at else "in all this time"
        )
        yield Problem("standstill", f"{due}, and {ended}: does a worker take this queue, or is it paused?", one.queue)
    elif one.usual_worst_s is None or waits_s > RATIO * one.usual_worst_s.most:
        before = one.usual_worst_s
        usual = "" if before is None else f"; the longest at these hours was {span(before.most)}"
        yield Problem("waiting", f"{due}{usual}: its workers don't keep up", one.queue)


def _failing(failures: Failures) -> list[Problem]:
    """Return the functions that fail too often, the worst first."""
    wrong = [one for one in failures.functions if is_wrong(one)]
    found = []
    for one in sorted(wrong, key=lambda one: -one.failed):
        usual = "" if one.usual is None else f", usually {one.usual.median:.1%}".replace("%", " %")
        share = f"{one.share:.1%}".replace("%", " %")
        said = f"{one.func}: {one.failed:,} of {counted(one.done, 'job')} failed ({share}{usual})"
        found.append(Problem("failures", said, one.func))
    return found


def _usually(before: Usual) -> str:
    return f"{before.least:,.0f} to {before.most:,.0f}"
