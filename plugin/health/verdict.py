"""Decide what in a status is unhealthy, and word each reason with what to do about it."""

from __future__ import annotations

from datetime import date

from chancy_metrics.events.humanize import counted, is_or_are, moment
from chancy_metrics.events.pending import set_aside_sentence
from chancy_metrics.plugin.health.status import Status
from chancy_metrics.plugin.rebuilds.rollout import standstill_after_s
from chancy_metrics.plugin.recording.session_row import listed
from chancy_metrics.plugin.worker.maintenance import SERIES_ALARM

#: Events may wait this many sync intervals, and at least so many seconds.
CADENCES = 3
PATIENCE_S = 30


def not_looked_at(status: Status) -> list[str]:
    """Return what was never checked, a sentence each."""
    unseen = []
    if not status.position:
        unseen.append("nothing was folded yet, so there are no numbers")
    last = status.verified
    if last is None or not last.share.whole:
        of = "the numbers were" if last is None or last.version == status.version else f"version {status.version} was"
        unseen.append(f"{of} never compared with the log: `chancy-metrics verify` does it")
    if (last is None or last.log_at is None) and status.checked is None:
        unseen.append(
            "the log and its ledger were never checked in full: `chancy-metrics verify` without a window does it"
        )
    if any(one.is_served for one in status.totals) and (last is None or last.totals_at is None):
        unseen.append(
            "the totals for exporters were never compared with the log: `chancy-metrics verify --totals` does it"
        )
    return unseen


def unhealthy_reasons(status: Status, missing_days: list[date]) -> list[str]:
    """Return what is wrong and what to do about it, a sentence each; [] where the pipeline is healthy."""
    reasons = []
    patience = max(PATIENCE_S, CADENCES * status.sync_interval_s)
    if status.oldest_waiting_s > patience:
        reasons.append(
            f"events have been waiting for {status.oldest_waiting_s:.0f} s (more than {patience:.0f}): "
            f"{_why_waiting(status, patience)}"
        )
    if status.rules_note and status.rules == status.app_rules:
        reasons.append(f"this app can't fold: {status.rules_note}")
    reasons += status.completeness.unreadable
    if status.completeness.holes:
        reasons.append(
            f"{is_or_are(status.completeness.holes, 'batch')} missing from the sequences of producers: a restore or "
            "fail-over lost data, or rows were deleted by force; `chancy-metrics audit check` names the producers"
        )
    if status.set_aside:
        reasons.append(set_aside_sentence(status.set_aside))
    if status.completeness.dead_letters:
        reasons.append(
            f"{counted(dead := status.completeness.dead_letters, 'batch')} could not be folded and "
            f"{'is' if dead == 1 else 'are'} not in the numbers: {status.completeness.left_out}"
        )
    reasons += status.withheld
    reasons += [
        f"rule {rule.rule!r} failed on {counted(rule.batches, 'batch')}, whose other metrics are there "
        f"(position {rule.position}: {rule.error[:200]}): fix it and raise rules_version"
        for rule in status.completeness.failing_rules
        if rule.batches > rule.discarded
    ]
    if (last := status.verified) is not None and last.found_since is not None:
        hidden = last.spots - len(last.sentences)
        reasons.append(
            f"verify found {counted(last.different, 'difference')} and {counted(last.found, 'other fault')}, the first "
            f"at {moment(last.found_since)}, and no later run there has cleared them: "
            f"{'; '.join(last.sentences)}" + (f"; and {counted(hidden, 'more spot')}" if hidden else "")
        )
    if (check := status.checked) is not None and check.found > check.given_up:
        hidden = check.found - check.given_up - len(check.sentences)
        reasons.append(
            f"the last audit check, at {moment(check.at)}, found {'; '.join(check.sentences)}"
            + (f"; and {hidden:,} more" if hidden else "")
            + ": a check that finds nothing clears this"
        )
    if status.due_day is not None and status.due_day.is_overdue(status.at):
        reasons.append(f"{status.due_day}: {status.due_day.reason}")
    if status.completeness.in_memory:
        reasons.append(
            f"{listed(status.completeness.in_memory)} can't be appended now and are held in memory, where they are "
            "lost if the process is killed: the workers' log says why"
        )
    if missing_days:
        days = ", ".join(str(day) for day in missing_days)
        reasons.append(f"the log has no partition for {days}: run `chancy misc migrate`, or let a worker make it")
    if status.series > SERIES_ALARM:
        reasons.append(f"there are more than {SERIES_ALARM:,} series: most likely a key contains an id")
    return reasons


def _why_waiting(status: Status, patience_s: float) -> str:
    if status.waited_for:
        return status.waited_for
    if status.fold_errors:
        return f"folding fails: {'; '.join(status.fold_errors)}"
    if status.spilled_batches and status.silent_s <= patience_s:
        return (
            f"{is_or_are(status.spilled_batches, 'batch')} in the spill table and can't be moved into the log: "
            "`SELECT * FROM pg_locks` shows who locks it, the folding worker's log whether it refuses them"
        )
    if status.silent_s <= patience_s and status.folded_by is not None:
        return f"{status.folded_by} folds but does not keep up"
    if status.rules == status.app_rules:
        or_fold = "" if status.rules_note else " or run `chancy-metrics fold`"
        return f"no worker has folded for {status.silent_s:.0f} s; start one{or_fold}"
    if status.silent_s <= standstill_after_s(status.sync_interval_s):
        return f"no worker with rules {status.rules} folds, and this app has {status.app_rules}; start one"
    return (
        f"{status.rules_note}; start a worker with rules {status.rules}, or one of this app, which then promotes a "
        "version of its own"
    )
