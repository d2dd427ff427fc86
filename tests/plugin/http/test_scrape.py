"""Scrapes on Chancy's API server: who may scrape, in which form, and what is said where something can't be read."""

from __future__ import annotations

import gzip
import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from chancy import Chancy, Worker
from chancy.plugins.api import Api, SimpleAuthBackend
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from psycopg import sql

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.telemetry.exposition import OPENMETRICS, PLAIN, PROTOBUF
from chancy_metrics.projections.rules.measured import WORKERS_ACTIVE
from tests.factories import LogWriter, a_row, a_run, fetch, now_us, sequence_all
from tests.plugin.telemetry.client_model import read_families
from tests.plugin.telemetry.test_exposition import CLASSIC, NATIVE

TOKEN = "0123456789abcdef-right"
PATH = "/metrics-log/prometheus"


@asynccontextmanager
async def scraping(
    dsn: str, token: str | None = TOKEN, *, bear: str | None = TOKEN, **headers: str
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API server in which nothing of the plugin's runs."""
    api = Api(authentication_backend=SimpleAuthBackend({}))
    async with Chancy(dsn, plugins=[Metrics(scrape_token=token), api]) as chancy:
        transport = httpx.ASGITransport(api.build_starlette_app(Worker(chancy, register_signal_handlers=False), chancy))
        async with httpx.AsyncClient(transport=transport, base_url="http://dashboard", headers=headers) as client:
            if bear is not None:
                client.headers["Authorization"] = f"Bearer {bear}"
            yield client


def samples(text: str) -> dict[str, float]:
    """Sample with its labels -> value."""
    return {
        one.name + "".join(f"{{{name}={value}}}" for name, value in sorted(one.labels.items())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


@pytest.fixture
async def held(connection: Connection, tables: Tables) -> None:
    """Three job updates."""
    jobs = [a_row(func="app.mail") for _ in range(3)]
    await LogWriter(connection, tables).append(jobs=jobs, runs=[a_run("orders:placed", [2.0])])
    await sequence_all(connection, tables)


async def test_it_is_off_without_a_token_in_the_settings(dsn: str) -> None:
    async with scraping(dsn, None) as client:
        answer = await client.get(PATH)

    assert (answer.status_code, answer.text) == (
        404,
        "scrapes are off here: Metrics(scrape_token=…) switches them on\n",
    )


WRONG = ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN, "Bearer é"]


@pytest.mark.parametrize("header", [None, *WRONG])
async def test_without_the_right_token_nothing_is_answered(dsn: str, header: str | None) -> None:
    async with scraping(dsn, bear=None) as client:
        answer = await client.get(PATH, headers={} if header is None else {b"Authorization": header.encode()})  # type: ignore[arg-type]

    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.text == "a scrape needs the header `Authorization: Bearer TOKEN` with the right token\n"


@pytest.mark.parametrize(("accept", "form"), [(NATIVE, PROTOBUF), (CLASSIC, OPENMETRICS), ("*/*", PLAIN)])
async def test_each_client_gets_the_form_that_it_likes_best(dsn: str, held: None, accept: str, form: str) -> None:
    async with scraping(dsn, Accept=accept) as client:
        answer = await client.get(PATH)

    assert (answer.status_code, answer.headers["content-type"]) == (200, form)
    assert answer.headers["content-encoding"] == "gzip" and answer.headers["cache-control"] == "no-store"
    names = (
        {one.name for one in read_families(answer.content)}
        if form == PROTOBUF
        else {line.split()[2] for line in answer.text.splitlines() if line.startswith("# TYPE")}
    )
    assert {"chancy_jobs_total", "chancy_jobs"} & names and "chancy_metrics_healthy" in names


async def test_only_who_takes_it_gets_gzip(dsn: str, held: None) -> None:
    async with scraping(dsn, **{"Accept": CLASSIC, "Accept-Encoding": "identity"}) as client:
        answer = await client.get(PATH)
        zipped = await client.get(PATH, headers={"Accept-Encoding": "gzip"})

    assert "content-encoding" not in answer.headers and "content-encoding" in zipped.headers
    assert len(gzip.compress(answer.content)) < len(answer.content) / 2


async def test_the_health_of_the_pipeline_is_told(dsn: str, connection: Connection, tables: Tables, held: None) -> None:
    async with scraping(dsn, Accept=CLASSIC) as client:
        found = samples((await client.get(PATH)).text)

    assert found["chancy_jobs_total{func=app.mail}{state=succeeded}"] == 3
    assert found["chancy_queue_execution_seconds_sum{queue=default}"] == 1.5 and found["orders_placed_total"] == 2
    assert found.pop("chancy_metrics_lag_seconds") > 0 and found.pop("chancy_metrics_generation") > 0
    assert {name: value for name, value in found.items() if name.startswith("chancy_metrics")} == {
        "chancy_metrics_readable{part=status}": 1,
        "chancy_metrics_readable{part=totals}": 1,
        "chancy_metrics_healthy": 1,
        "chancy_metrics_waiting_batches": 1,
        "chancy_metrics_spilled_batches": 0,
        "chancy_metrics_dead_letters": 0,
        "chancy_metrics_discarded": 0,
        "chancy_metrics_failing_rules": 0,
        "chancy_metrics_holes": 0,
        "chancy_metrics_set_aside": 0,
        "chancy_metrics_lost_job_updates": 0,
        "chancy_metrics_lost_observations": 0,
    }


async def test_what_is_known_to_be_lost_is_told_by_kind(
    dsn: str, connection: Connection, tables: Tables, held: None
) -> None:
    counted = '{"dropped": 1, "dropped_job_updates": 20, "rejected:job": 300, "rejected:key": 9}'
    lost = '{"observations": 2, "dropped": 3, "job_updates": 4000, "dropped_job_updates": 50000}'
    update = "UPDATE {versions} SET counts = %(counted)s WHERE status = 'live'"
    await fetch(connection, update, tables, counted=counted)
    await fetch(
        connection,
        "INSERT INTO {sessions} (session, worker, producers, append_interval, held, ended_at)"
        " VALUES (gen_random_uuid(), 'w', '{{}}', 1, %(lost)s, clock_timestamp())",
        tables,
        lost=lost,
    )
    async with scraping(dsn, Accept=CLASSIC) as client:
        found = samples((await client.get(PATH)).text)

    assert found["chancy_metrics_lost_job_updates"] == 54_320
    assert found["chancy_metrics_lost_observations"] == 6


async def test_without_totals_the_pipeline_is_answered(dsn: str, connection: Connection, tables: Tables) -> None:
    async with scraping(dsn, Accept=CLASSIC) as client, connection.transaction():
        await fetch(connection, "SELECT FROM {head} FOR UPDATE", tables)  # so nobody can begin to build them
        found = samples((await client.get(PATH)).text)

    assert found["chancy_metrics_readable{part=totals}"] == 0 and found["chancy_metrics_healthy"] == 1


async def test_without_a_status_the_totals_are_answered(
    dsn: str, connection: Connection, tables: Tables, held: None, caplog: pytest.LogCaptureFixture
) -> None:
    await fetch(connection, "DROP TABLE {sessions} CASCADE", tables)
    async with scraping(dsn, Accept=CLASSIC) as client:
        answers = [await client.get(PATH) for _ in range(3)]

    found = samples(answers[-1].text)
    assert found["chancy_metrics_readable{part=status}"] == 0 and "chancy_metrics_healthy" not in found
    assert found["chancy_jobs_total{func=app.mail}{state=succeeded}"] == 3
    said = [one.getMessage() for one in caplog.records if "scrape" in one.getMessage()]
    assert len(said) == 1 and "can't be answered in full" in said[0]


async def test_a_role_that_only_reads_answers_what_others_have_added(
    dsn: str, connection: Connection, tables: Tables, held: None
) -> None:
    await connection.execute("CREATE ROLE scraper LOGIN")
    try:
        await connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO scraper")
        async with scraping(dsn, Accept=CLASSIC) as owner, scraping(f"{dsn}&user=scraper", Accept=CLASSIC) as reader:
            before = samples((await reader.get(PATH)).text)
            shown = samples((await owner.get(PATH)).text)
            after = samples((await reader.get(PATH)).text)
    finally:
        await connection.execute("DROP OWNED BY scraper; DROP ROLE scraper")

    assert before["chancy_metrics_readable{part=totals}"] == 0
    job = "chancy_jobs_total{func=app.mail}{state=succeeded}"
    assert after[job] == shown[job] == 3


async def test_gauges_leave_where_nobody_samples_them_any_more(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    run = a_run(WORKERS_ACTIVE.key, [2.0], kind="gauge", unit="workers", at_us=now_us() - 60_000_000)
    await LogWriter(connection, tables).append(runs=[run])
    await sequence_all(connection, tables)
    async with scraping(dsn, Accept=CLASSIC) as client:
        shown = samples((await client.get(PATH)).text)
        await connection.execute(
            sql.SQL(
                """
                UPDATE {totals} SET last_us = last_us - 300000000;
                UPDATE {versions} SET folded_at = folded_at - interval '300 s' WHERE status = 'totals'
                """
            ).format(totals=tables.totals, versions=tables.versions)
        )
        later = samples((await client.get(PATH)).text)

    assert shown["chancy_workers_active"] == 2
    assert "chancy_workers_active" not in later


async def test_a_database_that_is_down_is_a_sentence(dsn: str) -> None:
    async with scraping(dsn) as client:
        assert (await client.get(PATH)).status_code == 200
    async with scraping(dsn.replace("dbname=", "dbname=no_") if "dbname=" in dsn else dsn + "_no") as client:
        answer = await client.get(PATH)

    assert answer.status_code == 503 and answer.headers["retry-after"]
    assert answer.text.startswith("the database can't be reached: ") and answer.text.count("\n") == 1


async def test_a_role_without_grants_is_told_where_they_are(dsn: str, connection: Connection) -> None:
    await connection.execute("CREATE ROLE stray LOGIN")
    try:
        async with scraping(f"{dsn}&user=stray") as client:
            answer = await client.get(PATH)
    finally:
        await connection.execute("DROP ROLE stray")

    assert answer.status_code == 503
    assert answer.text.startswith("the database refused it: permission denied") and "docs/roles.md" in answer.text


def test_a_token_is_shown_by_nothing() -> None:
    metrics = Metrics(scrape_token=TOKEN)
    copied = pickle.loads(pickle.dumps(metrics))

    assert TOKEN not in repr(metrics.options) + str(metrics.options) + repr(vars(metrics))
    assert copied.options.scrape_token == TOKEN and TOKEN not in repr(copied.options)


NO_TOKENS = ["", "short", "0123456789abcdef with spaces", "0123456789abcdéf", 17, "a" * 15, "a" * 20 + "\n"]


@pytest.mark.parametrize("token", NO_TOKENS)
def test_a_token_that_is_none_is_refused_and_not_shown(token: Any) -> None:
    with pytest.raises(ValueError, match="scrape_token is wrong: a token has 16 characters") as caught:
        Metrics(scrape_token=token)

    assert len(str(token)) < 3 or str(token) not in str(caught.value)
