"""Decide which ranges of the ledger a search has to read: the skip index leaves out the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.skip_index import SkipRange, read_skip_ranges
from chancy_metrics.projections.search.gaps import Pruned
from chancy_metrics.projections.search.query import EventQuery

#: Summaries read in one statement.
_RANGES = 2_000


async def read_ranges(
    connection: Connection,
    tables: Tables,
    query: EventQuery,
    pruned: Sequence[Pruned],
    after: int,
    end: int,
) -> AsyncIterator[tuple[int, list[tuple[int, int]], list[SkipRange]]]:
    """Yield the ranges of positions past *after* up to *end* that may hold matching events, in chunks.

    Args:
        pruned: The days of these positions that have left the log.

    Yields:
        A position; the ranges up to there to read, both ends inclusive; and the damaged summaries among theirs.
    """
    floor = last_pruned_position(pruned, end)
    while after < end:
        async with short_transaction(connection) as cursor:
            summaries = await read_skip_ranges(cursor, tables, query.wanted(), after=after, until=end, limit=_RANGES)
        until = min(summaries[-1].last, end) if len(summaries) == _RANGES else end
        broken = [summary for summary in summaries if summary.is_broken]
        yield until, ranges_to_read(summaries, after + 1, until, floor), broken
        after = until


def last_pruned_position(pruned: Sequence[Pruned], end: int) -> int:
    """Return the last position that has left the log, 0 if none; a day's position past *end* is damage and ignored."""
    return max((one.last_position for one in pruned if one.last_position <= end), default=0)


def ranges_to_read(summaries: Sequence[SkipRange], first: int, end: int, floor: int) -> list[tuple[int, int]]:
    """Return the ranges of positions *first* to *end* that must be read, ascending, both ends inclusive.

    Positions without a summary must be read, except up to *floor*, the last position that has left the log.
    """
    ranges: list[tuple[int, int]] = []
    for summary in summaries:
        ranges.append((max(first, floor + 1), summary.first - 1))
        if not summary.skips:
            ranges.append((max(first, summary.first), min(summary.last, end)))
        first = max(first, summary.last + 1)
    ranges.append((first, end))
    joined: list[tuple[int, int]] = []
    for start, last in ranges:
        if start > last:
            continue
        if joined and joined[-1][1] == start - 1:
            joined[-1] = joined[-1][0], last
        else:
            joined.append((start, last))
    return joined
