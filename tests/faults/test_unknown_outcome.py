"""A COMMIT may or may not have happened; every update that was saved is in the log once all the same."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from typing import Any, Literal, get_args
from uuid import UUID

import psycopg
import pytest
from chancy import Chancy, QueuedJob
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from psycopg import AsyncConnection
from psycopg.errors import LockNotAvailable
from psycopg.rows import dict_row

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.events.sequencer import sequence
from chancy_metrics.plugin.host.connection import DatabaseClock
from chancy_metrics.plugin.recording.buffer import Buffer
from chancy_metrics.plugin.recording.job_hook import JobHook
from chancy_metrics.plugin.recording.recorder import Recorder
from examples.embedded import Server
from tests.factories import a_host, a_job, claimed, fetch, sequence_all
from tests.faults.proxy import Loss, a_proxy
from tests.faults.truth import Update, install_truth, logged_counts, logged_updates, read_log, saved_updates

#: In the statement with which the host saves jobs, whether or not there is anything to record with them.
SAVES_JOBS = b"claim_id IS NOT DISTINCT FROM"
QUIET = logging.getLogger("quiet")
QUIET.disabled = True


@pytest.mark.parametrize(("newer", "broken_in_the_retry"), [(0, False), (2, True)])
@pytest.mark.parametrize("losses", [["commit"], ["answer"], ["answer", "answer"], ["answer", "commit", "answer"]])
async def test_a_batch_whose_commit_went_unanswered_is_recorded_once_with_what_came_after_it(
    losses: list[Loss],
    newer: int,
    broken_in_the_retry: bool,
    dsn: str,
    server: Server,
    connection: Connection,
    tables: Tables,
) -> None:
    left = [*losses]
    await install_truth(connection)
    async with a_proxy(server) as proxy, a_host(proxy.dsn(dsn)) as (worker, _):
        jobs = list(await claimed(connection, *(a_job() for _ in range(3 + newer * len(losses) + 1))))
        for job in jobs[:3]:
            await worker.queue_update(job)
        proxy.loses = lambda statements: left.pop(0) if left and SAVES_JOBS in statements else ""

        for _ in losses:
            with pytest.raises(psycopg.OperationalError):
                await worker.flush()
            for job in jobs[3 : 3 + newer]:
                await worker.queue_update(job)
            del jobs[3 : 3 + newer]
        if broken_in_the_retry:
            await fetch(connection, "ALTER TABLE {pending} RENAME TO gone", tables)
        await worker.flush()
        if broken_in_the_retry:
            await fetch(connection, "ALTER TABLE gone RENAME TO chancy_metrics_pending", tables)
        await worker.queue_update(jobs[-1])
        await worker.flush()

        assert proxy.lost == losses
    await sequence_all(connection, tables)
    log = await read_log(connection, tables)
    assert logged_updates(log) == await saved_updates(connection)
    assert logged_updates(log).total() == 3 + newer * len(losses) + 1
    assert sorted(written.sequence for written in log if written.closes) == sorted(
        Counter(written.producer for written in log).values()
    )
    assert logged_counts(log) == Counter()


async def test_a_worker_that_stops_with_an_unconfirmed_batch_settles_it(
    dsn: str, server: Server, connection: Connection, tables: Tables
) -> None:
    left: list[Loss] = ["answer", "commit"]
    await install_truth(connection)
    async with a_proxy(server) as proxy, a_host(proxy.dsn(dsn)) as (worker, metrics):
        proxy.loses = lambda statements: left.pop(0) if left and SAVES_JOBS in statements else ""
        for _ in range(2):
            (job,) = await claimed(connection, a_job())
            await worker.queue_update(job)
            with pytest.raises(psycopg.OperationalError):
                await worker.flush()
        await fetch(connection, "ALTER TABLE {pending} RENAME TO gone", tables)
        await worker.flush()
        await fetch(connection, "ALTER TABLE gone RENAME TO chancy_metrics_pending", tables)

        await metrics.on_worker_stopped(worker=worker)

    await sequence_all(connection, tables)
    log = await read_log(connection, tables)
    assert logged_updates(log) == await saved_updates(connection)
    assert logged_updates(log).total() == 2
    assert sum(written.closes for written in log) == 2


Outcome = Literal["saved", "rolled back", "unanswered", "cut short"]
Trouble = Literal["log", "pending", "log, pending", "spill", "log, spill", "renamed"]
#: What keeps the hook from writing part of an earlier batch, whose id it can't look up then; and all that it writes.
NO_PART = ("log, pending", "spill")
NOTHING = ("log, spill",)


class Occurrence:
    """One update on its way through the host."""

    def __init__(self, job: QueuedJob) -> None:
        self.job = job
        self.saved = False


class HostMachine(RuleBasedStateMachine):
    """A host that keeps the contract of `Worker.flush()`, in front of a database and commits that misbehave."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self.tables = tables_for("chancy_")
        self.chancy = Chancy(dsn)
        self.runner = asyncio.Runner()
        self.trouble: Trouble | None = None
        self.outgoing: list[Occurrence] = []
        self.pending: list[Occurrence] = []
        self.expected: Counter[Update] = Counter()
        self.again: list[QueuedJob] = []
        self.refused: set[UUID] = set()  # jobs that somebody else has claimed since, for good
        self.unknowable: set[UUID] = set()  # saved, perhaps, without a log: only the next flush can tell
        self.hooks: list[JobHook] = []
        self.retrying = False

    @initialize()
    def begin(self) -> None:
        async def connect() -> None:
            self.connection, self.other = [
                await AsyncConnection.connect(self.chancy.dsn, autocommit=True) for _ in range(2)
            ]

        self.runner.run(connect())
        self.clock = DatabaseClock()
        self.buffer = Buffer(1_000_000)
        self.recorder = Recorder("worker", self.buffer, self.clock, QUIET)
        self.start()

    def start(self) -> None:
        self.hook = JobHook("worker", self.buffer, self.clock, QUIET, lock_wait_ms=1, keep_meta=())
        self.hooks.append(self.hook)

    @rule(how_many=st.integers(1, 3))
    def queue(self, how_many: int) -> None:
        self.outgoing += [Occurrence(a_job()) for _ in range(how_many)]

    @precondition(lambda self: self.again)
    @rule(data=st.data())
    def queue_the_same_object_again(self, data: st.DataObject) -> None:
        self.outgoing.append(Occurrence(data.draw(st.sampled_from(self.again))))

    @rule(outcome=st.sampled_from(["saved", "rolled back", "unanswered", "cut short"]), data=st.data())
    def flush(self, outcome: Outcome, data: st.DataObject) -> None:
        if self.retrying and self.pending:
            positions = data.draw(st.sets(st.integers(0, len(self.pending) - 1), max_size=2))
            self.refused |= {self.pending[position].job.id for position in positions} - self.unknowable
        unwritable = self.trouble in (NO_PART + NOTHING if self._comes_back_in_part() else NOTHING)
        if outcome == "cut short" and unwritable:
            outcome = "saved"  # what is neither recorded nor announced can't be known
        if outcome == "unanswered" and unwritable:
            self.unknowable |= {update.job.id for update in (*self.pending, *self.outgoing)}
        told = data.draw(st.integers(0, 3))
        self.runner.run(self._flush(outcome, told))

    @precondition(lambda self: not self.trouble)
    @rule(trouble=st.sampled_from(get_args(Trouble)))
    def begin_trouble(self, trouble: Trouble) -> None:
        self.trouble = trouble
        if trouble == "renamed":
            self.other_runs("ALTER TABLE {pending} RENAME TO gone")
        else:
            tables = ", ".join(f"{{{table}}}" for table in trouble.split(", "))
            self.other_runs(f"BEGIN; LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")

    @precondition(lambda self: self.trouble)
    @rule()
    def end_trouble(self) -> None:
        self.other_runs("ALTER TABLE gone RENAME TO chancy_metrics_pending" if self.trouble == "renamed" else "COMMIT")
        self.trouble = None

    @precondition(lambda self: self.trouble != "renamed")
    @rule()
    def sequence_all(self) -> None:
        async def order() -> None:
            with suppress(LockNotAvailable):
                await sequence(self.connection, self.tables)

        self.runner.run(order())

    @rule()
    def update_a_job_without_a_transaction(self) -> None:
        job = a_job()
        self.hook.take_saved(job)
        self.expected[Update(job.id, job.attempts, job.state.value)] += 1

    @precondition(lambda self: not self.pending and not self.trouble)
    @rule()
    def stop_and_start(self) -> None:
        self.runner.run(self.hook.close(self.chancy))
        self.start()

    def teardown(self) -> None:
        try:
            if self.hooks:
                self.settle()
        finally:
            self.runner.close()

    def settle(self) -> None:
        if self.trouble:
            self.end_trouble()

        async def settle() -> None:
            await self._flush("saved", 0)
            await self.recorder.close(self.chancy)
            await self.hook.close(self.chancy)
            await sequence_all(self.connection, self.tables)
            log = await read_log(
                self.connection,
                self.tables,
                producers=[self.recorder.producer, *(hook.producer for hook in self.hooks)],
            )
            await self.connection.close()
            await self.other.close()

            assert logged_updates(log) == self.expected
            assert len(self.buffer) == 0
            for producer in {written.producer for written in log}:
                mine = [written for written in log if written.producer == producer]
                assert [written.sequence for written in mine] == list(range(1, len(mine) + 1))
                assert [written.closes for written in mine] == [False] * (len(mine) - 1) + [True]

        self.runner.run(settle())

    def other_runs(self, query: str) -> None:
        self.runner.run(fetch(self.other, query, self.tables))

    def _comes_back_in_part(self) -> bool:
        """Whether the host saves some jobs of an unconfirmed batch now, and not the others."""
        coming = {id(update.job) for update in (*self.pending, *self.outgoing) if update.job.id not in self.refused}
        known = [[id(job) in coming for job in unconfirmed.jobs.jobs()] for unconfirmed in self.hook._unconfirmed]
        return any(any(ones) and not all(ones) for ones in known)

    async def _flush(self, outcome: Outcome, told: int) -> None:
        self.pending += self.outgoing
        self.outgoing = []
        accepted = [update for update in self.pending if update.job.id not in self.refused]
        self.again = [job for job in self.again if job.id not in self.refused]
        self.retrying = outcome in ("rolled back", "unanswered")
        async with (
            self.connection.cursor(row_factory=dict_row) as cursor,
            self.connection.transaction(force_rollback=outcome == "rolled back"),
        ):
            if accepted:
                await self.hook.record(cursor, "chancy_", [update.job for update in accepted])
        if outcome == "rolled back":
            return
        for update in accepted:
            job = update.job
            self.expected[Update(job.id, job.attempts, job.state.value)] += not update.saved
            update.saved = True
        if outcome == "unanswered":
            return
        self.pending = []
        for update in accepted[: told if outcome == "cut short" else None]:
            self.hook.take_saved(update.job)
            self.again = [*self.again[-3:], update.job]
        if outcome == "cut short":
            untold = {id(update.job) for update in accepted[told:]}
            self.again = [job for job in self.again if id(job) not in untold]


@pytest.mark.usefixtures("anyio_backend")  # which the making of the database needs
def test_a_host_whose_commits_are_lost_in_any_way_finds_each_saved_update_in_the_log_once(dsn: str) -> None:
    options: dict[str, Any] = {"suppress_health_check": list(HealthCheck), "deadline": None, "print_blob": False}
    run_state_machine_as_test(
        lambda: HostMachine(dsn), settings=settings(max_examples=50, stateful_step_count=25, **options)
    )
