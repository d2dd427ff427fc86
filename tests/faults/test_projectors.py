"""A projector that dies or freezes between any two statements costs no count, and the others its time-out at most."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess

import anyio
import psycopg
from psycopg import sql

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.sequencer import sequence
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.replay import replay, stored
from examples.embedded import Server
from tests.factories import LogWriter, a_row, a_run, connections, eventually, fetch, sequence_and_fold, total
from tests.faults.stopping import project, stopping

#: `idle_in_transaction_session_timeout` of our transactions, and something for the machine.
FREED_WITHIN_S = 5 + 5
DATABASES = 8


async def something_to_fold(connection: Connection, tables: Tables, new: str = "first") -> None:
    """Append what brings a series and a worker that have no number yet, and counts 2 in "app:n"."""
    writer = LogWriter(connection, tables, f"worker-{new}")
    for _ in range(2):
        await writer.append(jobs=[a_row()], runs=[a_run("app:n"), a_run(f"app:{new}", kind="histogram")])


async def all_folded(connection: Connection, tables: Tables, expected: int) -> bool:
    """Order and fold what somebody else does not hold; whether all is in."""
    await sequence(connection, tables)
    await advance(connection, tables, folded_by="another")
    return await total(connection, tables, "app:n") == [expected] * 4


async def round_trips(dsn: str, tables: Tables) -> int:
    """How many a fold of `something_to_fold` takes, in a process that knows nothing yet.

    Not the first fold of all, which looks up one thing more. It folds this one, too: 4 in "app:n" altogether.
    """
    async with connections(dsn, 1) as (connection,):
        await something_to_fold(connection, tables, "zeroth")
        await sequence_and_fold(connection, tables)
        await something_to_fold(connection, tables)
    return await project(dsn, tables.prefix, 0, signal.SIGCONT)


async def is_frozen(process: BaseProcess) -> bool:
    stat = await anyio.Path(f"/proc/{process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


async def test_a_projector_killed_before_any_statement_costs_no_count(dsn: str, tables: Tables) -> None:
    trips = await round_trips(dsn, tables)
    assert trips > 30
    expected = 4
    async with connections(dsn, 1) as (connection,):
        for stop_at in range(1, trips + 1):
            await something_to_fold(connection, tables, str(stop_at))
            expected += 2
            with stopping(dsn, tables.prefix, stop_at=stop_at, how=signal.SIGKILL) as process:
                await anyio.to_thread.run_sync(process.join, 20)
                died = process.exitcode

            await eventually(lambda: all_folded(connection, tables, expected), within_s=10)  # noqa: B023

            assert died == -signal.SIGKILL, stop_at
        assert diff(await stored(connection, tables), await replay(connection, tables)) == []
        assert await fetch(connection, "SELECT count(*) = max(position) FROM {ledger}", tables) == [(True,)]


async def test_a_projector_frozen_before_any_statement_is_put_aside_by_the_server(
    server: Server, template: str, dsn: str, tables: Tables
) -> None:
    """With a time-out of half a second instead of 5, so that it fits in a test; the next one waits for the real one.

    In several databases at once: most of it is waiting.
    """
    trips = await round_trips(dsn, tables)

    async def freeze_at(database: str, stops: range) -> None:
        expected = 0
        async with connections(server.dsn(database), 1) as (connection,):
            for stop_at in stops:
                await something_to_fold(connection, tables, str(stop_at))
                expected += 2
                with stopping(
                    server.dsn(database), tables.prefix, stop_at=stop_at, how=signal.SIGSTOP, idle_ms=500
                ) as process:
                    await eventually(partial(is_frozen, process), within_s=60)

                    await eventually(partial(all_folded, connection, tables, expected))
            assert diff(await stored(connection, tables), await replay(connection, tables)) == []
            assert await fetch(connection, "SELECT count(*) = max(position) FROM {ledger}", tables) == [(True,)]

    with clones(server, template, "frozen", DATABASES) as databases:
        async with anyio.create_task_group() as tasks:
            for number, database in enumerate(databases, 1):
                tasks.start_soon(freeze_at, database, range(number, trips + 1, DATABASES))


@contextmanager
def clones(server: Server, template: str, stem: str, how_many: int) -> Iterator[list[str]]:
    """So many migrated databases more."""
    databases = [f"{stem}_{number}" for number in range(how_many)]
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        for database in databases:
            create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
            admin.execute(create.format(sql.Identifier(database), sql.Identifier(template)))
        try:
            yield databases
        finally:
            for database in databases:
                admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))


async def test_a_frozen_projector_that_wakes_up_counts_nothing_again(dsn: str, tables: Tables) -> None:
    trips = await round_trips(dsn, tables)
    async with connections(dsn, 1) as (connection,):
        await something_to_fold(connection, tables, "second")
        with stopping(dsn, tables.prefix, stop_at=trips, how=signal.SIGSTOP) as process:  # before its last COMMIT
            assert process.pid is not None
            await eventually(lambda: is_frozen(process))
            await eventually(lambda: all_folded(connection, tables, 6), within_s=FREED_WITHIN_S)
            os.kill(process.pid, signal.SIGCONT)
            await anyio.to_thread.run_sync(process.join, 20)

            assert process.exitcode == 1  # the server has ended its transaction
        await sequence_and_fold(connection, tables)
        assert await total(connection, tables, "app:n") == [6] * 4
        assert diff(await stored(connection, tables), await replay(connection, tables)) == []
