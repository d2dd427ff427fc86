"""From which id on the pending table has rows: spares each look the dead rows below.

An id is taken by a transaction that has its own number already (the log row is written first), so whoever commits late
below an id that was taken at some time was in progress at that time. Once all of these have ended and everything up to
that id was looked at again, nothing is there and nothing comes.
"""

from __future__ import annotations

from typing import NamedTuple

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.schema import Tables


class IdSnapshot(NamedTuple):
    """Ids and transactions at one moment.

    Attributes:
        last_id: The last id that was taken; 0 if none was.
        oldest: Number of the oldest transaction in progress; *next* where there is none.
        next: Number of the next transaction.
    """

    last_id: int
    oldest: int
    next: int


class PendingCursor:
    """What one process knows of the pending table, from its sweeps over all of it that is not settled.

    Several may look and sweep at once, each on from where it began itself.

    Attributes:
        after: Greatest id that was seen: where a look begins.
        settled: Id below which nothing is and nothing comes: where a sweep begins.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.after = 0
        self.settled = 0
        self._before: IdSnapshot | None = None
        self._waiting: tuple[int, int] | None = None  # an id, settled when all transactions below a number have ended

    def sweep(self, now: IdSnapshot) -> int:
        """Return where a sweep begins; *now* was asked for before it."""
        if now.last_id < self.settled or (self._before and now.next < self._before.next):
            self._forget()  # another database, or the same one restored: nothing is known of it
        return self.settled

    def looked(self, last_id: int) -> None:
        """The greatest id that was seen is *last_id*."""
        self.after = max(self.after, last_id)

    def swept(self, now: IdSnapshot) -> None:
        """Everything that could be seen at *now* past `settled` was looked at and taken."""
        if self._before and now.next < self._before.next:
            return  # another sweep, begun later, has ended before this one
        if self._waiting and now.oldest >= self._waiting[1]:
            self.settled, self._waiting = self._waiting[0], None
        # The id was taken before this moment's transactions were counted, not at the same time.
        if self._waiting is None and self._before and self._before.last_id > self.settled:
            self._waiting = self._before.last_id, now.next
        self._before = now
        self.looked(self.settled)


async def read_id_snapshot(cursor: Cursor, tables: Tables) -> IdSnapshot:
    """Return the moment; reads no row of the table."""
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
