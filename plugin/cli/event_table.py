"""Print events as a table on a terminal if rich is installed, and otherwise as one line each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from chancy_metrics.plugin.host.escape import json_line, safe
from chancy_metrics.projections.search.event import Event
from chancy_metrics.projections.search.query import EventCursor

if TYPE_CHECKING:
    from rich.console import Console

    from chancy_metrics.plugin.cli.output import Door

#: Columns of the narrowest table; a narrower terminal breaks its lines.
_MIN_WIDTH = 60


class Column(NamedTuple):
    """A column of a table; the one without a width takes the rest of the line, and wraps."""

    name: str
    width: int | None = None


EVENTS = (Column("at (UTC)", 19), Column("position", 9), Column("worker", 8), Column("event"))
UPDATES = (
    *(Column("at (UTC)", 19), Column("state", 9), Column("no.", 3), Column("waited", 8), Column("ran", 8)),
    Column("queue, worker, error"),
)


class LinePrinter:
    """Prints rows page by page, in constant memory; the head once."""

    def __init__(self, door: Door, columns: Sequence[Column]) -> None:
        self._door = door
        self._columns = columns
        self._has_head = False
        self._console = _console(door)

    def print(self, rows: Sequence[Sequence[str]]) -> None:
        """Print a page of rows; control characters are escaped."""
        if not rows:
            return
        shown = [[safe(cell) for cell in row] for row in rows]  # before they are broken into lines
        lines = self._plain(shown) if self._console is None else self._table(self._console, shown)
        self._has_head = True
        self._door.say(*lines)

    def _plain(self, rows: list[list[str]]) -> list[str]:
        head = [] if self._has_head else [[column.name for column in self._columns]]
        return [
            "  ".join(
                cell if column.width is None else cell.ljust(column.width)
                for column, cell in zip(self._columns, row, strict=True)
            ).rstrip()
            for row in head + rows
        ]

    def _table(self, console: Console, rows: list[list[str]]) -> list[str]:
        from rich.table import Table
        from rich.text import Text

        width = max(console.width, _MIN_WIDTH)
        table = Table(box=None, pad_edge=False, header_style="", show_header=not self._has_head, padding=(0, 2, 0, 0))
        taken = sum((column.width or 0) + 2 for column in self._columns) - 2
        for column in self._columns:
            if column.width is None:
                table.add_column(column.name, width=width - taken, overflow="fold")
            else:
                table.add_column(column.name, width=column.width, no_wrap=True, overflow="ellipsis")
        for row in rows:
            table.add_row(*map(Text, row))  # not as markup, by which a key could change the output
        with console.capture() as capture:
            console.print(table, width=width)
        return capture.get().rstrip("\n").split("\n")


def event_row(event: Event) -> list[str]:
    """Return an event as a row under `EVENTS`."""
    return [
        moment(event.at),
        str(EventCursor(event.position, event.index)),
        event.worker,
        _update(event) if event.kind == "job" else _observation(event),
    ]


def update_row(event: Event) -> list[str]:
    """Return a job update as a row under `UPDATES`."""
    where = f"{event.queue} on {event.worker}"
    return [
        moment(event.at),
        event.state or "",
        str(event.attempt),
        seconds(event.wait_s),
        seconds(event.run_s),
        f"{where}: {event.error}" if event.error else where,
    ]


def moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"


def seconds(took_s: float | None) -> str:
    return "-" if took_s is None else f"{took_s:,.3f} s" if took_s < 100 else f"{took_s:,.0f} s"


def _update(event: Event) -> str:
    parts = [f"{event.func} {event.state}", f"queue {event.queue}", f"attempt {event.attempt}"]
    if event.run_s is not None:
        parts.append(f"ran {seconds(event.run_s)}")
    if event.wait_s is not None:
        parts.append(f"waited {seconds(event.wait_s)}")
    if event.error:
        parts.append(event.error)
    if event.meta:
        parts.append(json_line(event.meta))
    parts.append(f"job {event.job_id}")
    return ", ".join(parts)


def _observation(event: Event) -> str:
    return f"{event.kind} {event.key} {event.value:.15g} {event.unit}"


def _console(door: Door) -> Console | None:
    try:
        from rich.console import Console
    except ImportError:
        return None
    console = Console(file=door.out, highlight=False, soft_wrap=False, emoji=False, markup=False)
    return console if console.is_terminal else None  # in a pipe: a line per event, 100 times as fast
