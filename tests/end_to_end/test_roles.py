"""The log is append-only for its owner, and what docs/roles.md grants is enough for its purpose and no more."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path

import psycopg
import pytest
from chancy import Chancy
from chancy.plugins.leadership import ImmediateLeadership
from psycopg import AsyncConnection, sql

from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.errors import TotalsNotReady
from chancy_metrics.events.log import append
from chancy_metrics.events.schema import TABLES, VIEWS, Tables
from chancy_metrics.plugin import Metrics, backtest, read_totals, rebuild_totals, report, verify
from chancy_metrics.plugin.audit.seal import check, seal
from chancy_metrics.plugin.health.completeness import completeness
from chancy_metrics.plugin.transfer.export_log import export_log
from chancy_metrics.projections.verify.totals import TotalsCheck
from tests import rules
from tests.factories import (
    LogWriter,
    a_host,
    a_job,
    a_row,
    a_run,
    an_app,
    claimed,
    eventually,
    fetch,
    now_us,
    sequence_and_fold,
    total,
)
from tests.faults.test_poolers import a_worker, push, saved
from tests.faults.truth import logged_updates, read_log
from tests.plugin.recording.test_job_hook import flush, updates
from tests.processes import ROOT
from tests.roles import as_role, read_grants

APPEND_ONLY = "refused: the metrics log and its ledger are append-only"


@pytest.fixture
async def recorder(dsn: str, roles: tuple[str, ...]) -> AsyncIterator[Connection]:
    async with await AsyncConnection.connect(as_role(dsn, roles[0]), autocommit=True) as connection:
        yield connection


def today() -> date:
    return datetime.now(UTC).date()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE {log} SET worker = 'x'",
        "DELETE FROM {log}",
        "TRUNCATE {log}",
        "UPDATE {day} SET worker = 'x'",
        "DELETE FROM {day}",
        "TRUNCATE {day}",
        "UPDATE {ledger} SET chain = ''",
        "TRUNCATE {ledger}",
    ],
)
async def test_even_the_owner_is_refused_with_a_sentence_that_says_what_to_do(
    change: str, connection: Connection, tables: Tables
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)
    statement = sql.SQL(change).format(log=tables.log, day=tables.partition(today()), ledger=tables.ledger)

    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=APPEND_ONLY) as refused:
        await connection.execute(statement)

    assert "by appending another event" in (refused.value.diag.message_hint or "")
    assert "`chancy-metrics prune`" in (refused.value.diag.message_hint or "")


async def test_who_may_append_appends_and_what_it_appends_counts(
    recorder: Connection, connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(recorder, tables)
    batch = encode((), [a_run("app:n", [2.0])])

    batch_id = await writer.append(batch=batch)
    async with short_transaction(recorder) as cursor:
        again = await append(cursor, tables, batch_id, batch, worker="w")
        retried = await append(cursor, tables, batch_id, batch, worker="w", earlier=batch.sha256)
    await sequence_and_fold(connection, tables)

    assert (again.state, retried.state) == ("known", "known")
    assert await total(connection, tables, "app:n") == [2] * 4


async def test_an_application_under_that_role_records(
    dsn: str, roles: tuple[str, ...], connection: Connection, tables: Tables
) -> None:
    async with an_app(as_role(dsn, roles[0])) as (chancy, metrics), metrics.recording(chancy):
        await metrics.increment_counter("app:n", 3)
    await sequence_and_fold(connection, tables)

    assert await total(connection, tables, "app:n") == [3] * 4


async def test_a_worker_under_that_role_records_with_its_jobs_and_its_stop_survives_that_it_may_not_fold(
    dsn: str, roles: tuple[str, ...], connection: Connection, tables: Tables
) -> None:
    jobs = [a_job() for _ in range(3)]
    await claimed(connection, *jobs)

    async with a_host(as_role(dsn, roles[5])) as (worker, _):
        worker.is_leader.set()
        await flush(worker, *jobs)
    logged = logged_updates(await read_log(connection, tables))
    await sequence_and_fold(connection, tables)

    assert logged == updates(*jobs)
    assert await total(connection, tables, "global:status:succeeded") == [3] * 4
    [(ended,)] = await fetch(connection, "SELECT count(*) FROM {producers} WHERE NOT closed", tables)
    assert ended == 0


async def test_a_worker_under_its_role_starts_and_runs_jobs_which_the_owner_folds(
    dsn: str, roles: tuple[str, ...], connection: Connection, tables: Tables
) -> None:
    app = Chancy(as_role(dsn, roles[5]), plugins=[Metrics(sync_interval=0.5), ImmediateLeadership()])
    async with a_worker(app):
        await push(app, 3)

        async def are_saved() -> bool:
            return await saved(connection) == 3

        await eventually(are_saved)
    assert await total(connection, tables, "global:status:succeeded") == [0] * 4
    await sequence_and_fold(connection, tables)

    assert await total(connection, tables, "global:status:succeeded") == [3] * 4


async def test_the_owner_needs_a_schema_to_create_in_and_no_more(empty_dsn: str) -> None:
    [grant] = re.findall(r"^GRANT .* TO owner;$", read_grants(), re.M)
    async with await AsyncConnection.connect(empty_dsn, autocommit=True) as admin:
        await admin.execute("CREATE ROLE an_owner LOGIN")
        await admin.execute(grant.replace("owner", "an_owner").encode())
        try:
            async with an_app(as_role(empty_dsn, "an_owner")) as (chancy, metrics):
                await chancy.migrate()
                async with metrics.recording(chancy):
                    await metrics.increment_counter("app:n", 1)
                await metrics.flush(chancy)
                assert (await metrics.get_metrics(chancy))["app:n"].values_1day[0][1] == 1
        finally:
            await admin.execute("DROP OWNED BY an_owner; DROP ROLE an_owner")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE {log} SET worker = 'x'",
        "DELETE FROM {log}",
        "TRUNCATE {log}",
        "TRUNCATE {day}",
        "DELETE FROM {day}",
        "INSERT INTO {log} (day, producer, sequence, worker, events, closes, codec, payload, sha256, appended_at)"
        " VALUES (current_date, gen_random_uuid(), 1, 'w', 0, true, 1, '', '', '2020-01-01')",
        "SELECT payload FROM {log}",
        "DELETE FROM {pending}",
        "DELETE FROM {ledger}",
        "UPDATE {head} SET position = 0",
        "INSERT INTO {days} VALUES (current_date - 99, 'attached', now())",
        "ALTER TABLE {log} DISABLE TRIGGER ALL",
        "DROP TABLE {day}",
        "ALTER TABLE {log} DETACH PARTITION {day}",
        "CREATE TABLE mine (id int)",
        "SET session_replication_role = replica",
    ],
)
async def test_who_may_append_can_change_nothing(change: str, recorder: Connection, tables: Tables) -> None:
    await LogWriter(recorder, tables).append(runs=[a_run("app:n")])
    identifiers = {name: value for name, value in tables._asdict().items() if isinstance(value, sql.Identifier)}

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await recorder.execute(sql.SQL(change).format(day=tables.partition(today()), **identifiers))


async def test_an_auditor_checks_seals_exports_and_reads_and_writes_nothing(
    dsn: str, roles: tuple[str, ...], connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n", at_us=now_us())])
    await sequence_and_fold(connection, tables)

    async with an_app(as_role(dsn, roles[1])) as (chancy, metrics):
        kept = await seal(chancy)
        found = await check(chancy, seals=[kept])
        out = await export_log(chancy, tmp_path / "log")
        complete = await completeness(chancy)
        shown = await metrics.get_metrics(chancy, "app:n")
        reported = await report(chancy)
        replayed = await backtest(chancy, ROOT / "examples" / "alerts.toml", since=reported.since)
        async with await AsyncConnection.connect(chancy.dsn, autocommit=True) as auditor:
            for table in TABLES:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await auditor.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(f"chancy_{table}")))

    assert (found.found, found.batches, found.seals) == (0, 1, 1)
    assert out.batches == 1
    assert complete.position == 1
    assert shown.keys() == {"app:n"}
    assert (reported.problems, len(replayed.rules)) == ([], 5)


async def test_an_exporter_advances_the_totals_that_the_owner_began_and_changes_nothing_else(
    dsn: str, roles: tuple[str, ...], connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    newer = Metrics(rules=[rules.first], rules_version=1)
    async with an_app(dsn) as (owner, _), an_app(as_role(dsn, roles[4]), newer) as (exporter, _):
        with pytest.raises(TotalsNotReady, match=r"permission denied .*`chancy-metrics rebuild --totals`"):
            await read_totals(exporter)
        await rebuild_totals(owner)
        await writer.append(jobs=[a_row()], batch=None)
        await writer.append(batch=encode((), [a_run()])._replace(payload=b"?"))
        await sequence_and_fold(connection, tables)

        totals = await read_totals(exporter)
        async with await AsyncConnection.connect(exporter.dsn, autocommit=True) as other:
            for change in (
                "UPDATE {versions} SET status = 'dropped'",
                "DELETE FROM {totals}",
                "UPDATE {head} SET live = 0",
                "UPDATE {r1day} SET count = 0",
                "INSERT INTO {pending} (day) VALUES ('2026-03-10')",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await fetch(other, change, tables)

    assert totals.position == 2
    assert {one.series.key: one.sum for one in totals.series}["made:by:first"] == 1


async def test_an_auditor_reads_the_totals_as_of_where_others_have_advanced_them(
    dsn: str, roles: tuple[str, ...], connection: Connection, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    writer = LogWriter(connection, tables)
    async with an_app(dsn) as (owner, _), an_app(as_role(dsn, roles[1])) as (auditor, _):
        before = await read_totals(owner)
        await writer.append(runs=[a_run()])
        await sequence_and_fold(connection, tables)

        found = await read_totals(auditor)
        looked = await verify(auditor, totals=True)

    assert found._replace(at_us=before.at_us) == before
    assert looked.totals == TotalsCheck(before.generation, before.position, 0)
    assert "the totals were not advanced: InsufficientPrivilege" in caplog.text


async def test_a_reader_reads_every_view_and_no_event(
    dsn: str, roles: tuple[str, ...], connection: Connection, tables: Tables
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n", at_us=now_us())])
    await sequence_and_fold(connection, tables)

    async with await AsyncConnection.connect(as_role(dsn, roles[2]), autocommit=True) as reader:
        rows = {name: await fetch(reader, f"SELECT count(*) FROM chancy_{name}", tables) for name in VIEWS}
        chosen = await fetch(reader, "SELECT {resolution_for}(0, 3600)", tables)
        for table in [*TABLES, "jobs"]:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await reader.execute(sql.SQL("SELECT FROM {}").format(sql.Identifier(f"chancy_{table}")))
        with pytest.raises(psycopg.errors.Error):
            await fetch(reader, "DELETE FROM chancy_metrics_keys", tables)

    assert rows["metrics_points"] == [(4,)]
    assert chosen == [("1hour",)]


async def test_a_scaler_asks_for_a_queue_and_sees_no_job(
    dsn: str, roles: tuple[str, ...], connection: Connection, tables: Tables
) -> None:
    await connection.execute("INSERT INTO chancy_jobs (id, queue, func) VALUES (gen_random_uuid(), 'mail', 'app.f')")

    async with await AsyncConnection.connect(as_role(dsn, roles[3]), autocommit=True) as scaler:
        [due] = await fetch(scaler, "SELECT jobs, wait_s > 0 FROM {due}('mail')", tables)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await scaler.execute("SELECT kwargs FROM chancy_jobs")

    assert due == (1, True)


async def test_the_grants_name_every_table_and_view(connection: Connection, tables: Tables) -> None:
    grants = read_grants()
    assert [name for name in (*TABLES, *VIEWS) if f"chancy_{name}" not in grants] == []
    assert await fetch(connection, "SELECT count(*) FROM {log}", tables) == [(0,)]
