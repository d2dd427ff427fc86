"""`chancy-metrics verify` and `completeness`: whether the metrics are correct, and whether anything is missing."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import click
import msgspec

from chancy_metrics.events.humanize import counted as in_numbers
from chancy_metrics.events.humanize import moment as in_words
from chancy_metrics.events.humanize import span
from chancy_metrics.plugin.cli.command import command
from chancy_metrics.plugin.cli.executors import open_sharing, sharing_options
from chancy_metrics.plugin.cli.output import FOUND_SOMETHING, Door
from chancy_metrics.plugin.cli.types import Duration, Moment
from chancy_metrics.plugin.health.completeness import Completeness, completeness
from chancy_metrics.plugin.health.verify import Verified, verify
from chancy_metrics.plugin.recording.session_row import listed
from chancy_metrics.projections.verify.totals import TotalsCheck

_since = click.option(
    "--since", type=Moment(), help="Start of the range, inclusive: 2026-03-10T12:00Z, or 2h or 7d for that long ago."
)
_until = click.option("--until", type=Moment(), help="End of the range, exclusive.")


@command("verify")
@_since
@_until
@click.option(
    "--budget", type=Duration(), help="Check random days and hours for this long, such as 30s, instead of everything."
)
@click.option("--totals", is_flag=True, help="Compare the totals for exporters, too: folds the whole log once more.")
@sharing_options
@click.pass_obj
def verify_command(
    door: Door,
    since: datetime | None,
    until: datetime | None,
    budget: float | None,
    totals: bool,
    processes: int | None,
    dask: str | None,
    read_dsn: str | None,
) -> None:
    """Replay the log and compare the result with the stored rollups and the cache.

    No worker and no reader waits for it. Exits with 3 when anything differs; `status` reports that until a later run
    over the same range finds nothing.
    """
    _check_order(since, until)
    chancy, _ = door.load()
    with open_sharing(processes, dask, read_dsn) as (executor, source):
        found = door.run(
            verify(
                chancy,
                since=since,
                until=until,
                budget_s=budget,
                totals=totals,
                executor=executor,
                read_dsn=source,
            )
        )
    door.answer(_as_objects(found), lambda: verified_lines(found))
    if found.drift:
        sys.exit(FOUND_SOMETHING)


@command("completeness")
@_since
@_until
@click.pass_obj
def completeness_command(door: Door, since: datetime | None, until: datetime | None) -> None:
    """Count what is missing from the metrics, or late, in a range of time or overall."""
    _check_order(since, until)
    chancy, _ = door.load()
    found = door.run(completeness(chancy, since, until))
    door.answer(found, lambda: _completeness_lines(found))


def counted(found: Completeness) -> dict[str, str]:
    """Return the counts as lines: name -> text."""
    return {
        "rejected": ", ".join(f"{name} {count:,}" for name, count in sorted(found.rejected.items())) or "0",
        "dropped": f"{in_numbers(found.dropped, 'observation')}, {in_numbers(found.dropped_job_updates, 'job update')}",
        "skewed": f"{found.skewed:,}",
        "expired": f"{found.expired:,}",
        "cut meta": in_numbers(found.cut_meta, "job update"),
        "buffered": in_numbers(found.buffered, "job update"),
        "dead letters": f"{found.dead_letters:,}" + (f", and {found.discarded:,} given up" if found.discarded else ""),
        "failing rules": ", ".join(
            f"{rule.rule} on {in_numbers(rule.batches, 'batch')}" for rule in found.failing_rules
        )
        or "0",
        "holes": f"{found.holes:,}",
        "set aside": in_numbers(found.set_aside, "entry"),
        "unclean ends": in_numbers(found.ended_uncleanly, "session"),
        "lost": listed(found.lost),
        "uncertain": uncertain(found),
        "in memory": listed(found.in_memory),
        **({"unreadable": "; ".join(found.unreadable)} if found.unreadable else {}),
    }


def uncertain(found: Completeness) -> str:
    """Say what may be missing from sessions that stopped reporting."""
    up_to = f"up to {found.uncertain_s:g} s of custom observations"
    return up_to + (f", and {listed(found.uncertain)} last seen in memory" if found.uncertain else "")


def _check_order(since: datetime | None, until: datetime | None) -> None:
    if since is not None and until is not None and since >= until:
        raise click.BadParameter(f"{until.isoformat()} is not after --since", param_hint="--until")


def _completeness_lines(found: Completeness) -> list[str]:
    since = in_words(found.since, "the beginning")
    lines = {
        "window": f"{since if found.until is None else since.removesuffix(' UTC')} to {in_words(found.until, 'now')}",
        "from": found.source + (f", raw since {found.raw_since:%Y-%m-%d}" if found.raw_since else ""),
        "position": f"{found.position:,}",
        "not folded yet": in_numbers(found.waiting, "batch"),
    }
    lines |= {
        name: value + (" (of all time)" if name.replace(" ", "_") in found.for_all_time else "")
        for name, value in counted(found).items()
    }
    if found.left_out:
        lines["left out"] = found.left_out
    lines["not looked at"] = (
        "whether the numbers match the log: `chancy-metrics verify` compares them; processes that record without a "
        "worker or a recording() block: their logs say what they lose"
    )
    return [f"{name:<15} {value}" for name, value in lines.items()]


def verified_lines(found: Verified) -> list[str]:
    """Return what `verify` prints."""
    lines = [*(f"note: {note}" for note in found.notes), *map(str, found.findings), *map(str, found.differences)]
    lines += _totals(found.totals)
    hidden = found.drift - len(found.findings) - len(found.differences)
    if hidden:
        lines.append(f"and {hidden:,} more")
    lines.append(
        f"{in_numbers(found.points, 'point')} compared at position {found.position:,} of version {found.version}, "
        f"{in_numbers(found.events, 'event')} of {in_numbers(found.spans, 'range')} of time "
        f"replayed in {span(found.took_s)}: " + _verdict(found)
    )
    return lines


def _totals(totals: TotalsCheck) -> list[str]:
    """Say what was done about the totals; nothing where none are served and none were asked for."""
    if totals.series is None:
        return [f"totals for exporters: not compared, {totals.not_compared}"] if totals.not_compared else []
    at = f"{in_numbers(totals.series, 'series')} compared at position {totals.position or 0:,}"
    but = f"; not compared: {totals.not_compared}" if totals.not_compared else ""
    return [f"totals for exporters: {at} of generation {totals.generation}{but}"]


def _verdict(found: Verified) -> str:
    """Say what the run has found in the range it compared."""
    whole = found.since is found.until is None and found.spans == 1
    parts = []
    if found.drift:
        parts.append(f"{in_numbers(found.different, 'difference')}, {in_numbers(found.found, 'other fault')}")
    if found.nothing:
        parts.append(f"nothing was compared: {found.nothing}")
    elif not found.drift:
        parts.append(
            "everything agrees" if whole and not (found.left_out or found.totals.not_compared) else "they agree"
        )
    if found.left_out:
        parts.append(found.left_out)
    if not whole and found.share is not None and found.share.oldest_at is not None:
        since = in_words(found.share.oldest_at)
        parts.append(f"{percent(found.share.whole)} of the buckets kept were compared since {since}")
    if found.ended_uncleanly:
        parts.append(
            f"{in_numbers(found.ended_uncleanly, 'session')} ended uncleanly: `completeness` says what may be missing"
        )
    if found.open is not None and found.open > found.drift:
        still = found.open - found.drift
        parts.append(
            f"{in_numbers(still, 'finding')} of earlier runs {'is' if still == 1 else 'are'} open: `status` says where"
        )
    return "; ".join(parts)


def percent(share: float) -> str:
    """Return a share as a percentage: only none is 0 %, and only all is 100 %."""
    if share >= 1 or share <= 0:
        return f"{min(max(share, 0), 1):.0%}".replace("%", " %")
    return f"{min(max(share * 100, 0.1), 99.9):.1f} %"


def _as_objects(found: Verified) -> dict[str, Any]:
    lists = {"differences": _named(found.differences), "findings": _named(found.findings)}
    return msgspec.structs.asdict(found) | lists


def _named(value: Any) -> Any:
    """Return named tuples as objects, which are readable in JSON; arrays are not."""
    if hasattr(value, "_asdict"):
        return {name: _named(part) for name, part in value._asdict().items()}
    return [_named(part) for part in value] if isinstance(value, list) else value
