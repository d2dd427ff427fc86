"""A stop ends in time whatever the database does, and what it could not write is said at once, by kind."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from chancy import Chancy, Worker
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.health.completeness import completeness
from chancy_metrics.plugin.health.status_reader import read_status
from chancy_metrics.plugin.host.connection import DatabaseClock
from chancy_metrics.plugin.recording.buffer import Buffer
from chancy_metrics.plugin.recording.recorder import Recorder
from chancy_metrics.plugin.recording.shutdown import end
from examples.embedded import Server
from tests.factories import a_job, an_app, connections, eventually, fetch, sequence_and_fold, total
from tests.faults.proxy import Proxy, a_proxy

#: The deadline of a stop in these tests, and how much later a loaded machine may be.
STOP_S, MARGIN_S = 3.0, 7.0
HELD = {"observations": 400, "job_updates": 20}
WORDS = "400 observations, 20 job updates"


@pytest.fixture(autouse=True)
def deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("worker.session", "recording.block"):
        monkeypatch.setattr(f"chancy_metrics.plugin.{module}.STOP_S", STOP_S)


@pytest.fixture
async def role(connection: Connection, tables: Tables) -> AsyncIterator[str]:
    """A role that may do everything but append."""
    name = f"revoked_{uuid.uuid4().hex[:8]}"
    await connection.execute(
        sql.SQL(
            "CREATE ROLE {0} LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {0};"
            "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {0}; REVOKE INSERT ON {1}, {2} FROM {0}"
        ).format(sql.Identifier(name), tables.log, tables.spill)
    )
    yield name
    await connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


async def a_started(chancy: Chancy, metrics: Metrics) -> Worker:
    worker = Worker(chancy, worker_id="web-0", register_signal_handlers=False)
    await metrics.on_worker_started(worker=worker)
    return worker


async def hold(metrics: Metrics, worker: Worker) -> None:
    """Let the buffer hold what `HELD` says."""
    for _ in range(400):
        metrics.sync_increment_counter("app:x", 1)
    for _ in range(20):  # neither the log nor the spill took them with their jobs
        await metrics.on_job_updated(worker=worker, job=a_job())


@asynccontextmanager
async def locked(dsn: str, tables: Tables, *locked_tables: sql.Identifier) -> AsyncIterator[None]:
    async with connections(dsn, 1) as (locking,), locking.transaction():
        await locking.execute(
            sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.SQL(", ").join(locked_tables))
        )
        yield


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelname == "ERROR"]


async def test_a_stop_while_the_log_is_locked_loses_nothing(
    dsn: str, connection: Connection, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    async with an_app(dsn) as (chancy, metrics):
        worker = await a_started(chancy, metrics)
        await hold(metrics, worker)
        async with locked(dsn, tables, tables.log):
            with anyio.fail_after(STOP_S + MARGIN_S):
                await metrics.on_worker_stopped(worker=worker)
            found = await completeness(chancy)
        await sequence_and_fold(connection, tables)

    assert (errors(caplog), found.ended_uncleanly, found.lost) == ([], 0, {})
    assert await total(connection, tables, "app:x") == [400] * 4
    assert await total(connection, tables, "global:status:succeeded") == [20] * 4
    assert await fetch(connection, "SELECT count(*) FROM {producers} WHERE NOT closed", tables) == [(0,)]


@pytest.mark.parametrize("ends", ["worker", "block"])
async def test_where_log_and_spill_are_locked_the_loss_is_said_and_shown_at_once(
    ends: str, dsn: str, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    async with an_app(dsn) as (chancy, metrics):
        with anyio.fail_after(STOP_S + MARGIN_S):
            if ends == "worker":
                worker = await a_started(chancy, metrics)
                async with locked(dsn, tables, tables.log, tables.spill):
                    await hold(metrics, worker)
                    await metrics.on_worker_stopped(worker=worker)
                held, words = HELD, WORDS
            else:
                async with locked(dsn, tables, tables.log, tables.spill), metrics.recording(chancy, worker_id="web-0"):
                    metrics.sync_increment_counter("app:x", 1)
                held, words = {"observations": 1}, "1 observation"
        found = await completeness(chancy)
        status = await read_status(chancy)

    [error] = errors(caplog)
    assert error.startswith(f"the last metrics of worker 'web-0' are lost: {words}. They could not be written: ")
    assert "LockNotAvailable" in error
    assert (found.ended_uncleanly, found.lost, found.uncertain_s) == (1, held, 0)
    assert status.completeness == found


class Late(Recorder):
    """One whose buffer a thread fills to the last moment."""

    async def close(self, chancy: Chancy) -> None:
        await super().close(chancy)
        self.buffer.record("counter", "app:late", 1, None)


async def test_what_is_recorded_while_the_session_ends_is_said_to_be_lost_and_why(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with an_app(dsn) as (chancy, _):
        recorder = Late("web-0", Buffer(1_000), DatabaseClock(), logging.getLogger("late"))
        assert not await end(chancy, recorder, None, logging.getLogger("late"), within_s=9)

    assert [record.getMessage() for record in caplog.records if record.name == "late"] == [
        "the last metrics of worker 'web-0' are lost: 1 observation. They could not be written: they were recorded "
        "after the last batch was made"
    ]


async def test_where_the_role_may_not_append_flush_raises_and_the_stop_gives_up_at_once(
    role: str, dsn: str, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    async with an_app(dsn.replace("postgres@", f"{role}@")) as (chancy, metrics), an_app(dsn) as (elsewhere, _):
        worker = await a_started(chancy, metrics)
        await hold(metrics, worker)
        with pytest.raises(InsufficientPrivilege):
            await metrics.flush(chancy)
        await metrics._session(worker).recorder.append(chancy)
        status = await read_status(elsewhere)
        with anyio.fail_after(MARGIN_S):
            await metrics.on_worker_stopped(worker=worker)
        stopped = await completeness(elsewhere)

    [warning] = [record.message for record in caplog.records if "in memory, tried again" in record.message][1:]
    assert WORDS in warning
    alive = status.completeness
    assert [reason for reason in status.unhealthy if reason.startswith(f"{WORDS} can't be appended now")]
    assert (alive.in_memory, alive.ended_uncleanly) == (HELD, 0)
    assert (stopped.in_memory, stopped.lost, stopped.ended_uncleanly) == ({}, HELD, 1)
    [error] = errors(caplog)
    assert WORDS in error and "InsufficientPrivilege" in error


@pytest.fixture(params=["silent", "gone"])
async def lost_server(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[tuple[str, Proxy]]:
    async with a_proxy(server) as proxy:
        yield request.param, proxy


async def test_a_server_that_swallows_every_packet_or_is_gone_delays_a_stop_no_longer_than_the_deadline(
    lost_server: tuple[str, Proxy],
    dsn: str,
    connection: Connection,
    tables: Tables,
    caplog: pytest.LogCaptureFixture,
) -> None:
    how, proxy = lost_server
    async with an_app(dsn) as (elsewhere, _):
        chancy = Chancy(proxy.dsn(dsn), plugins=[metrics := Metrics(sync_interval=1, append_interval=0.05)])
        await chancy.pool.open()
        worker = await a_started(chancy, metrics)
        worker.is_leader.set()
        running = asyncio.create_task(metrics.run(worker, chancy))
        session = metrics._session(worker)
        if how == "silent":
            proxy.silent = True
        else:
            await proxy.close()
        await hold(metrics, worker)
        await eventually(lambda: is_in_flight(session.recorder))
        with anyio.fail_after(STOP_S + MARGIN_S):
            running.cancel()
            await asyncio.wait([running])
            await metrics.on_worker_stopped(worker=worker)
        at_once = await completeness(elsewhere)
        await sequence_and_fold(connection, tables)
        for table in ("sessions", "producers"):
            await fetch(connection, f"UPDATE {{{table}}} SET seen_at = seen_at - interval '181 s'", tables)
        later = await completeness(elsewhere)
        with anyio.move_on_after(1):
            await chancy.pool.close(timeout=0)

    [error] = errors(caplog)
    assert WORDS in error
    assert "`status` shows it only later" in error
    assert at_once.ended_uncleanly == 0
    assert (later.ended_uncleanly, later.uncertain_s) == (1, metrics.options.append_interval)


async def is_in_flight(recorder: object) -> bool:
    return recorder._in_flight is not None  # type: ignore[attr-defined]


async def test_a_last_fold_that_waits_for_a_lock_is_given_up_when_the_stops_time_is_up(
    dsn: str, connection: Connection, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    async with an_app(dsn) as (chancy, metrics):
        worker = await a_started(chancy, metrics)
        worker.is_leader.set()
        await hold(metrics, worker)
        async with locked(dsn, tables, tables.rollup("1hour")):
            with anyio.fail_after(STOP_S + MARGIN_S):
                await metrics.on_worker_stopped(worker=worker)
        found = await completeness(chancy)
    await sequence_and_fold(connection, tables)

    assert errors(caplog) == []
    assert "the last fold was given up, 3 s after the stop began" in caplog.text
    assert found.ended_uncleanly == 0
    assert await total(connection, tables, "app:x") == [400] * 4


async def test_a_process_that_ends_without_a_stop_says_what_it_takes_along(dsn: str) -> None:
    """As where Chancy's own last flush fails, after which it does not call the plugin."""
    program = """
import asyncio, sys
from chancy import Chancy, Worker
from chancy_metrics.plugin import Metrics

async def work():
    async with Chancy(sys.argv[1], plugins=[metrics := Metrics()]) as chancy:
        await metrics.on_worker_started(worker=Worker(chancy, worker_id="web-0"))
        await metrics.increment_counter("app:x", 1)

asyncio.run(work())
"""
    done = await anyio.run_process([sys.executable, "-c", program, dsn], cwd=os.getcwd(), stderr=subprocess.STDOUT)

    assert "are lost: 1 observation. The process ends" in " ".join(done.stdout.decode().split())
