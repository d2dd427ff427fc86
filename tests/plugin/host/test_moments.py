"""Moments from outside are UTC before anything is added to them, and within bounds, at every public edge."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.errors import WrongMoment
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.audit.events import events
from chancy_metrics.plugin.audit.explain import explain
from chancy_metrics.plugin.audit.marks import mark, marks
from chancy_metrics.plugin.cli.main import main
from chancy_metrics.plugin.cli.types import Day, Duration, Moment
from chancy_metrics.plugin.health.completeness import completeness
from chancy_metrics.plugin.health.verify import verify
from chancy_metrics.plugin.host.moments import utc
from chancy_metrics.plugin.http.parameters import Parameters, WrongParameter
from chancy_metrics.projections.search.query import EventQuery
from chancy_metrics.projections.versions.lag import live_lag
from tests.factories import an_app, fetch, sequence_and_fold

BERLIN, LORD_HOWE = ZoneInfo("Europe/Berlin"), ZoneInfo("Australia/Lord_Howe")
#: Moments whose zone's clock is put back, by an hour or by half of one, and what they are.
MOMENTS = [
    (datetime(2025, 10, 26, 2, 30, tzinfo=BERLIN), datetime(2025, 10, 26, 0, 30, tzinfo=UTC)),
    (datetime(2025, 10, 26, 2, 30, tzinfo=BERLIN, fold=1), datetime(2025, 10, 26, 1, 30, tzinfo=UTC)),
    (datetime(2025, 10, 26, 3, tzinfo=BERLIN), datetime(2025, 10, 26, 2, tzinfo=UTC)),
    (datetime(2025, 4, 6, 1, 45, tzinfo=LORD_HOWE), datetime(2025, 4, 5, 14, 45, tzinfo=UTC)),
    (datetime(2025, 4, 6, 1, 45, tzinfo=LORD_HOWE, fold=1), datetime(2025, 4, 5, 15, 15, tzinfo=UTC)),
]
WRONG = {
    "year 1": datetime(1, 1, 1, tzinfo=UTC),
    "year 1 of an eastern zone": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
    "year 9999": datetime(9999, 12, 31, 23, 59, tzinfo=timezone(-timedelta(hours=12))),
    "before 1970": datetime(1970, 1, 1, tzinfo=timezone(timedelta(seconds=1))),
    "after 2199": datetime(2200, 1, 1, tzinfo=UTC),
    "no zone": datetime(2026, 3, 10, 12),
}
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


class Nowhere(tzinfo):
    """A zone that does not know its offset: a moment in it is not aware."""

    def utcoffset(self, _: datetime | None) -> None:
        return None


@given(st.datetimes(datetime(1971, 1, 1), datetime(2199, 1, 1), timezones=st.timezones()))
def test_a_moment_in_utc_is_the_same_moment(moment: datetime) -> None:
    found = utc(moment)

    assert type(found) is datetime and found.tzinfo is UTC
    assert found.timestamp() == moment.timestamp()


@pytest.mark.parametrize("moment", [*WRONG.values(), datetime(2026, 3, 10, tzinfo=Nowhere())], ids=str)
def test_a_moment_without_a_zone_or_out_of_bounds_is_refused(moment: datetime) -> None:
    with pytest.raises(WrongMoment, match=r"has no zone|out of bounds: give a moment from 1970 to 2199"):
        utc(moment)


@pytest.mark.parametrize(("zoned", "at"), MOMENTS, ids=str)
def test_a_window_has_as_many_buckets_as_were_asked_for_across_a_change_of_the_clock(
    zoned: datetime, at: datetime
) -> None:
    metrics = Metrics()
    for width, resolution in ((timedelta(minutes=1), "1min"), (timedelta(minutes=5), "5min")):
        for buckets in (3, 50):
            until = zoned + timedelta(hours=2)  # on the wall
            end = until.astimezone(UTC)
            found = metrics.window(resolution, end=until, limit=buckets)  # type: ignore[arg-type]
            assert found == (end - buckets * width, end)
            assert [moment.tzinfo for moment in found] == [UTC, UTC]
            start = at.replace(minute=at.minute // 5 * 5)
            assert metrics.window(resolution, start=zoned, end=at + 3 * width) == (start, at + 3 * width)  # type: ignore[arg-type]


def test_bucket_boundaries_are_those_of_utc() -> None:
    midnight = datetime(2025, 10, 26, tzinfo=BERLIN)

    with pytest.raises(ValueError, match="bucket boundaries"):
        Metrics().window("1day", start=midnight, end=midnight + DAY)
    # The day on which the clock is put back has 25 hours, and so has its window.
    start, end = Metrics().window("1hour", start=midnight, end=midnight + DAY)
    assert end - start == timedelta(hours=25)


async def test_every_public_edge_takes_a_zoned_moment_for_what_it_is(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    years = {"max_points_per_resolution": {"1min": 10**7, "1hour": 10**5}, "maximum_metric_age": 3_650 * 86_400}
    async with an_app(dsn, Metrics(**years)) as (chancy, metrics):  # type: ignore[arg-type]
        for number, (zoned, at) in enumerate(MOMENTS):
            assert (await mark(chancy, str(number), at=zoned)).at == at
        await sequence_and_fold(connection, tables)

        for number, (zoned, at) in enumerate(MOMENTS):
            found = await explain(chancy, f"mark:{number}", zoned)
            assert (found.events, found.since, found.equal) == (1, at, True)
            for since, until in ((zoned, at + MINUTE), (at, (at + MINUTE).astimezone(zoned.tzinfo))):
                selection = EventQuery(since=since, until=until)
                assert [event.at async for event in events(chancy, selection)] == [at]
                assert [made.text for made in await marks(chancy, since, until)] == [str(number)]
                answer = await metrics.get_metrics(chancy, "mark", resolution="1min", start=since, end=until)
                shown = {key for key, series in answer["series"].items() if series.data}
                assert shown == {f"mark:{number}"}
                whole = await completeness(chancy, since, until)
                checked = await verify(chancy, since=since, until=until)
                for one in (whole, checked):
                    assert (one.since, one.until) == (at, at + MINUTE)
                    assert one.since is not None and one.since.tzinfo is UTC
                assert (checked.events, checked.drift) == (1, 0)


async def test_every_public_edge_refuses_a_moment_that_is_out_of_bounds(dsn: str) -> None:
    async with an_app(dsn) as (chancy, metrics):

        async def listed(since: datetime) -> None:
            async for _ in events(chancy, EventQuery(since=since)):
                pass

        edges: list[Callable[[datetime], Awaitable[Any]]] = [
            lambda at: explain(chancy, "app:n", at),
            lambda at: mark(chancy, "deploy", at=at),
            lambda at: marks(chancy, at),
            lambda at: marks(chancy, None, at),
            lambda at: completeness(chancy, None, at),
            lambda at: verify(chancy, since=at),
            listed,
        ]
        for moment in WRONG.values():
            for edge in edges:
                with pytest.raises(WrongMoment):
                    await edge(moment)
            if moment.year in (1, 9999) or moment.tzinfo is None:
                with pytest.raises(ValueError, match=r"bucket boundaries|out of range"):  # 0.26's words
                    await metrics.get_metrics(chancy, limit=3, end=moment)


async def test_a_lag_is_the_same_in_every_zone_of_the_session(dsn: str, connection: Connection, tables: Tables) -> None:
    now = datetime.now(BERLIN)
    days = next(days for days in range(300) if (now - days * DAY).utcoffset() != now.utcoffset())
    folded = "UPDATE {versions} SET folded_at = clock_timestamp() - make_interval(secs => %(secs)s) WHERE version = 1"
    await fetch(connection, folded, tables, secs=days * 86_400)
    await connection.execute("SET TimeZone = 'Europe/Berlin'")

    async with short_transaction(connection) as cursor:
        lag = await live_lag(cursor, tables)

    assert days * 86_400 <= lag.silent_s < days * 86_400 + 600


NO_MOMENT = [
    *("0001-01-01", "0001-01-01T00:00+14:00", "9999-12-31T23:59-12:00", "1969-12-31T23:59:59Z", "2200-01-01", "99999d"),
    *("-1h", "-2026-03-10", "nan", "nand", "inf", "infd", "1e3s", "1_0s", "", " ", " 2h", "2h ", "\uff12h", "\u0662h"),
    *("2 h", "h", "9" * 400 + "d", "\uff12026-03-10", "2026-13-01", "2026-03-10T25:00", "tomorrow", "\udcff"),
]


@pytest.mark.parametrize("text", NO_MOMENT)
def test_what_is_no_moment_in_bounds_is_refused_with_a_sentence_by_the_cli_and_over_http(text: str) -> None:
    with pytest.raises(click.BadParameter, match="1970 to 2199"):
        Moment().convert(text, None, None)
    if text:
        with pytest.raises(WrongParameter, match="1970 to 2199"):
            Parameters([("since", text)]).moment("since")


@pytest.mark.parametrize("text", NO_MOMENT)
def test_a_wrong_day_or_duration_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(click.BadParameter, match="1970 to 2199"):
        Day().convert(text, None, None)
    if not text[:4].isdigit() or text == "99999d" or len(text) > 100:
        with pytest.raises(click.BadParameter, match=r"is not a duration|too long: at most 24855d"):
            Duration().convert(text, None, None)


def test_every_time_a_command_takes_is_of_a_type_with_bounds() -> None:
    def options(command: click.Command) -> Iterator[click.Parameter]:
        if isinstance(command, click.Group):
            for one in command.commands.values():
                yield from options(one)
        yield from command.params

    types = {option.name: type(option.type) for option in options(main)}
    assert {types[name] for name in ("at", "since", "until")} == {Moment}
    assert {types[name] for name in ("keep_s", "budget", "throttle_s")} == {Duration}
    assert types["day"] is Day
    assert not {click.DateTime, type(click.FLOAT)} & set(types.values())


def test_moments_and_lengths_of_time_are_taken_as_documented() -> None:
    assert Moment().convert("2026-03-10T12:00", None, None) == datetime(2026, 3, 10, 12, tzinfo=UTC)
    assert Moment().convert("2026-03-10T12:00+05:30", None, None) == datetime(2026, 3, 10, 6, 30, tzinfo=UTC)
    assert Moment().convert("1970-01-01", None, None) == datetime(1970, 1, 1, tzinfo=UTC)
    assert Moment().convert("2199-12-31T23:59:59.999999", None, None).year == 2199
    assert timedelta(hours=1.9) < datetime.now(UTC) - Moment().convert("2h", None, None) < timedelta(hours=2.1)
    assert Duration().convert("1.5h", None, None) == 5_400
    assert str(Day().convert("2026-03-10", None, None)) == "2026-03-10"
