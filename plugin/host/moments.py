"""Moments that come from outside, as UTC: a zone's own clock can't be added to where it is put forward or back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import overload

from chancy_metrics.events.errors import WrongMoment
from chancy_metrics.events.facts import EPOCH, microseconds
from chancy_metrics.projections.span import Span

#: Moments that buckets of every resolution can be computed of, to the last microsecond.
EARLIEST, LATEST = EPOCH, datetime(2200, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)
BOUNDS = "from 1970 to 2199"


@overload
def utc(moment: datetime) -> datetime: ...


@overload
def utc(moment: datetime | None) -> datetime | None: ...


def utc(moment: datetime | None) -> datetime | None:
    """Return the same moment in UTC, as a plain datetime; None for none.

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


def is_aware(moment: datetime) -> bool:
    return moment.utcoffset() is not None


def span_of(since: datetime | None, until: datetime | None) -> Span:
    """Return the span between two aware moments."""
    return Span(*(None if moment is None else microseconds(moment) for moment in (since, until)))
