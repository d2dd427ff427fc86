"""The schema goes up, down and up again, and several processes may migrate at once."""

from __future__ import annotations

import anyio
import pytest
from chancy import Chancy
from chancy.plugins.metrics import Metrics as BuiltIn
from psycopg.rows import TupleRow

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from tests.factories import LogWriter, a_run, an_app, connections, fetch, sequence_and_fold, total

#: Everything of ours in the catalogue: columns, domains, constraints, indexes, triggers, functions, settings.
CATALOGUE = """
    SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text,
        a.attstorage::text, pg_get_expr(d.adbin, d.adrelid)
    FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') AND c.relname LIKE 'chancy_metrics%'
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE a.attnum > 0
    UNION ALL
    SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '', ''
    FROM pg_constraint WHERE conrelid::regclass::text LIKE 'chancy_metrics%'
    UNION ALL
    SELECT 'domain', contypid::regtype::text, conname, pg_get_constraintdef(oid), '', '', ''
    FROM pg_constraint WHERE contypid::regtype::text LIKE 'chancy_metrics%'
    UNION ALL
    SELECT 'index', tablename, indexname, indexdef, '', '', '' FROM pg_indexes WHERE tablename LIKE 'chancy_metrics%'
    UNION ALL
    SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), '', '', ''
    FROM pg_trigger WHERE NOT tgisinternal AND tgrelid::regclass::text LIKE 'chancy_metrics%'
    UNION ALL
    SELECT 'function', proname, '', prosrc, '', '', '' FROM pg_proc WHERE proname LIKE 'chancy_metrics%'
    UNION ALL
    SELECT 'settings', relname, '', reloptions::text, '', '', '' FROM pg_class WHERE relname LIKE 'chancy_metrics%'
    ORDER BY 1, 2, 3, 4
"""


async def catalogue(connection: Connection) -> list[TupleRow]:
    return await (await connection.execute(CATALOGUE)).fetchall()


async def test_up_down_up_makes_the_same_and_leaves_nothing_between(
    dsn: str, tables: Tables, connection: Connection
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)
    before = await catalogue(connection)

    async with an_app(dsn) as (chancy, metrics):
        await metrics.migrate(chancy, to_version=0)
        between = await catalogue(connection)
        await metrics.migrate(chancy, to_version=0)
        await metrics.migrate(chancy)

    assert len(before) > 300
    assert between == []
    assert await catalogue(connection) == before
    await LogWriter(connection, tables).append(runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)
    assert await total(connection, tables, "app:n") == [1] * 4


async def test_going_down_leaves_what_is_not_ours(dsn: str, connection: Connection) -> None:
    others = (
        "SELECT relname FROM pg_class WHERE relname LIKE 'chancy%' AND relname NOT LIKE 'chancy_metrics%' ORDER BY 1"
    )
    await connection.execute("CREATE TABLE chancy_metrics (of_the_built_in integer)")
    before = await (await connection.execute(others)).fetchall()

    async with an_app(dsn) as (chancy, metrics):
        await metrics.migrate(chancy, to_version=0)

    assert await (await connection.execute(others)).fetchall() == before
    assert [row[1] for row in await catalogue(connection)] == ["chancy_metrics"] * len(await catalogue(connection))


@pytest.mark.parametrize("migrators", [4])
async def test_processes_that_migrate_at_once_all_end_well(empty_dsn: str, tables: Tables, migrators: int) -> None:
    async with Chancy(empty_dsn, plugins=[Metrics()], no_default_plugins=True) as chancy:
        await chancy.migrate()
        await chancy.plugins["chancy.metrics"].migrate(chancy, to_version=0)

    async def migrate() -> None:
        async with an_app(empty_dsn) as (chancy, metrics):
            await metrics.migrate(chancy)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(migrators):
                tasks.start_soon(migrate)

    async with connections(empty_dsn, 1) as (connection,):
        await LogWriter(connection, tables).append(runs=[a_run("app:n")])
        await sequence_and_fold(connection, tables)
        assert await total(connection, tables, "app:n") == [1] * 4
        assert await fetch(connection, "SELECT version, status FROM {versions} ORDER BY version", tables) == [
            (0, "baseline"),
            (1, "live"),
        ]


async def test_up_and_down_wait_for_no_table_of_chancys_that_only_readers_may_lock(empty_dsn: str) -> None:
    async with Chancy(empty_dsn, plugins=[BuiltIn()]) as chancy:
        await chancy.migrate()
    metrics = Metrics()
    async with Chancy(empty_dsn, plugins=[metrics]) as chancy, connections(empty_dsn, 1) as (jobs,), jobs.transaction():
        await jobs.execute("LOCK TABLE chancy_jobs, chancy_queues, chancy_workers IN EXCLUSIVE MODE")

        with anyio.fail_after(20):
            await metrics.migrate(chancy)
            await metrics.migrate(chancy, to_version=0)


async def test_where_nothing_is_new_a_migration_waits_for_no_append_and_no_fold(dsn: str) -> None:
    metrics = Metrics()
    async with Chancy(dsn, plugins=[metrics]) as chancy, connections(dsn, 1) as (busy,), busy.transaction():
        await busy.execute("LOCK TABLE chancy_metrics_log, chancy_metrics_head IN EXCLUSIVE MODE")

        with anyio.fail_after(20):
            await metrics.migrate(chancy)
