"""A rolling deploy of newer rules, and its roll-back, in real processes under load."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from subprocess import DEVNULL

import anyio
from anyio.abc import Process
from chancy import Chancy, Queue

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.plugin.folding.projector import fold_all
from chancy_metrics.plugin.rebuilds.rollout import STANDSTILL_S
from chancy_metrics.projections.rules.rule_set import RuleSet
from tests import rules
from tests.factories import an_app, connections, eventually, fetch
from tests.faults import jobs as load
from tests.faults.history import assert_equals_replay
from tests.faults.truth import install_truth, logged_updates, read_log, saved_updates

OLD_RULES = RuleSet(user=1, rules=(rules.first,))
NEW_RULES = RuleSet(user=2, rules=(rules.second,))


@asynccontextmanager
async def deployed(dsn: str, rules_version: int, *, standstill_s: int = STANDSTILL_S) -> AsyncIterator[list[Process]]:
    """Two workers of one deployment; those that still run at the end of the block are killed."""
    program = [sys.executable, "-m", "tests.faults.deployed_worker", dsn, str(rules_version), str(standstill_s)]
    async with AsyncExitStack() as stack:
        processes = []
        for _ in range(2):
            process = await anyio.open_process(program, stdin=None, stdout=DEVNULL, stderr=DEVNULL)
            processes.append(await stack.enter_async_context(process))
            stack.callback(lambda process=process: process.returncode is None and process.kill())
        yield processes


async def stop(*processes: Process) -> None:
    """Stop them one after the other, as a deploy does."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
        with anyio.fail_after(30):
            assert await process.wait() == 0


@asynccontextmanager
async def watched_head(dsn: str, tables: Tables) -> AsyncIterator[list[int]]:
    """Every version that was live in the block, in order."""
    seen: list[int] = []

    async def watch() -> None:
        async with connections(dsn, 1) as (connection,):
            while not ends:
                [(live,)] = await fetch(connection, "SELECT live FROM {head}", tables)
                if seen[-1:] != [live]:
                    seen.append(live)
                await anyio.sleep(0.005)

    ends: list[bool] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            yield seen
        finally:
            ends.append(True)


async def push_load(chancy: Chancy, how_many: int) -> None:
    await chancy.declare(Queue("load", executor=Chancy.Executor.Async, concurrency=20, polling_interval=1))
    async for _ in chancy.push_many([(load.succeed.job, load.fail.job)[number % 2] for number in range(how_many)]):
        pass


async def assert_counted_once(connection: Connection, tables: Tables, key: str, keys: set[str]) -> None:
    """Each saved update is in the log once, and once in the live version's counters, of which *keys* are the user's."""
    saved = await saved_updates(connection)
    assert logged_updates(await read_log(connection, tables)) == saved
    for resolution in RESOLUTIONS:
        totals: dict[str, int] = {
            name: int(total)
            for name, total in await fetch(
                connection,
                f"SELECT s.key, sum(r.sum) FROM {{r{resolution}}} r JOIN {{series}} s ON s.id = r.series"
                " WHERE s.kind = 'counter' AND r.version = (SELECT live FROM {head}) GROUP BY 1",
                tables,
            )
        }
        assert {name for name in totals if name.startswith("made:by:")} == keys
        assert totals[key] == sum(n for name, n in totals.items() if name.startswith("global:status:")) == len(saved)


async def test_a_rolling_deploy_takes_over_once_and_a_roll_back_takes_the_old_version_again(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async def live(rules_version: int, above: int) -> bool:
        """Whether a version of these rules is live and has folded past position *above*."""
        query = (
            "SELECT v.user_rules = %(rules)s AND v.position > %(above)s"
            " FROM {head} h JOIN {versions} v ON v.version = h.live"
        )
        return bool((await fetch(connection, query, tables, rules=rules_version, above=above))[0][0])

    async def ordered() -> int:
        return int((await fetch(connection, "SELECT position FROM {head}", tables))[0][0])

    async def folds_on(rules_version: int) -> None:
        """Wait until what is there now is in a live version of these rules."""
        above = await ordered()
        await eventually(lambda: live(rules_version, above), within_s=60)

    await install_truth(connection)
    async with an_app(dsn) as (chancy, _), watched_head(dsn, tables) as seen:
        await push_load(chancy, 3_000)
        async with deployed(dsn, 1) as old:
            await folds_on(1)
            async with deployed(dsn, 2) as new:
                await folds_on(2)
                await stop(old[0])
                await folds_on(2)
                await stop(old[1])
                await folds_on(2)
                assert seen == [1, 2, 3]
                await stop(*new)
        await fold_all(chancy, rules=NEW_RULES)
        await assert_counted_once(connection, tables, "made:by:second", {"made:by:second"})
        await assert_equals_replay(connection, tables, NEW_RULES)

        async with deployed(dsn, 1, standstill_s=2) as old:
            await folds_on(1)
            await stop(*old)
        assert seen == [1, 2, 3, 2]
        assert (await saved_updates(connection)).total() < 3_000, "the load ended before the deploys did"

        await fold_all(chancy, rules=OLD_RULES)

    await assert_counted_once(connection, tables, "made:by:first", {"made:by:first"})
    await assert_equals_replay(connection, tables, OLD_RULES)
