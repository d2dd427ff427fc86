"""A verification that many tasks share finds what one process finds, in the same words."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.health.dead_letters import discard
from chancy_metrics.plugin.health.verify import Verified, verify
from chancy_metrics.plugin.parallel import replay_task
from chancy_metrics.plugin.rebuilds.listing import list_versions
from chancy_metrics.plugin.rebuilds.rebuild import rebuild
from chancy_metrics.projections.rules.rule_set import RuleSet
from chancy_metrics.projections.search import indexing
from chancy_metrics.projections.verify import replay
from tests.commands import run
from tests.factories import (
    LogWriter,
    a_row,
    a_run,
    an_app,
    connections,
    damage,
    now_us,
    sequence_all,
    sequence_and_fold,
)
from tests.faults.history import make_history
from tests.rules import picky
from tests.standby import Standby

OF = "WHERE (producer, sequence) = (SELECT producer, sequence FROM {{ledger}} WHERE position = {at})"
CHANGES = [
    f"UPDATE {{{{log}}}} SET payload = set_bit(payload, 77, 1 - get_bit(payload, 77)) {OF}",
    f"UPDATE {{{{log}}}} SET worker = worker || 'x' {OF}",
    f"DELETE FROM {{{{log}}}} {OF}",
    "UPDATE {{ledger}} SET chain = sha256(chain) WHERE position = {at}",
    "DELETE FROM {{ledger}} WHERE position BETWEEN {at} AND {at} + 2",
    "UPDATE {{r1day}} SET count = count + 1 WHERE mod(bucket, {at}) = 0",
    "UPDATE {{summaries}} SET first_us = first_us - 1 WHERE {at} BETWEEN first_position AND last_position",
]
MINE = RuleSet(user=1, rules=(picky,))


def said(found: Verified) -> dict[str, Any]:
    return msgspec.structs.asdict(found) | {"at": None, "took_s": None, "share": None}


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(1, 40)), max_size=3),
    events=st.integers(5, 60),
    rows=st.integers(3, 30),
    ago_h=st.one_of(st.none(), st.tuples(st.integers(-1, 30), st.integers(1, 50))),
    budget_s=st.sampled_from([None, 0, 30]),
)
async def test_wherever_the_ledger_is_cut_the_same_is_found(
    dsn: str,
    tables: Tables,
    changes: list[tuple[str, int]],
    events: int,
    rows: int,
    ago_h: tuple[int, int] | None,
    budget_s: float | None,
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(replay_task, "_TASK_EVENTS", events)
        patched.setattr(replay_task, "_PART_EVENTS", events)
        patched.setattr(replay_task, "_TASK_ROWS", rows)
        patched.setattr(replay, "_NEAR", 1)
        patched.setattr(indexing, "RANGE_BATCHES", 4)
        metrics = Metrics(rules=[picky], rules_version=1)
        async with connections(dsn, 1) as (connection,), an_app(dsn, metrics) as (chancy, _):
            if len(await list_versions(chancy)) == 1:
                await rebuild(chancy)  # to the rules of this app
            for number in range(8):
                at_us = now_us() - number * 5 * 3_600_000_000
                jobs = [a_row(at_us, state="failed" if number == 3 else "succeeded")]
                await LogWriter(connection, tables, f"w{number % 2}").append(jobs=jobs, runs=[a_run(at_us=at_us)])
            await sequence_and_fold(connection, tables, MINE)
            await indexing.summarise(connection, tables)
            for change, at in changes:
                await damage(connection, tables, change.format(at=at))
            now, since, until = datetime.now(UTC), None, None
            if ago_h is not None:
                until = now - timedelta(hours=ago_h[0])
                since = until - timedelta(hours=ago_h[1])
            check = partial(verify, chancy, since=since, until=until, budget_s=budget_s)
            one = await check(chance=Random(1))
            with ThreadPoolExecutor(3) as executor:
                many = await check(chance=Random(1), executor=executor)

    assert said(many) == said(one)
    assert many.events > 0 or ago_h is not None or budget_s == 0


async def test_a_lost_batch_that_is_given_up_is_no_finding(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_task, "_TASK_ROWS", 2)
    monkeypatch.setattr(replay, "_NEAR", 1)
    for _ in range(5):
        await LogWriter(connection, tables).append(runs=[a_run(at_us=now_us())])
    await sequence_all(connection, tables)
    await damage(connection, tables, CHANGES[2].format(at=3))
    await sequence_and_fold(connection, tables)

    async with an_app(dsn) as (chancy, _):
        with ThreadPoolExecutor(2) as executor:
            lost = await verify(chancy, executor=executor)
            await discard(chancy, 3, why="a test", by="me")
            given_up = await verify(chancy, executor=executor)

    assert [(one.check, one.where) for one in lost.findings] == [("log", "position 3")]
    assert (given_up.drift, given_up.events) == (0, 4)


class Counting(ThreadPoolExecutor):
    """Counts what is submitted."""

    submitted = 0

    def submit(self, *arguments: Any, **options: Any) -> Any:
        self.submitted += 1
        return super().submit(*arguments, **options)


async def test_the_batches_of_a_range_of_time_are_shared_and_no_others(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_task, "_PART_EVENTS", 2)
    hour_us = 3_600_000_000
    for ago in (5, 1, 5, 1, 1, 5):
        run_of_two = a_run("app:n", [1.0, 2.0], at_us=now_us() - ago * hour_us)
        await LogWriter(connection, tables).append(runs=[run_of_two])
    await sequence_and_fold(connection, tables)

    async with an_app(dsn) as (chancy, _):
        with Counting(2) as executor:
            since = datetime.now(UTC) - timedelta(hours=3)
            found = await verify(chancy, since=since, executor=executor)

    assert (executor.submitted, found.events, found.drift) == (3, 6, 0)
    assert found.points > 0


async def test_pruned_days_come_from_the_baseline_and_tasks_read_a_replica(
    dsn: str, connection: Connection, tables: Tables, standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_task, "_TASK_ROWS", 9)
    monkeypatch.setattr(replay, "_NEAR", 1)
    await make_history(connection, tables, batches=20)
    await standby.arrived()

    async with an_app(dsn) as (chancy, _):
        with ThreadPoolExecutor(2) as executor:
            found = await verify(chancy, executor=executor, read_dsn=standby.dsn(connection.info.dbname))

    assert (found.drift, found.differences, found.findings) == (0, [], [])
    assert found.points > 1_000 and found.events > 1_000


@pytest.mark.slow
async def test_the_command_shares_a_verification_among_processes(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await make_history(connection, tables, batches=10)

    done = run(dsn, "verify", "--processes", "2")

    assert (done.returncode, done.stderr) == (0, "")
    assert "everything agrees" in done.stdout
