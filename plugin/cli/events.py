"""`chancy-metrics audit events` and `audit job`: list raw events, and the history of one job."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import msgspec
from chancy import Chancy

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.humanize import counted
from chancy_metrics.plugin.audit.events import JobLife, job_life, pages
from chancy_metrics.plugin.audit.suggest import asked_names, unknown_names
from chancy_metrics.plugin.cli.command import command
from chancy_metrics.plugin.cli.event_table import EVENTS, UPDATES, LinePrinter, event_row, moment, update_row
from chancy_metrics.plugin.cli.output import FOUND_SOMETHING, Door
from chancy_metrics.plugin.cli.types import CursorType, Moment
from chancy_metrics.plugin.rebuilds.listing import read_left_out
from chancy_metrics.plugin.transfer.cursor_file import CursorFile
from chancy_metrics.plugin.transfer.json_lines import JSON_PAGE_EVENTS, json_lines
from chancy_metrics.projections.search.gaps import DamagedSummary, Gap, Pruned, Unreadable
from chancy_metrics.projections.search.query import EventCursor, EventQuery
from chancy_metrics.projections.search.scan import Page

_KINDS = ("job", "counter", "gauge", "histogram")


_FILTERS: list[Callable[[Any], Any]] = [
    click.option(
        "--since",
        type=Moment(),
        help="Start of the range, inclusive: 2026-03-10T12:00Z, or 2h or 7d for that long ago.",
    ),
    click.option("--until", type=Moment(), help="End of the range, exclusive."),
    click.option("--after", type=CursorType(), help="Only events after this position: POSITION or POSITION:INDEX."),
    click.option("--worker", help="Only events recorded by this worker."),
    click.option("--producer", type=click.UUID, help="Only events recorded by this producer."),
    click.option(
        "--kind", "kinds", multiple=True, type=click.Choice(_KINDS), help="Only events of this kind; may be repeated."
    ),
    click.option("--key", help="Only observations of this key, and job updates that feed it."),
    click.option("--prefix", help="The same for keys that start with these segments, such as queue:mail."),
    click.option("--func", help="Only updates of jobs of this function."),
    click.option("--queue", help="Only updates of jobs on this queue."),
    click.option("--state", help="Only updates to this state: succeeded, failed or retrying."),
    click.option("--job-id", type=click.UUID, help="Only updates of this job."),
    click.option("--error", help="Only updates with this type of exception."),
]


def _with_filters(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_FILTERS):
        function = option(function)
    return function


@command("events")
@_with_filters
@click.option("--limit", type=click.IntRange(min=1), help="Print at most this many events.")
@click.option(
    "--follow",
    "-f",
    is_flag=True,
    help="Wait for new events and print them; starts now unless --since, --after or --cursor says where.",
)
@click.option(
    "--cursor",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Store the position in this file, and resume from it the next time.",
)
@click.option(
    "--parquet",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write Parquet files into this folder, one folder per day; a second run adds the new events.",
)
@click.pass_obj
def events_command(
    door: Door,
    /,
    limit: int | None,
    follow: bool,
    cursor: Path | None,
    parquet: Path | None,
    **filters: Any,
) -> None:
    """List the raw events, job updates and observations, in the order of the ledger.

    Exits with 3 when a batch that may hold matching events can't be read; stderr names it. Exits with 1 when a filter
    has a name that no event has; the message suggests similar names.
    """
    _check(filters["since"], filters["until"], filters["after"], follow, cursor, door.as_json, parquet)
    chancy, _ = door.load()
    _tell_left_out(door, chancy, filters["since"], filters["until"])
    selection = EventQuery(**filters)
    listing = Listing(door, selection, limit, None if cursor is None else CursorFile(cursor))
    if parquet is None:
        door.run(listing.print(chancy, follow=follow))
    else:
        door.run(listing.export(chancy, parquet))
    if listing.unreadable:
        sys.exit(FOUND_SOMETHING)
    if not listing.events and cursor is None:
        unknown = door.run(unknown_names(chancy, selection))
        if unknown:
            raise MetricsLogError("; ".join(unknown))
        if parquet is None and not (door.as_json and asked_names(selection) == []):
            is_any = selection == EventQuery()
            door.tell("the ledger has no events" if is_any else "no event matches all filters")


@command("job")
@click.argument("job_id", type=click.UUID)
@click.pass_obj
def job_command(door: Door, job_id: UUID) -> None:
    """Show the history of a job: one line for each attempt.

    Exits with 3 when a batch that may hold more of its updates can't be read; stderr names it. Exits with 1 when the
    log has no update of the job.
    """
    chancy, _ = door.load()
    life = door.run(job_life(chancy, job_id))
    if door.as_json and (life.updates or life.unreadable):
        door.say_json(life)
    else:
        _show_life(door, life)
    if life.unreadable:
        sys.exit(FOUND_SOMETHING)
    if not life.updates:
        raise MetricsLogError(f"the log has no update of job {job_id} up to position {life.position:,}")


class Listing:
    """One run of `audit events`.

    Attributes:
        events: How many matched.
        unreadable: How many batches could not be read.
    """

    def __init__(self, door: Door, selection: EventQuery, limit: int | None, cursor: CursorFile | None) -> None:
        self._door = door
        self._selection = selection
        self._left = limit
        self._cursor = cursor
        self.events = 0
        self.unreadable = 0

    async def print(self, chancy: Chancy, *, follow: bool) -> None:
        """Print matching events page by page; the cursor is stored once its page is printed."""
        selection = self._selection
        kept = None if self._cursor is None else self._cursor.read()
        if kept is not None:
            selection = msgspec.structs.replace(selection, after=kept)
        printer = None if self._door.as_json else LinePrinter(self._door, EVENTS)
        if follow:
            unknown = await unknown_names(chancy, self._selection)
            self._door.tell(*(f"{one}; it is waited for" for one in unknown))
        page_events = JSON_PAGE_EVENTS if self._door.as_json else None
        async with aclosing(self._pages(chancy, selection, page_events, follow=follow)) as found:
            async for page in found:
                if printer is None:
                    self._door.say_lines(json_lines(page.found))
                else:
                    printer.print([event_row(event) for event in page.to_events()])
                if self._cursor is not None:
                    self._cursor.write(page.cursor)

    async def export(self, chancy: Chancy, folder: Path) -> None:
        """Write matching events that the folder does not have yet into Parquet files."""
        from chancy_metrics.plugin.transfer.parquet import PAGE_EVENTS, ParquetFolder

        try:
            with ParquetFolder(folder, self._selection) as export:
                selection = msgspec.structs.replace(self._selection, after=export.cursor)
                async with aclosing(self._pages(chancy, selection, PAGE_EVENTS)) as found:
                    async for page in found:
                        export.write(page)
                export.finish()
        except OSError as error:
            raise MetricsLogError(f"{str(folder)!r} can't be written: {error}") from error
        written = f"{counted(export.events, 'event')} into {counted(export.files, 'file')}"
        self._door.say(f"wrote {written}; {folder} ends at {export.cursor}")

    async def _pages(
        self, chancy: Chancy, selection: EventQuery, page_events: int | None, *, follow: bool = False
    ) -> AsyncGenerator[Page]:
        """Yield pages up to the limit, and print their gaps on stderr."""
        read = pages(chancy, selection, follow=follow, page_events=page_events, warn=self._door.tell)
        async with aclosing(read) as found:
            async for whole in found:
                page = whole if self._left is None else whole.cut(self._left)
                self._tell(page.gaps)
                self.events += page.events
                yield page
                if self._left is not None:
                    self._left -= page.events
                    if not self._left:
                        return

    def _tell(self, gaps: Sequence[Gap]) -> None:
        unreadable = [gap for gap in gaps if isinstance(gap, Unreadable)]
        self.unreadable += len(unreadable)
        damaged = [str(gap) for gap in gaps if isinstance(gap, DamagedSummary)]
        pruned = pruned_days([gap for gap in gaps if isinstance(gap, Pruned)])
        self._door.tell(*map(str, unreadable), *damaged, *pruned)


def _tell_left_out(door: Door, chancy: Chancy, since: datetime | None, until: datetime | None) -> None:
    """Say on stderr which events of a range are not in the numbers, whether they can be listed or not."""
    if sentence := door.run(read_left_out(chancy, since=since, until=until)).sentence:
        door.tell(f"not all of these events are in the numbers: {sentence}")


def pruned_days(pruned: Sequence[Pruned]) -> list[str]:
    """Return one sentence for all days that have left the log; [] for none."""
    if len(pruned) < 2:
        return [str(one) for one in pruned]
    days = [one.day for one in pruned if one.day is not None]
    before = "" if len(days) == len(pruned) else "the days before, and "
    last = max(one.last_position for one in pruned)
    return [
        f"{before}{len(days)} days from {days[0]} to {days[-1]} have left the log: what was recorded there up to "
        f"position {last} is in the numbers and can't be listed"
    ]


def _show_life(door: Door, life: JobLife) -> None:
    updates = life.updates
    if updates:
        first = updates[0]
        lines = {
            "job": f"{life.job_id}, {first.func}",
            "created": "-" if first.created_at is None else moment(first.created_at),
            "due": "-" if first.scheduled_at is None else moment(first.scheduled_at),
        }
        door.say(*(f"{name:<9} {value}" for name, value in lines.items()))
        LinePrinter(door, UPDATES).print([update_row(event) for event in updates])
    notes = [str(gap) for gap in [*life.unreadable, *life.damaged_summaries]] + pruned_days(life.pruned)
    notes += [f"the update at position {one.position} is not in the numbers: {one.error}" for one in life.left_out]
    if life.waiting:
        waits = "waits" if life.waiting == 1 else "wait"
        notes.append(
            f"{counted(life.waiting, 'batch')} {waits} for a position, which the next fold assigns: "
            "there may be more updates soon"
        )
    door.tell(*notes)


def _check(
    since: datetime | None,
    until: datetime | None,
    after: EventCursor | None,
    follow: bool,
    cursor: Path | None,
    as_json: bool,
    parquet: Path | None,
) -> None:
    """Refuse options that contradict each other.

    Raises:
        UsageError: Two of them do.
    """
    if since is not None and until is not None and since >= until:
        raise click.BadParameter(f"{until.isoformat()} is not after --since", param_hint="--until")
    for refused, sentence in (
        (follow and until is not None, "--follow never ends, and --until does: leave one of them out"),
        (
            after is not None and cursor is not None,
            "--after and --cursor both say where to start: leave one of them out",
        ),
        (parquet is not None and as_json, "--parquet writes files, and --json prints lines: leave one of them out"),
        (parquet is not None and follow, "--parquet does not follow: run it again to add new events"),
        (parquet is not None and cursor is not None, "--parquet stores its position in its folder: leave --cursor out"),
    ):
        if refused:
            raise click.UsageError(sentence)
