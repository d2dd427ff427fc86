"""The grace period of a batch with an unknown codec, in which folds wait for newer code before they leave it out.

In a rolling deploy new workers write batches that old ones can't read, while one of the old ones may still fold. What
it left out would be missing until a rebuild.
"""

from __future__ import annotations

from datetime import timedelta

from psycopg import sql

from chancy_metrics.events.codec import CODEC
from chancy_metrics.events.database import Cursor
from chancy_metrics.events.facts import EPOCH
from chancy_metrics.events.humanize import moment
from chancy_metrics.events.log import APPENDED_US
from chancy_metrics.events.schema import Tables

#: Microseconds since the append, not since a fold met it: so many such batches delay it only once.
CODEC_PATIENCE_US = 600 * 1_000_000


async def read_waited_for(cursor: Cursor, tables: Tables) -> str:
    """Return a sentence if this code does not know the codec of the live version's next batch; "" if it does."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT o.position, l.worker, l.codec, {appended_us}
            FROM {head} h
            JOIN {versions} v
                ON v.version = h.live
            JOIN {ledger} o
                ON o.position = least(v.position, 9223372036854775806) + 1
            JOIN {log} l
                ON l.day = o.day
                AND l.producer = o.producer
                AND l.sequence = o.sequence
            WHERE l.codec <> %(codec)s
            """
        ).format(
            head=tables.head,
            versions=tables.versions,
            ledger=tables.ledger,
            log=tables.log,
            appended_us=sql.SQL(APPENDED_US),
        ),
        {"codec": CODEC},
    )
    row = await cursor.fetchone()
    if row is None:
        return ""
    position, worker, codec, appended_us = row
    until = moment(EPOCH + timedelta(microseconds=appended_us + CODEC_PATIENCE_US))
    return (
        f"position {position}, by worker {worker!r}, has codec {codec}, which this code does not know: a worker of "
        f"newer code folds it, or it is left out after {until}, and a rebuild by newer code takes it up; what comes "
        "after it waits as long"
    )
