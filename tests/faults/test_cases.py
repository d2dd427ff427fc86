"""Public reports of such systems, tried on this one: the reporter's input and its whole kind."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import anyio
import numpy as np
import pytest

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.events.sequencer import sequence
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.worker.maintenance import Maintenance
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.replay import replay, stored
from tests.factories import (
    LogWriter,
    a_host,
    a_run,
    an_app,
    append_as,
    connections,
    fetch,
    sequence_and_fold,
    total,
)
from tests.faults.surfaces import everywhere, http

DAY_US = 86_400_000_000
LARGEST = 1.7976931348623157e308


def now_us() -> int:
    return time.time_ns() // 1000


async def says(dsn: str, key: str, expected: float) -> None:
    """Every surface shows the same total."""
    found = await everywhere(dsn, key)
    assert found == dict.fromkeys(found, expected)


# -- gap: a committed event is never projected, because its neighbour was visible before it ------------------


@pytest.mark.parametrize(("ends", "after"), [("commit", 8.0), ("rollback", 5.0)])
async def test_a_slow_writer_beside_one_with_an_old_timestamp_is_neither_lost_nor_waited_for(
    dsn: str, tables: Tables, ends: str, after: float
) -> None:
    async with connections(dsn, 2) as (a, b):
        await a.set_autocommit(False)
        await append_as(a.cursor(), tables, a_run("app:gap", [1.0] * 3, at_us=now_us()))
        old = now_us() - 3 * DAY_US
        await LogWriter(b, tables).append(runs=[a_run("app:gap", [1.0] * 5, at_us=old)])
        with anyio.fail_after(5):
            await sequence_and_fold(b, tables)
        before = await total(b, tables, "app:gap")
        [(bucket,)] = await fetch(b, "SELECT bucket FROM {r1day}", tables)

        await getattr(a, ends)()
        await sequence_and_fold(b, tables)

        assert before == [5] * 4
        assert bucket == old // DAY_US * 86_400
        assert await fetch(
            b, "SELECT max(position) - count(*), (SELECT count(*) FROM {pending}) FROM {ledger}", tables
        ) == [(0, 0)]
        if ends == "commit":
            await says(dsn, "app:gap", after)
        assert await total(b, tables, "app:gap") == [after] * 4


async def test_forty_rolled_back_appends_between_two_good_ones_are_no_hole(dsn: str, tables: Tables) -> None:
    async with connections(dsn, 1) as (connection,):
        await LogWriter(connection, tables).append(runs=[a_run("app:gap", at_us=now_us())])
        for _ in range(40):
            async with connection.transaction(force_rollback=True), connection.cursor() as cursor:
                await append_as(cursor, tables, a_run("app:gap", at_us=now_us()))
        await LogWriter(connection, tables).append(runs=[a_run("app:gap", at_us=now_us())])
        await sequence_and_fold(connection, tables)

        assert await fetch(connection, "SELECT max(position), sum(holes) FROM {ledger}, {producers}", tables) == [
            (2, 0)
        ]
    await says(dsn, "app:gap", 2.0)


# -- dead worker speaks on; names pile up ---------------------------------------------------------------------


async def test_a_dead_workers_gauge_is_the_value_of_its_minute_only_and_its_counts_stay(
    dsn: str, tables: Tables
) -> None:
    minute = now_us() // 60_000_000 * 60_000_000 - 120_000_000
    async with connections(dsn, 1) as (connection,):
        for n, value in enumerate((4.0, 5.0, 6.0)):
            await LogWriter(connection, tables, f"w{n}").append(
                runs=[
                    a_run("app:slots", [value], kind="gauge", unit="number", at_us=minute + n),
                    a_run("app:n", [1.0] * 10, at_us=minute + n),
                ]
            )
            await sequence_and_fold(connection, tables)  # and here the last one dies
        await LogWriter(connection, tables, "w0").append(runs=[a_run("app:n", at_us=minute + 60_000_000)])
        await sequence_and_fold(connection, tables)

    await says(dsn, "app:n", 31.0)
    async with an_app(dsn) as (chancy, metrics):
        merged = (await metrics.get_metrics(chancy, "app:slots"))["app:slots"].values_1min
        dead = await metrics.get_metrics(chancy, "app", "w2")
    start = datetime.fromtimestamp(minute / 1e6, UTC)
    assert merged == [(start, 6.0)]
    assert dead["app:slots"].values_1min == [(start, 6.0)]
    assert dead["app:n"].values_1min == [(start, 10.0)]


async def test_names_that_change_every_night_leave_nothing_behind_once_retention_has_passed(
    dsn: str, tables: Tables
) -> None:
    """Nights of 40 new workers and 20 new keys; two nights are kept."""
    options = Metrics(maximum_metric_age=2 * 86_400).options
    cleaner = Maintenance(options)
    last = now_us() // DAY_US * DAY_US
    nights, sizes = 8, []
    counts = ", ".join(
        f"(SELECT count(*) FROM {{{table}}})" for table in ("series", "workers", "r1day", "worker_segments")
    )
    async with connections(dsn, 1) as (connection,):
        for night in range(nights):
            at_us = last - (nights - 1 - night) * DAY_US
            for worker in range(40):
                runs = [a_run(f"app:{night}:{key}", at_us=at_us) for key in range(20)]
                await LogWriter(connection, tables, f"w{night}-{worker}").append(runs=runs)
            await sequence_and_fold(connection, tables)
            while await cleaner.clean(connection, tables, now_us=at_us):
                pass
            counts = ", ".join(
                f"(SELECT count(*) FROM {{{table}}})" for table in ("series", "workers", "r1day", "worker_segments")
            )
            sizes.append((await fetch(connection, f"SELECT {counts}", tables))[0])
        assert diff(await stored(connection, tables), await replay(connection, tables)) == []

    assert sizes[0] == (20, 40, 20, 40)
    settled = sizes[2]
    assert settled[0] <= 3 * 20 and settled[1] <= 3 * 40
    assert all(abs(mine - then) <= then / 10 for size in sizes[2:] for mine, then in zip(size, settled, strict=True))
    async with an_app(dsn, Metrics(maximum_metric_age=2 * 86_400)) as (chancy, metrics):
        assert len(await metrics.get_metrics(chancy)) <= 2 * 20


# -- not a number ------------------------------------------------------------------------------------------------


async def test_one_nan_costs_one_rejection_and_nothing_else(dsn: str, connection: Connection, tables: Tables) -> None:
    async with a_host(dsn) as (worker, metrics):
        for value in (1, float("nan"), 5):
            await metrics.increment_counter("app:n", value)
        await metrics.record_gauge("app:g", 3.5)
        for value in (float("nan"), float("inf"), float("-inf")):
            await metrics.record_gauge("app:g", value)
            await metrics.record_histogram_value("app:h", value)
        await metrics.flush(worker.chancy)

    await says(dsn, "app:n", 6.0)
    async with an_app(dsn) as (chancy, metrics):
        assert (await metrics.get_metrics(chancy, "app:g"))["app:g"].values_1day[0][1] == 3.5
        assert "app:h" not in await metrics.get_metrics(chancy)
    [(counts,)] = await fetch(connection, "SELECT counts FROM {versions} WHERE version = 1", tables)
    assert counts == {"rejected:value": 7}


NUMBERS = [-0.0, Decimal("0.1"), np.float32(0.1), 2**70, 1e308, 1e308, 5e-324, Fraction(1, 3)]


async def test_every_kind_of_number_is_its_nearest_float_and_what_json_gets_is_finite(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with a_host(dsn) as (worker, metrics):
        for number in (*NUMBERS, True, 10**400):
            for record in (metrics.increment_counter, metrics.record_gauge, metrics.record_histogram_value):
                await record(f"app:{record.__name__}", number)
        await metrics.flush(worker.chancy)

    exact = sum(Fraction(float(number)) for number in NUMBERS)
    for resolution in RESOLUTIONS:
        sums = await fetch(connection, f"SELECT sum, min::text FROM {{r{resolution}}}", tables)
        assert [(Fraction(found), least) for found, least in sums] == [(exact, "0")] * 3
    async with an_app(dsn) as (chancy, metrics):
        async with http(chancy) as client:
            body = (await client.get("/api/v1/metrics/app")).raise_for_status().text
        answer = json.loads(body, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert answer["series"]["app:increment_counter"]["summary"] == LARGEST
    assert answer["series"]["app:record_gauge"]["summary"] == float(Fraction(1, 3))
    assert answer["series"]["app:record_histogram_value"]["summary"]["max"] == 1e308


@pytest.mark.parametrize("cut", [3, 7])
async def test_a_tenth_ten_times_is_one_in_every_order(
    dsn: str, connection: Connection, tables: Tables, cut: int
) -> None:
    for part in (cut, 10 - cut):
        await LogWriter(connection, tables).append(runs=[a_run("app:n", [0.1] * part, at_us=now_us())])
        await sequence_and_fold(connection, tables)

    async with an_app(dsn) as (chancy, metrics):
        assert (await metrics.get_metrics(chancy, "app:n"))["app:n"].values_1day[0][1] == 1.0


# -- projectors in each other's way -----------------------------------------------------------------------------


async def test_five_projectors_of_a_thousand_keys_beside_cleanup_never_deadlock(dsn: str, tables: Tables) -> None:
    keys, batches, done = 1_000, 12, False
    base = now_us() - 60 * DAY_US

    async def write(connection: Connection) -> None:
        nonlocal done
        for n in range(batches):
            order = range(keys) if n % 2 else range(keys - 1, -1, -1)
            runs = [a_run(f"app:{key}", at_us=base + n * 3_600_000_000) for key in order]
            await LogWriter(connection, tables, f"w{n % 4}").append(runs=runs)
        done = True

    async def project(connection: Connection, name: str) -> None:
        while not done:
            await sequence(connection, tables)
            await advance(connection, tables, folded_by=name)

    async def clean(connection: Connection) -> None:
        cleaner, n = Maintenance(Metrics().options), 0
        while not done:
            await cleaner.clean(connection, tables, now_us=base + min(n, batches) * 3_600_000_000)
            n += 1

    async with connections(dsn, 8) as (writer, *others):
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write, writer)
                for n, connection in enumerate(others[:5]):
                    tasks.start_soon(project, connection, f"p{n}")
                for connection in others[5:]:
                    tasks.start_soon(clean, connection)
        await sequence_and_fold(writer, tables)

        cursor = await writer.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        assert await cursor.fetchone() == (0,)
        rows = await fetch(
            writer,
            "SELECT count(*), min(sum), max(sum) FROM (SELECT sum(sum) FROM {r1day} GROUP BY series) s",
            tables,
        )
        assert rows == [(keys, batches, batches)]
        assert diff(await stored(writer, tables), await replay(writer, tables)) == []
