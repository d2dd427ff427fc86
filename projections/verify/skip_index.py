"""Check the skip index: each summary against the batches of its range."""

from __future__ import annotations

from anyio import to_thread
from psycopg import sql

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.ledger import read_ledger
from chancy_metrics.events.log import read_batches
from chancy_metrics.events.partitions import gone_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.skip_index import FORMAT, Summary
from chancy_metrics.projections.findings import Findings
from chancy_metrics.projections.search.indexing import RANGE_BATCHES, describe
from chancy_metrics.projections.search.scan import read_end

#: Summaries read in one statement.
_PAGE = 50


async def check_summaries(
    connection: Connection, tables: Tables, found: Findings, *, after: int = -(2**63), until: int = 2**63 - 1
) -> None:
    """Compute each summary again and compare; skip those whose batches have left the log or can't be read.

    A missing summary is no fault: searches then read the batches.

    Args:
        after: Only summaries that begin past this position, and up to *until*.
    """
    while True:
        async with short_transaction(connection) as cursor:
            page = await _read(cursor, tables, after, until)
        for summary in page:
            await _check(connection, tables, summary, found)
        if len(page) < _PAGE:
            return
        after = page[-1].first_position


async def _check(connection: Connection, tables: Tables, summary: Summary, found: Findings) -> None:
    async with short_transaction(connection, index_only=True) as cursor:
        first, last = summary.first_position, summary.last_position
        rows = await read_ledger(cursor, tables, after=max(first, 1) - 1, limit=RANGE_BATCHES + 1, until=last)
        gone = await gone_days(cursor, tables)
        if not rows and first > await read_end(cursor, tables):
            found.add("summaries", f"positions {first} to {last}", "the ledger ends before them", scale="position")
        if not rows or any(row.batch_id.day in gone for row in rows):
            return
        batches = await read_batches(cursor, tables, [(row.position, row.batch_id) for row in rows])
    again = await to_thread.run_sync(describe, rows, batches, len(batches) == len(rows))
    if again.filter is not None and again != summary:
        found.add(
            "summaries",
            f"positions {first} to {last}",
            "the summary does not match these batches, so a search may skip them",
            scale="position",
        )


async def _read(cursor: Cursor, tables: Tables, after: int, until: int) -> list[Summary]:
    """Return the next summaries that searches use."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT first_position, last_position, day, first_us, last_us, events, filter
            FROM {summaries}
            WHERE first_position > %(after)s
                AND first_position <= %(until)s
                AND format = %(format)s
                AND filter IS NOT NULL
            ORDER BY first_position
            LIMIT %(page)s
            """
        ).format(summaries=tables.summaries),
        {"after": after, "until": until, "format": FORMAT, "page": _PAGE},
    )
    return [Summary(*row) for row in await cursor.fetchall()]
