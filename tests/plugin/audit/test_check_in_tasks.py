"""A check that many tasks share finds what one process finds, in the same words, wherever the ledger is cut."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.audit import seal, walk
from chancy_metrics.plugin.audit.seal import LogCheck, check
from chancy_metrics.plugin.host.progress import LedgerProgress
from chancy_metrics.projections.search import indexing
from examples.embedded import Server
from tests.commands import run
from tests.factories import LogWriter, a_row, a_run, an_app, connections, damage, sequence_all
from tests.standby import Standby

OF = "WHERE (producer, sequence) = (SELECT producer, sequence FROM {{ledger}} WHERE position = {at})"
#: What is done to the batch at a position.
CHANGES = [
    f"UPDATE {{{{log}}}} SET payload = set_bit(payload, 77, 1 - get_bit(payload, 77)) {OF}",
    f"UPDATE {{{{log}}}} SET worker = worker || 'x' {OF}",
    f"DELETE FROM {{{{log}}}} {OF}",
    "UPDATE {{ledger}} SET chain = sha256(chain) WHERE position = {at}",
    "UPDATE {{ledger}} SET events = events + 1 WHERE position = {at}",
    "DELETE FROM {{ledger}} WHERE position BETWEEN {at} AND {at} + 2",
    "UPDATE {{summaries}} SET first_us = first_us - 1 WHERE {at} BETWEEN first_position AND last_position",
]


async def some_batches(connection: Connection, tables: Tables, how_many: int) -> None:
    for number in range(how_many):
        await LogWriter(connection, tables, f"w{number % 2}").append(jobs=[a_row()], runs=[a_run()])
    await sequence_all(connection, tables)


def said(found: LogCheck) -> dict[str, Any]:
    return msgspec.structs.asdict(found) | {"at": None, "took_s": None}


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(1, 40)), max_size=4),
    events=st.integers(3, 40),
    rows=st.integers(2, 20),
    limit=st.sampled_from([2, 100]),
)
async def test_wherever_the_ledger_is_cut_the_same_is_found(
    dsn: str, tables: Tables, changes: list[tuple[str, int]], events: int, rows: int, limit: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(walk, "_TASK_EVENTS", events)
        patched.setattr(walk, "_TASK_ROWS", rows)
        patched.setattr(seal, "SHOWN", limit)
        patched.setattr(indexing, "RANGE_BATCHES", 4)
        async with connections(dsn, 1) as (connection,), an_app(dsn) as (chancy, _):
            await some_batches(connection, tables, 8)
            await indexing.summarise(connection, tables)
            for change, at in changes:
                await damage(connection, tables, change.format(at=at))
            one = await check(chancy)
            with ThreadPoolExecutor(3) as executor:
                many = await check(chancy, executor=executor)

    assert said(many) == said(one)


async def test_progress_is_told_in_order_up_to_the_end(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_batches(connection, tables, 7)
    monkeypatch.setattr(walk, "_TASK_ROWS", 3)
    told: list[LedgerProgress] = []

    async with an_app(dsn) as (chancy, _):
        with ThreadPoolExecutor(2) as executor:
            await check(chancy, executor=executor, on_progress=told.append)

    assert [(one.position, one.until, one.events) for one in told] == [(3, 7, 6), (6, 7, 12), (7, 7, 14)]


async def test_where_tasks_read_without_tasks_is_refused(dsn: str) -> None:
    async with an_app(dsn) as (chancy, _):
        with pytest.raises(MetricsLogError, match="give an executor, too"):
            await check(chancy, read_dsn=dsn)


async def test_tasks_read_a_replica_and_find_there_what_is_in_it(
    dsn: str, connection: Connection, tables: Tables, standby: Standby
) -> None:
    await some_batches(connection, tables, 5)
    await standby.arrived()
    replica = standby.dsn(connection.info.dbname)

    async with an_app(dsn) as (chancy, _):
        with ThreadPoolExecutor(2) as executor:
            found = await check(chancy, executor=executor, read_dsn=replica)
    async with await psycopg.AsyncConnection.connect(replica) as other:
        tasks = await other.execute("SELECT pg_is_in_recovery()")

        assert (found.found, found.batches, await tasks.fetchone()) == (0, 5, (True,))


async def test_a_database_with_another_log_is_no_replica(
    dsn: str, connection: Connection, tables: Tables, server: Server, template: str
) -> None:
    await some_batches(connection, tables, 2)
    async with await psycopg.AsyncConnection.connect(server.dsn(), autocommit=True) as admin:
        await admin.execute(f"CREATE DATABASE other_log TEMPLATE {template}")
    other = server.dsn("other_log")
    async with connections(other, 1) as (writing,):
        await some_batches(writing, tables, 3)

    async def checked(executor: Executor) -> None:
        async with an_app(dsn) as (chancy, _):
            await check(chancy, executor=executor, read_dsn=other)

    with ThreadPoolExecutor(1) as executor, pytest.raises(MetricsLogError, match="holds another log: its ledger has"):
        await checked(executor)


async def test_a_replica_that_stays_behind_is_named_with_its_position(
    dsn: str, connection: Connection, tables: Tables, server: Server, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_batches(connection, tables, 2)
    monkeypatch.setattr("chancy_metrics.plugin.parallel.source._PATIENCE_S", 0)

    async with an_app(dsn) as (chancy, _):
        with (
            ThreadPoolExecutor(1) as executor,
            pytest.raises(MetricsLogError, match=r"at position 0 .* has not come"),
        ):
            await check(chancy, executor=executor, read_dsn=server.dsn(template))


@pytest.mark.slow
async def test_the_command_shares_a_check_among_processes(dsn: str, connection: Connection, tables: Tables) -> None:
    await some_batches(connection, tables, 5)
    alone = run(dsn, "audit", "check")
    fine = run(dsn, "audit", "check", "--processes", "2", CHANCY_METRICS_READ_DSN=dsn)
    await damage(connection, tables, CHANGES[0].format(at=4))
    wrong = run(dsn, "audit", "check", "--processes", "1")

    assert (fine.returncode, wrong.returncode, fine.stderr, wrong.stderr) == (0, 3, "", "")
    assert fine.stdout.partition(" in ")[0] == alone.stdout.partition(" in ")[0]
    assert wrong.stdout.startswith("WRONG at position 4 (payload)")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--processes", "0"), "Invalid value for '--processes'"),
        (("--processes", "2", "--dask", "tcp://a:1"), "--processes and --dask exclude each other"),
        (("--read-dsn", "host=a"), "--read-dsn is for the tasks of --processes or --dask"),
        (
            ("--read-dsn", "host=a pass", "--processes", "1"),
            'Invalid value for \'--read-dsn\': missing "=" after "***"',
        ),
    ],
)
async def test_options_that_say_nothing_are_wrong_usage(dsn: str, options: tuple[str, ...], said: str) -> None:
    done = run(dsn, "audit", "check", *options)

    assert done.returncode == 2
    assert said in done.stderr
