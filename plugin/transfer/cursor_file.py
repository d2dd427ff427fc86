"""Keep a cursor over the events in a file, so that a reader resumes there after a restart."""

from __future__ import annotations

import re
from pathlib import Path

from chancy_metrics.events.decoding import fault_of
from chancy_metrics.events.errors import Damaged, MetricsLogError
from chancy_metrics.plugin.transfer.files import read_small, replace_text
from chancy_metrics.projections.search.query import EventCursor

_CURSOR = re.compile(r"(\d{1,18})(?::(\d{1,9}))?", re.ASCII)


def parse_cursor(text: str) -> EventCursor:
    """Return the cursor that *text* spells: POSITION, or POSITION:INDEX.

    Raises:
        ValueError: It spells none.
    """
    found = _CURSOR.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text.strip()[:100]!r} is no cursor: write POSITION or POSITION:INDEX, as in 1234:5")
    return EventCursor(int(found[1]), None if found[2] is None else int(found[2]))


class CursorFile:
    """A file that always holds a complete cursor, even if its writer is killed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: EventCursor | None = None

    def read(self) -> EventCursor | None:
        """Return the stored cursor; None if there is no file yet.

        Raises:
            Damaged: It holds something else.
            MetricsLogError: It can't be read, or there is no folder for it.
        """
        try:
            self._kept = parse_cursor(read_small(self._path).decode())
        except FileNotFoundError as error:
            if not self._path.parent.is_dir():  # said before events are printed that could not be kept
                raise MetricsLogError(f"the cursor can't be kept in {str(self._path)!r}: no such folder") from error
            return None
        except OSError as error:
            raise MetricsLogError(f"the cursor in {str(self._path)!r} can't be used: {error}") from error
        except ValueError as error:
            where = f"the cursor in {str(self._path)!r}"
            raise Damaged(f"can't be used: {fault_of(error)}", where=where, kind="cursor") from error
        return self._kept

    def write(self, cursor: EventCursor) -> None:
        """Replace the stored cursor.

        Raises:
            MetricsLogError: The file can't be written.
        """
        if cursor == self._kept:
            return
        try:
            replace_text(self._path, f"{cursor}\n")
        except OSError as error:
            raise MetricsLogError(f"the cursor can't be kept in {str(self._path)!r}: {error}") from error
        self._kept = cursor
