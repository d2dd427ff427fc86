"""Record, take back and list marks: moments with a name, such as a deploy, kept as events in the log."""

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
from chancy_metrics.projections.rules.key_parts import MARK
from chancy_metrics.projections.search.query import EventCursor, EventQuery

#: How far a mark may lie ahead of this host's clock.
_AHEAD_US = 1_000_000
#: Namespace of the producer ids under which marks are taken back.
_TAKING_BACK = UUID("6f5d0f0e-52f5-4b0c-8a51-5c8d1d3f2a77")


class Mark(msgspec.Struct, frozen=True):
    """A moment with a name.

    Attributes:
        at: When, UTC, to the microsecond.
        count: Marks with this text at this moment; more than one only if it was repeated.
    """

    at: datetime
    text: str
    count: int = 1


class _Recorded(NamedTuple):
    """Marks of one text at one moment: how many are *left*, and how many were taken back."""

    left: float = 0
    taken_back: int = 0

    def after(self, value: float) -> _Recorded:
        return _Recorded(self.left + value, self.taken_back + (value < 0))


class TakenBack(msgspec.Struct, frozen=True):
    """A mark that was taken back.

    Attributes:
        at: The mark's moment, UTC.
        again: Whether it had been taken back before; nothing was appended then.
    """

    at: datetime
    text: str
    again: bool


async def mark(chancy: Chancy, text: str, *, at: datetime | None = None, by: str | None = None) -> Mark:
    """Append a mark: a counter under `mark:{text}`, which charts, `explain` and exports show like any other event.

    Readers see it after the next fold.

    Args:
        text: What happened, in a few words; each text is a series.
        at: When, aware; now by default.
        by: Who made it, recorded as the event's worker and cut to 1,024 bytes; user and host by default.

    Raises:
        WrongMoment: *at* is not aware, or not from 1970 to 2199.
        MetricsLogError: The text is empty, too long or not in the database's encoding, or *at* lies ahead.
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
    cursor: EventCursor | None = None,
    by: str | None = None,
) -> TakenBack:
    """Take a mark back by appending its opposite; after the next fold nothing shows it any more.

    The log keeps both events, each with who made it. Repeated and concurrent calls are safe: they append the same
    batch, which counts once.

    Args:
        text: Text of the mark; not needed with *cursor*.
        at: Its moment, aware; without a fraction, any moment within that second. The last mark by default.
        cursor: Position and index of its event, instead of *at*.
        by: Who takes it back, recorded as the event's worker.

    Raises:
        WrongMoment: *at* is not aware, or not from 1970 to 2199.
        MetricsLogError: There is no such mark.
    """
    at = utc(at)
    if cursor is not None:
        text, at = await _mark_at(chancy, text, cursor)
    recorded = await _recorded(chancy, text)
    asked = sorted(at_us for at_us in recorded if at is None or _is_at(at_us, at))
    made = [at_us for at_us in asked if recorded[at_us].left > 0]
    if asked and not made:
        return TakenBack(from_us(asked[-1]), text, again=True)
    if not made:  # its day may have left the log; the rollups still have it
        made = [microseconds(one.at) for one in await marks(chancy) if one.text == text]
        made = [at_us for at_us in made if at is None or _is_at(at_us, at)]
    if not made:
        when = "" if at is None else f" at {humanize.moment(at)}"
        raise MetricsLogError(
            f"there is no mark {text!r}{when} in the ledger: `chancy-metrics audit events --prefix mark` lists them; "
            "a new one gets its position with the next fold"
        )
    at_us = made[-1]
    earlier = recorded[at_us].taken_back if at_us in recorded else 0
    state = await _append(chancy, text, at_us, -1.0, by, uuid5(_TAKING_BACK, f"{earlier} {at_us} {text}"))
    if state == "taken":  # another producer has this id
        state = await _append(chancy, text, at_us, -1.0, by, uuid4())
    return TakenBack(from_us(at_us), text, again=state == "known")


async def _mark_at(chancy: Chancy, text: str, cursor: EventCursor) -> tuple[str, datetime]:
    """Return text and moment of the mark at *cursor*."""
    asked = EventQuery(first_position=cursor.position, last_position=cursor.position, prefix=MARK[:-1])
    found = [event async for event in events(chancy, asked) if cursor.index in (None, event.index)]
    marked = [event for event in found if text in ("", (event.key or "").removeprefix(MARK))]
    if len(marked) != 1:
        raise MetricsLogError(
            f"there {'is no mark' if not marked else 'are several marks'} at {cursor}: "
            f"`chancy-metrics audit events --prefix mark` lists them with their positions"
        )
    return (marked[0].key or "").removeprefix(MARK), marked[0].at


async def _recorded(chancy: Chancy, text: str) -> dict[int, _Recorded]:
    """Return the marks with *text* by moment, microseconds since 1970."""
    recorded: dict[int, _Recorded] = defaultdict(_Recorded)
    async for event in events(chancy, EventQuery(key=f"{MARK}{text}")):
        at_us = microseconds(event.at)
        recorded[at_us] = recorded[at_us].after(event.value or 0)
    return recorded


def _is_at(at_us: int, at: datetime) -> bool:
    wanted = microseconds(at)
    return at_us == wanted if wanted % 1_000_000 else wanted <= at_us < wanted + 1_000_000


async def _append(
    chancy: Chancy, text: str, at_us: int, value: float, by: str | None, producer: UUID
) -> Literal["appended", "spilled", "known", "taken"]:
    """Append one event as the only batch of *producer*; return its `Appended.state`."""
    series = check_series(f"{MARK}{text}", "counter", "count")
    batch = encode((), [ObservationRun(series, [at_us], array("d", [value]))])
    async with own_connection(chancy) as connection, short_transaction(connection) as cursor:
        if storable(cursor, text) != text:
            raise MetricsLogError(f"this database's encoding can't hold {text!r}: mark it in other letters")
        worker = storable(cursor, by or who())
        appended = await append_in_transaction(cursor, tables_for(chancy.prefix), producer, batch, worker=worker)
    return appended.state


async def marks(chancy: Chancy, since: datetime | None = None, until: datetime | None = None) -> list[Mark]:
    """Return the marks from *since* to before *until*, by time; all by default.

    Of marks with one text in one minute (or in one day, once minutes are not kept) only the last is returned. Marks
    that were taken back are left out.

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
    """Return the same by time and text: the first *limit* past *after*, which need not exist any more."""
    rows = sql.SQL(" UNION ALL ").join(
        sql.SQL(
            """
            SELECT last_us, sum, {width} AS width
            FROM {rollup}
            WHERE version = h.live
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
            "prefix": MARK,
            "past": f"{MARK[:-1]};",  # ";" follows ":"
            "since": -(2**63) if since is None else microseconds(since),
            "until": 2**63 - 1 if until is None else microseconds(until),
            "after_us": -(2**63) if after is None else microseconds(after.at),
            "after_key": "" if after is None else storable(cursor, MARK + after.text),
            "limit": limit,
        },
    )
    return [
        Mark(from_us(last_us), key.removeprefix(MARK), max(1, int(sum_)))
        for last_us, key, sum_ in await cursor.fetchall()
    ]
