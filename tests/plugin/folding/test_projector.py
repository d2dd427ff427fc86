"""Who folds and when: the leader; if it falls silent, anybody; and nothing ends the loop."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import AsyncExitStack

import anyio
import pytest
from chancy import Chancy, Queue, Worker, job
from psycopg import sql

from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import TableLocked
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.sequencer import SEQUENCE_LIMIT
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.folding import projector as projector_module
from chancy_metrics.plugin.folding.projector import Projector, fold_all
from chancy_metrics.plugin.folding.schedule import NEW_S, PATIENCE, FoldSchedule, _take_turn, project
from chancy_metrics.plugin.host.notify import FOLDED
from chancy_metrics.projections.versions.outcome import Outcome
from chancy_metrics.projections.versions.step import STEP_EVENTS
from tests.factories import LogWriter, a_run, an_app, append_as, connections, eventually, fetch, sequence_all, total

INTERVAL_S = 60.0


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


async def all_say(connection: Connection, tables: Tables, key: str, expected: int) -> None:
    """Wait until every rollup says *expected*."""

    async def all_say_so() -> bool:
        return await total(connection, tables, key) == [expected] * 4

    await eventually(all_say_so)


async def test_a_round_orders_and_folds_all_there_is(dsn: str, tables: Tables, connection: Connection) -> None:
    for _ in range(3):
        await LogWriter(connection, tables).append(runs=[a_run("app:n", [1.0, 2.0])])
    async with an_app(dsn) as (chancy, _):
        projector = Projector(chancy, "p")
        first, second = await projector.run_once(), await projector.run_once()
        await projector.close()

    assert first == (3, 6, 3, Outcome.FOLDED, None)
    assert second == (0, 0, 3, Outcome.CAUGHT_UP, None)
    assert await total(connection, tables, "app:n") == [9] * 4


async def test_a_round_whose_time_is_up_leaves_the_rest_to_the_next_one(
    dsn: str, tables: Tables, connection: Connection
) -> None:
    most_of_a_step = [1.0] * (STEP_EVENTS // 2 + 1)
    for _ in range(3):
        await LogWriter(connection, tables).append(runs=[a_run("app:n", most_of_a_step)])
    async with an_app(dsn) as (chancy, _):
        projector = Projector(chancy, "p")
        rounds = [await projector.run_once(within_s=0), await projector.run_once()]
        await projector.close()

    each = len(most_of_a_step)
    assert [(one.batches, one.events, one.position) for one in rounds] == [(3, each, 1), (0, 2 * each, 3)]


async def test_a_round_orders_all_there_is_also_where_somebody_else_folds(
    dsn: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chancy_metrics.plugin.folding.projector.BUSY_S", 0)
    async with connections(dsn, 2) as (holder, connection), an_app(dsn) as (chancy, _):
        async with connection.transaction(), connection.cursor() as cursor:
            for _ in range(SEQUENCE_LIMIT + 1):
                await append_as(cursor, tables, a_run("app:n"))
        async with holder.transaction():
            await fetch(holder, "SELECT 1 FROM {versions} WHERE version = 1 FOR UPDATE", tables)
            ordered = await fold_all(chancy)
        folded = await fold_all(chancy)

    assert (ordered.batches, ordered.events) == (SEQUENCE_LIMIT + 1, 0)
    assert (folded.batches, folded.events) == (0, SEQUENCE_LIMIT + 1)


async def test_a_round_that_finds_the_log_locked_ends_and_says_by_whom(
    dsn: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector_module, "LOCK_LIMIT_MS", 50)
    async with connections(dsn, 2) as (connection, locking), an_app(dsn) as (chancy, _):
        await LogWriter(connection, tables).append(runs=[a_run("app:n", [1.0, 2.0])])
        await sequence_all(connection, tables)  # so that only the fold has something to read
        projector = Projector(chancy, "p")
        async with locking.transaction():
            await fetch(locking, "LOCK TABLE {log} IN ACCESS EXCLUSIVE MODE", tables)
            with anyio.fail_after(20), pytest.raises(TableLocked) as locked:
                await projector.run_once()
        done = await projector.run_once()
        await projector.close()

        said = f"chancy_metrics_log could not be read by a fold: process {locking.info.backend_pid} "

    assert said in str(locked.value)
    assert done == (0, 2, 1, Outcome.FOLDED, None)


async def test_what_commits_below_the_hint_is_found_by_the_next_sweep(
    dsn: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connections(dsn, 2) as (slow, quick), an_app(dsn) as (chancy, _):
        projector = Projector(chancy, "p")
        async with slow.transaction():
            await append_as(slow.cursor(), tables, a_run("app:n"))
            await LogWriter(quick, tables).append(runs=[a_run("app:n")])
            await projector.run_once()
        before = await projector.run_once()
        monkeypatch.setattr("chancy_metrics.plugin.folding.projector.SWEEP_S", 0)
        after = await projector.run_once()
        await projector.close()

        assert (before.events, after.events) == (0, 1)
        assert await total(quick, tables, "app:n") == [2] * 4


async def test_an_idle_projector_reads_no_dead_row_and_still_finds_what_commits_late(
    dsn: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chancy_metrics.plugin.folding.projector.SWEEP_S", 0)
    async with connections(dsn, 3) as (slow, quick, dump), an_app(dsn) as (chancy, _):
        # What it can see may not be cleaned up: the dead rows stay.
        await dump.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await dump.execute("SELECT 1 FROM chancy_metrics_pending")
        first = Projector(chancy, "p")
        writer = LogWriter(quick, tables)
        async with slow.transaction():
            await append_as(slow.cursor(), tables, a_run("app:n"))
            for _ in range(200):
                await writer.append(runs=[a_run("app:n")])
            for _ in range(4):  # no sweep may settle what the open transaction holds
                await first.run_once()
        late = await first.run_once()
        second = Projector(Chancy(dsn), "q")  # knows nothing
        for _ in range(4):
            await first.run_once()
            await second.run_once()
        settled = await _index_reads(quick, first, second)
        for _ in range(5):
            await first.run_once()
            await second.run_once()
            await fold_all(chancy, "p")
            assert await first.is_folded(0)
        idle = await _index_reads(quick, first, second)
        await writer.append(runs=[a_run("app:n")])
        next_one = await second.run_once()
        await second.close()

        assert (late.events, next_one.events) == (1, 1)
        assert settled > 200
        assert idle - settled < 20
        assert await total(quick, tables, "app:n") == [202] * 4


async def _index_reads(connection: Connection, *projectors: Projector) -> int:
    """Entries of the pending table's index that were read so far; what a connection read is known once it is closed."""
    for projector in projectors:
        await projector.close()
    readers = "SELECT 1 FROM pg_stat_activity WHERE application_name IN ('p', 'q')"
    await eventually(lambda: _is_empty(connection, readers))
    cursor = await connection.execute(
        "SELECT sum(idx_tup_read)::int FROM pg_stat_user_indexes WHERE relname = 'chancy_metrics_pending'"
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def _is_empty(connection: Connection, query: str) -> bool:
    return await (await connection.execute(query)).fetchone() is None


async def test_the_leader_folds_and_others_wait_for_its_silence(
    dsn: str, tables: Tables, connection: Connection
) -> None:
    clock, leader = Clock(), asyncio.Event()
    schedule = FoldSchedule("w2", INTERVAL_S, leader, clock=clock)
    async with an_app(dsn) as (chancy, _):
        for _ in range(2):
            await fold_all(chancy, "w1")
            await LogWriter(connection, tables).append(runs=[a_run("app:n")])
        projector = Projector(chancy, "w2")
        clock.now_s += PATIENCE * INTERVAL_S - 1
        pause = await _take_turn(schedule, projector, INTERVAL_S)
        waited = await total(connection, tables, "app:n")
        leader.set()
        await _take_turn(schedule, projector, INTERVAL_S)
        await projector.close()

    assert 0 < pause <= 1 + 0.5 * INTERVAL_S
    assert waited == [1] * 4
    assert await total(connection, tables, "app:n") == [2] * 4


async def test_the_first_numbers_wait_for_no_leader_and_empty_batches_are_none(
    dsn: str, tables: Tables, connection: Connection
) -> None:
    clock = Clock()
    schedule = FoldSchedule("w2", INTERVAL_S, asyncio.Event(), clock=clock)
    async with an_app(dsn) as (chancy, _):
        projector = Projector(chancy, "w2")
        writer = LogWriter(connection, tables)
        await writer.append()
        schedule.hear("w1")  # who has nothing but empty batches to fold is heard too
        early = await _take_turn(schedule, projector, INTERVAL_S)
        clock.now_s += INTERVAL_S
        later = await _take_turn(schedule, projector, INTERVAL_S)
        idle = schedule.is_mine
        await writer.append(runs=[a_run("app:n")])
        pause = await _take_turn(schedule, projector, INTERVAL_S)
        await projector.close()

    assert early <= NEW_S
    assert NEW_S < later < INTERVAL_S
    assert (idle, schedule.is_mine, pause) == (False, True, INTERVAL_S)
    assert await total(connection, tables, "app:n") == [1] * 4


async def test_of_many_workers_that_start_at_once_one_makes_the_first_numbers(
    dsn: str, tables: Tables, connection: Connection
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n")])
    many = [FoldSchedule(f"w{number}", INTERVAL_S, asyncio.Event()) for number in range(20)]
    async with an_app(dsn, notifications=False) as (chancy, _), AsyncExitStack() as stack:
        projectors = [Projector(chancy, f"w{number}") for number in range(len(many))]
        for projector in projectors:
            stack.push_async_callback(projector.close)

        pauses = await asyncio.gather(
            *(_take_turn(schedule, projector, INTERVAL_S) for schedule, projector in zip(many, projectors, strict=True))
        )

    assert await total(connection, tables, "app:n") == [1] * 4
    # One may have ordered what another one has folded.
    assert 1 <= [schedule.is_mine for schedule in many].count(True) <= 2
    assert len(set(pauses)) > len(many) / 2


async def test_who_becomes_the_leader_is_awake_at_once() -> None:
    leader = asyncio.Event()
    schedule = FoldSchedule("w2", INTERVAL_S, leader)
    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(20):
            tasks.start_soon(schedule.wait, INTERVAL_S)
            await anyio.lowlevel.checkpoint()
            leader.set()


async def test_a_silent_projector_is_replaced_and_takes_its_turn_back(
    dsn: str, tables: Tables, connection: Connection
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n")])
    clock = Clock()
    schedule = FoldSchedule("w2", INTERVAL_S, asyncio.Event(), clock=clock)
    schedule.hear("w1")
    async with an_app(dsn) as (chancy, _):
        projector = Projector(chancy, "w2")
        clock.now_s += 2 * INTERVAL_S + 1
        assert not schedule.is_mine
        await _take_turn(schedule, projector, INTERVAL_S)
        took_over = schedule.is_mine
        schedule.hear("w2")
        still = schedule.is_mine
        schedule.hear("w1")
        await projector.close()

    assert (took_over, still, schedule.is_mine) == (True, True, False)
    assert await total(connection, tables, "app:n") == [1] * 4


async def test_silence_is_no_reason_where_the_database_shows_a_fold(
    dsn: str, tables: Tables, connection: Connection
) -> None:
    """Without notifications nobody is ever heard."""
    clock = Clock()
    schedule = FoldSchedule("w2", INTERVAL_S, asyncio.Event(), clock=clock)
    async with an_app(dsn, notifications=False) as (chancy, _):
        await LogWriter(connection, tables).append(runs=[a_run("app:n")])
        await fold_all(chancy, "w1")
        await LogWriter(connection, tables).append(runs=[a_run("app:n")])
        projector = Projector(chancy, "w2")
        clock.now_s += 2 * INTERVAL_S + 1
        await _take_turn(schedule, projector, INTERVAL_S)
        current = schedule.is_mine
        await fetch(connection, "UPDATE {versions} SET folded_at = folded_at - interval '1 hour'", tables)
        clock.now_s += 2 * INTERVAL_S + 1
        await _take_turn(schedule, projector, INTERVAL_S)
        await projector.close()

    assert (current, schedule.is_mine) == (False, True)
    assert await total(connection, tables, "app:n") == [2] * 4


async def test_an_idle_log_needs_nobody(dsn: str, tables: Tables) -> None:
    clock = Clock()
    schedule = FoldSchedule("w2", INTERVAL_S, asyncio.Event(), clock=clock)
    async with an_app(dsn) as (chancy, _):
        projector = Projector(chancy, "w2")
        clock.now_s += 2 * INTERVAL_S + 1
        await _take_turn(schedule, projector, INTERVAL_S)
        await projector.close()

    assert not schedule.is_mine


async def test_the_loop_outlives_a_lost_connection_and_a_missing_table(
    dsn: str, tables: Tables, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    leader = asyncio.Event()
    leader.set()
    async with an_app(dsn) as (chancy, _):
        projector = Projector(chancy, "p")
        log = logging.getLogger("test.projector")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(project, FoldSchedule("p", 0.05, leader), projector, 0.05, log)
            await LogWriter(connection, tables).append(runs=[a_run("app:n")])
            await all_say(connection, tables, "app:n", 1)
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
            await fetch(connection, "ALTER TABLE {head} RENAME TO away", tables)
            with anyio.fail_after(20):
                while "folding metrics failed" not in caplog.text:
                    await anyio.lowlevel.checkpoint()
            await fetch(connection, "ALTER TABLE away RENAME TO chancy_metrics_head", tables)
            await LogWriter(connection, tables).append(runs=[a_run("app:n")])

            await all_say(connection, tables, "app:n", 2)

            tasks.cancel_scope.cancel()
        await projector.close()


async def test_of_two_live_workers_with_one_id_the_second_gives_its_turn_up(dsn: str) -> None:
    """As in two pods of one StatefulSet, or two processes started with one `worker_id`."""
    async with an_app(dsn) as (chancy, metrics), an_app(dsn) as (elsewhere, other):
        workers = [Worker(app, worker_id="web-0", register_signal_handlers=False) for app in (chancy, elsewhere)]
        for plugin, worker in zip((metrics, other), workers, strict=True):
            await plugin.on_worker_started(worker=worker)
        first, second = metrics._session(workers[0]), other._session(workers[1])
        first.schedule.take_over()
        second.schedule.take_over()
        async with connections(dsn, 1) as (listener,):
            await listener.execute(sql.SQL("LISTEN {}").format(sql.Identifier("chancy_events")))
            projector = first.projector()
            await projector.heartbeat()
            await projector.close()
            [notice] = [notice async for notice in listener.notifies(timeout=5, stop_after=1)]
        body = json.loads(notice.payload)
        for worker in workers:
            await worker.hub.emit(FOLDED, body)

        assert (first.schedule.is_mine, second.schedule.is_mine) == (True, False)
        for plugin, worker in zip((metrics, other), workers, strict=True):
            await plugin.on_worker_stopped(worker=worker)


@job(queue="default")
async def work() -> None:
    """Nothing: that it was saved is what counts."""


async def test_a_new_installation_with_defaults_shows_its_first_numbers_at_once(dsn: str) -> None:
    """Within five seconds; sixty without the look at a new installation, and as much again until a leader is there."""
    async with an_app(dsn, Metrics()) as (chancy, metrics):
        await chancy.declare(Queue("default", executor=Chancy.Executor.Async, polling_interval=1))
        await chancy.push(work.job)
        async with Worker(chancy, register_signal_handlers=False):

            async def shown() -> bool:
                return "queue:default:succeeded" in await metrics.get_metrics(chancy)

            await eventually(shown)
