"""A version folds the ledger exactly once, in bounded steps, whoever else tries, and equals a fold from scratch."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, Cursor
from chancy_metrics.events.facts import KINDS, Series
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.events.sequencer import sequence
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.rollups.delta_ring import RING_SIZE
from chancy_metrics.projections.rules.rule_set import RuleSet
from chancy_metrics.projections.versions import version
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.replay import replay, stored
from chancy_metrics.projections.versions.step import STEP_EVENTS
from chancy_metrics.projections.versions.version import Version, lock_version
from tests.factories import (
    NOON_US,
    LogWriter,
    a_row,
    a_run,
    append_as,
    connections,
    fetch,
    sequence_all,
    sequence_and_fold,
    total,
)

MINUTE_US = 60_000_000


async def position(connection: Connection, tables: Tables) -> int:
    return int((await fetch(connection, "SELECT position FROM {versions} WHERE status = 'live'", tables))[0][0])


async def counts(connection: Connection, tables: Tables) -> dict[str, int]:
    return dict((await fetch(connection, "SELECT counts FROM {versions} WHERE status = 'live'", tables))[0][0])


runs = st.lists(
    st.builds(
        lambda kind, name, unit, at, values: (kind, name, unit, at, values),
        kind=st.sampled_from(KINDS),
        name=st.sampled_from(["a", "b"]),
        unit=st.sampled_from(["count", "s"]),
        at=st.sampled_from([0, 1, 59_999_999, MINUTE_US, 7 * MINUTE_US, 90 * MINUTE_US, 40_000 * MINUTE_US, 10**15]),
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
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=chunks)
async def test_whatever_the_chunks_stored_equals_replay_equals_plain_python(
    dsn: str, tables: Tables, chunks: list[tuple[list[tuple[str, str, str, int, list[float]]], str, str]]
) -> None:
    mine = uuid.uuid4().hex
    writers: dict[str, LogWriter] = {}
    batches = []
    async with connections(dsn, 1) as (connection,):
        for drawn, worker, then in chunks:
            writer = writers.setdefault(worker, LogWriter(connection, tables, worker))
            made = [
                a_run(f"{mine}:{name}", values, kind=kind, unit=unit, at_us=NOON_US + at)  # type: ignore[arg-type]
                for kind, name, unit, at, values in drawn
            ]
            jobs = [a_row(NOON_US, func=f"{mine}.job")] * len(drawn)
            batches.append((await writer.append(jobs=jobs, runs=made), worker, made))
            if then in ("order", "both"):
                await sequence(connection, tables, limit=2)
            if then in ("fold", "both"):
                await advance(connection, tables, folded_by="test")
        await sequence_and_fold(connection, tables)
        live, again = await stored(connection, tables), await replay(connection, tables)
        positions = {
            (row[0], row[1]): (row[2], row[3])
            for row in await fetch(
                connection,
                "SELECT o.producer, o.sequence, o.position, (extract(epoch FROM appended_at) * 1000000)::bigint"
                " FROM {ledger} o JOIN {log} l USING (day, producer, sequence)",
                tables,
            )
        }

    assert diff(live, again) == []
    expected = plain(
        [(*positions[batch_id.producer, batch_id.sequence], worker, made) for batch_id, worker, made in batches]
    )
    found = {
        point[:4]: (point.observations, Fraction(point.sum), point.minimum, point.maximum, point.last_us, point.last)
        for point in live
        if point.series.key.startswith(f"{mine}:")
    }
    assert found == expected


def plain(batches: Sequence[tuple[int, int, str, Sequence[object]]]) -> dict[tuple[object, ...], tuple[object, ...]]:
    """The same points by dicts and fractions: (count, sum, min, max, last_us, last)."""
    seen: dict[tuple[object, ...], list[tuple[int, int, int, float]]] = {}
    for position, appended_us, worker, made in batches:
        index = 0
        for run in made:
            for at_us, value in zip(run.at_us, run.values, strict=True):  # type: ignore[attr-defined]
                at_us = min(at_us, appended_us)
                for resolution, width in RESOLUTIONS.items():
                    for who in (None, worker):
                        bucket = at_us // (width * 1_000_000) * width
                        where = (resolution, who, run.series, bucket)  # type: ignore[attr-defined]
                        seen.setdefault(where, []).append((at_us, position, index, value))
                index += 1
    return {
        where: (
            len(rows),
            sum((Fraction(row[3]) for row in rows), Fraction()),
            min(row[3] for row in rows),
            max(row[3] for row in rows),
            max(row[0] for row in rows),
            max(rows)[3] if where[2].kind == "gauge" else None,  # type: ignore[attr-defined]
        )
        for where, rows in seen.items()
    }


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
@pytest.mark.parametrize("projectors", [2, 5])
async def test_projectors_without_a_leader_count_nothing_twice(
    dsn: str, tables: Tables, projectors: int, isolation: str
) -> None:
    batches, done = 120, False
    async with connections(dsn, 1) as (admin,):
        await admin.execute(f"ALTER DATABASE {admin.info.dbname} SET default_transaction_isolation = '{isolation}'")

    async def write(connection: Connection) -> None:
        nonlocal done
        writer = LogWriter(connection, tables)
        for n in range(batches):
            await writer.append(runs=[a_run("app:n", [1.0] * 3), a_run(f"app:{n % 40}")])
        done = True

    async def project(connection: Connection, name: str) -> None:
        while not done:
            await sequence(connection, tables, limit=5)
            await advance(connection, tables, folded_by=name)

    async with connections(dsn, projectors + 1) as (first, *others):
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write, first)
                for n, connection in enumerate(others):
                    tasks.start_soon(project, connection, f"p{n}")
        await sequence_and_fold(first, tables)

        assert await total(first, tables, "app:n") == [3 * batches] * 4
        assert diff(await stored(first, tables), await replay(first, tables)) == []


async def test_a_step_is_bounded_by_events_but_takes_one_batch_at_least(connection: Connection, tables: Tables) -> None:
    writer = LogWriter(connection, tables)
    for size in (STEP_EVENTS + 5, STEP_EVENTS - 10, 10, 1):
        await writer.append(runs=[a_run(values=[1.0] * size)])
    await sequence_all(connection, tables)

    steps = [await advance(connection, tables, folded_by="f") for _ in range(4)]

    assert [step.events for step in steps] == [STEP_EVENTS + 5, STEP_EVENTS, 1, 0]
    assert [step.position for step in steps] == [1, 3, 4, 4]
    assert [step.caught_up for step in steps] == [False, False, False, True]


async def test_a_step_says_who_took_it_and_how_big_it_was(connection: Connection, tables: Tables) -> None:
    for folder in ("f1", "f1", "f2"):
        await LogWriter(connection, tables).append(runs=[a_run(values=[1.0, 2.0])])
        await sequence_all(connection, tables)
        await advance(connection, tables, folded_by=folder)

    [row] = await fetch(
        connection,
        "SELECT folded_by, folds, fold_events, fold_us > 0 FROM {versions} WHERE version = 1",
        tables,
    )
    assert row == ("f2", 3, 2, True)


async def test_who_finds_the_version_locked_leaves_soon(dsn: str, tables: Tables) -> None:
    async with connections(dsn, 2) as (holder, connection), holder.transaction():
        await LogWriter(connection, tables).append(runs=[a_run()])
        await sequence_all(connection, tables)
        await fetch(holder, "SELECT 1 FROM {versions} WHERE version = 1 FOR UPDATE", tables)

        with anyio.fail_after(5):
            done = await advance(connection, tables, folded_by="f")

        assert (done.events, done.reason) == (0, "another process folds")


async def test_a_step_waits_out_who_holds_the_version_for_milliseconds(
    dsn: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connections(dsn, 2) as (holder, connection):
        await LogWriter(connection, tables).append(runs=[a_run()])
        await sequence_all(connection, tables)
        await holder.execute("BEGIN")
        await fetch(holder, "SELECT 1 FROM {versions} WHERE version = 1 FOR UPDATE", tables)
        tried = list[bool]()

        async def lock(cursor: Cursor, tables: Tables, number: int) -> Version | None:
            found = await lock_version(cursor, tables, number)
            tried.append(found is not None)
            if found is None:
                await holder.execute("COMMIT")
            return found

        monkeypatch.setattr(version, "lock_version", lock)
        done = await advance(connection, tables, folded_by="f")

    assert tried == [False, True]
    assert (done.events, done.position, done.reason) == (1, 1, None)


@pytest.mark.parametrize(
    ("state", "folded"), [("attached", 0b111111), ("closed", 0b111111), ("absorbed", 0b101010), ("gone", 0b101010)]
)
@pytest.mark.parametrize("step_events", [20, STEP_EVENTS])
async def test_batches_of_days_in_the_baseline_are_passed_over_wherever_they_lie_and_no_others(
    connection: Connection, tables: Tables, state: str, folded: int, step_events: int
) -> None:
    today = datetime.now(UTC).date()
    yesterday = today - timedelta(days=1)
    await make_days(connection, tables, today=yesterday, ahead=0)
    for number, day in enumerate([yesterday, today] * 3):  # late ones of yesterday lie behind some of today
        await LogWriter(connection, tables).append(runs=[a_run("app:n", [float(1 << number)])], day=day)
    await sequence_all(connection, tables)
    await fetch(connection, f"UPDATE {{days}} SET state = '{state}' WHERE day = %(day)s", tables, day=yesterday)
    if state == "gone":
        await connection.execute(sql.SQL("DROP TABLE {}").format(tables.partition(yesterday)))

    events = 0
    while not (done := await advance(connection, tables, folded_by="f", step_events=step_events)).caught_up:
        assert not done.reason
        events += done.events

    assert await total(connection, tables, "app:n") == [folded] * 4
    assert (events, done.position) == (folded.bit_count(), 6)
    assert await fetch(connection, "SELECT position FROM {dead_letters}", tables) == []


async def test_a_version_with_rules_of_other_code_is_left_alone(connection: Connection, tables: Tables) -> None:
    await LogWriter(connection, tables).append(runs=[a_run()])
    await sequence_all(connection, tables)

    done = await advance(connection, tables, folded_by="f", rules=RuleSet(user=5))

    assert done.reason == "version 1 has rules 3.0, this code has 3.5"
    assert await position(connection, tables) == 0


async def test_events_below_every_horizon_are_counted_as_expired_and_make_no_rows(
    connection: Connection, tables: Tables
) -> None:
    noon = NOON_US // 1_000_000
    await fetch(
        connection,
        "UPDATE {versions} SET horizon_1min = %(t)s, horizon_5min = %(t)s, horizon_1hour = %(t)s, horizon_1day = %(d)s",
        tables,
        t=noon,
        d=noon // 86_400 * 86_400,
    )
    times = (NOON_US - 13 * 3_600_000_000, NOON_US - 3_600_000_000, NOON_US)  # before it all, before some, after
    for at_us in times:
        await LogWriter(connection, tables).append(runs=[a_run("app:n", [1.0, 1.0], at_us=at_us)])

    await sequence_and_fold(connection, tables)

    assert await total(connection, tables, "app:n") == [2, 2, 2, 4]
    assert (await counts(connection, tables))["expired"] == 2
    assert diff(await stored(connection, tables), await replay(connection, tables)) == []


async def test_what_producers_left_out_adds_up_in_the_version(connection: Connection, tables: Tables) -> None:
    for _ in range(2):
        await LogWriter(connection, tables).append(batch=encode((), [], {"dropped": 3, "rejected:value": 1}))
        await sequence_and_fold(connection, tables)
    future = int((datetime.now(UTC) + timedelta(hours=2)).timestamp() * 1e6)
    await LogWriter(connection, tables).append(runs=[a_run(at_us=future)])
    await sequence_and_fold(connection, tables)

    assert await counts(connection, tables) == {"dropped": 6, "rejected:value": 2, "skewed": 1}


async def test_the_ring_keeps_its_size(connection: Connection, tables: Tables) -> None:
    await fetch(
        connection,
        "INSERT INTO {cache} (fold, version, position, token, points)"
        " SELECT n, 1, n, gen_random_uuid(), '' FROM generate_series(1, 700) n",
        tables,
    )
    await fetch(connection, "UPDATE {versions} SET folds = 700 WHERE version = 1", tables)

    for _ in range(3):
        await LogWriter(connection, tables).append(runs=[a_run()])
        await sequence_and_fold(connection, tables)

    rows = await fetch(connection, "SELECT count(*), min(fold), max(fold), count(DISTINCT token) FROM {cache}", tables)
    assert rows == [(RING_SIZE, 704 - RING_SIZE, 703, RING_SIZE)]


async def test_a_late_commit_is_in_the_fold_after_it(dsn: str, tables: Tables) -> None:
    async with connections(dsn, 2) as (slow, quick):
        async with slow.transaction():
            await append_as(slow.cursor(), tables, a_run("app:gap", [1.0] * 3))
            await LogWriter(quick, tables).append(
                runs=[a_run("app:gap", [1.0] * 5, at_us=NOON_US - 3 * 86_400_000_000)]
            )
            await sequence_and_fold(quick, tables)
            before = await total(quick, tables, "app:gap")
        await sequence_and_fold(quick, tables)

        assert (before, await total(quick, tables, "app:gap")) == ([5] * 4, [8] * 4)


async def test_the_first_series_of_a_key_is_the_one_with_the_smallest_number(
    connection: Connection, tables: Tables
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n", kind="gauge", unit="bytes")])
    await sequence_and_fold(connection, tables)
    await LogWriter(connection, tables).append(runs=[a_run("app:n", unit="count")])
    await sequence_and_fold(connection, tables)

    rows = await fetch(connection, "SELECT key, kind, unit FROM {series} ORDER BY id", tables)
    assert [Series(*row) for row in rows] == [Series("app:n", "gauge", "bytes"), Series("app:n", "counter", "count")]
