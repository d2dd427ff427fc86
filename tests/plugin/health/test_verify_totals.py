"""`verify --totals` finds totals that somebody changed; without it, every surface says that nobody looked."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics, read_totals
from chancy_metrics.plugin.health.status import Status
from chancy_metrics.plugin.health.status_reader import read_status
from chancy_metrics.plugin.health.verify import Verified, verify
from chancy_metrics.plugin.rebuilds.totals import rebuild_totals
from tests import rules
from tests.commands import run
from tests.factories import DAY_US, LogWriter, a_row, a_run, an_app, fetch, now_us, sequence_and_fold
from tests.faults.history import make_history

NEVER = "the totals for exporters were never compared with the log: `chancy-metrics verify --totals` does it"
CHANGES = {
    "a sum": "UPDATE {totals} SET sum = 7 WHERE series = (SELECT id FROM {series} WHERE key = 'app:n')",
    "a removed row": "DELETE FROM {totals} WHERE series = (SELECT id FROM {series} WHERE key = 'app:n')",
}


async def served(dsn: str) -> None:
    async with an_app(dsn) as (chancy, _):
        await read_totals(chancy)


async def looked_at(dsn: str, *, totals: bool = True) -> tuple[Verified, Status]:
    async with an_app(dsn) as (chancy, _):
        return await verify(chancy, totals=totals), await read_status(chancy)


@pytest.mark.parametrize("change", ["a sum", "a removed row"])
async def test_a_changed_total_is_found_and_stays_open_until_a_run_that_looks_at_totals_finds_nothing(
    dsn: str, connection: Connection, tables: Tables, change: str
) -> None:
    await make_history(connection, tables, batches=10)
    await served(dsn)
    right, _ = await looked_at(dsn)
    await fetch(connection, CHANGES[change], tables)

    wrong, status = await looked_at(dsn)
    _, still = await looked_at(dsn, totals=False)
    async with an_app(dsn) as (chancy, _):
        await rebuild_totals(chancy)
    _, healed = await looked_at(dsn)

    assert (right.drift, right.totals.not_compared) == (0, "")
    assert (wrong.different, wrong.found) == (0, 1)
    assert str(wrong.findings[0]).startswith("totals, app:n (counter, count): it ")
    for one in (status, still):
        assert any("totals, app:n (counter, count)" in reason for reason in one.unhealthy)
    assert not any("totals, app:n" in reason for reason in healed.unhealthy)


async def test_what_the_baseline_does_not_keep_any_more_is_not_compared_and_that_is_said(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await make_history(connection, tables, batches=10)
    await served(dsn)
    await fetch(connection, CHANGES["a sum"], tables)
    await fetch(connection, "UPDATE {versions} SET horizon_1day = 2 ^ 40 WHERE version = 0", tables)

    found, _ = await looked_at(dsn)

    assert (found.totals.series, found.found) == (0, 0)
    assert found.totals.not_compared.endswith("series began before the days that the baseline keeps")


async def test_tasks_find_the_same(dsn: str, connection: Connection, tables: Tables) -> None:
    await make_history(connection, tables, batches=10)
    await served(dsn)
    await fetch(connection, CHANGES["a sum"], tables)

    here, _ = await looked_at(dsn)
    async with an_app(dsn) as (chancy, _):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
            there = await verify(chancy, totals=True, executor=executor)

    assert there.findings == here.findings and there.totals == here.totals
    assert here.found == 1


async def test_totals_that_have_not_all_of_the_log_are_compared_up_to_their_position(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(runs=[a_run("app:n", [1.0])])
    await sequence_and_fold(connection, tables)
    await served(dsn)
    await writer.append(runs=[a_run("app:n", [2.0]), a_run("app:later")])
    await sequence_and_fold(connection, tables)

    found, _ = await looked_at(dsn)

    assert (found.drift, found.position, found.totals.position, found.totals.series) == (0, 2, 1, 1)


async def test_a_series_that_was_silent_for_too_long_need_not_have_a_total(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    age_us = int(Metrics().maximum_metric_age) * 1_000_000
    writer = LogWriter(connection, tables)
    await writer.append(runs=[a_run("app:old", at_us=now_us() - age_us - DAY_US), a_run("app:n")])
    await sequence_and_fold(connection, tables)
    await served(dsn)
    await fetch(connection, CHANGES["a removed row"].replace("app:n", "app:old"), tables)

    found, _ = await looked_at(dsn)

    assert (found.found, found.totals.series) == (0, 1)


async def test_totals_of_other_rules_are_not_compared_and_that_is_said(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await LogWriter(connection, tables).append(jobs=[a_row(now_us())])
    await sequence_and_fold(connection, tables)
    async with an_app(dsn, Metrics(rules=[rules.first], rules_version=1)) as (chancy, _):
        await read_totals(chancy)

    found, status = await looked_at(dsn)

    assert found.totals.series is None and "rules" in found.totals.not_compared
    assert NEVER in status.not_looked_at


async def test_the_command_says_whether_it_looked_and_exits_with_3_where_a_total_differs(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n", [1.0, 2.0], at_us=now_us())])
    await sequence_and_fold(connection, tables)
    nobody = run(dsn, "verify")
    await served(dsn)

    without, before = run(dsn, "verify"), run(dsn, "status")
    whole, after = run(dsn, "verify", "--totals"), run(dsn, "status")
    await fetch(connection, "UPDATE {totals} SET sum = 4", tables)
    wrong = run(dsn, "verify", "--totals", "--since", "2h", "--json")

    assert [one.returncode for one in (nobody, without, whole, wrong)] == [0, 0, 0, 3]
    assert "totals" not in nobody.stdout and "everything agrees" in nobody.stdout
    told = "totals for exporters: not compared, this run was not asked to (`--totals`)"
    assert without.stdout.splitlines()[0] == told
    assert "they agree" in without.stdout and NEVER in before.stdout
    assert whole.stdout.splitlines()[0] == "totals for exporters: 1 series compared at position 1 of generation 2"
    assert "everything agrees" in whole.stdout
    assert NEVER not in after.stdout and "totals compared 20" in after.stdout
    answer = json.loads(wrong.stdout)
    assert answer["totals"] == {"generation": 2, "position": 1, "series": 1, "not_compared": ""}
    assert answer["findings"][0]["check"] == "totals"
    assert "it should be another one (sum 4 -> 3)" in answer["findings"][0]["text"]
