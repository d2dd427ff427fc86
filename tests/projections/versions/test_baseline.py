"""What days that left the log added is in the baseline, so that baseline and rest are the whole, exactly."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import pytest
from anyio import to_thread
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Rollback, sql

from chancy_metrics.events.batch import BatchId, LogBatch, ObservationRun
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.facts import KINDS, JobRow
from chancy_metrics.events.ledger import read_ledger
from chancy_metrics.events.log import append, read_batches
from chancy_metrics.events.partitions import close_day, gone_days, make_days, remove_day
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.worker.retention import PrunedDay, prune_days
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.fold.accumulator import Accumulator
from chancy_metrics.projections.fold.fold import fold
from chancy_metrics.projections.fold.levels import projection_of
from chancy_metrics.projections.fold.points import Point, diff, points_of
from chancy_metrics.projections.rollups.read import read_worker_cells
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.versions import baseline
from chancy_metrics.projections.versions.baseline import absorb_day
from chancy_metrics.projections.versions.expiry import expire
from chancy_metrics.projections.versions.replay import replay, replay_into, stored
from chancy_metrics.projections.versions.version import BASELINE, Version, live_version, read_version
from examples.embedded import Server
from tests.factories import a_database, a_row, a_run, connections, fetch, sequence_all, sequence_and_fold

FIRST = date(2026, 3, 10)
DAY_S = 86_400
DAY_US = DAY_S * 1_000_000
FIRST_US = int(datetime(2026, 3, 10, tzinfo=UTC).timestamp()) * 1_000_000
#: Kept: minutes for half a day, five minutes for one, hours for two, days for four; raw events for one.
POINTS = {"1min": 720, "5min": 288, "1hour": 48, "1day": 4}


async def add(
    connection: Connection,
    tables: Tables,
    day: int,
    *runs: ObservationRun,
    jobs: Sequence[JobRow] = (),
    worker: str = "worker",
) -> bool:
    """Append a batch on a day of the log, from FIRST on; False if the day takes none."""
    batch_id = BatchId(FIRST + timedelta(days=day), uuid.uuid4(), 1)
    async with short_transaction(connection) as cursor:
        appended = await append(cursor, tables, batch_id, encode(jobs, runs), worker=worker, closes=True)
        if appended.state == "spilled":
            raise Rollback
        return True
    return False


async def let_go(connection: Connection, tables: Tables, at_day: float, *, limit: int = 1) -> list[PrunedDay]:
    return await prune_days(
        connection, tables, BUILT_IN, now_us=FIRST_US + int(at_day * DAY_US), log_retention_s=DAY_S, limit=limit
    )


async def let_expire(connection: Connection, tables: Tables, at_day: float) -> None:
    await expire(connection, tables, horizons(FIRST_US + int(at_day * DAY_US), POINTS, 90 * DAY_S))


async def version(connection: Connection, tables: Tables, number: int | None = None) -> Version:
    async with short_transaction(connection) as cursor:
        found = await (live_version(cursor, tables) if number is None else read_version(cursor, tables, number))
        assert found is not None
        return found


class Truth:
    """Every batch that was ever in the log."""

    def __init__(self) -> None:
        self._batches: dict[int, LogBatch] = {}

    async def look(self, connection: Connection, tables: Tables) -> None:
        async with short_transaction(connection) as cursor:
            gone = await gone_days(cursor, tables)
            rows = await read_ledger(cursor, tables, after=0, limit=10_000)
            found = [(row.position, row.batch_id) for row in rows if row.batch_id.day not in gone]
            self._batches |= {batch.position: batch for batch in await read_batches(cursor, tables, found)}

    def points(self, since: Mapping[str, int]) -> list[Point]:
        return points_of(projection_of(fold(list(self._batches.values())), since), since)


async def opening_and_rest(connection: Connection, tables: Tables, since: Mapping[str, int]) -> list[Point]:
    """What a new version with a longer retention would have."""
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        live = await live_version(cursor, tables)
        total = Accumulator(since)
        await to_thread.run_sync(total.add, await read_worker_cells(cursor, tables, BASELINE, since))
        await replay_into(total, lambda: nullcontext(cursor), tables, BUILT_IN, live, until=live.position)
    return points_of(projection_of(total.fold(), since), since)


async def check(connection: Connection, tables: Tables, truth: Truth) -> None:
    live, opened = await version(connection, tables), await version(connection, tables, BASELINE)

    assert all(opened.horizons[resolution] <= kept for resolution, kept in live.horizons.items())
    assert diff(truth.points(live.horizons), await stored(connection, tables)) == []
    assert diff(truth.points(live.horizons), await replay(connection, tables)) == []
    assert diff(truth.points(opened.horizons), await opening_and_rest(connection, tables, opened.horizons)) == []


class Append(NamedTuple):
    day: int
    worker: str
    runs: list[tuple[str, str, int, list[float]]]


LATE_US = [0, 60_000_000, 7 * 3_600_000_000, DAY_US, 3 * DAY_US, 40 * DAY_US]
steps = st.lists(
    st.one_of(
        st.builds(
            Append,
            day=st.integers(0, 4),
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
        ),
        st.sampled_from(["fold", "prune", "expire", "half a day"]),
    ),
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=steps)
async def test_baseline_and_rest_are_the_whole_whatever_is_pruned_when(
    server: Server, template: str, tables: Tables, drawn: Iterable[Append | str]
) -> None:
    truth, at_day = Truth(), 1.0
    async with a_database(server, template) as connection:
        await make_days(connection, tables, today=FIRST, ahead=4)
        for step in drawn:
            if isinstance(step, Append):
                noon = FIRST_US + step.day * DAY_US + DAY_US // 2
                made = [
                    a_run(name, values, kind=kind, at_us=noon - late)  # type: ignore[arg-type]
                    for kind, name, late, values in step.runs
                ]
                jobs = [a_row(noon)] * len(made)
                await add(connection, tables, step.day, *made, jobs=jobs, worker=step.worker)
            elif step == "fold":
                await sequence_and_fold(connection, tables)
            elif step == "prune":
                await truth.look(connection, tables)
                await let_go(connection, tables, at_day)
            elif step == "expire":
                await let_expire(connection, tables, at_day)
            else:
                at_day += 0.5
        await sequence_and_fold(connection, tables)
        await truth.look(connection, tables)

        await check(connection, tables, truth)
        await let_expire(connection, tables, 7)
        assert [day.blocker for day in await let_go(connection, tables, 7, limit=9)] in ([None] * n for n in range(6))
        await check(connection, tables, truth)


@pytest.mark.slow
async def test_thirty_days_with_late_events_go_one_by_one_and_nothing_differs(
    connection: Connection, tables: Tables
) -> None:
    truth = Truth()
    await make_days(connection, tables, today=FIRST, ahead=29)
    for day in range(30):
        noon = FIRST_US + day * DAY_US + DAY_US // 2
        runs = [
            a_run("app:n", [0.1] * 3, at_us=noon),
            a_run("app:late", [1.0, 1e300], at_us=noon - (day % 7) * DAY_US),
            a_run("app:t", [0.5, -2.0, day], kind="histogram", unit="s", at_us=noon - (day % 3) * DAY_US),
            a_run("app:g", [day], kind="gauge", unit="x", at_us=noon + (day % 2) * DAY_US // 2),
        ]
        await add(connection, tables, day, *runs, jobs=[a_row(noon), a_row(noon - DAY_US)], worker=f"w{day % 4}")
    await sequence_and_fold(connection, tables)
    await truth.look(connection, tables)

    for day in range(30):
        await expire(connection, tables, horizons(FIRST_US + (day + 2) * DAY_US, POINTS | {"1day": 90}, 90 * DAY_S))
        pruned = await let_go(connection, tables, day + 2)

        assert [(one.day, one.state, one.blocker) for one in pruned] == [(FIRST + timedelta(days=day), "gone", None)]
        await check(connection, tables, truth)

    assert await fetch(connection, "SELECT count(*) FROM {log}", tables) == [(0,)]
    assert (await fetch(connection, "SELECT count(*) > 100 FROM {r1day} WHERE version = 0", tables)) == [(True,)]


async def test_a_day_goes_on_wherever_it_was_left(connection: Connection, tables: Tables) -> None:
    truth = Truth()
    await make_days(connection, tables, today=FIRST, ahead=0)
    await add(connection, tables, 0, a_run("app:n", at_us=FIRST_US))

    assert await close_day(connection, tables, FIRST) is None
    assert await close_day(connection, tables, FIRST) is None
    assert not await add(connection, tables, 0, a_run("app:n"))
    await sequence_and_fold(connection, tables)
    await truth.look(connection, tables)
    assert await absorb_day(connection, tables, BUILT_IN, FIRST) is None
    await check(connection, tables, truth)
    again = await absorb_day(connection, tables, BUILT_IN, FIRST)
    await check(connection, tables, truth)
    await connection.execute(sql.SQL("ALTER TABLE {} DETACH PARTITION {}").format(tables.log, tables.partition(FIRST)))
    await check(connection, tables, truth)
    assert await remove_day(connection, tables, FIRST) is None
    assert await remove_day(connection, tables, FIRST) is None
    await check(connection, tables, truth)

    assert again == "another process works on the baseline; the next call tries again"
    assert not await add(connection, tables, 0, a_run("app:n"))
    assert await fetch(
        connection, "SELECT state, last_position, last_us FROM {days} WHERE day = %(day)s", tables, day=FIRST
    ) == [("gone", 1, FIRST_US)]


async def test_what_the_producers_left_out_is_counted_in_the_baseline_too(
    connection: Connection, tables: Tables
) -> None:
    await make_days(connection, tables, today=FIRST, ahead=1)
    for day in range(2):
        async with short_transaction(connection) as cursor:
            batch_id = BatchId(FIRST + timedelta(days=day), uuid.uuid4(), 1)
            await append(cursor, tables, batch_id, encode(counts={"dropped": 3}), worker="w", closes=True)
    await sequence_and_fold(connection, tables)

    await let_go(connection, tables, 9, limit=2)

    assert await fetch(connection, "SELECT counts FROM {versions} WHERE version = 0", tables) == [({"dropped": 6},)]


async def reason(connection: Connection, tables: Tables, at_day: float = 9) -> str | None:
    dry = await prune_days(
        connection, tables, BUILT_IN, now_us=FIRST_US + int(at_day * DAY_US), log_retention_s=DAY_S, dry_run=True
    )
    [done] = await let_go(connection, tables, at_day)
    assert (dry[0].blocker, dry[0].day) == (done.blocker, done.day)
    return done.blocker


async def test_a_batch_without_a_position_keeps_its_day(connection: Connection, tables: Tables) -> None:
    await make_days(connection, tables, today=FIRST, ahead=0)
    await add(connection, tables, 0, a_run("app:n", at_us=FIRST_US))

    blocker = await reason(connection, tables)

    assert blocker == (
        "1 batch of 2026-03-10 has no position in the ledger yet: a worker's next fold assigns it, "
        "or `chancy-metrics fold`"
    )
    await sequence_and_fold(connection, tables)
    assert await reason(connection, tables) is None


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        ("live", "wait for its next folds, or run `chancy-metrics fold`"),
        ("backfilling", "finish it with `chancy-metrics rebuild`, or drop it with `chancy-metrics rebuild --abort`"),
        ("standby", "it is on standby for an `undo`, and is dropped when its time is over"),
    ],
)
async def test_a_version_that_is_not_past_a_day_keeps_it(
    connection: Connection, tables: Tables, status: str, advice: str
) -> None:
    await make_days(connection, tables, today=FIRST, ahead=0)
    await add(connection, tables, 0, a_run("app:n", at_us=FIRST_US))
    await sequence_all(connection, tables)
    number = 1
    if status != "live":
        number = 2
        await sequence_and_fold(connection, tables)
        await fetch(
            connection,
            "INSERT INTO {versions} (version, rules, user_rules, rule_names, status, position, created_by)"
            " VALUES (2, 1, 0, '{{}}', %(status)s, 0, 'test')",
            tables,
            status=status,
        )

    blocker = await reason(connection, tables)

    assert blocker == f"version {number} ({status}) is at position 0, and 2026-03-10 ends at 1: {advice}"
    await fetch(connection, "UPDATE {versions} SET status = 'dropped' WHERE version = 2", tables)
    await sequence_and_fold(connection, tables)
    assert await reason(connection, tables) is None


async def test_code_without_the_live_rules_leaves_the_days_alone(connection: Connection, tables: Tables) -> None:
    await make_days(connection, tables, today=FIRST, ahead=0)
    await add(connection, tables, 0, a_run("app:n", at_us=FIRST_US))
    await sequence_and_fold(connection, tables)
    await fetch(connection, "UPDATE {versions} SET user_rules = 7 WHERE version = 1", tables)

    assert await reason(connection, tables) == (
        "the baseline has the live version's rules, which this code does not have: "
        "version 1 has rules 3.7, this code has 3.0"
    )


async def test_a_batch_that_can_not_be_read_keeps_its_day_until_it_is_given_up_and_is_then_left_out(
    connection: Connection, tables: Tables
) -> None:
    await make_days(connection, tables, today=FIRST, ahead=0)
    for key in ("app:damaged", "app:n"):
        await add(connection, tables, 0, a_run(key, at_us=FIRST_US))
    await sequence_all(connection, tables)
    await connection.execute("SET session_replication_role = replica")
    await fetch(
        connection,
        "UPDATE {log} SET payload = 'x' WHERE (producer, sequence) IN"
        " (SELECT producer, sequence FROM {ledger} WHERE position = 1)",
        tables,
    )
    await connection.execute("SET session_replication_role = origin")
    await sequence_and_fold(connection, tables)

    blocker = await reason(connection, tables)

    assert blocker.startswith("the batch at position 1 could not be read (")
    assert blocker.endswith("): the day can leave once `chancy-metrics discard 1 --why ...` has given it up")
    await fetch(connection, "UPDATE {dead_letters} SET discarded_at = now() WHERE position = 1", tables)
    assert await reason(connection, tables) is None
    live = await stored(connection, tables)
    assert diff(live, await replay(connection, tables)) == []
    assert {point.series.key for point in live} == {"app:n"}


@pytest.mark.parametrize(
    ("change", "error"),
    [("UPDATE {log} SET payload = 'x'", "sha256"), ("DELETE FROM {log}", "its row is not in the log")],
)
async def test_a_batch_that_was_folded_and_is_damaged_since_keeps_its_day_too(
    connection: Connection, tables: Tables, change: str, error: str
) -> None:
    await make_days(connection, tables, today=FIRST, ahead=0)
    await add(connection, tables, 0, a_run("app:n", at_us=FIRST_US))
    await sequence_and_fold(connection, tables)
    await connection.execute("SET session_replication_role = replica")
    await fetch(connection, change, tables)
    await connection.execute("SET session_replication_role = origin")

    [done] = await let_go(connection, tables, 9)

    assert done.state == "closed"
    assert done.blocker.startswith("the batch at position 1 could not be read (") and error in done.blocker
    assert await reason(connection, tables) == done.blocker


async def test_the_baseline_is_left_alone_while_somebody_makes_a_version(dsn: str, tables: Tables) -> None:
    async with connections(dsn, 2) as (connection, maker):
        await make_days(connection, tables, today=FIRST, ahead=0)
        await add(connection, tables, 0, a_run("app:n", at_us=FIRST_US))
        await sequence_and_fold(connection, tables)

        async with maker.transaction():
            await fetch(maker, "SELECT 1 FROM {versions} WHERE version = 0 FOR UPDATE", tables)
            await connection.execute("SET statement_timeout = '10 s'")
            [during] = await let_go(connection, tables, 9)
        [after] = await let_go(connection, tables, 9)

    assert (during.state, during.blocker) == ("closed", baseline._BUSY)
    assert (after.state, after.blocker) == ("gone", None)


async def test_a_version_that_appears_while_a_day_is_folded_keeps_the_day(
    connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_days(connection, tables, today=FIRST, ahead=0)
    await add(connection, tables, 0, a_run("app:n", at_us=FIRST_US))
    await sequence_and_fold(connection, tables)
    number = baseline.number

    async def make_a_version_first(*arguments: object) -> object:
        await fetch(
            connection,
            "INSERT INTO {versions} (version, rules, user_rules, rule_names, status, position, created_by)"
            " VALUES (2, 1, 0, '{{}}', 'copying', 0, 'test')",
            tables,
        )
        return await number(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(baseline, "number", make_a_version_first)

    [done] = await let_go(connection, tables, 9)

    assert done.blocker.startswith("version 2 (copying) is at position 0")
    assert await fetch(connection, "SELECT count(*) FROM {r1day} WHERE version = 0", tables) == [(0,)]


async def test_what_another_version_keeps_longer_is_in_the_baseline_as_well(
    connection: Connection, tables: Tables
) -> None:
    truth = Truth()
    await make_days(connection, tables, today=FIRST, ahead=0)
    await add(connection, tables, 0, a_run("app:n", at_us=FIRST_US + DAY_US // 2))
    await sequence_and_fold(connection, tables)
    await truth.look(connection, tables)
    await fetch(
        connection,
        "INSERT INTO {versions} (version, rules, user_rules, rule_names, status, position, created_by)"
        " VALUES (2, 1, 0, '{{}}', 'backfilling', 1, 'test')",
        tables,
    )
    await fetch(connection, "UPDATE {versions} SET horizon_1min = %(at)s WHERE version = 1", tables, at=2**40)

    await let_go(connection, tables, 9)

    since = dict.fromkeys(POINTS, 0)
    assert diff(truth.points(since), await opening_and_rest(connection, tables, since)) == []


async def test_the_baseline_begins_where_it_is_complete_and_no_later(connection: Connection, tables: Tables) -> None:
    """A later version that keeps minutes for longer finds those after the pruned day in the log."""
    await make_days(connection, tables, today=FIRST, ahead=0)
    last_us = FIRST_US + 13 * 3_600_000_000 + 59_000_000
    for at_us in (FIRST_US, last_us):
        await add(connection, tables, 0, a_run("app:n", at_us=at_us))
    await sequence_and_fold(connection, tables)
    await let_expire(connection, tables, 2.5)
    before = (await version(connection, tables, BASELINE)).horizons

    await let_go(connection, tables, 2.5)
    opened, live = await version(connection, tables, BASELINE), await version(connection, tables)
    await let_expire(connection, tables, 50)

    assert before == dict.fromkeys(POINTS, 0)
    one = last_us // 1_000_000 + 1
    assert opened.horizons == live.horizons | {"1min": one, "5min": one + 240}
    past = {"1min": one, "5min": one + 240, "1hour": one + 3_540, "1day": FIRST_US // 1_000_000 + DAY_S}
    assert (await version(connection, tables, BASELINE)).horizons == past
    assert await fetch(connection, "SELECT count(*) FROM {r1day} WHERE version = 0", tables) == [(0,)]
