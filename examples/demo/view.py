"""The demo on the terminal: a table that refreshes, or plain lines where nobody looks at a screen."""

from __future__ import annotations

from types import TracebackType

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from .pulse import Pulse

_PLAIN_EVERY_S = 3.0
_COLOURS = {"succeeded": "green", "failed": "red", "retrying": "yellow"}


class View:
    """Shows what happens, until the block ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._next_s = 0.0

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def show(self, pulse: Pulse) -> None:
        """Draw the table again, or print a line where three seconds have passed."""
        if self._live is not None:
            self._live.update(Group(_table(pulse), *_summary(pulse)), refresh=True)
        elif pulse.elapsed_s >= self._next_s:
            self._next_s = pulse.elapsed_s + _PLAIN_EVERY_S
            self.say("   ".join(_summary(pulse)))

    def __enter__(self) -> View:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()


def _table(pulse: Pulse) -> Table:
    table = Table("function", "queue", "executor", box=SIMPLE, show_edge=False, padding=0)
    for title in (*_COLOURS, "run p95", "wait p95", "due", "oldest"):
        table.add_column(title, justify="right")
    for line in pulse.lines:
        queue = line.kind.queue
        table.add_row(
            line.kind.name,
            queue.name,
            queue.executor.rpartition(".")[2].removesuffix("Executor"),
            *(f"[{colour}]{line.updates[state]}" for state, colour in _COLOURS.items()),
            _duration(line.run_p95_s),
            _duration(line.wait_p95_s),
            "—" if line.due is None else f"{line.due:,}",
            _duration(line.oldest_s),
        )
    return table


def _summary(pulse: Pulse) -> tuple[str, str]:
    run_s = max((line.run_p95_s or 0.0 for line in pulse.lines), default=0.0)
    wait_s = max((line.wait_p95_s or 0.0 for line in pulse.lines), default=0.0)
    due = sum(line.due or 0 for line in pulse.lines)
    oldest_s = max((line.oldest_s or 0.0 for line in pulse.lines), default=0.0)
    waiting = f"{due:,} due, the oldest for {_duration(oldest_s)}" if due else "none due"
    return (
        f"{pulse.elapsed_s:4.0f} s   {pulse.per_s:4.0f} updates/s   {pulse.updates:,} updates   "
        f"{pulse.total('failed'):,} failed   {pulse.total('retrying'):,} retried",
        f"p95 run {_duration(run_s)}, wait {_duration(wait_s)}   {waiting}   projector {pulse.lag_s:.1f} s behind",
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "—"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
