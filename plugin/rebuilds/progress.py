"""Count what a backfill has folded and has to fold, and report how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable

from psycopg import sql

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.host.progress import Phase, RebuildProgress
from chancy_metrics.projections.versions.version import Version


class Progress:
    """The progress of one run.

    Attributes:
        events: How many the run has folded.
        started: When it began, by `time.monotonic`.
    """

    def __init__(
        self,
        connection: Connection,
        tables: Tables,
        on_progress: Callable[[RebuildProgress], None] | None,
        version: int = 0,
    ) -> None:
        self.events = 0
        self.started = time.monotonic()
        self._connection = connection
        self._tables = tables
        self._on_progress = on_progress
        self._version = version
        self._total_events = 0
        self._counted_to = 0

    def begin(self, version: Version) -> None:
        """Count from the position of *version* on."""
        self._version = version.version
        self._counted_to = version.position

    def add_archived(self, events: int) -> None:
        """Count events that were folded from an archive, and so are not among those up to a position."""
        self.events += events
        self._total_events += events

    async def count_to(self, target: int) -> None:
        """Add the events up to *target*, to which the live version has moved on, to the total."""
        if target > self._counted_to:
            self._total_events += await self._events_between(self._counted_to, target)
            self._counted_to = target

    def report(self, phase: Phase, position: int, target: int, *, waits: bool = False, note: str = "") -> None:
        if self._on_progress is None:
            return
        rate = self.events / max(time.monotonic() - self.started, 1e-9)
        left = max(self._total_events - self.events, 0)
        self._on_progress(
            RebuildProgress(
                phase,
                self._version,
                position,
                target,
                self.events,
                self._total_events,
                rate,
                left / rate if rate else None,
                waits,
                note,
            )
        )

    async def _events_between(self, after: int, until: int) -> int:
        async with short_transaction(self._connection) as cursor:
            await cursor.execute(
                sql.SQL(
                    """
                    SELECT coalesce(sum(events), 0)::bigint
                    FROM {ledger}
                    WHERE position > %(after)s
                        AND position <= %(until)s
                    """
                ).format(ledger=self._tables.ledger),
                {"after": after, "until": until},
            )
            row = await cursor.fetchone()
        return row[0] if row else 0
