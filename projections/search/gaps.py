"""Gaps in the result of a search: unreadable batches, pruned days and damaged summaries."""

from __future__ import annotations

from datetime import date
from uuid import UUID

import msgspec
from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.humanize import counted
from chancy_metrics.events.ledger import LedgerRow
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.search.query import EventQuery, start_of

_DAY_US = 86_400_000_000


class Unreadable(msgspec.Struct, frozen=True, tag="unreadable", tag_field="gap"):
    """A batch that may match and can't be read, or the unreadable kept meta of one event.

    Attributes:
        error: The cause, as a sentence.
        index: Index of that event, which is listed without its meta; None for the whole batch.
    """

    position: int
    day: date
    producer: UUID
    sequence: int
    events: int
    error: str
    index: int | None = None

    def __str__(self) -> str:
        if self.index is not None:
            return f"the kept meta of event {self.position}:{self.index} could not be read: {self.error}"
        return (
            f"the batch at position {self.position} ({counted(self.events, 'event')}, batch {self.sequence} of "
            f"producer {self.producer} on {self.day}) could not be read: {self.error}"
        )


class Pruned(msgspec.Struct, frozen=True, tag="pruned", tag_field="gap"):
    """A day that was pruned from the log; None for all days that even the ledger has forgotten.

    Attributes:
        last_position: Position of its last batch.
    """

    day: date | None
    last_position: int

    def __str__(self) -> str:
        return (
            f"{'older days have' if self.day is None else f'{self.day} has'} left the log: its events up to position "
            f"{self.last_position} are in the numbers and can't be listed"
        )


class DamagedSummary(msgspec.Struct, frozen=True, tag="summary", tag_field="gap"):
    """A damaged row of the skip index; its batches were read without it."""

    first_position: int
    last_position: int

    def __str__(self) -> str:
        return (
            f"the summary of positions {self.first_position} to {self.last_position} is damaged: the batches were "
            "read without it; `chancy-metrics audit check` says more"
        )


Gap = Unreadable | Pruned | DamagedSummary


def unreadable(row: LedgerRow, error: str, index: int | None = None) -> Unreadable:
    return Unreadable(row.position, *row.batch_id, row.events, error, index)


def position_of(gap: Gap) -> tuple[int, int]:
    """Return position and index of the gap in the ledger; the end of a day or range."""
    return (gap.position, gap.index or 0) if isinstance(gap, Unreadable) else (gap.last_position, 0)


async def read_pruned(cursor: Cursor, tables: Tables, *, after: int) -> list[Pruned]:
    """Return the days with batches past *after* that have left the log, oldest first."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT NULL::date, min(position) - 1
            FROM {ledger}
            HAVING min(position) - 1 > %(after)s
            UNION ALL
            (
                SELECT day, last_position
                FROM {days}
                WHERE state IN ('absorbed', 'gone')
                    AND last_position > %(after)s
                ORDER BY day
            )
            """
        ).format(ledger=tables.ledger, days=tables.days),
        {"after": after},
    )
    return [Pruned(*row) for row in await cursor.fetchall()]


def concerns(query: EventQuery, pruned: Pruned) -> bool:
    """Whether a pruned day may have held matching events: none is later than about the end of its day."""
    return pruned.day is None or query.since_us < start_of(pruned.day) + 2 * _DAY_US


def may_have_matched(query: EventQuery, row: LedgerRow) -> bool:
    """Whether a lost batch may have held matching events, by its producer and the day before or after its own."""
    start_us = start_of(row.batch_id.day)
    return (
        query.producer in (None, row.batch_id.producer)
        and query.since_us < start_us + 2 * _DAY_US
        and query.until_us > start_us - _DAY_US
    )
