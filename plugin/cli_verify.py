"""`chancy-metrics verify` and `completeness`: whether the numbers are right, and whether they are all there."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import click
import msgspec

from .cli_app import FOUND_SOMETHING, Duration, Moment, load, run
from .completeness import Completeness, completeness
from .presence import spell
from .verify import Verified, verify

_since = click.option("--since", type=Moment(), help="From this moment, inclusive: 2026-03-10T12:00Z, or 2h, 7d ago.")
_until = click.option("--until", type=Moment(), help="Up to this moment, exclusive.")


@click.command("verify")
@_since
@_until
@click.option("--budget", type=Duration(), help="Look at random days and hours for so long: 30s.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def verify_command(
    app: str, since: datetime | None, until: datetime | None, budget: float | None, as_json: bool
) -> None:
    """Replay the log and compare it with everything that is made of it.

    Nobody waits for it. Exits with 3 when anything does not agree; `status` then says so until the next run.
    """
    chancy, _ = load(app)
    _check_order(since, until)
    found = run(verify(chancy, since=since, until=until, budget_s=budget))
    click.echo(_verified_json(found) if as_json else _verified_text(found))
    if found.drift:
        sys.exit(FOUND_SOMETHING)


@click.command("completeness")
@_since
@_until
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def completeness_command(app: str, since: datetime | None, until: datetime | None, as_json: bool) -> None:
    """Say what is missing from the numbers, or late in them, in a window of time or at all."""
    chancy, _ = load(app)
    _check_order(since, until)
    found = run(completeness(chancy, since, until))
    click.echo(msgspec.json.encode(found).decode() if as_json else _completeness_text(found))


def counted(found: Completeness) -> dict[str, str]:
    """Its counts as lines: name -> value."""
    return {
        "rejected": ", ".join(f"{name} {count:,}" for name, count in sorted(found.rejected.items())) or "0",
        "dropped": f"{found.dropped:,}",
        "skewed": f"{found.skewed:,}",
        "expired": f"{found.expired:,}",
        "buffered": f"{found.buffered:,} job updates",
        "dead letters": f"{found.dead_letters:,}" + (f", and {found.discarded:,} given up" if found.discarded else ""),
        "failing rules": ", ".join(f"{rule.rule} on {rule.batches:,} batches" for rule in found.failing_rules) or "0",
        "holes": f"{found.holes:,}",
        "unclean ends": f"{found.ended_uncleanly:,} workers",
        "lost": spell(found.lost),
        "uncertain": uncertain(found),
        "in memory": spell(found.in_memory),
    }


def uncertain(found: Completeness) -> str:
    """Say what may be missing of sessions that fell silent."""
    up_to = f"up to {found.uncertain_s:g} s of custom observations"
    return up_to + (f", and {spell(found.uncertain)} last seen in memory" if found.uncertain else "")


def _check_order(since: datetime | None, until: datetime | None) -> None:
    if since is not None and until is not None and since >= until:
        raise click.BadParameter(f"{until.isoformat()} is not after --since", param_hint="--until")


def _completeness_text(found: Completeness) -> str:
    lines = {
        "window": f"{_moment(found.since, 'the beginning')} to {_moment(found.until, 'now')}",
        "from": found.source + (f", raw since {found.raw_since:%Y-%m-%d}" if found.raw_since else ""),
        "position": f"{found.position:,}",
    }
    lines |= {
        name: value + (" (of all time)" if name.replace(" ", "_") in found.for_all_time else "")
        for name, value in counted(found).items()
    }
    return "\n".join(f"{name:<15} {value}" for name, value in lines.items())


def _verified_text(found: Verified) -> str:
    lines = [*map(str, found.findings), *map(str, found.differences)]
    hidden = found.drift - len(lines)
    if hidden:
        lines.append(f"and {hidden:,} more")
    lines.append(
        f"{found.points:,} points compared at position {found.position:,} of version {found.version}, "
        f"{found.events:,} events of {found.spans:,} {'stretch' if found.spans == 1 else 'stretches'} of time "
        f"replayed in {found.took_s:,.1f} s: "
        + (f"{found.different:,} differences, {found.found:,} other faults" if found.drift else "everything agrees")
    )
    return "\n".join(lines)


def _verified_json(found: Verified) -> str:
    return msgspec.json.encode(
        msgspec.structs.asdict(found) | {"differences": _named(found.differences), "findings": _named(found.findings)}
    ).decode()


def _named(value: Any) -> Any:
    """Named tuples as objects: as the arrays they are, nobody could read them."""
    if hasattr(value, "_asdict"):
        return {name: _named(part) for name, part in value._asdict().items()}
    return [_named(part) for part in value] if isinstance(value, list) else value


def _moment(moment: datetime | None, none: str) -> str:
    return none if moment is None else moment.isoformat()
