"""Whoever reads the totals advances them, in bounded time, and gets none that are half built."""

from __future__ import annotations

import time

import psycopg
import pytest

from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import TotalsNotReady
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.telemetry.totals import read_totals
from tests import rules
from tests.factories import LogWriter, a_run, an_app, fetch, sequence_and_fold


async def test_the_first_request_builds_them_and_the_next_ones_advance_them(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    async with an_app(dsn) as (chancy, _):
        found = []
        for value in (1.0, 2.0, 4.0):
            await writer.append(runs=[a_run("app:n", [value])])
            await sequence_and_fold(connection, tables)
            found.append(await read_totals(chancy))

    assert [(one.position, [total.sum for total in one.series]) for one in found] == [(1, [1]), (2, [3]), (3, [7])]
    assert len({one.generation for one in found}) == 1


async def test_totals_of_an_empty_log_are_empty(dsn: str) -> None:
    async with an_app(dsn) as (chancy, _):
        assert (await read_totals(chancy)).series == []


async def test_while_they_are_built_nothing_is_served_and_the_error_says_how_far_it_is(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chancy_metrics.plugin.folding.totals.STEP_EVENTS", 1)
    writer = LogWriter(connection, tables)
    for _ in range(3):
        await writer.append(runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)
    said = []

    async with an_app(dsn) as (chancy, _):
        for _ in range(4):
            with pytest.raises(TotalsNotReady) as refused:
                await read_totals(chancy, within_s=0)
            said.append(str(refused.value).partition("UTC: ")[2].partition(";")[0])
        totals = await read_totals(chancy, within_s=0)

    assert said == [f"at position {position} of 3" for position in (0, 1, 2, 3)]
    assert [one.sum for one in totals.series] == [3]


async def test_if_another_process_holds_them_the_answer_is_what_is_there_and_comes_soon(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)
    async with an_app(dsn) as (chancy, _), await psycopg.AsyncConnection.connect(dsn) as holding:
        before = await read_totals(chancy)
        await writer.append(runs=[a_run("app:n")])
        await sequence_and_fold(connection, tables)
        await fetch(holding, "SELECT FROM {versions} WHERE status = 'totals' FOR UPDATE", tables)

        started = time.monotonic()
        held = await read_totals(chancy)
        took_s = time.monotonic() - started
        await holding.rollback()
        after = await read_totals(chancy)

    assert (held.position, held.series) == (before.position, before.series)
    assert took_s < 1
    assert [one.sum for one in after.series] == [2]


async def test_if_the_log_is_locked_the_answer_is_what_is_there_and_a_warning_says_why(
    dsn: str, connection: Connection, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)
    async with an_app(dsn) as (chancy, _), await psycopg.AsyncConnection.connect(dsn) as holding:
        before = await read_totals(chancy)
        await writer.append(runs=[a_run("app:n")])
        await sequence_and_fold(connection, tables)
        await fetch(holding, "LOCK TABLE {log} IN ACCESS EXCLUSIVE MODE", tables)

        locked = await read_totals(chancy)

    assert (locked.position, locked.series) == (before.position, before.series)
    assert "the totals were not advanced: LockNotAvailable" in caplog.text


async def test_code_with_older_rules_reads_them_and_a_warning_says_why_they_stand(
    dsn: str, connection: Connection, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)
    async with an_app(dsn, Metrics(rules=[rules.first], rules_version=1)) as (newer, _), an_app(dsn) as (older, _):
        before = await read_totals(newer)
        await writer.append(runs=[a_run("app:n")])
        await sequence_and_fold(connection, tables)
        assert not caplog.records

        found = await read_totals(older)

    assert (found.position, found.series) == (before.position, before.series)
    assert f"the totals were not advanced: generation {before.generation} has rules" in caplog.text
