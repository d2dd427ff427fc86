"""Days past their time leave the log while everybody goes on, and no batch is lost or doubled by it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import anyio
import psycopg
import pytest
from psycopg import AsyncConnection, sql

from chancy_metrics.events import partitions
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.partitions import DDL_LOCK_MS, attached_days, close_day, make_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.health.dead_letters import discard
from chancy_metrics.plugin.worker.maintenance import Maintenance
from chancy_metrics.plugin.worker.retention import PrunedDay, first_kept_day, prune_days
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.versions.replay import replay, stored
from examples.embedded import Server
from tests.commands import run
from tests.factories import (
    LogWriter,
    a_host,
    a_job,
    a_run,
    an_app,
    claimed,
    connections,
    eventually,
    fetch,
    sequence_all,
    sequence_and_fold,
)
from tests.faults.proxy import Loss, a_proxy
from tests.faults.test_poolers import needs_bouncer, pgbouncer
from tests.faults.truth import logged_counts, logged_updates, logged_values, read_log
from tests.plugin.recording.test_job_hook import flush, updates

TODAY = datetime.now(UTC)
OLD = TODAY.date() - timedelta(days=40)
OLD_US = int(datetime(OLD.year, OLD.month, OLD.day, 12, tzinfo=UTC).timestamp()) * 1_000_000
MONTH_S = 30 * 86_400
HELD = f"an open transaction holds {OLD}: no lock within 100 ms; the next call tries again"


async def an_old_day(connection: Connection, tables: Tables, *, fold: bool = True) -> None:
    """A day of the log that is past its time, with a batch in it."""
    await make_days(connection, tables, today=OLD, ahead=0)
    await insert_old(connection, tables)
    if fold:
        await sequence_and_fold(connection, tables)


async def insert_old(connection: Connection, tables: Tables) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(runs=[a_run("app:old", at_us=OLD_US)], day=OLD)


async def let_go(connection: Connection, tables: Tables, **options: Any) -> list[PrunedDay]:
    now_us = time.time_ns() // 1_000
    return await prune_days(connection, tables, BUILT_IN, now_us=now_us, log_retention_s=MONTH_S, **options)


async def state_of_old(connection: Connection, tables: Tables) -> str:
    return str((await fetch(connection, "SELECT state FROM {days} WHERE day = %(day)s", tables, day=OLD))[0][0])


async def test_only_days_that_ended_longer_ago_than_the_log_is_kept_are_due() -> None:
    noon = datetime(2026, 3, 10, 12, tzinfo=UTC)
    us = int(noon.timestamp()) * 1_000_000

    assert first_kept_day(us, 86_400) == datetime(2026, 3, 9).date()
    assert first_kept_day(us, 86_400 * 1.5) == datetime(2026, 3, 9).date()  # it began at that moment
    assert first_kept_day(us, 86_400 * 1.5 + 1) == datetime(2026, 3, 8).date()


async def test_a_dry_run_says_what_would_go_and_changes_nothing(connection: Connection, tables: Tables) -> None:
    await an_old_day(connection, tables)
    await make_days(connection, tables, today=OLD + timedelta(days=1), ahead=0)

    dry = await let_go(connection, tables, dry_run=True)

    assert [(day.day, day.state, day.blocker) for day in dry] == [
        (OLD + timedelta(days=n), "attached", None) for n in range(2)
    ]
    assert dry[0].size_bytes > 0
    assert await state_of_old(connection, tables) == "attached"
    assert await let_go(connection, tables) == [PrunedDay(OLD, "gone", dry[0].size_bytes, None)]


async def test_a_day_that_never_had_a_partition_goes_too(connection: Connection, tables: Tables) -> None:
    await fetch(connection, "INSERT INTO {days} VALUES (%(day)s, 'attached', now())", tables, day=OLD)

    assert await let_go(connection, tables) == [PrunedDay(OLD, "gone", 0, None)]
    assert await let_go(connection, tables) == []


async def test_a_row_of_an_open_transaction_keeps_its_day_and_is_in_the_baseline_in_the_end(
    dsn: str, tables: Tables
) -> None:
    async with connections(dsn, 2) as (connection, writer):
        await make_days(connection, tables, today=OLD, ahead=0)
        async with writer.transaction():
            await insert_old(writer, tables)
            [during] = await let_go(connection, tables)
        [unfolded] = await let_go(connection, tables)
        await sequence_and_fold(connection, tables)
        [after] = await let_go(connection, tables)

        assert (during.state, during.blocker) == ("attached", HELD)
        assert unfolded.state == "closed" and "no position in the ledger yet" in unfolded.blocker
        assert (after.state, after.blocker) == ("gone", None)
        points = await replay(connection, tables)
        assert "app:old" in {point.series.key for point in points}
        assert diff(await stored(connection, tables), points) == []


async def test_a_dump_keeps_its_partition_and_no_append_waits_beside_it(
    dsn: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "DETACH_S", 0.5)
    appended = looked = in_the_way = 0
    async with connections(dsn, 4) as (connection, dumper, writer, watcher):
        await an_old_day(connection, tables)

        async def append_for_ever() -> None:
            nonlocal appended
            producer = LogWriter(writer, tables)
            while True:
                await producer.append(runs=[a_run("app:n")], lock_wait_ms=DDL_LOCK_MS)
                appended += 1
                await anyio.sleep(0.001)

        async def watch_for_ever() -> None:
            """Appends would queue behind a request for this lock, though they might get through in time."""
            nonlocal looked, in_the_way
            exclusive = "SELECT count(*) FROM pg_locks WHERE relation = %(log)s AND mode = 'AccessExclusiveLock'"
            [(log,)] = await fetch(
                watcher, "SELECT %(name)s::regclass::oid", tables, name=tables.log.as_string(watcher)
            )
            while True:
                in_the_way += (await fetch(watcher, exclusive, tables, log=log))[0][0]
                looked += 1
                await anyio.sleep(0.005)

        async def have_run() -> bool:
            return appended > 50 and looked > 50

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(append_for_ever)
            tasks.start_soon(watch_for_ever)
            async with dumper.transaction():
                await dumper.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                await fetch(dumper, "LOCK TABLE {log} IN ACCESS SHARE MODE", tables)
                await dumper.execute("SELECT 1")
                started = time.monotonic()
                during = [(await let_go(connection, tables))[0] for _ in range(2)]
                took = time.monotonic() - started
                await eventually(have_run)
                dumped = await dumper.execute(sql.SQL("SELECT worker FROM {}").format(tables.partition(OLD)))
                rows = await dumped.fetchall()
            after = await let_go(connection, tables)
            tasks.cancel_scope.cancel()

    assert [(day.state, day.blocker) for day in during] == [("absorbed", HELD)] * 2
    assert rows == [("worker",)]
    assert [(day.state, day.blocker) for day in after] == [("gone", None)]
    assert in_the_way == 0
    assert took < 10


async def test_a_day_that_can_not_go_keeps_the_later_ones(dsn: str, tables: Tables) -> None:
    async with connections(dsn, 2) as (connection, writer):
        await make_days(connection, tables, today=OLD, ahead=1)
        async with writer.transaction():
            await insert_old(writer, tables)
            pruned = await let_go(connection, tables, limit=2)

        assert [(day.day, day.blocker) for day in pruned] == [(OLD, HELD)]
        states = "SELECT state FROM {days} WHERE day < %(end)s ORDER BY day"
        assert await fetch(connection, states, tables, end=OLD + timedelta(days=2)) == [("attached",)] * 2


async def test_days_are_made_while_another_waits_to_be_detached(
    dsn: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "DETACH_S", 0.1)
    far = TODAY.date() + timedelta(days=900)
    async with connections(dsn, 2) as (connection, dumper):
        await an_old_day(connection, tables)
        async with dumper.transaction():
            await fetch(dumper, "SELECT count(*) FROM {log}", tables)
            [held] = await let_go(connection, tables)

            assert held.blocker == HELD
            assert await make_days(connection, tables, today=far, ahead=0) == [far]


async def test_two_that_prune_at_once_both_end_well(dsn: str, tables: Tables) -> None:
    gone: list[PrunedDay] = []

    async def go(connection: Connection) -> None:
        while some := await let_go(connection, tables):
            gone.extend(day for day in some if not day.blocker)

    async with connections(dsn, 3) as several:
        await an_old_day(several[0], tables)
        await make_days(several[0], tables, today=OLD + timedelta(days=1), ahead=7)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for connection in several:
                    tasks.start_soon(go, connection)

        assert {day.day for day in gone} == {OLD + timedelta(days=n) for n in range(9)}
        assert diff(await stored(several[0], tables), await replay(several[0], tables)) == []


@pytest.mark.slow
@needs_bouncer
async def test_a_day_goes_through_a_pooler_in_transaction_mode(dsn: str, server: Server, tables: Tables) -> None:
    with pgbouncer(server) as folder:
        async with connections(dsn, 2) as (direct, reader):
            await an_old_day(direct, tables)
            await eventually(anyio.Path(folder, ".s.PGSQL.6432").exists)
            async with connections(psycopg.conninfo.make_conninfo(dsn, host=folder, port=6432), 1) as (pooled,):
                pooled.prepare_threshold = None
                async with reader.transaction():
                    await fetch(reader, "SELECT count(*) FROM {log}", tables)
                    [held] = await let_go(pooled, tables)
                [gone] = await let_go(pooled, tables)

    assert (held.state, held.blocker) == ("absorbed", HELD)
    assert (gone.state, gone.blocker) == ("gone", None)


async def test_maintenance_and_cleanup_let_days_go(dsn: str, connection: Connection, tables: Tables) -> None:
    await an_old_day(connection, tables)
    await Maintenance(Metrics().options).clean(connection, tables)
    first = await state_of_old(connection, tables)
    await make_days(connection, tables, today=OLD + timedelta(days=1), ahead=0)
    async with an_app(dsn) as (chancy, metrics):
        removed = await metrics.cleanup(chancy)

    assert first == "gone"
    assert removed is None
    async with short_transaction(connection) as cursor:
        assert min(await attached_days(cursor, tables)) >= TODAY.date() - timedelta(days=31)
    assert await fetch(connection, "SELECT to_regclass(%(name)s)", tables, name=tables.partition_name(OLD)) == [(None,)]


async def test_positions_and_days_are_let_go_when_their_points_are_and_an_anchor_stays(
    connection: Connection, tables: Tables
) -> None:
    await make_days(connection, tables, today=OLD, ahead=3)
    writer = LogWriter(connection, tables)
    for day, late_us in ((0, 9), (1, 1), (2, 2), (2, 3), (3, 4)):
        await writer.append(runs=[a_run("app:old", at_us=OLD_US + late_us)], day=OLD + timedelta(days=day))
        await sequence_all(connection, tables)
    await sequence_and_fold(connection, tables)
    cleaner = Maintenance(Metrics(maximum_metric_age=37 * 86_400, log_retention=37 * 86_400).options)
    noon_us = OLD_US + 40 * 86_400_000_000

    for _ in range(4):
        await cleaner.clean(connection, tables, now_us=noon_us)

    left = "SELECT position FROM {ledger} ORDER BY position"
    days = "SELECT day - %(old)s::date, state FROM {days} WHERE day < %(old)s::date + 4 ORDER BY day"
    assert await fetch(connection, left, tables) == [(4,), (5,)]
    assert await fetch(connection, days, tables, old=OLD) == [(0, "gone"), (2, "gone"), (3, "attached")]
    assert diff(await stored(connection, tables), await replay(connection, tables)) == []


async def a_stale_append(
    dsn: str, server: Server, connection: Connection, tables: Tables, *, loss: Loss, to: Literal["closed", "gone"]
) -> None:
    """A recorder whose clock slept sends a batch for an old day, does not hear of it, and finds the day closed."""
    await make_days(connection, tables, today=OLD, ahead=0)
    async with a_proxy(server) as proxy, a_host(proxy.dsn(dsn)) as (worker, metrics):
        recorder = metrics._session(worker).recorder
        recorder._clock.see(TODAY - timedelta(days=40))
        losses: list[Loss] = [loss]
        proxy.loses = lambda statements: losses.pop() if losses and b"metrics_append" in statements else ""
        await metrics.increment_counter("app:x", 1)
        assert not await recorder.append(worker.chancy)
        assert proxy.lost == [loss]
        if to == "gone":
            await sequence_and_fold(connection, tables)
            assert [day.state for day in await let_go(connection, tables)] == ["gone"]
        else:
            assert await close_day(connection, tables, OLD) is None

        assert await recorder.append(worker.chancy)
        await metrics.increment_counter("app:x", 2)
        assert await recorder.append(worker.chancy)


@pytest.mark.parametrize("to", ["closed", "gone"])
@pytest.mark.parametrize("loss", ["answer", "commit"])
async def test_a_batch_for_a_day_that_was_closed_meanwhile_is_in_the_numbers_once(
    loss: Loss, to: Literal["closed", "gone"], dsn: str, server: Server, connection: Connection, tables: Tables
) -> None:
    await a_stale_append(dsn, server, connection, tables, loss=loss, to=to)
    await sequence_and_fold(connection, tables)

    by_day = await fetch(connection, "SELECT sum(sum) FROM {r1day} WHERE version = 1 GROUP BY series", tables)
    assert by_day == [(3,)]
    assert await fetch(connection, "SELECT sum(holes), count(*) FROM {producers}", tables) == [(0, 2)]
    kept = logged_values(await read_log(connection, tables), "app:x")
    assert kept == ([2] if (loss, to) == ("answer", "gone") else [1, 2])
    assert diff(await stored(connection, tables), await replay(connection, tables)) == []


async def test_a_worker_that_stops_puts_its_last_batch_under_today_when_its_day_is_closed(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await make_days(connection, tables, today=OLD, ahead=0)
    assert await close_day(connection, tables, OLD) is None
    async with a_host(dsn) as (worker, metrics):
        metrics._session(worker).recorder._clock.see(TODAY - timedelta(days=40))
        await metrics.increment_counter("app:x", 1)
    await sequence_all(connection, tables)

    log = await read_log(connection, tables)
    assert logged_values(log, "app:x") == [1]
    assert sum(written.closes for written in log) == 2


async def test_job_updates_for_a_closed_day_are_saved_with_their_jobs_and_come_under_today(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await make_days(connection, tables, today=OLD, ahead=0)
    async with a_host(dsn) as (worker, metrics):
        hook = metrics._session(worker).hook
        hook._clock.see(TODAY - timedelta(days=40))
        assert await close_day(connection, tables, OLD) is None
        first, second = await claimed(connection, *(a_job() for _ in range(2)))

        await flush(worker, first)
        await flush(worker, second)
    await sequence_all(connection, tables)

    log = await read_log(connection, tables)
    assert logged_updates(log) == updates(first, second)
    assert logged_counts(log) == {}
    assert await fetch(connection, "SELECT count(*) FROM chancy_jobs WHERE state = 'succeeded'", tables) == [(2,)]


@pytest.mark.parametrize("committed", [True, False])
async def test_an_unconfirmed_batch_of_job_updates_whose_day_was_closed_is_looked_up(
    committed: bool, dsn: str, connection: Connection, tables: Tables
) -> None:
    """Also where it is in the log and has no position in the ledger yet."""
    await make_days(connection, tables, today=OLD, ahead=0)
    async with a_host(dsn) as (worker, metrics), await AsyncConnection.connect(dsn) as host:
        hook = metrics._session(worker).hook
        first, second, third = await claimed(connection, *(a_job() for _ in range(3)))
        hook._clock.see(TODAY - timedelta(days=40))
        async with host.transaction(force_rollback=not committed), host.cursor() as cursor:
            await hook.record(cursor, "chancy_", [first])
        assert await close_day(connection, tables, OLD) is None
        hook._clock.see(TODAY - timedelta(days=40))  # which the answer had put right

        await flush(worker, first, second)
        await flush(worker, third)
    await sequence_and_fold(connection, tables)

    log = await read_log(connection, tables)
    assert logged_updates(log) == updates(first, second, third)
    assert logged_counts(log) == {}
    assert await fetch(connection, "SELECT sum(holes), count(*) FROM {producers}", tables) == [(0, 2)]


def texts(done: Sequence[subprocess.CompletedProcess[str]]) -> list[tuple[int, str]]:
    return [(one.returncode, one.stdout + one.stderr) for one in done]


@pytest.mark.slow
async def test_prune_says_what_goes_what_stays_and_why(dsn: str, connection: Connection, tables: Tables) -> None:
    nothing = run(dsn, "prune")
    await an_old_day(connection, tables, fold=False)

    dry, refused, as_json = run(dsn, "prune", "--dry-run"), run(dsn, "prune"), run(dsn, "prune", "--json")
    run(dsn, "fold")
    would, gone = run(dsn, "prune", "--dry-run"), run(dsn, "prune")

    assert texts([nothing]) == [(0, "no day of the log is due for pruning\n")]
    why = f"1 batch of {OLD} has no position in the ledger yet: a worker's next fold assigns it, or "
    why += "`chancy-metrics fold`"
    assert dry.returncode == refused.returncode == as_json.returncode == 3
    assert f"kept (attached): {why}" in dry.stdout
    assert f"kept (closed): {why}" in refused.stdout
    [day] = json.loads(as_json.stdout)
    assert (day["day"], day["state"], day["blocker"]) == (str(OLD), "closed", why)
    assert would.returncode == gone.returncode == 0
    assert would.stdout.splitlines() == [f"{OLD}  32.8 kB  would be dropped", "would free 32.8 kB"]
    assert gone.stdout.splitlines() == [f"{OLD}  32.8 kB  dropped", "freed 32.8 kB"]


@pytest.mark.slow
async def test_discard_gives_a_batch_up_in_every_version_and_says_who_and_why(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await fetch(
        connection,
        "INSERT INTO {dead_letters} (version, position, error) VALUES (0, 7, 'x'), (1, 7, 'x'), (1, 9, 'y')",
        tables,
    )

    done = [run(dsn, "discard", *of) for of in (["7", "--why", "a test"], ["7", "--why", "again"], ["8", "--why", "z"])]
    wrong = [run(dsn, "discard", "9"), run(dsn, "discard", "9", "--why", " ")]

    assert [one.returncode for one in done] == [0, 0, 1]
    assert done[0].stdout.startswith("the batch at position 7 is given up by ")
    assert done[0].stdout.endswith(" (versions 0, 1): a test\n")
    assert done[1].stdout == done[0].stdout.replace("is given up", "was given up before")
    assert done[2].stderr == ("Error: there is no position 8 yet: the ledger ends at 0; left out and not given up: 9\n")
    assert [one.returncode for one in wrong] == [2, 2]
    assert await fetch(
        connection, "SELECT version, why FROM {dead_letters} WHERE discarded_at IS NOT NULL ORDER BY 1", tables
    ) == [(0, "a test"), (1, "a test")]


async def test_discarding_takes_a_reason(dsn: str) -> None:
    async with an_app(dsn) as (chancy, _):
        with pytest.raises(ValueError, match="must say why the batch at position 1 is given up"):
            await discard(chancy, 1, why=" ", by="me")
