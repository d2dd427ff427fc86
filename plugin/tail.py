"""The end of the log, live: what gets a place in the order is read soon after, and nothing of it twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
from chancy import Chancy
from psycopg import InterfaceError, OperationalError
from psycopg.errors import IdleInTransactionSessionTimeout

from chancy_metrics.events.log import short_transaction
from chancy_metrics.events.schema import tables
from chancy_metrics.projections.pages import Page, read_end, read_pages
from chancy_metrics.projections.selection import Selection

from .connection import own_connection

#: Seconds between looks at the end of the order: one row of one table.
POLL_S = 0.25
#: Seconds until a server that went away is asked again.
RETRY_S = 2.0


async def follow_pages(chancy: Chancy, selection: Selection) -> AsyncIterator[Page]:
    """Yield pages for ever, from the selection's beginning on; in the order, so what came late is not missed.

    Where the server goes away it goes on from the last page as soon as it is back.
    """
    names = tables(chancy.prefix)
    while True:
        try:
            async with own_connection(chancy, "metrics audit") as connection:
                while True:
                    async with short_transaction(connection) as cursor:
                        end = await read_end(cursor, names)
                    if end > selection.start:
                        async for page in read_pages(connection, names, selection, until=end):
                            yield page
                            selection = msgspec.structs.replace(selection, after=page.place)
                    await asyncio.sleep(POLL_S)
        except (OperationalError, InterfaceError, IdleInTransactionSessionTimeout) as error:
            chancy.log.warning(f"metrics: the log can't be followed for now: {type(error).__name__}: {error}")
            await asyncio.sleep(RETRY_S)
