"""A rebuild that is killed again and again, beside a running cluster, ends with the same bytes."""

from __future__ import annotations

import random
from collections import Counter

import anyio
import pytest

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.rebuilds.rebuild import Rebuilt
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from tests.factories import fetch
from tests.faults.history import assert_equals_replay, assert_same_bytes, catch_up, live_load, make_history
from tests.faults.rebuilding import rebuilding

#: Phases to be killed in, in an order in which each can still be reached, and for how long at the most each lasts.
KILLS = [*["copying"] * 5, *["backfilling"] * 8, *["comparing"] * 3, *["swapping"] * 4]
LASTS_S = {"copying": 0.01, "backfilling": 0.1, "comparing": 0.1, "swapping": 0.02}


async def live_version_of(connection: Connection, tables: Tables) -> tuple[int, int | None]:
    """Return the live version, asserting that it is the only one, and the version it replaced."""
    query = "SELECT version, replaced FROM {versions} WHERE status = 'live' OR version = (SELECT live FROM {head})"
    [(version, replaced)] = await fetch(connection, query, tables)
    return version, replaced


@pytest.mark.parametrize(("seed", "threads"), [(1, 0), (2, 2)])
async def test_killed_twenty_times_it_goes_on_each_time_and_ends_with_the_same_bytes(
    seed: int, threads: int, dsn: str, connection: Connection, tables: Tables
) -> None:
    chance = random.Random(seed)
    killed_in: Counter[str] = Counter()
    await make_history(connection, tables)

    async with live_load(dsn, tables) as load:
        for phase in KILLS:
            while True:
                with rebuilding(dsn, threads=threads) as process:
                    if await process.reach(phase):
                        await anyio.sleep(chance.random() * LASTS_S[phase])  # the kill is to come at any point
                        await process.kill()
                        killed_in[process.phase] += 1
                        break
                    # The runs before it had done all of that phase: it ended well, and the next one begins anew.
                    assert isinstance(process.told, Rebuilt), process.told
        with rebuilding(dsn, threads=threads) as process:
            done = await process.result()
        appended, folds = load.appended, load.folds

    assert isinstance(done, Rebuilt), done
    assert (done.swapped, done.differences) == (True, [])
    assert done.points > 5_000
    assert killed_in.keys() == set(LASTS_S)
    assert min(appended, folds) > 10  # load there was, however slow the machine
    assert await live_version_of(connection, tables) == (done.version, done.replaced)
    await catch_up(connection, tables, BUILT_IN, done.version, done.replaced)
    await assert_same_bytes(connection, tables, done.version, done.replaced)
    await assert_equals_replay(connection, tables)
