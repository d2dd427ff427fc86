"""The dashboard's two routes, beside the built-in's on the same data."""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from chancy import Chancy, QueuedJob, Worker
from chancy.plugin import Plugin
from chancy.plugins.api import Api, SimpleAuthBackend
from chancy.plugins.metrics import Metrics as BuiltIn
from chancy.plugins.metrics import metrics as built_in_module

from chancy_metrics.events.database import Connection
from chancy_metrics.events.facts import microseconds
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.host import clock
from tests.dashboard_app import PASSWORD, USER
from tests.factories import LogWriter, a_job, a_run, eventually
from tests.processes import web

# Late enough for every resolution to keep it, and past, so that the log's own clock does not come before it.
NOW = datetime.now(UTC) - timedelta(minutes=10)
MOMENTS = {"start", "end", "generated_at", "timestamp", "sampled_at"}
#: Endings of the keys of histograms that the built-in does not have.
OURS = (":wait_time", ":total_time", ":attempts")
QUANTILES = {"p50", "p95", "p99"}

Record = Callable[[Metrics | BuiltIn, Worker], Awaitable[None]]


@asynccontextmanager
async def served(dsn: str, plugin: Plugin, *, token: bool = True) -> AsyncIterator[tuple[httpx.AsyncClient, Worker]]:
    """The API as a user mounts it: nothing of the plugin's runs; and its worker, for the hooks."""
    api = Api(authentication_backend=SimpleAuthBackend({"ann": "secret"}))
    async with Chancy(dsn, plugins=[plugin, api]) as chancy:
        worker = Worker(chancy, worker_id="worker-1", register_signal_handlers=False)
        transport = httpx.ASGITransport(api.build_starlette_app(worker, chancy), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://dashboard") as client:
            if token:
                login = await client.post("/api/v1/login", json={"username": "ann", "password": "secret"})
                client.headers["Authorization"] = f"Bearer {login.json()['token']}"
            yield client, worker


@pytest.fixture
async def both(
    dsn: str, tables: Tables, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Ours and the built-in's API on the same jobs and observations, all made at `NOW`, when it also is."""
    monkeypatch.setattr(clock, "utc_now", lambda: NOW)
    monkeypatch.setattr(built_in_module, "utcnow", lambda: NOW)
    ours, theirs = Metrics(), BuiltIn()
    jobs = [
        a_job(func=func, queue=queue, state=state, started_at=started, completed_at=completed)
        for func, queue, state, started, completed in (
            [
                ("app.mail", "mail", QueuedJob.State.SUCCEEDED, NOW - timedelta(seconds=0.5), NOW),
                ("app.mail", "mail", QueuedJob.State.SUCCEEDED, NOW - timedelta(seconds=1.25), NOW),
                ("app.mail", "mail", QueuedJob.State.FAILED, NOW - timedelta(seconds=0.25), NOW),
                ("app.bill", "bills", QueuedJob.State.FAILED, NOW - timedelta(seconds=4), NOW),
            ]
        )
    ]
    async with AsyncExitStack() as stack:
        our_client, our_worker = await stack.enter_async_context(served(dsn, ours))
        their_client, their_worker = await stack.enter_async_context(served(dsn, theirs))
        await their_worker.chancy.migrate()
        await theirs.increment_counter("solo", 3)
        for value in (7, 5):
            await theirs.record_gauge("app:level", value, unit="slots")
        for job in jobs:
            await ours.on_job_updated(worker=our_worker, job=job)
            await theirs.on_job_updated(worker=their_worker, job=job)
        at_us = microseconds(NOW)
        writer = LogWriter(connection, tables, "worker-2")
        await writer.append(
            runs=[
                a_run("solo", [3.0], at_us=at_us),
                a_run("app:level", [7.0, 5.0], kind="gauge", unit="slots", at_us=at_us),
            ]
        )
        await ours.flush(our_worker.chancy)
        await theirs.flush(their_worker.chancy)
        yield our_client, their_client
        await ours.on_worker_stopped(worker=our_worker)


def plain(answer: Any) -> Any:
    """A body without what only ours has, and moments without their zone's spelling."""
    if isinstance(answer, dict):
        return {
            key: datetime.fromisoformat(value).astimezone(UTC) if key in MOMENTS and value else plain(value)
            for key, value in answer.items()
            if key not in QUANTILES and key != "completeness" and not key.endswith(OURS)
        }
    return [plain(value) for value in answer] if isinstance(answer, list) else answer


def moment(ago: timedelta, width_s: int = 300) -> str:
    seconds = int((NOW - ago).timestamp()) // width_s * width_s
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+", "%2B")


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("queue:mail", 200),
        ("queue%3Amail", 200),
        ("queue", 200),
        ("global:status", 200),
        ("app:level", 200),
        ("solo", 200),
        ("job:app.mail?resolution=1min&range=3600", 200),
        ("job:app.mail?resolution=1hour&range=604800", 200),
        ("job:app.mail?resolution=1day&range=2592000", 200),
        ("queue:mail?limit=3", 200),
        (f"queue:mail?start={moment(HOUR)}&end={moment(-HOUR)}", 200),
        (f"queue:mail?start={moment(2 * HOUR)}&end={moment(HOUR)}", 200),
        ("queue:mail?worker_id=worker-1", 200),
        ("queue:mail?worker_id=nobody", 200),
        ("queue:mail?worker_id=", 200),
        ("nothing", 200),
        ("queue:", 200),
        ("queue:%25", 200),
        ("queue:mail?range=7", 422),
        ("queue:mail?range=0", 422),
        ("queue:mail?range=-300", 422),
        ("queue:mail?range=abc", 422),
        ("queue:mail?range=1&limit=1", 422),
        ("queue:mail?limit=289", 422),
        ("queue:mail?limit=x", 422),
        ("queue:mail?start=zzz", 422),
        ("queue:mail?start=2026-03-10T12:00:00", 422),
        ("queue:mail?start=0001-01-01T00:00:00%2B00:00", 422),
        ("queue:mail?end=0001-01-01T00:00:00%2B00:00", 422),
        ("queue:mail?resolution=2min", 422),
    ],
)
async def test_an_answer_is_the_built_ins(
    both: tuple[httpx.AsyncClient, httpx.AsyncClient], path: str, status: int
) -> None:
    ours, theirs = [await client.get(f"/api/v1/metrics/{path}") for client in both]

    assert (ours.status_code, ours.headers["content-type"]) == (status, "application/json")
    assert (theirs.status_code, theirs.headers["content-type"]) == (status, "application/json")
    assert plain(ours.json()) == plain(theirs.json())


async def test_the_list_is_the_built_ins(both: tuple[httpx.AsyncClient, httpx.AsyncClient]) -> None:
    ours, theirs = [(await client.get("/api/v1/metrics")).json() for client in both]

    assert (
        ours["categories"]
        == theirs["categories"]
        == {
            "app": ["level"],
            "global": ["status"],
            "job": ["app.bill", "app.mail"],
            "queue": ["bills", "mail"],
            "solo": [""],
        }
    )
    # Wait times of two functions and two queues, total times of the one each that had a success, attempts of functions.
    assert ours["count"] == theirs["count"] + 4 + 2 + 2


async def test_what_is_no_metric_is_answered_as_the_built_in_does(
    both: tuple[httpx.AsyncClient, httpx.AsyncClient],
) -> None:
    for method, path in [
        ("GET", "/api/v1/metrics/queue%2Fmail"),
        ("GET", "/api/v1/metrics/queue:mail/"),
        ("POST", "/api/v1/metrics"),
        ("POST", "/api/v1/metrics/queue"),
        ("DELETE", "/api/v1/metrics/queue"),
    ]:
        ours, theirs = [await client.request(method, path) for client in both]

        assert (ours.status_code, ours.text) == (theirs.status_code, theirs.text), path
        assert ours.status_code == (200 if method == "GET" else 405)


async def test_more_than_a_hundred_series_are_422(dsn: str, tables: Tables, connection: Connection) -> None:
    at_us = microseconds(datetime.now(UTC))
    runs = [a_run(f"app:{number}", at_us=at_us) for number in range(101)]
    await LogWriter(connection, tables).append(runs=runs)
    metrics = Metrics()
    async with served(dsn, metrics) as (client, worker):
        await metrics.flush(worker.chancy)

        answer = await client.get("/api/v1/metrics/app")

        assert (answer.status_code, answer.json()) == (
            422,
            {"title": "prefix matches more than 100 series; choose a narrower prefix"},
        )
        assert (await client.get("/api/v1/metrics")).json()["count"] == 101


@pytest.mark.parametrize("token", [None, "Bearer nonsense", "Basic YW5uOnNlY3JldA=="])
@pytest.mark.parametrize("path", ["/api/v1/metrics", "/api/v1/metrics/queue:mail"])
async def test_without_a_token_nothing_is_answered(dsn: str, path: str, token: str | None) -> None:
    async with served(dsn, Metrics(), token=False) as (client, _):
        answer = await client.get(path, headers={"Authorization": token} if token else {})

    assert (answer.status_code, answer.text) == (403, "Forbidden")


@pytest.mark.parametrize(
    ("settings", "resolution", "asked_s", "answered_s"),
    [
        ({"max_points_per_resolution": {"5min": 12}}, "5min", 86_400, 3_600),
        ({"max_points_per_resolution": {"1min": 3_000}}, "1min", 86_400, 60_000),
        ({"maximum_metric_age": 1_000}, "5min", 86_400, 900),
        ({"maximum_metric_age": 1_000}, "1day", 2_592_000, 86_400),
        ({"maximum_metric_age": 86_400}, "1hour", 604_800, 86_400),
        ({}, "5min", 3 * 10**12, 86_400),
    ],
)
async def test_a_range_longer_than_what_is_kept_is_cut_to_that(
    dsn: str, settings: dict[str, Any], resolution: str, asked_s: int, answered_s: int
) -> None:
    async with served(dsn, Metrics(**settings)) as (client, _):
        answer = await client.get(f"/api/v1/metrics/queue?resolution={resolution}&range={asked_s}")

    assert answer.status_code == 200
    start, end = (datetime.fromisoformat(answer.json()[name]) for name in ("start", "end"))
    assert (end - start).total_seconds() == answered_s


@pytest.mark.parametrize("query", ["", "?worker_id=worker-1", "?worker_id=%00"])
async def test_a_prefix_or_worker_that_no_database_can_hold_is_no_error(dsn: str, query: str) -> None:
    async with served(dsn, Metrics()) as (client, _):
        answer = await client.get(f"/api/v1/metrics/que%00ue{query}")

    assert (answer.status_code, answer.json()["series"]) == (200, {})


async def test_every_number_is_finite(dsn: str) -> None:
    metrics = Metrics()
    async with served(dsn, metrics) as (client, worker):
        for value in (1e308, 1e308):
            await metrics.increment_counter("app:n", value)
            await metrics.record_gauge("app:level", -value)
            await metrics.record_histogram_value("app:took", -value)
        await metrics.flush(worker.chancy)

        for query in ("", f"?worker_id={socket.gethostname()}"):
            answer = await client.get(f"/api/v1/metrics/app{query}")

            series = answer.json(parse_constant=refuse)["series"]
            assert series["app:n"]["summary"] == sys.float_info.max
            assert series["app:level"]["summary"] == -1e308
            assert series["app:took"]["summary"]["sum"] == -sys.float_info.max
            assert series["app:took"]["data"][0]["value"]["min"] == -1e308


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


async def test_chancy_worker_web_serves_what_workers_recorded(dsn: str, tables: Tables, connection: Connection) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n", [2.0], at_us=microseconds(datetime.now(UTC)))])
    with web(dsn) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            await eventually(lambda: is_up(client))
            login = await client.post("/api/v1/login", json={"username": USER, "password": PASSWORD})
            client.headers["Authorization"] = f"Bearer {login.json()['token']}"

            async def counted() -> bool:
                answer = (await client.get("/api/v1/metrics/app")).json()
                return [metric["summary"] for metric in answer["series"].values()] == [2.0]

            # Nobody has folded what is in the log: the web process does it.
            await eventually(counted)


async def is_up(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health")).status_code == 200
    except httpx.TransportError:
        return False
