"""Marks: moments with a name, such as a deploy, as events in the same log."""

from __future__ import annotations

from array import array
from datetime import UTC, datetime
from uuid import uuid4

import msgspec
from chancy import Chancy
from psycopg import AsyncCursor, sql
from psycopg.rows import TupleRow

from chancy_metrics.events.codec import ObservationRun, encode
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.facts import check_series, microseconds
from chancy_metrics.events.log import append_in_transaction, short_transaction
from chancy_metrics.events.schema import RESOLUTIONS, Tables, tables
from chancy_metrics.projections.left_out import storable

from .clock import now_us
from .connection import own_connection, who
from .moments import utc
from .reading import reading

#: What the key of a mark begins with; its text comes behind it.
PREFIX = "mark:"
#: A mark may lie so far ahead of this host's clock: nothing happens later than it is recorded.
_AHEAD_US = 1_000_000


class Mark(msgspec.Struct, frozen=True):
    """A moment with a name.

    Attributes:
        count: How many there were at that moment; more than one only where somebody repeated it.
    """

    at: datetime
    text: str
    count: int = 1


async def mark(chancy: Chancy, text: str, *, at: datetime | None = None, by: str | None = None) -> Mark:
    """Append a mark: a counter under `mark:{text}`, which charts, `explain` and exports show like any other event.

    Readers see it with the next fold.

    Args:
        text: What happened, in a few words: each one is a series.
        at: When, aware; now by default.
        by: Who says so, as the worker of the event; past 1,024 bytes it is cut.

    Raises:
        WrongMoment: *at* is not aware, or not from 1970 to 2199.
        MetricsLogError: The text is empty, too long or in letters the database can't hold, or the moment lies ahead.
    """
    at = utc(at)
    at_us = now_us() if at is None else microseconds(at)
    if at is not None and at_us > now_us() + _AHEAD_US:
        raise MetricsLogError(f"{at.isoformat()} lies ahead: mark what has happened")
    if not text.strip():
        raise MetricsLogError(f"a mark needs a text, not {text!r}")
    series = check_series(f"{PREFIX}{text}", "counter", "count")
    batch = encode((), [ObservationRun(series, [at_us], array("d", [1.0]))])
    async with own_connection(chancy) as connection, short_transaction(connection) as cursor:
        if storable(cursor, text) != text:
            raise MetricsLogError(f"this database's encoding can't hold {text!r}: mark it in other letters")
        worker = storable(cursor, by or who())
        await append_in_transaction(cursor, tables(chancy.prefix), uuid4(), batch, worker=worker)
    return Mark(datetime.fromtimestamp(at_us / 1e6, UTC), text)


async def marks(chancy: Chancy, since: datetime | None = None, until: datetime | None = None) -> list[Mark]:
    """Return the marks from *since* to before *until*, in order of time; all by default.

    Of marks with the same text in the same minute (or in the same day, once minutes are not kept) the last one.

    Raises:
        WrongMoment: A moment is not aware, or not from 1970 to 2199.
    """
    since, until = utc(since), utc(until)
    async with reading(chancy) as connection, short_transaction(connection) as cursor:
        return await read_marks(cursor, tables(chancy.prefix), since, until)


async def read_marks(
    cursor: AsyncCursor[TupleRow], names: Tables, since: datetime | None = None, until: datetime | None = None
) -> list[Mark]:
    """The same with a cursor."""
    rows = sql.SQL(" UNION ALL ").join(
        sql.SQL(
            """
            SELECT last_us, count, {width} AS width
            FROM {rollup}
            WHERE version = h.live
                AND worker = 0
                AND series = s.id
            """
        ).format(rollup=names.rollup(resolution), width=sql.Literal(width))
        for resolution, width in RESOLUTIONS.items()
    )
    await cursor.execute(
        sql.SQL(
            """
            SELECT DISTINCT ON (r.last_us, s.key) r.last_us, s.key, r.count
            FROM {series} s
            CROSS JOIN {head} h
            CROSS JOIN LATERAL ({rows}) r
            WHERE s.key > %(prefix)s
                AND s.key < %(past)s
                AND s.kind = 'counter'
                AND r.last_us >= %(since)s
                AND r.last_us < %(until)s
            ORDER BY r.last_us, s.key, r.width
            """
        ).format(series=names.series, head=names.head, rows=rows),
        {
            "prefix": PREFIX,
            "past": f"{PREFIX[:-1]};",  # ";" follows ":"
            "since": -(2**63) if since is None else microseconds(since),
            "until": 2**63 - 1 if until is None else microseconds(until),
        },
    )
    return [
        Mark(datetime.fromtimestamp(last_us / 1e6, UTC), key.removeprefix(PREFIX), count)
        for last_us, key, count in await cursor.fetchall()
    ]
