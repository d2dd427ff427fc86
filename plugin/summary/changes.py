"""List what is far from what is usual at the same hours: jobs done, shares of failures, times. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log2

from chancy_metrics.plugin.summary.report import Change, FunctionFailures, SlowFunction
from chancy_metrics.plugin.summary.seen import Seen, usual_done, usual_p95, usual_share
from chancy_metrics.plugin.summary.usual import MIN_COUNT, Usual, counts_differ, is_outside
from chancy_metrics.projections.rules.key_parts import Subject

#: Fewer failures than this are no change; nor is a share that differs by less, or a time by fewer seconds.
MIN_FAILED, LEAST_SHARE, LEAST_S = 5, 0.01, 0.05
#: A share of failures below this is nothing to be woken for.
WRONG_SHARE = 0.05


def changes(now: Seen, days: Sequence[Seen]) -> list[Change]:
    """Return all changes, the largest first."""
    found: list[Change] = []
    for func in now.known.names("job"):
        before, done = usual_done(now, days, "job", func), now.done("job", func)
        if before is not None and counts_differ(done, before):
            found.append(Change("jobs", "job", func, done, before))
        before, failed = usual_share(days, "job", func), now.updates("job", func, "failed")
        if done and before is not None and share_differs(failed, done, before):
            found.append(Change("failure_share", "job", func, failed / done, before))
        found += _slower(now, days, "job", func)
    for queue in now.known.names("queue"):
        found += _slower(now, days, "queue", queue)
    return sorted(found, key=lambda one: (-_size(one), one.name, one.what))


def _slower(now: Seen, days: Sequence[Seen], subject: Subject, name: str) -> list[Change]:
    if subject == "job":
        number = now.known.number("job", name, "execution_time")
    else:
        number = now.known.number("queue", name, "wait_time")
    found, before = now.quantile(number), usual_p95(days, number)
    if found is None or before is None or found[1] < MIN_COUNT:
        return []
    if not is_outside(found[0], before, least_difference=LEAST_S):
        return []
    if subject == "job":
        return [Change("run_time_p95", "job", name, found[0], before)]
    return [Change("wait_time_p95", "queue", name, found[0], before)]


def share_differs(failed: int, done: int, before: Usual) -> bool:
    """Whether a share of failures is outside what is usual; a better one, too."""
    if max(failed, before.median * done) < MIN_FAILED:
        return False
    return is_outside(failed / done, before, least_difference=LEAST_SHARE)


def is_wrong(one: FunctionFailures) -> bool:
    """Whether so many jobs of a function fail that somebody has to look."""
    if one.failed < MIN_FAILED or one.share < WRONG_SHARE:
        return False
    return one.usual is None or (one.share > one.usual.median and share_differs(one.failed, one.done, one.usual))


def slow_functions(now: Seen, days: Sequence[Seen]) -> list[SlowFunction]:
    """Return the functions whose p95 was read, by name."""
    found = []
    for func in now.known.names("job"):
        number = now.known.number("job", func, "execution_time")
        if number is not None and (p95 := now.quantile(number)) is not None:
            found.append(SlowFunction(func, *p95[:1], usual_p95(days, number), p95[1], now.sums[number].sum))
    return found


def _size(one: Change) -> float:
    """Return how large a change is, in doublings or halvings."""
    if not one.now or not one.usual.median:
        return inf
    return abs(log2(one.now / one.usual.median))
