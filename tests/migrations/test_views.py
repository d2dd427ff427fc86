"""The views show what readers see: the live version's kept points, with the parts of their keys."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.facts import Kind, Series
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.plugin import mark, marks, rebuild, take_back, undo
from chancy_metrics.plugin.host.moments import from_us
from chancy_metrics.projections.buckets import bucket_of
from chancy_metrics.projections.rules.built_in import STATES
from chancy_metrics.projections.rules.key_parts import _PATTERNS, key_parts
from chancy_metrics.projections.versions.lag import live_lag
from tests.factories import (
    LogWriter,
    a_row,
    a_run,
    an_app,
    damage,
    fetch,
    now_us,
    sequence_all,
    sequence_and_fold,
)

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
WORDS = [
    "job:",
    "queue:",
    "table:",
    "global:status:",
    "workers:",
    "mark:",
    ":",
    "failed",
    "throughput",
    "depth",
    "\n",
    "",
]
ENDINGS = ["failed", "execution_time", "wait_time", "total_time", "attempts", "pending", "oldest_wait_seconds", "slots"]
names = st.lists(st.sampled_from([*WORDS, *ENDINGS]) | st.text(CHARACTERS, max_size=5), min_size=1, max_size=7)
kinds_and_units: st.SearchStrategy[tuple[Kind, str]] = st.sampled_from(
    [*_PATTERNS, ("counter", "euro"), ("gauge", "seconds"), ("histogram", "count")]  # type: ignore[list-item]
)


@st.composite
def series(draw: st.DrawFn) -> Series:
    """A series of this plugin's own, or one that comes near."""
    kind, unit = draw(kinds_and_units)
    patterns = [pattern.pattern for _, pattern in _PATTERNS.get((kind, unit), ())]
    key = draw(
        st.one_of(
            names.map("".join), *(st.from_regex(one, fullmatch=True, alphabet=CHARACTERS) for one in patterns)
        ).filter(bool)
    )
    return Series(key, kind, unit)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.sets(series(), min_size=1, max_size=30))
async def test_the_columns_of_a_key_are_its_parts(connection: Connection, drawn: set[Series]) -> None:
    async with connection.transaction(force_rollback=True), connection.cursor() as cursor:
        await cursor.executemany("INSERT INTO chancy_metrics_series (key, kind, unit) VALUES (%s, %s, %s)", list(drawn))
        await cursor.execute(
            "SELECT key, kind, unit, subject, name, func, queue, state, measure FROM chancy_metrics_keys"
        )
        found = await cursor.fetchall()

    for key, kind, unit, subject, name, func, queue, state, measure in found:
        parts = key_parts(Series(key, kind, unit))
        assert (subject, name or "", measure, state) == parts
        assert func == (parts.name if parts.subject == "job" else None)
        assert queue == (parts.name if parts.subject == "queue" else None)
    assert len(found) == len(drawn)


async def view(connection: Connection, query: str) -> list[tuple[object, ...]]:
    return await (await connection.execute(query)).fetchall()  # type: ignore[arg-type] # a test's own


async def test_a_view_shows_the_points_that_readers_see(dsn: str, connection: Connection, tables: Tables) -> None:
    at_us = now_us()
    run = a_run("app:ms", [1.0, 2.0, 9.0], kind="histogram", unit="ms", at_us=at_us)
    writer = LogWriter(connection, tables)
    await writer.append(jobs=[a_row(at_us, func="app.mail")], runs=[run, a_run("app:open", [3.0, 2.0], kind="gauge")])
    await sequence_and_fold(connection, tables)

    async with an_app(dsn) as (chancy, metrics):
        [shown] = (await metrics.get_metrics(chancy, "app:ms", resolution="1hour"))["series"]["app:ms"].data

    for resolution, width in RESOLUTIONS.items():
        [point] = await view(
            connection,
            "SELECT time, kind, unit, subject, func, measure, count, sum, avg, min, max, p50, p95, p99, last, last_at,"
            f" bucket, width_s FROM chancy_metrics_points_{resolution} WHERE key = 'app:ms'",
        )
        bucket = bucket_of(at_us, width)
        assert point[:6] == (from_us(bucket * 1_000_000), "histogram", "ms", "custom", None, "app:ms")
        assert point[6:10] == (3, 12, 4, 1.0)
        assert point[10:14] == (9.0, shown.value["p50"], shown.value["p95"], shown.value["p99"])
        assert point[14:] == (None, from_us(at_us), bucket, width)
    assert await view(
        connection,
        "SELECT resolution, func, state, sum FROM chancy_metrics_points WHERE subject = 'job' AND measure = 'updates'",
    ) == [(resolution, "app.mail", "succeeded", 1) for resolution in RESOLUTIONS]
    assert await view(connection, "SELECT last FROM chancy_metrics_points_1day WHERE kind = 'gauge'") == [(2.0,)]


async def test_a_view_leaves_out_what_is_past_its_horizon_and_rows_that_no_fold_wrote(
    connection: Connection, tables: Tables
) -> None:
    minutes = [now_us() - ago * 60_000_000 for ago in (2, 1, 0)]
    await LogWriter(connection, tables).append(runs=[a_run("app:n", [1.0], at_us=at_us) for at_us in minutes])
    await sequence_and_fold(connection, tables)
    first, second, third = (bucket_of(at_us, 60) for at_us in minutes)

    await fetch(connection, "UPDATE {versions} SET horizon_1min = %(second)s", tables, second=second)
    kept = await view(connection, "SELECT bucket FROM chancy_metrics_points_1min ORDER BY bucket")
    await fetch(
        connection, "UPDATE {r1min} SET bucket = %(far)s WHERE bucket = %(second)s", tables, far=2**62, second=second
    )
    await fetch(connection, "UPDATE {r1min} SET max = 'NaN' WHERE bucket = %(third)s", tables, third=third)
    await fetch(connection, "UPDATE {r1min} SET series = 99 WHERE bucket = %(first)s", tables, first=first)
    await fetch(connection, "UPDATE {versions} SET horizon_1min = 0", tables)

    assert kept == [(second,), (third,)]
    assert await view(connection, "SELECT * FROM chancy_metrics_points_1min WHERE time > '2020-01-01'") == []


async def test_a_view_shows_a_rebuild_and_its_undo_at_once(dsn: str, connection: Connection, tables: Tables) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n", [5.0], at_us=now_us())])
    await sequence_and_fold(connection, tables)
    await fetch(connection, "UPDATE {r1day} SET sum = 7", tables)
    query = "SELECT sum FROM chancy_metrics_points_1day WHERE key = 'app:n'"

    before = await view(connection, query)
    async with an_app(dsn) as (chancy, _):
        await rebuild(chancy)
        rebuilt = await view(connection, query)
        await undo(chancy)
    undone = await view(connection, query)

    assert (before, rebuilt, undone) == ([(7,)], [(5,)], [(7,)])


@pytest.mark.parametrize(
    ("since_s", "step_s", "resolution"),
    [
        (9_900, 1, "1min"),
        (9_841, 60, "1min"),
        (9_840, 60, "5min"),  # the first minute shown is no longer kept
        (9_900, 61, "5min"),
        (9_900, 3_600, "1hour"),
        (6_000, 1, "5min"),
        (0, 1, "1hour"),
        (0, 3_601, "1day"),
        (0, 10**9, "1day"),
    ],
)
async def test_the_resolution_is_the_finest_that_is_kept_and_no_finer_than_asked(
    connection: Connection, tables: Tables, since_s: int, step_s: float, resolution: str
) -> None:
    await fetch(connection, "UPDATE {versions} SET horizon_1min = 9900, horizon_5min = 6000", tables)

    assert await view(connection, f"SELECT chancy_metrics_resolution_for({since_s}, {step_s})") == [(resolution,)]


async def test_marks_are_those_that_were_not_taken_back(dsn: str, connection: Connection, tables: Tables) -> None:
    async with an_app(dsn) as (chancy, metrics):
        await mark(chancy, "deploy 1")
        await mark(chancy, "deploy 2")
        await metrics.flush(chancy)
        await take_back(chancy, "deploy 1")
        await metrics.flush(chancy)
        listed = await marks(chancy)

    found = await view(connection, "SELECT time, text, count FROM chancy_metrics_marks ORDER BY time")
    assert found == [(one.at, one.text, one.count) for one in listed]
    assert [one.text for one in listed] == ["deploy 2"]


async def test_the_pipeline_says_how_much_waits_and_for_how_long(connection: Connection, tables: Tables) -> None:
    query = "SELECT version, position, waiting_batches, lag_s, dead_letters FROM chancy_metrics_pipeline"
    writer = LogWriter(connection, tables)
    new = await view(connection, query)
    await writer.append(runs=[a_run()])
    await damage(connection, tables, "UPDATE {log} SET appended_at = appended_at - interval '1 hour'")
    await sequence_all(connection, tables)
    await writer.append(runs=[a_run()])
    [waiting] = await view(connection, query)
    async with short_transaction(connection) as cursor:
        of_status = await live_lag(cursor, tables)
    await sequence_and_fold(connection, tables)
    await writer.spill(runs=[a_run()])
    [spilled] = await view(connection, query)

    assert new == [(1, 0, 0, 0.0, 0)]
    assert waiting[:3] == (1, 0, 2) and waiting[3] == pytest.approx(of_status.waiting_s, abs=2)
    assert 3_600 <= of_status.waiting_s < 3_700
    assert spilled[:3] == (1, 2, 1) and 0 < float(str(spilled[3])) < 60


async def test_a_series_and_a_range_of_time_are_a_range_of_the_index(connection: Connection, tables: Tables) -> None:
    await fetch(
        connection,
        "INSERT INTO {series} (key, kind, unit) SELECT 'job:app.f' || n || ':' || state, 'counter', 'count'"
        " FROM generate_series(1, 200) AS n, unnest(%(states)s::text[]) AS state",
        tables,
        states=list(STATES),
    )
    await fetch(
        connection,
        "INSERT INTO {r1day} (version, series, bucket, count, last_us, sum, min, max)"
        " SELECT 1, id, day * 86400, 1, day * 86400000000, 1, 1, 1"
        " FROM {series} CROSS JOIN generate_series(20000::bigint, 20089) AS day",
        tables,
    )
    await fetch(connection, "ANALYZE {series}, {r1day}, {head}, {versions}", tables)
    first = 20_050 * 86_400
    week = f"bucket BETWEEN {first} AND {first + 6 * 86_400}"
    any_width = f"resolution = chancy_metrics_resolution_for({first}, 80000)"

    for where, series in (
        ("points_1day WHERE key = 'job:app.f7:failed'", 1),
        ("points_1day WHERE func IN ('app.f7', 'app.f8') AND state = 'failed'", 2),
        (f"points WHERE {any_width} AND func = 'app.f7' AND state = 'failed'", 1),
    ):
        query = f"EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF) SELECT * FROM chancy_metrics_{where} AND {week}"
        plan = "\n".join(str(line) for (line,) in await view(connection, query))
        scan = re.search(rf"using chancy_metrics_1day_pkey .*rows=7\S* loops={series}\)\n +Index Cond: (.*)", plan)
        assert scan and "series = " in scan[1] and re.search(rf"bucket >= '?{first}", scan[1]), plan
        assert "Seq Scan on chancy_metrics_1day" not in plan


async def test_a_queues_jobs_are_due_until_they_are_taken(connection: Connection, tables: Tables) -> None:
    query = "SELECT jobs, round(wait_s) FROM {due}('mail')"

    empty = await fetch(connection, query, tables)
    await connection.execute(
        """
        INSERT INTO chancy_jobs (id, queue, func, state, attempts, scheduled_at)
        SELECT gen_random_uuid(), queue, 'f', state, attempts, now() + ahead * interval '1 second'
        FROM (VALUES ('mail', 'pending', 0, -5), ('mail', 'retrying', 1, -40), ('mail', 'retrying', 3, -60),
            ('mail', 'pending', 0, 90), ('mail', 'running', 0, -99), ('mail', 'failed', 4, -99),
            ('other', 'pending', 0, -99)) AS job (queue, state, attempts, ahead)
        """
    )
    three = await fetch(connection, query, tables)
    await connection.execute("UPDATE chancy_jobs SET state = 'running' WHERE state = 'retrying'")
    one = await fetch(connection, query, tables)
    await connection.execute(
        "UPDATE chancy_jobs SET state = 'running' WHERE state = 'pending' AND scheduled_at < now()"
    )
    none_due = await fetch(connection, query, tables)

    assert (empty, three, one, none_due) == ([(0, 0)], [(3, 60)], [(1, 5)], [(0, 0)])
