"""What expired goes in bounded chunks, names nobody uses go with it, and sizes are those of all partitions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import pytest
from chancy import Chancy, Queue, Worker
from chancy.plugin import Plugin
from psycopg import sql

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.partitions import attached_days
from chancy_metrics.events.schema import RESOLUTIONS, SEGMENT_COLUMNS, TABLES, Tables
from chancy_metrics.events.sequencer import sequence
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.host.connection import DatabaseClock
from chancy_metrics.plugin.worker import maintenance
from chancy_metrics.plugin.worker import session as session_module
from chancy_metrics.plugin.worker.maintenance import (
    DASHBOARD_NAME,
    Maintenance,
    make_days_ahead,
    series_count,
    table_sizes,
)
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.versions import expiry
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.replay import replay, stored
from tests.factories import (
    NOON_US,
    LogWriter,
    a_run,
    an_app,
    connections,
    eventually,
    fetch,
    now_us,
    sequence_and_fold,
    total,
)

DAY_US = 86_400_000_000
OPTIONS = Metrics().options


async def rows_of(connection: Connection, tables: Tables) -> list[int]:
    counts = [f"(SELECT count(*) FROM {{r{resolution}}})" for resolution in RESOLUTIONS]
    return list((await fetch(connection, f"SELECT {', '.join(counts)}", tables))[0])


async def horizons(connection: Connection, tables: Tables) -> tuple[int, ...]:
    return tuple(
        (
            await fetch(
                connection,
                "SELECT horizon_1min, horizon_5min, horizon_1hour, horizon_1day FROM {versions} WHERE version = 1",
                tables,
            )
        )[0]
    )


async def test_each_resolution_loses_what_is_older_than_it_keeps(connection: Connection, tables: Tables) -> None:
    for days in (0, 1, 8, 91):
        await LogWriter(connection, tables).append(runs=[a_run("app:n", at_us=NOON_US - days * DAY_US)])
    await sequence_and_fold(connection, tables)
    before = await rows_of(connection, tables)

    removed = await Maintenance(OPTIONS).clean(connection, tables, now_us=NOON_US)

    assert before == [4, 4, 4, 4]
    assert await rows_of(connection, tables) == [1, 1, 2, 3]
    assert removed == 3 + 3 + 2 + 1  # the worker's one segment has cells that are kept
    noon = NOON_US // 1_000_000
    expected = (noon - 59 * 60, noon - 287 * 300, noon - 167 * 3600, noon - 43_200 - 89 * 86_400)
    assert await horizons(connection, tables) == expected
    assert diff(await stored(connection, tables), await replay(connection, tables)) == []


async def test_nothing_to_delete_is_none_and_horizons_never_go_back(connection: Connection, tables: Tables) -> None:
    first = await Maintenance(OPTIONS).clean(connection, tables, now_us=NOON_US)
    high = await horizons(connection, tables)
    again = await Maintenance(OPTIONS).clean(connection, tables, now_us=NOON_US - 30 * DAY_US)

    assert (first, again) == (None, None)
    assert await horizons(connection, tables) == high


async def test_a_call_deletes_bounded_chunks(
    connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "CHUNK", 10)
    monkeypatch.setattr(expiry, "CHUNKS", 3)
    await fetch(
        connection,
        "INSERT INTO {r1day} (version, series, bucket, count, last_us, sum, min, max)"
        " SELECT 1, n, 0, 1, 0, 1, 1, 1 FROM generate_series(1, 100) n",
        tables,
    )

    removed = [await Maintenance(OPTIONS).clean(connection, tables, now_us=NOON_US) for _ in range(5)]

    assert removed == [30, 30, 30, 10, None]


async def test_cleaning_leaves_at_once_where_a_fold_holds_the_version(dsn: str, tables: Tables) -> None:
    async with connections(dsn, 2) as (folder, connection), folder.transaction():
        await fetch(folder, "SELECT 1 FROM {versions} WHERE version = 1 FOR UPDATE", tables)

        with anyio.fail_after(5):
            assert await Maintenance(OPTIONS).clean(connection, tables, now_us=NOON_US) is None

    async with connections(dsn, 1) as (connection,):
        assert await horizons(connection, tables) == (0, 0, 0, 0)


async def test_names_without_points_go_and_come_again_under_another_number(
    connection: Connection, tables: Tables
) -> None:
    numbers = "SELECT (SELECT array_agg(id) FROM {series}), (SELECT array_agg(id) FROM {workers})"
    await LogWriter(connection, tables, "w").append(runs=[a_run("app:n", at_us=NOON_US - 100 * DAY_US)])
    await sequence_and_fold(connection, tables)
    [before] = await fetch(connection, numbers, tables)

    removed = await Maintenance(OPTIONS).clean(connection, tables, now_us=NOON_US)
    gone = await fetch(connection, numbers, tables)
    await LogWriter(connection, tables, "w").append(runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)

    assert removed == 4 + 1 + 2  # points, a segment, names
    assert gone == [(None, None)]
    [after] = await fetch(connection, numbers, tables)
    assert [len(numbers) for numbers in after] == [1, 1] and not set(after[0]) & set(before[0])
    assert await total(connection, tables, "app:n") == [1] * 4
    assert diff(await stored(connection, tables), await replay(connection, tables)) == []


@pytest.mark.parametrize(("chunks", "expected"), [(1, [None, 2, 1, None, 2, 1]), (20, [3, None, None, 3, None, None])])
async def test_names_are_looked_through_some_stretches_a_call_and_then_from_the_start(
    chunks: int, expected: list[int | None], connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "NAMES", 4)
    monkeypatch.setattr(expiry, "CHUNKS", chunks)
    for worker in range(6):
        await LogWriter(connection, tables, f"used {worker}").append(runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)
    unused = "INSERT INTO {workers} (name) SELECT %(stem)s || n FROM generate_series(1, 3) n"
    await fetch(connection, unused, tables, stem="unused ")
    cleaner = Maintenance(OPTIONS)

    removed = [await cleaner.clean(connection, tables, now_us=NOON_US) for _ in range(3)]
    await fetch(connection, unused, tables, stem="later ")
    removed += [await cleaner.clean(connection, tables, now_us=NOON_US) for _ in range(3)]

    assert removed == expected


async def make_version(
    connection: Connection, tables: Tables, number: int, status: str, *, silent: str = "0 s", kept: str | None = None
) -> None:
    """A version with the same rows as the live one, that moved so long ago and is kept for so long."""
    await fetch(
        connection,
        "INSERT INTO {versions} (version, rules, user_rules, rule_names, status, position, created_by, folded_at,"
        " kept_until) VALUES (%(number)s, 1, 0, '{{}}', %(status)s, 10, 'test',"
        " clock_timestamp() - %(silent)s::interval, clock_timestamp() + %(kept)s::interval)",
        tables,
        number=number,
        status=status,
        silent=silent,
        kept=kept,
    )
    for resolution in RESOLUTIONS:
        await fetch(
            connection,
            f"INSERT INTO {{r{resolution}}} (version, series, bucket, count, last_us, sum, min, max)"
            f" SELECT %(number)s, series, bucket, 1, 0, 1, 1, 1 FROM {{r{resolution}}} WHERE version = 1",
            tables,
            number=number,
        )

    await fetch(
        connection,
        f"INSERT INTO {{worker_segments}} (version, {SEGMENT_COLUMNS})"
        f" SELECT %(number)s, {SEGMENT_COLUMNS} FROM {{worker_segments}} WHERE version = 1",
        tables,
        number=number,
    )


async def versions(connection: Connection, tables: Tables) -> dict[int, str]:
    return dict(await fetch(connection, "SELECT version, status FROM {versions} ORDER BY 1", tables))


async def test_every_version_loses_what_expired_and_one_that_is_held_does_the_next_time(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n", at_us=NOON_US - 100 * DAY_US)])
    await sequence_and_fold(connection, tables)
    await make_version(connection, tables, 2, "standby", kept="1 d")
    left = "SELECT DISTINCT version FROM {r1day} ORDER BY 1"
    async with connections(dsn, 1) as (folder,), folder.transaction():
        await fetch(folder, "SELECT 1 FROM {versions} WHERE version = 2 FOR UPDATE", tables)
        first = await Maintenance(OPTIONS).clean(connection, tables, now_us=NOON_US)
        during = await fetch(connection, left, tables)

    again = await Maintenance(OPTIONS).clean(connection, tables, now_us=NOON_US)

    assert (first, during) == (4 + 1, [(2,)])  # points and a segment
    assert again == 4 + 1 + 2  # and the names
    assert await fetch(connection, left, tables) == []


async def test_a_name_stays_while_any_version_has_a_point_of_it(connection: Connection, tables: Tables) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n", at_us=NOON_US)])
    await sequence_and_fold(connection, tables)
    await make_version(connection, tables, 2, "backfilling")
    stored_in = [*(f"r{resolution}" for resolution in RESOLUTIONS), "worker_segments"]
    for table in stored_in:
        await fetch(connection, f"UPDATE {{{table}}} SET version = 0 WHERE version = 1", tables)
    kept = [await Maintenance(OPTIONS).clean(connection, tables, now_us=NOON_US)]
    await fetch(connection, "UPDATE {versions} SET status = 'dropped' WHERE version = 2", tables)
    kept.append(await Maintenance(OPTIONS).clean(connection, tables, now_us=NOON_US))

    for table in stored_in:
        await fetch(connection, f"DELETE FROM {{{table}}} WHERE version = 0", tables)

    assert kept == [None, 4 + 1]  # points and a segment
    assert await Maintenance(OPTIONS).clean(connection, tables, now_us=NOON_US) == 2


@pytest.mark.parametrize(
    ("status", "silent", "kept", "stays"),
    [
        ("standby", "9 d", "1 h", True),
        ("standby", "9 d", "-1 s", False),
        ("ready", "9 d", "1 h", True),
        ("ready", "9 d", "-1 s", False),
        ("backfilling", "23 h", None, True),
        ("backfilling", "25 h", None, False),
        ("copying", "25 h", None, False),
        ("live", "9 d", "-1 s", True),
    ],
)
async def test_versions_nobody_turns_to_any_more_are_dropped(
    connection: Connection, tables: Tables, status: str, silent: str, kept: str | None, stays: bool
) -> None:
    await make_version(connection, tables, 2, status, silent=silent, kept=kept)

    await Maintenance(OPTIONS).clean(connection, tables)

    assert await versions(connection, tables) == {0: "baseline", 1: "live", 2: status if stays else "dropped"}


async def test_a_dropped_version_is_deleted_in_bounded_chunks_and_its_number_is_not_given_again(
    connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "CHUNK", 3)
    monkeypatch.setattr(expiry, "CHUNKS", 2)
    for minute in range(8):
        await LogWriter(connection, tables, "w").append(runs=[a_run("app:n", at_us=NOON_US + minute * 60_000_000)])
    await sequence_and_fold(connection, tables)
    for number in (2, 3):
        await make_version(connection, tables, number, "dropped")

    removed = [await Maintenance(OPTIONS).clean(connection, tables, now_us=NOON_US) for _ in range(3)]

    assert removed == [2 * (6 + 2 + 1 + 1 + 1), 2 * 2, None]
    assert await versions(connection, tables) == {0: "baseline", 1: "live", 3: "dropped"}
    assert diff(await stored(connection, tables), await replay(connection, tables)) == []


async def test_producers_are_forgotten_when_their_points_are(connection: Connection, tables: Tables) -> None:
    writers = [LogWriter(connection, tables) for _ in range(2)]
    for writer in writers:
        await writer.append(runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)
    await fetch(
        connection,
        "UPDATE {producers} SET seen_at = seen_at - interval '91 d' WHERE producer = %(one)s",
        tables,
        one=writers[0].producer,
    )

    await Maintenance(OPTIONS).clean(connection, tables)

    assert await fetch(connection, "SELECT producer FROM {producers}", tables) == [(writers[1].producer,)]
    await writers[0].append(runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)
    assert await fetch(connection, "SELECT sum(holes) FROM {producers}", tables) == [(0,)]


async def test_cleaning_beside_folds_loses_no_count_and_makes_no_deadlock(dsn: str, tables: Tables) -> None:
    """Every number is used for one minute only, so cleaning and numbering want the same rows all the time."""
    now, minutes, done = NOON_US, 40, False

    async def fold(first: Connection, second: Connection) -> None:
        nonlocal now, done
        for minute in range(minutes):
            now = NOON_US + minute * 7_200_000_000  # the next points come when these have expired at 1min
            await LogWriter(first, tables, f"w{minute % 3}").append(runs=[a_run("app:n", at_us=now)])
            await sequence(second, tables)
            while not (await advance(second, tables, folded_by="f")).caught_up:
                pass
        done = True

    async def clean(connection: Connection) -> None:
        while not done:
            await Maintenance(OPTIONS).clean(connection, tables, now_us=now)

    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    async with connections(dsn, 4) as several:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fold, *several[:2])
                for connection in several[2:]:
                    tasks.start_soon(clean, connection)
        assert (await total(several[0], tables, "app:n"))[3] == minutes
        assert await fetch(several[0], deadlocks, tables) == [(0,)]


async def test_sizes_count_every_partition_and_ours_are_summed_for_the_dashboard(
    dsn: str, tables: Tables, connection: Connection
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n", [1.0] * 9_000)])
    async with an_app(dsn) as (chancy, _):
        sizes = await table_sizes(connection, chancy)

    cursor = await connection.execute(
        "SELECT sum(pg_total_relation_size(relid))::bigint, sum(pg_relation_size(relid))::bigint,"
        " sum(pg_indexes_size(relid))::bigint FROM pg_partition_tree('chancy_metrics_log')"
    )
    assert sizes["metrics_log"] == await cursor.fetchone()
    assert sizes["metrics_log"][0] > 100_000
    assert set(TABLES) | {"jobs", "queues", "workers", DASHBOARD_NAME} <= set(sizes)
    assert sizes[DASHBOARD_NAME] == tuple(sum(sizes[table][n] for table in TABLES) for n in range(3))


class Forgetful(Plugin):
    """A plugin whose table was never made."""

    @staticmethod
    def get_identifier() -> str:
        return "test.forgetful"

    def get_tables(self) -> list[str]:
        return ["no_such_table", 'with "quotes"']


async def test_a_missing_table_is_left_out_alone(dsn: str, connection: Connection) -> None:
    async with an_app(dsn, plugins=[Forgetful()]) as (chancy, _):  # type: ignore[no-untyped-call]
        await connection.execute(sql.SQL("CREATE TABLE {} ()").format(sql.Identifier('chancy_with "quotes"')))
        sizes = await table_sizes(connection, chancy)

    assert "no_such_table" not in sizes
    assert sizes['with "quotes"'] == (0, 0, 0)
    assert sizes["jobs"][0] > 0


async def test_series_are_counted_up_to_the_alarm(connection: Connection, tables: Tables) -> None:
    await fetch(
        connection,
        "INSERT INTO {series} (key, kind, unit) SELECT 'k' || n, 'counter', 'u' FROM generate_series(1, 100010) n",
        tables,
    )

    assert await series_count(connection, tables) == maintenance.SERIES_ALARM + 1


async def test_days_are_made_by_the_clock_of_the_database(connection: Connection, tables: Tables) -> None:
    async with short_transaction(connection) as cursor:
        for day in await attached_days(cursor, tables):
            await cursor.execute(sql.SQL("DROP TABLE {}").format(tables.partition(day)))

    await make_days_ahead(connection, tables, DatabaseClock())

    async with short_transaction(connection) as cursor:
        days = await attached_days(cursor, tables)
    today = datetime.now(UTC).date()
    assert days == [today + timedelta(days=n) for n in range(maintenance.DAYS_AHEAD + 1)]


async def expired(connection: Connection, tables: Tables) -> bool:
    return await total(connection, tables, "app:n") == [0] * 4


async def test_maintenance_happens_where_neither_pruner_nor_leadership_run(
    dsn: str, tables: Tables, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "MAINTENANCE_S", 0.1)
    async with short_transaction(connection) as cursor:
        for day in (await attached_days(cursor, tables))[1:]:
            await cursor.execute(sql.SQL("DROP TABLE {}").format(tables.partition(day)))
    await LogWriter(connection, tables).append(runs=[a_run("app:n", at_us=NOON_US - 4_000 * DAY_US)])
    await sequence_and_fold(connection, tables)
    metrics = Metrics(sync_interval=0.2, collection_interval=0.2)

    async with Chancy(dsn, plugins=[metrics], no_default_plugins=True) as chancy:
        await chancy.declare(Queue("default", executor=Chancy.Executor.Async))
        async with Worker(chancy, register_signal_handlers=False):
            await eventually(lambda: expired(connection, tables))
            await eventually(lambda: metrics.get_metrics(chancy, f"table:{DASHBOARD_NAME}"))

    async with short_transaction(connection) as cursor:
        assert len(await attached_days(cursor, tables)) > maintenance.DAYS_AHEAD


async def test_the_segments_of_a_worker_become_few_where_a_worker_folds(
    dsn: str, tables: Tables, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "COMPACTION_S", 0.1)
    writer = LogWriter(connection, tables, "of many folds")
    for _ in range(20):
        await writer.append(runs=[a_run("app:n", at_us=now_us())])
        await sequence_and_fold(connection, tables)

    async def are_few() -> bool:
        rows = await fetch(
            connection,
            "SELECT 1 FROM {worker_segments} s JOIN {workers} w ON w.id = s.worker WHERE w.name = 'of many folds'",
            tables,
        )
        return len(rows) <= 2

    assert not await are_few()
    await writer.append(runs=[a_run("app:n", at_us=now_us())])  # a worker that finds nothing to fold is none that folds
    metrics = Metrics(sync_interval=0.2)
    async with Chancy(dsn, plugins=[metrics], no_default_plugins=True) as chancy:
        await chancy.declare(Queue("default", executor=Chancy.Executor.Async))
        async with Worker(chancy, register_signal_handlers=False):
            await eventually(are_few)
    assert diff(await stored(connection, tables), await replay(connection, tables)) == []
