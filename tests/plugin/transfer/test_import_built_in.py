"""What Chancy's own plugin stored before the switch is shown, counted once, and never taken for events of the log."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import anyio
import numpy as np
import psycopg
import pytest
from chancy import Chancy, QueuedJob
from chancy.plugins.metrics import Metrics as BuiltIn
from chancy.plugins.metrics import metrics as built_in_module
from psycopg import AsyncConnection

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.errors import ImportRefused, MetricsLogError, VersionRefused
from chancy_metrics.events.expiry import forget_days
from chancy_metrics.events.facts import microseconds
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.events.transfer.guard import begin_importing, end_importing
from chancy_metrics.plugin import (
    completeness,
    explain,
    export_log,
    import_log,
    prune,
    read_totals,
    rebuild,
    rebuild_totals,
    verify,
)
from chancy_metrics.plugin.transfer.built_in_points import each_once, first_complete
from chancy_metrics.plugin.transfer.import_built_in import import_built_in
from chancy_metrics.plugin.worker.retention import prune_days
from chancy_metrics.projections.fold.cells import Cells, merge, no_sketches
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.totals.generation import begin_generation
from chancy_metrics.projections.versions.create import make_version
from examples.embedded import Server
from tests.commands import run
from tests.conftest import TEMPLATE
from tests.factories import LogWriter, a_job, a_run, an_app, eventually, fetch, now_us, sequence_and_fold
from tests.projections.totals.test_totals import added_up

NOW = datetime.now(UTC)
#: Before now, oldest first; the last one is when the last worker with Chancy's own plugin stopped.
AGES = [
    timedelta(days=40),
    timedelta(days=10, hours=3),
    timedelta(days=3),
    timedelta(days=1, hours=2),
    timedelta(hours=20),
    timedelta(hours=5),
    timedelta(minutes=50),
    timedelta(minutes=31),
    timedelta(minutes=12),
    timedelta(minutes=10),
]
END = NOW - AGES[-1]
#: Buckets of each resolution, but the oldest kept: that is taken at the next coarser one, which may begin earlier.
WINDOWS = {"1min": 45, "5min": 12 * 12, "1hour": 48, "1day": 80}


@asynccontextmanager
async def built_in(dsn: str) -> AsyncIterator[tuple[Chancy, BuiltIn]]:
    theirs = BuiltIn()
    async with Chancy(dsn, plugins=[theirs]) as chancy:
        await chancy.migrate()
        yield chancy, theirs


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, datetime]]:
    """The clock of Chancy's own plugin."""
    now = {"at": NOW}
    monkeypatch.setattr(built_in_module, "utcnow", lambda: now["at"])
    return now  # type: ignore[return-value]


@pytest.fixture
async def history(dsn: str, clock: dict[str, datetime]) -> str:
    """A database in which Chancy's own plugin recorded for 40 days, on two workers, and stopped ten minutes ago."""
    async with built_in(dsn) as (chancy, theirs):
        for number, age in enumerate(AGES):
            clock["at"] = at = NOW - age
            for worker in ("w1", "w2"):
                theirs.worker_id = worker
                for state in (QueuedJob.State.SUCCEEDED, QueuedJob.State.FAILED):
                    started = at - timedelta(seconds=0.5 + number)
                    job = a_job(func="app.mail", queue="mail", state=state, started_at=started, completed_at=at)
                    await theirs.on_job_updated(worker=None, job=job)
                await theirs.increment_counter("orders:placed", 2.5)
                await theirs.record_gauge("orders:open", number + (worker == "w2"), unit="orders")
            await theirs.flush(chancy)
            await theirs.cleanup(chancy)
    return dsn


async def shown(plugin: Any, chancy: Chancy, resolution: str, **options: Any) -> dict[str, dict[datetime, Any]]:
    """What a dashboard shows of the time up to END: key -> start of a bucket -> value."""
    end_s = int(NOW.timestamp()) // RESOLUTIONS[resolution] * RESOLUTIONS[resolution]
    end = datetime.fromtimestamp(end_s, UTC)
    start = end - timedelta(seconds=RESOLUTIONS[resolution] * WINDOWS[resolution])
    found = await plugin.get_metrics(chancy, resolution=resolution, start=start, end=end, **options)
    return {
        key: {point.timestamp: point.value for point in one.data}
        for key, one in found["series"].items()
        if not key.startswith("table:")
    }


async def test_the_dashboard_shows_what_it_showed_before_the_switch(history: str, clock: dict[str, datetime]) -> None:
    clock["at"] = NOW
    async with built_in(history) as (chancy, theirs):
        before = {
            (resolution, worker): await shown(theirs, chancy, resolution, worker_id=worker)
            for resolution in RESOLUTIONS
            for worker in (None, "w1")
        }
    async with an_app(history) as (chancy, ours):
        done = await import_built_in(chancy)
        after = {key: await shown(ours, chancy, key[0], worker_id=key[1]) for key in before}

    assert (done.already, done.series, done.skipped) == (False, 11, 0)
    for key, series in before.items():
        for name, points in series.items():
            assert after[key].get(name, {}) == points, (key, name)
    assert before["1day", None]["orders:placed"] and before["1min", "w1"]["orders:open"]
    assert not any("p50" in value for value in after["1day", None]["job:app.mail:execution_time"].values())


async def test_a_second_import_changes_nothing(history: str, connection: Connection, tables: Tables) -> None:
    everything = (
        "SELECT (SELECT array_agg(r::text ORDER BY r::text) FROM {r1day} r),"
        " (SELECT array_agg(s::text ORDER BY s::text) FROM {worker_segments} s),"
        " (SELECT array_agg(d::text ORDER BY d::text) FROM {days} d),"
        " (SELECT array_agg((version, position, folds, horizon_1min)::text ORDER BY version) FROM {versions} v)"
    )
    async with an_app(history) as (chancy, _):
        first = await import_built_in(chancy)
        there = await fetch(connection, everything, tables)
        second = await import_built_in(chancy)

    assert first.until is not None and abs(first.until - END) < timedelta(milliseconds=1)
    assert (second.already, second.points, second.until) == (True, 0, first.until)
    assert await fetch(connection, everything, tables) == there


async def test_it_is_part_of_the_baseline_for_verify_rebuild_and_explain(
    history: str, connection: Connection, tables: Tables
) -> None:
    await LogWriter(connection, tables, "w1").append(
        runs=[a_run("orders:placed", [1.0], at_us=now_us()), a_run("sizes", [1.0], kind="histogram", unit="number")]
    )
    await sequence_and_fold(connection, tables)
    async with an_app(history) as (chancy, _):
        await import_built_in(chancy)

        verified = await verify(chancy)
        rebuilt = await rebuild(chancy)
        again = await verify(chancy)
        old = await explain(chancy, "orders:placed", END, resolution="1hour")
        day = await explain(chancy, "orders:placed", NOW, resolution="1day")
        times = await explain(chancy, "job:app.mail:execution_time", END, resolution="1day", worker_id="w1")

    assert (verified.different, verified.found, verified.findings) == (0, 0, [])
    assert (rebuilt.different, rebuilt.version) == (0, 2)
    assert (again.different, again.found) == (0, 0)
    assert old.equal and old.imported > 0 and old.pruned == 0
    assert "that Chancy's own plugin had summed up, imported into the baseline" in old.sentence
    assert day.equal and day.stored is not None
    assert times.stored is not None and times.stored.p50 is None and times.stored.maximum > times.stored.minimum


async def test_jobs_of_both_plugins_in_one_bucket_are_added_up(
    dsn: str, clock: dict[str, datetime], connection: Connection, tables: Tables
) -> None:
    """While workers are restarted, each job is recorded by one of the two."""
    at = clock["at"] = NOW - timedelta(minutes=8)
    async with built_in(dsn) as (chancy, theirs):
        for value in (1.0, 3.0):
            await theirs.record_histogram_value("sizes", value)
        await theirs.flush(chancy)
    await LogWriter(connection, tables).append(
        runs=[a_run("sizes", [8.0], kind="histogram", unit="number", at_us=int(at.timestamp() * 1e6))]
    )
    await sequence_and_fold(connection, tables)
    async with an_app(dsn) as (chancy, _):
        await import_built_in(chancy)
        found = await explain(chancy, "sizes", at)
        verified = await verify(chancy)

    assert found.stored is not None and found.equal
    assert (found.stored.count, found.stored.sum, found.stored.minimum, found.stored.maximum) == (3, 12.0, 1.0, 8.0)
    assert (found.stored.p50, found.imported, found.events) == (None, 2, 1)
    assert (verified.different, verified.found) == (0, 0)


async def test_readers_see_it_at_once(history: str) -> None:
    async with an_app(history) as (chancy, ours):
        assert await ours.get_metrics(chancy, "orders") == {}

        await import_built_in(chancy)

        async def is_shown() -> bool:
            return "orders:placed" in await ours.get_metrics(chancy, "orders")

        await eventually(is_shown)


async def test_an_import_that_is_killed_has_changed_nothing(
    history: str, connection: Connection, tables: Tables
) -> None:
    count = "SELECT (SELECT count(*) FROM {worker_segments}), (SELECT count(*) FROM {days} WHERE state = 'gone')"
    async with an_app(history) as (chancy, _), await AsyncConnection.connect(history) as locking:
        await fetch(locking, "LOCK TABLE {cache} IN ACCESS EXCLUSIVE MODE", tables)
        killed: list[BaseException] = []

        async def import_it() -> None:
            try:
                await import_built_in(chancy)
            except (psycopg.OperationalError, MetricsLogError) as error:
                killed.append(error)

        async def kill_it() -> bool:
            rows = await fetch(
                connection,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND query LIKE '%%metrics_cache%%' AND datname = current_database()",
                tables,
            )
            return bool(rows)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(import_it)
            await eventually(kill_it)
        await locking.rollback()
        after_kill = await fetch(connection, count, tables)
        done = await import_built_in(chancy)

    assert len(killed) == 1
    assert after_kill == [(0, 0)]
    assert done.points > 0 and (await fetch(connection, count, tables))[0][1] == 1


async def test_it_waits_until_no_worker_records_by_the_other_plugin(
    dsn: str, clock: dict[str, datetime], connection: Connection, tables: Tables
) -> None:
    clock["at"] = datetime.now(UTC) - timedelta(minutes=2)
    async with built_in(dsn) as (chancy, theirs):
        await theirs.increment_counter("orders:placed", 1)
        await theirs.flush(chancy)
    async with an_app(dsn) as (chancy, _):
        with pytest.raises(MetricsLogError, match=r"newest point is 2 min old.*run this again in 4 min"):
            await import_built_in(chancy)

    assert await fetch(connection, "SELECT day FROM {days} WHERE state = 'gone'", tables) == []


async def test_it_waits_for_a_version_that_is_being_made(history: str, connection: Connection, tables: Tables) -> None:
    await make_version(connection, tables, BUILT_IN, dict.fromkeys(RESOLUTIONS, 0), by="test")
    async with an_app(history) as (chancy, _):
        with pytest.raises(VersionRefused, match=r"version 2 is being made now.*rebuild --abort"):
            await import_built_in(chancy)


async def test_it_is_remembered_for_as_long_as_its_points_may_be_kept(
    history: str, connection: Connection, tables: Tables
) -> None:
    """Where workers of both plugins ran side by side for weeks, the day before the log's first one is long ago."""
    today = NOW.date()
    async with an_app(history) as (chancy, _):
        await import_built_in(chancy)
    await fetch(connection, "UPDATE {days} SET day = day - 50 WHERE state = 'gone'", tables)
    await fetch(
        connection,
        "INSERT INTO {days} VALUES (%(day)s, 'gone', now(), 0, %(last_us)s)",
        tables,
        day=today - timedelta(days=1),
        last_us=now_us(),
    )

    async with short_transaction(connection) as cursor:
        early = await forget_days(cursor, tables, before=today - timedelta(days=1))
        late = await forget_days(cursor, tables, before=today + timedelta(days=1))

    assert (early, late) == (0, 1)


async def test_an_export_takes_it_along(
    history: str, server: Server, template: str, tmp_path: Path, connection: Connection, tables: Tables
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("orders:placed", [1.0], at_us=now_us())])
    await sequence_and_fold(connection, tables)
    async with an_app(history) as (chancy, _):
        await import_built_in(chancy)
        await export_log(chancy, tmp_path / "log")
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE elsewhere TEMPLATE {TEMPLATE}")
    try:
        async with an_app(server.dsn("elsewhere")) as (chancy, _):
            await import_log(chancy, tmp_path / "log")
            found = await explain(chancy, "orders:placed", END, resolution="1day")
            verified = await verify(chancy)
    finally:
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("DROP DATABASE elsewhere WITH (FORCE)")

    assert found.equal and found.imported > 0
    assert (verified.different, verified.found) == (0, 0)


async def test_a_day_that_leaves_the_log_meets_it_in_the_baseline(
    history: str, server: Server, template: str, tmp_path: Path, connection: Connection, tables: Tables
) -> None:
    old = NOW.date() - timedelta(days=5)
    await make_days(connection, tables, today=old, ahead=0)
    at = NOW - timedelta(days=1, hours=2)
    for worker in ("w1", "w3"):
        run_times = a_run(
            "job:app.mail:execution_time", [0.25, 9.0], kind="histogram", unit="seconds", at_us=microseconds(at)
        )
        await LogWriter(connection, tables, worker).append(runs=[run_times], day=old)
    await sequence_and_fold(connection, tables)
    async with an_app(history) as (chancy, _):
        await import_built_in(chancy)
        before = await explain(chancy, "job:app.mail:execution_time", at, resolution="1day")
        [gone] = await prune_days(connection, tables, BUILT_IN, now_us=now_us(), log_retention_s=86_400)
        after = await explain(chancy, "job:app.mail:execution_time", at, resolution="1day")
        verified, rebuilt, again = await verify(chancy), await rebuild(chancy), await verify(chancy)
        await export_log(chancy, tmp_path / "log")
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE copied TEMPLATE {TEMPLATE}")
    try:
        async with an_app(server.dsn("copied")) as (chancy, _):
            await import_log(chancy, tmp_path / "log")
            copied = await explain(chancy, "job:app.mail:execution_time", at, resolution="1day")
            of_copy = await verify(chancy)
    finally:
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("DROP DATABASE copied WITH (FORCE)")

    assert gone.state == "gone", gone.blocker
    assert (before.events, before.pruned) == (4, 0) and before.imported > 0 and before.equal
    assert (after.events, after.pruned, after.imported) == (0, 4, before.imported) and after.equal
    assert after.stored == before.stored == copied.stored and after.stored is not None and after.stored.p50 is None
    assert rebuilt.different == 0
    assert [(one.different, one.found) for one in (verified, again, of_copy)] == [(0, 0)] * 3


async def test_the_import_of_a_log_and_this_one_do_not_meet(
    history: str, server: Server, template: str, tmp_path: Path, connection: Connection, tables: Tables
) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE other TEMPLATE {TEMPLATE}")
    try:
        async with an_app(server.dsn("other")) as (chancy, ours):
            async with ours.recording(chancy):
                await ours.increment_counter("n", 1)
            await ours.flush(chancy)
            await export_log(chancy, tmp_path / "log")
    finally:
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("DROP DATABASE other WITH (FORCE)")
    async with an_app(history) as (chancy, _):
        async with short_transaction(connection) as cursor:
            await begin_importing(cursor, tables)
        with pytest.raises(ImportRefused, match="the import of a log has not ended"):
            await import_built_in(chancy)
        async with short_transaction(connection) as cursor:
            await end_importing(cursor, tables)
        await import_built_in(chancy)

        with pytest.raises(ImportRefused, match="has points of Chancy's own plugin up to"):
            await import_log(chancy, tmp_path / "log")


async def test_completeness_and_prune_do_not_take_it_for_a_pruned_day(history: str) -> None:
    async with an_app(history) as (chancy, _):
        await import_built_in(chancy)

        assert await prune(chancy) == []
        found = await completeness(chancy)

    assert (found.source, found.holes, found.left_out) == ("baseline and raw", 0, "")


async def test_a_rebuild_from_archives_keeps_it(history: str, tmp_path: Path) -> None:
    async with an_app(history) as (chancy, ours):
        await import_built_in(chancy)
        before = await shown(ours, chancy, "1day")
        (tmp_path / "metrics_log-2020-01-01.export").touch()  # of another day
        rebuilt = await rebuild(chancy, archive=tmp_path)
        verified = await verify(chancy)
        after = await shown(ours, chancy, "1day")

    assert (rebuilt.different, verified.different, verified.found) == (0, 0, 0)
    assert rebuilt.archives is not None and rebuilt.archives.kept == []
    assert after == before != {}


async def test_the_command_says_what_it_did(history: str) -> None:
    first = run(history, "import-builtin")
    second = run(history, "import-builtin", "--json")

    assert (first.returncode, second.returncode) == (0, 0), (first.stderr, second.stderr)
    assert first.stdout.startswith("imported ") and "of 11 series with" in first.stdout
    assert json.loads(second.stdout)["already"] is True


async def test_a_report_before_the_first_fold_tells_what_was_imported(history: str) -> None:
    run(history, "import-builtin")

    done = run(history, "report")

    assert re.search(r"^flow +[1-9]\d* jobs? done", done.stdout, re.M), done.stdout
    assert "unknown: what is recorded of run times has no quantiles" in done.stdout
    assert "nothing ran" not in done.stdout and "nothing is folded yet" not in done.stdout


def test_without_the_other_plugins_tables_it_says_so(dsn: str) -> None:
    done = run(dsn, "import-builtin")

    assert done.returncode == 1
    assert "chancy_metrics" in done.stderr and "has never run with this database and prefix" in done.stderr


@pytest.mark.parametrize(
    "change", ["totals[1] = 'NaN'", "sampled_at[1] = 'infinity'", "buckets[1] = '-infinity'", "buckets[1] = NULL"]
)
async def test_what_no_plugin_writes_is_left_out_and_counted(history: str, change: LiteralString) -> None:
    with psycopg.connect(history) as connection:
        connection.execute(f"UPDATE chancy_metrics SET {change} WHERE resolution = 86400 AND totals IS NOT NULL")

    done = run(history, "import-builtin")

    assert done.returncode == 0, done.stderr
    assert "left out" in done.stdout


def some_cells(*buckets: int) -> Cells:
    size = len(buckets)
    zeros, ones = np.zeros(size, np.int64), np.ones(size, np.int64)
    return merge(
        Cells(
            worker=ones,
            series=zeros,
            bucket=np.array(buckets, np.int64),
            observations=ones,
            last_us=np.array(buckets, np.int64) * 1_000_000,
            micro=ones,
            rest={},
            minimum=np.ones(size),
            maximum=np.ones(size),
            last=np.full(size, np.nan),
            last_position=zeros,
            last_index=zeros,
            sketches=no_sketches(),
        )
    )


DAY = 1_773_100_800  # 2026-03-10


@pytest.mark.parametrize(
    ("levels", "complete"),
    [
        ({}, {}),
        ({"1min": [DAY + 180], "5min": [DAY], "1hour": [DAY], "1day": [DAY]}, {}),
        ({"1min": [DAY + 420], "5min": [DAY, DAY + 300], "1hour": [DAY], "1day": [DAY]}, {"1min": DAY + 600}),
        (
            {"1min": [DAY + 7_260], "5min": [DAY + 3_900, DAY + 7_200], "1hour": [DAY, DAY + 3_600, DAY + 7_200]},
            {"1min": DAY + 7_500, "5min": DAY + 7_200},
        ),
        ({"1day": [DAY]}, {"1hour": DAY + 86_400, "5min": DAY + 86_400, "1min": DAY + 86_400}),
    ],
)
def test_a_resolution_is_complete_from_a_bucket_of_the_next_coarser_one_on(
    levels: dict[str, list[int]], complete: dict[str, int]
) -> None:
    found = first_complete({name: some_cells(*buckets) for name, buckets in levels.items()})

    assert found == dict.fromkeys(RESOLUTIONS, 0) | complete


def test_each_bucket_is_taken_at_one_resolution() -> None:
    levels = {
        "1min": some_cells(DAY + 7_260, DAY + 7_500),
        "5min": some_cells(DAY + 3_900, DAY + 7_200, DAY + 7_500),
        "1hour": some_cells(DAY, DAY + 3_600, DAY + 7_200),
    }

    taken = each_once(levels, first_complete(levels))

    assert {name: cells.bucket.tolist() for name, cells in taken.items()} == {
        "1min": [DAY + 7_500],
        "5min": [DAY + 7_200],
        "1hour": [DAY, DAY + 3_600],
    }


async def test_totals_that_are_served_stay_and_those_built_later_begin_with_what_was_imported(
    history: str, tables: Tables
) -> None:
    async with (
        an_app(history) as (chancy, _),
        await AsyncConnection.connect(history, autocommit=True) as connection,
    ):
        before = await read_totals(chancy)
        half_built = await begin_generation(connection, tables, BUILT_IN, by="test")

        await import_built_in(chancy, silent_s=0)
        after = await read_totals(chancy)
        done = await rebuild_totals(chancy)
        anew = await read_totals(chancy)
        imported = await added_up(connection, tables)

    assert before == after._replace(at_us=before.at_us)  # which rises with each read
    assert done.generation > half_built.version
    assert done.different == done.series == len(anew.series)
    assert {one.series.key: (one.count, one.sum) for one in anew.series} == {
        key: (row.count, float(row.sum)) for key, row in imported.items()
    }
    assert imported["orders:placed"].sum > 0
