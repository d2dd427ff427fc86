"""A database that is dumped and restored elsewhere answers the same, goes on and rebuilds to the same bytes."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import msgspec
import psycopg
import pytest
from anyio import to_thread

from chancy_metrics.events.partitions import close_day, make_days
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.plugin.health.verify import verify
from chancy_metrics.plugin.rebuilds.rebuild import rebuild
from chancy_metrics.plugin.rebuilds.swap import undo
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.copy_baseline import copy_baseline
from chancy_metrics.projections.versions.create import make_version
from chancy_metrics.projections.versions.replay import stored
from chancy_metrics.projections.versions.version import BASELINE
from tests.factories import LogWriter, a_run, an_app, connections, fetch, now_us, sequence_all, sequence_and_fold
from tests.faults.history import (
    WORKERS,
    Connection,
    assert_equals_replay,
    assert_same_bytes,
    catch_up,
    live_load,
    make_history,
    rows_of,
)
from tests.faults.own_server import a_database, dump, own_server, restore
from tests.faults.surfaces import http

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)
#: Versions of the history: the first is on standby, the second is live, the third is half backfilled.
STANDBY, LIVE, HALF = 1, 2, 3


async def some_batches(connection: Connection, tables: Tables, *, how_many: int = 3) -> None:
    for number in range(how_many):
        at_us = now_us() - number * 3_600_000_000
        runs = [a_run(f"app:new:{number}", [0.1] * 3, at_us=at_us), a_run("app:level", kind="gauge", at_us=at_us)]
        await LogWriter(connection, tables, WORKERS[number % 3]).append(runs=runs)


async def make_long_history(dsn: str, tables: Tables) -> None:
    """A day that left the log, one that is closed, three versions, batches that wait for their fold or a position."""
    async with connections(dsn, 1) as (connection,):
        await make_days(connection, tables, today=YESTERDAY, ahead=0)
        await LogWriter(connection, tables).append(runs=[a_run("app:n", at_us=now_us())], day=YESTERDAY)
        await make_history(connection, tables, batches=12)
        assert await close_day(connection, tables, YESTERDAY) is None
        async with an_app(dsn) as (chancy, _):
            assert (await rebuild(chancy)).version == LIVE
        await some_batches(connection, tables)
        await sequence_and_fold(connection, tables)
        made = await make_version(connection, tables, BUILT_IN, dict.fromkeys(RESOLUTIONS, 0), by="gone")
        assert (made.version, await copy_baseline(connection, tables, HALF)) == (HALF, False)
        await advance(connection, tables, folded_by="gone", version=HALF, step_events=200)
        await some_batches(connection, tables, how_many=1)
        await sequence_all(connection, tables)
        await some_batches(connection, tables)


async def answers(dsn: str) -> dict[str, Any]:
    """What readers are told: by the copy of the cache, of one worker, of a window, and over HTTP."""
    async with an_app(dsn) as (chancy, metrics), http(chancy) as client:
        window = {"resolution": "1day", "limit": 90}
        told = {
            "all": spelled_out(await metrics.get_metrics(chancy)),
            "worker": spelled_out(await metrics.get_metrics(chancy, worker_id=WORKERS[0])),
            "window": msgspec.to_builtins((await metrics.get_metrics(chancy, **window))["series"]),
            "http": (await client.get("/api/v1/metrics/global", params=window)).raise_for_status().json()["series"],
        }
    assert all(told.values())
    return told


def spelled_out(metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        key: (metric.metric_type, metric.unit, *(getattr(metric, f"values_{resolution}") for resolution in RESOLUTIONS))
        for key, metric in metrics.items()
    }


async def positions(connection: Connection, tables: Tables) -> list[Any]:
    """Where everything stands, and which sequence every producer is at."""
    columns_of = {
        "versions": "version, status, position, folds, counts, horizon_1day, replaced",
        "head": "position, chain, live",
        "days": "day, state, last_position, last_us",
        "producers": "producer, last_sequence, closed, holes",
        "pending": "id, producer, sequence",
        "series": "id, key, kind, unit",
        "workers": "id, name",
        "cache": "fold, token, points",
    }
    return [
        await fetch(connection, f"SELECT {columns} FROM {{{table}}} ORDER BY 1, 2", tables)
        for table, columns in columns_of.items()
    ]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["into another database", "into another cluster"])
async def test_a_restored_database_answers_the_same_and_rebuilds_to_the_same_bytes(
    tables: Tables, elsewhere: bool
) -> None:
    with own_server() as server, own_server() if elsewhere else nullcontext(server) as target:
        dsn = await a_database(server, "history")
        await make_long_history(dsn, tables)
        before = await answers(dsn)

        restore(target, "restored", dump(server, "history"))

        copy_dsn = target.dsn("restored")
        assert await answers(copy_dsn) == before
        async with connections(dsn, 1) as (origin,), connections(copy_dsn, 1) as (copy,):
            assert await positions(copy, tables) == await positions(origin, tables)
            for version in (BASELINE, STANDBY, LIVE, HALF):
                assert await rows_of(copy, tables, version, version) == await rows_of(origin, tables, version, version)
            for each in (origin, copy):
                await sequence_and_fold(each, tables)
            for each in (dsn, copy_dsn):
                async with an_app(each) as (chancy, _):
                    done = await rebuild(chancy)
                    assert (done.version, done.replaced, done.differences) == (HALF, LIVE, [])
            await assert_same_bytes(copy, tables, HALF, LIVE)
            await assert_equals_replay(copy, tables)
            assert await rows_of(copy, tables, HALF, HALF) == await rows_of(origin, tables, HALF, HALF)
            assert diff(await stored(origin, tables), await stored(copy, tables)) == []
        assert (await answers(copy_dsn))["window"] == (await answers(dsn))["window"] != before["window"]


async def test_a_restored_log_keeps_its_guards_and_its_versions_can_be_gone_back_to(tables: Tables) -> None:
    with own_server() as server:
        dsn = await a_database(server, "history")
        await make_long_history(dsn, tables)
        restore(server, "restored", dump(server, "history"))

        copy_dsn = server.dsn("restored")
        async with connections(copy_dsn, 1) as (copy,), an_app(copy_dsn) as (chancy, _):
            with pytest.raises(psycopg.Error, match="append-only"):
                await fetch(copy, "UPDATE {log} SET events = 0", tables)
            with pytest.raises(psycopg.Error, match="is closed"):
                await LogWriter(copy, tables).append(runs=[a_run()], day=YESTERDAY)
            await some_batches(copy, tables)
            await sequence_and_fold(copy, tables)
            assert await undo(chancy) == STANDBY
            await catch_up(copy, tables, BUILT_IN, STANDBY, LIVE)
            await assert_same_bytes(copy, tables, STANDBY, LIVE)
            assert (await verify(chancy)).drift == 0


async def test_a_dump_taken_under_load_rebuilds_to_what_was_in_it(tables: Tables) -> None:
    with own_server() as server:
        dsn = await a_database(server, "busy")
        async with connections(dsn, 1) as (connection,):
            await make_history(connection, tables, batches=12)
        async with live_load(dsn, tables) as load, an_app(dsn) as (chancy, _):
            await rebuild(chancy)
            folds = load.folds
            with anyio.fail_after(60):
                while load.folds == folds:  # until a fold went on beside the dump
                    dumped = await to_thread.run_sync(dump, server, "busy")

        restore(server, "restored", dumped)

        async with connections(server.dsn("restored"), 1) as (copy,), an_app(server.dsn("restored")) as (chancy, _):
            [(batches,)] = await fetch(copy, "SELECT count(*) FROM {log}", tables)
            done = await rebuild(chancy)
            await catch_up(copy, tables, BUILT_IN, done.version, done.replaced)
            await assert_same_bytes(copy, tables, done.version, done.replaced)
            await assert_equals_replay(copy, tables)
            in_order = "SELECT count(*) FROM {ledger} JOIN {log} USING (day, producer, sequence)"
            [(ordered,)] = await fetch(copy, in_order, tables)
            checked = await verify(chancy)

    assert (done.version, done.differences) == (3, [])
    assert ordered == batches > 12
    assert checked.drift == 0
