"""The sequencer: every committed batch gets one position, without gaps, without waiting for open transactions."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, date, datetime, timedelta

import anyio
import pytest

from chancy_metrics.events.batch import BatchId, LogRow
from chancy_metrics.events.chain import link
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.ledger import read_ledger
from chancy_metrics.events.log import append
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.sequencer import Sequenced, sequence
from tests.factories import LogWriter, a_row, a_run, append_as, connections, damage, fetch, sequence_all


async def positions(connection: Connection, tables: Tables) -> list[tuple[int, uuid.UUID, int]]:
    rows = await fetch(connection, "SELECT position, producer, sequence FROM {ledger} ORDER BY position", tables)
    return [(row[0], row[1], row[2]) for row in rows]


async def producers(connection: Connection, tables: Tables) -> list[tuple[int, bool, int]]:
    rows = await fetch(
        connection, "SELECT last_sequence, closed, holes FROM {producers} ORDER BY last_sequence", tables
    )
    return [(row[0], row[1], row[2]) for row in rows]


async def test_an_empty_log_has_no_positions(connection: Connection, tables: Tables) -> None:
    assert await sequence(connection, tables) == Sequenced(0, 0, 0)


async def test_batches_get_positions_from_one_in_the_order_they_came(connection: Connection, tables: Tables) -> None:
    one, two = LogWriter(connection, tables), LogWriter(connection, tables)
    ids = [await writer.append(runs=[a_run()]) for writer in (one, two, two, one)]

    done = await sequence(connection, tables)

    assert (done.batches, done.position) == (4, 4)
    assert await positions(connection, tables) == [(n, b.producer, b.sequence) for n, b in enumerate(ids, 1)]
    assert await fetch(connection, "SELECT count(*) FROM {pending}", tables) == [(0,)]
    assert await sequence(connection, tables, after=done.last_id) == Sequenced(0, 4, done.last_id)


async def test_a_call_takes_its_limit_and_the_next_goes_on(connection: Connection, tables: Tables) -> None:
    writer = LogWriter(connection, tables)
    for _ in range(5):
        await writer.append(runs=[a_run()])

    done = [await sequence(connection, tables, limit=2) for _ in range(4)]

    assert [one.batches for one in done] == [2, 2, 1, 0]
    assert [row[2] for row in await positions(connection, tables)] == [1, 2, 3, 4, 5]


async def test_an_open_transaction_delays_nobody_and_gets_its_position_at_its_commit(dsn: str, tables: Tables) -> None:
    async with connections(dsn, 2) as (slow, quick), slow.transaction():
        async with slow.cursor() as cursor:
            late = await append_as(cursor, tables, a_run())
        before = await LogWriter(quick, tables).append(runs=[a_run()])

        with anyio.fail_after(2):
            first = await sequence(quick, tables)

        assert first.batches == 1
    async with connections(dsn, 1) as (connection,):
        assert (await sequence(connection, tables, after=first.last_id)).batches == 0  # its id lies below
        assert (await sequence(connection, tables)).batches == 1  # the sweep
        assert await positions(connection, tables) == [(1, before.producer, 1), (2, late.producer, 1)]


async def test_appends_that_are_rolled_back_leave_no_hole_in_the_ledger(connection: Connection, tables: Tables) -> None:
    first = await LogWriter(connection, tables).append(runs=[a_run()])
    for _ in range(40):
        async with connection.transaction(force_rollback=True), connection.cursor() as cursor:
            await append_as(cursor, tables, a_run())
    last = await LogWriter(connection, tables).append(runs=[a_run()])

    await sequence_all(connection, tables)

    assert await positions(connection, tables) == [(1, first.producer, 1), (2, last.producer, 1)]
    assert all(holes == 0 for *_, holes in await producers(connection, tables))


async def test_a_prepared_transaction_holds_nobody_up(dsn: str, tables: Tables) -> None:
    async with connections(dsn, 2) as (connection, preparing):
        xid = preparing.xid(1, str(uuid.uuid4()), "log")
        await preparing.set_autocommit(False)
        await preparing.tpc_begin(xid)
        await append_as(preparing.cursor(), tables, a_run())
        await preparing.tpc_prepare()
        await LogWriter(connection, tables).append(runs=[a_run()])

        assert (await sequence(connection, tables)).batches == 1
        await preparing.tpc_commit()
        assert (await sequence(connection, tables)).batches == 1


async def test_a_predecessor_below_the_hint_gets_its_position_first(dsn: str, tables: Tables) -> None:
    async with connections(dsn, 2) as (slow, quick):
        writer = LogWriter(slow, tables)
        async with slow.transaction():
            await writer.append(runs=[a_run()])
            other = await LogWriter(quick, tables).append(runs=[a_run()])
            hint = (await sequence(quick, tables)).last_id
        await writer.append(runs=[a_run()])

        assert (await sequence(quick, tables, after=hint)).batches == 2

        mine = [(2, writer.producer, 1), (3, writer.producer, 2)]
        assert await positions(quick, tables) == [(1, other.producer, 1), *mine]
        assert [holes for *_, holes in await producers(quick, tables)] == [0, 0]


async def test_a_hole_is_counted_and_filled_again_when_its_batch_comes(connection: Connection, tables: Tables) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(runs=[a_run()])
    lost = writer.next_id()
    await writer.append(runs=[a_run()])
    await sequence_all(connection, tables)
    with_hole = await producers(connection, tables)

    async with short_transaction(connection) as cursor:
        await append(cursor, tables, lost, encode((), [a_run()]), worker="w")
    await sequence_all(connection, tables)

    assert with_hole == [(3, False, 1)]
    assert await producers(connection, tables) == [(3, False, 0)]
    assert [row[2] for row in await positions(connection, tables)] == [1, 3, 2]


async def test_a_row_removed_by_force_before_it_was_ordered_is_set_aside_and_the_next_one_shows_the_hole(
    connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    for _ in range(3):
        await writer.append(runs=[a_run()])
    await damage(connection, tables, "DELETE FROM {log} WHERE sequence = 2")

    await sequence_all(connection, tables)

    rows = await fetch(connection, "SELECT position, sequence, events FROM {ledger} ORDER BY position", tables)
    assert rows == [(1, 1, 1), (2, 3, 1)]
    assert await producers(connection, tables) == [(3, False, 1)]
    assert await fetch(connection, "SELECT sequence, why FROM {set_aside}", tables) == [
        (2, "its row is not in the log")
    ]


async def test_a_producer_whose_row_was_cleaned_up_goes_on_without_a_hole(
    connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    for _ in range(3):
        await writer.append(runs=[a_run()])
    await sequence_all(connection, tables)
    await fetch(connection, "DELETE FROM {producers}", tables)

    await writer.append(runs=[a_run()])
    await sequence_all(connection, tables)

    assert await producers(connection, tables) == [(4, False, 0)]


async def test_a_batch_cut_anew_for_another_day_gets_one_position(connection: Connection, tables: Tables) -> None:
    writer = LogWriter(connection, tables)
    first = await writer.append(runs=[a_run()])
    await sequence_all(connection, tables)
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    twice = [writer.next_id(), BatchId(tomorrow, writer.producer, 2), BatchId(tomorrow, writer.producer, 1)]
    for batch_id in twice:
        async with short_transaction(connection) as cursor:
            await append(cursor, tables, batch_id, encode((), [a_run()]), worker="w")
    await fetch(connection, "DELETE FROM {producers}", tables)  # clean-up must not make it forget either

    await sequence_all(connection, tables)

    assert await positions(connection, tables) == [(1, first.producer, 1), (2, first.producer, 2)]
    assert await producers(connection, tables) == [(2, False, 0)]


async def test_a_producer_of_a_single_batch_leaves_no_row(connection: Connection, tables: Tables) -> None:
    async with short_transaction(connection) as cursor:
        batch_id = await append_as(cursor, tables, a_run())

    await sequence_all(connection, tables)

    async with short_transaction(connection) as cursor:
        rows = await read_ledger(cursor, tables, after=0, limit=10)
    assert [row.batch_id for row in rows] == [batch_id]
    assert await producers(connection, tables) == []


async def test_a_producer_that_ended_is_known_as_closed(connection: Connection, tables: Tables) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(batch=encode())
    async with short_transaction(connection) as cursor:
        await append(cursor, tables, writer.next_id(), encode(), worker="w", closes=True)

    await sequence_all(connection, tables)

    assert await producers(connection, tables) == [(2, True, 0)]


async def test_the_chain_covers_every_column_of_every_batch(connection: Connection, tables: Tables) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(batch=encode())
    await writer.append(jobs=[a_row()], runs=[a_run()])
    await writer.append(runs=[a_run()])
    await sequence_all(connection, tables)

    rows = await fetch(
        connection,
        """
        SELECT o.position, o.chain, l.day, l.producer, l.sequence, l.worker, l.first_us, l.last_us,
            (extract(epoch FROM l.appended_at) * 1000000)::bigint, l.events, l.closes, l.codec, l.sha256
        FROM {ledger} o
        JOIN {log} l USING (day, producer, sequence)
        ORDER BY o.position
        """,
        tables,
    )

    chain = b""
    for position, stored, *values in rows:
        row = LogRow(*values)
        chain = link(chain, position, row)
        assert stored == chain
        others = dict.fromkeys(LogRow._fields, "changed") | {"day": date.min, "producer": uuid.uuid4()}
        for name, value in others.items():
            assert link(b"", position, row._replace(**{name: value})) != link(b"", position, row)
    assert len(rows) == 3
    assert await fetch(connection, "SELECT position, chain FROM {head}", tables) == [(3, chain)]


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
@pytest.mark.parametrize("sequencers", [2, 5])
async def test_sequencers_in_each_others_way_give_every_batch_one_position(
    dsn: str, tables: Tables, sequencers: int, isolation: str
) -> None:
    async with connections(dsn, 1) as (admin,):
        await admin.execute(f"ALTER DATABASE {admin.info.dbname} SET default_transaction_isolation = '{isolation}'")
    writers, batches = 4, 60
    finished = 0

    async def write(connection: Connection, seed: int) -> None:
        nonlocal finished
        chance, writer = random.Random(seed), LogWriter(connection, tables, f"w{seed}")
        for _ in range(batches):
            if chance.random() < 0.3:
                async with connection.transaction(force_rollback=True), connection.cursor() as cursor:
                    await append_as(cursor, tables, a_run())
            await writer.append(runs=[a_run()])
        finished += 1

    async def give_positions(connection: Connection) -> None:
        after = 0
        while finished < writers:
            after = (await sequence(connection, tables, after=after, limit=7)).last_id

    async with connections(dsn, writers + sequencers) as all_of_them:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for seed, connection in enumerate(all_of_them[:writers]):
                    tasks.start_soon(write, connection, seed)
                for connection in all_of_them[writers:]:
                    tasks.start_soon(give_positions, connection)
        await sequence_all(all_of_them[0], tables)
        given = await positions(all_of_them[0], tables)

    assert [row[0] for row in given] == list(range(1, writers * batches + 1))
    for producer in {row[1] for row in given}:
        assert [row[2] for row in given if row[1] == producer] == list(range(1, batches + 1))


async def test_who_finds_the_head_locked_leaves_at_once(dsn: str, tables: Tables) -> None:
    async with connections(dsn, 2) as (holder, connection), holder.transaction():
        await LogWriter(connection, tables).append(runs=[a_run()])
        await fetch(holder, "SELECT 1 FROM {head} FOR UPDATE", tables)

        with anyio.fail_after(2):
            assert await sequence(connection, tables, after=0) == Sequenced(0, None, 0)
