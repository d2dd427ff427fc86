"""The types of the commands' arguments: durations, moments, days, positions in the ledger, and addresses."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import click

from chancy_metrics.events.errors import WrongMoment
from chancy_metrics.plugin.host.durations import read_duration
from chancy_metrics.plugin.host.moments import BOUNDS, EARLIEST, LATEST, is_aware, utc
from chancy_metrics.plugin.transfer.cursor_file import parse_cursor
from chancy_metrics.projections.search.query import EventCursor

_MAX_DAYS = 24_855


class Duration(click.ParamType):  # type: ignore[type-arg] # generic only in newer releases of click
    """A duration such as 30s, 15m, 24h or 7d, as seconds; at most 24,855 days."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = read_duration(str(value))
        if seconds is None:
            self.fail(f"{str(value)!r} is not a duration: write 30s, 15m, 24h or 7d", param, ctx)
        if seconds > _MAX_DAYS * 86_400:
            self.fail(f"{str(value)!r} is too long: at most {_MAX_DAYS}d", param, ctx)
        return seconds


class Moment(click.ParamType):  # type: ignore[type-arg] # see above
    """A moment as ISO 8601, which is UTC if it names no zone, or as a duration before now: 2h, 7d."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        text = str(value)
        if (seconds := read_duration(text)) is not None:
            return self._ago(text, seconds, param, ctx)
        try:
            moment = datetime.fromisoformat(text)
            return utc(moment if is_aware(moment) else moment.replace(tzinfo=UTC))
        except WrongMoment as error:
            self.fail(str(error), param, ctx)
        except ValueError:
            self.fail(
                f"{text!r} is not a moment: write 2026-03-10T12:00, {BOUNDS}, or 2h or 7d for that long ago", param, ctx
            )

    def _ago(self, text: str, seconds: float, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return utc(datetime.now(UTC) - timedelta(seconds=seconds))
        except (OverflowError, WrongMoment):
            self.fail(f"{text!r} ago is out of bounds: give a moment {BOUNDS}", param, ctx)


class Day(click.ParamType):  # type: ignore[type-arg] # see above
    """A day in UTC: 2026-03-10."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        if isinstance(value, date):
            return value
        text = str(value)
        try:
            day = date.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is not a day: write 2026-03-10, {BOUNDS}", param, ctx)
        if not EARLIEST.date() <= day <= LATEST.date():
            self.fail(f"{text!r} is out of bounds: give a day {BOUNDS}", param, ctx)
        return day


class CursorType(click.ParamType):  # type: ignore[type-arg] # see above
    """A position in the ledger: POSITION, after a whole batch, or POSITION:INDEX, after one event of it."""

    name = "position"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> EventCursor:
        try:
            return value if isinstance(value, EventCursor) else parse_cursor(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Address(click.ParamType):  # type: ignore[type-arg] # see above
    """An address to listen on, such as 127.0.0.1:9470 or [::1]:9470; port 0 is any free one."""

    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        host, _, port = str(value).rpartition(":")
        if not (host and port.isascii() and port.isdigit() and int(port) < 65_536):
            self.fail(f"{str(value)!r} is no address such as 127.0.0.1:9470 or [::1]:9470", param, ctx)
        return host.strip("[]"), int(port)
