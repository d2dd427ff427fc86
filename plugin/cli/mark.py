"""`chancy-metrics mark`: mark a moment, such as a deploy, or take a mark back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

import click

from chancy_metrics.events.humanize import moment as in_words
from chancy_metrics.events.humanize import span
from chancy_metrics.plugin.audit.marks import mark, take_back
from chancy_metrics.plugin.cli.command import command
from chancy_metrics.plugin.cli.output import Door
from chancy_metrics.plugin.cli.types import CursorType, Moment
from chancy_metrics.plugin.host.options import Resolution
from chancy_metrics.projections.search.query import EventCursor


@command("mark")
@click.argument("text", required=False)
@click.option(
    "--at", type=Moment(), help="When it happened: 2026-03-10T12:00Z, or 10m for that long ago; now by default."
)
@click.option("--undo", is_flag=True, help="Take back the mark TEXT: the one at --at or --position, or the latest one.")
@click.option(
    "--position", type=CursorType(), help="POSITION:INDEX of the mark to take back, instead of TEXT and --at."
)
@click.pass_obj
def mark_command(door: Door, text: str | None, at: datetime | None, undo: bool, position: EventCursor | None) -> None:
    """Mark a moment, such as a deploy, so that charts and explanations show it.

    With --undo a mark is taken back; the log keeps both, with who made them. Repeating either changes nothing.
    """
    if position is not None and not undo:
        raise click.UsageError("--position says which mark to take back: it needs --undo")
    if position is not None and at is not None:
        raise click.UsageError("--position and --at both say which mark: leave one of them out")
    if text is None and position is None:
        raise click.UsageError("say what happened: mark TEXT")
    chancy, metrics = door.load()
    shown = span(metrics.sync_interval)
    if undo:
        gone = door.run(take_back(chancy, text or "", at=at, cursor=position))
        until = "was taken back before" if gone.again else f"is taken back, and shown no more within {shown}"
        door.answer(gone, lambda: [f"the mark of {in_words(gone.at)} {until}: {gone.text}"])
        return
    made = door.run(mark(chancy, text or "", at=at))
    kept_s = max(metrics.retention(one) for one in get_args(Resolution))
    is_kept = datetime.now(UTC) - made.at < timedelta(seconds=kept_s)
    seen = f"shown within {shown}" if is_kept else "older than every kept bucket, so only `audit events` shows it"
    door.answer(made, lambda: [f"marked {in_words(made.at)}: {made.text}; {seen}"])
