"""Workers under load with locks, kills, stops and lost COMMITs, mixed from a seed: python -m tests.faults.storm.

Every update the database saved must be in the log, the ledger and all rollups once. What is not, because neither the
log nor the spill table took it before its process was killed, must be named in the log lines of the workers. `--seeds
20` runs 20 seeds at sync_interval 2 and 60 each; CI runs one of each, with shorter locks.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import signal
import tempfile
from contextlib import suppress
from typing import NamedTuple

import anyio
import psycopg
from chancy import Chancy
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from chancy_metrics.events.schema import Tables, tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.projector import fold_all
from chancy_metrics.projections.replay import diff, replay, stored
from examples.embedded import Server
from tests.factories import an_app, connections, fetch
from tests.faults.proxy import Loss, a_proxy
from tests.faults.test_workers_killed import a_worker, push_load, until_saved
from tests.faults.truth import install_truth, logged_updates, read_log, rolled_up, saved_updates, true_counters

#: Seconds locks are held for, the shortest and the longest.
SHORTEST_S, LONGEST_S = 0.05, 20.0
LOCKED = ("{log}", "{day}", "{pending}", "{spill}", "{log}, {pending}", "{log}, {spill}")
#: Share of COMMITs of job updates whose answer is lost, and that are lost themselves.
ANSWERS, COMMITS = 0.1, 0.05
#: Seconds a worker may take to stop, whatever is locked.
STOP_S = 40
_SAID = re.compile(r"spill table took (\d+) job updates|are lost: .*?(\d+) job update")


class Outcome(NamedTuple):
    """What became of the updates of one storm."""

    saved: int
    lost: int
    doubled: int
    said: int
    locks: int
    losses: int

    @property
    def is_kept(self) -> bool:
        """Whether the promise was kept: nothing twice, and nothing lost that no log line names."""
        return not self.doubled and self.lost <= self.said


async def storm(
    server: Server, dsn: str, seed: int, sync_interval: int, *, rounds: int = 4, longest_s: float = LONGEST_S
) -> Outcome:
    """Run *rounds* workers, each killed or stopped at a random moment, in a migrated database of its own."""
    chance = random.Random(seed)
    names = tables("chancy_")
    losing = [True]

    def loses(statements: bytes) -> Loss:
        if not losing or b"SAVEPOINT metrics_log" not in statements:
            return ""
        number = chance.random()
        return "answer" if number < ANSWERS else "commit" if number < ANSWERS + COMMITS else ""

    with tempfile.TemporaryFile() as log:
        async with (
            a_proxy(server, loses) as proxy,
            an_app(dsn, Metrics()) as (chancy, _),
            connections(dsn, 2) as (connection, locking),
        ):
            await install_truth(connection)
            await push_load(chancy, 4_000)
            locks = asyncio.create_task(_lock_for_ever(locking, names, random.Random(seed), longest_s))
            for number in range(rounds):
                async with a_worker(proxy.dsn(dsn), sync_interval, log.fileno()) as process:
                    await until_saved(connection, 50)
                    await anyio.sleep(chance.uniform(0, longest_s / 4))
                    if number == rounds - 1 or chance.random() < 0.3:
                        process.send_signal(signal.SIGTERM)
                        with anyio.fail_after(STOP_S):
                            await process.wait()
                    else:
                        process.kill()
            losing.clear()
            locks.cancel()
            await asyncio.gather(locks, return_exceptions=True)
            await locking.rollback()
            log.seek(0)
            return await _outcome(chancy, connection, names, log.read().decode(), proxy.lost)


async def _lock_for_ever(
    connection: AsyncConnection[TupleRow], names: Tables, chance: random.Random, longest_s: float
) -> None:
    cursor = await connection.execute("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")
    [today] = await cursor.fetchone() or ()
    await connection.set_autocommit(False)
    while True:
        what = chance.choice(LOCKED).replace("{day}", names.partition_name(today))
        with suppress(psycopg.errors.LockNotAvailable):
            await connection.execute("SET LOCAL lock_timeout = '2s'")
            await fetch(connection, f"LOCK TABLE {what} IN ACCESS EXCLUSIVE MODE", names)
            await anyio.sleep(SHORTEST_S * (longest_s / SHORTEST_S) ** chance.random())
        await connection.rollback()
        await anyio.sleep(chance.uniform(0, 0.5))


async def _outcome(
    chancy: Chancy, connection: AsyncConnection[TupleRow], names: Tables, log: str, losses: list[Loss]
) -> Outcome:
    await fold_all(chancy)
    saved, logged = await saved_updates(connection), logged_updates(await read_log(connection, names))
    lost, doubled = (saved - logged).total(), (logged - saved).total()
    if not lost and not doubled:
        truth = await true_counters(connection)
        assert await rolled_up(connection, names) == dict.fromkeys(("1min", "5min", "1hour", "1day"), truth)
    assert diff(await stored(connection, names), await replay(connection, names)) == []
    assert await fetch(connection, "SELECT count(*) FROM {spill}", names) == [(0,)]
    said = sum(int(next(filter(None, found.groups()))) for found in _SAID.finditer(log))
    return Outcome(saved.total(), lost, doubled, said, log.count("LockNotAvailable"), len(losses))


async def _main(seeds: int, first: int, longest_s: float) -> int:
    kept = True
    binaries = None
    with Server(binaries) as server:
        for seed in range(first, first + seeds):
            for sync_interval in (2, 60):
                name = f"storm_{seed}_{sync_interval}"
                with psycopg.connect(server.dsn(), autocommit=True) as admin:
                    admin.execute(f'CREATE DATABASE "{name}"'.encode())
                async with Chancy(server.dsn(name), plugins=[Metrics()]) as chancy:
                    await chancy.migrate()
                outcome = await storm(server, server.dsn(name), seed, sync_interval, longest_s=longest_s)
                kept = kept and outcome.is_kept
                print(f"seed {seed}, sync_interval {sync_interval}: {outcome}, kept: {outcome.is_kept}", flush=True)
    return 0 if kept else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--longest", type=float, default=LONGEST_S, help="seconds a lock is held at the most")
    arguments = parser.parse_args()
    raise SystemExit(asyncio.run(_main(arguments.seeds, arguments.first, arguments.longest)))
