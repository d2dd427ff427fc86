"""Workers' segments that no fold has written are named: by version, worker and fold."""

from __future__ import annotations

import re

import pytest

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.plugin.health.verify import verify
from chancy_metrics.projections.findings import Findings
from chancy_metrics.projections.rollups import segment_soundness
from chancy_metrics.projections.rollups.segment_soundness import check_segments
from tests.factories import LogWriter, a_row, a_run, an_app, fetch, now_us, sequence_and_fold
from tests.faults.history import make_history

OF_ONE = "version = 1 AND worker = (SELECT id FROM {workers} WHERE name = 'one') AND fold = 1 AND resolution = 60"
REBUILD = "a rebuild makes it anew"
RESTORE = "its day may have left the log: restore it from a backup"


def a_minute_us() -> int:
    """A minute that is kept, and at which no bucket of another resolution begins."""
    minute = now_us() // 60_000_000 - 2
    return (minute - (minute % 5 == 0)) * 60_000_000


async def some_segments(connection: Connection, tables: Tables) -> None:
    """Two folds of two workers."""
    at_us = a_minute_us()
    for _ in range(2):
        for worker in ("one", "two"):
            runs = [a_run("app:n", at_us=at_us), a_run("app:g", kind="gauge", at_us=at_us)]
            await LogWriter(connection, tables, worker).append(jobs=[a_row(at_us)], runs=runs)
        await sequence_and_fold(connection, tables)


async def findings(connection: Connection, tables: Tables) -> Findings:
    found = Findings(100)
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        await check_segments(cursor, tables, found)
    return found


async def test_what_folds_write_is_sound(connection: Connection, tables: Tables) -> None:
    await make_history(connection, tables, batches=6)
    await some_segments(connection, tables)

    assert (await findings(connection, tables)).kept == []


@pytest.mark.parametrize(
    ("change", "where", "fault"),
    [
        (
            "data = '\\x07'",
            "worker one 1min, fold 1",
            "it is no run of cells: its format is 7, .*; readers leave it out",
        ),
        ("data = substr(data, 1, 20)", "worker one 1min, fold 1", "it is no run of cells: .*; readers leave it out"),
        ("resolution = 7", "worker one 7 s, fold 1", "its resolution is 7 s, which is none; readers leave it out"),
        ("cells = cells + 1", "worker one 1min, fold 1", r"it has 13 cells, and its row says 14"),
        ("cells = -1", "worker one 1min, fold 1", r"it has 13 cells, and its row says -1"),
        ("first_s = 60", "worker one 1min, fold 1", r"its cells are from (\d+) to \d+, and its row says 60 to \d+"),
        ("end_s = 0", "worker one 1min, fold 1", r"its cells are from (\d+) to \d+, and its row says \1 to 0"),
        (
            "resolution = 300, end_s = first_s + 300",
            "worker one 5min, fold 1",
            "13 of its cells begin between two buckets",
        ),
        ("worker = 987654", "worker number 987654 1min, fold 1", "its worker has no name; readers leave it out"),
        ("fold = -999999", "worker one 1min, fold -999999", "no fold and no day has the number -999999"),
    ],
)
async def test_each_row_that_no_fold_writes_is_named(
    change: str, where: str, fault: str, connection: Connection, tables: Tables
) -> None:
    await some_segments(connection, tables)
    await fetch(connection, f"UPDATE {{worker_segments}} SET {change} WHERE {OF_ONE}", tables)

    [one] = (await findings(connection, tables)).kept

    assert (one.check, one.where) == ("rollups", f"{where} of version 1")
    text, _, what_to_do = one.text.rpartition("; ")
    assert what_to_do == (RESTORE if "fold" in change else REBUILD)
    assert re.fullmatch(fault, text), text


async def test_a_series_without_a_name_is_named_while_its_cells_are_kept(
    connection: Connection, tables: Tables
) -> None:
    await some_segments(connection, tables)
    await fetch(connection, "DELETE FROM {series} WHERE key = 'app:n'", tables)

    kept = (await findings(connection, tables)).kept
    horizons = {f"horizon_{name}": now_us() // 1_000_000 for name in RESOLUTIONS}
    await fetch(connection, f"UPDATE {{versions}} SET {', '.join(f'{n} = {at}' for n, at in horizons.items())}", tables)
    expired = (await findings(connection, tables)).kept
    await fetch(connection, "UPDATE {versions} SET horizon_1day = 0", tables)
    of_the_day = (await findings(connection, tables)).kept

    assert [one.where for one in kept] == [
        f"worker {worker} 1min, fold {fold} of version 1" for worker in ("one", "two") for fold in (1, 2)
    ]
    assert {one.text for one in kept} == {
        f"1 of its cells have a series without a name; readers leave them out; {REBUILD}"
    }
    assert expired == []
    assert of_the_day == kept


async def test_segments_are_read_in_chunks_and_the_first_twenty_faults_are_named(
    connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_segments(connection, tables)
    await fetch(
        connection,
        "INSERT INTO {worker_segments}"
        " SELECT version, worker, resolution, n, part, first_s, end_s, cells + n - 10, data"
        f" FROM {{worker_segments}} CROSS JOIN generate_series(10, 40) AS n WHERE {OF_ONE}",
        tables,
    )

    whole = await findings(connection, tables)
    monkeypatch.setattr(segment_soundness, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(segment_soundness, "_KEYS", 3)
    one_by_one = await findings(connection, tables)

    assert whole.kept == one_by_one.kept
    assert [one.where for one in whole.kept] == [f"worker one 1min, fold {n} of version 1" for n in range(11, 31)]
    assert (whole.count, one_by_one.count) == (30, 30)


async def test_verify_reports_them_and_those_of_the_baseline_but_none_of_a_dropped_version(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await make_history(connection, tables, batches=3)
    await fetch(connection, "UPDATE {worker_segments} SET cells = 0 WHERE version = 0 AND resolution = 60", tables)
    await fetch(
        connection,
        "INSERT INTO {versions} (version, rules, user_rules, rule_names, status, position, created_by)"
        " SELECT 2, rules, user_rules, rule_names, 'dropped', 0, 'test' FROM {versions} WHERE version = 1",
        tables,
    )
    await fetch(
        connection,
        "INSERT INTO {worker_segments} SELECT 2, worker, resolution, fold, part, 0, 0, 0, '' FROM {worker_segments}"
        " WHERE version = 1",
        tables,
    )

    async with an_app(dsn) as (chancy, _):
        found = [str(one) for one in (await verify(chancy)).findings]

    assert len(found) == 3
    text = rf"fold -\d+ of version 0: it has \d+ cells, and its row says 0; {RESTORE}"
    for one, worker in zip(found, "abc", strict=True):
        assert re.fullmatch(f"rollups, worker worker-{worker} 1min, {text}", one), one
