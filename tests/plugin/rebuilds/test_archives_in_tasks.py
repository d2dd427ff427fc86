"""Archives that tasks fold make the same bytes as those that the command's own process folds."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics, rebuild
from chancy_metrics.plugin.health.dead_letters import discard
from chancy_metrics.plugin.parallel.executors import dask_cluster, process_pool
from chancy_metrics.plugin.rebuilds.rebuild import Rebuilt
from chancy_metrics.plugin.rebuilds.swap import abort
from tests.commands import run
from tests.factories import an_app, damage, fetch, sequence_all, sequence_and_fold
from tests.plugin.rebuilds.archived_days import DAYS, RULES, a_log, add, assert_exact, from_archives, newer, prune_all
from tests.rules import DIED, deadly
from tests.standby import Standby

#: Where a version's rows are, but for what says when and by whom it was made.
_PARTS = [
    *("{r1min}", "{r5min}", "{r1hour}", "{r1day}", "{worker_segments}", "{dead_letters}"),
    "(SELECT version, counts, archives, horizon_1min, horizon_5min, horizon_1hour, horizon_1day FROM {versions})",
]
_OF_VERSION = "SELECT (to_jsonb(x) - 'version')::text FROM PART AS x WHERE version = %(version)s ORDER BY 1"


async def contents(connection: Connection, tables: Tables, version: int) -> list[Any]:
    """All rows of a version, and of the baseline that it was made from."""
    query = "SELECT baseline FROM {versions} WHERE version = %(version)s"
    [(baseline,)] = await fetch(connection, query, tables, version=version)
    return [
        await fetch(connection, _OF_VERSION.replace("PART", part), tables, version=number)
        for number in (baseline, version)
        for part in _PARTS
    ]


async def made(dsn: str, place: Path, executor: Executor | None, read_dsn: str | None = None) -> Rebuilt:
    async with an_app(dsn, newer()) as (chancy, _):
        return await rebuild(chancy, archive=place, executor=executor, read_dsn=read_dsn, swap=False)


async def test_tasks_make_the_same_bytes_and_name_the_same_days(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await a_log(connection, tables)
    await add(connection, tables, DAYS[1], "lost")
    await sequence_all(connection, tables)
    await damage(connection, tables, "DELETE FROM {log} WHERE worker = 'lost'")
    await sequence_and_fold(connection, tables)
    async with an_app(dsn, newer()) as (chancy, _):
        await discard(chancy, 8, why="a test", by="me")
    await prune_all(dsn, tmp_path)
    (tmp_path / f"metrics_log-{DAYS[0]}.export").unlink()
    (tmp_path / f"metrics_log-{DAYS[1]} (0).export").write_bytes(b"chancy")
    damaged = tmp_path / f"metrics_log-{DAYS[2]}.export"
    damaged.write_bytes(damaged.read_bytes()[:-1])

    found = []
    for threads in (0, 1, 3):
        with ThreadPoolExecutor(threads or 1) as executor:
            done = await made(dsn, tmp_path, executor if threads else None)
        found.append((done.archives, done.events, await contents(connection, tables, done.version)))
        async with an_app(dsn, newer()) as (chancy, _):
            await abort(chancy)

    assert found[0] == found[1] == found[2]
    archives, events, rows = found[0]
    assert archives is not None and archives.folded == [DAYS[1]]
    assert [one.why.split()[0] for one in archives.kept] == ["there", "its"]
    assert events > 0 and all(rows[3:7]), "the baseline has 1day rows, segments, a dead letter, and counts"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["processes", "dask"])
async def test_the_day_of_a_killed_process_is_folded_by_another(
    kind: str,
    request: pytest.FixtureRequest,
    dsn: str,
    connection: Connection,
    tables: Tables,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = await a_log(connection, tables)
    archives, died = tmp_path / "archives", tmp_path / "died"
    archives.mkdir()
    await prune_all(dsn, archives)
    monkeypatch.setenv(DIED, str(died))
    pool = process_pool(2)
    if kind == "dask":
        pool = dask_cluster(request.getfixturevalue("cluster").scheduler_address)

    metrics = Metrics(sync_interval=1, rules=[deadly], rules_version=1)
    async with an_app(dsn, metrics) as (chancy, _):
        with pool as executor:
            done = await rebuild(chancy, archive=archives, executor=executor)

    assert died.exists() or kind == "dask"
    assert done.archives is not None and (done.archives.folded, done.left_out) == (DAYS, 0)
    await assert_exact(connection, tables, log, metrics.options.rules)


@pytest.mark.slow
async def test_a_place_that_no_task_can_read_ends_the_command_and_keeps_no_day(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    log = await a_log(connection, tables)
    await prune_all(dsn, tmp_path)
    files = fsspec.filesystem("memory")  # of this process alone
    files.put(str(tmp_path), "/archives", recursive=True)
    try:
        first = f"memory://archives/metrics_log-{DAYS[0]}.export"
        with process_pool(1) as executor, pytest.raises(MetricsLogError, match=f"{first} can't be read"):
            await from_archives(dsn, "memory://archives", executor)
        with ThreadPoolExecutor(2) as executor:
            done = await from_archives(dsn, "memory://archives", executor)
    finally:
        files.rm("/archives", recursive=True)

    assert done.archives is not None and done.archives.folded == DAYS
    await assert_exact(connection, tables, log, RULES)


async def test_tasks_check_archives_against_the_ledger_of_a_replica(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path, standby: Standby
) -> None:
    log = await a_log(connection, tables)
    await prune_all(dsn, tmp_path)

    async with an_app(dsn, newer()) as (chancy, _):
        with ThreadPoolExecutor(2) as executor:
            replica = standby.dsn(connection.info.dbname)
            done = await rebuild(chancy, archive=tmp_path, executor=executor, read_dsn=replica)

    assert done.archives is not None and done.archives.folded == DAYS
    await assert_exact(connection, tables, log, RULES)


@pytest.mark.slow
async def test_the_command_folds_archives_in_processes(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await a_log(connection, tables)
    await prune_all(dsn, tmp_path)

    done = run(dsn, "rebuild", "--archive", str(tmp_path), "--processes", "2")

    assert done.returncode == 0, done.stderr
    assert "folded 3 pruned days again from their archives" in done.stdout
