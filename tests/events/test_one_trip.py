"""One statement in one trip: its answer is its own, whatever fails, is cancelled, or was deallocated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import anyio
import psycopg
import pytest
from psycopg import AsyncConnection, AsyncPipeline
from psycopg.pq import PipelineStatus, TransactionStatus

from chancy_metrics.events.database import Connection
from chancy_metrics.events.one_trip import Statement, call, can_call

LENGTH = Statement(b"SELECT octet_length($1::bytea)")
SLEEP = Statement(b"SELECT pg_sleep(extract(epoch FROM $1::text::interval))::text")
FAILS = Statement(b"SELECT 1 / octet_length($1::bytea)")
SAVEPOINT = b"SAVEPOINT mine"


@pytest.fixture
async def host(dsn: str) -> AsyncIterator[Connection]:
    """A connection with an open transaction."""
    async with await AsyncConnection.connect(dsn) as connection:
        await connection.execute("CREATE TEMPORARY TABLE seen (n int)")
        yield connection


async def prepared(connection: Connection) -> list[str]:
    cursor = await connection.execute("SELECT statement FROM pg_prepared_statements", prepare=False)
    return [row[0] for row in await cursor.fetchall()]


@pytest.mark.parametrize("size", [0, 5, 40 << 20])
async def test_a_statement_is_answered_after_its_savepoint(host: Connection, size: int) -> None:
    assert await call(host, LENGTH, [b"x" * size], savepoint=SAVEPOINT) == str(size).encode()

    await host.execute("INSERT INTO seen VALUES (1)")
    await host.execute("ROLLBACK TO SAVEPOINT mine")
    cursor = await host.execute("SELECT count(*) FROM seen")
    assert await cursor.fetchone() == (0,)


@pytest.mark.parametrize(
    ("savepoint", "statement", "error"),
    [
        (SAVEPOINT, FAILS, psycopg.errors.DivisionByZero),
        (b"SAVEPOINT", LENGTH, psycopg.errors.SyntaxError),
        (SAVEPOINT, Statement(b"SELECT nothing($1::bytea)"), psycopg.errors.UndefinedFunction),
    ],
)
async def test_the_first_error_is_raised_and_nothing_of_it_is_left_for_the_next_statement(
    host: Connection, savepoint: bytes, statement: Statement, error: type[psycopg.Error]
) -> None:
    await host.execute("SAVEPOINT before")
    with pytest.raises(error):
        await call(host, statement, [b""], savepoint=savepoint)

    assert host.pgconn.transaction_status == TransactionStatus.INERROR
    assert host.pgconn.pipeline_status == PipelineStatus.OFF
    await host.execute("ROLLBACK TO SAVEPOINT before")
    assert await call(host, LENGTH, [b"abc"]) == b"3"


async def test_it_is_prepared_when_psycopg_would_and_again_once_psycopg_has_deallocated_it(host: Connection) -> None:
    for _ in range(3):
        for _ in range(5):
            assert await call(host, LENGTH, [b"abc"]) == b"3"
        assert LENGTH.query.decode() not in await prepared(host)
        for _ in range(3):
            assert await call(host, LENGTH, [b"abc"], savepoint=SAVEPOINT) == b"3"
        assert (await prepared(host)).count(LENGTH.query.decode()) == 1
        await host.rollback()
        await host.execute("SELECT 1")


async def test_it_is_never_prepared_where_the_connection_forbids_that(host: Connection) -> None:
    host.prepare_threshold = None

    for _ in range(20):
        assert await call(host, LENGTH, [b"abc"]) == b"3"

    assert await prepared(host) == []


async def test_it_is_executed_unprepared_where_psycopg_keeps_no_such_list(host: Connection) -> None:
    kept, host._prepared = host._prepared, None  # type: ignore[assignment]
    try:
        for _ in range(20):
            assert await call(host, LENGTH, [b"abc"]) == b"3"
    finally:
        host._prepared = kept

    assert await prepared(host) == []


async def test_a_cancelled_call_leaves_no_answer_for_the_next_statement(host: Connection) -> None:
    with anyio.move_on_after(0.05) as scope:
        await call(host, SLEEP, [b"1 hour"], savepoint=SAVEPOINT)

    assert scope.cancelled_caught
    if not host.closed:
        await host.rollback()
        cursor = await host.execute("SELECT 'mine'")
        assert await cursor.fetchone() == ("mine",)


async def test_a_call_that_is_given_up_in_the_middle_closes_its_connection(host: Connection) -> None:
    task = asyncio.create_task(call(host, SLEEP, [b"1 hour"], savepoint=SAVEPOINT))
    while host.pgconn.pipeline_status == PipelineStatus.OFF:
        await anyio.lowlevel.checkpoint()

    with anyio.fail_after(20):
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)

    assert task.cancelled()
    assert host.closed


async def test_a_lost_connection_is_an_error_and_not_a_wait_without_end(
    host: Connection, connection: Connection
) -> None:
    async def end() -> None:
        with anyio.fail_after(10):
            while True:
                cursor = await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE %s AND pid = %s",
                    ["%pg_sleep%", host.info.backend_pid],
                )
                if await cursor.fetchone():
                    return
                await asyncio.sleep(0)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end)
            with pytest.raises(psycopg.OperationalError):
                await call(host, SLEEP, [b"1 hour"], savepoint=SAVEPOINT)

    assert host.closed


async def test_it_is_not_for_pipelines_of_psycopg_for_no_transaction_and_for_an_old_libpq(
    host: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert can_call(host)
    async with host.pipeline():
        assert not can_call(host)
    assert can_call(host)
    await host.rollback()
    assert not can_call(host)
    await host.execute("SELECT 1")
    monkeypatch.setattr(AsyncPipeline, "is_supported", lambda: False)
    assert not can_call(host)
