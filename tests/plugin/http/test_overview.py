"""GET overview: numbers of a range that match the facts behind them, in any order, page by page."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from chancy_metrics.events.database import Connection
from chancy_metrics.events.facts import Combo, JobRow, microseconds
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.host import clock
from chancy_metrics.plugin.http import overview_order, overview_workers
from chancy_metrics.plugin.http.overview_order import BY_QUANTILE, PLAIN
from chancy_metrics.projections.rules.measured import oldest_wait, queue_depths
from tests.factories import LogWriter, a_row, a_run, fetch, sequence_and_fold
from tests.plugin.http.test_routes import MINUTE_US, NOW, NOW_US, asking, at_now, get

__all__ = ["at_now"]  # a fixture

#: The sketch's error.
ERROR = 0.0055


def attempt(func: str, at_us: int, run_s: float = 1.0, *, state: str = "succeeded", queue: str = "default") -> JobRow:
    """An attempt that ran for some seconds, two seconds after it was due."""
    started_us = at_us - round(run_s * 1e6)
    due_us = started_us - 2_000_000
    combo = Combo(func, queue, state, 1, "")
    return a_row(at_us, combo=combo, started_us=started_us, scheduled_us=due_us, created_us=due_us)


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[httpx.AsyncClient]:
    async with asking(dsn) as one:
        yield one


@pytest.fixture
def fill(connection: Connection, tables: Tables) -> Callable[..., Any]:
    """Append to the log, and fold it."""

    async def append(*jobs: JobRow, **more: Any) -> None:
        await LogWriter(connection, tables, "worker-1").append(jobs=jobs, **more)
        await sequence_and_fold(connection, tables)

    return append


def nearest_rank(values: list[float], percent: int) -> float:
    return sorted(values)[max(1, math.ceil(len(values) * percent / 100)) - 1]


async def test_a_row_adds_up_what_a_function_did_in_the_range(
    client: httpx.AsyncClient, fill: Callable[..., Any], at_now: None
) -> None:
    ago = [NOW_US - minutes * MINUTE_US for minutes in (1, 6, 11, 14)]
    await fill(
        *(attempt("app.mail", at_us, 2.0) for at_us in ago[:3]),
        attempt("app.mail", ago[3], 3.0, state="failed"),
        attempt("app.mail", ago[1], 3.0, state="retrying", queue="slow"),
        attempt("app.other", NOW_US - 40 * MINUTE_US),
    )
    functions = await get(client, "overview", range=900)
    queues = await get(client, "overview", range=900, table="queues", order="name", direction="ascending")

    assert (functions["resolution"], functions["width_s"], functions["matching"]) == ("1min", 60, 1)
    [row] = functions["rows"]
    assert (row["name"], row["count"], row["failed"], row["retried"]) == ("app.mail", 5, 1, 1)
    assert row["failure_ratio"] == 0.25  # of the four that ended
    assert (row["run"]["count"], row["run"]["sum_s"]) == (5, 12.0)
    assert (row["wait"]["count"], row["wait"]["sum_s"]) == (4, 8.0)  # a retry has none
    assert abs(row["rate_per_s"] - 5 / (15 * 60 + 30)) < 1e-9  # whole minutes, and the current one until now
    assert row["keys"] == [f"job:app.mail:{ending}" for ending in ENDINGS]
    assert [(row["name"], row["count"]) for row in queues["rows"]] == [("default", 4), ("slow", 1)]
    assert queues["rows"][0]["keys"][0] == "queue:default:throughput"


ENDINGS = ("succeeded", "failed", "retrying", "execution_time", "wait_time", "total_time")


async def test_quantiles_are_of_all_values_of_the_range_and_not_of_those_of_its_buckets(
    client: httpx.AsyncClient, fill: Callable[..., Any], at_now: None
) -> None:
    chance = random.Random(7)
    busy = [chance.uniform(0.1, 0.2) for _ in range(990)]
    quiet = [30.0 + chance.random() for _ in range(10)]  # a minute of few slow jobs: an average of p95 would be 15 s
    values = busy + quiet
    await fill(*(attempt("app.mail", NOW_US - (9 if run_s > 1 else 3) * MINUTE_US, run_s) for run_s in values))

    [row] = (await get(client, "overview", range=900))["rows"]

    for name, percent in (("p50", 50), ("p95", 95), ("p99", 99)):
        exact = nearest_rank([round(value, 6) for value in values], percent)
        assert abs(row["run"][name] - exact) <= ERROR * exact, name
    assert row["run"]["p95"] < 0.21


@pytest.mark.parametrize("direction", ["descending", "ascending"])
@pytest.mark.parametrize("order", [*PLAIN, *BY_QUANTILE])
async def test_rows_come_in_the_order_of_any_column_and_those_without_a_value_last(
    client: httpx.AsyncClient,
    fill: Callable[..., Any],
    at_now: None,
    monkeypatch: pytest.MonkeyPatch,
    order: str,
    direction: str,
) -> None:
    monkeypatch.setattr(overview_order, "_AT_ONCE", 2)
    await fill(*some_attempts())

    table = {"order": order, "direction": direction, "range": 900}
    whole = await get(client, "overview", **table)
    pages = [await get(client, "overview", limit=5, after=after, **table) for after in (0, 5, 10)]

    rows = whole["rows"]
    values = [value_of(row, order) for row in rows]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=direction == "descending")
    assert values[: len(known)] == known and len(rows) == 12
    assert whole["certain"] and all(page["certain"] for page in pages)
    assert [row for page in pages for row in page["rows"]] == rows
    assert [page["next"] for page in pages] == ["5", "10", None]


def some_attempts() -> list[JobRow]:
    """Attempts of twelve functions, of which one only succeeded before the range, and one never."""
    chance = random.Random(3)
    rows = [
        attempt(
            f"app.f{number:02}",
            NOW_US - chance.randrange(13) * MINUTE_US,
            chance.lognormvariate(0, 1) * (1 + number % 4),
            state=chance.choice(["succeeded", "succeeded", "failed", "retrying"]),
        )
        for number in range(11)
        for _ in range(number + 2)
    ]
    return [
        *rows,
        *(attempt("app.f01", NOW_US - minutes * MINUTE_US) for minutes in (20, 25)),
        attempt("app.gone", NOW_US - 28 * MINUTE_US),
        attempt("app.old", NOW_US - 50 * MINUTE_US),
    ]


def value_of(row: dict[str, Any], order: str) -> Any:
    if order == "oldest_wait":
        return row["oldest_wait_s"]
    first, _, second = order.partition(".")
    return row[first] if not second else row[first] and row[first][second]


async def test_an_order_that_would_take_too_many_sketches_is_said_to_be_uncertain(
    client: httpx.AsyncClient, fill: Callable[..., Any], at_now: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview_order, "_AT_ONCE", 1)
    monkeypatch.setattr(overview_order, "MAX_SKETCHES", 16)  # one row of 16 buckets
    slow_once = [attempt(f"app.f{n}", NOW_US - MINUTE_US, 50.0 + n) for n in range(5)]
    quick = [attempt(f"app.f{n}", NOW_US - 3 * MINUTE_US, 0.5) for n in range(5) for _ in range(200)]
    await fill(*slow_once, *quick)

    first = await get(client, "overview", range=900, order="run.p95", limit=1)
    count = await get(client, "overview", range=900, order="count", limit=1)

    assert not first["certain"] and count["certain"]
    assert first["rows"][0]["run"]["p95"] < 1


async def test_a_range_is_compared_with_the_one_before_where_all_of_that_is_in_the_log(
    dsn: str, fill: Callable[..., Any], at_now: None
) -> None:
    before = [attempt("app.mail", NOW_US - minutes * MINUTE_US) for minutes in (17, 20, 25, 29)]
    now = [attempt("app.mail", NOW_US - minutes * MINUTE_US) for minutes in (1, 2, 3, 4, 5, 6)]
    await fill(*before, *now, attempt("app.first", NOW_US - 5 * MINUTE_US))

    async with asking(dsn) as client:
        [unknown, _] = (await get(client, "overview", range=900, order="count"))["rows"]
    await fill(attempt("app.gone", NOW_US - 30 * MINUTE_US))
    async with asking(dsn) as client:
        rows = {row["name"]: row for row in (await get(client, "overview", range=900, order="count"))["rows"]}

    assert (unknown["count_before"], unknown["change"]) == (None, None)  # nothing says that there was not more
    assert rows["app.mail"]["count_before"] == 4
    elapsed_s = 15 * 60 + 30
    assert abs(rows["app.mail"]["change"] - (6 / elapsed_s / (4 / 900) - 1)) < 1e-9
    assert (rows["app.first"]["count_before"], rows["app.first"]["change"]) == (0, None)
    assert (rows["app.gone"]["count"], rows["app.gone"]["count_before"], rows["app.gone"]["change"]) == (0, 1, -1)


@pytest.mark.parametrize(
    ("range_s", "resolution", "compares"),
    [
        (900, "1min", True),
        (3_600, "5min", True),
        (6 * 3_600, "5min", True),
        (86_400, "1hour", True),
        (7 * 86_400, "1day", True),
        (30 * 86_400, "1day", True),
        (90 * 86_400, "1day", False),
    ],
)
async def test_a_range_has_few_buckets_and_the_one_before_is_kept_at_the_same_resolution(
    client: httpx.AsyncClient, fill: Callable[..., Any], at_now: None, range_s: int, resolution: str, compares: bool
) -> None:
    await fill(
        attempt("app.mail", NOW_US - MINUTE_US), attempt("app.mail", NOW_US - 80 * 86_400 * 1_000_000, queue="old")
    )

    found = await get(client, "overview", range=range_s)

    assert found["resolution"] == resolution
    [row] = found["rows"]
    assert len(row["counts"]) <= 91
    assert sum(count or 0 for count in row["counts"]) == row["count"] == (2 if range_s == 90 * 86_400 else 1)
    assert (row["count_before"] is not None) == compares or range_s < 86_400 * 7


async def test_buckets_of_which_the_log_holds_nothing_have_no_count(
    client: httpx.AsyncClient, fill: Callable[..., Any], at_now: None
) -> None:
    await fill(attempt("app.mail", NOW_US - 2 * MINUTE_US), runs=[a_run("app:n", at_us=NOW_US - MINUTE_US)])

    [row] = (await get(client, "overview", range=180))["rows"]

    assert row["counts"] == [None, 1, 0, None]


async def test_a_queue_shows_the_last_sample_of_its_depth_unless_it_is_stale(
    client: httpx.AsyncClient, fill: Callable[..., Any], at_now: None
) -> None:
    def samples(queue: str, at_us: int) -> list[Any]:
        depths = zip(queue_depths(queue), (7.0, 2.0, 3.0, 99.0), strict=True)
        waits = (oldest_wait(queue), 61.5)
        return [
            a_run(series.key, [value], kind="gauge", unit=series.unit, at_us=at_us)
            for series, value in (*depths, waits)
        ]

    await fill(runs=[*samples("mail", NOW_US - MINUTE_US), *samples("gone", NOW_US - 8 * MINUTE_US)])
    rows = (await get(client, "overview", table="queues", range=900, order="depth"))["rows"]

    assert [(row["name"], row["depth"], row["oldest_wait_s"]) for row in rows] == [("mail", 10, 61.5)]  # due: 7 + 3
    assert (rows[0]["count"], rows[0]["failure_ratio"], rows[0]["run"]) == (0, None, None)


async def test_rows_are_found_by_words_in_their_names_whatever_these_hold(
    client: httpx.AsyncClient, fill: Callable[..., Any], at_now: None
) -> None:
    names = ["app.Mail.send", "app.mail.open", "<b>it's</b> %s:failed", "x" * 900, "a:succeeded"]
    await fill(*(attempt(name, NOW_US - MINUTE_US) for name in names))

    found = await get(client, "overview", search="MAIL send")
    every = await get(client, "overview", limit=200)
    none = await get(client, "overview", search="%")

    assert [row["name"] for row in found["rows"]] == ["app.Mail.send"]
    assert {names[2], names[4]} < {row["name"] for row in every["rows"]} and every["matching"] == 5
    assert [row["name"] for row in none["rows"]] == [names[2]]
    for row in every["rows"]:
        for key in row["keys"]:
            assert (await get(client, "points", key=key, range=900))["key"] == key


async def begin_session(connection: Connection, tables: Tables, worker: str, seen: datetime, *, ended: bool) -> None:
    await fetch(
        connection,
        "INSERT INTO {sessions} (session, worker, producers, append_interval, started_at, seen_at, ended_at)"
        " VALUES (gen_random_uuid(), %(worker)s, '{{}}', 1, %(seen)s - interval '1 hour', %(seen)s, %(ended)s)",
        tables,
        worker=worker,
        seen=seen,
        ended=seen if ended else None,
    )


async def test_workers_are_listed_with_what_each_did_and_when_it_was_last_seen(
    client: httpx.AsyncClient, connection: Connection, tables: Tables, at_now: None
) -> None:
    for number, worker in enumerate(("busy", "<b>%s</b>")):
        jobs = [attempt("app.mail", NOW_US - minutes * MINUTE_US, 30.0, queue=f"q{minutes}") for minutes in (1, 2, 3)]
        jobs += [attempt("app.mail", NOW_US - 4 * MINUTE_US, 2.0, state="failed")] * number
        await LogWriter(connection, tables, worker).append(jobs=jobs)
    await sequence_and_fold(connection, tables)
    await begin_session(connection, tables, "busy", NOW, ended=False)
    await begin_session(connection, tables, "idle", NOW - timedelta(minutes=5), ended=True)
    await begin_session(connection, tables, "gone", NOW - timedelta(hours=5), ended=True)

    asked = {"table": "workers", "range": 900}
    found = await get(client, "overview", **asked)
    rows = {row["name"]: row for row in found["rows"]}
    pages = [(await get(client, "overview", limit=1, after=after, **asked))["rows"] for after in range(3)]
    named = await get(client, "overview", order="name", direction="ascending", search="B", **asked)

    assert list(rows) == ["busy", "idle", "<b>%s</b>"] and found["matching"] == 3  # last seen first
    assert [row for page in pages for row in page] == found["rows"]
    assert [row["name"] for row in named["rows"]] == ["<b>%s</b>", "busy"]
    busy, other = rows["busy"], rows["<b>%s</b>"]
    assert (busy["count"], busy["failed"], busy["failure_ratio"], busy["run_s"]) == (3, 0, 0, 90.0)
    assert (other["count"], other["failed"], other["failure_ratio"], other["run_s"]) == (4, 1, 0.25, 92.0)
    assert busy["counts"][-5:] == [0, 1, 1, 1, None] and busy["counts"][0] is None
    assert busy["busy"] == pytest.approx(30 * busy["rate_per_s"])
    assert (busy["ended_at"], rows["idle"]["count"], other["seen_at"]) == (None, 0, None)
    assert rows["idle"]["ended_at"] is not None
    points = await get(client, "points", key=busy["keys"][0], worker_id="busy", range=900)
    assert sum(bucket.get("sum", 0) for bucket in points["buckets"]) in (0, 3)


async def test_workers_whose_points_are_too_many_to_read_have_no_counts(
    client: httpx.AsyncClient, fill: Callable[..., Any], at_now: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview_workers, "MAX_CELLS", 3)
    await fill(attempt("app.mail", NOW_US - MINUTE_US))

    [row] = (await get(client, "overview", table="workers", range=900))["rows"]

    assert (row["name"], row["count"], row["run_s"], row["counts"]) == ("worker-1", None, None, [])


async def test_an_empty_log_has_no_rows(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "utc_now", lambda: NOW + timedelta(hours=1))
    for table in ("functions", "queues", "workers"):
        found = await get(client, "overview", table=table)
        assert (found["rows"], found["matching"], found["next"], found["recorded_since"]) == ([], 0, None, None)


@pytest.mark.parametrize(("minutes", "finely"), [((14, 1), True), ((4_000, 1), False)])
async def test_it_says_since_when_anything_was_recorded_as_finely_as_that_is_kept(
    client: httpx.AsyncClient, fill: Callable[..., Any], at_now: None, minutes: tuple[int, int], finely: bool
) -> None:
    await fill(*(attempt("app.mail", NOW_US - one * MINUTE_US) for one in minutes))

    since = datetime.fromisoformat((await get(client, "overview"))["recorded_since"])

    width_us = MINUTE_US if finely else 60 * MINUTE_US  # three days ago only hours are kept
    assert microseconds(since) == (NOW_US - minutes[0] * MINUTE_US) // width_us * width_us
