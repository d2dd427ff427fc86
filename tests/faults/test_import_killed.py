"""An import that is killed again and again, while others append, ends with the same log and the same numbers."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import suppress
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import anyio
import psycopg
from anyio import to_thread
from chancy import Chancy

from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.sequencer import sequence
from chancy_metrics.events.transfer import check as check_module
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.audit.seal import check
from chancy_metrics.plugin.health.verify import verify
from chancy_metrics.plugin.transfer.import_log import Imported, import_log
from tests.factories import LogWriter, a_run, an_app, connections, fetch
from tests.faults.history import make_history
from tests.faults.stopping import spawner
from tests.plugin.transfer.test_export_import import LOG, ORDER, PRODUCERS, exported, folded, numbers, target

__all__ = ["target"]  # a fixture
BATCHES = 60
KILLS = 12


def _run(dsn: str, path: Path, pipe: Pipe) -> None:
    check_module.PAGE = 3
    try:
        pipe.send(asyncio.run(_work(dsn, path, pipe)))
    except (MetricsLogError, psycopg.Error) as error:
        pipe.send(f"{type(error).__name__}: {error}")


async def _work(dsn: str, path: Path, pipe: Pipe) -> Imported:
    def tell(position: int) -> None:
        pipe.send(position)
        pipe.recv()  # may go on

    async with Chancy(dsn, plugins=[Metrics()]) as chancy:
        tell(0)
        return await import_log(chancy, path, on_progress=lambda progress: tell(progress.position))


async def run_import(dsn: str, path: Path, *, kill_at: int | None, after_s: float = 0) -> Imported | str | None:
    """Import in a process of its own; SIGKILL it so long after it goes on from *kill_at*, or a later position."""
    ours, theirs = spawner.Pipe()
    process = spawner.Process(target=_run, args=(dsn, path, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        with suppress(EOFError, ConnectionResetError, BrokenPipeError):
            while isinstance(told := await to_thread.run_sync(ours.recv), int):
                ours.send(None)
                if kill_at is not None and told >= kill_at:
                    await anyio.sleep(after_s)  # it gets as far as the next chunk at the most
                    assert process.pid is not None
                    os.kill(process.pid, signal.SIGKILL)
                    kill_at = None
            return told  # type: ignore[no-any-return] # a pipe carries anything
        return None
    finally:
        process.kill()
        await to_thread.run_sync(process.join, 20)


async def test_killed_a_dozen_times_it_goes_on_each_time_and_ends_with_the_same_log(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    chance = random.Random(1)
    await make_history(connection, tables, batches=BATCHES)
    out = await exported(dsn, tmp_path / "log")
    writer = LogWriter(target[1], tables)
    reached, refused = [], 0

    async with connections(target[0], 1) as (worker,):
        for number in range(KILLS):
            # The first ones are to die before a position is there, under the baseline.
            kill_at = 0 if number < KILLS // 3 else reached[-1] + 1
            await run_import(target[0], tmp_path / "log", kill_at=kill_at, after_s=chance.random() * 0.05)
            [(position,)] = await fetch(connection=target[1], query="SELECT position FROM {head}", tables=tables)
            reached.append(position)
            await writer.append(runs=[a_run("app:own")])
            if position:
                try:
                    await sequence(worker, tables)
                except psycopg.errors.ObjectNotInPrerequisiteState:
                    refused += 1
        done = await run_import(target[0], tmp_path / "log", kill_at=None)

    assert isinstance(done, Imported), done
    assert reached == sorted(reached)
    assert len(set(reached)) > 4
    assert refused == sum(position > 0 for position in reached)
    assert done.since == reached[-1] < done.position == out.seal.position == 2 * BATCHES
    for query in (ORDER, PRODUCERS):
        assert await fetch(target[1], query, tables) == await fetch(connection, query, tables)
    own = LOG.replace("ORDER", f"WHERE producer <> '{writer.producer}' ORDER")
    assert await fetch(target[1], own, tables) == await fetch(connection, LOG, tables)
    before = await numbers(connection, tables)
    await folded(target[0])
    async with an_app(target[0]) as (chancy, _):
        found = await check(chancy, seals=[out.seal])
        assert (found.found, found.position) == (0, 2 * BATCHES + KILLS)
        assert (await verify(chancy)).drift == 0
    after = await numbers(target[1], tables)
    assert {name: [row for row in rows if "app:own" not in row] for name, rows in after.items()} == before
