"""Pruned days are folded again from their archives, each checked against the ledger, and nothing else changes."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection, AsyncCursor

from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import MetricsLogError, VersionRefused
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.plugin import prune, rebuild, undo, verify
from chancy_metrics.plugin.host.app import options_of
from chancy_metrics.plugin.rebuilds.swap import abort
from chancy_metrics.plugin.transfer.export_log import export_log
from chancy_metrics.plugin.transfer.import_check import ExportContents
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.versions.collect import begin_collecting
from chancy_metrics.projections.versions.expiry import drop_versions
from chancy_metrics.projections.versions.replay import replay
from examples.embedded import Server
from tests.commands import run
from tests.factories import a_database, an_app, fetch, sequence_and_fold
from tests.plugin.rebuilds.archived_days import (
    DAYS,
    HOUR_US,
    RULES,
    TODAY,
    Killed,
    a_log,
    add,
    assert_exact,
    from_archives,
    keep_from,
    live_points,
    newer,
    noon,
    plain,
    prune_all,
    read_log,
)


async def test_a_rule_of_today_stands_over_days_that_left_the_log(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    log = await a_log(connection, tables)
    await prune_all(dsn, tmp_path)

    done = await from_archives(dsn, tmp_path)

    assert done.archives is not None
    assert (done.archives.folded, done.archives.kept, done.archives.ignored) == (DAYS, [], [])
    await assert_exact(connection, tables, log, RULES)
    points, _ = await live_points(connection, tables)
    made = [one for one in points if one.series.key == "made:by:first" and one.resolution == "1day" and not one.worker]
    assert sum(one.observations for one in made) == 14
    query = "SELECT counts -> 'dropped' FROM {versions} WHERE version > 0 ORDER BY version"
    # The old version, the baseline and the new version.
    assert await fetch(connection, query, tables) == [(14,), (12,), (14,)]
    async with an_app(dsn, newer()) as (chancy, _):
        checked = await verify(chancy)
    assert checked.drift == 0 and not checked.nothing, checked


async def test_days_without_a_sound_archive_keep_the_baselines_figures(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await a_log(connection, tables)
    await prune_all(dsn, tmp_path)
    before, _ = await live_points(connection, tables)
    missing, damaged = (tmp_path / f"metrics_log-{day}.export" for day in DAYS[:2])
    missing.unlink()
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    (tmp_path / "other.export").write_bytes(b"")
    (tmp_path / f"metrics_log-{TODAY}.export").write_bytes(b"")

    done = await from_archives(dsn, tmp_path)

    assert done.archives is not None
    assert [(one.day, one.why) for one in done.archives.kept] == [
        (DAYS[0], "there is no archive of it"),
        (
            DAYS[1],
            f"its archive metrics_log-{DAYS[1]}.export is not as it was written: it was cut short or changed; "
            "copy it again",
        ),
    ]
    assert done.archives.folded == [DAYS[2]]
    assert [one.split()[0] for one in done.archives.ignored] == ["other.export", f"metrics_log-{TODAY}.export"]
    after, horizons = await live_points(connection, tables)
    before = [one for one in before if one.bucket >= horizons[one.resolution]]
    assert diff(before, [one for one in after if one.series.key != "made:by:first"]) == []
    assert sum(one.observations for one in after if one.series.key == "made:by:first" and one.resolution == "1day") > 0
    assert diff(after, await replay(connection, tables, RULES)) == []
    async with an_app(dsn, newer()) as (chancy, _):
        await export_log(chancy, tmp_path / "whole")
    ExportContents(tmp_path / "whole").check()  # an import refuses a baseline that is not the sum of its workers


async def test_no_day_is_absorbed_until_the_archives_are_in_the_baseline_or_given_up(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    log = await a_log(connection, tables)
    async with an_app(dsn, plain()) as (chancy, _):
        await prune(chancy, archive=tmp_path, keep_s=keep_from(DAYS[1]))
        horizons = dict.fromkeys(RESOLUTIONS, 0)
        begun = await begin_collecting(connection, tables, BUILT_IN, horizons, by="gone")
        [blocked] = await prune(chancy, keep_s=86_400)
        given_up = await abort(chancy)
        free = await prune(chancy, keep_s=86_400)

    assert given_up == begun.version
    assert blocked.blocker is not None and blocked.blocker.startswith(
        f"archives are folded into baseline {begun.version}, which would lack {DAYS[1]}: finish that with"
    )
    assert [one.blocker for one in free] == [None] * len(free)
    await assert_exact(connection, tables, log, BUILT_IN)


async def test_status_shows_how_far_a_baseline_from_archives_is(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await a_log(connection, tables)
    await prune_all(dsn, tmp_path)
    begun = await begin_collecting(connection, tables, BUILT_IN, dict.fromkeys(RESOLUTIONS, 0), by="gone")

    shown = run(dsn, "status").stdout
    [one] = json.loads(run(dsn, "status", "--json").stdout)["collecting"]

    [line] = [text for text in shown.splitlines() if text.startswith(f"baseline {begun.version}")]
    assert "made from archives, rules" in line and "0 of 3 days added, by nobody since" in line
    assert "`rebuild --archive` resumes it, `rebuild --abort` ends it" in line
    assert (one["baseline"], one["added"], one["days"], one["is_collected"]) == (begun.version, 0, 3, False)


async def test_an_unfinished_version_without_archives_is_not_taken_for_one_with_them(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await a_log(connection, tables)
    await prune_all(dsn, tmp_path)
    async with an_app(dsn, newer()) as (chancy, _):
        made = await rebuild(chancy, swap=False)
        with pytest.raises(VersionRefused, match=f"version {made.version} is being made by these rules without"):
            await rebuild(chancy, archive=tmp_path)
        await abort(chancy)
        assert (await rebuild(chancy, archive=tmp_path)).swapped


async def test_an_undo_goes_back_to_the_baseline_of_before_and_a_dropped_one_is_deleted(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    log = await a_log(connection, tables)
    await prune_all(dsn, tmp_path)
    await from_archives(dsn, tmp_path)

    async with an_app(dsn, plain()) as (chancy, _):
        await undo(chancy)
        await assert_exact(connection, tables, log, BUILT_IN)
        assert (await verify(chancy)).drift == 0
    async with an_app(dsn, newer()) as (chancy, _):
        await rebuild(chancy, archive=tmp_path)
    await assert_exact(connection, tables, log, RULES)
    far_us = noon(TODAY) + 10 * 24 * HOUR_US
    await drop_versions(connection, tables, now_us=far_us)
    await drop_versions(connection, tables, now_us=far_us)
    assert await fetch(connection, "SELECT count(*) FROM {worker_segments} WHERE version = 0", tables) == [(0,)]
    await assert_exact(connection, tables, log, RULES)


async def test_a_later_day_and_a_later_rebuild_go_on_from_the_new_baseline(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    log = await a_log(connection, tables)
    async with an_app(dsn, plain()) as (chancy, _):
        await prune(chancy, archive=tmp_path, keep_s=keep_from(DAYS[1]))
    done = await from_archives(dsn, tmp_path)
    assert done.archives is not None and done.archives.folded == DAYS[:1]
    async with an_app(dsn, newer()) as (chancy, _):
        pruned = await prune(chancy, archive=tmp_path, keep_s=86_400)
        assert [one.blocker for one in pruned] == [None] * len(pruned)
        await assert_exact(connection, tables, log, RULES)
        again = await rebuild(chancy)
        assert again.different == 0, again.differences
        await assert_exact(connection, tables, log, RULES)


def flip(data: bytearray, at: int) -> None:
    data[at % len(data)] ^= 1 << at % 8


def cut(data: bytearray, at: int) -> None:
    del data[at % len(data) :]


@pytest.mark.slow
@pytest.mark.parametrize("change", [flip, cut])
async def test_whatever_is_changed_in_a_file_its_day_is_named(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path, change: Callable[[bytearray, int], None]
) -> None:
    await a_log(connection, tables)
    await prune_all(dsn, tmp_path)
    path = tmp_path / f"metrics_log-{DAYS[1]}.export"
    whole = path.read_bytes()
    for seed in range(6):
        data = bytearray(whole)
        change(data, random.Random(seed).randrange(len(whole)))
        path.write_bytes(data)
        async with an_app(dsn, newer()) as (chancy, _):
            done = await rebuild(chancy, archive=tmp_path, swap=False)
            await abort(chancy)
        assert done.archives is not None
        assert [one.day for one in done.archives.kept] == [DAYS[1]], seed


async def test_the_file_of_another_database_or_day_is_not_believed(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await a_log(connection, tables)
    await prune_all(dsn, tmp_path)
    names = [tmp_path / f"metrics_log-{day}.export" for day in DAYS]
    shutil.copy(names[0], names[1])
    await connection.execute("SET session_replication_role = replica")
    await fetch(connection, "UPDATE {ledger} SET chain = sha256('x') WHERE day = %(day)s", tables, day=DAYS[2])

    async with an_app(dsn, newer()) as (chancy, _):
        done = await rebuild(chancy, archive=tmp_path, swap=False)

    assert done.archives is not None
    assert [(one.day, one.why.partition(".export ")[2][:30]) for one in done.archives.kept] == [
        (DAYS[1], f"is an export of {DAYS[0]}, no"),
        (DAYS[2], "is of another log, or was chan"),
    ]


async def test_of_two_files_of_a_day_the_sound_one_is_taken(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    log = await a_log(connection, tables)
    await prune_all(dsn, tmp_path)
    (tmp_path / f"metrics_log-{DAYS[0]} (1).export").write_bytes(b"chancy")

    done = await from_archives(dsn, tmp_path)

    assert done.archives is not None and done.archives.kept == []
    await assert_exact(connection, tables, log, RULES)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [0, 2])
async def test_killed_at_any_statement_the_same_command_ends_with_the_same(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    log = await a_log(connection, tables)
    await prune_all(dsn, tmp_path)
    execute = AsyncCursor.execute
    left = 0

    async def mortal(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return await execute(self, *arguments, **options)

    monkeypatch.setattr(AsyncCursor, "execute", mortal)
    done, killed = None, 0
    for life in range(1, 2_000, 4):
        left = life
        try:
            with ThreadPoolExecutor(threads or 1) as executor:
                done = await from_archives(dsn, tmp_path, executor if threads else None)
            break
        except Killed:
            killed += 1
    left = 1_000_000
    assert killed > 20
    assert done is not None and done.archives is not None and done.archives.folded == DAYS
    await assert_exact(connection, tables, log, RULES)


async def test_archives_are_read_from_a_url(dsn: str, connection: Connection, tables: Tables, tmp_path: Path) -> None:
    log = await a_log(connection, tables)
    await prune_all(dsn, tmp_path)
    files = fsspec.filesystem("memory")
    files.put(str(tmp_path), "/archives", recursive=True)

    try:
        done = await from_archives(dsn, "memory://archives")
    finally:
        files.rm("/archives", recursive=True)

    assert done.archives is not None and done.archives.folded == DAYS
    await assert_exact(connection, tables, log, RULES)


async def test_a_place_without_archives_is_refused(dsn: str, connection: Connection, tmp_path: Path) -> None:
    assert isinstance(connection, AsyncConnection)
    for place, said in (
        (tmp_path, "has no archive of a day"),
        (tmp_path / "no", "can't be read"),
        ("zz://x", "fsspec"),
    ):
        with pytest.raises(MetricsLogError, match=said):
            await from_archives(dsn, place)


LATE_US = [0, 60_000_000, 7 * HOUR_US, 24 * HOUR_US, 40 * 24 * HOUR_US]
#: A day, a worker, and how late its events are.
batches = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["w1", "w2"]), st.sampled_from(LATE_US)), min_size=1, max_size=8
)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=batches, archived=st.sets(st.integers(0, 2)), pruned=st.integers(1, 3), adds=st.booleans())
async def test_archives_and_log_make_the_same_whatever_is_archived(
    server: Server,
    template: str,
    tables: Tables,
    drawn: list[tuple[int, str, int]],
    archived: set[int],
    pruned: int,
    adds: bool,
) -> None:
    async with a_database(server, template) as connection:
        dsn = connection.info.dsn
        await make_days(connection, tables, today=DAYS[0], ahead=5)
        for day, worker, late_us in drawn:
            await add(connection, tables, DAYS[day], worker, late_us=late_us)
        await sequence_and_fold(connection, tables)
        log = await read_log(connection, tables)
        with tempfile.TemporaryDirectory() as folder:
            async with an_app(dsn, plain()) as (chancy, _):
                assert await prune(chancy, archive=Path(folder), keep_s=keep_from(DAYS[0] + timedelta(days=pruned)))
            for day in set(range(pruned)) - archived:
                os.unlink(f"{folder}/metrics_log-{DAYS[day]}.export")
            shutil.copy(__file__, f"{folder}/metrics_log-2001-01-01.export")  # a place without any archive is refused
            async with an_app(dsn, newer() if adds else plain()) as (chancy, _):
                done = await rebuild(chancy, archive=folder)
                rules = options_of(chancy).rules
        used = {DAYS[day] for day, _, _ in drawn if day < pruned}
        assert done.archives is not None
        assert set(done.archives.folded) == used & {DAYS[day] for day in archived}
        assert {one.day for one in done.archives.kept} == used - {DAYS[day] for day in archived}
        points, horizons = await live_points(connection, tables)
        assert diff(points, await replay(connection, tables, rules)) == []
        if not adds or not done.archives.kept:
            assert diff(log.points(rules, horizons), points) == []


async def test_the_command_says_which_days_were_folded_and_which_were_not(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await a_log(connection, tables)
    await prune_all(dsn, tmp_path)
    os.unlink(tmp_path / f"metrics_log-{DAYS[0]}.export")

    done = run(dsn, "rebuild", "--archive", str(tmp_path))

    assert done.returncode == 3
    assert f"{DAYS[0]} keeps the baseline's figures: there is no archive of it" in done.stderr
    assert (
        "folded 2 pruned days again from their archives; 1 day without one keeps the baseline's figures" in done.stdout
    )
    as_json = json.loads(run(dsn, "rebuild", "--archive", str(tmp_path), "--json").stdout)
    assert as_json["archives"]["kept"] == [{"day": str(DAYS[0]), "why": "there is no archive of it"}]
