"""The JSON under /api/v1/metrics-log: tokens, wrong parameters, and answers that match the log."""

from __future__ import annotations

import asyncio
import gc
import sys
import uuid
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

import httpx
import msgspec
import pytest
from chancy import Chancy, Worker
from chancy.plugins.api import Api, SimpleAuthBackend, auth
from freezegun import freeze_time
from itsdangerous import URLSafeTimedSerializer
from psycopg.conninfo import conninfo_to_dict

from chancy_metrics.events.batch import ObservationRun
from chancy_metrics.events.database import Connection
from chancy_metrics.events.facts import Combo, Series, microseconds
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.audit.marks import mark
from chancy_metrics.plugin.host import clock
from chancy_metrics.plugin.http import events as events_module
from chancy_metrics.plugin.http import files, limits
from chancy_metrics.plugin.http import series as series_module
from chancy_metrics.plugin.http.routes import page_routes
from chancy_metrics.plugin.reading import follower as follower_module
from chancy_metrics.plugin.reading.follower import Reader
from chancy_metrics.projections.rules.measured import table_sizes
from examples.embedded import Server
from tests import processes
from tests.factories import LogWriter, a_host, a_row, a_run, an_app, connections, eventually, sequence_and_fold

ROOT = "/api/v1/metrics-log"
JOB = uuid.UUID("019e2b7c-0000-7000-8000-000000000001")
#: Past, so that the log's own clock does not come before it, and in the middle of its minute.
NOW = datetime.now(UTC).replace(second=30, microsecond=0) - timedelta(minutes=10)
NOW_US = microseconds(NOW)
MINUTE_US = 60_000_000

#: Every JSON route with what it must be given.
ASKED = {
    "series": "",
    "points": "?key=app:n",
    "overview": "",
    "resolutions": "",
    "explain": f"?key=app:n&at={NOW:%Y-%m-%dT%H:%M:%SZ}",
    "events": "",
    f"jobs/{JOB}": "",
    "marks": "",
    "workers": "",
    "status": "",
}

#: Keys made to leave SQL, LIKE, JSON, HTML and a line of text, and one as long as one may be.
HOSTILE = [
    "it's; DROP TABLE chancy_metrics_log --",
    'double "quoted" key',
    "100%:of%s %(x)s %%",
    "under_score:a\\b",
    "<script>alert(1)</script>",
    "</title><img src=x onerror=alert(1)>",
    "&amp;&#60;",
    "right\u202eto\u200fleft",
    "zero\u200bwidth\ufeff",
    "línea\nnueva\ttab",
    "\x01control",
    "ключ:鍵:🔑",
    "?key=a&b=c#d+e",
    "a/b",
    " spaces ",
    ":",
    "k" * 1_024,
]


@asynccontextmanager
async def asking(
    dsn: str, metrics: Metrics | None = None, *, token: bool = True, secret: str = "right"
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API server in which nothing of the plugin's runs."""
    api = Api(authentication_backend=SimpleAuthBackend({}), secret_key=secret)
    async with Chancy(dsn, plugins=[metrics or Metrics(), api]) as chancy:
        worker = Worker(chancy, register_signal_handlers=False)
        transport = httpx.ASGITransport(api.build_starlette_app(worker, chancy))
        async with httpx.AsyncClient(transport=transport, base_url="http://dashboard") as client:
            if token:
                client.headers["Authorization"] = f"Bearer {a_token(secret)}"
            yield client


def a_token(secret: str, salt: str = "chancy.api.token", user: str = "ann") -> str:
    return str(URLSafeTimedSerializer(secret, salt=salt).dumps({"u": user}))


async def get(client: httpx.AsyncClient, path: str, **parameters: Any) -> Any:
    answer = await client.get(f"{ROOT}/{path}", params={k: str(v) for k, v in parameters.items() if v is not None})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


@pytest.fixture
def at_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "utc_now", lambda: NOW)


@pytest.fixture
async def log(connection: Connection, tables: Tables) -> LogWriter:
    """A log with job updates and observations of the last four minutes, folded."""
    writer = LogWriter(connection, tables, "worker-1")
    await writer.append(
        jobs=[
            a_row(NOW_US - 3 * MINUTE_US, job_id=JOB.bytes, combo=Combo("app.mail", "mail", "retrying", 1, "OSError")),
            a_row(NOW_US - MINUTE_US, job_id=JOB.bytes, combo=Combo("app.mail", "mail", "succeeded", 2, "")),
        ],
        runs=[
            a_run("app:n", [2.0, 3.0], at_us=NOW_US - 3 * MINUTE_US),
            a_run("app:n", [0.0], at_us=NOW_US - MINUTE_US),
            a_run("app:n", [1.0], at_us=NOW_US),
            a_run("app:level", [7.0, 5.0], kind="gauge", unit="slots", at_us=NOW_US),
            a_run("app:took", [1.0, 3.0], kind="histogram", unit="euro", at_us=NOW_US),
        ],
    )
    await sequence_and_fold(connection, tables)
    return writer


# -- who may ask ------------------------------------------------------------------------------------------


def test_every_json_route_is_asked_here() -> None:
    paths = {route["path"].replace("{job_id}", str(JOB)) for route in page_routes()}

    assert {path for path in paths if path.startswith("/api/")} == {f"{ROOT}/{path}" for path in ASKED}


async def test_with_a_token_it_is_answered(dsn: str, log: LogWriter) -> None:
    async with asking(dsn) as client:
        for path, query in ASKED.items():
            answer = await client.get(f"{ROOT}/{path}{query}")

            assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), answer.text


async def test_a_frozen_clock_breaks_no_answer_then_or_later(dsn: str, log: LogWriter) -> None:
    """freezegun's own datetimes can't be encoded: none may be answered, and none be left for answers to come."""
    async with asking(dsn) as client:
        asked = [f"{ROOT}/{path}{query}" for path, query in ASKED.items()]
        with freeze_time(datetime.now(UTC), real_asyncio=True):
            frozen = [await client.get(path) for path in asked]
        later = [await client.get(path) for path in asked]

    assert {answer.status_code for answer in (*frozen, *later)} == {200}


async def test_without_a_valid_token_nothing_is_answered(dsn: str) -> None:
    with freeze_time(datetime.now(UTC) - timedelta(days=8)):
        expired = a_token("right")
    backend = auth.TokenAuthBackend("right")
    assert backend.serializer.loads(a_token("right"), max_age=backend.max_age) == {"u": "ann"}
    headers: list[dict[str, str]] = [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic YW5uOnNlY3JldA=="},
        {"Authorization": f"Bearer {a_token('of another server')}"},
        {"Authorization": f"Bearer {a_token('right', salt='another')}"},
        {"Authorization": f"Bearer {a_token('right', user='')}"},
        {"Authorization": f"Bearer {expired}"},
        {"Cookie": f"token={a_token('right')}"},
    ]
    async with asking(dsn, token=False) as client:
        for path, query in ASKED.items():
            for header in headers:
                answer = await client.get(f"{ROOT}/{path}{query}", headers=header)
                assert (answer.status_code, answer.text) == (403, "Forbidden"), (path, header)
            answer = await client.get(f"{ROOT}/{path}{query}", headers={"Authorization": f"Bearer {a_token('right')}"})
            assert answer.status_code in (200, 404), (path, answer.text)


async def test_nothing_can_be_changed(dsn: str) -> None:
    async with asking(dsn) as client:
        for path in ASKED:
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                assert (await client.request(method, f"{ROOT}/{path}")).status_code == 405, path


# -- what is allowed --------------------------------------------------------------------------------------


#: Path, the parameter that is wrong, and a part of what is said to be allowed.
WRONG = [
    ("series?limit=0", "limit", "a whole number from 1 to 1,000"),
    ("series?limit=1001", "limit", "a whole number from 1 to 1,000"),
    ("series?limit=-1", "limit", "a whole number"),
    ("series?limit=1e2", "limit", "a whole number"),
    ("series?limit=٣", "limit", "a whole number"),
    ("series?limit=" + "9" * 5_000, "limit", "a whole number"),
    ("series?prefix=a%00b", "prefix", "text without NUL"),
    ("series?prefix=" + "k" * 1_025, "prefix", "at most 1,024 bytes"),
    ("series?frefix=a", "frefix", "known are prefix, after, limit"),
    ("series?limit=1&limit=2", "limit", "one value"),
    ("points", "key", "the key of a series"),
    ("points?key=", "key", "the key of a series"),
    ("points?key=%00", "key", "text without NUL"),
    ("points?key=app:n&resolution=2min", "resolution", "one of 1min, 5min, 1hour, 1day"),
    ("points?key=app:n&since=zzz", "since", "an ISO 8601 time with its zone"),
    ("points?key=app:n&since=2026-03-10T12:00:00", "since", "an ISO 8601 time with its zone"),
    ("points?key=app:n&since=2026-03-10T12:00:00+00:00", "since", '"+" is written %2B'),
    ("points?key=app:n&since=0001-01-01T00:00:00Z", "since", "from 1970 to 2199"),
    ("points?key=app:n&until=9999-12-31T23:59:59Z", "until", "from 1970 to 2199"),
    ("points?key=app:n&until=2020-03-10T12:00:00Z", "until", "are kept since then"),
    ("points?key=app:n&since=2026-03-10T12:00Z&until=2026-03-10T12:00Z", "until", "a moment after since"),
    ("points?key=app:n&range=59", "range", "a whole number from 60"),
    ("points?key=app:n&range=60&since=2026-03-10T12:00Z", "range", "only where neither since nor until"),
    ("overview?range=59", "range", "a whole number from 60 to 7,776,000"),
    ("overview?table=jobs", "table", "one of functions, queues, workers"),
    ("overview?order=p95", "order", "one of name, count, failed"),
    ("overview?table=workers&order=failed", "order", "one of seen_at, name"),
    ("overview?direction=up", "direction", "one of descending, ascending"),
    ("overview?after=x", "after", "a whole number"),
    ("overview?limit=201", "limit", "a whole number from 1 to 200"),
    ("overview?search=" + "k" * 1_025, "search", "at most 1,024 bytes"),
    ("overview?key=app:n", "key", "known are table, range, order"),
    ("explain?key=app:n", "at", "a moment in the bucket"),
    ("explain?at=2026-03-10T12:00Z", "key", "the key of a series"),
    ("explain?key=app:n&at=2026-03-10T12:00Z&limit=201", "limit", "a whole number from 1 to 200"),
    ("events?after=x", "after", "position:index"),
    ("events?after=-1:2", "after", "position:index"),
    ("events?after=99999999", "after", "the ledger ends at 0"),
    ("events?kind=job,thing", "kind", "any of job, counter, gauge, histogram"),
    ("events?job_id=7", "job_id", "a UUID"),
    ("events?producer=7", "producer", "a UUID"),
    ("events?limit=1001", "limit", "a whole number from 1 to 1,000"),
    ("events?queue=%00", "queue", "text without NUL"),
    ("jobs/7", "job_id", "a UUID"),
    ("jobs/%00", "job_id", "text without NUL"),
    (f"jobs/{JOB}?job_id={JOB}", "job_id", "one value"),
    ("marks?after=x", "after", "the last answer's next"),
    ("marks?after=99999999999999999:x", "after", "the last answer's next"),
    ("marks?limit=0", "limit", "a whole number from 1 to 1,000"),
    ("workers?after=%00", "after", "text without NUL"),
    ("status?x=1", "x", "there is no such parameter"),
    ("resolutions?x=1", "x", "there is no such parameter"),
]


async def test_a_wrong_parameter_is_422_and_says_what_is_allowed(dsn: str) -> None:
    async with asking(dsn) as client:
        for path, parameter, allowed in WRONG:
            answer = await client.get(f"{ROOT}/{path}")

            assert answer.status_code == 422, (path, answer.text)
            body = answer.json()
            assert (body["parameter"], allowed in body["allowed"]) == (parameter, True), (path, body)
            assert parameter in body["title"] and len(body["title"]) < 500, path


async def test_an_unknown_series_is_404_and_near_ones_are_named(dsn: str, log: LogWriter) -> None:
    async with asking(dsn) as client:
        for path in ("points?key=app:m", f"explain?key=app:m&at={NOW:%Y-%m-%dT%H:%M:%SZ}"):
            answer = await client.get(f"{ROOT}/{path}")

            assert answer.status_code == 404, path
            assert "'app:m'" in answer.json()["title"] and "'app:n'" in answer.json()["title"], path


async def test_without_tables_the_answer_says_what_to_do(empty_dsn: str) -> None:
    async with asking(empty_dsn) as client:
        for path in set(ASKED) - {"resolutions"}:
            answer = await client.get(f"{ROOT}/{path}{ASKED[path]}")

            assert answer.status_code == 503, (path, answer.text)
            assert "misc migrate" in answer.json()["title"], path


async def test_a_role_without_grants_is_told_where_they_are(dsn: str, connection: Connection) -> None:
    await connection.execute("CREATE ROLE stray LOGIN")
    try:
        async with asking(f"{dsn}&user=stray") as client:
            for path in set(ASKED) - {"resolutions"}:
                answer = await client.get(f"{ROOT}/{path}{ASKED[path]}")

                assert answer.status_code == 503, (path, answer.text)
                title = answer.json()["title"]
                assert "permission denied" in title and "docs/roles.md" in title, path
    finally:
        await connection.execute("DROP ROLE stray")


async def test_without_a_database_the_answer_says_so(dsn: str, server: Server) -> None:
    async with asking(dsn) as client, connections(server.dsn(), 1) as (connection,):
        name = conninfo_to_dict(dsn)["dbname"]
        await connection.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS false')
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            [name],
        )
        for path in ("status", "events", "marks", f"jobs/{JOB}"):
            answer = await client.get(f"{ROOT}/{path}")
            assert answer.status_code == 503, (path, answer.text)
            assert "database" in answer.json()["title"]


# -- what is said -----------------------------------------------------------------------------------------


async def test_zero_missing_and_partial_buckets_are_told_apart(dsn: str, log: LogWriter, at_now: None) -> None:
    async with asking(dsn) as client:
        found = await get(client, "points", key="app:n", resolution="1min", range=240)

    assert [found["type"], found["unit"], found["width_s"]] == ["counter", "count", 60]
    *ended, current = found["buckets"]
    assert [bucket.get("sum") for bucket in ended] == [None, 5.0, None, 0.0]
    assert [bucket.get("missing", False) for bucket in ended] == [True, False, True, False]
    assert current == {"at": f"{NOW:%Y-%m-%dT%H:%M}:00Z", "partial": True, "sum": 1.0}
    assert found["since"] == ended[0]["at"]
    assert found["until"] == f"{NOW + timedelta(minutes=1):%Y-%m-%dT%H:%M}:00Z"


async def test_a_series_is_zero_where_another_was_recorded_and_missing_only_where_the_log_holds_nothing(
    dsn: str, log: LogWriter, at_now: None
) -> None:
    async with asking(dsn) as client:
        asked = {"resolution": "1min", "range": 240}
        retried = (await get(client, "points", key="global:status:retrying", **asked))["buckets"]
        level = (await get(client, "points", key="app:level", **asked))["buckets"]
        took = (await get(client, "points", key="app:took", **asked))["buckets"]
        other = (await get(client, "points", key="app:n", worker_id="idle", **asked))["buckets"]

    for buckets in (retried, level, took, other):
        assert [bucket.get("missing", False) for bucket in buckets] == [True, False, True, False, False]
    assert [bucket.get("sum") for bucket in retried] == [None, 1.0, None, 0.0, 0.0]
    assert [bucket.get("sum") for bucket in other] == [None, 0.0, None, 0.0, 0.0]
    assert [bucket.get("last") for bucket in level] == [None, None, None, None, 5.0]
    assert [bucket.get("count") for bucket in took] == [None, 0, None, 0, 2]
    assert took[1] == {"at": took[1]["at"], "count": 0, "sum": 0.0}


async def test_gauges_tell_their_last_value_and_histograms_their_spread(dsn: str, log: LogWriter, at_now: None) -> None:
    async with asking(dsn) as client:
        [level] = (await get(client, "points", key="app:level", resolution="1min", range=60))["buckets"][-1:]
        [took] = (await get(client, "points", key="app:took", resolution="1min", range=60))["buckets"][-1:]

    assert level["last"] == 5.0
    assert {name: took[name] for name in ("count", "sum", "min", "avg", "max")} == {
        "count": 2,
        "sum": 4.0,
        "min": 1.0,
        "avg": 2.0,
        "max": 3.0,
    }
    assert 0.99 < took["p50"] < 1.01 and 2.98 < took["p99"] <= 3.0


async def test_a_worker_that_has_no_points_counts_zero(dsn: str, log: LogWriter, at_now: None) -> None:
    async with asking(dsn) as client:
        mine = await get(client, "points", key="app:n", resolution="1hour", range=3600, worker_id="worker-1")
        other = await get(client, "points", key="app:n", resolution="1hour", range=3600, worker_id="it's %s")

    assert sum(bucket.get("sum", 0) for bucket in mine["buckets"]) == 6.0
    assert all(bucket.get("missing") or bucket["sum"] == 0 for bucket in other["buckets"])
    assert other["worker_id"] == "it's %s"


async def test_a_window_is_widened_to_whole_buckets_and_cut_to_what_is_kept(
    dsn: str, log: LogWriter, at_now: None
) -> None:
    async with asking(dsn) as client:
        cut = await get(client, "points", key="app:n", resolution="1min", range=30 * 86_400)
        inside = await get(
            client,
            "points",
            key="app:n",
            resolution="1min",
            since=(NOW - timedelta(minutes=3)).isoformat(),
            until=(NOW - timedelta(minutes=1)).isoformat(),
        )

    assert (len(cut["buckets"]), cut["since"]) == (60, cut["kept_since"])
    assert [bucket.get("sum") for bucket in inside["buckets"]] == [5.0, None, 0.0]


async def test_more_than_a_thousand_buckets_are_422(dsn: str, log: LogWriter) -> None:
    async with asking(dsn, Metrics(max_points_per_resolution={"1min": 5_000})) as client:
        answer = await client.get(f"{ROOT}/points?key=app:n&resolution=1min&range=86400")

    assert answer.status_code == 422
    assert "at most 1,000 buckets" in answer.json()["allowed"]


async def test_resolutions_say_how_far_they_are_kept(dsn: str) -> None:
    async with asking(dsn, Metrics(max_points_per_resolution={"1min": 120})) as client:
        found = (await get(client, "resolutions"))["resolutions"]

    assert [one["name"] for one in found] == ["1min", "5min", "1hour", "1day"]
    assert found[0] == {"name": "1min", "width_s": 60, "kept_s": 7_200}


async def test_a_point_is_explained_by_its_events_and_recomputed(dsn: str, log: LogWriter) -> None:
    async with asking(dsn) as client:
        at = (NOW - timedelta(minutes=3)).isoformat()
        found = await get(client, "explain", key="global:status:retrying", at=at, resolution="1hour")
        long_ago = await get(client, "explain", key="global:status:retrying", at="2020-01-01T00:00Z")

    assert (long_ago["equal"], long_ago["compared"]) == (None, False)
    assert (found["equal"], found["events"], found["source"]) == (True, 1, "raw")
    assert found["by_func"] == [["app.mail", 1]]
    assert [event["job_id"] for event in found["failed"]] == [str(JOB)]


async def test_the_life_of_a_job_is_each_of_its_updates(dsn: str, log: LogWriter) -> None:
    async with asking(dsn) as client:
        life = await get(client, f"jobs/{JOB}")
        other = await get(client, f"jobs/{uuid.UUID(int=9)}")

    assert [(update["state"], update["attempt"]) for update in life["updates"]] == [("retrying", 1), ("succeeded", 2)]
    assert other["updates"] == []


async def test_marks_of_a_window_are_listed(dsn: str, connection: Connection, tables: Tables) -> None:
    async with an_app(dsn) as (chancy, _):
        for minutes in (30, 20, 10):
            await mark(chancy, f"<b>deploy</b> {minutes}", at=NOW - timedelta(minutes=minutes))
    await sequence_and_fold(connection, tables)
    async with asking(dsn) as client:
        found = await get(client, "marks", since=(NOW - timedelta(minutes=25)).isoformat())
        first = await get(client, "marks", limit=1)
        second = await get(client, "marks", after=first["next"])

    assert [one["text"] for one in found["marks"]] == ["<b>deploy</b> 20", "<b>deploy</b> 10"]
    assert len(first["marks"]) == 1 and found["next"] is None
    assert found["marks"] == second["marks"]


async def test_status_is_what_the_command_shows(dsn: str, log: LogWriter) -> None:
    async with asking(dsn) as client:
        status = await get(client, "status")

    assert (status["position"], status["pending_batches"], status["unhealthy"]) == (1, 0, [])
    assert status["completeness"]["holes"] == 0


async def walk(client: httpx.AsyncClient, path: str, field: str, **parameters: Any) -> list[Any]:
    """Everything on all pages of a list, which must come to an end."""
    seen: list[Any] = []
    after = None
    for _ in range(50):
        page = await get(client, path, after=after, **parameters)
        seen += page[field]
        after = page["next"]
        if after is None:
            return seen
    raise AssertionError(f"{path} does not end; it has come to {after!r}")


async def test_every_list_ends_where_many_have_the_same_moment_or_beginning(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    texts = ["b", "a", "a:b", "ä", "<b>", "x" * 1_019, "A", "12:", "%s"]
    for number, text in enumerate(texts):
        at_us = NOW_US + (number == 0)
        await LogWriter(connection, tables, f"w{text[:9]}").append(runs=[a_run(f"mark:{text}", at_us=at_us)])
    await sequence_and_fold(connection, tables)
    async with asking(dsn) as client:
        marks = await walk(client, "marks", "marks", limit=2)
        keys = await walk(client, "series", "series", limit=2)
        workers = await walk(client, "workers", "workers", limit=2)
        alone = await walk(client, "marks", "marks", limit=1, since=NOW.isoformat())

    assert sorted(one["text"] for one in marks) == sorted(texts) and marks[-1]["text"] == "b"
    assert alone == marks
    assert sorted(one["key"] for one in keys) == sorted(f"mark:{text}" for text in texts)
    assert sorted(workers) == sorted({f"w{text[:9]}" for text in texts})


# -- hostile keys -----------------------------------------------------------------------------------------


async def test_hostile_keys_come_back_as_they_are(dsn: str, connection: Connection, tables: Tables) -> None:
    writer = LogWriter(connection, tables, worker="<b>it's</b> %s")
    for number, key in enumerate(HOSTILE):
        await writer.append(runs=[a_run(key, [float(number)], at_us=NOW_US)])
    await sequence_and_fold(connection, tables)
    async with asking(dsn) as client:
        listed = await get(client, "series", limit=1_000)
        assert sorted(one["key"] for one in listed["series"]) == sorted(HOSTILE)
        assert await get(client, "workers") == {"workers": ["<b>it's</b> %s"], "next": None}

        for number, key in enumerate(HOSTILE):
            points = await get(client, "points", key=key, resolution="1day", range=2 * 86_400)
            assert points["key"] == key
            assert [bucket["sum"] for bucket in points["buckets"] if "sum" in bucket] == [number], key
            mine = await get(client, "points", key=key, resolution="1day", range=2 * 86_400, worker_id=writer.worker)
            assert [bucket["sum"] for bucket in mine["buckets"] if "sum" in bucket] == [number], key
            found = await get(client, "explain", key=key, at=NOW.isoformat(), resolution="1day")
            assert (found["key"], found["equal"], found["events"]) == (key, True, 1)
            events = await get(client, "events", key=key)
            assert [(event["key"], event["value"]) for event in events["events"]] == [(key, number)]
            begins = await get(client, "series", prefix=key[:-1] or None)
            assert key in [one["key"] for one in begins["series"]]

        for wild in ("%", "_", "%%", "1__%", "\\", "*", ".*"):
            found = await get(client, "series", prefix=wild)
            assert all(one["key"].startswith(wild) for one in found["series"]), wild
        for name in ("func", "queue", "state", "worker_id", "error", "prefix"):
            assert (await get(client, "events", **{name: "x' OR '1'='1"}))["events"] == []


# -- page by page -----------------------------------------------------------------------------------------


async def test_series_come_page_by_page(dsn: str, connection: Connection, tables: Tables) -> None:
    keys = [f"app:{number:02}" for number in range(25)]
    await LogWriter(connection, tables).append(runs=[a_run(key, at_us=NOW_US) for key in [*keys, "apple", "other"]])
    await sequence_and_fold(connection, tables)
    async with asking(dsn) as client:
        seen, after = [], None
        for _ in range(4):
            page = await get(client, "series", prefix="app:", limit=10, after=after)
            assert page["matching"] == 25
            seen += [one["key"] for one in page["series"]]
            after = page["next"]
            if after is None:
                break
        begins = await get(client, "series", prefix="app:2", limit=10)

    assert seen == keys
    assert [one["key"] for one in begins["series"]] == keys[20:]


async def test_sizes_of_tables_are_listed_after_all_others(dsn: str, connection: Connection, tables: Tables) -> None:
    sizes = [one for table in ("jobs", "a") for one in table_sizes(table)]
    runs = [a_run(one.key, kind=one.kind, unit=one.unit, at_us=NOW_US) for one in sizes]
    others = ["app", "table:jobs:rows", "zebra"]
    await LogWriter(connection, tables).append(runs=[*runs, *(a_run(key, at_us=NOW_US) for key in others)])
    await sequence_and_fold(connection, tables)
    async with asking(dsn) as client:
        for limit in (1, 4, 100):
            seen = await walk(client, "series", "series", limit=limit)
            assert [one["key"] for one in seen] == [*others, *sorted(one.key for one in sizes)], limit
        gone = await get(client, "series", after="table:b:index_size_bytes", limit=1)

    assert [one["key"] for one in gone["series"]] == ["table:jobs:index_size_bytes"]


async def test_workers_come_page_by_page(dsn: str, connection: Connection, tables: Tables) -> None:
    for number in range(5):
        await LogWriter(connection, tables, f"w{number}").append(runs=[a_run(at_us=NOW_US)])
    await sequence_and_fold(connection, tables)
    async with asking(dsn) as client:
        first = await get(client, "workers", limit=3)
        second = await get(client, "workers", limit=3, after=first["next"])

    assert (first["workers"], second["workers"]) == (["w0", "w1", "w2"], ["w3", "w4"])
    assert second["next"] is None


@pytest.fixture
async def five_batches(connection: Connection, tables: Tables) -> list[float]:
    """Five batches of seven observations, half of them of a second series; returns all values in order."""
    writer = LogWriter(connection, tables)
    for batch in range(5):
        values = [float(10 * batch + number) for number in range(7)]
        series = Series("app:even" if batch % 2 == 0 else "app:odd", "counter", "count")
        await writer.append(runs=[ObservationRun(series, [NOW_US] * 7, array("d", values))])
    await sequence_and_fold(connection, tables)
    return [float(10 * batch + number) for batch in range(5) for number in range(7)]


async def test_events_come_page_by_page_without_gap_or_repetition(dsn: str, five_batches: list[float]) -> None:
    async with asking(dsn) as client:
        for limit in (4, 7, 100):
            seen: list[float] = []
            after, more = None, True
            while more:
                page = await get(client, "events", limit=limit, after=after)
                seen += [event["value"] for event in page["events"]]
                assert len(page["events"]) <= limit
                after, more = page["next"], page["more"]
            again = await get(client, "events", limit=limit, after=after)

            assert seen == five_batches, limit
            assert (again["events"], again["more"]) == ([], False), limit


async def test_a_tail_begins_some_batches_before_the_end_and_goes_on_past_what_does_not_match(
    dsn: str, five_batches: list[float], connection: Connection, tables: Tables
) -> None:
    async with asking(dsn) as client:
        page = await get(client, "events", after="-2", key="app:even")
        assert [event["value"] for event in page["events"]] == five_batches[-7:]
        assert page["next"].split(":")[0] == "5"
        nothing = await get(client, "events", after="-0", key="app:even")
        assert (nothing["events"], nothing["next"]) == ([], "5")

        await LogWriter(connection, tables).append(runs=[a_run("app:other"), a_run("app:even", [99.0])])
        await sequence_and_fold(connection, tables)

        later = await get(client, "events", after=page["next"], key="app:even")

    assert [event["value"] for event in later["events"]] == [99.0]


async def test_a_search_that_takes_too_long_says_where_to_go_on(
    dsn: str, five_batches: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "SEARCH_S", 0.0)
    async with asking(dsn) as client:
        seen, after, more = [], None, True
        for _ in range(50):
            page = await get(client, "events", after=after)
            seen += [event["value"] for event in page["events"]]
            after, more = page["next"], page["more"]
            if not more or not page["events"]:
                break

    assert seen == five_batches


# -- what it may take -----------------------------------------------------------------------------------------


async def test_series_are_found_by_any_part_of_their_key(dsn: str, connection: Connection, tables: Tables) -> None:
    keys = ["job:app.Mail:failed", "queue:mail:failed", "queue:mail:wait", "queue:ship:failed"]
    await LogWriter(connection, tables).append(runs=[a_run(key, at_us=NOW_US) for key in keys])
    await sequence_and_fold(connection, tables)
    async with asking(dsn) as client:
        found = {
            search: await walk(client, "series", "series", search=search, limit=1) for search in ("MAIL", "mai fa")
        }
        both = await get(client, "series", search="failed", prefix="queue:")

    assert [one["key"] for one in found["MAIL"]] == keys[:3]
    assert [one["key"] for one in found["mai fa"]] == keys[:2]
    assert ([one["key"] for one in both["series"]], both["matching"]) == ([keys[1], keys[3]], 2)


async def test_as_long_as_the_copy_is_loaded_the_database_is_asked(
    dsn: str, log: LogWriter, at_now: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = {"series": {}, "points": {"key": "app:took", "resolution": "1min", "range": 240}}
    async with asking(dsn) as client:
        expected = {path: await get(client, path, **given) for path, given in questions.items()}
    monkeypatch.setattr(series_module, "SOON_S", -1.0)
    monkeypatch.setattr(Reader, "replica", lambda self: asyncio.Event().wait())  # it takes for ever
    async with asking(dsn) as client:
        assert {path: await get(client, path, **given) for path, given in questions.items()} == expected
        assert (await client.get(f"{ROOT}/points?key=app:m")).status_code == 404


async def test_the_index_of_series_is_made_once_for_all_who_wait_for_it(
    dsn: str, log: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    index_kept = series_module._index_kept
    monkeypatch.setattr(series_module, "_index_kept", lambda *given: made.append(1) or index_kept(*given))
    async with asking(dsn) as client:
        await client.get("/api/v1/metrics")  # the copy is there now
        made.clear()
        monkeypatch.setattr(series_module, "_indexes", WeakKeyDictionary())

        answers = await asyncio.gather(*(get(client, "series", prefix="app:") for _ in range(20)))

    assert [len(answer["series"]) for answer in answers] == [3] * 20
    assert len(made) == 1


async def test_a_process_that_serves_the_page_loads_the_copy_at_its_start_and_spares_the_collector_it(
    dsn: str, log: LogWriter
) -> None:
    gc.unfreeze()
    follower_module._freeze.cache_clear()
    async with a_host(dsn) as (worker, metrics):
        running = asyncio.create_task(metrics.run(worker, worker.chancy))
        await asyncio.sleep(0)
        reader = metrics.readers.of(worker.chancy)
        assert not reader.following and reader._loading is None  # nobody asks here

        Api(authentication_backend=SimpleAuthBackend({})).build_starlette_app(worker, worker.chancy)

        async def is_loaded() -> bool:
            return reader.following and reader._loading is None

        await eventually(is_loaded)
        assert gc.get_freeze_count() > 10_000
        running.cancel()
        gc.unfreeze()


async def test_so_many_requests_take_a_few_connections_and_one_that_waits_too_long_is_told_when_to_come_again(
    dsn: str, log: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    most = 0
    async with asking(dsn) as client, connections(dsn, 1) as (watcher,):
        await get(client, "series")
        paths = [path for path in ASKED if path not in ("series", "resolutions")]
        asked = asyncio.gather(*(client.get(f"{ROOT}/{path}{ASKED[path]}") for path in paths * 6))
        while not asked.done():
            [(now,)] = await (await watcher.execute(count)).fetchall()
            most = max(most, now)
        assert {answer.status_code for answer in asked.result()} == {200}
        # Besides those: the log's writer, one that the pool has, and one that is closing.
        assert 1 < most <= limits.MAX_CONNECTIONS + 4

        monkeypatch.setattr(limits, "WAIT_S", 0.01)
        monkeypatch.setattr(limits, "MAX_CONNECTIONS", 0)
        monkeypatch.setattr(limits, "_rooms", WeakKeyDictionary())
        for path in paths:
            answer = await client.get(f"{ROOT}/{path}{ASKED[path]}")
            if path == "points":
                assert answer.status_code == 200  # from memory
                continue
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2"), path
            assert "try again" in answer.json()["title"], path


async def test_pages_of_large_events_end_at_a_number_of_bytes(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [10, 5_000, 30, 40, 9_000, 9_000]
    rows = [
        a_row(NOW_US + number, job_id=JOB.bytes, meta=msgspec.msgpack.encode({"text": "x" * size}))
        for number, size in enumerate(sizes)
    ]
    for part in (rows[:4], rows[4:]):
        await LogWriter(connection, tables).append(jobs=part)
    await sequence_and_fold(connection, tables)
    monkeypatch.setattr(events_module, "MAX_BYTES", 6_000)
    async with asking(dsn) as client:
        pages, after, more = [], None, True
        while more:
            page = await get(client, "events", after=after)
            pages.append([len(event["meta"]["text"]) for event in page["events"]])
            after, more = page["next"], page["more"]
        life = await get(client, f"jobs/{JOB}")
        found = await get(client, "explain", key="global:status:succeeded", at=NOW.isoformat(), resolution="1hour")

    assert [size for page in pages for size in page] == sizes
    assert all(sum(page) < 6_000 or len(page) == 1 for page in pages)
    for events in (life["updates"], *(found[name] for name in ("largest", "failed", "first"))):
        for event in events:
            assert len(event.get("meta", {}).get("text", "")) < 5_000
            assert ("meta" in event) != ("left out" in event.get("damage", ""))


async def test_numbers_are_finite_where_a_sum_is_past_the_largest_float(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    largest = sys.float_info.max
    for sign, kind in ((1, "counter"), (-1, "histogram")):
        await LogWriter(connection, tables).append(
            runs=[a_run(f"app:{kind}", [sign * largest] * 3, kind=kind, at_us=NOW_US)]
        )
    await sequence_and_fold(connection, tables)
    async with asking(dsn) as client:
        for sign, kind in ((1, "counter"), (-1, "histogram")):
            points = await get(client, "points", key=f"app:{kind}", resolution="1day", range=2 * 86_400)
            found = await get(client, "explain", key=f"app:{kind}", at=NOW.isoformat(), resolution="1day")

            assert [one["sum"] for one in points["buckets"] if "sum" in one] == [sign * largest]
            for name in ("stored", "recomputed"):
                assert (found[name]["sum"], found[name]["average"]) == (sign * largest, sign * largest), name


# -- the shell --------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What of a page could run or load something."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[dict[str, str | None]] = []
        self.loaded: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        if tag == "script":
            self.scripts.append(given)
        self.loaded += [str(given[name]) for name in ("src", "href") if name in given]
        if tag in ("style", "base", "iframe", "object", "embed"):
            self.inline.append(tag)


async def test_the_shell_is_public_and_runs_only_its_own_scripts(dsn: str) -> None:
    async with asking(dsn, token=False) as client:
        answer = await client.get("/metrics-log")
        page = Page()
        page.feed(answer.text)

        policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert page.inline == []
        assert [script["type"] for script in page.scripts] == ["module"] and "src" in page.scripts[0]
        assert not [url for url in page.loaded if "//" in url or url.startswith(("/", "data:", "javascript:"))]
        for url in page.loaded:
            if url.startswith("metrics-log/"):
                assert (await client.get(f"/{url}")).status_code == 200, url


async def test_no_script_of_the_page_makes_markup_of_data_or_reaches_another_host() -> None:
    for path in files.files().values():
        text = path.read_text()
        for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http:", "https:"):
            assert forbidden not in text, (path.name, forbidden)
        assert len(text.splitlines()) < 300, path.name


async def test_no_other_file_is_sent(dsn: str) -> None:
    names = (
        "routes.py",
        "__init__.py",
        "..%2Froutes.py",
        "%2e%2e",
        "..%5Croutes.py",
        "page.js%00",
        "PAGE.JS",
        "x.js",
        "py.typed",
    )
    async with asking(dsn, token=False) as client:
        for name in names:
            answer = await client.get(f"/metrics-log/{name}")

            # A path of two segments is the dashboard's.
            assert answer.status_code == 404 or 'id="root"' in answer.text, name
            assert "import" not in answer.text, name


async def test_a_file_is_sent_compressed_and_once(dsn: str) -> None:
    async with asking(dsn, token=False) as client:
        first = await client.get("/metrics-log/page.js")
        again = await client.get("/metrics-log/page.js", headers={"If-None-Match": first.headers["etag"]})
        plain = await client.get("/metrics-log/page.js", headers={"Accept-Encoding": "identity"})

    assert first.headers["content-encoding"] == "gzip" and "content-encoding" not in plain.headers
    assert first.text == plain.text == (files.PAGE / "page.js").read_text()
    assert (again.status_code, again.content) == (304, b"")
    assert first.headers["content-type"].startswith("text/javascript")


async def test_each_encoding_of_a_file_has_its_own_tag_and_head_answers_like_get(dsn: str) -> None:
    zipped, plain = {"Accept-Encoding": "br, gzip;q=0.8"}, {"Accept-Encoding": "gzip;q=0, *;q=0.5"}
    async with asking(dsn, token=False) as client:
        tags = {}
        for name, sent in (("gzip", zipped), (None, plain)):
            first = await client.get("/metrics-log/page.js", headers=sent)
            assert first.headers.get("content-encoding") == name
            tags[name] = first.headers["etag"]
            head = await client.head("/metrics-log/page.js", headers=sent)
            assert (head.status_code, head.content, head.headers) == (200, b"", first.headers)
        assert tags["gzip"] != tags[None]

        for known, sent, status in (
            (tags["gzip"], zipped, 304),
            (tags["gzip"], plain, 200),
            (f'"x", W/{tags[None]}', plain, 304),
            ("*", plain, 304),
            (tags[None].strip('"'), plain, 200),
            (tags[None].replace('"', "", 1), plain, 200),
        ):
            answer = await client.get("/metrics-log/page.js", headers=sent | {"If-None-Match": known})
            assert answer.status_code == status, (known, sent)
            assert answer.headers["etag"] == tags["gzip" if sent is zipped else None]


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [
        ("", False),
        ("gzip", True),
        ("x-gzip", True),
        ("GZIP ; Q=1.000", True),
        ("deflate, gzip;q=0.001", True),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("*, gzip;q=0", False),
        ("gzip;q=0.5, identity", False),
        ("gzip, identity;q=0.5", True),
        ("identity", False),
        ("gzipped", False),
        ("gzip;q=x", False),
        ("gzip;q=-1", False),
        ("gzip;q=2", False),
    ],
)
def test_weights_decide_whether_a_file_is_compressed(accepted: str, takes: bool) -> None:
    assert files.takes_gzip(accepted) is takes


async def test_plotlys_script_is_the_one_in_its_package(dsn: str) -> None:
    path = files.plotly_script()
    assert path is not None
    async with asking(dsn, token=False) as client:
        answer = await client.get("/metrics-log/plotly.min.js")

    assert answer.content == path.read_bytes()
    assert answer.headers["cache-control"] == "public, max-age=86400"


async def test_without_plotly_it_says_how_to_install_it(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "plotly_script", lambda: None)
    async with asking(dsn, token=False) as client:
        answer = await client.get("/metrics-log/plotly.min.js")

    assert (answer.status_code, answer.headers["cache-control"]) == (404, "no-store")
    assert "pip install 'chancy-metrics[page]'" in answer.text


async def test_the_dashboards_own_pages_stay_as_they_are(dsn: str) -> None:
    async with asking(dsn) as client:
        for path in ("/", "/metrics", f"/metrics/{quote('queue:mail')}", "/metrics-log/x/y"):
            assert 'id="root"' in (await client.get(path)).text, path


def test_the_document_names_every_route_and_parameter() -> None:
    text = (processes.ROOT / "docs" / "http.md").read_text()

    for route in page_routes():
        assert f"`{route['path'].removeprefix('/api/v1')}" in text, route["path"]
    parameters = (
        "prefix search after limit key resolution since until range worker_id at kind producer func queue state"
    )
    for parameter in [*parameters.split(), "job_id", "error"]:
        assert f"`{parameter}" in text, parameter
