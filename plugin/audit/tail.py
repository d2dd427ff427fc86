"""Follow the log: read new events in ledger order soon after they get a position, each once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec
from chancy import Chancy
from psycopg import InterfaceError, OperationalError
from psycopg.errors import IdleInTransactionSessionTimeout

from chancy_metrics.events.database import short_transaction
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.host.connection import own_connection
from chancy_metrics.projections.search.query import EventQuery
from chancy_metrics.projections.search.scan import Page, check_cursor, read_end, read_pages

#: Seconds between polls of the ledger's head: one row of one table.
POLL_S = 0.25
#: Seconds before reconnecting.
RETRY_S = 2.0


async def follow_pages(chancy: Chancy, query: EventQuery, warn: Callable[[str], None]) -> AsyncIterator[Page]:
    """Yield pages for ever, from the start of the query on, in ledger order, so that late batches are not missed.

    After a lost connection it reconnects and resumes after the last page.

    Args:
        warn: Called when the connection is lost.

    Raises:
        MetricsLogError: The query's cursor lies past the end of the ledger.
    """
    tables = tables_for(chancy.prefix)
    yield Page(query.start_cursor, [], [])  # so that the caller has a cursor before the first event
    while True:
        try:
            async with own_connection(chancy, "metrics audit") as connection:
                while True:
                    async with short_transaction(connection) as cursor:
                        end = await read_end(cursor, tables)
                    check_cursor(query, end)
                    if end > query.start:
                        async for page in read_pages(connection, tables, query, until=end):
                            yield page
                            query = msgspec.structs.replace(query, after=page.cursor)
                    await asyncio.sleep(POLL_S)
        except (OperationalError, InterfaceError, IdleInTransactionSessionTimeout) as error:
            warn(f"lost the connection while following the log, reconnecting: {' '.join(str(error).split())}")
            await asyncio.sleep(RETRY_S)
