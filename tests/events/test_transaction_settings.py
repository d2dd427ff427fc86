"""Whatever a role, a database or a DSN sets, ours reads, folds and writes as ever, and leaves the session as it was."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import psycopg
import pytest
from psycopg import sql

from chancy_metrics.events.database import short_transaction
from chancy_metrics.events.errors import SchemaMissing
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Observation
from chancy_metrics.plugin.folding.projector import fold_all
from chancy_metrics.plugin.health.verify import verify
from chancy_metrics.plugin.host.connection import own_connection
from examples.embedded import Server
from tests.factories import a_host, a_job, an_app, claimed, connections
from tests.reading import invoke, read_everything

HOSTILE = {
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "client_encoding": "LATIN1",
    "standard_conforming_strings": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "row_security": "off",
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "1s",
    "work_mem": "64kB",
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_bitmapscan": "off",
    "enable_nestloop": "off",
    "enable_partition_pruning": "off",
    "lc_messages": "C",
}


@contextmanager
def a_role(dsn: str, settings: dict[str, str], *, limit: str) -> Iterator[str]:
    """The database *dsn* as a role sees it that has *settings*, and so much time for statements and transactions."""
    role = sql.Identifier(f"role_{uuid.uuid4().hex[:8]}")
    with psycopg.connect(dsn, autocommit=True) as owner:
        settings = settings | {"statement_timeout": limit}
        if owner.info.server_version >= 170_000:
            settings |= {"transaction_timeout": limit}
        owner.execute(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER").format(role))
        for name, value in settings.items():
            owner.execute(sql.SQL("ALTER ROLE {} SET {} = {}").format(role, sql.Identifier(name.lower()), value))
        yield dsn.replace("postgres@", f"{role.as_string(owner).strip(chr(34))}@")
        owner.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))


@pytest.fixture
def hostile(dsn: str) -> Iterator[str]:
    """The test's database as a role sees it for which everything is set that can be."""
    with a_role(dsn, HOSTILE, limit="1s") as seen:
        yield seen


async def test_under_hostile_settings_everything_is_recorded_folded_and_read(
    dsn: str, hostile: str, tables: Tables, tmp_path: Path
) -> None:
    job = a_job()
    async with a_host(hostile) as (worker, metrics), connections(dsn, 1) as (connection,):
        await claimed(connection, job)
        async with worker.chancy.pool.connection() as session, session.cursor() as cursor:
            await metrics.on_jobs_updated_in_transaction(worker=worker, jobs=[job], cursor=cursor)
            await metrics.record_in_transaction(worker.chancy, cursor, Observation.counter("app:own"))
            kept = await (await cursor.execute("SHOW DateStyle")).fetchone()
        with psycopg.connect(hostile) as own, own.cursor() as sync_cursor:
            metrics.sync_record_in_transaction(worker.chancy, sync_cursor, Observation.counter("app:own"))
        await metrics.on_job_updated(worker=worker, job=job)
        await metrics.increment_counter("app:n", 0.1)
        await metrics.increment_counter("price:€", 1)
        await metrics.flush(worker.chancy)
        shown = await metrics.get_metrics(worker.chancy)
        of_worker = await metrics.get_metrics(worker.chancy, worker_id=worker.worker_id)

    assert kept == ("German, DMY",)
    assert shown["app:n"].values_1min[0][1] == of_worker["app:n"].values_1min[0][1] == 0.1
    assert shown["app:own"].values_1min[0][1] == 2
    assert {"price:€", "queue:default:succeeded"} <= shown.keys()
    for command in (["mark", "deploy"], ["fold"], ["rebuild"], ["undo"], ["prune"]):
        done = await anyio.to_thread.run_sync(invoke, hostile, command)
        assert done.exit_code == 0, f"{command}: {done.output} {done.exception!r}"
    async with connections(hostile, 1) as (reader,):
        await reader.execute("ALTER ROLE CURRENT_USER SET default_transaction_read_only = on")
    for command, done in (await read_everything(hostile, tmp_path, str(job.id))).items():
        assert done.exit_code == 0, f"{command}: {done.output} {done.exception!r}"
        assert "Traceback" not in done.output


async def test_many_series_are_folded_read_and_verified_under_a_limit_that_fits_requests(dsn: str) -> None:
    """A second and 100,000 series, made small: each fold's statement takes several times as long as the role may."""
    many = 2_500
    with a_role(dsn, {}, limit="150ms") as limited:
        async with an_app(limited) as (chancy, metrics):
            async with metrics.recording(chancy):
                for number in range(many):
                    await metrics.increment_counter(f"app:{number}", 1)
            done = await fold_all(chancy)
            found = await metrics.get_metrics(chancy, "app")
            verified = await verify(chancy)

    assert done.events == many
    assert len(found) == many
    assert (verified.points > many, verified.drift) == (True, 0)


async def test_connections_of_our_own_are_not_ended_while_they_wait_and_notice_a_silent_server(
    server: Server, dsn: str
) -> None:
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    async with connections(server.dsn(), 1) as (admin,):
        await admin.execute(f"ALTER DATABASE {name} SET idle_session_timeout = '1h'")
    async with an_app(f"{dsn}&tcp_user_timeout=7000") as (chancy, _), own_connection(chancy) as connection:
        cursor = await connection.execute("SHOW idle_session_timeout")
        assert await cursor.fetchone() == ("0",)
        given = connection.info.get_parameters()
        assert (given["tcp_user_timeout"], given["keepalives_idle"]) == ("7000", "10")
        async with chancy.pool.connection() as hosts:
            cursor = await hosts.execute("SHOW idle_session_timeout")
            assert await cursor.fetchone() == ("1h",)


async def test_limits_are_lifted_for_a_transaction_and_no_longer(dsn: str) -> None:
    async with connections(dsn, 1) as (connection,):
        limits = ["statement_timeout"]
        if connection.info.server_version >= 170_000:
            limits.append("transaction_timeout")
        for limit in limits:
            await connection.execute(f"SET {limit} = '200ms'")
        async with short_transaction(connection) as cursor:
            await cursor.execute("SELECT pg_sleep(0.3)")
        for limit in limits:
            cursor = await connection.execute(f"SHOW {limit}")
            assert await cursor.fetchone() == ("200ms",)


async def test_a_search_path_without_our_tables_gets_a_sentence(dsn: str) -> None:
    elsewhere = f"{dsn}&options=-csearch_path%3Dpg_catalog"

    for command in (
        ["status"],
        ["completeness"],
        ["verify"],
        ["fold"],
        ["rebuild"],
        ["mark", "x"],
        ["audit", "events"],
    ):
        done = await anyio.to_thread.run_sync(invoke, elsewhere, command)
        assert done.exit_code == 1
        assert "in no schema of this session's search_path" in " ".join(done.output.split())
    async with an_app(elsewhere) as (chancy, metrics):
        with pytest.raises(SchemaMissing, match="search_path that the workers have"):
            await metrics.get_metrics(chancy)
