"""Real workers under load, killed in the middle of it: every update the database saved is counted once."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from subprocess import DEVNULL
from typing import IO

import anyio
from anyio.abc import Process
from chancy import Chancy, Queue

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.folding.projector import fold_all
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.versions.replay import replay, stored
from tests.factories import an_app, eventually
from tests.faults import jobs as load
from tests.faults.truth import (
    Update,
    install_truth,
    logged_counts,
    logged_updates,
    read_log,
    rolled_up,
    saved_updates,
    true_counters,
)


async def push_load(chancy: Chancy, how_many: int) -> None:
    """Push jobs that succeed, fail, and fail three times, more than any test gets done."""
    await chancy.declare(Queue("load", executor=Chancy.Executor.Async, concurrency=100, polling_interval=1))
    kinds = (load.succeed.job, load.fail.job, load.fail_three_times.job)
    async for _ in chancy.push_many([kinds[i % 3] for i in range(how_many)]):
        pass


@asynccontextmanager
async def a_worker(dsn: str, sync_interval: int, log: IO[bytes] | int = DEVNULL) -> AsyncIterator[Process]:
    """A worker in a process of its own, which logs to *log*; killed at the end of the block, if it still runs."""
    program = [sys.executable, "-m", "tests.faults.worker_process", dsn, str(sync_interval)]
    async with await anyio.open_process(program, stdin=None, stdout=DEVNULL, stderr=log) as process:
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()


async def until_saved(connection: Connection, more: int) -> None:
    """Wait until the database has saved so many more updates than now, and then for a random moment of work."""
    enough = (await saved_updates(connection)).total() + more

    async def saved() -> bool:
        return (await saved_updates(connection)).total() >= enough

    await eventually(saved, within_s=60)
    await anyio.sleep(random.random() * 0.03)  # waits for nothing: a kill is to come at any point of a flush


async def assert_counted_once(chancy: Chancy, connection: Connection, tables: Tables) -> None:
    saved = await saved_updates(connection)
    log = await read_log(connection, tables)
    assert differences(logged_updates(log), saved) == ([], [])
    assert logged_counts(log) == {}
    assert {update.state for update in saved} == {"succeeded", "failed", "retrying"}

    await fold_all(chancy)

    truth = await true_counters(connection)
    assert await rolled_up(connection, tables) == dict.fromkeys(("1min", "5min", "1hour", "1day"), truth)
    assert diff(await stored(connection, tables), await replay(connection, tables)) == []


def differences(logged: dict[Update, int], saved: dict[Update, int]) -> tuple[list[Update], list[Update]]:
    """Updates that were lost; those that are in the log too often."""
    lost = [update for update in saved if not logged.get(update)]
    return lost, [update for update, times in logged.items() if times > saved.get(update, 0)]


async def test_two_workers_of_which_one_is_killed_share_the_work_and_the_truth(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await install_truth(connection)
    async with an_app(dsn, Metrics()) as (chancy, _):
        await push_load(chancy, 2_000)
        async with a_worker(dsn, 2) as first, a_worker(dsn, 2) as second:
            await until_saved(connection, 200)
            first.kill()
            await until_saved(connection, 200)
            second.send_signal(signal.SIGTERM)
            with anyio.fail_after(30):
                assert await second.wait() == 0

        await assert_counted_once(chancy, connection, tables)
