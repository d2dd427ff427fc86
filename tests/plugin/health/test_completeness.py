"""Completeness says of a window where its numbers come from, how far they go and what may be missing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import httpx
import pytest
from chancy import Chancy, Worker
from chancy.plugins.api import Api, SimpleAuthBackend

from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.health import completeness as module
from chancy_metrics.plugin.health.completeness import complete, completeness, recent_completeness
from chancy_metrics.plugin.health.completeness_facts import End, Facts
from chancy_metrics.plugin.health.status_reader import read_status
from chancy_metrics.projections.versions.left_out import LeftOut
from tests.commands import run
from tests.factories import LogWriter, a_run, an_app, fetch, sequence_and_fold

DAY = datetime(2026, 3, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOTHING = Facts(7, {}, LeftOut(1, 0, 0, 0, 0, [], []), 0, 0, None, [], 0, ())
GONE = NOTHING._replace(last_gone=date(2026, 3, 9))


@pytest.mark.parametrize(
    ("facts", "since", "until", "source"),
    [
        (NOTHING, None, None, "raw"),
        (NOTHING, DAY, DAY + HOUR, "raw"),
        (GONE, None, None, "baseline and raw"),
        (GONE, DAY, DAY + HOUR, "raw"),
        (GONE, DAY, None, "raw"),
        (GONE, DAY - HOUR, DAY, "baseline"),
        (GONE, None, DAY, "baseline"),
        (GONE, DAY - HOUR, DAY + HOUR, "baseline and raw"),
        (GONE, DAY - HOUR, None, "baseline and raw"),
    ],
)
def test_the_source_is_where_the_windows_time_lies(
    facts: Facts, since: datetime | None, until: datetime | None, source: str
) -> None:
    found = complete(facts, 1.0, since, until)

    assert found.source == source
    assert found.raw_since == (None if facts is NOTHING else DAY)
    assert (found.position, found.since, found.until) == (7, since, until)


def test_what_may_be_missing_is_an_interval_for_each_producer_whose_last_batch_lies_in_the_window() -> None:
    ended = [End("w1", DAY), End("w1", DAY + HOUR), End("w2", DAY + HOUR), End("w3", DAY + 2 * HOUR)]
    facts = NOTHING._replace(ended=ended)

    hour = complete(facts, 0.5, DAY + HOUR, DAY + 2 * HOUR)
    ever = complete(facts, 0.5)

    assert (hour.ended_uncleanly, hour.uncertain_s) == (2, 1.0)
    assert (ever.ended_uncleanly, ever.uncertain_s) == (3, 2.0)


def test_counts_without_dates_say_so_in_a_window_and_not_of_all_time() -> None:
    facts = NOTHING._replace(
        counts={"rejected:key": 2, "dropped": 3, "dropped_job_updates": 6, "skewed": 4},
        holes=5,
        left_out=LeftOut(1, 14, 8, 40, 0, [], []),
    )

    window, ever = complete(facts, 1.0, DAY), complete(facts, 1.0)

    assert (window.rejected, window.dropped, window.skewed, window.holes) == ({"key": 2}, 3, 4, 5)
    assert window.dropped_job_updates == 6
    assert (window.dead_letters, window.discarded) == (6, 8)
    assert set(window.for_all_time) == {
        *("rejected", "dropped", "dropped_job_updates", "skewed", "expired", "cut_meta", "buffered"),
        *("holes", "set_aside"),
    }
    assert ever.for_all_time == []


async def test_a_batch_that_still_waits_for_its_position_is_no_hole(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    refused, deleted = LogWriter(connection, tables, "refused"), LogWriter(connection, tables, "deleted")
    for writer in (refused, deleted):
        await writer.spill(runs=[a_run("app:n", [1.0] * 9)])
        await writer.append(runs=[a_run("app:n")])
    await fetch(connection, "ALTER TABLE {log} ADD CONSTRAINT small CHECK (events < 9)", tables)
    await sequence_and_fold(connection, tables)

    async with an_app(dsn) as (chancy, _):
        status = await read_status(chancy)
        assert (status.completeness.holes, status.spilled_batches) == (0, 2)
        assert not any("missing" in reason for reason in status.unhealthy)

        await fetch(connection, f"DELETE FROM {{spill}} WHERE producer = '{deleted.producer}'", tables)
        status = await read_status(chancy)
        assert status.completeness.holes == 1
        assert any("1 batch is missing" in reason for reason in status.unhealthy)


async def test_a_producer_without_a_session_ended_uncleanly_after_three_minutes_of_silence(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    for worker in ("dead", "alive", "young", "clean"):
        await LogWriter(connection, tables, worker).append(runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)
    long_ago = "UPDATE {producers} SET seen_at = seen_at - interval '181 s' WHERE worker <> 'young'"
    session = (
        "INSERT INTO {sessions} SELECT producer, worker, ARRAY[producer], 1 FROM {producers} WHERE worker = 'alive'"
    )
    await fetch(connection, session, tables)
    await fetch(connection, long_ago, tables)
    await fetch(connection, "UPDATE {producers} SET closed = true WHERE worker = 'clean'", tables)
    async with an_app(dsn, Metrics(append_interval=2.5)) as (chancy, _):
        now = datetime.now(UTC)
        found = await completeness(chancy, now - HOUR, now)
        before = await completeness(chancy, None, now - HOUR)

    assert (found.ended_uncleanly, found.uncertain_s, found.position) == (1, 2.5, 4)
    assert (before.ended_uncleanly, before.uncertain_s) == (0, 0)


async def test_a_dead_letter_is_unhealthy_until_it_is_given_up(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    insert = "INSERT INTO {dead_letters} (version, position, error) VALUES (%(version)s, 1, 'broken')"
    for version in (0, 1):
        await fetch(connection, insert, tables, version=version)
    async with an_app(dsn) as (chancy, _):
        undecided = await read_status(chancy)
        await fetch(connection, "UPDATE {dead_letters} SET discarded_at = clock_timestamp()", tables)
        given_up = await read_status(chancy)

    assert (undecided.completeness.dead_letters, undecided.completeness.discarded) == (1, 0)
    assert any("1 batch could not be folded" in reason for reason in undecided.unhealthy)
    assert (given_up.completeness.dead_letters, given_up.completeness.discarded) == (0, 1)
    assert given_up.unhealthy == []


async def test_a_naive_moment_is_refused(dsn: str) -> None:
    async with an_app(dsn) as (chancy, _):
        with pytest.raises(MetricsLogError, match="has no zone"):
            await completeness(chancy, datetime(2026, 3, 10))


async def test_the_command_tells_counts_of_the_window_from_those_of_all_time(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await fetch(connection, "INSERT INTO {days} VALUES ('2026-03-09', 'gone', now(), 0)", tables)

    text = run(dsn, "completeness", "--since", "2026-03-09T12:00", "--until", "2026-03-10T12:00Z")
    answer = json.loads(run(dsn, "completeness", "--since", "2h", "--json").stdout)

    assert text.returncode == 0, text.stderr
    lines = dict(line.split(maxsplit=1) for line in text.stdout.splitlines())
    assert lines["window"] == "2026-03-09 12:00:00 to 2026-03-10 12:00:00 UTC"
    assert lines["from"] == "baseline and raw, raw since 2026-03-10"
    assert lines["dropped"] == "0 observations, 0 job updates (of all time)"
    assert lines["uncertain"] == "up to 0 s of custom observations"
    assert "unclean ends    0 sessions\n" in text.stdout
    assert answer["source"] == "raw"
    assert timedelta(hours=1.9) < datetime.now(UTC) - datetime.fromisoformat(answer["since"]) < timedelta(hours=2.1)


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[tuple[httpx.AsyncClient, Chancy]]:
    api = Api(authentication_backend=SimpleAuthBackend({"ann": "secret"}))
    async with Chancy(dsn, plugins=[Metrics(), api]) as chancy:
        worker = Worker(chancy, register_signal_handlers=False)
        transport = httpx.ASGITransport(api.build_starlette_app(worker, chancy))
        async with httpx.AsyncClient(transport=transport, base_url="http://dashboard") as client:
            login = await client.post("/api/v1/login", json={"username": "ann", "password": "secret"})
            client.headers["Authorization"] = f"Bearer {login.json()['token']}"
            yield client, chancy


async def test_the_http_answer_has_its_windows_completeness(
    client: tuple[httpx.AsyncClient, Chancy], connection: Connection, tables: Tables
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)

    answer = (await client[0].get("/api/v1/metrics/app")).json()

    said = answer["completeness"]
    assert (said["source"], said["position"], said["uncertain_s"]) == ("raw", 1, 0)
    moments = [datetime.fromisoformat(said[name]) for name in ("since", "until")]
    assert moments == [datetime.fromisoformat(answer[name]) for name in ("start", "end")]


async def test_a_database_that_does_not_say_costs_the_answer_only_its_completeness(
    client: tuple[httpx.AsyncClient, Chancy], connection: Connection, tables: Tables
) -> None:
    await client[0].get("/api/v1/metrics/app")  # the copy is there from now on
    await fetch(connection, "DROP TABLE {dead_letters} CASCADE", tables)
    module._recent.clear()

    answer = await client[0].get("/api/v1/metrics/app")

    assert (answer.status_code, answer.json()["completeness"]) == (200, None)


async def test_the_database_is_asked_once_in_some_seconds(dsn: str, connection: Connection, tables: Tables) -> None:
    async with an_app(dsn) as (chancy, _):
        first = await recent_completeness(chancy, DAY, DAY + HOUR)
        await fetch(connection, "UPDATE {versions} SET position = 17", tables)
        again = await recent_completeness(chancy, DAY, DAY + HOUR)
        other = await recent_completeness(chancy, DAY, DAY + 2 * HOUR)

    assert first is not None and other is not None
    assert first == again
    assert (first.position, other.position, other.until) == (0, 0, DAY + 2 * HOUR)
