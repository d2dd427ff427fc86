"""Verify finds nothing false beside appends, folds, prunes and detached days, and nobody waits for it."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import anyio
import psycopg
import pytest
from psycopg import sql

from chancy_metrics.events.batch import BatchId
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.log import append
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.health.verify import verify
from chancy_metrics.plugin.worker.retention import prune_days
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.verify import replay as module
from chancy_metrics.projections.versions.replay import log_snapshot
from tests.factories import LogWriter, a_row, a_run, an_app, append_as, connections, fetch, sequence_and_fold

FIRST = date(2026, 3, 10)
DAYS = 4
HOUR_US = 3_600_000_000
FIRST_US = int(datetime(2026, 3, 10, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.fixture
async def old_days(connection: Connection, tables: Tables) -> AsyncIterator[None]:
    """Four days of the log, each with batches whose events lie in it, in the day before and across midnight."""
    await make_days(connection, tables, today=FIRST, ahead=DAYS - 1)
    for day in range(DAYS):
        for hour in (-20, -1, 0, 5, 23):
            at_us = FIRST_US + (24 * day + hour) * HOUR_US
            runs = [
                a_run("app:n", [1.0], at_us=at_us),
                a_run("app:level", [float(hour)], kind="gauge", at_us=at_us),
                a_run("app:took", [0.5, float(day)], kind="histogram", at_us=at_us),
            ]
            async with short_transaction(connection) as cursor:
                batch_id = BatchId(FIRST + timedelta(days=day), uuid.uuid4(), 1)
                batch = encode([a_row(at_us)], runs)
                await append(cursor, tables, batch_id, batch, worker=f"w{day % 2}", closes=True)
    await sequence_and_fold(connection, tables)
    yield


async def let_go(connection: Connection, tables: Tables, *, days: int) -> int:
    """Prune up to *days* of the oldest, of the three that are due; return how many went."""
    now_us = FIRST_US + 25 * HOUR_US + (DAYS - 1) * 24 * HOUR_US
    pruned = await prune_days(connection, tables, BUILT_IN, now_us=now_us, log_retention_s=86_400, limit=days)
    return sum(not day.blocker for day in pruned)


async def test_beside_appends_folds_and_a_prune_nothing_false_is_found(
    dsn: str, connection: Connection, tables: Tables, old_days: None
) -> None:
    running = 2
    found = []

    async def write(own: Connection) -> None:
        nonlocal running
        writer = LogWriter(own, tables)
        for number in range(40):
            at_us = FIRST_US + number * HOUR_US
            await writer.append(jobs=[a_row(at_us)], runs=[a_run("app:n", at_us=at_us)])
            if number % 3:
                await sequence_and_fold(own, tables)
        running -= 1

    async def let_days_go(own: Connection) -> None:
        nonlocal running
        gone = 0
        while gone < DAYS - 1:
            gone += await let_go(own, tables, days=1)
        running -= 1

    async with connections(dsn, 2) as (one, two), an_app(dsn) as (chancy, _), anyio.create_task_group() as tasks:
        tasks.start_soon(write, one)
        tasks.start_soon(let_days_go, two)
        with anyio.fail_after(60):
            while running:
                found.append(await verify(chancy))
        await sequence_and_fold(connection, tables)
        found.append(await verify(chancy))
        since = datetime(2026, 3, 10, 20, tzinfo=UTC)
        found.append(await verify(chancy, since=since, until=since + timedelta(days=3)))

    assert [(one.differences, one.findings) for one in found] == [([], [])] * len(found)
    assert found[-2].notes == found[-1].notes
    assert found[-1].notes[0].startswith("days before 2026-03-13 have left the log: their part is taken from the")
    states = await fetch(connection, "SELECT state FROM {days} WHERE day < '2026-03-13'", tables)
    assert [row[0] for row in states] == ["gone"] * (DAYS - 1)


async def test_a_day_that_goes_into_the_baseline_meanwhile_begins_the_replay_again(
    dsn: str, connection: Connection, tables: Tables, old_days: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_day, went = module.check_day, []

    async def and_let_one_go(*arguments: Any) -> None:
        if not went:
            async with connections(dsn, 1) as (own,):
                went.append(await let_go(own, tables, days=1))
        await check_day(*arguments)

    monkeypatch.setattr(module, "_NEAR", 1)  # else so short a ledger is replayed behind the snapshot, days and all
    monkeypatch.setattr(module, "check_day", and_let_one_go)
    async with an_app(dsn) as (chancy, _):
        found = await verify(chancy)

    assert went == [1]
    assert (found.differences, found.findings) == ([], [])
    assert found.events == (DAYS - 1) * 5 * 5


async def test_what_never_stands_still_ends_with_a_sentence(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    days = itertools.count(1)

    async def always_another(*_: Any) -> set[date]:
        return {FIRST + timedelta(days=next(days))}

    monkeypatch.setattr(module, "gone_days", always_another)
    async with an_app(dsn) as (chancy, _):
        with pytest.raises(MetricsLogError, match="changed 5 times while they were verified"):
            await verify(chancy)


async def test_a_day_is_not_detached_under_a_snapshot_that_has_yet_to_read_it_and_appends_go_on(
    dsn: str, connection: Connection, tables: Tables, old_days: None
) -> None:
    detach = sql.SQL("ALTER TABLE {} DETACH PARTITION {} CONCURRENTLY").format(tables.log, tables.partition(FIRST))
    async with connections(dsn, 2) as (one, two), log_snapshot(connection, tables) as cursor:
        await cursor.execute("SELECT 1")  # takes the snapshot
        await one.execute("SET statement_timeout = 500")
        with pytest.raises(psycopg.errors.QueryCanceled):
            await one.execute(detach)
        async with short_transaction(two, lock_timeout_ms=100) as other:
            await append_as(other, tables, a_run("app:n"))
        query = sql.SQL("SELECT count(*) FROM {log} WHERE day = '2026-03-10'").format(log=tables.log)
        await cursor.execute(query)
        counted = await cursor.fetchone()

    assert counted == (5,)


async def test_the_ledgers_beginning_may_be_gone_with_its_days(
    dsn: str, connection: Connection, tables: Tables, old_days: None
) -> None:
    await let_go(connection, tables, days=2)
    await fetch(connection, "DELETE FROM {ledger} WHERE position < 10", tables)
    async with an_app(dsn) as (chancy, _):
        right = await verify(chancy)
        await fetch(connection, "DELETE FROM {ledger} WHERE position < 13", tables)
        wrong = await verify(chancy)

    assert (right.differences, right.findings) == ([], [])
    assert {finding.check for finding in wrong.findings} == {"ledger", "log"}
    assert any("positions 1 to 12" in finding.where for finding in wrong.findings)
