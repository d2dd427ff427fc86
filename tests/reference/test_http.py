"""docs/http.md has each route of the plugin with its parameters, status codes and fields."""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
from chancy.plugins.api import Api, SimpleAuthBackend

from chancy_metrics.events.database import Connection
from chancy_metrics.events.facts import MAX_KEY_BYTES
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.audit.events import JobLife
from chancy_metrics.plugin.audit.explain import Explained
from chancy_metrics.plugin.audit.marks import Mark
from chancy_metrics.plugin.http import events, files, limits, overview_workers, response, routes, scrape
from chancy_metrics.plugin.http.dashboard import MetricsApiPlugin
from chancy_metrics.plugin.http.events import EventsPage
from chancy_metrics.plugin.http.overview import Overview
from chancy_metrics.plugin.http.overview import Row as OverviewRow
from chancy_metrics.plugin.http.overview_workers import WorkerRow
from chancy_metrics.plugin.http.points import KeptResolution, Points
from chancy_metrics.plugin.http.series import SeriesPage, WorkersPage
from chancy_metrics.projections.search.event import Event
from tests.factories import LogWriter, a_row, a_run, now_us, sequence_and_fold
from tests.plugin.http.test_routes import ASKED, JOB, asking
from tests.reference.pages import code, page, rows, section


class Resolutions(msgspec.Struct):
    """What the route makes as a dict."""

    resolutions: list[KeptResolution]


#: An overview's rows are of two kinds without a tag, which no decoder takes.
OverviewWithoutRows = msgspec.defstruct(
    "OverviewWithoutRows",
    [(name, list[msgspec.Raw] if name == "rows" else kind) for name, kind in typing.get_type_hints(Overview).items()],
)
#: What each route answers; that of the status is on a page of its own.
ANSWERS: dict[str, type[msgspec.Struct]] = {
    "series": SeriesPage,
    "points": Points,
    "overview": OverviewWithoutRows,
    "resolutions": Resolutions,
    "explain": Explained,
    "events": EventsPage,
    "jobs/{job_id}": JobLife,
    "marks": routes.MarksPage,
    "workers": WorkersPage,
}
ROUTES = MetricsApiPlugin(Api(authentication_backend=SimpleAuthBackend({}))).routes()
#: What is described once, elsewhere: events and marks; and "as …".
ELSEWHERE = {Event, Mark}
AS_ANOTHER = ("rows[].wait.", "rows[].total.", "recomputed.")


class Row(NamedTuple):
    name: str
    default: str
    text: str


def parameters(path: str) -> list[Row]:
    """Return the rows of a route's table of parameters, one a parameter."""
    return [Row(name, row[1], row[2]) for row in table(path, "parameter") for name in code(row[0])]


def table(path: str, head: str) -> list[list[str]]:
    found = re.search(rf"^\| {head} \|.*\n(?:\|.*\n)+", section("http", f"`/metrics-log/{path}`") + "\n", re.M)
    return rows(found[0]) if found else []


def test_every_route_has_a_heading_and_nothing_else_has() -> None:
    made = [route["path"] for route in ROUTES]
    headings = [name for line in re.findall(r"^### (`/.*)$", page("http"), re.M) for name in code(line)]
    short = [path.removeprefix("/api/v1") if "/metrics-log" in path else path for path in made]

    assert sorted(headings) == sorted(short)
    assert all(route["methods"] == ["GET"] for route in ROUTES)


def keys(kind: msgspec.inspect.Type, at: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the path of each key of a struct in JSON, and whether it may be null."""
    if isinstance(kind, msgspec.inspect.UnionType):
        for one in kind.types:
            yield from keys(one, at)
    elif isinstance(kind, (msgspec.inspect.ListType, msgspec.inspect.CollectionType)):
        yield from keys(kind.item_type, f"{at}[]")
    elif isinstance(kind, msgspec.inspect.StructType) and kind.cls not in ELSEWHERE:
        if kind.tag_field:
            yield f"{at}.{kind.tag_field}", False
        for field in kind.fields:
            path = f"{at}.{field.name}".lstrip(".")
            is_union = isinstance(field.type, msgspec.inspect.UnionType)
            # A field that may be left out is never null.
            is_absent = kind.cls.__struct_config__.omit_defaults and not field.required
            yield path, is_union and field.type.includes_none and not is_absent  # type: ignore[attr-defined]
            yield from keys(field.type, path)


@pytest.mark.parametrize("path", ANSWERS)
def test_the_fields_of_an_answer_are_those_of_the_page(path: str) -> None:
    found = [*keys(msgspec.inspect.type_info(ANSWERS[path]))]
    if path == "overview":
        found += [one for row in (OverviewRow, WorkerRow) for one in keys(msgspec.inspect.type_info(row), "rows[]")]
    made: dict[str, bool] = {}
    for name, is_null in found:
        made[name] = made.get(name, False) or is_null
    wanted = {name: null for name, null in made.items() if not name.startswith(AS_ANOTHER)}
    if path == "marks":
        wanted |= dict.fromkeys([f"marks[].{one.name}" for one in msgspec.structs.fields(Mark)], False)

    told = {code(row[0])[0]: row[1].endswith("or null") for row in table(path, "field")}

    assert told == wanted


@pytest.mark.parametrize("path", ANSWERS)
def test_examples_have_the_fields_of_the_answer(path: str) -> None:
    fields = {one.name for one in msgspec.structs.fields(ANSWERS[path])}

    for text in re.findall(r"^```json\n(.*?)^```", section("http", f"`/metrics-log/{path}`"), re.S | re.M):
        assert json.loads(text).keys() == fields


async def test_parameters_are_those_of_the_page_with_their_ranges_and_choices(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run(at_us=now_us())], jobs=[a_row(now_us())])
    await sequence_and_fold(connection, tables)

    async with asking(dsn) as client:
        for asked, query in ASKED.items():
            path = asked.replace(str(JOB), "{job_id}")
            told = {row.name: row for row in parameters(path)}
            known = await refusal(client, f"{asked}{query or '?'}&nonsense=1")
            names = re.findall(r"\w+", known["allowed"].partition("known are ")[2])
            assert set(names) == {row.name for row in told.values() if row.default != "in the path"}, path
            for name in names:
                other = query.replace(f"{name}=", "x=").partition("x=")
                rest = query if not other[1] else other[0] + other[2].partition("&")[2]
                wrong = await refusal(client, f"{asked}{rest or '?'}&{name}=-x")
                check(told[name], wrong["allowed"] if wrong["parameter"] == name else "")


async def refusal(client: Any, address: str) -> dict[str, str]:
    answer = await client.get(f"/api/v1/metrics-log/{address}")
    return answer.json() if answer.status_code == 422 else {"parameter": "", "allowed": ""}


def check(row: Row, allowed: str) -> None:
    """Compare what a parameter takes with its row, where the refusal says it in numbers or names."""
    if found := re.fullmatch(r"a whole number from ([\d,]+) to ([\d,]+)", allowed):
        least, most = found.groups()
        years = {"315,360,000": "ten years", "1,000,000": "a number of rows"}
        assert f"{least} to {most}" in row.text or years.get(most, most) in row.text, row
    elif allowed.startswith(("one of ", "any of ")):
        choices = allowed.removesuffix(", separated by commas").split(" of ")[1].split(", ")
        named = {name for text in code(f"{row.default} {row.text}") for name in re.findall(r"[\w.]+", text)}
        assert {part for one in choices for part in one.split(".")} <= {
            part for name in named for part in name.split(".")
        }, row


def test_status_codes_are_those_that_the_routes_answer() -> None:
    of_json = {200, 403, *map(int, re.findall(r", (\d{3})[,)]", inspect.getsource(routes)))}
    of_scrapes = {200, *map(int, re.findall(r"_say\((\d{3})", inspect.getsource(scrape)))}
    of_files = {200, *map(int, re.findall(r"(?:missing, |status_code=)(\d{3})", inspect.getsource(files)))}

    assert numbers(section("http", "Rules")) == of_json
    assert numbers(section("http", "`/metrics-log/prometheus`")) == of_scrapes
    assert numbers(section("http", "`/metrics-log`, `/metrics-log/{file}`")) == of_files


def test_limits_of_requests_are_those_of_the_code() -> None:
    rules, whole = " ".join(section("http", "Rules").split()), " ".join(page("http").split())

    assert limits.MAX_CONNECTIONS == 4 and "at most four database connections" in rules
    assert f"waits for {limits.WAIT_S:g} s, or behind {limits.MAX_WAITING} others" in rules
    assert f"more than {routes.ANSWER_S:g} s is refused" in rules
    assert f"within {response.MIN_S:g} s, plus 1 s for each {response.BYTES_PER_S // 1_000} kB" in rules
    assert f"texts have up to {MAX_KEY_BYTES:,} bytes" in rules
    assert events.SEARCH_S == 2 and "ends after two seconds" in whole
    assert f"ends at {events.MAX_BYTES // 1_000_000} MB" in whole
    assert overview_workers.MAX_CELLS == 2_000_000 and "at most two million cells" in whole


def numbers(text: str) -> set[int]:
    return {int(row[0]) for row in rows(text) if row[0].isdigit()}


async def test_the_dashboards_routes_answer_with_the_fields_of_the_page(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run(at_us=now_us())], jobs=[a_row(now_us())])
    await sequence_and_fold(connection, tables)

    async with asking(dsn) as client:
        listed = (await client.get("/api/v1/metrics")).json()
        window = (await client.get("/api/v1/metrics/app")).json()

    [metric] = window["series"].values()
    told = [code(row[0])[0] for row in rows(section("http", "`/api/v1/metrics/{prefix}`")) if row[1] != "–"]
    fields = {name for name in told if name.startswith("series{}.")}
    assert listed.keys() == {code(row[0])[0] for row in rows(section("http", "`/api/v1/metrics`"))}
    assert {f"series{{}}.{name}" for name in metric} == fields
    assert window.keys() <= set(told)
    assert set(metric["data"][0]) == {"timestamp", "value", "sampled_at"}
