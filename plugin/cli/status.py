"""`chancy-metrics status`: print the health of the pipeline."""

from __future__ import annotations

import sys

import click

from chancy_metrics.events.humanize import counted as in_numbers
from chancy_metrics.events.humanize import is_or_are, moment, size, span
from chancy_metrics.plugin.cli.command import command
from chancy_metrics.plugin.cli.output import FOUND_SOMETHING, Door
from chancy_metrics.plugin.cli.verify import counted, percent
from chancy_metrics.plugin.health.status import Status
from chancy_metrics.plugin.health.status_reader import read_status
from chancy_metrics.plugin.rebuilds.listing import Collecting, Unfinished
from chancy_metrics.plugin.worker.retention import DueDay
from chancy_metrics.projections.verify.outcomes import LastVerified
from chancy_metrics.projections.verify.records import LastChecked


@command("status")
@click.pass_obj
def status_command(door: Door) -> None:
    """Show whether the metrics are healthy: what waits, which worker folds, and what is missing.

    Exits with 3 when something is wrong; each problem is one line.
    """
    chancy, _ = door.load()
    found = door.run(read_status(chancy))
    door.answer(found, lambda: status_lines(found))
    if found.unhealthy:
        sys.exit(FOUND_SOMETHING)


def status_lines(status: Status) -> list[str]:
    """What `status` prints."""
    lag = span(status.oldest_waiting_s) if status.oldest_waiting_s else "none"
    fold = (
        f"{in_numbers(status.last_fold_events or 0, 'event')} in {span(status.last_fold_s)}, {moment(status.folded_at)}"
        if status.last_fold_s is not None
        else "never"
    )
    lines = {
        **_versions(status),
        "log": f"{size(status.log_bytes)}, {status.events_per_s:,.1f} events/s, kept {status.log_retention_days:g} d",
        "other tables": f"{size(status.rollup_bytes)}, {in_numbers(status.series, 'series')}",
        "days": _days(status),
        "retention": _due(status.due_day),
        "pending": f"{in_numbers(status.pending_batches, 'batch')}, {status.spilled_batches:,} of them spilled",
        "position": f"{status.position:,} folded of {status.ordered_position:,} in the ledger",
        "lag": lag,
        "folded by": f"{status.folded_by}, since {moment(status.folding_since)}" if status.folded_by else "nobody",
        "last fold": fold,
        **_totals(status),
        **counted(status.completeness),
        **_verified(status),
        "audit check": _checked(status.checked),
    }
    if status.fold_errors:
        lines["fold fails"] = "; ".join(status.fold_errors)
    if status.waited_for:
        lines["newer code"] = status.waited_for
    if status.replayed_at is not None:
        lines["standby"] = f"as of the commits replayed until {moment(status.replayed_at)}; it takes no writes"
    if status.ambiguous_keys:
        lines["two types"] = ", ".join(status.ambiguous_keys)
    if status.not_looked_at:
        lines["not looked at"] = "; ".join(status.not_looked_at)
    well = "healthy as far as checked" if status.not_looked_at else "healthy"
    verdict = [f"UNHEALTHY: {reason}" for reason in status.unhealthy] or [well]
    return [f"{name:<15} {value}" for name, value in lines.items()] + verdict


def _versions(status: Status) -> dict[str, str]:
    """The live version with its rules, and the versions that are being made."""
    lines = {"version": f"{status.version}, rules {status.rules}"}
    if status.rules_note:
        lines["this app"] = f"rules {status.app_rules}; {status.rules_note}"
    for one in status.unfinished:
        progress = f"position {one.position:,}, {in_numbers(one.remaining, 'batch')} left"
        lines[f"version {one.version}"] = f"{one.status}, rules {one.rules}, {progress}"
        lines[f"  of {one.version}"] = _backfilled_by(one)
    for made in status.collecting:
        progress = f"made from archives, rules {made.rules}, {made.added} of {in_numbers(made.days, 'day')} added"
        lines[f"baseline {made.baseline}"] = f"{progress}, {_collected_by(made)}"
    return lines


def _collected_by(made: Collecting) -> str:
    if made.is_collected:
        return f"by {made.collected_by}, last {moment(made.moved_at)}"
    return f"by nobody since {moment(made.moved_at)}: `rebuild --archive` resumes it, `rebuild --abort` ends it"


def _backfilled_by(version: Unfinished) -> str:
    if version.status == "ready":
        return f"kept until {moment(version.kept_until)} for `swap`"
    if version.is_filled:
        return f"backfilled by {version.filled_by}, last step {moment(version.moved_at)}"
    return f"backfilled by nobody since {moment(version.moved_at)}: `rebuild` resumes it, `rebuild --abort` ends it"


def _totals(status: Status) -> dict[str, str]:
    """How far the totals are, if anybody reads them, and by which rules, if those are not this app's."""
    lines: dict[str, str] = {}
    for one in status.totals:
        name = "totals" if one.is_served else "totals anew" if "totals" in lines else "totals built"
        behind = f", {in_numbers(one.behind, 'batch')} behind" if one.behind else ""
        series = in_numbers(one.series, "series")
        how_far = f"{series}, position {one.position:,}{behind}" if one.is_served else one.progress
        leaves_out = f"; leaves out {one.leaves_out}" if one.leaves_out else ""
        rules = "" if one.rules == status.app_rules else f", rules {one.rules}"
        last = f"last step {moment(one.advanced_at)}"
        lines[name] = f"generation {one.generation}{rules}, {how_far}, {last}{leaves_out}"
    return lines


def _days(status: Status) -> str:
    if status.first_day is None:
        return "none has a partition"
    return f"{status.first_day} to {status.last_day} have a partition, {in_numbers(status.days_ahead, 'day')} ahead"


def _due(due: DueDay | None) -> str:
    return "no day is due for pruning" if due is None else str(due)


def _verified(status: Status) -> dict[str, str]:
    """When the rollups were compared with the log, how much of them, and with what result."""
    last = status.verified
    if last is None:
        return {"verified": "never"}
    of = "" if last.version == status.version else f" of version {last.version}, which is not the live one,"
    compared = in_numbers(last.points, "point") if last.points else "nothing was"
    lines = {"verified": f"{moment(last.at)},{of} {compared} compared, {_open(last)}"}
    share = last.share
    if share.oldest_at is not None:
        each = ", ".join(f"{name} {percent(part)}" for name, part in share.by_resolution.items())
        lines["compared"] = (
            f"{percent(share.whole)} of the buckets kept ({each}), the oldest at {moment(share.oldest_at)}"
        )
    if last.log_at is not None:
        lines["log checked"] = f"whole up to position {last.log_position:,}, {moment(last.log_at)}"
    if last.totals_at is not None:
        lines["totals compared"] = moment(last.totals_at)
    if (made := last.rebuilt) is not None:
        same = f"{made.different:,} differ" if made.different else "none differs"
        lines["rebuilt"] = (
            f"{moment(made.at)}, {in_numbers(made.points, 'point')} compared with version {made.version} at position "
            f"{made.position:,}, {same}"
        )
    return lines


def _checked(last: LastChecked | None) -> str:
    if last is None:
        return "never"
    found = f"{in_numbers(last.found, 'finding')}" if last.found else "nothing found"
    given_up = f", {last.given_up:,} of them of batches given up" if last.given_up else ""
    return f"{moment(last.at)}, positions {last.first:,} to {last.position:,}, {found}{given_up}"


def _open(last: LastVerified) -> str:
    expired = f"; {is_or_are(last.expired, 'finding')} closed, since their buckets have expired" if last.expired else ""
    if last.open:
        return f"{in_numbers(last.different, 'difference')}, {is_or_are(last.found, 'other fault')} open{expired}"
    return f"nothing found is open{expired}"
