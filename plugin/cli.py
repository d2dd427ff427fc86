"""`chancy-metrics`: look at the pipeline from outside and push it along.

Exit codes: 0 fine, 1 could not run, 2 wrong usage, 3 found something.
"""

from __future__ import annotations

import sys
from datetime import datetime

import click
import msgspec

from .cli_app import FOUND_SOMETHING, load, run
from .cli_audit import audit
from .cli_explain import mark_command
from .cli_retention import discard_command, prune_command
from .cli_verify import completeness_command, counted, percent, verify_command
from .cli_versions import rebuild_command, swap_command, undo_command, versions_command
from .projector import fold_all
from .retention import DueDay
from .status import Status, read_status
from .terminal import safe
from .verified import LastVerified
from .versions import Unfinished


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--app", "-a", required=True, help="Import path of the Chancy app, or of a function that makes one.")
@click.version_option(package_name="chancy-metrics")
@click.pass_context
def main(ctx: click.Context, app: str) -> None:
    """Look after the metrics log of a Chancy app."""
    ctx.obj = app


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def status(app: str, as_json: bool) -> None:
    """Show what waits, who folds, and what is missing from the numbers.

    Exits with 3 when something is wrong, and says what in one line each.
    """
    chancy, metrics = load(app)
    found = run(read_status(chancy, metrics.options))
    click.echo(msgspec.json.encode(found).decode() if as_json else _text(found))
    if found.unhealthy:
        sys.exit(FOUND_SOMETHING)


@main.command()
@click.pass_obj
def fold(app: str) -> None:
    """Order and fold everything that waits, and end; for a cluster whose workers are down."""
    chancy, metrics = load(app)
    done = run(fold_all(chancy, rules=metrics.options.rules))
    click.echo(f"ordered {done.batches} batches, folded {done.events} events, stands at position {done.position}")
    if done.reason:
        raise click.ClickException(f"not everything is folded: {done.reason}")


def _text(status: Status) -> str:
    lag = f"{status.oldest_waiting_s:.1f} s" if status.oldest_waiting_s else "none"
    fold = (
        f"{status.last_fold_events:,} events in {status.last_fold_s:.3f} s, {_moment(status.folded_at)}"
        if status.last_fold_s is not None
        else "never"
    )
    lines = {
        **_versions(status),
        "log": f"{_size(status.log_bytes)}, {status.events_per_s:,.1f} events/s, kept {status.log_retention_days:g} d",
        "rollups, cache": f"{_size(status.rollup_bytes)}, {status.series:,} series",
        "days": f"{status.first_day} to {status.last_day}, {status.days_ahead} ahead",
        "retention": _due(status.due_day),
        "pending": f"{status.pending_batches:,} batches, {status.spilled_batches:,} of them spilled",
        "position": f"{status.position:,} folded of {status.ordered_position:,} ordered",
        "lag": lag,
        "folder": f"{status.folded_by or 'nobody'}, since {_moment(status.folding_since)}",
        "last fold": fold,
        **counted(status.completeness),
        **_verified(status),
    }
    if status.fold_errors:
        lines["fold fails"] = safe("; ".join(status.fold_errors))
    if status.replayed_at is not None:
        lines["standby"] = f"as of the commits replayed until {_moment(status.replayed_at)}; takes no writes"
    if status.ambiguous_keys:
        lines["two types"] = ", ".join(status.ambiguous_keys)
    if status.not_looked_at:
        lines["not looked at"] = "; ".join(status.not_looked_at)
    text = "\n".join(f"{name:<15} {value}" for name, value in lines.items())
    verdict = "\n".join(f"UNHEALTHY: {reason}" for reason in status.unhealthy) or "healthy"
    return f"{text}\n{verdict}"


def _versions(status: Status) -> dict[str, str]:
    """Whose rules readers see, and what is on its way to be seen."""
    lines = {"version": f"{status.version}, rules {status.rules}"}
    if status.rules_note:
        lines["this app"] = f"rules {status.app_rules}; {status.rules_note}"
    for one in status.unfinished:
        place = f"position {one.position:,}, {one.remaining:,} batches to go"
        lines[f"version {one.version}"] = f"{one.status}, rules {one.rules}, {place}"
        lines[f"  of {one.version}"] = _filler(one)
    return lines


def _filler(version: Unfinished) -> str:
    if version.status == "ready":
        return f"kept until {_moment(version.kept_until)} for `swap`"
    if version.is_filled:
        return f"filled by {version.filled_by}, last step {_moment(version.moved_at)}"
    return f"filled by nobody since {_moment(version.moved_at)}: `rebuild` goes on, `rebuild --abort` ends it"


def _due(due: DueDay | None) -> str:
    return "no day is past its time" if due is None else str(due)


def _verified(status: Status) -> dict[str, str]:
    """What was compared with the log, when, and what came of it."""
    last = status.verified
    if last is None:
        return {"verified": "never"}
    of = "" if last.version == status.version else f" of version {last.version}, which is not the live one,"
    compared = f"{last.points:,} points" if last.points else "nothing was"
    lines = {"verified": f"{_moment(last.at)},{of} {compared} compared, {_open(last)}"}
    share = last.share
    if share.oldest_at is not None:
        each = ", ".join(f"{name} {percent(part)}" for name, part in share.by_resolution.items())
        lines["compared"] = (
            f"{percent(share.whole)} of the buckets kept ({each}), the oldest at {_moment(share.oldest_at)}"
        )
    if last.log_at is not None:
        lines["log checked"] = f"whole up to position {last.log_position:,}, {_moment(last.log_at)}"
    if (made := last.rebuilt) is not None:
        same = f"{made.different:,} differ" if made.different else "none differs"
        lines["rebuilt"] = (
            f"{_moment(made.at)}, {made.points:,} points compared with version {made.version} at position "
            f"{made.position:,}, {same}"
        )
    return lines


def _open(last: LastVerified) -> str:
    expired = f"; {last.expired:,} findings are closed, their buckets are not kept any more" if last.expired else ""
    if last.open:
        return f"{last.different:,} differences, {last.found:,} other faults are open{expired}"
    return f"nothing found is open{expired}"


def _moment(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S %Z}"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1_000:
            return f"{size:.0f} {unit}"
        size /= 1_000
    return f"{size:.1f} TB"


for command in (
    *(rebuild_command, swap_command, undo_command, versions_command, prune_command, discard_command),
    *(verify_command, completeness_command),
    *(audit, mark_command),
):
    main.add_command(command)


if __name__ == "__main__":
    main()
