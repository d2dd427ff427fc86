"""`chancy-metrics audit explain`: recompute a stored point from its events, and list them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import datetime

import click

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.humanize import counted
from chancy_metrics.events.humanize import moment as in_words
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.plugin.audit.explain import Explained, Share, Value, explain
from chancy_metrics.plugin.audit.suggest import unknown_names
from chancy_metrics.plugin.cli.command import command
from chancy_metrics.plugin.cli.event_table import seconds
from chancy_metrics.plugin.cli.output import FOUND_SOMETHING, Door
from chancy_metrics.plugin.cli.types import Moment
from chancy_metrics.projections.search.event import Event
from chancy_metrics.projections.search.query import EventQuery

#: Names printed of each list.
_NAMES = 5


@command("explain")
@click.argument("key")
@click.option(
    "--at", type=Moment(), required=True, help="Any moment in the bucket: 2026-03-10T12:00Z, or 2h for that long ago."
)
@click.option(
    "--resolution",
    type=click.Choice(list(RESOLUTIONS)),
    default="1min",
    show_default=True,
    help="Width of the bucket.",
)
@click.option("--worker", "worker_id", help="Only what this worker recorded; all workers by default.")
@click.option(
    "--kind", type=click.Choice(["counter", "gauge", "histogram"]), help="Kind of the series, if the key has several."
)
@click.option("--unit", help="Unit of the series, if the key has several.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Events printed in each list."
)
@click.pass_obj
def explain_command(
    door: Door,
    key: str,
    at: datetime,
    resolution: str,
    worker_id: str | None,
    kind: str | None,
    unit: str | None,
    limit: int,
) -> None:
    """Show a stored point, the same point recomputed from its events, and those events.

    Exits with 3 when the two differ.
    """
    chancy, _ = door.load()
    found = door.run(
        explain(
            chancy,
            key,
            at,
            resolution=resolution,
            worker_id=worker_id,
            kind=kind,  # type: ignore[arg-type] # click.Choice has checked it
            unit=unit,
            limit=limit,
        )
    )
    if worker_id is not None and found.stored is found.recomputed is None:
        for unknown in door.run(unknown_names(chancy, EventQuery(worker=worker_id))):
            raise MetricsLogError(unknown)
    door.answer(found, lambda: _lines(found))
    if found.equal is False:
        sys.exit(FOUND_SOMETHING)


def _lines(found: Explained) -> list[str]:
    where = found.worker_id or "all workers"
    lines = [
        f"{found.key}   {found.kind} in {found.unit}   {where}",
        f"{in_words(found.since)[:-4]} to {_until(found)}   ({found.resolution})",
        "",
        _line("stored", _value(found.stored)),
        _line("recomputed", _value(found.recomputed)),
        _line("", found.sentence),
        _line("position", f"{found.position:,} of version {found.version}"),
    ]
    for name in ("func", "queue", "state", "error", "worker"):
        if shares := getattr(found, f"by_{name}"):
            lines.append(_line(f"by {name}", _shares(shares)))
    for made in found.marks:
        lines.append(_line("mark", f"{in_words(made.at)[:-4]}  {made.text}"))
    lists = {"largest": found.largest, "failed": found.failed, "first": found.first}
    if found.by_func:
        lists["slowest"] = lists.pop("largest")
    for name in sorted(lists, key=["slowest", "largest", "failed", "first"].index):
        lines += _events(name, lists[name])
    return lines


def _until(found: Explained) -> str:
    """The end of a bucket; with its date where that is another one than the beginning's."""
    at = in_words(found.until)
    return at if found.until.date() != found.since.date() else at[11:]


def _line(name: str, value: str) -> str:
    return f"{name:<11} {value}".rstrip()


def _value(value: Value | None) -> str:
    if value is None:
        return "nothing"
    parts = [counted(value.count, "observation"), f"sum {value.sum:,.6g}"]
    if value.minimum != value.maximum:
        parts.append(f"{value.minimum:,.6g} … {value.average:,.6g} … {value.maximum:,.6g}")
    if value.last is not None:
        parts.append(f"last {value.last:,.6g}")
    if value.p50 is not None:
        parts.append(f"p50 {value.p50:,.4g}  p95 {value.p95:,.4g}  p99 {value.p99:,.4g}")
    return "   ".join(parts)


def _shares(shares: list[Share]) -> str:
    shown = "   ".join(f"{name} {count:,}" for name, count in shares[:_NAMES])
    return shown + (f"   and {len(shares) - _NAMES:,} more" if len(shares) > _NAMES else "")


def _events(title: str, events: Iterable[Event]) -> list[str]:
    lines = []
    for event in events:
        what = (
            f"{event.job_id}  {event.state}  {event.func or ''}  run {seconds(event.run_s)}"
            f"  wait {seconds(event.wait_s)}  {event.error}".rstrip()
            if event.kind == "job"
            else f"{event.value!r}"
        )
        position = f"{event.position}:{event.index}"
        lines.append(f"  {event.at:%Y-%m-%d %H:%M:%S.%f}  {position:>10}  {event.worker}  {what}")
    return ["", title, *lines] if lines else []
