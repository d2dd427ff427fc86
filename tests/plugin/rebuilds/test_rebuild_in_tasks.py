"""A rebuild whose ranges are folded by many tasks, in any cut, ends with the bytes of one process."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import MetricsLogError, WorkersLost
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Derived, JobColumns, Metrics
from chancy_metrics.plugin.host.progress import RebuildProgress
from chancy_metrics.plugin.parallel import executors
from chancy_metrics.plugin.parallel.executors import dask_cluster, process_pool
from chancy_metrics.plugin.parallel.shared_rules import SharedRules
from chancy_metrics.plugin.rebuilds import ahead, backfill
from chancy_metrics.plugin.rebuilds.rebuild import rebuild
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.rules.rule_set import BUILT_IN, RuleSet
from chancy_metrics.projections.versions.replay import replay, stored
from tests.factories import (
    LogWriter,
    a_row,
    a_run,
    an_app,
    connections,
    damage,
    now_us,
    sequence_and_fold,
)
from tests.plugin.parallel.clusters import a_cluster
from tests.rules import DIED, deadly
from tests.standby import Standby

MINUTE_US = 60_000_000


def a_closure() -> Any:
    def within(jobs: JobColumns) -> Iterator[Derived]:
        yield from ()

    return within


async def some_history(connection: Connection, tables: Tables, rule_set: RuleSet = BUILT_IN, batches: int = 9) -> None:
    """Three workers' batches over some hours, with every kind of observation, folded one by one."""
    for number in range(batches):
        at_us = now_us() - number % 4 * 40 * MINUTE_US
        runs = [a_run("app:n", [0.1, 1e-9], at_us=at_us), a_run("app:open", [number], kind="gauge", at_us=at_us)]
        jobs = [a_row(at_us), a_row(at_us, state="failed")]
        await LogWriter(connection, tables, f"w{number % 3}").append(jobs=jobs, runs=runs)
        await sequence_and_fold(connection, tables, rule_set)


runs = st.builds(
    lambda kind, name, at, values: (kind, name, at, values),
    kind=st.sampled_from(["counter", "gauge", "histogram"]),
    name=st.sampled_from(["a", "b"]),
    at=st.sampled_from([0, 1, MINUTE_US, 90 * MINUTE_US, 3_000 * MINUTE_US, 40_000 * MINUTE_US]),
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=3),
)


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.tuples(st.lists(runs, max_size=3), st.sampled_from(["w1", "w2"])), min_size=1, max_size=8),
    threads=st.integers(1, 4),
    range_events=st.integers(1, 9),
    step_events=st.integers(1, 40),
)
async def test_any_cut_into_tasks_and_steps_gives_what_live_folding_and_a_replay_give(
    dsn: str, tables: Tables, batches: list[Any], threads: int, range_events: int, step_events: int
) -> None:
    mine = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ahead, "REBUILD_STEP_EVENTS", range_events)
        patched.setattr(backfill, "BACKFILL_EVENTS", step_events)
        async with connections(dsn, 1) as (connection,), an_app(dsn) as (chancy, _):
            for drawn, worker in batches:
                made = [
                    a_run(f"{mine}:{name}", values, kind=kind, at_us=now_us() - at) for kind, name, at, values in drawn
                ]
                await LogWriter(connection, tables, worker).append(jobs=[a_row(now_us())], runs=made)
                await sequence_and_fold(connection, tables)
            live = await stored(connection, tables)
            with ThreadPoolExecutor(threads) as executor:
                done = await rebuild(chancy, executor=executor)

            assert (done.different, done.differences) == (0, [])
            after = await stored(connection, tables)
            assert after == [point for point in live if point in after] != []
            assert diff(after, await replay(connection, tables)) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["processes", "dask"])
async def test_what_a_killed_process_had_folded_is_folded_again(
    kind: str,
    request: pytest.FixtureRequest,
    dsn: str,
    connection: Connection,
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(ahead, "REBUILD_STEP_EVENTS", 8)
    mine = RuleSet(user=1, rules=(deadly,))
    await some_history(connection, tables)
    died, made = tmp_path / "died", partial(process_pool, 2)
    if kind == "dask":
        cluster: LocalCluster = request.getfixturevalue("cluster")
        made = partial(dask_cluster, cluster.scheduler_address)  # type: ignore[arg-type]
    else:
        monkeypatch.setenv(DIED, str(died))

    done = await rebuilt(dsn, made(), mine)

    assert died.exists() or kind == "dask"
    assert (done.left_out, done.behind) == (0, "")
    assert diff(await stored(connection, tables), await replay(connection, tables, mine)) == []
    assert any(point.series.key == "made:by:deadly" for point in await stored(connection, tables))


@pytest.mark.slow
async def test_where_the_cluster_goes_away_the_next_call_resumes(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in ((ahead, "REBUILD_STEP_EVENTS", 5), (backfill, "BACKFILL_EVENTS", 5)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(executors, "_CONNECT_S", 0.5)
    await some_history(connection, tables)
    reached: list[RebuildProgress] = []
    made = a_cluster(workers=1, processes=False)

    def close(progress: RebuildProgress) -> None:
        reached.append(progress)
        if progress.phase == "backfilling":
            made.close()

    with pytest.raises(WorkersLost):
        async with an_app(dsn) as (chancy, _):
            with dask_cluster(made.scheduler_address) as executor:
                await rebuild(chancy, executor=executor, on_progress=close)
    async with an_app(dsn) as (chancy, _):
        done = await rebuild(chancy)

    assert done.version == reached[-1].version
    assert reached[-1].position > 0 and done.events < 9 * 5
    assert diff(await stored(connection, tables), await replay(connection, tables)) == []


async def rebuilt(dsn: str, made: AbstractContextManager[Executor], mine: RuleSet, read_dsn: str | None = None) -> Any:
    metrics = Metrics(sync_interval=1, rules=list(mine.rules), rules_version=mine.user)
    async with an_app(dsn, metrics) as (chancy, _):
        with made as executor:
            return await rebuild(chancy, executor=executor, read_dsn=read_dsn)


async def test_tasks_read_a_replica(dsn: str, connection: Connection, tables: Tables, standby: Standby) -> None:
    await some_history(connection, tables)

    done = await rebuilt(dsn, ThreadPoolExecutor(2), BUILT_IN, standby.dsn(connection.info.dbname))

    assert (done.different, done.differences) == (0, [])
    assert diff(await stored(connection, tables), await replay(connection, tables)) == []


async def test_a_lost_batch_and_one_of_newer_code_are_left_out_or_waited_for_as_by_one_process(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "REBUILD_STEP_EVENTS", 8)
    await some_history(connection, tables)
    where = "WHERE (producer, sequence) = (SELECT producer, sequence FROM {ledger} WHERE position = 4)"
    await damage(connection, tables, f"DELETE FROM {{log}} {where}")

    done = await rebuilt(dsn, ThreadPoolExecutor(2), BUILT_IN)

    assert done.left_out == 1
    assert "position 4" in done.leaves_out and "its row is not in the log" in done.leaves_out


@pytest.mark.parametrize("rule", [a_closure(), deadly], ids=["closure", "script"])
async def test_a_rule_that_no_task_can_import_is_named_before_any_work(
    dsn: str, monkeypatch: pytest.MonkeyPatch, rule: Any
) -> None:
    if rule is deadly:
        monkeypatch.setattr(deadly, "__module__", "__main__")
        monkeypatch.setattr(sys.modules["__main__"], "deadly", deadly, raising=False)
    with pytest.raises(MetricsLogError, match=r"rule '(within|deadly)' .*a module that is installed wherever"):
        await rebuilt(dsn, ThreadPoolExecutor(1), RuleSet(user=1, rules=(rule,)))


def test_a_rule_that_is_missing_where_a_task_runs_is_named() -> None:
    shared = SharedRules(2, 1, (("cost", b"cno_such_module\ncost\n."),))

    with pytest.raises(MetricsLogError, match=r"can't import rule 'cost' .ModuleNotFoundError: .*no_such_module"):
        shared.load()
