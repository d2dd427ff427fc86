"""`chancy-metrics audit explain` and `mark`: what is behind a number, and moments to see it by."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import datetime

import click

from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.projections.event import Event

from .cli_app import FOUND_SOMETHING, Moment, load, run
from .event_table import seconds
from .explain import Explained, Share, Value, explain
from .marks import mark
from .terminal import json_line, safe

#: Names printed of each list.
_NAMES = 5


@click.command("explain")
@click.argument("key")
@click.option(
    "--at", type=Moment(), required=True, help="A moment in the point's bucket: 2026-03-10T12:00Z, or 2h ago."
)
@click.option("--resolution", type=click.Choice(list(RESOLUTIONS)), default="1min", show_default=True)
@click.option("--worker", "worker_id", help="The point of this worker; all together by default.")
@click.option("--kind", type=click.Choice(["counter", "gauge", "histogram"]), help="Where the key has several types.")
@click.option("--unit", help="Where the key has several units.")
@click.option("--most", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Events in each list.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def explain_command(
    app: str,
    key: str,
    at: datetime,
    resolution: str,
    worker_id: str | None,
    kind: str | None,
    unit: str | None,
    most: int,
    as_json: bool,
) -> None:
    """Show the value of a point, the events behind it, and whether they come to it.

    Exits with 3 where what is stored is not what the events come to.
    """
    chancy, _ = load(app)
    found = run(
        explain(
            chancy,
            key,
            at,
            resolution=resolution,
            worker_id=worker_id,
            kind=kind,  # type: ignore[arg-type] # click.Choice has checked it
            unit=unit,
            most=most,
        )
    )
    click.echo(json_line(found) if as_json else _text(found))
    if not found.equal:
        sys.exit(FOUND_SOMETHING)


@click.command("mark")
@click.argument("text")
@click.option("--at", type=Moment(), help="When it happened: 2026-03-10T12:00Z, or 10m ago; now by default.")
@click.pass_obj
def mark_command(app: str, text: str, at: datetime | None) -> None:
    """Mark a moment, such as a deploy: charts and explanations show it."""
    chancy, metrics = load(app)
    made = run(mark(chancy, text, at=at))
    click.echo(f"marked {made.at:%Y-%m-%d %H:%M:%S %Z}: {safe(text)}; shown within {metrics.sync_interval:g} s")


def _text(found: Explained) -> str:
    where = found.worker_id or "all workers"
    lines = [
        f"{safe(found.key)}   {found.kind} in {safe(found.unit)}   {safe(where)}",
        f"{found.since:%Y-%m-%d %H:%M:%S} to {found.until:%H:%M:%S %Z}   ({found.resolution})",
        "",
        _line("shown", _value(found.stored)),
        _line("recomputed", _value(found.recomputed)),
        _line("", found.sentence),
        _line("position", f"{found.position:,} of version {found.version}"),
    ]
    for name in ("func", "queue", "state", "error", "worker"):
        if shares := getattr(found, f"by_{name}"):
            lines.append(_line(f"by {name}", _shares(shares)))
    for made in found.marks:
        lines.append(_line("mark", f"{made.at:%H:%M:%S}  {safe(made.text)}"))
    lists = {"largest": found.largest, "failed": found.failed, "first": found.first}
    if found.by_func:
        lists["slowest"] = lists.pop("largest")
    for name in sorted(lists, key=["slowest", "largest", "failed", "first"].index):
        lines += _events(name, lists[name])
    return "\n".join(lines)


def _line(name: str, value: str) -> str:
    return f"{name:<11} {value}".rstrip()


def _value(value: Value | None) -> str:
    if value is None:
        return "nothing"
    parts = [f"{value.count:,} observations", f"sum {value.sum:,.6g}"]
    if value.minimum != value.maximum:
        parts.append(f"{value.minimum:,.6g} … {value.average:,.6g} … {value.maximum:,.6g}")
    if value.last is not None:
        parts.append(f"last {value.last:,.6g}")
    if value.p50 is not None:
        parts.append(f"p50 {value.p50:,.4g}  p95 {value.p95:,.4g}  p99 {value.p99:,.4g}")
    return "   ".join(parts)


def _shares(shares: list[Share]) -> str:
    shown = "   ".join(f"{safe(name)} {count:,}" for name, count in shares[:_NAMES])
    return shown + (f"   and {len(shares) - _NAMES:,} more" if len(shares) > _NAMES else "")


def _events(title: str, events: Iterable[Event]) -> list[str]:
    lines = []
    for event in events:
        what = (
            f"{event.job_id}  {event.state}  {safe(event.func or '')}  run {seconds(event.run_s)}"
            f"  wait {seconds(event.wait_s)}  {safe(event.error)}".rstrip()
            if event.kind == "job"
            else f"{event.value!r}"
        )
        place = f"{event.position}:{event.index}"
        lines.append(f"  {event.at:%H:%M:%S.%f}  {place:>10}  {safe(event.worker)}  {what}")
    return ["", title, *lines] if lines else []
