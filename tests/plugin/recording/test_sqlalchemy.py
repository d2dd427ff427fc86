"""Recorded in a transaction of SQLAlchemy's, as docs/record.md shows it: there if, and only if, it commits."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Observation
from tests.factories import an_app, sequence_and_fold, total

PLACED = Observation.counter("shop:orders")


async def orders(connection: Connection) -> int:
    cursor = await connection.execute("SELECT count(*) FROM orders")
    [count] = await cursor.fetchone() or ()
    return int(count)


@pytest.fixture(autouse=True)
async def table(connection: Connection) -> None:
    await connection.execute("CREATE TABLE orders (euro numeric)")


async def test_a_sessions_transaction_records_if_and_only_if_it_commits(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    engine = create_engine(make_url(dsn).set(drivername="postgresql+psycopg"))
    async with an_app(dsn) as (chancy, metrics):

        def place(session: Session) -> None:
            session.execute(text("INSERT INTO orders VALUES (9.5)"))
            with session.connection().connection.driver_connection.cursor() as cursor:
                metrics.sync_record_in_transaction(chancy, cursor, PLACED)

        with Session(engine) as session, session.begin():
            place(session)
            with pytest.raises(ZeroDivisionError), session.begin_nested():
                place(session)
                raise ZeroDivisionError
        with pytest.raises(ZeroDivisionError), Session(engine) as session, session.begin():
            place(session)
            raise ZeroDivisionError
    engine.dispose()
    await sequence_and_fold(connection, tables)

    assert await orders(connection) == 1
    assert await total(connection, tables, "shop:orders") == [1] * 4


async def test_an_async_sessions_transaction_does_so_too(dsn: str, connection: Connection, tables: Tables) -> None:
    engine = create_async_engine(make_url(dsn).set(drivername="postgresql+psycopg"))
    async with an_app(dsn) as (chancy, metrics):

        async def place(session: AsyncSession) -> None:
            await session.execute(text("INSERT INTO orders VALUES (9.5)"))
            pooled = await (await session.connection()).get_raw_connection()
            async with pooled.driver_connection.cursor() as cursor:
                await metrics.record_in_transaction(chancy, cursor, PLACED)

        async with AsyncSession(engine) as session, session.begin():
            await place(session)
            with pytest.raises(ZeroDivisionError):
                async with session.begin_nested():
                    await place(session)
                    raise ZeroDivisionError
        with pytest.raises(ZeroDivisionError):
            async with AsyncSession(engine) as session, session.begin():
                await place(session)
                raise ZeroDivisionError
    await engine.dispose()
    await sequence_and_fold(connection, tables)

    assert await orders(connection) == 1
    assert await total(connection, tables, "shop:orders") == [1] * 4
