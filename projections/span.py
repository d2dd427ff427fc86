"""A range of time, what of each resolution lies in it whole, and the batches that have events in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from random import Random
from typing import NamedTuple

from psycopg import sql

from chancy_metrics.events.batch import BatchId
from chancy_metrics.events.database import Cursor
from chancy_metrics.events.ledger import LedgerRow
from chancy_metrics.events.log import APPENDED_US
from chancy_metrics.events.schema import RESOLUTIONS, Tables

_US = 1_000_000
_DAY_S = RESOLUTIONS["1day"]
_HOUR_S = RESOLUTIONS["1hour"]


class Span(NamedTuple):
    """From *since_us* to before *until_us*, microseconds since 1970; None is without an end on that side."""

    since_us: int | None = None
    until_us: int | None = None

    @property
    def is_everything(self) -> bool:
        return self.since_us is None and self.until_us is None

    def first_buckets(self, horizons: Mapping[str, int]) -> dict[str, int]:
        """Resolution -> start of the first bucket that lies in it whole and is kept, seconds."""
        if self.since_us is None:
            return dict(horizons)
        return {
            resolution: max(horizons[resolution], -(-self.since_us // (width * _US)) * width)
            for resolution, width in RESOLUTIONS.items()
        }

    def end_buckets(self) -> dict[str, int] | None:
        """Resolution -> start of the first bucket that does not lie in it whole; None without an end."""
        if self.until_us is None:
            return None
        return {resolution: self.until_us // (width * _US) * width for resolution, width in RESOLUTIONS.items()}


def draw(span: Span, horizons: Mapping[str, int], now_us: int, chance: Random) -> Iterator[Span]:
    """Yield days of *span* in random order, whole or one hour of each where hours are kept; then the rest, whole.

    An hour costs less and shows the finer resolutions alone. The present day is one of them. Whoever takes all has
    the whole of *span*.
    """
    first_s = max(min(horizons.values()), -(2**62) if span.since_us is None else span.since_us // _US)
    end_s = now_us // _US + 1 if span.until_us is None else -(-span.until_us // _US)
    days = list(range(first_s // _DAY_S * _DAY_S, end_s, _DAY_S))
    chance.shuffle(days)
    rest = []
    for day in days:
        hours = range(max(day, first_s // _HOUR_S * _HOUR_S), min(day + _DAY_S, end_s), _HOUR_S)
        if hours and day >= horizons["1hour"] and chance.random() < 0.5:
            rest.append(day)
            yield _inside(span, chance.choice(hours), _HOUR_S)
        else:
            yield _inside(span, day, _DAY_S)
    for day in rest:
        yield _inside(span, day, _DAY_S)


def _inside(span: Span, start_s: int, width_s: int) -> Span:
    """The part of *span* that lies in so many seconds from *start_s* on."""
    since_us, until_us = start_s * _US, (start_s + width_s) * _US
    return Span(
        since_us if span.since_us is None else max(since_us, span.since_us),
        until_us if span.until_us is None else min(until_us, span.until_us),
    )


async def first_day(cursor: Cursor, tables: Tables, version: int) -> int | None:
    """Return the start of the first day that *version* has a point in, seconds since 1970; None without any."""
    await cursor.execute(
        sql.SQL("SELECT min(bucket) FROM {rollup} WHERE version = %(version)s AND worker = 0").format(
            rollup=tables.rollup("1day")
        ),
        {"version": version},
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def read_days(cursor: Cursor, tables: Tables) -> list[date]:
    """Return the days whose batches are to be read from the log, ascending."""
    await cursor.execute(
        sql.SQL("SELECT day FROM {days} WHERE state IN ('attached', 'closed') ORDER BY day").format(days=tables.days)
    )
    return [row[0] for row in await cursor.fetchall()]


async def find_batches(cursor: Cursor, tables: Tables, span: Span, day: date, *, until: int) -> list[LedgerRow]:
    """Return the places up to position *until* of the batches of *day* that may have events in *span*, in order.

    Reads the day's rows once, without their payloads.
    """
    await cursor.execute(
        sql.SQL(
            """
            SELECT o.position, o.day, o.producer, o.sequence, o.events, o.bytes
            FROM {log} l
            JOIN {ledger} o
                ON o.producer = l.producer
                AND o.sequence = l.sequence
                AND o.day = l.day
            CROSS JOIN LATERAL (SELECT {appended_us}) AS a (appended_us)
            WHERE l.day = %(day)s
                AND (l.events > 0 OR o.events > 0)
                -- What does not say when its events were may have them at any time.
                AND (l.first_us IS NULL OR least(l.first_us, a.appended_us) < %(until_us)s)
                AND (l.last_us IS NULL OR least(l.last_us, a.appended_us) >= %(since_us)s)
                AND o.position <= %(until)s
            ORDER BY o.position
            """
        ).format(log=tables.log, ledger=tables.ledger, appended_us=sql.SQL(APPENDED_US)),
        {
            "day": day,
            "since_us": -(2**63) if span.since_us is None else span.since_us,
            "until_us": 2**63 - 1 if span.until_us is None else span.until_us,
            "until": until,
        },
    )
    return [LedgerRow(row[0], BatchId(*row[1:4]), *row[4:]) for row in await cursor.fetchall()]
