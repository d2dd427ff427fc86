"""Say what waits in each queue, by the last sample that is recent enough: pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from chancy_metrics.events.facts import microseconds
from chancy_metrics.plugin.host.moments import from_us
from chancy_metrics.plugin.summary.report import QueueState, Waiting
from chancy_metrics.plugin.summary.seen import Seen
from chancy_metrics.plugin.summary.usual import usual
from chancy_metrics.projections.rules.built_in import STATES
from chancy_metrics.projections.rules.key_parts import Subject
from chancy_metrics.projections.rules.measured import DEPTHS


def waiting(now: Seen, days: Sequence[Seen], until: datetime, fresh_s: float) -> Waiting:
    """Return the queues that were sampled, or whose jobs ended, in the time.

    Args:
        fresh_s: A sample that is older than this says nothing of now.
    """
    oldest_us = microseconds(until) - int(fresh_s * 1e6)
    seen_us: list[int] = []

    def sample(subject: Subject, name: str, measure: str, state: str | None = None) -> float | None:
        sums = now.of(subject, name, measure, state)
        if sums is not None:
            seen_us.append(sums.last_us)
        return None if sums is None or sums.last_us < oldest_us else sums.last

    queues = []
    for queue in now.known.names("queue"):
        depths = {state: sample("queue", queue, "depth", state) for state in DEPTHS}
        worst = now.of("queue", queue, "oldest_wait_seconds")
        ended = _ended_at(now, queue)
        if worst is None and ended is None and all(depth is None for depth in depths.values()):
            continue
        before = [one.of("queue", queue, "oldest_wait_seconds") for one in days]
        queues.append(
            QueueState(
                queue,
                **{state: None if depth is None else round(depth) for state, depth in depths.items()},
                oldest_wait_s=sample("queue", queue, "oldest_wait_seconds"),
                worst_wait_s=None if worst is None else worst.maximum,
                usual_worst_s=usual([one.maximum for one in before if one is not None]),
                ended_at=ended,
            )
        )
    queues.sort(key=lambda one: (-(one.oldest_wait_s or 0), -one.due, one.queue))
    workers = sample("workers", "", "active")
    return Waiting(
        sampled=any(one.pending is not None for one in queues),
        queues=queues,
        workers=None if workers is None else round(workers),
        sampled_at=from_us(max(seen_us)) if seen_us else None,
    )


def _ended_at(now: Seen, queue: str) -> datetime | None:
    updates = [now.of("queue", queue, "updates", state) for state in STATES]
    return max((from_us(one.last_us) for one in updates if one is not None), default=None)
