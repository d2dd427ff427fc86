"""What the log can't take goes into the spill table in the same transaction, and from there into the log, once."""

from __future__ import annotations

import uuid
from datetime import date, timedelta
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import TupleRow

from chancy_metrics.events.batch import BatchId
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.log import Appended, append
from chancy_metrics.events.partitions import close_day, make_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.sequencer import sequence
from chancy_metrics.events.spill import take_spilled_unless_locked
from chancy_metrics.plugin.health.status_reader import read_status
from chancy_metrics.projections.findings import Findings
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.verify.ledger import check_producers
from chancy_metrics.projections.versions.replay import replay, stored
from tests.factories import (
    LogWriter,
    a_run,
    an_app,
    connections,
    fetch,
    sequence_all,
    sequence_and_fold,
    today,
    total,
)

EXCLUSIVE: LiteralString = "IN ACCESS EXCLUSIVE MODE"
#: What is locked -> what becomes of a new batch, of one that is in the log, of the latter cut anew, of one cut anew
#: that is nowhere.
LOCKS: dict[LiteralString, tuple[str, str, str, str]] = {
    "{log} " + EXCLUSIVE: ("spilled", "spilled", "known", "spilled"),
    "{log} IN SHARE MODE": ("spilled", "known", "known", "spilled"),  # as CREATE INDEX does
    "{day} " + EXCLUSIVE: ("spilled", "known", "known", "spilled"),
    "{pending} " + EXCLUSIVE: ("spilled", "known", "known", "spilled"),
    "{log}, {pending} " + EXCLUSIVE: ("spilled", "known", "refused", "refused"),
    "{spill} " + EXCLUSIVE: ("appended", "known", "refused", "refused"),
    "{log}, {spill} " + EXCLUSIVE: ("refused", "refused", "refused", "refused"),
}
#: Statements that break the log, and mend it.
BREAKS: list[tuple[LiteralString, LiteralString]] = [
    ("ALTER TABLE {log} RENAME TO gone", "ALTER TABLE gone RENAME TO chancy_metrics_log"),
    ("ALTER TABLE {pending} RENAME TO gone", "ALTER TABLE gone RENAME TO chancy_metrics_pending"),
    (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
        " CREATE TRIGGER refuse BEFORE INSERT ON {pending} FOR EACH ROW EXECUTE FUNCTION refuse()",
        "DROP TRIGGER refuse ON {pending}",
    ),
    *(
        SILENT := [
            (
                "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
                " CREATE TRIGGER swallow BEFORE INSERT ON {pending} FOR EACH ROW EXECUTE FUNCTION swallow()",
                "DROP FUNCTION swallow CASCADE",
            ),
            ("CREATE RULE swallow AS ON INSERT TO {pending} DO INSTEAD NOTHING", "DROP RULE swallow ON {pending}"),
        ]
    ),
]


def new_id(day: date | None = None) -> BatchId:
    return BatchId(day or today(), uuid.uuid4(), 1)


async def attempt(
    connection: Connection, tables: Tables, batch_id: BatchId, value: float = 1.0, *, earlier: bytes | None = None
) -> Appended | psycopg.Error:
    """Append in a transaction that must stay whole and bring back the lock_timeout it came with."""
    batch = encode((), [a_run(values=[value])])
    async with short_transaction(connection) as cursor:
        await cursor.execute("SET LOCAL lock_timeout = '1234ms'")
        try:
            return await append(cursor, tables, batch_id, batch, worker="w", lock_wait_ms=5, earlier=earlier)
        except psycopg.Error as error:
            return error
        finally:
            await cursor.execute("SHOW lock_timeout")
            assert await cursor.fetchone() == ("1234ms",)


def state(outcome: Appended | psycopg.Error) -> str:
    return "refused" if isinstance(outcome, psycopg.Error) else outcome.state


async def spilled(connection: Connection, tables: Tables) -> list[TupleRow]:
    return await fetch(connection, "SELECT day, producer, sequence FROM {spill} ORDER BY appended_at", tables)


async def test_no_lock_on_the_log_keeps_a_batch_from_its_transaction(dsn: str, tables: Tables) -> None:
    found, written = {}, 1
    async with connections(dsn, 2) as (connection, locking):
        there = new_id()
        await attempt(connection, tables, there)
        [(digest,)] = await fetch(connection, "SELECT sha256 FROM {log}", tables)
        for lock in LOCKS:
            async with locking.transaction():
                await fetch(locking, "LOCK TABLE " + lock.replace("{day}", tables.partition_name(today())), tables)
                outcomes = [
                    await attempt(connection, tables, new_id()),
                    await attempt(connection, tables, there),
                    await attempt(connection, tables, there, 2.0, earlier=digest),
                    await attempt(connection, tables, new_id(), earlier=digest),
                ]
            found[lock] = tuple(map(state, outcomes))
            written += sum(found[lock].count(state) for state in ("appended", "spilled"))
        waiting = len(await spilled(connection, tables))
        await sequence_and_fold(connection, tables)

        assert found == LOCKS
        assert waiting == written - 2
        assert await spilled(connection, tables) == []
        # The one that was in the log already and went into the spill table, too, is dropped.
        assert await total(connection, tables, "app:n") == [written - 1] * 4
        assert diff(await stored(connection, tables), await replay(connection, tables)) == []


async def test_a_log_that_refuses_for_any_other_reason_spills_too(dsn: str, tables: Tables) -> None:
    async with connections(dsn, 2) as (connection, other):
        for break_it, mend_it in BREAKS:
            await fetch(other, break_it, tables)
            outcome = await attempt(connection, tables, new_id())
            await fetch(other, mend_it, tables)
            assert (state(outcome), isinstance(outcome.error, psycopg.Error)) == ("spilled", True)
        async with connections(dsn, 1) as (impatient,):
            # A time limit of the session's own ends the wait, and is no reason to lose the transaction.
            await impatient.execute("SET statement_timeout = '50ms'")
            async with other.transaction():
                await fetch(other, "LOCK TABLE {log} IN ACCESS EXCLUSIVE MODE", tables)
                async with impatient.transaction(), impatient.cursor() as cursor:
                    done = await append(cursor, tables, new_id(), encode((), [a_run()]), worker="w", lock_wait_ms=5_000)
                    await cursor.execute("SELECT 1")
            assert (done.state, type(done.error)) == ("spilled", psycopg.errors.QueryCanceled)
        await sequence_and_fold(connection, tables)

        assert await total(connection, tables, "app:n") == [len(BREAKS) + 1] * 4


@pytest.mark.parametrize(("break_it", "mend_it"), SILENT, ids=["trigger", "rule"])
async def test_what_pending_swallows_stays_spilled_and_is_said(
    dsn: str, connection: Connection, tables: Tables, break_it: LiteralString, mend_it: LiteralString
) -> None:
    await fetch(connection, break_it, tables)
    batch_id = new_id()
    outcome = await attempt(connection, tables, batch_id)
    taken = await take_spilled_unless_locked(connection, tables)
    left = await spilled(connection, tables)
    async with an_app(dsn) as (chancy, _):
        status = await read_status(chancy)
    await fetch(connection, mend_it, tables)
    await sequence_and_fold(connection, tables)

    assert "rule" in str(outcome.error) and "rule" in taken.refused.lower()
    assert [row[1] for row in left] == [batch_id.producer]
    assert status.spilled_batches == status.pending_batches == 1
    assert await spilled(connection, tables) == []
    assert await total(connection, tables, "app:n") == [1] * 4


async def test_batches_of_days_that_take_none_come_under_today_and_a_missing_day_is_made(
    connection: Connection, tables: Tables
) -> None:
    old = today() - timedelta(days=40)
    await make_days(connection, tables, today=old, ahead=0)
    assert await close_day(connection, tables, old) is None
    await connection.execute(sql.SQL("DROP TABLE {}").format(tables.partition(today())))
    writer = LogWriter(connection, tables)

    outcomes = [
        state(await attempt(connection, tables, writer.next_id(day))) for day in (old, date(2031, 1, 1), today())
    ]
    await sequence_and_fold(connection, tables)

    assert outcomes == ["spilled"] * 3
    assert await fetch(connection, "SELECT day, sequence FROM {ledger} ORDER BY position", tables) == [
        (today(), 1),
        (today(), 2),
        (today(), 3),
    ]
    assert await total(connection, tables, "app:n") == [3] * 4


async def test_a_batch_in_the_log_is_what_was_spilled(connection: Connection, tables: Tables) -> None:
    columns = "day, producer, sequence, worker, first_us, last_us, appended_at, events, closes, codec, payload, sha256"
    await LogWriter(connection, tables, "worker-1").spill(runs=[a_run(values=[1.0, 2.0])])
    before = await fetch(connection, f"SELECT {columns} FROM {{spill}}", tables)

    await sequence_all(connection, tables)

    assert await fetch(connection, f"SELECT {columns} FROM {{log}}", tables) == before
    async with short_transaction(connection) as cursor:
        found = Findings(10)
        await check_producers(cursor, tables, found)
        assert found.count == 0


async def test_batches_of_a_producer_keep_their_sequence_wherever_they_went(dsn: str, tables: Tables) -> None:
    in_order = "SELECT sequence FROM {ledger} ORDER BY position"
    async with connections(dsn, 2) as (connection, locking):
        writer = LogWriter(connection, tables)
        await writer.append(runs=[a_run()])
        await writer.spill(runs=[a_run()])
        await writer.append(runs=[a_run()])
        other = LogWriter(connection, tables)
        await other.append(runs=[a_run()])
        # The log can be read and not written: what is spilled must come before what is in the log, and others go on.
        async with locking.transaction():
            await fetch(locking, "LOCK TABLE {log} IN SHARE MODE", tables)
            done = await sequence(connection, tables)
            await attempt(connection, tables, new_id())
        assert done.batches == 1
        assert await fetch(connection, "SELECT producer FROM {ledger}", tables) == [(other.producer,)]
        await sequence(connection, tables, after=done.last_id)

        assert (await fetch(connection, in_order, tables))[1:4] == [(1,), (2,), (3,)]
        assert await fetch(
            connection,
            "SELECT last_sequence, holes FROM {producers} WHERE producer = %(mine)s",
            tables,
            mine=writer.producer,
        ) == [(3, 0)]


async def test_a_locked_log_holds_up_neither_what_is_in_the_ledger_nor_the_ledgers_end(
    dsn: str, tables: Tables
) -> None:
    async with connections(dsn, 2) as (connection, locking):
        first, second = LogWriter(connection, tables), LogWriter(connection, tables)
        await first.append(runs=[a_run()])
        await second.spill(runs=[a_run()])
        async with locking.transaction():
            await fetch(locking, "LOCK TABLE {log} IN SHARE MODE", tables)
            assert (await sequence(connection, tables)).batches == 1
        await first.append(runs=[a_run()])
        async with locking.transaction():
            await fetch(locking, "LOCK TABLE {log} IN ACCESS EXCLUSIVE MODE", tables)
            with pytest.raises(psycopg.errors.LockNotAvailable):
                await sequence(connection, tables)
            await fetch(locking, "SELECT 1 FROM {head} FOR UPDATE NOWAIT", tables)


async def test_a_batch_that_is_spilled_and_in_the_log_is_taken_once_and_other_bytes_are_never_dropped(
    connection: Connection, tables: Tables
) -> None:
    same, other = LogWriter(connection, tables), LogWriter(connection, tables)
    for writer, value in ((same, 1.0), (other, 10.0)):
        await writer.spill(runs=[a_run(values=[1.0])])
        # As a transaction that was on its way while the next attempt spilled.
        writer.sequence = 0
        await writer.append(runs=[a_run(values=[value])])

    sequenced = await sequence(connection, tables)
    await sequence_and_fold(connection, tables)

    assert [str(other.producer) in conflict for conflict in sequenced.conflicts] == [True]
    assert await spilled(connection, tables) == []
    assert await total(connection, tables, "app:n") == [1 + 10 + 1] * 4


async def test_a_batch_that_the_log_refuses_holds_up_no_other(connection: Connection, tables: Tables) -> None:
    first, second, other = (LogWriter(connection, tables) for _ in range(3))
    await first.spill(runs=[a_run(values=[1.0])])
    await first.append(runs=[a_run(values=[1.0])])
    await second.spill(runs=[a_run(values=[1.0] * 9)])  # which the log will refuse
    await second.append(runs=[a_run(values=[1.0])])
    await other.spill(runs=[a_run(values=[1.0])])
    await fetch(connection, "ALTER TABLE {log} ADD CONSTRAINT small CHECK (events < 9)", tables)

    sequenced = await sequence(connection, tables)
    await sequence_and_fold(connection, tables)
    waiting, holes = await spilled(connection, tables), "SELECT sum(holes)::int FROM {producers}"
    assert "CheckViolation" in sequenced.refused
    assert [row[1] for row in waiting] == [second.producer]
    assert await fetch(connection, holes, tables) == [(1,)]
    assert await total(connection, tables, "app:n") == [4] * 4

    await fetch(connection, "ALTER TABLE {log} DROP CONSTRAINT small", tables)
    assert (await sequence(connection, tables)).refused == ""
    await sequence_and_fold(connection, tables)

    assert await fetch(connection, holes, tables) == [(0,)]
    assert await total(connection, tables, "app:n") == [13] * 4
    assert diff(await stored(connection, tables), await replay(connection, tables)) == []


async def test_a_spilled_batch_waits_and_is_said_to_and_its_day_stays(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    old = today() - timedelta(days=40)
    await make_days(connection, tables, today=old, ahead=0)
    await LogWriter(connection, tables).spill(runs=[a_run()], day=old)
    await fetch(connection, "UPDATE {spill} SET appended_at = appended_at - interval '1 hour'", tables)
    await fetch(connection, "UPDATE {versions} SET folded_at = clock_timestamp()", tables)

    async with an_app(dsn) as (chancy, metrics):
        status = await read_status(chancy)
        held = await close_day(connection, tables, old)
        await metrics.flush(chancy)
        after = await read_status(chancy)

    assert (status.pending_batches, status.spilled_batches, round(status.oldest_waiting_s / 3600)) == (1, 1, 1)
    assert any("in the spill table and can't be moved into the log" in reason for reason in status.unhealthy)
    assert held.startswith(f"batches of {old} are spilled")
    assert (after.pending_batches, after.spilled_batches) == (0, 0)
    assert await close_day(connection, tables, old) is None
