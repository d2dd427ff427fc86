"""The replica of the shared cache: loaded once, followed fold by fold, always what the rollups say."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
import numpy as np
import psycopg
import pytest
from chancy import Chancy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chancy_metrics.events.database import Connection
from chancy_metrics.events.facts import microseconds
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.reading import load as load_module
from chancy_metrics.plugin.reading.follower import Reader
from chancy_metrics.plugin.reading.replica import Replica
from chancy_metrics.plugin.worker.maintenance import Maintenance
from examples.embedded import Server
from tests.factories import NOON_US, LogWriter, a_host, a_run, an_app, connections, eventually, fetch, sequence_and_fold

DAY_US = 86_400_000_000


def a_reader(chancy: Chancy, **options: Any) -> Reader:
    """A reader that checks the ring when it is told to."""
    return Reader(chancy, lambda: 3_600.0, chancy.log, **options)


@asynccontextmanager
async def reading(dsn: str, **options: Any) -> AsyncIterator[Reader]:
    async with an_app(dsn) as (chancy, _):
        yield a_reader(chancy, **options)


def content(replica: Replica) -> dict[Any, bytes]:
    return {
        (number, replica.series[number], resolution): rows.tobytes()
        for number, columns in replica.columns.items()
        for resolution, rows in columns.items()
    } | {resolution: buckets.tobytes() for resolution, buckets in replica.recorded.items()}


async def loaded(chancy: Chancy) -> Replica:
    """What a process that has just begun reads."""
    return await a_reader(chancy).replica()


async def record(connection: Connection, tables: Tables, *values: float, key: str = "app:n", **run: Any) -> None:
    await LogWriter(connection, tables).append(runs=[a_run(key, values, **run)])
    await sequence_and_fold(connection, tables)


def total(replica: Replica, key: str = "app:n") -> float:
    return sum(replica.columns[number]["1day"][-1, -1] for _, number in replica.series.under(key))


async def soon(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""

    async def ask() -> object:
        return condition()

    await eventually(ask)


# -- loading and following --------------------------------------------------------------------------------------------


async def test_a_dead_connection_of_the_pool_costs_a_read_nothing(
    dsn: str, tables: Tables, connection: Connection
) -> None:
    """As one that idle_session_timeout has ended, or that was a standby's in the way of its replay."""
    await record(connection, tables, 1.0)
    async with reading(dsn) as reader:
        await reader._chancy.pool.wait()
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )

        assert total(await reader.replica()) == 1


async def test_only_the_first_read_asks_the_database(dsn: str) -> None:
    async with a_host(dsn) as (worker, metrics):
        await metrics.increment_counter("app:n", 1)
        await metrics.flush(worker.chancy)
        await metrics.get_metrics(worker.chancy)
        asked = worker.chancy.pool.get_stats()["requests_num"]

        for _ in range(10):
            assert list(await metrics.get_metrics(worker.chancy, "app")) == ["app:n"]
            assert list((await metrics.get_metrics(worker.chancy, limit=1))["series"]) == ["app:n"]
            assert await metrics.list_metrics(worker.chancy) == ["app:n"]

        assert worker.chancy.pool.get_stats()["requests_num"] == asked


async def test_a_replica_follows_each_fold_without_a_new_load(dsn: str, tables: Tables, connection: Connection) -> None:
    async with reading(dsn) as reader:
        first = await reader.replica()
        for fold in range(1, 4):
            await record(connection, tables, 1.0)
            await reader.refresh()

            assert total(await reader.replica()) == fold
        assert await reader.replica() is first


async def test_an_announced_fold_wakes_the_reader(dsn: str, tables: Tables, connection: Connection) -> None:
    async with reading(dsn) as reader:
        replica = await reader.replica()
        await record(connection, tables, 1.0)

        reader.wake()

        await soon(lambda: len(replica.series) == 1)


async def test_a_process_that_hears_of_no_fold_looks_by_itself(
    dsn: str, tables: Tables, connection: Connection
) -> None:
    async with an_app(dsn) as (chancy, _):
        reader = Reader(chancy, lambda: 0.01, chancy.log)
        replica = await reader.replica()

        await record(connection, tables, 1.0)

        await soon(lambda: len(replica.series) == 1)


@pytest.mark.parametrize(
    "lose",
    [
        "DELETE FROM {cache} WHERE fold <= 3",  # the reader fell behind
        "DELETE FROM {cache} WHERE fold = 4",
        "DELETE FROM {cache}",
        "UPDATE {cache} SET token = gen_random_uuid()",  # a restore or a failover that lost a fold
    ],
)
async def test_a_ring_that_does_not_go_on_from_the_replica_is_loaded_again(
    dsn: str, tables: Tables, connection: Connection, lose: str
) -> None:
    async with reading(dsn) as reader:
        for _ in range(3):
            await record(connection, tables, 1.0)
        first = await reader.replica()
        for _ in range(2):
            await record(connection, tables, 1.0)
        await fetch(connection, lose, tables)

        await reader.refresh()

        assert await reader.replica() is not first
        assert total(await reader.replica()) == 5


async def test_a_replica_of_another_version_is_loaded_again(dsn: str, tables: Tables, connection: Connection) -> None:
    async with reading(dsn) as reader:
        await record(connection, tables, 1.0)
        await reader.replica()
        await fetch(
            connection,
            "INSERT INTO {versions} (version, rules, user_rules, rule_names, status, position, folds, created_by)"
            " SELECT 2, rules, user_rules, rule_names, 'ready', position, folds, 'test' FROM {versions}"
            " WHERE version = 1;"
            ' INSERT INTO {r1day} SELECT (jsonb_populate_record(r, \'{{"version": 2, "sum": 7}}\')).* FROM {r1day} r;'
            " UPDATE {head} SET live = 2",
            tables,
        )

        await reader.refresh()

        assert total(await reader.replica()) == 7


@pytest.mark.parametrize(("folds_before", "ring"), [(0, ""), (1, "DELETE FROM {cache}")])
async def test_a_replica_that_was_loaded_beside_an_empty_ring_is_up_to_date(
    dsn: str, tables: Tables, connection: Connection, folds_before: int, ring: str
) -> None:
    async with reading(dsn) as reader:
        for _ in range(folds_before):
            await record(connection, tables, 1.0)
            await fetch(connection, ring, tables)
        first = await reader.replica()
        await record(connection, tables, 1.0)
        await reader.refresh()
        assert await reader.replica() is first
        assert total(first) == folds_before + 1


async def test_a_fold_that_left_no_trace_in_an_empty_ring_is_not_overlooked(
    dsn: str, tables: Tables, connection: Connection
) -> None:
    async with reading(dsn) as reader:
        await reader.replica()
        await record(connection, tables, 1.0)
        await fetch(connection, "DELETE FROM {cache}", tables)

        await reader.refresh()

        assert total(await reader.replica()) == 1


async def test_an_older_snapshot_is_never_applied_after_a_newer_one(
    dsn: str, tables: Tables, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, go = anyio.Event(), anyio.Event()
    find_names = load_module._read_series

    async def slowly(*arguments: Any) -> Any:
        found = await find_names(*arguments)
        if not stopped.is_set():
            stopped.set()
            await go.wait()
        return found

    async with reading(dsn) as reader, anyio.create_task_group() as others:
        await reader.replica()
        await record(connection, tables, 1.0)
        monkeypatch.setattr(load_module, "_read_series", slowly)
        others.start_soon(reader.refresh)
        await stopped.wait()
        await record(connection, tables, 1.0)

        with pytest.raises(TimeoutError), anyio.fail_after(0.3):
            await reader.refresh()
        go.set()
        await reader.refresh()

        assert total(await reader.replica()) == 2


# -- equal to the rollups ---------------------------------------------------------------------------------------------

_examples = itertools.count()
_steps = st.one_of(
    st.tuples(
        st.just("record"),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["counter", "gauge", "histogram"]),
        st.integers(0, 3 * 24 * 60),  # minutes ago
        st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=3),
    ),
    st.tuples(st.sampled_from(["read", "read", "clean", "lose half", "lose all", "restore"])),
    st.tuples(st.just("later"), st.sampled_from([1, 60, 25 * 60, 8 * 24 * 60, 100 * 24 * 60])),
)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(_steps, min_size=3, max_size=14))
async def test_after_any_steps_a_replica_holds_what_a_fresh_one_holds(
    dsn: str, tables: Tables, steps: Sequence[tuple[Any, ...]]
) -> None:
    # Horizons only rise, so every example begins later than the last one has ended.
    now_us = microseconds(datetime(1980, 1, 1, tzinfo=UTC)) + next(_examples) * 1_500 * DAY_US
    # The log's days are real ones, whatever year an example has come to.
    maintenance = Maintenance(Metrics(log_retention=100 * 365 * 86_400).options)
    async with connections(dsn, 1) as (connection,), reading(dsn) as reader:
        await reader.replica()
        for step, *details in [*steps, ("read",)]:
            match step:
                case "record":
                    key, kind, minutes_ago, values = details
                    at_us = now_us - minutes_ago * 60_000_000
                    await record(connection, tables, *values, key=key, kind=kind, at_us=at_us)
                case "later":
                    now_us += details[0] * 60_000_000
                case "clean":
                    await maintenance.clean(connection, tables, now_us=now_us)
                case "lose half":
                    await fetch(connection, "DELETE FROM {cache} WHERE fold % 2 = 0", tables)
                case "lose all":
                    await fetch(connection, "DELETE FROM {cache}", tables)
                case "restore":
                    await fetch(connection, "UPDATE {cache} SET token = gen_random_uuid()", tables)
                case "read":
                    await reader.refresh()
                    mine, fresh = await reader.replica(), await loaded(reader._chancy)
                    assert content(mine) == content(fresh)
                    assert dict(mine.series) == dict(fresh.series)


async def test_a_series_that_was_cleaned_up_comes_again_under_its_key(
    dsn: str, tables: Tables, connection: Connection
) -> None:
    async with reading(dsn) as reader:
        await record(connection, tables, 1.0)
        first = await reader.replica()
        before = first.series.under("app:n")
        later_us = NOON_US + 100 * DAY_US
        await Maintenance(Metrics().options).clean(connection, tables, now_us=later_us)
        await record(connection, tables, 5.0, at_us=later_us)

        await reader.refresh()

        after = (await reader.replica()).series.under("app:n")
        assert [key for key, _ in after] == ["app:n"]
        assert after != before
        assert total(await reader.replica()) == 5
        assert await reader.replica() is first


async def test_what_has_expired_leaves_the_copy(dsn: str, tables: Tables, connection: Connection) -> None:
    async with reading(dsn) as reader:
        for minute in range(5):
            await record(connection, tables, 1.0, at_us=NOON_US + minute * 60_000_000)
        replica = await reader.replica()
        await Maintenance(Metrics().options).clean(connection, tables, now_us=NOON_US + 62 * 60_000_000)

        await reader.refresh()

        (columns,) = replica.columns.values()
        assert np.array_equal(columns["1min"][:, 0], NOON_US / 1e6 + 60 * np.arange(3, 5))
        assert len(columns["5min"]) == 1
        assert columns["1min"].base is None


# -- beginnings and ends ----------------------------------------------------------------------------------------------


def test_a_plugin_reads_in_a_second_event_loop(dsn: str) -> None:
    metrics = Metrics()
    app = Chancy(dsn, plugins=[metrics])

    async def count_and_read() -> float:
        async with app:
            await metrics.increment_counter("app:n", 1)
            await metrics.flush(app)
            return (await metrics.get_metrics(app, "app"))["app:n"].values_1day[0][1]  # type: ignore[return-value]

    assert asyncio.run(count_and_read()) == 1.0
    assert asyncio.run(count_and_read()) == 2.0


async def test_following_ends_when_nobody_reads_and_begins_again_with_a_read(
    dsn: str, tables: Tables, connection: Connection
) -> None:
    async with reading(dsn, idle_s=0.0) as reader:
        first = await reader.replica()
        await soon(lambda: not reader.following)
        await record(connection, tables, 1.0)

        assert total(await reader.replica()) == 1
        assert await reader.replica() is not first


async def test_a_reader_of_a_closed_app_ends_and_opens_nothing(dsn: str) -> None:
    async with an_app(dsn) as (chancy, _):
        reader = a_reader(chancy)
        await reader.replica()

    reader.wake()

    await soon(lambda: not reader.following)
    assert "pool" not in vars(chancy)


async def test_reads_go_on_while_the_database_is_away_and_follow_when_it_is_back(
    dsn: str, server: Server, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    async with connections(dsn, 1) as (connection,):
        await record(connection, tables, 1.0)
        (database,) = await (await connection.execute("SELECT current_database()")).fetchone() or ("",)
    allow = f"ALTER DATABASE {database} ALLOW_CONNECTIONS "
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
    with psycopg.connect(server.dsn(), autocommit=True) as admin, caplog.at_level(logging.WARNING, "chancy"):
        async with an_app(dsn) as (chancy, _):
            chancy.pool.timeout = 1.0  # for which it waits for a connection where it has noticed that it lost them all
            reader = Reader(chancy, lambda: 0.05, chancy.log)
            replica = await reader.replica()
            admin.execute(allow + "false")
            admin.execute(end)
            await soon(lambda: "could not be followed" in caplog.text)

            with anyio.fail_after(1):
                assert total(await reader.replica()) == 1

            admin.execute(allow + "true")
            async with connections(dsn, 1) as (connection,):
                await record(connection, tables, 1.0)
            await soon(lambda: total(replica) == 2)
