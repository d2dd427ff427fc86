"""Prefixes that need quotes: each has tables, triggers, indexes, partitions and a channel of its own, or is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import psycopg
import pytest
from chancy import Chancy, Worker
from psycopg import sql

from chancy_metrics.events.errors import PrefixTooLong
from chancy_metrics.events.schema import TABLES, tables_for
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.folding.projector import fold_all
from chancy_metrics.plugin.host.notify import FOLDED
from tests.factories import LogWriter, a_run, an_app, connections
from tests.faults.surfaces import everywhere

PREFIXES = [
    *("My_", "my-", "a b_", "user_", "1x_", "schéma_", "o'brien_", "a$$b_", 'a"b_', "x.job_", "a\\b_"),
    *("A_", "a_", "a{b}_", ""),
]
LONG = ["p" * 54 + "a", "p" * 54 + "b"]


async def test_neighbours_with_awkward_prefixes_never_meet(empty_dsn: str) -> None:
    """Only our tables: Chancy's own can't be there under two prefixes, one of its constraints has none."""
    for count, prefix in enumerate(PREFIXES, 3):
        async with an_app(empty_dsn, prefix=prefix) as (chancy, metrics), connections(empty_dsn, 1) as (connection,):
            await metrics.migrate(chancy)
            async with metrics.recording(chancy):
                await metrics.increment_counter("app:n", count)
            await LogWriter(connection, tables_for(prefix)).append(runs=[a_run("app:old", at_us=0)])

    for count, prefix in enumerate(PREFIXES, 3):
        heard = await heard_of_a_fold(empty_dsn, prefix)
        assert heard.items() >= {"t": FOLDED, "worker": f"folder of {prefix}"}.items()
        found = await everywhere(empty_dsn, "app:n", prefix=prefix)
        assert found == dict.fromkeys(found, float(count)), prefix
        await refuses_truncate(empty_dsn, prefix)
        async with an_app(empty_dsn, prefix=prefix) as (chancy, metrics):
            assert (
                await metrics.cleanup(chancy) == 4 + 1 + 2
            )  # "app:old": its points, its worker's segment, and both names

    async with connections(empty_dsn, 1) as (connection,):
        for gone, prefix in enumerate(PREFIXES, 1):
            async with an_app(empty_dsn, prefix=prefix) as (chancy, metrics):
                await metrics.migrate(chancy, to_version=0)
            cursor = await connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            left = {row[0] for row in await cursor.fetchall()}
            assert not left & {f"{prefix}{table}" for table in TABLES}
            assert not [name for name in left if name.startswith(tables_for(prefix).partition_stem)]
            for other in PREFIXES[gone:]:
                assert {f"{other}{table}" for table in TABLES} <= left
    assert left == {f"{prefix}schema_version" for prefix in PREFIXES}


async def heard_of_a_fold(dsn: str, prefix: str) -> dict[str, str]:
    """Fold, and return what somebody heard who listens on the prefix's channel."""
    async with connections(dsn, 1) as (listener,), an_app(dsn, prefix=prefix) as (chancy, _):
        await listener.execute(sql.SQL("LISTEN {}").format(sql.Identifier(f"{prefix}events")))
        await fold_all(chancy, f"folder of {prefix}")
        [heard] = [notify async for notify in listener.notifies(timeout=5, stop_after=1)]
        return json.loads(heard.payload)


async def refuses_truncate(dsn: str, prefix: str) -> None:
    tables = tables_for(prefix)
    async with connections(dsn, 1) as (connection,):
        for table in (tables.log, tables.partition(datetime.now(UTC).date())):
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
                await connection.execute(sql.SQL("TRUNCATE {}").format(table))


@pytest.mark.parametrize("prefix", LONG)
async def test_a_prefix_that_would_be_cut_is_refused_with_the_reason(empty_dsn: str, prefix: str) -> None:
    async with Chancy(empty_dsn, prefix=prefix, plugins=[Metrics()]) as chancy:
        with pytest.raises(PrefixTooLong, match="has 55 bytes; PostgreSQL cuts names at 63 bytes"):
            await chancy.migrate()
        with pytest.raises(PrefixTooLong, match="choose a shorter one"):
            await Worker(chancy, register_signal_handlers=False).start()

    async with connections(empty_dsn, 1) as (connection,):
        cursor = await connection.execute("SELECT relname FROM pg_class WHERE relname LIKE '%metrics%'")
        assert await cursor.fetchall() == []


async def test_the_longest_prefix_that_is_taken_keeps_every_name_whole(empty_dsn: str) -> None:
    prefix = "é" * 18 + "x"  # 37 bytes
    async with Chancy(empty_dsn, prefix=prefix, plugins=[Metrics()], no_default_plugins=True) as chancy:
        await chancy.plugins["chancy.metrics"].migrate(chancy)

    async with connections(empty_dsn, 1) as (connection,):
        cursor = await connection.execute("SELECT relname FROM pg_class WHERE relname LIKE %s", [f"{prefix}metrics%"])
        names = [row[0] for row in await cursor.fetchall()]
        assert len(names) > 60
        assert max(len(name.encode()) for name in names) <= 63
        assert {f"{prefix}{table}" for table in TABLES} <= set(names)
    with pytest.raises(PrefixTooLong):
        tables_for(prefix + "x" * 3)
