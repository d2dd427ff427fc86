"""Read raw events of the log: those that match a query, new ones as they come, and all updates of one job."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import date
from uuid import UUID

import msgspec
from chancy import Chancy
from psycopg import sql

from chancy_metrics.events.database import Cursor, needs_schema, short_transaction
from chancy_metrics.events.off_loop import in_thread
from chancy_metrics.events.partitions import days_in_log
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin.audit.tail import follow_pages
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.moments import utc
from chancy_metrics.projections.search.event import Event
from chancy_metrics.projections.search.gaps import DamagedSummary, Gap, Pruned, Unreadable
from chancy_metrics.projections.search.query import EventCursor, EventQuery
from chancy_metrics.projections.search.scan import Page, read_end, read_pages
from chancy_metrics.projections.versions.left_out import LeftOutBatch, left_out_at
from chancy_metrics.projections.versions.version import live_version

#: Waiting batches are counted up to this number.
_MAX_WAITING = 10_000


class JobLife(msgspec.Struct, frozen=True):
    """All updates of a job in the log, and what may be missing among them.

    Attributes:
        updates: One per attempt, in ledger order.
        position: Position up to which the ledger was searched.
        first_day: First day of the log; None for an empty log.
        pruned: Days that have left the log and may have held further updates.
        unreadable: Unreadable batches that may hold further updates.
        damaged_summaries: Damaged rows of the skip index; their ranges were read without them.
        left_out: Batches of its updates that are not in the numbers, with the cause.
        waiting: Recorded batches without a position yet, counted up to 10,000.
    """

    job_id: UUID
    updates: list[Event]
    position: int
    first_day: date | None
    pruned: list[Pruned]
    unreadable: list[Unreadable]
    damaged_summaries: list[DamagedSummary]
    left_out: list[LeftOutBatch]
    waiting: int


async def events(
    chancy: Chancy,
    query: EventQuery = EventQuery(),  # noqa: B008 # frozen
    *,
    limit: int | None = None,
    follow: bool = False,
    on_gap: Callable[[Gap], None] | None = None,
) -> AsyncGenerator[Event]:
    """Yield up to *limit* matching events in ledger order, in constant memory.

    An event appears once a worker's fold has given its batch a position. To resume later without a gap or a repeat,
    pass the last event's cursor: `EventQuery(after=EventCursor(event.position, event.index))`.

    Args:
        query: Which events; all by default.
        limit: At most so many; no limit by default.
        follow: Go on with new events; starts at the end of the ledger if *query* has no start.
        on_gap: Called with each gap; by default a warning in the app's log.

    Raises:
        WrongMoment: A moment is not aware, or not from 1970 to 2199.
        MetricsLogError: The cursor lies past the end of the ledger, or there is no metrics log.
    """
    left = limit
    if left is not None and left <= 0:
        return
    async with aclosing(pages(chancy, query, follow=follow)) as found:
        async for page in found:
            for gap in page.gaps:
                if on_gap is None:
                    chancy.log.warning(f"metrics: {gap}")
                else:
                    on_gap(gap)
            if not page.found:
                continue
            some = page if left is None else page.cut(left)
            for event in await in_thread(some.to_events):
                yield event
            if left is not None:
                left -= some.events
                if not left:
                    return


async def pages(
    chancy: Chancy,
    query: EventQuery = EventQuery(),  # noqa: B008 # frozen
    *,
    follow: bool = False,
    page_events: int | None = None,
    warn: Callable[[str], None] | None = None,
) -> AsyncGenerator[Page]:
    """Yield the same in pages, each with its gaps and the cursor to resume from.

    Args:
        page_events: Most events of a page; 1,000 by default.
        warn: Called when the connection is lost while following; by default a warning in the app's log.
    """
    query = msgspec.structs.replace(query, since=utc(query.since), until=utc(query.until))
    tables = tables_for(chancy.prefix)
    with needs_schema(tables):
        async with bounded_connection(chancy) as connection:
            if not follow:
                async for page in read_pages(connection, tables, query, page_events=page_events):
                    yield page
                return
            if (query.after, query.since, query.first_position) == (None, None, None):
                async with short_transaction(connection) as cursor:
                    query = msgspec.structs.replace(query, after=EventCursor(await read_end(cursor, tables)))
        async for page in follow_pages(chancy, query, warn or chancy.log.warning):
            yield page


async def job_life(chancy: Chancy, job_id: UUID) -> JobLife:
    """Return all updates of a job in the log, and the gaps. Decodes only the ranges that may hold the job.

    A job that the log does not know has no `updates`; that is no error.

    Raises:
        MetricsLogError: There is no metrics log, or a table is locked.
    """
    tables = tables_for(chancy.prefix)
    updates: list[Event] = []
    gaps: list[Gap] = []
    position = 0
    async with bounded_connection(chancy) as connection:
        async for page in read_pages(connection, tables, EventQuery(job_id=job_id)):
            updates += page.to_events()
            gaps += page.gaps
            position = page.cursor.position
        async with short_transaction(connection) as cursor:
            days = await days_in_log(cursor, tables)
            waiting = await _waiting(cursor, tables)
            live = await live_version(cursor, tables)
            missing = await left_out_at(cursor, tables, live.version, [one.position for one in updates])
    return JobLife(
        job_id,
        updates,
        position,
        days[0] if days else None,
        [gap for gap in gaps if isinstance(gap, Pruned)],
        [gap for gap in gaps if isinstance(gap, Unreadable)],
        [gap for gap in gaps if isinstance(gap, DamagedSummary)],
        missing,
        waiting,
    )


async def _waiting(cursor: Cursor, tables: Tables) -> int:
    await cursor.execute(
        sql.SQL(
            "SELECT count(*) FROM (SELECT 1 FROM {pending} UNION ALL SELECT 1 FROM {spill} LIMIT %(limit)s) AS p"
        ).format(pending=tables.pending, spill=tables.spill),
        {"limit": _MAX_WAITING},
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0
