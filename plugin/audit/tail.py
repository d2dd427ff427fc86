"""The end of the log, live: what gets a place in the order is read soon after, and nothing of it twice."""

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

#: Seconds between looks at the end of the order: one row of one table.
POLL_S = 0.25
#: Seconds until a server that went away is asked again.
RETRY_S = 2.0


async def follow_pages(chancy: Chancy, query: EventQuery, warn: Callable[[str], None]) -> AsyncIterator[Page]:
    """Yield pages for ever, from the selection's beginning on; in the order, so what came late is not missed.

    Where the server goes away it goes on from the last page as soon as it is back.

    Args:
        warn: Told when the server goes away.

    Raises:
        MetricsLogError: The place to go on from is past the end of the order.
    """
    tables = tables_for(chancy.prefix)
    yield Page(query.start_cursor, [], [])  # so that who keeps places has one before there is anything
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
            warn(f"the log can't be followed for now, and is tried again: {' '.join(str(error).split())}")
            await asyncio.sleep(RETRY_S)
