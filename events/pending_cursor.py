"""From which id on to read the pending table, so that a read skips the dead rows below.

A transaction takes its number before an id (it writes the log row first). So a transaction that commits late, below an
id that was taken at some time, was in progress at that time. Once all of those have ended and everything up to that id
was read again, no rows below are left and none will come.
"""

from __future__ import annotations

from typing import NamedTuple

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.schema import Tables


class IdSnapshot(NamedTuple):
    """Last id and running transactions at one moment.

    Attributes:
        last_id: The last id that was taken; 0 if none was.
        oldest: Number of the oldest transaction in progress; *next* where there is none.
        next: Number of the next transaction.
    """

    last_id: int
    oldest: int
    next: int


class PendingCursor:
    """What one process knows of the pending table from its sweeps, reads from the settled id on.

    Reads and sweeps may run concurrently.

    Attributes:
        after: Largest id seen: where a read begins.
        settled: Id up to which no rows are and none will come: where a sweep begins.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.after = 0
        self.settled = 0
        self._before: IdSnapshot | None = None
        self._waiting: tuple[int, int] | None = None  # id, and the transaction before which all must have ended

    def sweep(self, now: IdSnapshot) -> int:
        """Return where a sweep begins; *now* was read before it."""
        if now.last_id < self.settled or (self._before and now.next < self._before.next):
            self._forget()  # another database, or the same one restored: nothing is known of it
        return self.settled

    def note_seen(self, last_id: int) -> None:
        """Note that ids up to *last_id* were seen."""
        self.after = max(self.after, last_id)

    def swept(self, now: IdSnapshot) -> None:
        """Note that all rows past `settled` that were visible at *now* were taken."""
        if self._before and now.next < self._before.next:
            return  # another sweep, begun later, has ended before this one
        if self._waiting and now.oldest >= self._waiting[1]:
            self.settled, self._waiting = self._waiting[0], None
        # The id was taken before this moment's transactions were counted, not at the same time.
        if self._waiting is None and self._before and self._before.last_id > self.settled:
            self._waiting = self._before.last_id, now.next
        self._before = now
        self.note_seen(self.settled)


async def read_id_snapshot(cursor: Cursor, tables: Tables) -> IdSnapshot:
    """Read the snapshot; reads no row of the pending table."""
    await cursor.execute(
        """
        SELECT
            coalesce(pg_sequence_last_value(pg_get_serial_sequence(%(pending)s, 'id')), 0),
            pg_snapshot_xmin(now)::text::bigint,
            pg_snapshot_xmax(now)::text::bigint
        FROM pg_current_snapshot() AS now
        """,
        {"pending": tables.pending.as_string(cursor)},
    )
    row = await cursor.fetchone()
    assert row is not None
    return IdSnapshot(*row)
