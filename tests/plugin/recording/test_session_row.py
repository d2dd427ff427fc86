"""A session's row says that it lives, what it holds, and how it ended; a worker id is no process."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from chancy import Worker
from psycopg import sql

from chancy_metrics.events.batch import BatchId
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.log import append
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.health.completeness import completeness
from chancy_metrics.plugin.recording import session_row
from chancy_metrics.plugin.worker.maintenance import Maintenance
from chancy_metrics.plugin.worker.session import Session
from tests.factories import a_host, a_run, an_app, fetch, sequence_and_fold

DAY_US = 86_400 * 1_000_000


async def silence(connection: Connection, tables: Tables, session: Session) -> None:
    """Let the database have heard of a session for the last time three minutes and a second ago."""
    await sequence_and_fold(connection, tables)
    for table, condition in (("sessions", "session = %(id)s"), ("producers", "producer = ANY(%(producers)s)")):
        await fetch(
            connection,
            f"UPDATE {{{table}}} SET seen_at = seen_at - interval '181 s' WHERE {condition}",
            tables,
            **(
                {"id": session.session_row.id}
                if table == "sessions"
                else {"producers": session.session_row._producers()}
            ),
        )


async def test_of_two_sessions_of_one_worker_id_the_killed_one_is_shown_although_the_other_lives(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with an_app(dsn) as (chancy, metrics), an_app(dsn) as (elsewhere, other):
        killed, lives = (Worker(app, worker_id="web-0", register_signal_handlers=False) for app in (chancy, elsewhere))
        await metrics.on_worker_started(worker=killed)
        await other.on_worker_started(worker=lives)
        await other.on_worker_stopped(worker=lives)  # a pod that stopped before it
        await other.on_worker_started(worker=lives)
        session = metrics._session(killed)
        before = await completeness(elsewhere)
        await silence(connection, tables, session)

        shown = await completeness(elsewhere)
        session.session_row._next_at = 0.0
        await session.recorder.append(chancy)  # it was not killed, its database was away for some minutes
        again = await completeness(elsewhere)

        await fetch(connection, "DELETE FROM {sessions} WHERE session = %(id)s", tables, id=session.session_row.id)
        session.session_row._next_at = 0.0
        await session.recorder.append(chancy)
        rows = await fetch(connection, "SELECT worker, ended_at IS NULL FROM {sessions} ORDER BY started_at", tables)
        await metrics.on_worker_stopped(worker=killed)
        await other.on_worker_stopped(worker=lives)
        stopped = await completeness(elsewhere)

    assert [found.ended_uncleanly for found in (before, shown, again, stopped)] == [0, 1, 0, 0]
    assert shown.uncertain_s == metrics.options.append_interval
    assert rows == [("web-0", False), ("web-0", True), ("web-0", True)]


async def test_what_a_session_held_when_it_fell_silent_is_uncertain_by_kind(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with a_host(dsn) as (worker, metrics):
        session = metrics._session(worker)
        for table in ("log", "spill"):
            await fetch(connection, f"ALTER TABLE {{{table}}} ADD CONSTRAINT none CHECK (false) NOT VALID", tables)
        for value in range(3):
            await metrics.increment_counter("app:x", value)
        assert not await session.recorder.append(worker.chancy)
        alive = await completeness(worker.chancy)
        for table in ("log", "spill"):
            await fetch(connection, f"ALTER TABLE {{{table}}} DROP CONSTRAINT none", tables)
        await silence(connection, tables, session)
        killed = await completeness(worker.chancy)
        assert await session.recorder.append(worker.chancy)
        after = await completeness(worker.chancy)

    assert (alive.in_memory, alive.uncertain, alive.ended_uncleanly) == ({"observations": 3}, {}, 0)
    assert (killed.in_memory, killed.uncertain, killed.ended_uncleanly) == ({}, {"observations": 3}, 1)
    assert (after.in_memory, after.uncertain, after.ended_uncleanly) == ({}, {}, 0)


async def test_a_renewed_producer_belongs_to_the_session_like_the_one_before(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with a_host(dsn) as (worker, metrics):
        recorder = metrics._session(worker).recorder
        taken = BatchId(recorder._clock.today(), recorder.producer, 2)
        async with short_transaction(connection) as cursor:
            await append(cursor, tables, taken, encode((), [a_run("app:foreign")]), worker="another")
        await metrics.increment_counter("app:x", 7)
        await metrics.flush(worker.chancy)
    await sequence_and_fold(connection, tables)
    await fetch(connection, "UPDATE {producers} SET seen_at = seen_at - interval '181 s'", tables)

    async with an_app(dsn) as (chancy, _):
        assert (await completeness(chancy)).ended_uncleanly == 0
    assert await fetch(connection, "SELECT count(*) FROM {producers} WHERE NOT closed", tables) == [(1,)]


async def test_a_role_that_may_not_write_the_row_says_so_once_and_shows_in_the_log_that_it_lives(
    dsn: str, connection: Connection, tables: Tables, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = sql.Identifier(f"recorder_{datetime.now(UTC):%H%M%S%f}")
    await connection.execute(
        sql.SQL(
            "CREATE ROLE {0} LOGIN; GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO {0};"
            "REVOKE ALL ON {1} FROM {0}"
        ).format(role, tables.sessions)
    )
    monkeypatch.setattr("chancy_metrics.plugin.recording.recorder.ALIVE_S", 0)
    as_role = dsn.replace("postgres@", f"{role.as_string()[1:-1]}@")
    async with an_app(as_role) as (chancy, metrics), metrics.recording(chancy, worker_id="web-1"):
        [block] = metrics._router._blocks
        for _ in range(3):
            block.recorder.session_row._next_at = 0.0  # type: ignore[union-attr]
            assert await block.recorder.append(chancy)
    await connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))

    assert caplog.text.count("'web-1' can't write its row of \"chancy_metrics_sessions\"") == 1
    assert await fetch(connection, "SELECT max(sequence) FROM {log}", tables) == [(5,)]
    assert await fetch(connection, "SELECT count(*) FROM {sessions}", tables) == [(0,)]


async def test_clean_up_forgets_sessions_with_the_producers(dsn: str, connection: Connection, tables: Tables) -> None:
    async with a_host(dsn) as (_, metrics):
        pass
    now = await fetch(connection, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint", tables)
    age_us = metrics.maximum_metric_age * 1_000_000

    await Maintenance(metrics.options).clean(connection, tables, now_us=now[0][0] + age_us - DAY_US)
    kept = await fetch(connection, "SELECT count(*) FROM {sessions}", tables)
    await Maintenance(metrics.options).clean(connection, tables, now_us=now[0][0] + age_us + 2 * DAY_US)

    assert kept == [(1,)]
    assert await fetch(connection, "SELECT count(*) FROM {sessions}", tables) == [(0,)]


def test_what_is_held_is_said_in_words() -> None:
    assert session_row.listed({"observations": 400, "job_updates": 1}) == "400 observations, 1 job update"
    dropped = {"dropped": 1, "dropped_job_updates": 2}
    assert session_row.listed(dropped) == "1 dropped observation, 2 dropped job updates"
    assert session_row.listed({}) == "nothing"
