"""What the rollups hold is exact, whatever order it came in, and the ring says the same as they do."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from psycopg.rows import TupleRow

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.findings import Findings
from chancy_metrics.projections.fold.cells import no_sketches
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.fold.sketch_codec import decode
from chancy_metrics.projections.rollups import ids, write
from chancy_metrics.projections.rollups.arrays import bigints, blobs, doubles, integers, take_arrays
from chancy_metrics.projections.rollups.delta_ring import COLUMNS, unpack_points
from chancy_metrics.projections.rollups.ids import number_series, number_workers
from chancy_metrics.projections.rollups.read import read_merged
from chancy_metrics.projections.rollups.write import store
from chancy_metrics.projections.verify.cache import check_quantiles
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.outcome import Outcome
from chancy_metrics.projections.versions.replay import replay, stored
from tests.factories import NOON_US, LogWriter, a_row, a_run, fetch, sequence_all, sequence_and_fold, total

LARGEST = 1.7976931348623157e308


async def merged(connection: Connection, tables: Tables, columns: str, resolution: str = "1min") -> list[TupleRow]:
    return await fetch(connection, f"SELECT {columns} FROM {{r{resolution}}} ORDER BY series", tables)


async def fold_one_by_one(connection: Connection, tables: Tables, *values: list[float], **options: object) -> None:
    """Fold each list of values in a step of its own."""
    for one in values:
        await LogWriter(connection, tables).append(runs=[a_run("app:n", one, **options)])  # type: ignore[arg-type]
        await sequence_and_fold(connection, tables)


async def test_sums_are_exact_in_every_order_and_every_batching(connection: Connection, tables: Tables) -> None:
    hard = [
        [0.1] * 10,
        [1e308] * 2,
        [1e308, 5e-324, -1e308],
        [2.0**70, 1.0, -(2.0**70)],
        [3.0, -3.0],
        [1e-9, 1e300],
        [0.25],
    ]
    for seed in range(1, 4):
        for number, values in enumerate(hard):
            random.Random(seed).shuffle(values)
            for part in (values[:seed], values[seed:]):
                if part:
                    await LogWriter(connection, tables).append(runs=[a_run(f"app:{seed}:{number}", part)])
        await sequence_and_fold(connection, tables)
    writers = [LogWriter(connection, tables) for _ in range(4)]
    for writer in writers:
        for number, values in enumerate(hard):
            await writer.append(runs=[a_run(f"app:again:{number}", values)])
        await sequence_and_fold(connection, tables)

    for resolution in RESOLUTIONS:
        rows = await fetch(
            connection,
            f"SELECT key, sum, sum::text FROM {{r{resolution}}} JOIN {{series}} s ON s.id = series",
            tables,
        )
        assert len(rows) == 4 * len(hard)
        for key, found, text in rows:
            times = 4 if "again" in key else 1
            assert Fraction(found) == times * sum(map(Fraction, hard[int(key[-1])])), key
            assert "." not in text or not text.endswith("0")  # equal numbers have equal bytes


async def test_a_sum_beyond_float64_is_kept_exactly_and_handed_out_as_the_largest(
    connection: Connection, tables: Tables
) -> None:
    await fold_one_by_one(connection, tables, [1e308, 1e308], [1e308])
    await LogWriter(connection, tables).append(runs=[a_run("app:minus", [-1e308, -1e308])])
    await sequence_and_fold(connection, tables)

    rows = await fetch(connection, "SELECT points FROM {cache} ORDER BY fold", tables)
    given = [float(unpack_points(row[0])["1day"].values[0][COLUMNS.index("sum")]) for row in rows]

    assert given == [LARGEST, LARGEST, -LARGEST]
    assert [row[0] for row in await merged(connection, tables, "sum")] == [3 * int(1e308), -2 * int(1e308)]


async def test_the_latest_gauge_is_that_of_the_latest_time(connection: Connection, tables: Tables) -> None:
    for at_us, value in ((NOON_US + 5, 5.0), (NOON_US + 9, 9.0), (NOON_US + 7, 7.0)):
        await fold_one_by_one(connection, tables, [value], kind="gauge", at_us=at_us)

    assert await merged(connection, tables, "last, last_us, count, min, max") == [(9.0, NOON_US + 9, 3, 5.0, 9.0)]


async def test_of_gauges_at_one_instant_the_last_in_the_order_is_the_latest(
    connection: Connection, tables: Tables
) -> None:
    await fold_one_by_one(connection, tables, [4.0, 5.0], [6.0, 3.0], kind="gauge", at_us=NOON_US + 1)
    later = LogWriter(connection, tables, "another")
    await later.append(runs=[a_run("app:n", [9.0], kind="gauge", at_us=NOON_US)])
    await sequence_and_fold(connection, tables)

    assert await merged(connection, tables, "last, last_position, last_index") == [(3.0, 2, 1)]
    assert diff(await stored(connection, tables), await replay(connection, tables)) == []


async def test_sketches_of_many_folds_merge_into_that_of_one(connection: Connection, tables: Tables) -> None:
    values = [float(v) for v in np.random.default_rng(3).lognormal(0, 2, 3_000)] + [0.0, -1.0, 1e300]
    columns = "count, min, max, p50, p95, p99, sketch"
    await fold_one_by_one(connection, tables, values[:10], values[10:11], values[11:], kind="histogram")
    in_chunks = await merged(connection, tables, columns)
    await LogWriter(connection, tables).append(runs=[a_run("app:once", values, kind="histogram")])
    await sequence_and_fold(connection, tables)

    at_once = (await merged(connection, tables, columns))[1]

    assert in_chunks == [at_once]
    for found, q in zip(at_once[3:6], (0.5, 0.95, 0.99), strict=True):
        assert found == pytest.approx(float(np.quantile(values, q, method="inverted_cdf")), rel=0.0055)


async def test_points_written_a_few_at_a_time_are_those_written_at_once(
    connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "_CHUNK_ROWS", 3)
    chance = random.Random(5)
    for _ in range(3):
        runs = [
            a_run(
                f"app:{key}",
                [chance.lognormvariate(0, 2) for _ in range(20)],
                kind=kind,
                at_us=NOON_US + chance.randrange(900_000_000),
            )
            for key in range(5)
            for kind in ("histogram", "gauge", "counter")
        ]
        await LogWriter(connection, tables).append(runs=runs)
        await sequence_and_fold(connection, tables)

    assert len(await merged(connection, tables, "series")) > 15
    assert diff(await stored(connection, tables), await replay(connection, tables)) == []


async def test_only_histograms_carry_a_sketch(connection: Connection, tables: Tables) -> None:
    await LogWriter(connection, tables).append(jobs=[a_row()], runs=[a_run("app:g", kind="gauge")])
    await sequence_and_fold(connection, tables)

    rows = await fetch(
        connection,
        "SELECT DISTINCT kind, sketch IS NOT NULL, p95 IS NOT NULL"
        " FROM {r1hour} r JOIN {series} s ON s.id = r.series ORDER BY 1",
        tables,
    )

    assert rows == [("counter", False, False), ("gauge", False, False), ("histogram", True, True)]


async def test_the_ring_row_holds_the_changed_points_with_the_values_the_rollups_have(
    connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(jobs=[a_row(), a_row(state="failed")], runs=[a_run("app:n"), a_run("app:g", kind="gauge")])
    await sequence_and_fold(connection, tables)
    await writer.append(jobs=[a_row()], runs=[a_run("app:g", [2.5], kind="gauge")])

    await sequence_and_fold(connection, tables)

    [(fold, position, data)] = await fetch(
        connection, "SELECT fold, position, points FROM {cache} ORDER BY fold DESC LIMIT 1", tables
    )
    assert (fold, position) == (2, 2)
    for resolution, points in unpack_points(data).items():
        rows = await fetch(
            connection,
            "SELECT series, bucket, count, last_us, sum::float8, min, max, last, p50, p95, p99"
            f" FROM {{r{resolution}}} r JOIN {{series}} s ON s.id = r.series"
            " WHERE key <> 'app:n' AND key NOT LIKE '%%failed' ORDER BY series",
            tables,
        )
        expected = np.array(rows, np.float64)
        got = np.column_stack([points.series, points.bucket, points.values])
        assert np.array_equal(got, expected, equal_nan=True)


async def test_numbers_are_given_once(connection: Connection, tables: Tables) -> None:
    series = [a_run(key).series for key in ("b", "a", "c")]

    first = await number_series(connection, tables, series[:2])
    second = await number_series(connection, tables, series)

    assert {one: second[one] for one in first} == first
    assert len(set(second.values())) == 3
    assert await number_workers(connection, tables, ["w"]) == await number_workers(connection, tables, ["w"])


async def test_names_cleaned_up_between_numbering_and_storing_cost_a_step_and_no_count(
    connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def number_and_lose(*arguments: object) -> dict[str, int]:
        given = await number_workers(*arguments)  # type: ignore[arg-type]
        await fetch(connection, "DELETE FROM {series}; DELETE FROM {workers}", tables)
        return given

    await LogWriter(connection, tables).append(runs=[a_run("app:n")])
    await sequence_all(connection, tables)
    with monkeypatch.context() as patch:
        patch.setattr(ids, "number_workers", number_and_lose)
        lost = await advance(connection, tables, folded_by="f")

    await sequence_and_fold(connection, tables)

    assert (lost.events, lost.position, lost.outcome) == (0, 0, Outcome.BUSY)
    assert await total(connection, tables, "app:n") == [1] * 4
    assert await fetch(connection, "SELECT count(*) FROM {cache}", tables) == [(1,)]


async def test_a_name_cleaned_up_as_soon_as_it_was_numbered_gets_another_number(
    connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, looks = ids._find_series, []

    async def find_after_cleanup(*arguments: object) -> dict[Series, int]:
        looks.append(1)
        if len(looks) == 2:  # between giving the number and reading it
            await fetch(connection, "DELETE FROM {series}", tables)
        return await find(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ids, "_find_series", find_after_cleanup)

    assert await number_series(connection, tables, [a_run("app:n").series]) == {a_run("app:n").series: 2}


async def test_numbers_of_a_sequence_that_was_left_behind_cost_no_try_for_each_taken_one(
    connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restore of data alone, or a switch-over by logical replication."""
    taken = 300
    await number_series(connection, tables, [Series(f"old:{n}", "counter", "count") for n in range(taken)])
    await number_workers(connection, tables, [f"old-{n}" for n in range(taken)])
    for table in ("series", "workers"):
        await fetch(connection, f"ALTER TABLE {{{table}}} ALTER id RESTART", tables)
    transactions = []

    def counted(*arguments: Any, **options: Any) -> Any:
        transactions.append(1)
        return short_transaction(*arguments, **options)

    monkeypatch.setattr(ids, "short_transaction", counted)

    series = [Series(f"new:{n}", "counter", "count") for n in range(3)]
    assert min((await number_series(connection, tables, series)).values()) > taken
    assert min((await number_workers(connection, tables, ["new-1", "new-2"])).values()) > taken
    assert len(transactions) == 2 * len(("find", "insert", "find", "catch up", "insert", "find"))


async def test_updates_of_rollup_rows_stay_on_their_page(connection: Connection, tables: Tables) -> None:
    for _ in range(5):
        await LogWriter(connection, tables).append(jobs=[a_row()])
        await sequence_and_fold(connection, tables)
    await connection.execute("SELECT pg_stat_force_next_flush()")

    rows = await connection.execute(
        "SELECT relname, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = ANY(%s)",
        [[tables.rollup(resolution).as_string(connection).strip('"') for resolution in RESOLUTIONS]],
    )
    for _, updated, hot in await rows.fetchall():
        assert updated == hot > 0


async def test_columns_arrive_as_arrays_with_their_nulls(connection: Connection) -> None:
    whole, known = np.array([-1, 0, 2**31 - 1]), np.array([True, False, True])
    floats = np.array([-0.0, 5e-324, 1e308])
    columns = {
        "integers": (integers(whole), integers(whole, known), integers(whole[:0])),
        "bigints": (bigints(whole * 2**32), bigints(whole, known), bigints(whole[:0], known[:0])),
        "doubles": (doubles(floats), doubles(floats, ~known), doubles(floats[:0])),
        "blobs": (blobs([b"a", b"", b"\x00b"]), blobs([b""]), blobs([])),
    }
    found = {}
    async with connection.cursor() as cursor:
        take_arrays(cursor)
        for (name, arrays), kind in zip(columns.items(), ("integer", "bigint", "float8", "bytea"), strict=True):
            casts = ", ".join([f"%s::{kind}[]"] * 3)
            await cursor.execute(f"SELECT {casts}", arrays, binary=True)
            found[name] = await cursor.fetchone()

    assert found == {
        "integers": ([-1, 0, 2**31 - 1], [-1, None, 2**31 - 1], []),
        "bigints": ([-(2**32), 0, (2**31 - 1) * 2**32], [-1, None, 2**31 - 1], []),
        "doubles": ([-0.0, 5e-324, 1e308], [None, 5e-324, None], []),
        "blobs": ([b"a", None, b"\x00b"], [None], []),
    }


async def test_a_fold_finds_each_sketch_by_its_key_where_there_are_no_statistics_yet(
    connection: Connection, tables: Tables
) -> None:
    runs = [a_run(f"app:{n}", kind="histogram") for n in range(200)]
    for _ in range(3):
        await LogWriter(connection, tables).append(runs=runs)
        await sequence_and_fold(connection, tables)
    await connection.execute("SELECT pg_stat_force_next_flush()")

    cursor = await connection.execute("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname LIKE '%_expiry'")
    assert await cursor.fetchall() == [(0,)] * 4


async def test_observations_without_a_sketch_leave_the_stored_one_and_take_the_quantiles(
    connection: Connection, tables: Tables
) -> None:
    await fold_one_by_one(connection, tables, [1.0, 2.0, 3.0], kind="histogram")
    async with short_transaction(connection) as cursor:
        (points,) = (await read_merged(cursor, tables, 1, dict.fromkeys(["1min"], 0))).values()

    async with short_transaction(connection) as cursor:
        changed = await store(cursor, tables, 1, {"1min": points._replace(sketches=no_sketches())})
    alone = await merged(connection, tables, "count, p50, p99, sketch")
    await fold_one_by_one(connection, tables, [4.0], kind="histogram")

    assert np.isnan(changed["1min"].values[0, COLUMNS.index("p50")])
    assert [row[:3] for row in alone] == [(6, None, None)]
    assert sum(decode(alone[0][3])[1]) == 3
    ((count, p50, sketch),) = await merged(connection, tables, "count, p50, sketch")
    assert (count, p50, sum(decode(sketch)[1])) == (7, None, 4)
    found = Findings(10)
    async with short_transaction(connection) as cursor:
        await check_quantiles(cursor, tables, 1, dict.fromkeys(RESOLUTIONS, 0), None, found)
    assert not found.kept
