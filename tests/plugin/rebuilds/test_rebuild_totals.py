"""`rebuild --totals` corrects totals, says what it changed, and only that makes another generation."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import VersionRefused
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.cli.rebuild import _rebuilt_totals_lines
from chancy_metrics.plugin.host.progress import RebuildProgress
from chancy_metrics.plugin.rebuilds.listing import list_versions
from chancy_metrics.plugin.rebuilds.rebuild import rebuild
from chancy_metrics.plugin.rebuilds.swap import undo
from chancy_metrics.plugin.rebuilds.totals import rebuild_totals
from chancy_metrics.plugin.telemetry.totals import read_totals
from tests import rules
from tests.commands import run
from tests.factories import LogWriter, a_row, a_run, an_app, fetch, sequence_and_fold
from tests.faults.history import make_history
from tests.projections.totals.test_totals import exact


async def test_a_wrong_total_is_corrected_and_named(dsn: str, connection: Connection, tables: Tables) -> None:
    await make_history(connection, tables, batches=10)
    async with an_app(dsn) as (chancy, _):
        before = await read_totals(chancy)
        right = await exact(connection, tables)
        await fetch(
            connection,
            "UPDATE {totals} SET sum = 7 WHERE series = (SELECT id FROM {series} WHERE key = 'app:n')",
            tables,
        )

        said: list[RebuildProgress] = []
        done = await rebuild_totals(chancy, on_progress=said.append)
        after = await read_totals(chancy)
        versions = await list_versions(chancy)

    assert [one.version for one in versions] == [1]  # generations are none of them
    assert (done.replaced, done.generation) == (before.generation, after.generation)
    assert after.generation > before.generation
    assert after.series == before.series
    assert (done.series, done.different, done.position) == (len(before.series), 1, before.position)
    [wrong] = done.differences
    assert str(wrong) == f"app:n (counter, count): 7 of 400 -> {right['app:n'].sum} of 400"
    assert await exact(connection, tables) == right
    assert {one.phase for one in said} == {"copying", "backfilling"}


async def test_a_series_that_is_not_corrected_counts_since_when_it_did(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    async with an_app(dsn) as (chancy, _):
        for key in ("app:first", "app:late", "app:wrong"):
            await writer.append(runs=[a_run(key)])
            await sequence_and_fold(connection, tables)
            before = await read_totals(chancy)
        await fetch(
            connection,
            "UPDATE {totals} SET sum = 7 WHERE series = (SELECT id FROM {series} WHERE key = 'app:wrong')",
            tables,
        )
        await rebuild_totals(chancy)
        after = await read_totals(chancy)

    old, new = ({one.series.key: one.created_us for one in found.series} for found in (before, after))
    assert old["app:first"] < old["app:late"] < old["app:wrong"]
    assert new == old | {"app:wrong": old["app:first"]}  # the start of its first day


async def test_a_rebuild_and_an_undo_of_the_rollups_leave_the_totals_as_they_are(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await make_history(connection, tables, batches=4)
    async with an_app(dsn) as (chancy, _):
        found = [await read_totals(chancy)]
        await rebuild(chancy)
        found.append(await read_totals(chancy))
        await undo(chancy)
        found.append(await read_totals(chancy))

    one, other, last = (totals._replace(at_us=0) for totals in found)  # of the reading
    assert one == other == last


async def test_without_totals_it_builds_them_and_newer_rules_reach_back(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(jobs=[a_row()], runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)
    async with an_app(dsn) as (chancy, _):
        with pytest.raises(VersionRefused, match="no totals are served yet"):
            await rebuild_totals(chancy, swap=False)
        first = await rebuild_totals(chancy)
    newer = Metrics(rules=[rules.first], rules_version=1)
    async with an_app(dsn, newer) as (chancy, _):
        second = await rebuild_totals(chancy)
        totals = await read_totals(chancy)
    async with an_app(dsn) as (chancy, _):
        with pytest.raises(VersionRefused, match="would lack what newer rules make"):
            await rebuild_totals(chancy)

    assert (first.replaced, first.series, first.events) == (None, None, 2)
    assert (first.swapped, second.swapped) == (True, True)
    assert second.replaced == first.generation
    assert {one.series.key: one.sum for one in totals.series}["made:by:first"] == 1


async def test_totals_that_could_not_be_compared_are_said_not_to_be(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(jobs=[a_row()])
    await sequence_and_fold(connection, tables)
    async with an_app(dsn) as (chancy, _):
        await read_totals(chancy)
    await writer.append(jobs=[a_row()])
    await sequence_and_fold(connection, tables)
    async with an_app(dsn, Metrics(rules=[rules.first], rules_version=1)) as (chancy, _):
        done = await rebuild_totals(chancy)

    assert (done.replaced, done.series) == (2, None)
    told = "not compared with generation 2, which has other rules or was never at one position"
    assert told in _rebuilt_totals_lines(done)


async def test_tasks_build_the_same(dsn: str, connection: Connection, tables: Tables) -> None:
    await make_history(connection, tables, batches=10)
    context = multiprocessing.get_context("spawn")
    async with an_app(dsn) as (chancy, _):
        await read_totals(chancy)
        with ProcessPoolExecutor(1, mp_context=context) as executor:
            done = await rebuild_totals(chancy, executor=executor)

    assert done.series and done.different == 0
    assert done.events > 500


async def test_the_command_says_what_it_did(dsn: str, connection: Connection, tables: Tables) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n", [1.0, 2.0])])
    await sequence_and_fold(connection, tables)
    async with an_app(dsn) as (chancy, _):
        await read_totals(chancy)
    await fetch(connection, "UPDATE {totals} SET sum = 4", tables)

    compared = run(dsn, "rebuild", "--totals", "--no-swap")
    text = run(dsn, "rebuild", "--totals")
    again = run(dsn, "rebuild", "--totals", "--no-swap")
    wrong = run(dsn, "rebuild", "--totals", "--archive", "x")

    codes = [done.returncode for done in (compared, text, again, wrong)]
    assert codes == [3, 0, 0, 2], text.stderr
    assert compared.stdout.splitlines()[0] == "- app:n (counter, count): 4 of 2 -> 3 of 2"
    assert compared.stdout.splitlines()[-1] == "exporters still read generation 2 of the totals"
    lines = text.stdout.splitlines()
    assert lines[:2] == [
        "- app:n (counter, count): 4 of 2 -> 3 of 2",
        "compared the totals of 1 series at position 1: 1 differs",
    ]
    assert lines[2].startswith("folded 2 events in ")
    assert lines[3] == "exporters read generation 4 of the totals now; it replaces generation 2"
