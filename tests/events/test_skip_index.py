"""Ranges are summarised once each, by any number of processes, and their summaries go with their days."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from uuid import UUID

import anyio
import pytest

from chancy_metrics.events.batch import BatchId, LogBatch
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.ledger import LedgerRow
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.skip_index import FORMAT, Wanted, read_skip_ranges
from chancy_metrics.plugin.worker.retention import prune_days
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.search import indexing
from chancy_metrics.projections.search.indexing import describe, summarise
from chancy_metrics.projections.search.query import EventQuery, start_of, text_token
from tests.factories import (
    NOON_US,
    LogWriter,
    a_host,
    a_row,
    a_run,
    connections,
    damage,
    eventually,
    fetch,
    sequence_all,
    sequence_and_fold,
)
from tests.filters import may_hold

OLD = datetime.now(UTC).date() - timedelta(days=40)
OLD_US = start_of(OLD) + 43_200_000_000
SPANS = "SELECT first_position, last_position, events FROM {summaries} ORDER BY 1"


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "RANGE_EVENTS", 10)
    monkeypatch.setattr(indexing, "RANGE_BATCHES", 4)


async def let_go(connection: Connection, tables: Tables) -> None:
    """Let the old day leave the log."""
    [day] = await prune_days(connection, tables, BUILT_IN, now_us=time.time_ns() // 1_000, log_retention_s=30 * 86_400)
    assert (day.day, day.state, day.blocker) == (OLD, "gone", None)


async def write(connection: Connection, tables: Tables, sizes: Sequence[int], **options: date) -> None:
    writer = LogWriter(connection, tables)
    for number, size in enumerate(sizes):
        await writer.append(jobs=[a_row(NOON_US + number) for _ in range(size)], **options)
    await sequence_all(connection, tables)


async def test_a_range_ends_when_it_is_full_and_the_last_one_waits_until_it_is(
    connection: Connection, tables: Tables
) -> None:
    await write(connection, tables, [4, 4, 4, 12, 1, 0, 1, 1, 9])

    assert await summarise(connection, tables) == 3

    assert await fetch(connection, SPANS, tables) == [(1, 3, 12), (4, 4, 12), (5, 8, 3)]
    assert await fetch(connection, "SELECT first_us, last_us, day FROM {summaries} LIMIT 1", tables) == [
        (NOON_US, NOON_US + 2, datetime.now(UTC).date())
    ]
    assert await summarise(connection, tables) == 0
    await write(connection, tables, [1])
    assert await summarise(connection, tables) == 1
    assert (await fetch(connection, SPANS, tables))[-1] == (9, 10, 10)


async def test_a_call_is_bounded_and_the_next_one_goes_on(connection: Connection, tables: Tables) -> None:
    await write(connection, tables, [10] * 5)

    assert [await summarise(connection, tables, limit=2) for _ in range(4)] == [2, 2, 1, 0]

    assert [row[:2] for row in await fetch(connection, SPANS, tables)] == [(n, n) for n in range(1, 6)]


async def test_two_at_once_write_each_range_once(dsn: str, connection: Connection, tables: Tables) -> None:
    await write(connection, tables, [5] * 40)

    async with connections(dsn, 3) as several, anyio.create_task_group() as tasks:
        for one in several:
            tasks.start_soon(summarise, one, tables)
    while await summarise(connection, tables):
        pass

    assert await fetch(connection, SPANS, tables) == [(n, n + 1, 10) for n in range(1, 41, 2)]


async def test_what_can_not_be_read_or_is_lost_makes_its_range_one_that_is_always_read(
    connection: Connection, tables: Tables
) -> None:
    await write(connection, tables, [10, 10, 10])
    await damage(connection, tables, "UPDATE {log} SET payload = 'x' WHERE sequence = 1")
    await damage(connection, tables, "DELETE FROM {log} WHERE sequence = 2")

    assert await summarise(connection, tables) == 3

    assert await fetch(connection, "SELECT first_position FROM {summaries} WHERE filter IS NULL", tables) == [
        (1,),
        (2,),
    ]
    wanted = EventQuery(key="nowhere", since=datetime(1999, 1, 1, tzinfo=UTC)).wanted()
    async with short_transaction(connection) as cursor:
        found = await read_skip_ranges(cursor, tables, wanted, after=0, until=9, limit=9)
    assert [range.skips for range in found] == [False, False, True]


async def test_a_filter_knows_everything_an_event_may_be_looked_for_by(connection: Connection, tables: Tables) -> None:
    writer = LogWriter(connection, tables, "w1")
    rows = [a_row(NOON_US, state="failed") for _ in range(10)]
    rows[0] = rows[0]._replace(combo=rows[0].combo._replace(error="app.Declined: no"))
    await writer.append(jobs=rows, runs=[a_run("a:b:c", kind="gauge")])
    await sequence_all(connection, tables)
    await summarise(connection, tables)

    [(bits,)] = await fetch(connection, "SELECT filter FROM {summaries}", tables)

    there = {
        "worker": ["w1"],
        "producer": [str(writer.producer)],
        "kind": ["job", "gauge"],
        "func": ["app.work"],
        "queue": ["default"],
        "state": ["failed"],
        "error": ["", "app.Declined", "app.Declined: no"],
        "key": ["a:b:c", "a:b", "a", "queue:default:wait_time", "queue", "global:status", "job:app.work:failed"],
    }
    assert all(may_hold(bits, row.job_id) for row in rows)
    assert all(may_hold(bits, text_token(field, text)) for field, texts in there.items() for text in texts)
    # A filter may be wrong about what is not there, about one in a hundred; ids are new in each run.
    wrong = [text_token(field, f"nothing {number}") for field in there for number in range(100)]
    assert sum(may_hold(bits, token) for token in wrong) < len(wrong) / 10


async def test_stretches_are_left_out_by_their_time_too(connection: Connection, tables: Tables) -> None:
    await write(connection, tables, [10, 10, 10])  # a microsecond apart
    await LogWriter(connection, tables).append()
    await LogWriter(connection, tables).append(batch=encode())
    await sequence_all(connection, tables)
    await summarise(connection, tables)

    async def skipped(since_us: int, until_us: int) -> list[bool]:
        async with short_transaction(connection) as cursor:
            wanted = Wanted(since_us, until_us)
            return [one.skips for one in await read_skip_ranges(cursor, tables, wanted, after=0, until=9, limit=9)]

    assert await skipped(NOON_US + 1, NOON_US + 2) == [True, False, True]
    assert await skipped(NOON_US, NOON_US + 3) == [False] * 3
    assert await skipped(NOON_US + 3, NOON_US + 9) == [True] * 3


async def test_summaries_go_with_their_days_and_the_last_stays_to_go_on_from(
    connection: Connection, tables: Tables
) -> None:
    await make_days(connection, tables, today=OLD, ahead=0)
    await write(connection, tables, [10, 10, 10], day=OLD)
    await sequence_and_fold(connection, tables)
    await summarise(connection, tables)
    await let_go(connection, tables)

    assert await summarise(connection, tables) == 0

    assert await fetch(connection, SPANS, tables) == [(3, 3, 10)]
    await write(connection, tables, [10])
    assert await summarise(connection, tables) == 1
    await summarise(connection, tables)
    assert await fetch(connection, SPANS, tables) == [(4, 4, 10)]


async def test_days_that_left_before_they_were_summarised_are_passed_over(
    connection: Connection, tables: Tables
) -> None:
    await make_days(connection, tables, today=OLD, ahead=0)
    await write(connection, tables, [10, 10], day=OLD)
    await sequence_and_fold(connection, tables)
    await let_go(connection, tables)
    await write(connection, tables, [10])

    assert await summarise(connection, tables) == 3

    assert await fetch(connection, SPANS, tables) == [(3, 3, 10)]


async def test_the_worker_that_folds_writes_the_skip_index(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chancy_metrics.plugin.worker.session.MAINTENANCE_S", 0.05)
    await write(connection, tables, [10, 10])
    async with a_host(dsn) as (worker, metrics):
        session = metrics._session(worker)
        session.schedule.hear(worker.worker_id)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.run)

            await eventually(lambda: fetch(connection, SPANS, tables))

            tasks.cancel_scope.cancel()
    assert (await fetch(connection, SPANS, tables))[0] == (1, 1, 10)


def test_filters_of_this_format_are_made_of_these_tokens() -> None:
    """Where this fails, old filters deny what is there: raise `FORMAT`, then put the new hash here."""
    jobs = [a_row(job_id=bytes(range(16)))]
    jobs[0] = jobs[0]._replace(combo=jobs[0].combo._replace(error="app.Declined: no"))
    made = encode(jobs, [a_run("a:b", kind="gauge")])
    batch = LogBatch(1, UUID(int=1), 1, "w1", NOON_US, made.events, made.codec, made.payload, made.sha256)

    summary = describe([LedgerRow(1, BatchId(OLD, UUID(int=1), 1), 2, 100)], [batch])

    assert FORMAT == 1
    assert summary.filter is not None
    assert sha256(summary.filter).hexdigest()[:16] == "9620f21896a23f75"


async def test_a_summary_of_another_format_says_nothing(connection: Connection, tables: Tables) -> None:
    await write(connection, tables, [10])
    await summarise(connection, tables)
    await fetch(connection, "UPDATE {summaries} SET format = 2", tables)

    async with short_transaction(connection) as cursor:
        found = await read_skip_ranges(cursor, tables, Wanted(0, 1), after=0, until=9, limit=9)

    assert [range.skips for range in found] == [False]
