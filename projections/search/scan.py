"""Read the log in ledger order, page by page: the events that match a query, and the gaps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from chancy_metrics.events.batch import LogBatch
from chancy_metrics.events.codec import decode_batch
from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import DamagedBatch, MetricsLogError, OutOfMemory, UnknownCodec
from chancy_metrics.events.ledger import LedgerRow, chunks, naming_batches, read_ledger
from chancy_metrics.events.log import read_batches, read_log_rows
from chancy_metrics.events.off_loop import in_thread, portions
from chancy_metrics.events.partitions import gone_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.search.columns import Matches
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
#: Limits of a page: events, where the caller names no other number, and bytes of kept meta (but at least one event).
PAGE_EVENTS = 1_000
_PAGE_BYTES = 4 << 20


class Page(NamedTuple):
    """A part of the ledger that was searched; events and gaps may both be empty.

    Attributes:
        cursor: Where to resume: everything up to there was searched.
        found: The matching events, batch by batch; none is empty.
    """

    cursor: EventCursor
    found: list[Matches]
    gaps: list[Gap]

    @property
    def events(self) -> int:
        """How many events it has."""
        return sum(len(one.indexes) for one in self.found)

    def to_events(self) -> list[Event]:
        """Return the events one by one, 5 us each: as columns they take a hundredth."""
        return to_events(self.found)

    def cut(self, limit: int) -> Page:
        """Return the page cut after *limit* events (at least 1), with the gaps and the cursor up to there."""
        if self.events <= limit:
            return self
        found: list[Matches] = []
        for one in self.found:
            found.append(one if len(one.indexes) <= limit else one.only(one.indexes[:limit]))
            limit -= len(found[-1].indexes)
            if not limit:
                break
        last = _last(found)
        return Page(EventCursor(*last), found, [gap for gap in self.gaps if position_of(gap) <= last])


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
    connection: Connection,
    tables: Tables,
    query: EventQuery,
    *,
    until: int | None = None,
    page_events: int | None = None,
) -> AsyncIterator[Page]:
    """Yield pages up to the present end of the ledger (or position *until*), in constant memory.

    No transaction is open while the caller has a page.

    Args:
        connection: An autocommit one outside a transaction.
        page_events: Most events of a page; 1,000 by default. None has more than are decoded at once, `CHUNK_EVENTS`,
            or more than one larger batch.

    Raises:
        MetricsLogError: The query's cursor lies past the end of the ledger.
    """
    reader = _Reader(connection, tables, query, page_events or PAGE_EVENTS)
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

    def __init__(self, connection: Connection, tables: Tables, query: EventQuery, page_events: int) -> None:
        self._connection = connection
        self._tables = tables
        self._query = query
        self._page_events = page_events
        self.cursor = query.start_cursor
        self.reported: set[date] = set()

    def page(self, cursor: EventCursor, found: list[Matches] | None = None) -> Page:
        """Move to *cursor* and return the page that ends there."""
        self.cursor = cursor
        return Page(cursor, found or [], [])

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
                for part in _page_by_page(matches, self._page_events):
                    found_here = await in_thread(_with_meta, part) if any(map(_has_meta, part)) else part
                    page = self.page(EventCursor(*_last(part)), found_here)
                    page.gaps.extend(
                        unreadable(by_position[one.batch.position], damage, index)
                        for one in found_here
                        for index, damage in one.damage.items()
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
    ) -> tuple[list[Matches], dict[int, str]]:
        try:
            with naming_batches(rows):
                found, damaged = list[Matches](), dict[int, str]()
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


def _search_batches(query: EventQuery, batches: Sequence[LogBatch]) -> tuple[list[Matches], dict[int, str]]:
    """Return the matches batch by batch, and the unreadable batches: position -> cause."""
    found, damaged = [], {}
    for batch in batches:
        try:
            decoded = decode_batch(batch)
        except (DamagedBatch, UnknownCodec) as error:
            damaged[batch.position] = str(error)
            continue
        indexes = matching(query, batch, decoded)
        if len(indexes):
            found.append(Matches(batch, decoded, indexes))
    return found, damaged


def _page_by_page(matches: Sequence[Matches], page_events: int) -> Iterator[list[Matches]]:
    """Cut matches into pages."""
    page: list[Matches] = []
    room, room_bytes = page_events, _PAGE_BYTES
    for one in matches:
        rest = one.indexes
        while len(rest):
            count, size = _first(one, rest[:room], room_bytes)
            page.append(one._replace(indexes=rest[:count]))
            room, room_bytes, rest = room - count, room_bytes - size, rest[count:]
            if not room or room_bytes <= 0:
                yield page
                page, room, room_bytes = [], page_events, _PAGE_BYTES
    if page:
        yield page


def _first(one: Matches, indexes: NDArray[np.int64], room_bytes: int) -> tuple[int, int]:
    """Return how many of the first *indexes* have kept meta that fits *room_bytes* (at least one), and its size."""
    jobs = one.decoded.jobs
    if jobs is None or not jobs.meta:
        return len(indexes), 0
    sizes = np.cumsum([len(jobs.meta.get(index, b"")) for index in indexes.tolist()])
    count = min(len(indexes), int(np.searchsorted(sizes, room_bytes)) + 1)
    return count, int(sizes[count - 1])


def _has_meta(one: Matches) -> bool:
    return one.decoded.jobs is not None and bool(one.decoded.jobs.meta)


def _with_meta(part: Sequence[Matches]) -> list[Matches]:
    return [one.with_meta() for one in part]


def _last(found: Sequence[Matches]) -> tuple[int, int]:
    """Return position and index of the last event."""
    return found[-1].batch.position, int(found[-1].indexes[-1])
