"""Compaction changes how a worker's cells lie in rows, and never what they say."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import anyio
import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection, AsyncCursor, sql

from chancy_metrics.events.batch import BatchId
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.facts import KINDS
from chancy_metrics.events.log import append
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.plugin.worker.retention import prune_days
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.fold.cell_codec import encode_runs
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.rollups.segments import read_segments
from chancy_metrics.projections.rollups.tiers import FAN_OUT, tier_of
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.versions import compact as compaction
from chancy_metrics.projections.versions import compact_due
from chancy_metrics.projections.versions.compact import Compacted, Compaction, compact
from chancy_metrics.projections.versions.copy_baseline import copy_baseline
from chancy_metrics.projections.versions.create import make_version
from chancy_metrics.projections.versions.expiry import expire
from chancy_metrics.projections.versions.horizons_ahead import mend
from chancy_metrics.projections.versions.replay import replay, stored
from chancy_metrics.projections.versions.version import BASELINE, raise_horizons, read_version, read_versions
from examples.embedded import Server
from tests.factories import LogWriter, a_database, a_row, a_run, connections, fetch, sequence_and_fold

FIRST = date(2026, 3, 10)
MINUTE_US, HOUR_US, DAY_US = 60_000_000, 3_600_000_000, 86_400_000_000
FIRST_US = int(datetime(2026, 3, 10, tzinfo=UTC).timestamp()) * 1_000_000
#: Kept: minutes for two hours, five minutes for half a day, hours for two days, days for six; raw events for one.
POINTS = {"1min": 120, "5min": 144, "1hour": 48, "1day": 6}
ALL = dict.fromkeys(RESOLUTIONS, 0)


def kept_at(at_us: int) -> dict[str, int]:
    return horizons(at_us, POINTS, 90 * 86_400)


async def add(
    connection: Connection, tables: Tables, day: int, worker: str, *runs: Any, jobs: Sequence[Any] = ()
) -> None:
    """Append a batch on a day of the log, from FIRST on, unless the day takes none any more."""
    batch_id = BatchId(FIRST + timedelta(days=day), uuid.uuid4(), 1)
    async with short_transaction(connection) as cursor:
        appended = await append(cursor, tables, batch_id, encode(jobs, runs), worker=worker, closes=True)
        if appended.state == "spilled":
            raise psycopg.Rollback


async def folds(
    connection: Connection, tables: Tables, how_many: int, *, worker: str = "w", step_us: int = MINUTE_US
) -> None:
    """Fold so many batches, each of a later time, one by one."""
    writer = LogWriter(connection, tables, worker)
    for number in range(how_many):
        await writer.append(runs=[a_run("app:n", [number], at_us=FIRST_US + number * step_us)])
        await sequence_and_fold(connection, tables)


async def read_all(connection: Connection, tables: Tables) -> dict[int, dict[str, tuple[list[int], list[bytes]]]]:
    """The cells of every version, as bytes, past its horizons."""
    found = {}
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        for number in (BASELINE, *(one.version for one in await read_versions(cursor, tables))):
            version = await read_version(cursor, tables, number)
            assert version is not None
            levels = await read_segments(cursor, tables, number, version.horizons)
            found[number] = {name: in_bytes(cells) for name, cells in levels.items()}
    return found


def in_bytes(cells: Any) -> tuple[list[int], list[bytes]]:
    starts = np.flatnonzero(np.diff(cells.worker, prepend=-1))
    return cells.worker[starts].tolist(), encode_runs(cells, np.append(starts, cells.rows))


async def compact_all(connection: Connection, tables: Tables, kept: Mapping[str, int] = ALL) -> Compacted:
    """Compact until there is nothing left to do; nothing that is read changes."""
    before = await read_all(connection, tables)
    done = Compacted()
    while (once := await compact(connection, tables, kept)).removed:
        done += once
        assert await read_all(connection, tables) == before
    return done


async def count(connection: Connection, tables: Tables, where: str = "true") -> int:
    return int((await fetch(connection, f"SELECT count(*) FROM {{worker_segments}} WHERE {where}", tables))[0][0])


async def assert_exact(connection: Connection, tables: Tables) -> None:
    assert [str(one) for one in diff(await replay(connection, tables), await stored(connection, tables))] == []


class Fold(NamedTuple):
    """A batch that is folded at once, so that it makes segments of its own."""

    worker: str
    runs: list[tuple[str, str, int, list[float]]]


LATE_US = [0, MINUTE_US, 7 * MINUTE_US, 3 * HOUR_US, DAY_US, 3 * DAY_US, 40 * DAY_US]
a_fold = st.builds(
    Fold,
    worker=st.sampled_from(["w1", "w2"]),
    runs=st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.sampled_from(["a", "b"]),
            st.sampled_from(LATE_US),
            st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=3),
        ),
        max_size=3,
    ),
)
steps = st.lists(
    st.one_of(
        a_fold,
        st.lists(a_fold, min_size=FAN_OUT, max_size=FAN_OUT),
        st.sampled_from(["compact", "expire", "prune", "rebuild", "3 hours", "a day"]),
    ),
    max_size=20,
)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=steps)
async def test_what_is_read_stays_whatever_is_folded_compacted_expired_and_pruned_when(
    server: Server, template: str, tables: Tables, drawn: Sequence[Fold | list[Fold] | str]
) -> None:
    at_us = FIRST_US + DAY_US
    async with a_database(server, template) as connection:
        await make_days(connection, tables, today=FIRST, ahead=9)
        for step in drawn:
            if isinstance(step, (Fold, list)):
                for one in step if isinstance(step, list) else [step]:
                    made = [
                        a_run(name, values, kind=kind, at_us=at_us - late)  # type: ignore[arg-type]
                        for kind, name, late, values in one.runs
                    ]
                    day = min(9, (at_us - FIRST_US) // DAY_US)
                    await add(connection, tables, day, one.worker, *made, jobs=[a_row(at_us)] * len(made))
                    await sequence_and_fold(connection, tables)
            elif step == "compact":
                await compact_all(connection, tables, kept_at(at_us))
            elif step == "expire":
                await expire(connection, tables, kept_at(at_us))
            elif step == "prune":
                await prune_days(connection, tables, BUILT_IN, now_us=at_us, log_retention_s=86_400)
            elif step == "rebuild":
                made_version = await make_version(connection, tables, BUILT_IN, kept_at(at_us), by="test")
                while await copy_baseline(connection, tables, made_version.version):
                    pass
            else:
                at_us += DAY_US if step == "a day" else 3 * HOUR_US
        await expire(connection, tables, kept_at(at_us))
        await compact_all(connection, tables, kept_at(at_us))

        await assert_exact(connection, tables)


@pytest.mark.slow
async def test_segments_grow_like_the_logarithm_of_the_folds(connection: Connection, tables: Tables) -> None:
    writer = LogWriter(connection, tables)
    most = rewritten = 0
    for number in range(1, 201):
        await writer.append(
            runs=[a_run(f"app:{one}", [number], at_us=FIRST_US + number * MINUTE_US) for one in range(8)]
        )
        await sequence_and_fold(connection, tables)
        rewritten += (await compact(connection, tables, ALL)).cells
        most = max(most, await count(connection, tables))

    cells = 8 * 200
    assert most < FAN_OUT * (1 + tier_of(cells))
    assert rewritten < 2 * cells * math.log(200, FAN_OUT)
    assert await fetch(connection, "SELECT sum(cells) FROM {worker_segments}", tables) == [(cells,)]
    assert await compact(connection, tables, ALL) == Compacted()
    await assert_exact(connection, tables)


async def test_a_worker_of_many_folds_has_one_segment_after_the_first_compaction(
    connection: Connection, tables: Tables
) -> None:
    await folds(connection, tables, 40)
    await folds(connection, tables, FAN_OUT - 1, worker="other")

    done = await compact_all(connection, tables)

    assert done == Compacted(removed=40, written=1, cells=40)
    assert await fetch(connection, "SELECT fold, part, cells FROM {worker_segments} ORDER BY fold LIMIT 1", tables) == [
        (40, 0, 40)
    ]
    assert await count(connection, tables) == 1 + FAN_OUT - 1
    await assert_exact(connection, tables)


async def test_cells_past_their_horizon_move_on_until_all_are_gone(connection: Connection, tables: Tables) -> None:
    await folds(connection, tables, 10, step_us=10 * MINUTE_US)
    found = []
    for hours in (1, 4, 24, 4 * 24, 8 * 24):
        kept = kept_at(FIRST_US + hours * HOUR_US)
        await expire(connection, tables, kept)
        await compact_all(connection, tables, kept)
        await assert_exact(connection, tables)
        found.append(
            await fetch(connection, "SELECT resolution, cells FROM {worker_segments} ORDER BY resolution", tables)
        )

    assert found == [[(60, 10)], [(300, 10)], [(3_600, 2)], [(86_400, 1)], []]


class _Killed(AsyncCursor[Any]):
    """A cursor whose connection is killed before the statement whose turn it is."""

    left = 0
    by: psycopg.Connection[Any]

    async def execute(self, *args: Any, **options: Any) -> Any:
        type(self).left -= 1
        if self.left == 0:
            self.by.execute("SELECT pg_terminate_backend(%s, 10000)", [self.connection.info.backend_pid])
        return await super().execute(*args, **options)


async def test_one_that_is_killed_between_any_two_statements_leaves_all_as_it_is_or_is_done(
    connection: Connection, tables: Tables, dsn: str
) -> None:
    await folds(connection, tables, 10, step_us=10 * MINUTE_US)
    kept = kept_at(FIRST_US + 3 * HOUR_US)
    await expire(connection, tables, kept)
    before = await read_all(connection, tables)
    was_killed, statement, left = True, 0, list[int]()
    with psycopg.connect(dsn, autocommit=True) as _Killed.by:
        while was_killed:
            statement += 1
            async with await AsyncConnection.connect(dsn, autocommit=True, cursor_factory=_Killed) as dying:
                _Killed.left = statement
                try:
                    await compact(dying, tables, kept)
                    was_killed = False
                except psycopg.OperationalError:
                    left.append(await count(connection, tables))
                    assert await read_all(connection, tables) == before

    assert left == [10] * left.count(10) + [2] * left.count(2)
    assert left.count(10) > 10
    assert await fetch(connection, "SELECT resolution, cells FROM {worker_segments} ORDER BY 1", tables) == [
        (60, 3),
        (300, 7),
    ]
    assert await read_all(connection, tables) == before
    await assert_exact(connection, tables)


@pytest.mark.slow
async def test_two_at_once_beside_folds_and_readers_lose_and_double_nothing(
    connection: Connection, tables: Tables, dsn: str
) -> None:
    done = Compacted()
    ends = anyio.Event()

    def is_over() -> bool:
        """Whether the folds are, and something was compacted: on a busy machine that may come after them."""
        return ends.is_set() and done.removed > 0

    async def compact_until_the_end(mine: Connection) -> None:
        nonlocal done
        while not is_over():
            found = await compact(mine, tables, ALL)
            done += found  # not in one statement with the wait: the other's would be lost

    async def read_until_the_end(mine: Connection) -> None:
        while not is_over():
            async with short_transaction(mine, isolation="REPEATABLE READ") as cursor:
                levels = await read_segments(cursor, tables, 1, ALL)
                await cursor.execute(sql.SQL("SELECT coalesce(sum(count), 0) FROM {}").format(tables.rollup("1day")))
                assert await cursor.fetchone() == (sum(int(cells.observations.sum()) for cells in levels.values()),)

    async with connections(dsn, 3) as others, anyio.create_task_group() as tasks:
        tasks.start_soon(compact_until_the_end, others[0])
        tasks.start_soon(compact_until_the_end, others[1])
        tasks.start_soon(read_until_the_end, others[2])
        for number in range(60):
            await LogWriter(connection, tables, f"w{number % 3}").append(
                runs=[a_run("app:n", [0.1], at_us=FIRST_US + number * MINUTE_US)], jobs=[a_row(FIRST_US)]
            )
            await sequence_and_fold(connection, tables)
        ends.set()

    assert done.removed > done.written > 0
    await compact_all(connection, tables)
    await assert_exact(connection, tables)


async def test_a_segment_that_another_compaction_has_written_under_the_same_key_is_not_replaced(
    connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch, dsn: str
) -> None:
    await folds(connection, tables, 10)
    before = await read_all(connection, tables)
    read_data = compaction._read_data

    async def read_and_be_overtaken(cursor: Any, tables: Tables, version: int, rows: Any) -> Any:
        data = await read_data(cursor, tables, version, rows)
        monkeypatch.undo()
        async with connections(dsn, 1) as (other,):
            assert (await compact(other, tables, ALL)).removed == 10
        monkeypatch.setattr(compaction, "is_mostly_past", lambda segment, horizons: True)
        return data

    monkeypatch.setattr(compaction, "_read_data", read_and_be_overtaken)
    monkeypatch.setattr(compact_due, "_choose", lambda segments, horizons, by_day: [segments[-1:]])
    done = await compact(connection, tables, ALL)

    assert done == Compacted(missed=1)
    assert await read_all(connection, tables) == before


async def test_damaged_segments_stay_as_they_are_and_the_others_are_merged(
    connection: Connection, tables: Tables
) -> None:
    await folds(connection, tables, 12)
    await fetch(connection, "UPDATE {worker_segments} SET data = substr(data, 1, 20) WHERE fold = 3", tables)
    await fetch(connection, "UPDATE {worker_segments} SET cells = 7 WHERE fold = 5", tables)
    await fetch(connection, "UPDATE {worker_segments} SET first_s = first_s - 60 WHERE fold = 12", tables)
    damaged = "SELECT fold, data, cells FROM {worker_segments} WHERE fold IN (3, 5, 12) ORDER BY fold"
    before = await fetch(connection, damaged, tables)

    done = await compact_all(connection, tables)

    assert done == Compacted(removed=9, written=1, cells=9)
    assert await fetch(connection, damaged, tables) == before
    assert await count(connection, tables, "fold = 11") == 1
    kept = kept_at(FIRST_US + 3 * HOUR_US)
    await compact_all(connection, tables, kept)
    assert await fetch(connection, damaged, tables) == before


async def test_cells_that_come_to_the_key_of_a_damaged_segment_lie_beside_it(
    connection: Connection, tables: Tables
) -> None:
    old, new = a_run("app:n", [1.0], at_us=FIRST_US - 3 * HOUR_US), a_run("app:n", [1.0], at_us=FIRST_US)
    await expire(connection, tables, kept_at(FIRST_US))
    await LogWriter(connection, tables).append(runs=[old, new])
    await sequence_and_fold(connection, tables)
    await fetch(connection, "UPDATE {worker_segments} SET data = '\\x00' WHERE resolution = 300", tables)
    kept = kept_at(FIRST_US + 3 * HOUR_US)
    await expire(connection, tables, kept)

    done = await compact(connection, tables, kept)

    assert done == Compacted(removed=1, written=1, cells=1)
    assert await fetch(connection, "SELECT resolution, fold, part FROM {worker_segments} ORDER BY part", tables) == [
        (300, 1, 0),
        (300, 1, 1),
    ]


async def test_days_of_the_baseline_stay_apart(connection: Connection, tables: Tables) -> None:
    await make_days(connection, tables, today=FIRST, ahead=9)
    for day in range(3):
        for worker in ("w1", "w2"):
            at_us = FIRST_US + day * DAY_US + HOUR_US
            runs = [a_run("app:n", [day], at_us=at_us + hour * HOUR_US) for hour in range(4)]
            await add(connection, tables, day, worker, *runs)
    await sequence_and_fold(connection, tables)
    await prune_days(connection, tables, BUILT_IN, now_us=FIRST_US + 5 * DAY_US, log_retention_s=86_400, limit=9)
    days = await fetch(connection, "SELECT DISTINCT fold FROM {worker_segments} WHERE version = 0", tables)
    at_the_start = "SELECT resolution, count(*), sum(cells) FROM {worker_segments} WHERE version = 0 GROUP BY 1"
    assert await fetch(connection, at_the_start, tables) == [(60, 6, 24)]

    kept = kept_at(FIRST_US + 5 * DAY_US)
    await expire(connection, tables, kept)
    await compact_all(connection, tables, kept)

    assert await fetch(connection, at_the_start, tables) == [(86_400, 6, 6)]
    assert await fetch(connection, "SELECT DISTINCT fold FROM {worker_segments} WHERE version = 0", tables) == days
    await assert_exact(connection, tables)


async def test_the_baseline_is_left_alone_while_a_new_version_copies_it(
    connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_days(connection, tables, today=FIRST, ahead=9)
    for worker in ("w1", "w2", "w3"):
        await add(connection, tables, 0, worker, a_run("app:n", [1.0], at_us=FIRST_US))
    await sequence_and_fold(connection, tables)
    await prune_days(connection, tables, BUILT_IN, now_us=FIRST_US + 3 * DAY_US, log_retention_s=86_400)
    kept = kept_at(FIRST_US + 4 * DAY_US)
    made = await make_version(connection, tables, BUILT_IN, kept, by="test")
    await expire(connection, tables, kept)
    monkeypatch.setattr("chancy_metrics.projections.versions.copy_baseline.COPY_SEGMENTS", 2)

    assert await copy_baseline(connection, tables, made.version)
    await compact(connection, tables, kept)
    at_work = await count(connection, tables, "version IN (0, 2) AND resolution = 60")
    assert not await copy_baseline(connection, tables, made.version)
    await compact_all(connection, tables, kept)

    assert at_work == 3 + 2
    assert await fetch(
        connection,
        "SELECT version, resolution, sum(cells) FROM {worker_segments} GROUP BY 1, 2 ORDER BY 1",
        tables,
    ) == [(version, 86_400, 3) for version in (0, 1, 2)]


async def test_what_a_clock_ahead_hides_is_not_coarsened(connection: Connection, tables: Tables) -> None:
    await folds(connection, tables, 10)
    kept = kept_at(FIRST_US + HOUR_US)
    async with short_transaction(connection) as cursor:
        await raise_horizons(cursor, tables, 1, kept_at(FIRST_US + 400 * DAY_US))
    await compact(connection, tables, kept)

    assert await fetch(connection, "SELECT resolution, cells FROM {worker_segments}", tables) == [(60, 10)]
    assert await mend(connection, tables, BUILT_IN, kept, now_s=FIRST_US // 1_000_000 + 3_600)
    await compact_all(connection, tables, kept)
    await assert_exact(connection, tables)


async def test_it_goes_on_where_its_time_was_over(
    connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact_due, "WORKERS", 2)
    for worker in ("a", "b", "c", "d", "e"):
        await folds(connection, tables, FAN_OUT, worker=worker)
    going_on = Compaction()

    left = []
    for _ in range(4):
        await going_on.run(connection, tables, ALL, within_s=0)
        left.append(await count(connection, tables))

    assert left[:3] == [3 * FAN_OUT + 2, FAN_OUT + 4, 5]
    await assert_exact(connection, tables)
