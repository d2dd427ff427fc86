"""Workers under load with locks, kills, stops and lost COMMITs, mixed from a seed: python -m tests.faults.storm.

Every update the database saved must be in the log, the ledger and all rollups once, and never have waited in memory.
With `--spill` the spill table is locked, too: then an update that neither it nor the log took is lost with its process,
and the log lines of that process must say how many that is. 20 seeds run at sync_interval 2 and 60 each; CI runs one
seed of each, with shorter locks.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import signal
import tempfile
from contextlib import ExitStack, suppress
from typing import NamedTuple

import anyio
import psycopg
from chancy import Chancy

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.folding.projector import fold_all
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.versions.replay import replay, stored
from examples.embedded import Server
from tests.factories import an_app, connections, fetch
from tests.faults.proxy import Loss, a_proxy
from tests.faults.test_workers_killed import a_worker, push_load, until_saved
from tests.faults.truth import (
    install_truth,
    logged_counts,
    logged_updates,
    read_log,
    rolled_up,
    saved_updates,
    true_counters,
)

#: Seconds locks are held for, the shortest and the longest.
SHORTEST_S, LONGEST_S = 0.05, 20.0
LOCKED = ("{log}", "{day}", "{pending}", "{log}, {pending}")
WITH_SPILL = (*LOCKED, "{spill}", "{log}, {spill}", "{pending}, {spill}", "{log}, {pending}, {spill}")
#: Share of COMMITs of job updates whose answer is lost, and that are lost themselves.
ANSWERS, COMMITS = 0.2, 0.1
#: Seconds a worker may take to stop, whatever is locked.
STOP_S = 40
#: Job updates that one flush adds at the most: a process may be killed after it said that they wait, and before COMMIT.
A_FLUSH = 100
_WAITS = re.compile(r"neither the log nor the spill table took ([\d,]+) job updates .*? beside (.*?); if this process")
_WRITTEN = re.compile(r"([\d,]+) job updates .* that waited in memory are written")
_LOST = re.compile(r"the last metrics of .*? are lost: (.*?)\. They could not be written")
_UPDATES = re.compile(r"([\d,]+) job updates?")


class Outcome(NamedTuple):
    """What became of the updates of one storm.

    Attributes:
        saved: How many the database saved; *lost* of them are not counted, and *doubled* ones too often.
        said: How many the log lines of the workers call lost.
        buffered: How many waited in memory before they were counted.
        spills: How often a worker said that the log did not take a batch, at the least.
        losses: How many COMMITs were lost, or their answers.
        ended: Workers that were killed or stopped.
    """

    saved: int
    lost: int
    doubled: int
    said: int
    buffered: int
    spills: int
    losses: int
    ended: int

    def is_kept(self, *, locks_spill: bool) -> bool:
        """Whether the promise was kept."""
        if locks_spill:
            return not self.doubled and self.lost <= self.said <= self.lost + self.ended * A_FLUSH
        return self.lost == self.doubled == self.said == self.buffered == 0


async def storm(
    server: Server,
    dsn: str,
    seed: int,
    sync_interval: int,
    *,
    rounds: int = 4,
    longest_s: float = LONGEST_S,
    locks_spill: bool = False,
) -> Outcome:
    """Run *rounds* workers, each killed or stopped at a random moment, in a migrated database of its own."""
    chance = random.Random(seed)
    tables = tables_for("chancy_")
    losing = [True]

    def loses(statements: bytes) -> Loss:
        if not losing or b"SAVEPOINT metrics_log" not in statements:
            return ""
        number = chance.random()
        return "answer" if number < ANSWERS else "commit" if number < ANSWERS + COMMITS else ""

    with ExitStack() as files:
        logs = [files.enter_context(tempfile.TemporaryFile()) for _ in range(rounds)]
        async with (
            a_proxy(server, loses) as proxy,
            an_app(dsn, Metrics()) as (chancy, _),
            connections(dsn, 2) as (connection, locking),
        ):
            await install_truth(connection)
            await push_load(chancy, 4_000)
            locks = asyncio.create_task(_lock_for_ever(locking, tables, random.Random(seed), longest_s, locks_spill))
            for number, log in enumerate(logs):
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
            for log in logs:
                log.seek(0)
            return await _outcome(chancy, connection, tables, [log.read().decode() for log in logs], proxy.lost)


async def _lock_for_ever(
    connection: Connection, tables: Tables, chance: random.Random, longest_s: float, locks_spill: bool
) -> None:
    cursor = await connection.execute("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")
    [today] = await cursor.fetchone() or ()
    await connection.set_autocommit(False)
    while True:
        what = chance.choice(WITH_SPILL if locks_spill else LOCKED).replace("{day}", tables.partition_name(today))
        with suppress(psycopg.errors.LockNotAvailable):
            await connection.execute("SET LOCAL lock_timeout = '2s'")
            await fetch(connection, f"LOCK TABLE {what} IN ACCESS EXCLUSIVE MODE", tables)
            await anyio.sleep(SHORTEST_S * (longest_s / SHORTEST_S) ** chance.random())
        await connection.rollback()
        await anyio.sleep(chance.uniform(0, 0.5))


async def _outcome(
    chancy: Chancy, connection: Connection, tables: Tables, logs: list[str], losses: list[Loss]
) -> Outcome:
    await fold_all(chancy)
    log = await read_log(connection, tables)
    saved, logged = await saved_updates(connection), logged_updates(log)
    lost, doubled = (saved - logged).total(), (logged - saved).total()
    if not lost and not doubled:
        truth = await true_counters(connection)
        assert await rolled_up(connection, tables) == dict.fromkeys(("1min", "5min", "1hour", "1day"), truth)
    assert diff(await stored(connection, tables), await replay(connection, tables)) == []
    assert await fetch(connection, "SELECT count(*) FROM {spill}", tables) == [(0,)]
    assert {update.state for update in saved} == {"succeeded", "failed", "retrying"}
    return Outcome(
        saved=saved.total(),
        lost=lost,
        doubled=doubled,
        said=sum(map(said_lost, logs)),
        buffered=logged_counts(log)["buffered"],
        spills=sum(said.count("they are in the spill table") for said in logs),
        losses=len(losses),
        ended=len(logs),
    )


def said_lost(log: str) -> int:
    """How many job updates are lost by the log lines of one worker: at its end, or what waited when it was killed."""
    waiting = 0
    for line in log.splitlines():
        if found := _WAITS.search(line):
            waiting = _number(found[1]) + _updates(found[2])
        elif found := _WRITTEN.search(line):
            waiting = max(0, waiting - _number(found[1]))
        elif found := _LOST.search(line):
            return _updates(found[1])
    return waiting


def _updates(spelled: str) -> int:
    found = _UPDATES.search(spelled)
    return _number(found[1]) if found else 0


def _number(spelled: str) -> int:
    return int(spelled.replace(",", ""))


async def _main(seeds: int, first: int, longest_s: float, locks_spill: bool) -> int:
    kept = True
    with Server(None) as server:
        for seed in range(first, first + seeds):
            for sync_interval in (2, 60):
                name = f"storm_{seed}_{sync_interval}"
                with psycopg.connect(server.dsn(), autocommit=True) as admin:
                    admin.execute(f'CREATE DATABASE "{name}"'.encode())
                async with Chancy(server.dsn(name), plugins=[Metrics()]) as chancy:
                    await chancy.migrate()
                outcome = await storm(
                    server, server.dsn(name), seed, sync_interval, longest_s=longest_s, locks_spill=locks_spill
                )
                is_kept = outcome.is_kept(locks_spill=locks_spill)
                kept = kept and is_kept
                print(f"seed {seed}, sync_interval {sync_interval}: {outcome}, kept: {is_kept}", flush=True)
    return 0 if kept else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--longest", type=float, default=LONGEST_S, help="seconds a lock is held at the most")
    parser.add_argument("--spill", action="store_true", help="lock the spill table, too")
    arguments = parser.parse_args()
    raise SystemExit(asyncio.run(_main(arguments.seeds, arguments.first, arguments.longest, arguments.spill)))
