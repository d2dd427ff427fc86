"""A day that is archived before it goes can be had back, and one that can't be archived stays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from chancy_metrics.events.database import Connection
from chancy_metrics.events.partitions import DDL_LOCK_MS, make_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.transfer.file import check_whole
from chancy_metrics.plugin.audit.seal import check, seal
from chancy_metrics.plugin.transfer.import_log import import_log
from chancy_metrics.plugin.worker import retention
from chancy_metrics.plugin.worker.retention import PrunedDay, prune_days
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from tests.commands import run
from tests.factories import (
    LogWriter,
    a_run,
    an_app,
    connections,
    damage,
    fetch,
    now_us,
    sequence_all,
    sequence_and_fold,
    total,
)
from tests.plugin.transfer.test_export_import import LOG, folded, target

__all__ = ["target"]  # a fixture
MONTH_S = 30 * 86_400
TODAY = datetime.now(UTC).date()
OLD = [TODAY - timedelta(days=days) for days in (42, 41, 40)]


async def old_days(connection: Connection, tables: Tables, days: Sequence[date] = OLD) -> None:
    """Days past their time with three batches each, one of them ordered among the next day's; and one of today."""
    await make_days(connection, tables, today=days[0], ahead=len(days) - 1)
    writer = LogWriter(connection, tables)
    for number, day in enumerate(days):
        for of in (day, day, days[max(0, number - 1)]):
            await writer.append(runs=[a_run("app:n", at_us=now_us())], day=of)
            await sequence_all(connection, tables)
    await writer.append(runs=[a_run("app:n", at_us=now_us())])
    await sequence_and_fold(connection, tables)


async def let_go(connection: Connection, tables: Tables, archive: Path | None) -> list[PrunedDay]:
    return await prune_days(
        connection, tables, BUILT_IN, now_us=now_us(), log_retention_s=MONTH_S, limit=99, archive=archive
    )


def archive_of(folder: Path, day: date) -> Path:
    return folder / f"metrics_log-{day}.export"


async def test_every_day_is_there_before_it_goes_and_holds_what_was_in_it(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await old_days(connection, tables)
    of_day = LOG.replace("ORDER", f"WHERE day = '{OLD[1]}' ORDER")
    rows = await fetch(connection, of_day, tables)

    pruned = await let_go(connection, tables, tmp_path)

    assert [(day.day, day.state, day.blocker) for day in pruned] == [(day, "gone", None) for day in OLD]
    assert sorted(os.listdir(tmp_path)) == [archive_of(tmp_path, day).name for day in OLD]
    assert [check_whole(archive_of(tmp_path, day)).batches for day in OLD] == [4, 3, 2]
    async with an_app(target[0]) as (chancy, _):
        await import_log(chancy, archive_of(tmp_path, OLD[1]))
        assert (await check(chancy)).found == 0
    await folded(target[0])
    assert await fetch(target[1], LOG, tables) == rows
    assert await total(target[1], tables, "app:n") == [3] * 4


async def test_an_archive_proves_itself_by_the_hashes_that_stay_in_the_ledger(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await old_days(connection, tables)
    await let_go(connection, tables, tmp_path)

    async with an_app(target[0]) as (chancy, _):
        await import_log(chancy, archive_of(tmp_path, OLD[0]))
        archived = await seal(chancy)
    async with an_app(dsn) as (chancy, _):
        found = await check(chancy, seals=[archived])

    assert (found.found, found.seals) == (0, 1)


@pytest.mark.parametrize("how", ["no folder", "a folder has its name", "another file has its name"])
async def test_a_day_whose_archive_cant_be_written_stays_and_says_why(
    how: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await old_days(connection, tables)
    folder = tmp_path / "none" if how == "no folder" else tmp_path
    if how == "a folder has its name":
        archive_of(folder, OLD[0]).mkdir()
    elif how == "another file has its name":
        archive_of(folder, OLD[0]).write_text("something else")

    [kept] = await let_go(connection, tables, folder)

    assert (kept.day, kept.state) == (OLD[0], "closed")
    assert kept.blocker.startswith(f"its archive {archive_of(folder, OLD[0])} can't be written: ")
    days = "SELECT count(*) FROM {log} WHERE day < current_date - 1"
    assert await fetch(connection, days, tables) == [(9,)]
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]


async def test_a_prune_that_ended_in_between_accepts_the_archive_it_finds(
    connection: Connection, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await old_days(connection, tables)

    async def busy(*_: object) -> str:
        return "another process works on the baseline"

    with monkeypatch.context() as patch:
        patch.setattr(retention, "absorb_day", busy)
        [kept] = await let_go(connection, tables, tmp_path)
    first = archive_of(tmp_path, OLD[0]).stat()
    pruned = await let_go(connection, tables, tmp_path)

    assert (kept.state, kept.blocker) == ("closed", "another process works on the baseline")
    again = archive_of(tmp_path, OLD[0]).stat()
    assert (again.st_ino, again.st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    assert [day.state for day in pruned] == ["gone"] * 3
    assert len(os.listdir(tmp_path)) == 3


async def test_a_day_that_is_in_the_baseline_and_half_detached_is_archived_too(
    dsn: str, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chancy_metrics.events.partitions.DETACH_S", DDL_LOCK_MS / 1_000)
    async with connections(dsn, 2) as (connection, holder):
        await old_days(connection, tables, OLD[:1])
        async with holder.transaction():
            await fetch(holder, "SELECT count(*) FROM {log}", tables)
            [held] = await let_go(connection, tables, None)
        pruned = await let_go(connection, tables, tmp_path)

    assert held.state == "absorbed"
    assert [day.state for day in pruned] == ["gone"]
    assert check_whole(archive_of(tmp_path, OLD[0])).batches == 3


async def test_a_day_with_a_batch_that_was_given_up_is_archived_as_it_is(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await old_days(connection, tables, OLD[:1])
    await damage(
        connection,
        tables,
        "UPDATE {log} SET payload = '' WHERE (producer, sequence) ="
        " (SELECT producer, sequence FROM {ledger} WHERE position = 2)",
    )

    [undecided] = await let_go(connection, tables, tmp_path)
    given_up = run(dsn, "discard", "2", "--why", "a disk")
    pruned = await let_go(connection, tables, tmp_path)

    assert "has given it up" in undecided.blocker
    assert given_up.returncode == 0, given_up.stderr
    assert [day.state for day in pruned] == ["gone"]
    assert check_whole(archive_of(tmp_path, OLD[0])).batches == 3


async def test_a_batch_that_waits_for_its_position_keeps_its_day_from_the_archive(
    connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await old_days(connection, tables, OLD[:1])
    await LogWriter(connection, tables).append(runs=[a_run()], day=OLD[0])

    [kept] = await let_go(connection, tables, tmp_path)

    assert "no position in the ledger yet" in kept.blocker
    assert os.listdir(tmp_path) == []


async def test_the_command_archives_and_ends_with_3_where_it_cant(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await old_days(connection, tables, OLD[:2])
    archive_of(tmp_path, OLD[1]).write_text("something else")

    done = run(dsn, "prune", "--archive", str(tmp_path))
    nowhere = run(dsn, "prune", "--archive", str(tmp_path / "none"))
    kept = run(dsn, "prune", "--keep", "42d", "--dry-run")

    assert done.returncode == 3
    assert f"{OLD[0]}  " in done.stdout
    assert "dropped" in done.stdout.splitlines()[0]
    assert "kept (closed): its archive" in done.stdout.splitlines()[1]
    assert nowhere.returncode == 2
    assert kept.stdout == "no day of the log is due for pruning\n"
