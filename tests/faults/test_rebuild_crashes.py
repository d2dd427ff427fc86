"""The server crashes during a rebuild and a swap: the live version and its delta ring are the old or the new ones."""

from __future__ import annotations

import random

import anyio

from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.rebuilds.rebuild import Rebuilt
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from tests.factories import connections, fetch
from tests.faults.history import assert_equals_replay, assert_same_bytes, catch_up, live_load, make_history
from tests.faults.own_server import a_database, crash, own_server
from tests.faults.rebuilding import rebuilding


async def live_with_its_ring(dsn: str, tables: Tables) -> int:
    """Return the live version; assert that the head names it and its delta ring is complete up to its position."""
    async with connections(dsn, 1) as (connection,), connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        [(live, folds, position)] = await fetch(
            connection,
            "SELECT version, folds, position FROM {versions}"
            " WHERE status = 'live' OR version = (SELECT live FROM {head})",
            tables,
        )
        ring = await fetch(connection, "SELECT fold, version, position FROM {cache} ORDER BY fold", tables)
    assert ring[-1] == (folds, live, position)
    assert [row[:2] for row in ring] == [(folds - back, live) for back in reversed(range(len(ring)))]
    return int(live)


async def test_a_crash_during_a_rebuild_leaves_old_or_new_and_the_same_command_goes_on(tables: Tables) -> None:
    chance = random.Random(3)
    with own_server() as server:
        dsn = await a_database(server, "rebuilt")
        async with connections(dsn, 1) as (connection,):
            await make_history(connection, tables)
        async with live_load(dsn, tables) as load:
            for phase, lasts_s in (("copying", 0.01), ("backfilling", 0.2), ("comparing", 0.05), ("swapping", 0.01)):
                while True:
                    with rebuilding(dsn) as process:
                        if await process.reach(phase):
                            await anyio.sleep(chance.random() * lasts_s)  # the crash is to come at any point
                            crash(server)
                            done = await process.result()
                            assert not isinstance(done, Rebuilt) or phase in ("comparing", "swapping")
                            break
                        # The runs before it had finished that phase: it ended well, and the next one begins anew.
                        assert isinstance(process.told, Rebuilt), process.told
                await live_with_its_ring(dsn, tables)
            with rebuilding(dsn) as process:
                done = await process.result()
            assert load.folds > 5

        assert isinstance(done, Rebuilt), done
        assert done.differences == []
        assert await live_with_its_ring(dsn, tables) == done.version
        async with connections(dsn, 1) as (connection,):
            await catch_up(connection, tables, BUILT_IN, done.version, done.replaced)
            await assert_same_bytes(connection, tables, done.version, done.replaced)
            await assert_equals_replay(connection, tables)


async def test_a_crash_during_a_swap_leaves_the_old_version_or_the_new_one(tables: Tables) -> None:
    chance = random.Random(4)
    with own_server() as server:
        dsn = await a_database(server, "swapped")
        async with connections(dsn, 1) as (connection,):
            await make_history(connection, tables, batches=10)
        async with live_load(dsn, tables):
            with rebuilding(dsn) as process:
                assert isinstance(await process.result(), Rebuilt)
            live, lasts_s = 2, 0.1
            for crashes in (*[True] * 8, False):
                other = 3 - live
                with rebuilding(dsn, swaps_to=other) as process:
                    assert await process.reach("swapping")
                    began = anyio.current_time()
                    if crashes:
                        await anyio.sleep(chance.random() * lasts_s)  # the crash is to come at any point
                        crash(server)
                    done = await process.result()
                if done == other:
                    lasts_s = anyio.current_time() - began
                live = await live_with_its_ring(dsn, tables)
            assert live == done == other

        async with connections(dsn, 1) as (connection,):
            await catch_up(connection, tables, BUILT_IN, 1, 2)
            await assert_same_bytes(connection, tables, 1, 2)
            await assert_equals_replay(connection, tables)
