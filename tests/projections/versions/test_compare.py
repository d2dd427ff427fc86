"""Two versions compared: of many workers' cells it finds the one that differs, and says whose it is."""

from __future__ import annotations

import pytest

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.fold.cells import Cells
from chancy_metrics.projections.fold.points import Comparison
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.versions import compare
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.copy_baseline import copy_baseline
from chancy_metrics.projections.versions.create import make_version
from chancy_metrics.projections.versions.version import read_version
from tests.factories import NOON_US, LogWriter, a_row, a_run, cells_of, change_cells, fetch, sequence_and_fold

WORKERS = ("ann", "bob", "cid", "dan", "eve")


async def two_versions(connection: Connection, tables: Tables) -> None:
    """Versions 1 and 2 of what five workers recorded, at one position."""
    for worker in WORKERS:
        writer = LogWriter(connection, tables, worker)
        await writer.append(jobs=[a_row(NOON_US)] * 2, runs=[a_run("app:n", [1.5, 2.5]), a_run("app:m")])
    await sequence_and_fold(connection, tables)
    made = await make_version(connection, tables, BUILT_IN, dict.fromkeys(RESOLUTIONS, 0), by="test")
    while await copy_baseline(connection, tables, made.version):
        pass
    while not (await advance(connection, tables, folded_by="test", version=made.version)).caught_up:
        pass


async def compared(connection: Connection, tables: Tables) -> Comparison:
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        old, new = await read_version(cursor, tables, 1), await read_version(cursor, tables, 2)
        assert old is not None and new is not None
        return await compare.compare(cursor, tables, old, new)


OF = "version = %(version)s AND worker = (SELECT id FROM {workers} WHERE name = %(worker)s)"


def one_more(cells: Cells) -> Cells:
    return cells._replace(micro=cells.micro + 1_000_000)


@pytest.mark.parametrize("at_once", [1, 50, 10_000])
@pytest.mark.parametrize("worker", [WORKERS[0], WORKERS[2], WORKERS[-1]])
async def test_a_difference_in_one_worker_s_cell_is_found_and_names_the_worker(
    connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch, worker: str, at_once: int
) -> None:
    monkeypatch.setattr(compare, "_CELLS", at_once)
    await two_versions(connection, tables)
    assert (await compared(connection, tables)).different == 0
    await change_cells(connection, tables, one_more, version=2, worker=worker, key="app:n")

    found = await compared(connection, tables)

    assert found.different == 1
    assert [str(one) for one in found.differences] == [
        f"app:n 1min 2026-03-10 12:00:00 UTC worker {worker}: sum 4 -> 5"
    ]
    assert [one.worker for one in found.differences] == [worker]


@pytest.mark.parametrize(("gone_from", "says"), [(1, "only in the new"), (2, "only in the old")])
async def test_a_worker_that_one_of_them_lacks_altogether_is_named_cell_by_cell(
    connection: Connection, tables: Tables, gone_from: int, says: str
) -> None:
    await two_versions(connection, tables)
    [(cells,)] = await fetch(
        connection,
        f"DELETE FROM {{worker_segments}} WHERE {OF} RETURNING cells",
        tables,
        version=gone_from,
        worker="dan",
    )

    found = await compared(connection, tables)

    assert found.different == len(found.differences) == cells > 2
    assert {(one.resolution, one.worker, one.change) for one in found.differences} == {("1min", "dan", says)}


async def test_points_are_counted_once_however_many_workers_one_statement_compares(
    connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await two_versions(connection, tables)
    rows = [
        (await fetch(connection, f"SELECT count(*) FROM {{r{resolution}}} WHERE version = 2", tables))[0][0]
        for resolution in RESOLUTIONS
    ]

    cells = await cells_of(connection, tables, 2)
    for at_once in (1, 20, 50, 10_000):
        monkeypatch.setattr(compare, "_CELLS", at_once)
        assert (await compared(connection, tables)).points == sum(rows) + cells


async def test_past_the_limit_differences_are_only_counted(
    connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "_CELLS", 1)
    monkeypatch.setattr(compare, "SHOWN", 3)
    await two_versions(connection, tables)
    await fetch(connection, "UPDATE {r1day} SET count = count + 1 WHERE version = 2", tables)
    [(rows,)] = await fetch(connection, "SELECT count(*) FROM {r1day} WHERE version = 2", tables)

    found = await compared(connection, tables)

    assert (found.different, len(found.differences)) == (rows, 3)


async def test_what_one_of_them_does_not_keep_any_more_is_no_difference(connection: Connection, tables: Tables) -> None:
    await two_versions(connection, tables)
    kept = (await compared(connection, tables)).points
    later = NOON_US // 1_000_000 + 60
    await fetch(connection, "UPDATE {versions} SET horizon_1min = %(at)s WHERE version = 1", tables, at=later)
    await fetch(connection, "DELETE FROM {r1min} WHERE version = 1", tables)
    [(minutes,)] = await fetch(connection, "SELECT count(*) FROM {r1min} WHERE version = 2", tables)

    found = await compared(connection, tables)

    assert (found.points, found.different) == (kept - minutes, 0)
