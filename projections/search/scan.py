"""Read the log in ledger order, page by page: the events that match a query, and the gaps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import date
from typing import NamedTuple

from psycopg import sql

from chancy_metrics.events.batch import DecodedBatch, LogBatch
from chancy_metrics.events.codec import decode_batch
from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import DamagedBatch, MetricsLogError, OutOfMemory, UnknownCodec
from chancy_metrics.events.ledger import LedgerRow, chunks, naming_batches, read_ledger
from chancy_metrics.events.log import read_batches, read_log_rows
from chancy_metrics.events.off_loop import in_thread, portions
from chancy_metrics.events.partitions import gone_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.search.event import Event, to_events
from chancy_metrics.projections.search.gaps import (
    DamagedSummary,
    Gap,
    concerns,
    may_have_matched,
    position_of,
    read_pruned,
    unreadable,
)
from chancy_metrics.projections.search.match import matching, may_match
from chancy_metrics.projections.search.query import EventCursor, EventQuery
from chancy_metrics.projections.search.ranges import read_ranges

#: Ledger rows read in one statement.
_ROWS = 512
#: Limits of a page: events, and bytes of kept meta (but at least one event).
PAGE_EVENTS = 1_000
_PAGE_BYTES = 4 << 20


class Page(NamedTuple):
    """A part of the ledger that was searched; events and gaps may both be empty.

    Attributes:
        cursor: Where to resume: everything up to there was searched.
    """

    cursor: EventCursor
    events: list[Event]
    gaps: list[Gap]

    def cut(self, limit: int) -> Page:
        """Return the page cut after *limit* events (at least 1), with the gaps and the cursor up to there."""
        if len(self.events) <= limit:
            return self
        events = self.events[:limit]
        last = (events[-1].position, events[-1].index)
        return Page(EventCursor(*last), events, [gap for gap in self.gaps if position_of(gap) <= last])


class _Found(NamedTuple):
    """The indexes of a batch's matching events."""

    batch: LogBatch
    decoded: DecodedBatch
    indexes: list[int]


class _Rows(NamedTuple):
    """Ledger rows up to position *until* whose batches must be read, in chunks; and the batches of the first chunk."""

    until: int
    chunks: list[list[LedgerRow]]
    batches: list[LogBatch]
    gaps: list[Gap]


async def read_end(cursor: Cursor, tables: Tables) -> int:
    """Return the last position of the ledger."""
    await cursor.execute(sql.SQL("SELECT position FROM {head}").format(head=tables.head))
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


def check_cursor(query: EventQuery, end: int) -> None:
    """Raise `MetricsLogError` if the query's cursor lies past the end of the ledger: it is from another log."""
    if query.after is not None and query.after.position > end:
        raise MetricsLogError(
            f"position {query.after} lies past the end of the ledger, {end}: it is from another database, or this "
            "one was restored from a backup; begin again without it"
        )


async def read_pages(
    connection: Connection, tables: Tables, query: EventQuery, *, until: int | None = None
) -> AsyncIterator[Page]:
    """Yield pages up to the present end of the ledger (or position *until*), in constant memory.

    No transaction is open while the caller has a page.

    Args:
        connection: An autocommit one outside a transaction.

    Raises:
        MetricsLogError: The query's cursor lies past the end of the ledger.
    """
    reader = _Reader(connection, tables, query)
    async with short_transaction(connection) as cursor:
        end = await read_end(cursor, tables)
        check_cursor(query, end)
        end = min(one for one in (end, until, query.last_position) if one is not None)
        pruned = await read_pruned(cursor, tables, after=query.start)
    reader.reported = {one.day for one in pruned if one.day is not None}
    gaps: list[Gap] = [one for one in pruned if concerns(query, one)]
    if gaps:
        yield Page(reader.cursor, [], gaps)
    async for until_here, ranges, broken in read_ranges(connection, tables, query, pruned, query.start, end):
        if broken:
            yield Page(reader.cursor, [], [DamagedSummary(one.first, one.last) for one in broken])
        for first, last in ranges:
            async for page in reader.read(first, last):
                yield page
        yield reader.page(EventCursor(until_here))


class _Reader:
    """Reads ranges of positions.

    Attributes:
        cursor: Up to where pages were yielded.
        reported: Pruned days that were yielded as gaps.
    """

    def __init__(self, connection: Connection, tables: Tables, query: EventQuery) -> None:
        self._connection = connection
        self._tables = tables
        self._query = query
        self.cursor = query.start_cursor
        self.reported: set[date] = set()

    def page(self, cursor: EventCursor, events: list[Event] | None = None) -> Page:
        """Move to *cursor* and return the page that ends there."""
        self.cursor = cursor
        return Page(cursor, events or [], [])

    async def read(self, first: int, last: int) -> AsyncIterator[Page]:
        """Yield the pages of positions *first* to *last*, both inclusive."""
        after = first - 1
        while after < last and (found := await self._rows(after, last)):
            gaps = found.gaps
            for number, rows in enumerate(found.chunks):
                batches = found.batches if not number else await self._batches(rows, gaps)
                matches, damaged = await self._decode(rows, batches, gaps)
                by_position = {row.position: row for row in rows}
                gaps += [unreadable(by_position[position], error) for position, error in damaged.items()]
                if gaps:
                    yield Page(self.cursor, [], sorted(gaps, key=position_of))
                    gaps = []
                for part in _page_by_page(matches):
                    events = await in_thread(_to_events, part)
                    page = self.page(EventCursor(events[-1].position, events[-1].index), events)
                    page.gaps.extend(
                        unreadable(by_position[one.position], one.damage, one.index) for one in events if one.damage
                    )
                    yield page
                found.batches.clear()
                del batches, matches  # not held while the next chunk is read
            after = found.until
            yield self.page(EventCursor(after))._replace(gaps=gaps)

    async def _rows(self, after: int, last: int) -> _Rows | None:
        """Read the next rows and their first chunk of batches, in one transaction: enough for most ranges."""
        async with short_transaction(self._connection, index_only=True) as cursor:
            rows = await read_ledger(cursor, self._tables, after=after, until=last, limit=_ROWS)
            if not rows:
                return None
            gone = await gone_days(cursor, self._tables)
            in_log = await read_log_rows(
                cursor, self._tables, [row.batch_id for row in rows if row.batch_id.day not in gone]
            )
            gaps = await self._gaps(cursor, [row for row in rows if row.batch_id not in in_log])
            kept = [row for row in rows if row.batch_id in in_log and may_match(self._query, in_log[row.batch_id])]
            several = list(chunks(kept))
            batches = await self._read(cursor, several[0], gaps) if several else []
        return _Rows(rows[-1].position, several, batches, gaps)

    async def _batches(self, rows: list[LedgerRow], gaps: list[Gap]) -> list[LogBatch]:
        async with short_transaction(self._connection, index_only=True) as cursor:
            return await self._read(cursor, rows, gaps)

    async def _read(self, cursor: Cursor, rows: list[LedgerRow], gaps: list[Gap]) -> list[LogBatch]:
        """Read the batches at *rows*; add those that are missing to *gaps*."""
        try:
            with naming_batches(rows):
                batches = await read_batches(cursor, self._tables, [(row.position, row.batch_id) for row in rows])
        except OutOfMemory as error:
            gaps.append(_too_large(rows, error))
            return []
        found = {batch.position for batch in batches}
        gaps += await self._gaps(cursor, [row for row in rows if row.position not in found])
        return batches

    async def _decode(
        self, rows: list[LedgerRow], batches: list[LogBatch], gaps: list[Gap]
    ) -> tuple[list[_Found], dict[int, str]]:
        try:
            with naming_batches(rows):
                found, damaged = list[_Found](), dict[int, str]()
                for some in portions(batches):
                    matches, unread = await in_thread(_search_batches, self._query, some)
                    found += matches
                    damaged |= unread
                return found, damaged
        except OutOfMemory as error:
            gaps.append(_too_large(rows, error))
            return [], {}

    async def _gaps(self, cursor: Cursor, missing: Sequence[LedgerRow]) -> list[Gap]:
        """Return gaps for rows that are not in the log: each pruned day once, and lost batches.

        Call it after reading the rows, which may leave with their day.
        """
        if not missing:
            return []
        gone = await gone_days(cursor, self._tables)
        left = {row.batch_id.day for row in missing} & gone - self.reported
        gaps: list[Gap] = []
        if left:
            self.reported |= left
            pruned = await read_pruned(cursor, self._tables, after=0)
            gaps += [one for one in pruned if one.day in left and concerns(self._query, one)]
        gaps += [
            unreadable(row, "its row is not in the log")
            for row in missing
            if row.batch_id.day not in gone and may_have_matched(self._query, row)
        ]
        return gaps


def _too_large(rows: Sequence[LedgerRow], error: OutOfMemory) -> Gap:
    """Return the gap for a batch that does not fit into memory; raise *error* for several batches."""
    if len(rows) > 1:
        raise error
    return unreadable(rows[0], str(error))


def _search_batches(query: EventQuery, batches: Sequence[LogBatch]) -> tuple[list[_Found], dict[int, str]]:
    """Return the matches batch by batch, and the unreadable batches: position -> cause."""
    found, damaged = [], {}
    for batch in batches:
        try:
            decoded = decode_batch(batch)
        except (DamagedBatch, UnknownCodec) as error:
            damaged[batch.position] = str(error)
            continue
        indexes = matching(query, batch, decoded).tolist()
        if indexes:
            found.append(_Found(batch, decoded, indexes))
    return found, damaged


def _page_by_page(matches: Sequence[_Found]) -> Iterator[list[_Found]]:
    """Cut matches into pages."""
    page: list[_Found] = []
    room, room_bytes = PAGE_EVENTS, _PAGE_BYTES
    for batch, decoded, indexes in matches:
        while indexes:
            some, size = _first(decoded, indexes[:room], room_bytes)
            page.append(_Found(batch, decoded, some))
            room, room_bytes, indexes = room - len(some), room_bytes - size, indexes[len(some) :]
            if not room or room_bytes <= 0:
                yield page
                page, room, room_bytes = [], PAGE_EVENTS, _PAGE_BYTES
    if page:
        yield page


def _first(decoded: DecodedBatch, indexes: list[int], room_bytes: int) -> tuple[list[int], int]:
    """Return the first *indexes* whose kept meta fits *room_bytes* (at least one), and the size of that meta."""
    if decoded.jobs is None or not decoded.jobs.meta:
        return indexes, 0
    size = 0
    for number, index in enumerate(indexes, 1):
        size += len(decoded.jobs.meta.get(index, b""))
        if size >= room_bytes:
            return indexes[:number], size
    return indexes, size


def _to_events(part: Sequence[_Found]) -> list[Event]:
    return [event for found in part for event in to_events(*found)]
