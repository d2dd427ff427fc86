"""Appends, folds, rebuilds, swaps, undos, prunes and verify at once: nothing is lost, nobody waits, all agrees."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial

import anyio
from chancy import Chancy

from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, database_now_us, short_transaction
from chancy_metrics.events.errors import MetricsLogError, VersionRefused
from chancy_metrics.events.log import append
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.sequencer import sequence
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.health.verify import verify
from chancy_metrics.plugin.rebuilds.rebuild import rebuild
from chancy_metrics.plugin.rebuilds.swap import swap, undo
from chancy_metrics.plugin.worker.retention import prune_days
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.create import drop_version
from chancy_metrics.projections.versions.expiry import drop_versions
from chancy_metrics.projections.versions.replay import replay, stored
from chancy_metrics.projections.versions.version import read_versions
from tests.factories import LogWriter, a_row, a_run, an_app, connections, fetch, now_us, sequence_and_fold

#: What an append may wait for a lock: as long as a job's transaction lets it.
LOCK_MS = 100
#: Appends of each writer at the least, and at the most; how often each of the others does its work.
MIN_DONE, MAX_APPENDS = 60, 4_000
ROUNDS = {"rebuild": 4, "verify": 4, "undo or swap": 6}
TODAY = datetime.now(UTC).date()
#: Days that are past their time, and are written to for as long as they take anything.
PAST = [TODAY - timedelta(days=days) for days in (5, 4, 3)]
KEPT_S = 86_400


class Everything:
    """What is going on, and what has been done.

    Attributes:
        appended: Batches that are in, by the day they lie in.
        done: How often each kind of work was done.
        busy: Kinds of work that still go on.
        blockers: What kept the days, and how often.
    """

    def __init__(self, dsn: str, tables: Tables) -> None:
        self.dsn = dsn
        self.tables = tables
        self.appended: Counter[date] = Counter()
        self.done: Counter[str] = Counter()
        self.busy = {*ROUNDS, "prune"}
        self.blockers: Counter[str] = Counter()

    async def write(self, worker: str) -> None:
        """Append to any day; what a day does not take any more is spilled."""
        chance = random.Random(worker)
        async with connections(self.dsn, 1) as (connection,):
            writer = LogWriter(connection, self.tables, worker)
            for number in range(MAX_APPENDS):
                if number >= MIN_DONE and not self.busy:
                    return
                at_us = now_us() - chance.randrange(40) * 3_600_000_000
                batch = encode([a_row(at_us)], [a_run("app:n", [1.0], at_us=at_us), a_run("app:x", [0.1], at_us=at_us)])
                batch_id = writer.next_id(chance.choice([TODAY, *PAST]))
                async with short_transaction(connection) as cursor:
                    done = await append(cursor, self.tables, batch_id, batch, worker=worker, lock_wait_ms=LOCK_MS)
                assert done.is_written
                self.appended[batch_id.day] += done.state == "appended"
                self.appended[TODAY] += done.state == "spilled"
                await anyio.sleep(0.001)
        raise AssertionError(f"after {MAX_APPENDS} appends not yet done: {self.busy}; {self.done}; {self.blockers}")

    async def fold(self) -> None:
        async with connections(self.dsn, 1) as (connection,):
            while self.busy:
                await sequence(connection, self.tables)
                done = await advance(connection, self.tables, folded_by="live")
                self.done["fold"] += done.events > 0
                await anyio.sleep(0.01)

    async def repeat(self, what: str, work: Callable[[Chancy], Awaitable[None]]) -> None:
        async with an_app(self.dsn, Metrics(sync_interval=1)) as (chancy, _):
            for _ in range(ROUNDS[what]):
                await work(chancy)
                self.done[what] += 1
        self.busy.remove(what)

    async def rebuild(self, chancy: Chancy) -> None:
        done = await rebuild(chancy)
        assert (done.differences, done.left_out) == ([], 0)

    async def verify(self, chancy: Chancy) -> None:
        while True:
            try:
                found = await verify(chancy)
                break
            except MetricsLogError as error:  # versions were promoted during each of its attempts
                assert str(error).endswith("try again"), error
        assert (found.differences, found.findings) == ([], [])
        self.done["compared"] += found.points > 0

    async def undo_or_swap(self, chancy: Chancy) -> None:
        """Undo, or swap to the newest version on standby; until there is one, the others work on."""
        while True:
            try:
                if self.done["undo or swap"] % 2:
                    await undo(chancy)
                else:
                    await swap(chancy, await self._newest_that_rests())
                return
            except VersionRefused:  # it has just been taken, or there is none
                await anyio.sleep(0.05)

    async def prune(self) -> None:
        """Let the days go one by one; of the versions that rest, and keep them, the newest one is brought on."""
        async with connections(self.dsn, 1) as (connection,):
            now = await database_now_us(connection.cursor())
            while self.done["prune"] < len(PAST):
                [pruned] = await prune_days(connection, self.tables, BUILT_IN, now_us=now, log_retention_s=KEPT_S)
                self.done["prune"] += pruned.state == "gone"
                self.blockers[f"{pruned.state}: {pruned.blocker}"] += 1
                if pruned.blocker and "(standby)" in pruned.blocker:
                    newest = await self._newest_that_rests()
                    await advance(connection, self.tables, folded_by="pruner", version=newest)
                    for version in range(1, newest or 1):
                        await drop_version(connection, self.tables, version)
                    await drop_versions(connection, self.tables, now_us=now)
                await anyio.sleep(0.01)
        self.busy.remove("prune")

    async def _newest_that_rests(self) -> int | None:
        async with connections(self.dsn, 1) as (connection,), short_transaction(connection) as cursor:
            versions = await read_versions(cursor, self.tables)
        return max((one.version for one in versions if one.status == "standby"), default=None)


async def test_everything_at_once_loses_nothing_and_makes_no_append_wait(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    everything = Everything(dsn, tables)
    for day in PAST:
        await make_days(connection, tables, today=day, ahead=0)

    with anyio.fail_after(240):
        async with anyio.create_task_group() as tasks:
            for worker in ("worker-a", "worker-b"):
                tasks.start_soon(everything.write, worker)
            tasks.start_soon(everything.fold)
            tasks.start_soon(everything.prune)
            for what, work in (
                ("rebuild", everything.rebuild),
                ("verify", everything.verify),
                ("undo or swap", everything.undo_or_swap),
            ):
                tasks.start_soon(partial(everything.repeat, what, work))
    await sequence_and_fold(connection, tables)

    batches = everything.appended.total()
    assert {kind: everything.done[kind] for kind in ROUNDS} == ROUNDS
    assert everything.done["prune"] == len(PAST) and everything.done["fold"] > 0
    assert all(everything.appended[day] for day in (TODAY, *PAST)), everything.appended
    assert batches >= 2 * MIN_DONE
    points = await stored(connection, tables)
    mine = [one for one in points if (one.series.key, one.resolution, one.worker) == ("app:n", "1day", None)]
    assert sum(one.sum for one in mine) == batches
    assert diff(points, await replay(connection, tables)) == []
    [(positions, last, days)] = await fetch(
        connection,
        "SELECT count(DISTINCT (producer, sequence)), max(position), (SELECT count(*) FROM {days} WHERE state = 'gone')"
        " FROM {ledger}",
        tables,
    )
    # Each verification records what it found, unless it came before the first fold.
    assert positions == last == batches + everything.done["compared"]
    assert days == len(PAST)
    async with an_app(dsn) as (chancy, _):
        found = await verify(chancy)
        again = await rebuild(chancy)
    assert (found.differences, found.findings) == ([], [])
    assert again.differences == []
