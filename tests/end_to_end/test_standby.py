"""A hot standby answers: what only reads runs there, and says what can't be known or kept there."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import psycopg
import pytest

from chancy_metrics.events.errors import TotalsNotReady
from chancy_metrics.events.hot_standby import error_sentence
from chancy_metrics.events.schema import VIEWS, Tables
from chancy_metrics.plugin import read_totals, verify
from chancy_metrics.projections.verify.totals import TotalsCheck
from tests.factories import LogWriter, a_row, a_run, an_app, connections, fetch, now_us, sequence_and_fold
from tests.plugin.http.test_routes import asking, get
from tests.reading import invoke, read_everything
from tests.standby import Standby


async def test_whatever_only_reads_answers_on_a_standby_and_says_that_it_is_one(
    dsn: str, tables: Tables, standby: Standby, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = a_row(now_us())
    async with connections(dsn, 1) as (connection,):
        await LogWriter(connection, tables).append(jobs=[job], runs=[a_run("app:n", at_us=now_us())])
        await sequence_and_fold(connection, tables)
        await LogWriter(connection, tables).append(runs=[a_run("app:n", at_us=now_us())])
    await standby.arrived()
    there = standby.dsn(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"])

    async with an_app(there) as (chancy, metrics):
        assert (await metrics.get_metrics(chancy))["app:n"].values_1min[0][1] == 1
        assert (await metrics.get_metrics(chancy, worker_id="worker"))["app:n"]
    async with asking(there) as client:
        for path in ("status", "series", "events"):
            await get(client, path)
        await get(client, "points", key="app:n", resolution="1min")
    found = await read_everything(there, tmp_path, job.job_id.hex())
    for command, done in found.items():
        assert done.exit_code == 0, f"{command}: {done.output} {done.exception!r}"
    assert "standby         as of the commits replayed until 2" in found["status"].output
    assert json.loads(found["status --json"].output)["replayed_at"]
    assert "everything agrees" in found["verify"].output
    assert "this session takes no writes; it is one on a hot standby" in caplog.text
    for command in (["fold"], ["mark", "deploy"], ["rebuild"]):
        done = await anyio.to_thread.run_sync(invoke, there, command)
        assert done.exit_code == 1
        assert "Do this on the primary" in " ".join(done.output.split()), done.output


def test_a_query_that_had_to_give_way_gets_a_sentence() -> None:
    said = error_sentence(psycopg.errors.SerializationFailure("canceling statement due to conflict with recovery"))

    assert said.startswith("canceling statement due to conflict with recovery: on a hot standby")
    assert "hot_standby_feedback" in said


async def test_totals_are_read_there_as_of_where_the_primary_has_advanced_them(
    dsn: str, tables: Tables, standby: Standby
) -> None:
    there = standby.dsn(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"])
    await standby.arrived()
    async with an_app(there) as (chancy, _):
        with pytest.raises(TotalsNotReady, match=r"read-only transaction.*rebuild --totals` builds them"):
            await read_totals(chancy)
    async with connections(dsn, 1) as (connection,), an_app(dsn) as (chancy, _):
        await LogWriter(connection, tables).append(runs=[a_run("app:n", at_us=now_us())])
        await sequence_and_fold(connection, tables)
        served = await read_totals(chancy)
        await LogWriter(connection, tables).append(runs=[a_run("app:n", at_us=now_us())])
        await sequence_and_fold(connection, tables)
    await standby.arrived()

    async with an_app(there) as (chancy, _):
        found = await read_totals(chancy)
        looked = await verify(chancy, totals=True)

    assert found._replace(at_us=served.at_us) == served
    assert (looked.found, looked.totals) == (0, TotalsCheck(served.generation, served.position, 1))


async def test_views_and_functions_for_sql_answer_there(dsn: str, tables: Tables, standby: Standby) -> None:
    async with connections(dsn, 1) as (connection,):
        await connection.execute(
            "INSERT INTO chancy_jobs (id, queue, func) VALUES (gen_random_uuid(), 'mail', 'app.f')"
        )
        runs = [a_run("app:n", at_us=now_us()), a_run("mark:deploy", at_us=now_us())]
        await LogWriter(connection, tables).append(runs=runs)
        await sequence_and_fold(connection, tables)
    await standby.arrived()

    async with connections(standby.dsn(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]), 1) as (there,):
        rows = {name: await fetch(there, f"SELECT count(*) FROM chancy_{name}", tables) for name in VIEWS}
        [asked] = await fetch(there, "SELECT {resolution_for}(0, 60), jobs, wait_s > 0 FROM {due}('mail')", tables)

    assert [name for name, [(count,)] in rows.items() if not count] == []
    assert asked == ("1min", 1, True)
