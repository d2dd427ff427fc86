"""Marks: moments with a name, such as a deploy, as events in the same log."""

from __future__ import annotations

from array import array
from collections import defaultdict
from datetime import datetime
from typing import Literal, NamedTuple
from uuid import UUID, uuid4, uuid5

import msgspec
from chancy import Chancy
from psycopg import sql

from chancy_metrics.events import humanize
from chancy_metrics.events.batch import ObservationRun
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Cursor, short_transaction
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.facts import check_series, microseconds
from chancy_metrics.events.log import append_in_transaction
from chancy_metrics.events.schema import RESOLUTIONS, Tables, tables_for
from chancy_metrics.events.storable_text import storable
from chancy_metrics.plugin.audit.events import events
from chancy_metrics.plugin.host.app import who
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.clock import now_us
from chancy_metrics.plugin.host.connection import own_connection
from chancy_metrics.plugin.host.moments import from_us, utc
from chancy_metrics.projections.search.query import EventCursor, EventQuery

#: What the key of a mark begins with; its text comes behind it.
PREFIX = "mark:"
#: A mark may lie so far ahead of this host's clock: nothing happens later than it is recorded.
_AHEAD_US = 1_000_000
#: Of the producers that take marks back.
_TAKING_BACK = UUID("6f5d0f0e-52f5-4b0c-8a51-5c8d1d3f2a77")


class Mark(msgspec.Struct, frozen=True):
    """A moment with a name.

    Attributes:
        at: When, UTC, to the microsecond.
        count: How many there were at that moment; more than one only where somebody repeated it.
    """

    at: datetime
    text: str
    count: int = 1


class _Recorded(NamedTuple):
    """What the order has of one text at one moment: how many marks, less those taken back, and how often that was."""

    left: float = 0
    taken_back: int = 0

    def after(self, value: float) -> _Recorded:
        return _Recorded(self.left + value, self.taken_back + (value < 0))


class TakenBack(msgspec.Struct, frozen=True):
    """A mark that is shown no more.

    Attributes:
        at: The mark's moment, UTC.
        again: Whether it had been taken back before, so that nothing was appended.
    """

    at: datetime
    text: str
    again: bool


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
    await _append(chancy, text, at_us, 1.0, by, uuid4())
    return Mark(from_us(at_us), text)


async def take_back(
    chancy: Chancy,
    text: str = "",
    *,
    at: datetime | None = None,
    place: EventCursor | None = None,
    by: str | None = None,
) -> TakenBack:
    """Take a mark back by appending its opposite; charts, `marks` and `explain` show it no more after the next fold.

    The log keeps both events, each with who made it. A mark that was taken back is not taken back again, nor by two at
    once: whoever takes it back for the same time appends the same batch, which counts once.

    Args:
        text: Of the mark; not needed with *place*.
        at: When it was, aware; any within that second where it has no fraction. The last one by default.
        place: Of its event in the order, instead of *at*.
        by: Who takes it back, as the worker of the event.

    Raises:
        WrongMoment: *at* is not aware, or not from 1970 to 2199.
        MetricsLogError: There is no such mark.
    """
    at = utc(at)
    if place is not None:
        text, at = await _mark_at(chancy, text, place)
    recorded = await _recorded(chancy, text)
    asked = sorted(at_us for at_us in recorded if at is None or _is_at(at_us, at))
    made = [at_us for at_us in asked if recorded[at_us].left > 0]
    if asked and not made:
        return TakenBack(from_us(asked[-1]), text, again=True)
    if not made:  # its day may have left the log, and then the numbers alone have it
        made = [microseconds(one.at) for one in await marks(chancy) if one.text == text]
        made = [at_us for at_us in made if at is None or _is_at(at_us, at)]
    if not made:
        when = "" if at is None else f" at {humanize.moment(at)}"
        raise MetricsLogError(
            f"there is no mark {text!r}{when} in the order: `chancy-metrics audit events --prefix mark` lists them, "
            f"and one that was just made gets its place with the next fold"
        )
    at_us = made[-1]
    turn = recorded[at_us].taken_back if at_us in recorded else 0
    state = await _append(chancy, text, at_us, -1.0, by, uuid5(_TAKING_BACK, f"{turn} {at_us} {text}"))
    if state == "taken":  # somebody else has this id for something else
        state = await _append(chancy, text, at_us, -1.0, by, uuid4())
    return TakenBack(from_us(at_us), text, again=state == "known")


async def _mark_at(chancy: Chancy, text: str, place: EventCursor) -> tuple[str, datetime]:
    """Return text and moment of the mark at *place*."""
    asked = EventQuery(first_position=place.position, last_position=place.position, prefix=PREFIX[:-1])
    found = [event async for event in events(chancy, asked) if place.index in (None, event.index)]
    marked = [event for event in found if text in ("", (event.key or "").removeprefix(PREFIX))]
    if len(marked) != 1:
        raise MetricsLogError(
            f"there {'is no mark' if not marked else 'are several marks'} at {place}: "
            f"`chancy-metrics audit events --prefix mark` lists them with their places"
        )
    return (marked[0].key or "").removeprefix(PREFIX), marked[0].at


async def _recorded(chancy: Chancy, text: str) -> dict[int, _Recorded]:
    """Return what the order has of *text* at each moment, microseconds since 1970."""
    recorded: dict[int, _Recorded] = defaultdict(_Recorded)
    async for event in events(chancy, EventQuery(key=f"{PREFIX}{text}")):
        at_us = microseconds(event.at)
        recorded[at_us] = recorded[at_us].after(event.value or 0)
    return recorded


def _is_at(at_us: int, at: datetime) -> bool:
    wanted = microseconds(at)
    return at_us == wanted if wanted % 1_000_000 else wanted <= at_us < wanted + 1_000_000


async def _append(
    chancy: Chancy, text: str, at_us: int, value: float, by: str | None, producer: UUID
) -> Literal["appended", "spilled", "known", "taken"]:
    """Append one event as the only batch of *producer*; return what became of it, as `Appended.state`."""
    series = check_series(f"{PREFIX}{text}", "counter", "count")
    batch = encode((), [ObservationRun(series, [at_us], array("d", [value]))])
    async with own_connection(chancy) as connection, short_transaction(connection) as cursor:
        if storable(cursor, text) != text:
            raise MetricsLogError(f"this database's encoding can't hold {text!r}: mark it in other letters")
        worker = storable(cursor, by or who())
        appended = await append_in_transaction(cursor, tables_for(chancy.prefix), producer, batch, worker=worker)
    return appended.state


async def marks(chancy: Chancy, since: datetime | None = None, until: datetime | None = None) -> list[Mark]:
    """Return the marks from *since* to before *until*, in order of time; all by default.

    Of marks with the same text in the same minute (or in the same day, once minutes are not kept) the last one. Those
    that were taken back are not among them.

    Args:
        since: Inclusive, aware; no bound by default.
        until: Exclusive, aware; no bound by default.

    Raises:
        WrongMoment: A moment is not aware, or not from 1970 to 2199.
        MetricsLogError: There is no metrics log, or a table is locked.
    """
    since, until = utc(since), utc(until)
    async with bounded_connection(chancy) as connection, short_transaction(connection) as cursor:
        return await read_marks(cursor, tables_for(chancy.prefix), since, until)


async def read_marks(
    cursor: Cursor,
    tables: Tables,
    since: datetime | None = None,
    until: datetime | None = None,
    *,
    after: Mark | None = None,
    limit: int | None = None,
) -> list[Mark]:
    """The same with a cursor, by time and text; the first *limit* behind *after*, which need not be there any more."""
    rows = sql.SQL(" UNION ALL ").join(
        sql.SQL(
            """
            SELECT last_us, sum, {width} AS width
            FROM {rollup}
            WHERE version = h.live
                AND worker = 0
                AND series = s.id
            """
        ).format(rollup=tables.rollup(resolution), width=sql.Literal(width))
        for resolution, width in RESOLUTIONS.items()
    )
    await cursor.execute(
        sql.SQL(
            """
            SELECT m.last_us, m.key, m.sum
            FROM (
                SELECT DISTINCT ON (r.last_us, s.key) r.last_us, s.key, r.sum
                FROM {series} s
                CROSS JOIN {head} h
                CROSS JOIN LATERAL ({rows}) r
                WHERE s.key > %(prefix)s
                    AND s.key < %(past)s
                    AND s.kind = 'counter'
                    AND r.last_us >= %(since)s
                    AND r.last_us < %(until)s
                    AND (r.last_us, s.key) > (%(after_us)s, %(after_key)s)
                ORDER BY r.last_us, s.key, r.width
            ) AS m
            WHERE m.sum > 0
            ORDER BY m.last_us, m.key
            LIMIT %(limit)s
            """
        ).format(series=tables.series, head=tables.head, rows=rows),
        {
            "prefix": PREFIX,
            "past": f"{PREFIX[:-1]};",  # ";" follows ":"
            "since": -(2**63) if since is None else microseconds(since),
            "until": 2**63 - 1 if until is None else microseconds(until),
            "after_us": -(2**63) if after is None else microseconds(after.at),
            "after_key": "" if after is None else storable(cursor, PREFIX + after.text),
            "limit": limit,
        },
    )
    return [
        Mark(from_us(last_us), key.removeprefix(PREFIX), max(1, int(sum_)))
        for last_us, key, sum_ in await cursor.fetchall()
    ]
