"""A rebuild fills a version beside the live one and takes its place, and undo takes it back."""

from __future__ import annotations

import time
from typing import Any

import anyio
import psycopg
import pytest
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from chancy_metrics.events.errors import AlreadyRunning, VersionRefused
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.plugin import filling
from chancy_metrics.plugin import rebuild as module
from chancy_metrics.plugin.filling import Progress
from chancy_metrics.plugin.rebuild import Rebuilt, rebuild, swap, undo
from chancy_metrics.projections.advance import BUSY, Advanced, write
from chancy_metrics.projections.making import make_version
from chancy_metrics.projections.replay import diff, replay, stored
from chancy_metrics.projections.rules import BUILT_IN
from chancy_metrics.projections.versions import Version
from tests.factories import LogWriter, a_row, a_run, an_app, connections, fetch, order_and_fold

Connection = AsyncConnection[TupleRow]


async def statuses(connection: Connection, names: Tables) -> dict[int, str]:
    rows = await fetch(connection, "SELECT version, status FROM {versions} WHERE version > 0", names)
    return dict(rows)  # type: ignore[arg-type]


async def some_history(connection: Connection, names: Tables) -> LogWriter:
    writer = LogWriter(connection, names)
    now_us = time.time_ns() // 1000
    for hours_ago in range(3):
        at_us = now_us - hours_ago * 3_600_000_000
        await writer.append(jobs=[a_row(at_us)] * 5, runs=[a_run("app:n", [1.5] * 4, at_us=at_us)])
        await order_and_fold(connection, names)
    return writer


async def test_a_rebuild_takes_the_place_of_the_live_version_and_differs_in_nothing(
    dsn: str, connection: Connection, names: Tables
) -> None:
    await some_history(connection, names)
    before = await stored(connection, names)
    seen: list[Progress] = []

    async with an_app(dsn) as (chancy, _):
        done = await rebuild(chancy, on_progress=seen.append)

    assert (done.version, done.replaced, done.swapped, done.different) == (2, 1, True, 0)
    after = await stored(connection, names)
    assert done.points == len(after) > 0
    assert after == [point for point in before if point in after]
    assert diff(after, await replay(connection, names)) == []
    assert await statuses(connection, names) == {1: "resting", 2: "live"}
    assert {"copying", "filling", "comparing", "swapping"} >= {one.phase for one in seen} >= {"comparing", "swapping"}


async def test_a_rebuild_repairs_what_was_changed_by_hand_and_names_it(
    dsn: str, connection: Connection, names: Tables
) -> None:
    await some_history(connection, names)
    await fetch(connection, "UPDATE {r1day} SET count = count + 1 WHERE worker = 0", names)
    await fetch(connection, "DELETE FROM {r1hour} WHERE worker > 0", names)

    async with an_app(dsn) as (chancy, _):
        done = await rebuild(chancy)

    assert done.different == len(done.differences) > 8
    assert any("app:n 1day" in one and "tally" in one for one in done.differences), done.differences
    assert any("only in the new" in one for one in done.differences)
    assert diff(await stored(connection, names), await replay(connection, names)) == []


async def test_without_swap_it_stays_ready_until_swap_takes_it(dsn: str, connection: Connection, names: Tables) -> None:
    writer = await some_history(connection, names)

    async with an_app(dsn) as (chancy, _):
        done = await rebuild(chancy, swap=False)
        assert await statuses(connection, names) == {1: "live", 2: "ready"}
        await writer.append(runs=[a_run("app:n", [10.0])])
        await order_and_fold(connection, names)
        taken = await swap(chancy)

    assert (done.swapped, taken) == (False, 2)
    assert await statuses(connection, names) == {1: "resting", 2: "live"}
    assert diff(await stored(connection, names), await replay(connection, names)) == []


async def test_undo_lets_the_old_version_catch_up_and_takes_it_back(
    dsn: str, connection: Connection, names: Tables
) -> None:
    writer = await some_history(connection, names)
    async with an_app(dsn) as (chancy, _):
        await rebuild(chancy)
        await writer.append(runs=[a_run("app:n", [10.0])])
        await order_and_fold(connection, names)

        back = await undo(chancy)

        assert back == 1
        assert await statuses(connection, names) == {1: "live", 2: "resting"}
        assert diff(await stored(connection, names), await replay(connection, names)) == []
        with pytest.raises(VersionRefused, match="nothing to go back to"):
            await undo(chancy)
        assert await swap(chancy, 2) == 2


async def test_a_rebuild_waits_a_moment_for_one_whose_end_the_server_has_not_noticed_yet(
    dsn: str, connection: Connection, names: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_history(connection, names)
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

    monkeypatch.setattr(filling, "make_version", make)
    async with connections(dsn, 1) as (killed,), anyio.create_task_group() as tasks:
        await killed.execute("SET application_name = 'rebuild by ann'")
        await make_version(killed, names, BUILT_IN, dict.fromkeys(RESOLUTIONS, 0), by="rebuild by ann")
        tasks.start_soon(go_on)
        with anyio.fail_after(20):
            await refused.wait()
        await killed.close()

    assert [(one.version, one.swapped) for one in done] == [(2, True)]


async def test_version_0_and_unknown_ones_can_not_be_swapped_to(
    dsn: str, connection: Connection, names: Tables
) -> None:
    await some_history(connection, names)

    async with an_app(dsn) as (chancy, _):
        for number in (0, 7):
            with pytest.raises(VersionRefused, match=str(number)):
                await swap(chancy, number)

    assert await statuses(connection, names) == {1: "live"}


async def test_who_rebuilds_is_seen_to_live_also_with_a_name_that_is_not_ascii(
    dsn: str, connection: Connection, names: Tables
) -> None:
    await some_history(connection, names)
    alive: list[tuple[str, bool]] = []
    query = (
        "SELECT v.folded_by, EXISTS (SELECT FROM pg_stat_activity a WHERE a.application_name = left(v.folded_by, 63))"
        " FROM {versions} v WHERE v.version = 2"
    )

    async with an_app(dsn) as (chancy, _):

        def look(progress: Progress) -> None:
            with psycopg.connect(dsn) as own:
                alive.extend(own.execute(sql.SQL(query).format(versions=names.versions)).fetchall())

        await rebuild(chancy, by="Jürgen 中", on_progress=look)

    assert alive and all(lives for _, lives in alive), alive


async def test_a_rebuild_compares_with_the_version_that_is_live_once_it_holds_its_lock(
    dsn: str, connection: Connection, names: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_history(connection, names)
    lock = module._lock_live
    locked: list[int] = []

    async def lock_the_former_one_first(cursor: Any, names: Tables, version: int) -> Version | None:
        locked.append(version if locked else 1)
        return await lock(cursor, names, locked[-1])

    async with an_app(dsn) as (chancy, _):
        await rebuild(chancy)
        await fetch(connection, "DELETE FROM {r1day} WHERE version = 1", names)  # as clean-up takes it away
        monkeypatch.setattr(module, "_lock_live", lock_the_former_one_first)
        done = await rebuild(chancy)

    assert locked == [1, 2]
    assert (done.version, done.replaced, done.different) == (3, 2, 0)


async def test_a_stretch_that_was_not_written_is_read_again_with_those_that_follow(
    dsn: str, connection: Connection, names: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(6):
        await LogWriter(connection, names).append(runs=[a_run("app:n", [1.0] * 10)])
    await order_and_fold(connection, names)
    written: list[int] = []

    async def is_busy_at_first(*arguments: Any, **options: Any) -> Advanced:
        written.append(arguments[2].before)
        return Advanced(0, 0, False, BUSY) if len(written) == 2 else await write(*arguments, **options)

    monkeypatch.setattr(filling, "REBUILD_STEP_EVENTS", 20)
    monkeypatch.setattr(filling, "write", is_busy_at_first)
    async with an_app(dsn) as (chancy, _):
        done = await rebuild(chancy)

    assert (done.events, done.different) == (60, 0)
    assert len(written) == len(set(written)) + 1, written
