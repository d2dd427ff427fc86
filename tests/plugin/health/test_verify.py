"""Verify is silent about what is right and names what is wrong, in full, in windows, in samples, beside everything."""

from __future__ import annotations

import importlib
import json
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import numpy as np
import psycopg
import pytest
from chancy import QueuedJob, Worker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import MetricsLogError, VersionRefused
from chancy_metrics.events.facts import EPOCH
from chancy_metrics.events.humanize import counted
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.events.sequencer import sequence
from chancy_metrics.plugin import Metrics, read_totals
from chancy_metrics.plugin.cli.status import status_lines
from chancy_metrics.plugin.cli.verify import verified_lines
from chancy_metrics.plugin.health.status import Status
from chancy_metrics.plugin.health.status_reader import read_status
from chancy_metrics.plugin.health.verify import Verified, verify
from chancy_metrics.plugin.rebuilds.rebuild import rebuild
from chancy_metrics.projections.fold import shelves
from chancy_metrics.projections.fold.accumulator import Accumulator
from chancy_metrics.projections.fold.cells import Cells, select
from chancy_metrics.projections.rollups.delta_ring import COLUMNS, ChangedPoints, pack_points, unpack_points
from chancy_metrics.projections.rollups.soundness import ALL_TIME, odd_points
from chancy_metrics.projections.rules.measured import DRIFT
from chancy_metrics.projections.span import Span, draw
from chancy_metrics.projections.versions.advance import advance
from tests.commands import run
from tests.factories import (
    NOON_US,
    LogWriter,
    a_row,
    a_run,
    an_app,
    cells_of,
    change_cells,
    connections,
    damage,
    fetch,
    sequence_all,
    sequence_and_fold,
)
from tests.processes import ROOT

MINUTE_US = 60_000_000
NOON = EPOCH + timedelta(microseconds=NOON_US)


async def a_history(connection: Connection, tables: Tables) -> None:
    """Three folds of two workers: jobs, counters, gauges and histograms in several minutes of two hours."""
    writers = [LogWriter(connection, tables, worker) for worker in ("w1", "w2")]
    for fold in range(3):
        for place, writer in enumerate(writers):
            at_us = NOON_US + (fold * 30 + place) * MINUTE_US
            await writer.append(
                jobs=[a_row(at_us), a_row(at_us + MINUTE_US, state="failed")],
                runs=[
                    a_run("app:n", [1.5, 2.0], at_us=at_us),
                    a_run("app:level", [3.0, 4.0], kind="gauge", unit="slots", at_us=at_us),
                    a_run("app:took", [0.1, 0.7, 5.0], kind="histogram", unit="s", at_us=at_us),
                ],
            )
        await sequence_and_fold(connection, tables)


async def verified(dsn: str, **arguments: object) -> Verified:
    async with an_app(dsn) as (chancy, _):
        return await verify(chancy, **arguments)  # type: ignore[arg-type]


def checks(found: Verified) -> set[str]:
    return {finding.check for finding in found.findings}


async def test_what_is_right_is_right(dsn: str, connection: Connection, tables: Tables) -> None:
    await a_history(connection, tables)

    found = await verified(dsn)

    assert (found.drift, found.differences, found.findings) == (0, [], [])
    assert (found.version, found.position, found.events, found.spans) == (1, 6, 54, 1)
    counted = [(await fetch(connection, f"SELECT count(*) FROM {{r{name}}}", tables))[0][0] for name in RESOLUTIONS]
    assert found.points == sum(counted) + await cells_of(connection, tables, 1) > 100


async def test_points_compared_some_series_at_a_time_are_found_the_same(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_history(connection, tables)
    await fetch(connection, COUNT, tables)
    monkeypatch.setattr("chancy_metrics.plugin.health.verify.SHOWN", 1_000)  # which hundred are shown may differ
    found = [await verified(dsn)]
    for name in ("FRESH_ROWS", "FRESH_CODES"):
        monkeypatch.setattr(shelves, name, 10)
    found.append(await verified(dsn))

    whole, shelved = [
        (one.points, one.different, one.found, sorted(map(str, one.differences)), sorted(map(str, one.findings)))
        for one in found
    ]
    assert shelved == whole
    assert found[0].different > 1


async def test_nothing_is_folded_in_a_transaction(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_history(connection, tables)
    idle: list[int] = []
    add_batches = Accumulator.add_batches

    def watched(total: Accumulator, *arguments: object) -> None:
        with psycopg.connect(dsn) as other:
            waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
            idle.append(len(other.execute(waiting).fetchall()))
        add_batches(total, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Accumulator, "add_batches", watched)

    found = await verified(dsn)

    assert (found.drift, found.events, idle) == (0, 54, [0])


@pytest.mark.parametrize("resolution", [*RESOLUTIONS, ALL_TIME])
async def test_rows_without_a_name_are_found_by_joins_however_many_names_there_are(
    connection: Connection, tables: Tables, resolution: str
) -> None:
    query = sql.SQL("EXPLAIN ") + odd_points(tables, resolution)

    plan = "\n".join(line for (line,) in await (await connection.execute(query, {"shown": 1})).fetchall())

    assert "SubPlan" not in plan


async def test_of_nothing_at_all_nothing_is_wrong_nor_said_to_be_right(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    for arguments in ({}, {"budget_s": 60}, {"since": NOON, "until": NOON + timedelta(days=1), "budget_s": 60}):
        found = await verified(dsn, **arguments)

        assert (found.drift, found.points, found.spans) == (0, 0, 1)
        assert found.nothing == "nothing was folded yet"
        assert "nothing was compared" in (told := "\n".join(verified_lines(found))) and "agree" not in told
    async with an_app(dsn) as (chancy, _):
        status = await read_status(chancy)
    assert status.verified is not None
    assert (status.verified.points, status.verified.share.whole, status.verified.log_at) == (0, 0, None)
    assert any("never compared with the log" in sentence for sentence in status.not_looked_at)
    assert await fetch(connection, "SELECT 1 FROM {log}", tables) == []  # no drift is recorded


runs = st.lists(
    st.builds(
        lambda kind, name, at, values: a_run(name, values, kind=kind, at_us=NOON_US + at),
        kind=st.sampled_from(["counter", "gauge", "histogram"]),
        name=st.sampled_from(["a", "b"]),
        at=st.sampled_from([0, 1, 59_999_999, MINUTE_US, 7 * MINUTE_US, 90 * MINUTE_US, 40_000 * MINUTE_US]),
        values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4),
    ),
    max_size=4,
)
chunks = st.lists(
    st.tuples(runs, st.sampled_from(["w1", "w2"]), st.sampled_from(["", "order", "fold", "both"])),
    min_size=1,
    max_size=6,
)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=chunks, hours=st.tuples(st.integers(-30, 30), st.integers(1, 60)))
async def test_whatever_the_history_nothing_false_is_found(
    dsn: str, tables: Tables, chunks: list[tuple[list[object], str, str]], hours: tuple[int, int]
) -> None:
    async with connections(dsn, 1) as (connection,), an_app(dsn) as (chancy, _):
        writers = {worker: LogWriter(connection, tables, worker) for worker in ("w1", "w2")}
        for made, worker, then in chunks:
            await writers[worker].append(jobs=[a_row(NOON_US)] * len(made), runs=made)  # type: ignore[arg-type]
            if then in ("order", "both"):
                await sequence(connection, tables, limit=2)
            if then in ("fold", "both"):
                await advance(connection, tables, folded_by="test")
        since = NOON + timedelta(hours=hours[0])

        for arguments in ({}, {"since": since, "until": since + timedelta(hours=hours[1], minutes=7)}):
            found = await verify(chancy, **arguments)

            assert (found.differences, found.findings) == ([], [])


MAXIMUM = "UPDATE {r1hour} SET max = max + 1 WHERE sketch IS NULL AND count = 4"
COUNT = "UPDATE {r1min} SET count = count + 1 WHERE count = 2"
DAMAGES = [
    (COUNT, {"workers", "resolutions", "cache", "quantiles"}),
    ("UPDATE {r1day} SET last_index = 7 WHERE last IS NOT NULL", {"workers", "resolutions"}),
    (
        "UPDATE {r1day} SET sketch = '\\x93ce0001869fc3c3' WHERE sketch IS NOT NULL",
        {"workers", "quantiles", "resolutions"},
    ),
    (
        "UPDATE {r1day} SET sketch = '\\x92ce000186a001' WHERE sketch IS NOT NULL",
        {"workers", "quantiles", "resolutions"},
    ),
    ("UPDATE {r1day} SET min = min - 1", {"workers", "resolutions", "quantiles", "cache"}),
    ("DELETE FROM {r1hour} WHERE bucket = (SELECT min(bucket) FROM {r1hour})", {"workers", "resolutions", "cache"}),
]


@pytest.mark.parametrize(("change", "expected"), DAMAGES)
async def test_a_changed_rollup_is_a_difference_and_found_by_every_other_check_that_sees_it(
    dsn: str, connection: Connection, tables: Tables, change: str, expected: set[str]
) -> None:
    await a_history(connection, tables)
    await fetch(connection, change, tables)

    found = await verified(dsn)

    assert found.different > 0
    assert checks(found) == expected


CELLS: dict[str, Callable[[Cells], Cells]] = {
    "sum": lambda cells: cells._replace(micro=cells.micro + 1),
    "maximum": lambda cells: cells._replace(maximum=cells.maximum + 1),
    "last": lambda cells: cells._replace(last=np.where(np.isnan(cells.last), np.nan, 17.0)),
    "sketch": lambda cells: cells._replace(sketches=cells.sketches._replace(codes=cells.sketches.codes + 1)),
    "gone": lambda cells: select(cells, cells.series < 0),
}


@pytest.mark.parametrize("change", CELLS)
@pytest.mark.parametrize("key", ["app:n", "app:level", "app:took"])
async def test_a_changed_cell_of_a_worker_is_a_difference_and_contradicts_the_merged_row(
    dsn: str, connection: Connection, tables: Tables, change: str, key: str
) -> None:
    await a_history(connection, tables)
    assert await change_cells(connection, tables, CELLS[change], worker="w1", key=key) > 0

    found = await verified(dsn)

    changes_nothing = {("last", "app:n"), ("last", "app:took"), ("sketch", "app:n"), ("sketch", "app:level")}
    assert (found.different > 0) is ((change, key) not in changes_nothing)
    assert {one.worker for one in found.differences} <= {"w1"}
    assert checks(found) == ({"workers"} if found.different else set())


async def test_a_difference_says_where_and_what(dsn: str, connection: Connection, tables: Tables) -> None:
    await a_history(connection, tables)
    await fetch(
        connection,
        "UPDATE {r1min} r SET count = 17 FROM {series} s"
        " WHERE s.id = r.series AND s.key = 'app:n' AND bucket = %(bucket)s",
        tables,
        bucket=NOON_US // 1_000_000,
    )

    found = await verified(dsn)

    assert [str(one) for one in found.differences] == [
        "app:n 1min 2026-03-10 12:00:00 UTC worker all: observations 17 -> 2"
    ]
    assert (found.different, found.found) == (1, len(found.findings))


async def test_many_differences_are_counted_and_the_first_listed(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await a_history(connection, tables)
    changed = [
        len(await fetch(connection, f"UPDATE {{r{name}}} SET count = 99 RETURNING 1", tables)) for name in RESOLUTIONS
    ]

    found = await verified(dsn)

    assert found.different == sum(changed) > len(found.differences) == 100
    assert found.found > len(found.findings) == 100


@pytest.mark.parametrize("column", ["p50", "p95", "p99"])
async def test_a_quantile_that_is_not_the_sketchs_is_found(
    dsn: str, connection: Connection, tables: Tables, column: str
) -> None:
    await a_history(connection, tables)
    await fetch(connection, f"UPDATE {{r1day}} SET {column} = {column} + 1 WHERE sketch IS NOT NULL", tables)

    found = await verified(dsn)

    assert (found.different, checks(found)) == (0, {"quantiles", "cache"})


async def change_ring(connection: Connection, tables: Tables) -> None:
    ((fold, points),) = await fetch(connection, "SELECT fold, points FROM {cache} ORDER BY fold DESC LIMIT 1", tables)
    levels = unpack_points(points)
    hour = levels["1hour"]
    values = hour.values.copy()
    values[0, COLUMNS.index("count")] += 1
    levels["1hour"] = ChangedPoints(hour.series, hour.bucket, values)
    await fetch(
        connection,
        "UPDATE {cache} SET points = %(points)s WHERE fold = %(fold)s",
        tables,
        points=pack_points(levels),
        fold=fold,
    )


async def break_ring(connection: Connection, tables: Tables) -> None:
    await fetch(connection, "UPDATE {cache} SET points = '\\xc1' WHERE fold = 1", tables)


async def forget_a_fold(connection: Connection, tables: Tables) -> None:
    await fetch(connection, "DELETE FROM {cache} WHERE fold = 2", tables)


async def forget_the_last_fold(connection: Connection, tables: Tables) -> None:
    await fetch(connection, "DELETE FROM {cache} WHERE fold = 3", tables)


@pytest.mark.parametrize("change", [change_ring, break_ring, forget_a_fold, forget_the_last_fold])
async def test_a_cache_that_is_not_the_rollups_is_found(
    dsn: str, connection: Connection, tables: Tables, change: Callable[[Connection, Tables], Awaitable[None]]
) -> None:
    await a_history(connection, tables)
    await change(connection, tables)

    found = await verified(dsn)

    assert (found.different, checks(found)) == (0, {"cache"})


async def test_a_cache_whose_older_folds_have_older_values_is_right(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    for _ in range(3):
        await writer.append(runs=[a_run("app:n")])
        await sequence_and_fold(connection, tables)

    assert (await verified(dsn)).drift == 0


SECOND = "(producer, sequence) = (SELECT producer, sequence FROM {ledger} WHERE position = 2)"


@pytest.mark.parametrize(
    ("change", "is_different", "expected"),
    [
        (f"DELETE FROM {{log}} WHERE {SECOND}", True, {"log"}),
        (f"UPDATE {{log}} SET payload = payload || '\\x00' WHERE {SECOND}", True, {"payload"}),
        (f"UPDATE {{log}} SET sha256 = '\\x00' WHERE {SECOND}", True, {"payload", "chain"}),
        (f"UPDATE {{log}} SET closes = NOT closes WHERE {SECOND}", False, {"chain"}),
        (f"UPDATE {{log}} SET last_us = last_us + 1 WHERE {SECOND}", False, {"chain"}),
        ("UPDATE {ledger} SET chain = '\\x00' WHERE position = 2", False, {"chain"}),
        ("UPDATE {ledger} SET events = events + 1 WHERE position = 2", False, {"ledger"}),
        ("DELETE FROM {ledger} WHERE position = 2", True, {"ledger", "log", "producers"}),
        ("DELETE FROM {ledger} WHERE position = 1", True, {"ledger", "log"}),
        ("DELETE FROM {ledger} WHERE position = 6", True, {"log", "head", "producers"}),
        ("UPDATE {head} SET chain = '\\x00'", False, {"head"}),
        ("UPDATE {head} SET position = 5", False, {"head"}),
        ("UPDATE {producers} SET last_sequence = 17", False, {"producers"}),
    ],
)
async def test_damage_of_the_log_or_its_order_is_found_by_name(
    dsn: str, connection: Connection, tables: Tables, change: str, is_different: bool, expected: set[str]
) -> None:
    await a_history(connection, tables)
    await damage(connection, tables, change)

    found = await verified(dsn)

    assert (found.different > 0, checks(found)) == (is_different, expected)


async def test_a_row_that_never_got_a_position_is_found_and_one_that_waits_is_not(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await a_history(connection, tables)
    writer = LogWriter(connection, tables)
    await writer.append(runs=[a_run("app:n")])
    waiting = await verified(dsn)
    await fetch(connection, "DELETE FROM {pending} WHERE producer = %(producer)s", tables, producer=writer.producer)

    lost = await verified(dsn)

    assert waiting.drift == 0
    assert [finding.check for finding in lost.findings] == ["log"]
    assert "is not in the ledger" in str(lost.findings[0])


async def test_a_hole_is_found_and_says_which_producer(dsn: str, connection: Connection, tables: Tables) -> None:
    writer = LogWriter(connection, tables)
    for _ in range(2):
        await writer.append(runs=[a_run("app:n")])
        writer.next_id()  # a sequence that never comes
    await writer.append(runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)

    found = await verified(dsn)

    assert [str(finding) for finding in found.findings] == [
        f"producers, producer {writer.producer}: 2 of its batches 1 to 5 are missing from the ledger"
    ]


async def test_a_lost_row_that_is_given_up_is_no_finding_any_more(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n")])
    await sequence_all(connection, tables)
    await damage(connection, tables, "DELETE FROM {log}")
    await sequence_and_fold(connection, tables)
    before = await verified(dsn)
    await fetch(connection, "UPDATE {dead_letters} SET discarded_at = clock_timestamp(), why = 'gone'", tables)

    after = await verified(dsn)

    assert checks(before) == {"log"}
    assert after.drift == 0
    told = "\n".join(verified_lines(after))
    assert "version 1 leaves out 1 batch of 1 event, 1 of them given up" in told and "everything agrees" not in told


async def test_what_expired_is_not_missed(dsn: str, connection: Connection, tables: Tables) -> None:
    await a_history(connection, tables)
    first = NOON_US // 1_000_000
    await fetch(
        connection,
        "UPDATE {versions} SET horizon_1min = %(at)s + 1800, horizon_1hour = %(at)s + 3600",
        tables,
        at=first,
    )
    await fetch(connection, "DELETE FROM {r1min} WHERE bucket < %(at)s + 1800", tables, at=first)

    assert (await verified(dsn)).drift == 0


async def test_a_window_sees_what_lies_whole_in_it_and_nothing_else(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await a_history(connection, tables)
    await fetch(connection, "UPDATE {r1min} SET count = 17 WHERE bucket = %(noon)s", tables, noon=NOON_US // 1_000_000)
    minute, second = timedelta(minutes=1), timedelta(seconds=1)

    whole = await verified(dsn, since=NOON, until=NOON + minute)
    cut = await verified(dsn, since=NOON + second, until=NOON + minute)
    short = await verified(dsn, since=NOON, until=NOON + minute - second)
    since = await verified(dsn, since=NOON)
    until = await verified(dsn, until=NOON)

    assert whole.different == since.different > 0
    assert cut.different == short.different == until.different == 0
    assert {difference.resolution for difference in whole.differences} == {"1min"}
    assert 0 < whole.events < since.events == 54


async def test_a_window_that_cuts_an_hour_does_not_miss_it(dsn: str, connection: Connection, tables: Tables) -> None:
    await a_history(connection, tables)

    found = await verified(dsn, since=NOON, until=NOON + timedelta(minutes=40))

    assert (found.differences, found.findings) == ([], [])
    assert found.points > 0


async def test_a_window_has_what_came_late_and_leaves_out_what_was_ordered_after_the_fold(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await a_history(connection, tables)
    late = LogWriter(connection, tables, "late")
    await late.append(runs=[a_run("app:n", at_us=NOON_US), a_run("app:n", at_us=NOON_US + 10**9)])
    await sequence_and_fold(connection, tables)
    await late.append(runs=[a_run("app:n", at_us=NOON_US)])

    found = await verified(dsn, since=NOON + timedelta(minutes=10), until=NOON + timedelta(hours=1))

    assert found.drift == 0
    assert found.position == 7


async def test_a_budget_draws_one_range_at_least_and_goes_on_until_all_have_been_covered(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await a_history(connection, tables)

    none = await verified(dsn, since=NOON - timedelta(days=2), until=NOON + timedelta(days=2), budget_s=0)
    enough = await verified(
        dsn, since=NOON - timedelta(days=2), until=NOON + timedelta(days=2), budget_s=60, chance=Random(1)
    )

    counted = [(await fetch(connection, f"SELECT count(*) FROM {{r{name}}}", tables))[0][0] for name in RESOLUTIONS]
    assert (none.spans, none.drift) == (1, 0)
    assert (enough.spans, enough.drift) == (5, 0)  # three days, as no point lies before the 10th, and an hour of two
    assert enough.points > sum(counted)
    assert enough.share is not None and enough.share.by_resolution["1day"] < 1  # the months since are not in it


async def test_a_budget_for_a_window_before_the_first_point_looks_at_that(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await a_history(connection, tables)

    found = await verified(dsn, since=NOON - timedelta(days=2), until=NOON - timedelta(days=1), budget_s=60)

    assert (found.drift, found.points, found.spans) == (0, 0, 1)


async def test_with_time_enough_a_sample_finds_damage(dsn: str, connection: Connection, tables: Tables) -> None:
    await a_history(connection, tables)
    await fetch(connection, "UPDATE {r1day} SET count = count + 1", tables)

    found = await verified(dsn, until=NOON + timedelta(days=1), budget_s=60, chance=Whole())

    assert found.different > 0


class Whole(Random):
    """Draws whole days."""

    def random(self) -> float:
        return 0.99


def test_days_are_drawn_whole_or_as_one_hour_and_stay_in_the_span() -> None:
    day_us = 86_400_000_000
    asked = Span(3 * day_us + 1, 20 * day_us + 1)
    horizons = {"1min": 0, "5min": 0, "1hour": 10 * 86_400, "1day": 5 * 86_400}

    drawn = list(draw(asked, horizons | {"1min": 10**9, "5min": 10**9}, 0, Random(7)))

    assert sorted({since // day_us for since, _ in drawn if since is not None}) == list(range(5, 21))
    covered = [
        any(since <= at and at + 3_600_000_000 <= until and until - since > 3_600_000_000 for since, until in drawn)
        for at in range(5 * day_us, 20 * day_us, 3_600_000_000)
    ]
    assert all(covered)
    widths = {until - since for since, until in drawn if since is not None and until is not None}
    assert {day_us, 3_600_000_000} <= widths
    hours = [since for since, until in drawn if since is not None and until == since + 3_600_000_000]
    assert all(since >= 10 * day_us for since in hours)
    assert all(asked.since_us <= since and until <= asked.until_us for since, until in drawn)  # type: ignore[operator]


async def test_code_with_other_rules_is_refused_with_the_sentence(dsn: str) -> None:
    def cost(jobs: object) -> list[object]:
        return []

    async with an_app(dsn, Metrics(rules=[cost], rules_version=2)) as (chancy, _):  # type: ignore[list-item]
        with pytest.raises(VersionRefused, match=r"version 1 has rules 3\.0, this code has 3\.2"):
            await verify(chancy)


async def test_a_naive_moment_is_refused(dsn: str) -> None:
    with pytest.raises(MetricsLogError, match="has no zone"):
        await verified(dsn, since=datetime(2026, 3, 10))


async def test_what_was_found_is_in_status_and_in_the_metrics_until_the_next_run(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await a_history(connection, tables)
    async with an_app(dsn) as (chancy, metrics):
        never = await read_status(chancy)
        await fetch(connection, MAXIMUM, tables)
        bad = await verify(chancy)
        unhealthy = await read_status(chancy)
        await metrics.flush(chancy)
        drift = (await metrics.get_metrics(chancy, DRIFT.key))[DRIFT.key].values_1day[0][1]
        await fetch(connection, MAXIMUM.replace("+ 1", "- 1"), tables)
        await verify(chancy)
        healthy = await read_status(chancy)

    assert never.verified is None
    assert unhealthy.verified is not None
    assert (unhealthy.verified.different, unhealthy.verified.found) == (bad.different, bad.found)
    assert any(reason.startswith(f"verify found {bad.different} differences") for reason in unhealthy.unhealthy)
    assert drift == bad.drift > 0
    assert healthy.verified is not None and healthy.verified.sentences == []
    assert not any("verify" in reason for reason in healthy.unhealthy)


async def status_of(dsn: str) -> Status:
    async with an_app(dsn) as (chancy, _):
        return await read_status(chancy)


def add_to(cells: Cells, bucket: int, count: int) -> Cells:
    return cells._replace(micro=cells.micro + count * (cells.bucket == bucket))


async def test_what_was_found_stays_open_until_a_run_over_its_spot_finds_nothing(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await a_history(connection, tables)
    noon = NOON_US // 1_000_000
    await change_cells(connection, tables, lambda cells: add_to(cells, noon, 1))
    bad = await verified(dsn, since=NOON, until=NOON + timedelta(minutes=2))
    half_an_hour = timedelta(minutes=30)

    elsewhere = await verified(dsn, since=NOON + half_an_hour, until=NOON + 2 * half_an_hour)
    coarser = await verified(dsn, since=NOON, until=NOON + timedelta(seconds=30))
    nothing = await verified(dsn, since=EPOCH, until=EPOCH + timedelta(days=1))
    soon = await verified(dsn, since=datetime.now(NOON.tzinfo) - timedelta(seconds=20))
    still = await status_of(dsn)
    await change_cells(connection, tables, lambda cells: add_to(cells, noon, -1))
    mended = await verified(dsn, since=NOON, until=NOON + timedelta(minutes=1))
    healthy = await status_of(dsn)

    assert bad.drift > 0 == elsewhere.drift == coarser.drift == nothing.drift == soon.drift == mended.drift
    assert elsewhere.points > 0 == coarser.points == nothing.points == soon.points
    assert nothing.nothing == "there are no points in that time"
    assert coarser.nothing == "no kept bucket lies entirely in that time"
    assert [elsewhere.open, coarser.open, nothing.open, soon.open, mended.open] == [bad.drift] * 4 + [0]
    assert still.verified is not None and still.verified.at == elsewhere.at
    [reason] = still.unhealthy
    assert reason.startswith(
        f"verify found {counted(bad.different, 'difference')} and {counted(bad.found, 'other fault')}, the first at "
    )
    assert "1min 2026-03-10 12:00:00 UTC worker w1" in reason
    assert healthy.unhealthy == []
    told = "\n".join(verified_lines(elsewhere))
    assert "they agree" in told and f"{bad.drift} findings of earlier runs are open" in told
    drift = await fetch(connection, "SELECT count(*) FROM {log} WHERE worker NOT IN ('w1', 'w2')", tables)
    assert drift == [(3,)]  # of the runs that compared something


async def test_a_full_run_closes_all_and_a_bucket_below_the_horizon_takes_its_findings_along(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await a_history(connection, tables)
    await fetch(connection, "UPDATE {r1min} SET last_index = 7 WHERE last IS NOT NULL", tables)
    ((chain,),) = await fetch(connection, "SELECT chain FROM {ledger} WHERE position = 2", tables)
    await damage(connection, tables, "UPDATE {ledger} SET chain = '\\x00' WHERE position = 2")
    bad = await verified(dsn)
    await fetch(connection, "UPDATE {versions} SET horizon_1min = %(end)s", tables, end=NOON_US // 1_000_000 + 7_200)
    expired = await status_of(dsn)
    seen = await verified(dsn, since=NOON, until=NOON + timedelta(hours=1))

    assert bad.drift > 2
    assert expired.verified is not None
    assert {(fault.check, fault.scale) for fault in expired.verified.open} == {
        ("chain", "position"),
        ("resolutions", "5min"),
    }
    assert expired.verified.expired > bad.different > 0 == expired.verified.different
    [note] = seen.notes
    assert note == f"{expired.verified.expired} earlier findings ended: their buckets are not kept any more"
    assert {finding.check for finding in seen.findings} == {"chain"}
    await damage(connection, tables, "UPDATE {ledger} SET chain = %(chain)s WHERE position = 2", chain=chain)
    assert (await verified(dsn)).open == 0


async def test_a_run_that_compared_nothing_closes_nothing_even_where_something_was_wrong(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await a_history(connection, tables)
    later = NOON_US // 1_000_000 + 36_000
    await fetch(
        connection,
        "INSERT INTO {r1min} (version, series, bucket, count, last_us, sum, min, max)"
        " SELECT version, series, %(later)s, 1, 1, 1, 1, 1 FROM {r1min} LIMIT 1",
        tables,
        later=later,
    )
    ten_hours = timedelta(hours=10)
    bad = await verified(dsn, since=NOON + ten_hours, until=NOON + ten_hours + timedelta(minutes=5))
    await fetch(connection, "DELETE FROM {r1min} WHERE bucket = %(later)s", tables, later=later)

    empty = await verified(dsn, since=NOON + ten_hours, until=NOON + ten_hours + timedelta(minutes=5))
    whole = await verified(dsn)

    assert (bad.points, empty.points, empty.drift) == (1, 0, 0)
    assert bad.open == empty.open and bad.open > 0
    assert whole.open == 0


async def test_a_position_is_right_again_when_a_run_that_passes_it_says_so(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await a_history(connection, tables)
    await damage(connection, tables, f"UPDATE {{log}} SET closes = NOT closes WHERE {SECOND}")
    bad = await verified(dsn)
    await damage(connection, tables, f"UPDATE {{log}} SET closes = NOT closes WHERE {SECOND}")

    before = await verified(dsn, since=NOON + timedelta(minutes=30), until=NOON + timedelta(hours=1))
    after = await verified(dsn, since=NOON, until=NOON + timedelta(minutes=5))

    assert (bad.open, before.open, after.open) == (1, 1, 0)


async def test_a_version_nobody_compared_with_the_log_is_not_said_to_be_verified_by_the_run_on_another(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await a_history(connection, tables)
    await damage(connection, tables, "UPDATE {head} SET chain = '\\x00'")
    await fetch(connection, MAXIMUM, tables)
    bad = await verified(dsn)
    for_years = dict.fromkeys(RESOLUTIONS, 10**8)
    metrics = Metrics(sync_interval=1, max_points_per_resolution=for_years, maximum_metric_age=10**9)
    async with an_app(dsn, metrics) as (chancy, _):
        await rebuild(chancy)
    status = await status_of(dsn)

    assert bad.different > 0
    assert status.verified is not None
    assert (status.version, status.verified.version, status.verified.share.whole) == (2, 1, 0)
    assert status.verified.rebuilt is not None
    assert (status.verified.rebuilt.version, status.verified.rebuilt.different) == (1, bad.different)
    assert [fault.check for fault in status.verified.open] == ["head"]  # the log's, whatever the version
    assert "version 2 was never compared with the log" in status.not_looked_at[0]
    text = "\n".join(status_lines(status))
    assert " of version 1, which is not the live one," in text
    assert "log checked     whole up to position 6" in text


async def test_the_command_ends_with_0_or_3_and_says_what_it_found(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await a_history(connection, tables)

    right = run(dsn, "verify")
    await fetch(connection, COUNT, tables)
    wrong = run(dsn, "verify", "--json")
    window = run(dsn, "verify", "--since", "2026-03-11", "--until", "1h", "--budget", "0s")

    assert (right.returncode, right.stdout.count("\n")) == (0, 1), right.stderr
    assert right.stdout.endswith("everything agrees\n")
    assert wrong.returncode == 3, wrong.stderr
    said = json.loads(wrong.stdout)
    assert said["different"] == len(said["differences"]) > 0
    difference = said["differences"][0]
    assert (difference["resolution"], difference["worker"]) == ("1min", None)
    assert difference["old"]["observations"] == difference["new"]["observations"] + 1
    assert {finding["check"] for finding in said["findings"]} == {"workers", "resolutions", "cache", "quantiles"}
    assert window.returncode == 3, window.stderr  # the cache is looked at whatever the window
    assert "0 differences" in window.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--since", "yesterday"], "is not a moment"),
        (["--budget", "much"], "is not a duration"),
        (["--since", "1h", "--until", "2h"], "is not after --since"),
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], message: str) -> None:
    done = run("postgresql://", "verify", *arguments)

    assert done.returncode == 2
    assert message in done.stderr


async def test_the_documented_cron_job_runs(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "verify.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0].replace("postgresql://localhost/app", dsn)
    (tmp_path / "documented_cron.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    documented = importlib.import_module("documented_cron")
    async with documented.chancy as chancy:
        await chancy.migrate()
        await documented.schedule()

        async with Worker(chancy, register_signal_handlers=False):
            pushed = await chancy.push(documented.verify_metrics.job)
            done = await chancy.wait_for_job(pushed, timeout=30)
        status = await read_status(chancy)

    assert done is not None and done.state == QueuedJob.State.SUCCEEDED
    assert status.verified is not None and status.verified.spans == 1


async def test_a_total_that_no_step_can_have_written_is_found_and_left_out(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n"), a_run("app:odd")])
    await sequence_and_fold(connection, tables)
    async with an_app(dsn) as (chancy, _):
        before = await read_totals(chancy)
        await fetch(
            connection,
            "UPDATE {totals} SET sum = 'NaN' WHERE series = (SELECT id FROM {series} WHERE key = 'app:odd')",
            tables,
        )
        after = await read_totals(chancy)
        found = await verified(dsn)

    assert [one.series.key for one in before.series] == ["app:n", "app:odd"]
    assert [one.series.key for one in after.series] == ["app:n"]
    [sentence] = found.findings
    assert "app:odd totals, generation 2: no fold writes such a row" in str(sentence)
    assert "`chancy-metrics rebuild --totals` makes it anew" in str(sentence)
