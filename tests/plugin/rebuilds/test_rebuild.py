"""A rebuild backfills a version beside the live one, which is promoted; undo reverts that."""

from __future__ import annotations

import time
from typing import Any

import anyio
import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import AlreadyRunning, TableLocked, VersionRefused
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.plugin.cli.main import main
from chancy_metrics.plugin.health.completeness import completeness
from chancy_metrics.plugin.health.dead_letters import discard, discard_rule
from chancy_metrics.plugin.host import bounded_connection
from chancy_metrics.plugin.host.progress import RebuildProgress
from chancy_metrics.plugin.rebuilds import backfill
from chancy_metrics.plugin.rebuilds import connection as connection_module
from chancy_metrics.plugin.rebuilds import rebuild as module
from chancy_metrics.plugin.rebuilds.rebuild import Rebuilt, rebuild
from chancy_metrics.plugin.rebuilds.swap import swap, undo
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.fold.cells import select
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.versions.create import make_version
from chancy_metrics.projections.versions.expiry import expire
from chancy_metrics.projections.versions.outcome import Advanced
from chancy_metrics.projections.versions.replay import replay, stored
from chancy_metrics.projections.versions.step import write_step
from chancy_metrics.projections.versions.version import Version
from tests.factories import (
    LogWriter,
    a_row,
    a_run,
    an_app,
    cells_of,
    change_cells,
    connections,
    fetch,
    now_us,
    sequence_and_fold,
)


async def statuses(connection: Connection, tables: Tables) -> dict[int, str]:
    rows = await fetch(connection, "SELECT version, status FROM {versions} WHERE version > 0", tables)
    return dict(rows)  # type: ignore[arg-type]


async def some_history(connection: Connection, tables: Tables) -> LogWriter:
    writer = LogWriter(connection, tables)
    now_us = time.time_ns() // 1000
    for hours_ago in range(3):
        at_us = now_us - hours_ago * 3_600_000_000
        await writer.append(jobs=[a_row(at_us)] * 5, runs=[a_run("app:n", [1.5] * 4, at_us=at_us)])
        await sequence_and_fold(connection, tables)
    return writer


async def test_a_rebuild_replaces_the_live_version_and_differs_in_nothing(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await some_history(connection, tables)
    before = await stored(connection, tables)
    seen: list[RebuildProgress] = []

    async with an_app(dsn) as (chancy, _):
        done = await rebuild(chancy, on_progress=seen.append)

    assert (done.version, done.replaced, done.swapped, done.different) == (2, 1, True, 0)
    after = await stored(connection, tables)
    merged = [point for point in after if point.worker is None]
    assert done.points == len(merged) + await cells_of(connection, tables, 2) > 0
    assert after == [point for point in before if point in after]
    assert diff(after, await replay(connection, tables)) == []
    assert await statuses(connection, tables) == {1: "standby", 2: "live"}
    assert (
        {"copying", "backfilling", "comparing", "swapping"} >= {one.phase for one in seen} >= {"comparing", "swapping"}
    )


async def test_a_rebuild_repairs_what_was_changed_by_hand_and_names_it(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await some_history(connection, tables)
    await fetch(connection, "UPDATE {r1day} SET count = count + 1", tables)
    await change_cells(connection, tables, lambda cells: select(cells, cells.bucket < 0))

    async with an_app(dsn) as (chancy, _):
        done = await rebuild(chancy)

    assert done.different == len(done.differences) > 8
    assert any("app:n 1day" in one and "observations" in one for one in done.differences), done.differences
    assert any("only in the new" in one for one in done.differences)
    assert diff(await stored(connection, tables), await replay(connection, tables)) == []


async def test_without_swap_it_stays_ready_until_swap_takes_it(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    writer = await some_history(connection, tables)

    async with an_app(dsn) as (chancy, _):
        done = await rebuild(chancy, swap=False)
        assert await statuses(connection, tables) == {1: "live", 2: "ready"}
        await writer.append(runs=[a_run("app:n", [10.0])])
        await sequence_and_fold(connection, tables)
        taken = await swap(chancy)

    assert (done.swapped, taken) == (False, 2)
    assert await statuses(connection, tables) == {1: "standby", 2: "live"}
    assert diff(await stored(connection, tables), await replay(connection, tables)) == []


async def test_undo_lets_the_old_version_catch_up_and_takes_it_back(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    writer = await some_history(connection, tables)
    async with an_app(dsn) as (chancy, _):
        await rebuild(chancy)
        await writer.append(runs=[a_run("app:n", [10.0])])
        await sequence_and_fold(connection, tables)

        back = await undo(chancy)

        assert back == 1
        assert await statuses(connection, tables) == {1: "live", 2: "standby"}
        assert diff(await stored(connection, tables), await replay(connection, tables)) == []
        with pytest.raises(VersionRefused, match="nothing to go back to"):
            await undo(chancy)
        assert await swap(chancy, 2) == 2


async def test_a_rebuild_waits_a_moment_for_one_whose_end_the_server_has_not_noticed_yet(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_history(connection, tables)
    done: list[Rebuilt] = []

    async def go_on() -> None:
        async with an_app(dsn) as (chancy, _):
            done.append(await rebuild(chancy))

    refused = anyio.Event()

    async def make(*arguments: Any, **options: Any) -> Version:
        try:
            return await make_version(*arguments, **options)
        except AlreadyRunning:
            refused.set()
            raise

    monkeypatch.setattr(backfill, "make_version", make)
    async with connections(dsn, 1) as (killed,), anyio.create_task_group() as tasks:
        await killed.execute("SET application_name = 'rebuild by ann'")
        await make_version(killed, tables, BUILT_IN, dict.fromkeys(RESOLUTIONS, 0), by="rebuild by ann")
        tasks.start_soon(go_on)
        with anyio.fail_after(20):
            await refused.wait()
        await killed.close()

    assert [(one.version, one.swapped) for one in done] == [(2, True)]


async def test_version_0_and_unknown_ones_can_not_be_swapped_to(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await some_history(connection, tables)

    async with an_app(dsn) as (chancy, _):
        for number in (0, 7):
            with pytest.raises(VersionRefused, match=str(number)):
                await swap(chancy, number)

    assert await statuses(connection, tables) == {1: "live"}


async def test_who_rebuilds_is_seen_to_live_also_with_a_name_that_is_not_ascii(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await some_history(connection, tables)
    alive: list[tuple[str, bool]] = []
    query = (
        "SELECT v.folded_by, EXISTS (SELECT FROM pg_stat_activity a WHERE a.application_name = left(v.folded_by, 63))"
        " FROM {versions} v WHERE v.version = 2"
    )

    async with an_app(dsn) as (chancy, _):

        def look(progress: RebuildProgress) -> None:
            with psycopg.connect(dsn) as own:
                alive.extend(own.execute(sql.SQL(query).format(versions=tables.versions)).fetchall())

        await rebuild(chancy, by="Jürgen 中", on_progress=look)

    assert alive and all(lives for _, lives in alive), alive


async def test_a_rebuild_compares_with_the_version_that_is_live_once_it_holds_its_lock(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_history(connection, tables)
    lock = module._lock_live
    locked: list[int] = []

    async def lock_the_former_one_first(cursor: Any, tables: Tables, version: int) -> Version | None:
        locked.append(version if locked else 1)
        return await lock(cursor, tables, locked[-1])

    async with an_app(dsn) as (chancy, _):
        await rebuild(chancy)
        await fetch(connection, "DELETE FROM {r1day} WHERE version = 1", tables)  # as clean-up takes it away
        monkeypatch.setattr(module, "_lock_live", lock_the_former_one_first)
        done = await rebuild(chancy)

    assert locked == [1, 2]
    assert (done.version, done.replaced, done.different) == (3, 2, 0)


async def test_a_range_that_was_not_written_is_read_again_with_those_that_follow(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(6):
        await LogWriter(connection, tables).append(runs=[a_run("app:n", [1.0] * 10)])
    await sequence_and_fold(connection, tables)
    written: list[int] = []

    async def is_busy_at_first(*arguments: Any, **options: Any) -> Advanced:
        written.append(arguments[2].before)
        return Advanced.busy(0) if len(written) == 2 else await write_step(*arguments, **options)

    monkeypatch.setattr(backfill, "BACKFILL_EVENTS", 20)
    monkeypatch.setattr(backfill, "write_step", is_busy_at_first)
    async with an_app(dsn) as (chancy, _):
        done = await rebuild(chancy)

    assert (done.events, done.different) == (60, 0)
    assert len(written) == len(set(written)) + 1, written


async def test_progress_counts_what_comes_meanwhile_and_never_passes_the_whole(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = await some_history(connection, tables)
    monkeypatch.setattr(backfill, "BACKFILL_EVENTS", 20)
    seen: list[RebuildProgress] = []
    give_way = backfill.Backfill.give_way

    async def meanwhile(self: backfill.Backfill, position: int, target: int) -> None:
        if len(seen) < 6:
            await writer.append(jobs=[a_row(now_us())] * 50)
            await sequence_and_fold(connection, tables)
        await give_way(self, position, target)

    monkeypatch.setattr(backfill.Backfill, "give_way", meanwhile)
    async with an_app(dsn) as (chancy, _):
        await rebuild(chancy, on_progress=seen.append)

    assert all(one.events <= one.total_events and one.position <= one.target for one in seen)
    assert seen[-1].events == seen[-1].total_events > 100


async def test_a_second_rebuild_says_at_once_who_is_at_it(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_history(connection, tables)
    monkeypatch.setattr(module, "_PATIENCE_S", 0.2)
    seen: list[RebuildProgress] = []
    async with connections(dsn, 1) as (other,):
        await other.execute("SET application_name = 'rebuild by ann'")
        await make_version(other, tables, BUILT_IN, dict.fromkeys(RESOLUTIONS, 0), by="rebuild by ann")
        async with an_app(dsn) as (chancy, _):
            with pytest.raises(AlreadyRunning):
                await rebuild(chancy, on_progress=seen.append)

    [waiting] = seen
    assert waiting.phase == "waiting" and waiting.note.startswith(
        "version 2 has been backfilled by 'rebuild by ann' since"
    )


async def test_a_rebuild_says_where_it_stands_if_events_past_it_can_t_be_folded(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = await some_history(connection, tables)
    await writer.append(batch=encode([a_row(now_us())])._replace(codec=9))
    async with an_app(dsn) as (chancy, _):
        done = await rebuild(chancy)
        monkeypatch.setenv("DSN", dsn)
        command = ["--app", "tests.app.chancy", "rebuild"]
        said = await anyio.to_thread.run_sync(lambda: CliRunner().invoke(main, command))

    stands = "stands at position 3, and events past it can't be folded: position 4 waits for a worker with newer code"
    assert done.behind == f"version 2 {stands}"
    assert said.exit_code == 3 and f"version 3 {stands}" in said.output


async def test_too_late_is_counted_once_an_event_live_and_after_a_rebuild(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    day_us = 86_400_000_000
    await expire(connection, tables, horizons(now_us(), dict.fromkeys(RESOLUTIONS, 90), 90 * 86_400))
    writer = LogWriter(connection, tables)
    await writer.append(jobs=[a_row(now_us() - 200 * day_us)], runs=[a_run("app:n", at_us=now_us())])
    await sequence_and_fold(connection, tables)

    async with an_app(dsn) as (chancy, _):
        counted = [(await completeness(chancy)).expired]
        await rebuild(chancy)
        counted.append((await completeness(chancy)).expired)
        await undo(chancy)
        counted.append((await completeness(chancy)).expired)

    assert counted == [1, 1, 1]


async def test_who_rebuilds_or_discards_waits_for_no_lock_for_ever_and_says_who_holds_it(
    dsn: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "REBUILD_LOCK_LIMIT_MS", 50)
    monkeypatch.setattr(bounded_connection, "LOCK_LIMIT_MS", 50)
    async with connections(dsn, 2) as (connection, locking), an_app(dsn) as (chancy, _):
        await LogWriter(connection, tables).append(runs=[a_run("app:n")])
        await sequence_and_fold(connection, tables)
        for table, work in (
            ("log", lambda: rebuild(chancy)),
            ("versions", lambda: undo(chancy)),
            ("dead_letters", lambda: discard(chancy, 1, why="a test", by="me")),
            ("dead_letters", lambda: discard_rule(chancy, "mine", why="a test", by="me")),
        ):
            async with locking.transaction():
                await fetch(locking, f"LOCK TABLE {{{table}}} IN ACCESS EXCLUSIVE MODE", tables)
                with anyio.fail_after(20), pytest.raises(TableLocked) as locked:
                    await work()

            said = f"table chancy_metrics_{table} could not be read for 0.05 s: process {locking.info.backend_pid} "
            assert said in str(locked.value)

        assert (await rebuild(chancy)).swapped
