"""What the commands of `chancy-metrics` are given: the app they work on, and moments and lengths of time."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import click
from chancy import Chancy
from chancy.utils import import_string

from chancy_metrics.events.errors import WrongMoment
from chancy_metrics.plugin.host.moments import BOUNDS, EARLIEST, LATEST, is_aware, utc
from chancy_metrics.plugin.host.redaction import without_password
from chancy_metrics.plugin.metrics import Metrics

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"(?P<number>\d+(\.\d*)?)(?P<unit>[smhd])", re.ASCII)
_MAX_DAYS = 24_855


class Duration(click.ParamType):  # type: ignore[type-arg] # generic only in newer releases of click
    """A length of time such as 30s, 15m, 24h or 7d, as seconds; 24,855 days at the most."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = _DURATION.fullmatch(str(value))
        if match is None:
            self.fail(f"{str(value)!r} is no length of time: write 30s, 15m, 24h or 7d", param, ctx)
        seconds = float(match["number"]) * _SECONDS[match["unit"]]
        if seconds > _MAX_DAYS * 86_400:
            self.fail(f"{str(value)!r} is too long: at most {_MAX_DAYS}d", param, ctx)
        return seconds


class Moment(click.ParamType):  # type: ignore[type-arg] # see above
    """A moment in ISO 8601, in UTC where it names no zone, or how long ago it was: 2h, 7d; as UTC."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        text = str(value)
        if match := _DURATION.fullmatch(text):
            return self._ago(text, float(match["number"]) * _SECONDS[match["unit"]], param, ctx)
        try:
            moment = datetime.fromisoformat(text)
            return utc(moment if is_aware(moment) else moment.replace(tzinfo=UTC))
        except WrongMoment as error:
            self.fail(str(error), param, ctx)
        except ValueError:
            self.fail(
                f"{text!r} is no moment: write 2026-03-10T12:00, {BOUNDS}, or 2h or 7d for so long ago", param, ctx
            )

    def _ago(self, text: str, seconds: float, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return utc(datetime.now(UTC) - timedelta(seconds=seconds))
        except (OverflowError, WrongMoment):
            self.fail(f"{text!r} ago is out of bounds: give a moment {BOUNDS}", param, ctx)


class Day(click.ParamType):  # type: ignore[type-arg] # see above
    """A day of UTC: 2026-03-10."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        if isinstance(value, date):
            return value
        text = str(value)
        try:
            day = date.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is no day: write 2026-03-10, {BOUNDS}", param, ctx)
        if not EARLIEST.date() <= day <= LATEST.date():
            self.fail(f"{text!r} is out of bounds: give a day {BOUNDS}", param, ctx)
        return day


def load(app: str) -> tuple[Chancy, Metrics]:
    """Return the app at an import path and its plugin; ends the command if there is none."""
    sys.path.insert(0, os.getcwd())
    try:
        found: Chancy | Callable[[], Chancy] = import_string(app)  # type: ignore[no-untyped-call] # Chancy's
        chancy = found if isinstance(found, Chancy) else found()
    except (Exception, SystemExit) as error:  # whatever the user's module does when it is imported
        raise click.BadParameter(
            f"{app!r} can't be imported: {type(error).__name__}: {without_password(str(error))}", param_hint="--app"
        ) from error
    metrics = chancy.plugins.get("chancy.metrics") if isinstance(chancy, Chancy) else None
    if not isinstance(metrics, Metrics):
        raise click.BadParameter(
            f"{app!r} is no Chancy app with this plugin: add chancy_metrics.plugin.Metrics() to its plugins",
            param_hint="--app",
        )
    return chancy, metrics
