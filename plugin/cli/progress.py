"""Show the progress of a long command on stderr: an audit of the ledger, or a rebuild."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from chancy_metrics.events.humanize import counted, span
from chancy_metrics.plugin.host.escape import safe
from chancy_metrics.plugin.host.progress import LedgerProgress, RebuildProgress

if TYPE_CHECKING:
    from chancy_metrics.plugin.cli.output import Door

#: Seconds between lines of progress: on a terminal, where one is written over the other, and in a log.
_TERMINAL_S, _LINES_S = 0.1, 10


class Progress:
    """One line that is written over on a terminal, or a line every ten seconds in a log.

    click.progressbar prints nothing but its label where stderr is no terminal.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._is_terminal = door.err.isatty()
        self._shown_s = time.monotonic()
        self._phase = ""
        self._is_open = False

    def show(self, line: str, *, phase: str = "", ends: bool = False) -> None:
        """Show *line* unless the last one was shown just now; the first of a phase always.

        Args:
            ends: No line comes after it; on a terminal it is always shown.
        """
        now_s = time.monotonic()
        is_due = now_s - self._shown_s >= (_TERMINAL_S if self._is_terminal else _LINES_S)
        if not (is_due or phase != self._phase or (ends and self._is_terminal)):
            return
        self._shown_s, self._phase = now_s, phase
        if not self._is_terminal:
            self._door.tell(line)
            return
        self._is_open = False
        self._door.tell_raw(f"\r\x1b[K{safe(line)}" + ("\n" if ends else ""))
        self._is_open = not ends

    def break_off(self) -> str:
        """Return what ends the line that is being written over; "" if there is none."""
        was_open, self._is_open = self._is_open, False
        return "\n" if was_open else ""


def show_ledger(door: Door, did: str) -> Callable[[LedgerProgress], None]:
    """Return a function that shows how far a walk through the ledger is; *did* is its verb, such as "checked"."""
    shown = door.progress()

    def show(progress: LedgerProgress) -> None:
        line = (
            f"{did} {counted(progress.events, 'event')}, position {progress.position:,} of {progress.until:,}, "
            f"{progress.events_per_s:,.0f} events/s"
        )
        shown.show(line, ends=progress.position >= progress.until)

    return show


def show_rebuild(door: Door, *, subject: str = "version") -> Callable[[RebuildProgress], None]:
    """Return a function that shows how far a rebuild is; *subject* is what is rebuilt."""
    shown = door.progress()

    def show(progress: RebuildProgress) -> None:
        left = "" if progress.remaining_s is None else f", {span(progress.remaining_s)} left"
        waits = ", gives way to the live version" if progress.waits else ""
        line = progress.note or (
            f"{progress.phase} {subject} {progress.version}: {progress.events:,} of "
            f"{counted(progress.total_events, 'event')}, {progress.events_per_s:,.0f} a second{left}{waits}"
        )
        shown.show(line, phase=progress.phase, ends=progress.phase == "swapping")

    return show
