"""Convert datetimes to UTC, to microseconds and back; check those that users and requests give."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import overload

from chancy_metrics.events.errors import WrongMoment
from chancy_metrics.events.facts import EPOCH, microseconds
from chancy_metrics.projections.span import Span

#: Moments whose buckets can be computed at every resolution, to the last microsecond.
EARLIEST, LATEST = EPOCH, datetime(2200, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)
BOUNDS = "from 1970 to 2199"


@overload
def utc(moment: datetime) -> datetime: ...


@overload
def utc(moment: datetime | None) -> datetime | None: ...


def utc(moment: datetime | None) -> datetime | None:
    """Check a moment that a caller gives, and return it in UTC as a plain datetime; None for none.

    In UTC, because adding to a zone's own clock goes wrong where that is put forward or back.

    Raises:
        WrongMoment: It has no zone, or lies outside `EARLIEST` and `LATEST`.
    """
    if moment is None:
        return None
    if not is_aware(moment):
        raise WrongMoment(f"{moment.isoformat()} has no zone: give an aware datetime, such as {moment}+00:00")
    at_us = microseconds(moment)
    if not microseconds(EARLIEST) <= at_us <= microseconds(LATEST):
        raise WrongMoment(f"{moment.isoformat()} is out of bounds: give a moment {BOUNDS}")
    return EPOCH + timedelta(microseconds=at_us)


@overload
def in_utc(moment: datetime) -> datetime: ...


@overload
def in_utc(moment: None) -> None: ...


def in_utc(moment: datetime | None) -> datetime | None:
    """Return a moment that the database gave in UTC, unchecked: the session's zone is the server's choice."""
    return None if moment is None else moment.astimezone(UTC)


def from_us(at_us: float) -> datetime:
    """Return the aware datetime, in UTC, of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=at_us)


@lru_cache(maxsize=4_096)  # answers name the same buckets over and over
def from_s(at_s: float) -> datetime:
    """Return the aware datetime, in UTC, of seconds since 1970: a plain one, also where a test has frozen the clock."""
    return EPOCH + timedelta(seconds=at_s)


def is_aware(moment: datetime) -> bool:
    return moment.utcoffset() is not None


def span_of(since: datetime | None, until: datetime | None) -> Span:
    """Return the span between two aware moments."""
    return Span(*(None if moment is None else microseconds(moment) for moment in (since, until)))


def plain_moment(moment: object) -> str:
    """Return a moment or day of freezegun's classes, which msgspec does not know, as msgspec writes its own."""
    if not isinstance(moment, date):
        raise TypeError(f"no JSON for {type(moment).__name__}")
    return moment.isoformat().replace("+00:00", "Z")
