"""Versions are made from the baseline, backfilled in any chunks, compared exactly, and become the live one at once."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.errors import AlreadyRunning, VersionRefused
from chancy_metrics.events.facts import KINDS
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.plugin.rebuilds import listing
from chancy_metrics.plugin.rebuilds.listing import list_versions
from chancy_metrics.plugin.rebuilds.rebuild import rebuild
from chancy_metrics.plugin.worker.retention import prune_days
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.fold.cells import select
from chancy_metrics.projections.fold.points import Comparison
from chancy_metrics.projections.rules.rule_set import BUILT_IN, RuleSet
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.compare import compare
from chancy_metrics.projections.versions.copy_baseline import copy_baseline
from chancy_metrics.projections.versions.create import drop_version, finish_version, make_version
from chancy_metrics.projections.versions.expiry import expire
from chancy_metrics.projections.versions.promote import promote
from chancy_metrics.projections.versions.version import BASELINE, Version, live_version, read_version
from tests import rules
from tests.factories import (
    NOON_US,
    LogWriter,
    a_row,
    a_run,
    an_app,
    change_cells,
    connections,
    eventually,
    fetch,
    now_us,
    sequence_all,
    sequence_and_fold,
)
from tests.faults.history import make_history

EVERYTHING = dict.fromkeys(RESOLUTIONS, 0)
MINUTE_US = 60_000_000


async def a_version(
    connection: Connection, tables: Tables, rule_set: RuleSet = BUILT_IN, *, by: str = "test", **options: bool
) -> int:
    made = await make_version(connection, tables, rule_set, EVERYTHING, by=by, **options)
    while await copy_baseline(connection, tables, made.version):
        pass
    return made.version


async def read(connection: Connection, tables: Tables, version: int | None = None) -> Version:
    async with short_transaction(connection) as cursor:
        found = await (live_version(cursor, tables) if version is None else read_version(cursor, tables, version))
    assert found is not None
    return found


async def backfilled(connection: Connection, tables: Tables, rule_set: RuleSet = BUILT_IN) -> int:
    """A version that stands where the live one does."""
    version = await a_version(connection, tables, rule_set)
    target = (await read(connection, tables)).position
    while not (
        await advance(connection, tables, folded_by="test", rules=rule_set, version=version, until=target)
    ).caught_up:
        pass
    return version


async def compared(connection: Connection, tables: Tables, old: int, new: int) -> Comparison:
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        one, other = await read_version(cursor, tables, old), await read_version(cursor, tables, new)
        assert one is not None and other is not None
        return await compare(cursor, tables, one, other)


runs = st.builds(
    lambda kind, name, at, values: (kind, name, at, values),
    kind=st.sampled_from(KINDS),
    name=st.sampled_from(["a", "b"]),
    at=st.sampled_from([0, 1, MINUTE_US, 90 * MINUTE_US, 40_000 * MINUTE_US]),
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=3),
)


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.tuples(st.lists(runs, max_size=3), st.sampled_from(["w1", "w2"])), min_size=1, max_size=8),
    cuts=st.lists(st.tuples(st.integers(1, 9), st.sampled_from([20, 40, 10_000])), max_size=8),
)
async def test_any_cut_of_the_ledger_into_chunks_equals_one_pass(
    dsn: str,
    tables: Tables,
    batches: list[tuple[list[tuple[str, str, int, list[float]]], str]],
    cuts: list[tuple[int, int]],
) -> None:
    mine = uuid.uuid4().hex
    async with connections(dsn, 1) as (connection,):
        for drawn, worker in batches:
            made = [
                a_run(f"{mine}:{name}", values, kind=kind, at_us=NOON_US + at)  # type: ignore[arg-type]
                for kind, name, at, values in drawn
            ]
            await LogWriter(connection, tables, worker).append(jobs=[a_row(NOON_US)], runs=made)
        await sequence_and_fold(connection, tables)
        live = await read(connection, tables)
        version = await a_version(connection, tables)
        for ahead, step in cuts:
            until = min((await read(connection, tables, version)).position + ahead, live.position)
            await advance(connection, tables, folded_by="test", version=version, until=until, step_events=step)
        while not (await advance(connection, tables, folded_by="test", version=version)).caught_up:
            pass
        found = await compared(connection, tables, live.version, version)
        assert await drop_version(connection, tables, version)

    assert found.points > 0
    assert (found.different, found.differences) == (0, [])


async def test_a_version_begins_with_the_baseline_copied_in_any_chunks(
    connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await LogWriter(connection, tables).append(
        jobs=[a_row(NOON_US + hour * 3_600_000_000) for hour in range(5)], runs=[a_run(), a_run(kind="gauge")]
    )
    await sequence_and_fold(connection, tables)
    for resolution in RESOLUTIONS:  # as if all of it had been pruned
        await fetch(connection, f"UPDATE {{r{resolution}}} SET version = 0", tables)
    await fetch(connection, "UPDATE {days} SET state = 'gone'", tables)
    monkeypatch.setattr("chancy_metrics.projections.versions.copy_baseline.COPY_ROWS", 3)

    made = await make_version(connection, tables, BUILT_IN, EVERYTHING, by="test")
    chunks = 0
    while await copy_baseline(connection, tables, made.version):
        chunks += 1

    assert chunks > 20
    assert (await read(connection, tables, made.version)).status == "backfilling"
    assert (await compared(connection, tables, BASELINE, made.version)).different == 0
    assert (await compared(connection, tables, BASELINE, made.version)).points > 60
    done = await advance(connection, tables, folded_by="test", version=made.version)
    assert (done.events, done.caught_up) == (0, True)  # what is in the baseline is not folded again


async def test_a_version_begins_with_nothing_below_its_horizons(connection: Connection, tables: Tables) -> None:
    hours = [NOON_US + hour * 3_600_000_000 for hour in range(30)]
    await LogWriter(connection, tables).append(jobs=[a_row(at_us) for at_us in hours], runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)
    for resolution in RESOLUTIONS:  # as if all of it had been pruned
        await fetch(connection, f"UPDATE {{r{resolution}}} SET version = 0", tables)
    await fetch(connection, "UPDATE {days} SET state = 'gone'", tables)
    noon = NOON_US // 1_000_000
    kept_from = {"1min": noon + 7_200, "5min": noon + 3_600, "1hour": noon + 3_600, "1day": noon + 43_200}

    made = await make_version(connection, tables, BUILT_IN, kept_from, by="test")
    while await copy_baseline(connection, tables, made.version):
        pass

    for resolution, horizon in kept_from.items():
        of = f"SELECT series, bucket FROM {{r{resolution}}} WHERE version ="
        kept = await fetch(connection, f"{of} 0 AND bucket >= %(at)s ORDER BY 1, 2", tables, at=horizon)
        assert await fetch(connection, f"{of} {made.version} ORDER BY 1, 2", tables) == kept != []
        assert await fetch(connection, f"{of} 0 AND bucket < %(at)s", tables, at=horizon)


async def test_what_came_too_late_is_counted_in_a_new_version_also_when_its_day_is_pruned(
    connection: Connection, tables: Tables
) -> None:
    day = datetime.now(UTC).date() - timedelta(days=3)
    await make_days(connection, tables, today=day, ahead=0)
    kept = horizons(now_us(), dict.fromkeys(RESOLUTIONS, 90), 90 * 86_400)
    await expire(connection, tables, kept)
    for at_us in (now_us(), now_us() - 100 * 86_400_000_000):
        await LogWriter(connection, tables).append(runs=[a_run("app:n", [1.0] * 3, at_us=at_us)], day=day)
    await sequence_and_fold(connection, tables)

    async def expired(version: int) -> int:
        query = "SELECT coalesce((counts ->> 'expired')::int, 0) FROM {versions} WHERE version = %(version)s"
        return int((await fetch(connection, query, tables, version=version))[0][0])

    async def made_again() -> int:
        made = await make_version(connection, tables, BUILT_IN, kept, by="test")
        while await copy_baseline(connection, tables, made.version):
            pass
        while not (await advance(connection, tables, folded_by="test", version=made.version)).caught_up:
            pass
        return made.version

    raw = await made_again()
    counted = [await expired(version) for version in (1, raw)]
    assert await drop_version(connection, tables, raw)
    [pruned] = await prune_days(connection, tables, BUILT_IN, now_us=now_us(), log_retention_s=86_400)
    after = await made_again()

    assert pruned.state == "gone" and after != raw
    assert (*counted, await expired(BASELINE), await expired(after)) == (3, 3, 3, 3)
    assert (await compared(connection, tables, 1, after)).different == 0
    assert await fetch(connection, "SELECT key FROM {series}", tables) == [("app:n",)]


async def test_a_new_version_goes_back_as_far_as_the_baseline_allows(connection: Connection, tables: Tables) -> None:
    await fetch(connection, "UPDATE {versions} SET horizon_1min = 600, horizon_1day = 0 WHERE version = 0", tables)

    made = await make_version(
        connection, tables, BUILT_IN, {"1min": 60, "5min": 300, "1hour": 0, "1day": 86_400}, by="test"
    )

    assert made.horizons == {"1min": 600, "5min": 300, "1hour": 0, "1day": 86_400}


async def test_a_comparison_names_what_is_missing_added_and_changed(connection: Connection, tables: Tables) -> None:
    await LogWriter(connection, tables).append(jobs=[a_row(NOON_US)], runs=[a_run("app:n", [1.5, 2.5])])
    await sequence_and_fold(connection, tables)
    version = await backfilled(connection, tables)
    of = "series = (SELECT id FROM {series} WHERE key = 'app:n')"
    await fetch(connection, f"DELETE FROM {{r1min}} WHERE version = 1 AND {of}", tables)
    await fetch(connection, f"UPDATE {{r1day}} SET sum = 5 WHERE version = 2 AND {of}", tables)
    await fetch(connection, f"UPDATE {{r1hour}} SET sum = 4.00 WHERE version = 2 AND {of}", tables)
    await change_cells(connection, tables, lambda cells: select(cells, cells.series < 0), version=2, key="app:n")

    found = await compared(connection, tables, 1, version)

    assert found.different == 4
    said = [str(one) for one in found.differences]
    assert said[0] == "app:n 1min 2026-03-10 12:00:00 UTC worker all: only in the new"
    assert said[2] == "app:n 1day 2026-03-10 00:00:00 UTC worker all: sum 4 -> 5"
    assert said[3] == "app:n 1min 2026-03-10 12:00:00 UTC worker worker: only in the old"


async def test_quantiles_and_tie_breaks_are_compared_too(connection: Connection, tables: Tables) -> None:
    await LogWriter(connection, tables).append(jobs=[a_row(NOON_US)], runs=[a_run(kind="gauge")])
    await sequence_and_fold(connection, tables)
    version = await backfilled(connection, tables)

    for change in ("p95 = p95 + 1", "last_index = last_index + 1", "sketch = sketch || '\\x00'::bytea"):
        await fetch(connection, f"UPDATE {{r1day}} SET {change} WHERE version = 2", tables)
        assert (await compared(connection, tables, 1, version)).different > 0
        await fetch(
            connection,
            "UPDATE {r1day} n SET p95 = o.p95, last_index = o.last_index, sketch = o.sketch FROM {r1day} o WHERE"
            " (n.version, o.version) = (2, 1) AND (n.series, n.bucket) = (o.series, o.bucket)",
            tables,
        )
    assert (await compared(connection, tables, 1, version)).different == 0


async def test_a_promotion_empties_the_ring_and_leaves_a_row_that_no_follower_knows(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run()])
    await sequence_and_fold(connection, tables)
    before = await fetch(connection, "SELECT token FROM {cache}", tables)
    version = await backfilled(connection, tables)

    async with connections(dsn, 1) as (other,):
        old = await promote(other, connection, tables, version, BUILT_IN, cause="asked", folded_by="test", keep_s=60)

    assert old.version == 1
    [(fold, of, token)] = await fetch(connection, "SELECT fold, version, token FROM {cache}", tables)
    assert (fold, of) == ((await read(connection, tables)).folds, version)
    assert token not in {row[0] for row in before}


async def test_a_promotion_brings_the_new_version_as_far_as_the_old_one(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    version = await backfilled(connection, tables)
    await LogWriter(connection, tables).append(runs=[a_run()])
    await sequence_and_fold(connection, tables)
    await LogWriter(connection, tables).append(runs=[a_run()])
    await sequence_all(connection, tables)

    async with connections(dsn, 1) as (other,):
        old = await promote(other, connection, tables, version, BUILT_IN, cause="asked", folded_by="test", keep_s=60)

    assert (await read(connection, tables)).position == old.position == 1


@pytest.mark.parametrize("status", ["dropped", "copying"])
async def test_a_version_that_is_not_filled_does_not_become_live(
    dsn: str, connection: Connection, tables: Tables, status: str
) -> None:
    version = await backfilled(connection, tables)
    await fetch(connection, f"UPDATE {{versions}} SET status = '{status}' WHERE version = 2", tables)

    async with connections(dsn, 1) as (other,):
        with pytest.raises(VersionRefused, match=f"version 2 can't become the live one: it is {status}"):
            await promote(other, connection, tables, version, BUILT_IN, cause="asked", folded_by="test", keep_s=60)

    assert (await read(connection, tables)).version == 1


async def test_of_one_set_of_rules_there_is_one_unfinished_version_and_of_another_set_another(
    connection: Connection, tables: Tables
) -> None:
    newer = RuleSet(user=1, rules=(rules.first,))

    assert await a_version(connection, tables) == await a_version(connection, tables) == 2
    assert await a_version(connection, tables, newer) == 3
    await finish_version(connection, tables, 2, keep_s=60)
    assert await a_version(connection, tables) == 2
    assert await drop_version(connection, tables, 2)
    assert await a_version(connection, tables) == 4


async def test_who_fills_a_version_is_named_to_the_next_one_while_its_connection_lives(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with connections(dsn, 1) as (other,):
        await other.execute("SET application_name = 'rebuild by ann'")
        await a_version(other, tables, by="rebuild by ann")

        with pytest.raises(
            AlreadyRunning, match=r"version 2 has been backfilled by 'rebuild by ann' since \d{4}-.* UTC"
        ):
            await a_version(connection, tables, by="rebuild by bob")
        assert await a_version(other, tables, by="rebuild by ann") == 2
        await fetch(
            connection, "UPDATE {versions} SET folded_at = folded_at - interval '61 s' WHERE version = 2", tables
        )
        assert (
            await a_version(connection, tables, by="rebuild by bob") == 2
        )  # a pooler's connection outlives its client


async def test_of_two_that_see_older_rules_live_only_the_faster_one_makes_a_version(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    newer = RuleSet(user=1, rules=(rules.first,))
    version = await backfilled(connection, tables, newer)
    async with connections(dsn, 1) as (other,):
        await promote(other, connection, tables, version, newer, cause="newer", folded_by="test", keep_s=60)

    with pytest.raises(AlreadyRunning, match=r"version 2 has rules 3\.1 and is live already"):
        await make_version(connection, tables, newer, EVERYTHING, by="slower", again=False)
    assert (await make_version(connection, tables, newer, EVERYTHING, by="asked")).version == 3


async def test_a_killed_filler_is_followed_at_once(dsn: str, connection: Connection, tables: Tables) -> None:
    async with connections(dsn, 1) as (other,):
        await other.execute("SET application_name = 'rebuild by ann'")
        await a_version(other, tables, by="rebuild by ann")

    async def gone() -> bool:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rebuild by ann'"
        return await fetch(connection, query, tables) == [(0,)]

    await eventually(gone)  # the server needs a moment to notice
    assert await a_version(connection, tables, by="rebuild by bob") == 2


async def test_what_a_version_has_in_large_tables_is_estimated_by_some_of_their_blocks(
    dsn: str, tables: Tables, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(runs=[a_run(f"app:{number}") for number in range(2_000)])
    await sequence_and_fold(connection, tables)
    for number in range(300):
        await LogWriter(connection, tables, f"worker-{number}").append(runs=[a_run("app:0")])
    await sequence_and_fold(connection, tables)
    async with an_app(dsn) as (chancy, _):
        [exact] = await list_versions(chancy)
        monkeypatch.setattr(listing, "_SAMPLED_BLOCKS", 20)
        [rows_estimated] = await list_versions(chancy)
        monkeypatch.setattr(listing, "_SAMPLED_BLOCKS", 2)
        [cells_estimated] = await list_versions(chancy)

    assert (exact.rows, exact.cells) == (4 * 2_000, 2_000 + 300)
    assert exact.rows / 2 < rows_estimated.rows < exact.rows * 2 and rows_estimated.rows != exact.rows
    assert rows_estimated.cells == exact.cells
    assert cells_estimated.cells != exact.cells
    assert abs(rows_estimated.size_bytes - exact.size_bytes) <= 5


async def test_the_sizes_of_versions_add_up_to_those_of_their_tables(
    dsn: str, tables: Tables, connection: Connection
) -> None:
    await make_history(connection, tables, batches=3)
    async with an_app(dsn) as (chancy, _):
        await rebuild(chancy)
        found = await list_versions(chancy)
    names = [f"chancy_metrics_{name}" for name in (*RESOLUTIONS, "worker_segments")]
    [(whole,)] = await fetch(
        connection, "SELECT sum(pg_total_relation_size(t))::bigint FROM unnest(%(t)s::regclass[]) AS t", tables, t=names
    )
    [(baseline,)] = await fetch(connection, "SELECT sum(cells) FROM {worker_segments} WHERE version = 0", tables)

    assert [one.version for one in found] == [1, 2]
    assert all(one.rows > 0 and one.cells > baseline for one in found)
    assert 0.4 * whole < found[0].size_bytes + found[1].size_bytes < whole
