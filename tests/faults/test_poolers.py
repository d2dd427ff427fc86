"""Poolers, empty pools and databases that go away: nothing of ours waits for them, and all of it comes back alone."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import anyio
import psycopg
import pytest
from chancy import Chancy, Queue, Worker, job
from chancy.plugins.leadership import ImmediateLeadership
from psycopg_pool import AsyncConnectionPool

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.folding.projector import Projector
from chancy_metrics.plugin.folding.schedule import FoldSchedule, project
from chancy_metrics.plugin.host.connection import own_connection
from examples.embedded import Server
from tests.factories import an_app, connections, eventually, total
from tests.faults.surfaces import everywhere

BOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
if not BOUNCER and os.environ.get("CI"):
    raise RuntimeError("no pgbouncer was found (Debian: pgbouncer): CI skips no test")
needs_bouncer = pytest.mark.skipif(not BOUNCER, reason="no pgbouncer was found (Debian: pgbouncer)")
#: Seconds within which everything works again once the database is back.
BACK_WITHIN_S = 10


@job(queue="default")
async def work() -> None:
    """Nothing: that it was saved is what counts."""


@contextmanager
def pgbouncer(server: Server, **settings: int | str) -> Iterator[str]:
    """A pgbouncer before *server*, in transaction mode unless told otherwise; yields the folder of its socket."""
    with tempfile.TemporaryDirectory(prefix="pgb-") as name:
        folder = Path(name)
        options = {"default_pool_size": 3, "pool_mode": "transaction", "auth_type": "any", "listen_port": 6432}
        options |= {"unix_socket_dir": name, "listen_addr": "", "max_client_conn": 100} | settings
        lines = ["[databases]", f"* = host={server.folder} user=postgres", "[pgbouncer]"]
        (folder / "ini").write_text("\n".join(lines + [f"{key} = {value}" for key, value in options.items()]) + "\n")
        user = None
        if os.geteuid() == 0:
            user = "nobody"
            folder.chmod(0o755)
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        process = subprocess.Popen([str(BOUNCER), "-q", str(folder / "ini")], user=user, stderr=subprocess.DEVNULL)
        try:
            while not (folder / ".s.PGSQL.6432").exists():
                assert process.poll() is None, "pgbouncer has ended"
                time.sleep(0.01)  # another process can't set an event here
            yield name
        finally:
            process.kill()
            process.wait()


def without_prepared(chancy: Chancy) -> Chancy:
    """The pool a host behind a pooler that knows no prepared statements has to have."""
    chancy.pool = AsyncConnectionPool(
        chancy.dsn,
        min_size=1,
        max_size=chancy.max_connection_pool_size,
        open=False,
        kwargs={"prepare_threshold": None},
    )
    return chancy


@asynccontextmanager
async def a_worker(chancy: Chancy, *, polling_s: int = 1) -> AsyncIterator[Worker]:
    """*chancy*'s worker on the queue "default"."""
    async with chancy:
        queue = Queue("default", executor=Chancy.Executor.Async, concurrency=20, polling_interval=polling_s)
        await chancy.declare(queue, upsert=True)
        async with Worker(chancy, register_signal_handlers=False) as worker:
            yield worker


def an_app_of_two(dsn: str) -> Chancy:
    """A pool of two, folding twice a second."""
    return Chancy(
        dsn,
        plugins=[Metrics(sync_interval=0.5, append_interval=0.2), ImmediateLeadership()],
        notifications=False,
        max_connection_pool_size=2,
    )


async def push(chancy: Chancy, how_many: int) -> None:
    async for _ in chancy.push_many([work.job] * how_many):
        pass


async def saved(connection: Connection) -> int:
    cursor = await connection.execute("SELECT count(*) FROM chancy_jobs WHERE state = 'succeeded'")
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def all_say(connection: Connection, tables: Tables, key: str, expected: int) -> bool:
    return await total(connection, tables, key) == [expected] * 4


def bouncer_settings() -> list[dict[str, int]]:
    """Prepared statements off, and on where this pgbouncer knows them (1.21)."""
    if BOUNCER is None:
        return [{}]
    version = subprocess.run([BOUNCER, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    knows = tuple(int(part) for part in version.split(".")[:2]) >= (1, 21)
    return [{"max_prepared_statements": 0}, {"max_prepared_statements": 200}] if knows else [{}]


@needs_bouncer
@pytest.mark.parametrize("settings", bouncer_settings())
async def test_four_workers_behind_pgbouncer_lose_nothing_and_hold_no_session(
    server: Server, dsn: str, tables: Tables, settings: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    jobs = 60
    with pgbouncer(server, **settings) as folder:
        through = f"host={folder} port=6432 dbname={psycopg.conninfo.conninfo_to_dict(dsn)['dbname']}"
        async with AsyncExitStack() as stack, connections(dsn, 1) as (connection,):
            apps = [without_prepared(an_app_of_two(through)) for _ in range(4)]
            for app in apps:
                await stack.enter_async_context(a_worker(app))
            await push(apps[0], jobs)
            for app in apps:
                await app.plugins["chancy.metrics"].increment_counter("app:n", 5)

            async def all_saved() -> bool:
                return await saved(connection) == jobs

            await eventually(all_saved)
            # Jobs that hold both connections of a pool keep nobody from folding.
            async with apps[0].pool.connection(), apps[0].pool.connection():
                await apps[0].plugins["chancy.metrics"].increment_counter("app:n", 2)
                await eventually(lambda: all_say(connection, tables, "queue:default:succeeded", jobs))
            await eventually(lambda: all_say(connection, tables, "app:n", 22))
            cursor = await connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND state LIKE 'idle in transaction%%' AND now() - state_change > interval '5 s'"
            )
            assert await cursor.fetchone() == (0,)

    assert "prepared statement" not in caplog.text
    found = await everywhere(dsn, "app:n")
    assert found == dict.fromkeys(found, 22.0)


@needs_bouncer
async def test_in_session_mode_a_worker_hears_of_jobs_and_folds(server: Server, dsn: str, tables: Tables) -> None:
    with pgbouncer(server, pool_mode="session", default_pool_size=10) as folder:
        through = f"host={folder} port=6432 dbname={psycopg.conninfo.conninfo_to_dict(dsn)['dbname']}"
        app = Chancy(through, plugins=[Metrics(sync_interval=0.5), ImmediateLeadership()], max_connection_pool_size=2)
        async with connections(dsn, 1) as (connection,), a_worker(app, polling_s=600):
            for jobs in (1, 2):  # the queue is polled at the start, so that the second one is heard of
                await push(app, 1)
                await eventually(partial(all_say, connection, tables, "queue:default:succeeded", jobs))


@needs_bouncer
async def test_nothing_we_set_reaches_whoever_gets_the_session_next(server: Server, dsn: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    with pgbouncer(server, default_pool_size=1) as folder:
        through = f"host={folder} port=6432 dbname={name}"
        async with connections(dsn, 1) as (admin,):
            for setting in ("DateStyle = 'German'", "idle_session_timeout = '1h'", "statement_timeout = '1min'"):
                await admin.execute(f"ALTER DATABASE {name} SET {setting}")
        async with (
            an_app(through) as (chancy, _),
            own_connection(chancy) as ours,
            connections(through, 1) as (next_one,),
        ):
            async with short_transaction(ours) as cursor:
                await cursor.execute("SELECT pg_backend_pid(), current_setting('statement_timeout')")
                mine = await cursor.fetchone()
            query = "SELECT pg_backend_pid(), current_setting('statement_timeout'), current_setting('DateStyle'),"
            found = await (await next_one.execute(f"{query} current_setting('idle_session_timeout')")).fetchone()

    assert mine is not None
    assert mine[1] == "0"
    assert found == (mine[0], "1min", "German, DMY", "1h")


async def test_a_database_that_was_away_is_caught_up_with_soon_and_exactly(tables: Tables) -> None:
    with Server() as server:
        app = Chancy(server.dsn(), plugins=[Metrics(sync_interval=0.5, append_interval=0.2), ImmediateLeadership()])
        async with app:
            await app.migrate()
        async with a_worker(app):
            metrics = app.plugins["chancy.metrics"]
            await metrics.increment_counter("app:n", 1)
            await push(app, 5)
            async with connections(server.dsn(), 1) as (connection,):
                await eventually(lambda: all_say(connection, tables, "app:n", 1))
            server.stop()
            for _ in range(100):
                await metrics.increment_counter("app:n", 1)
            await anyio.to_thread.run_sync(server.start)
            async with connections(server.dsn(), 1) as (connection,):
                await eventually(lambda: all_say(connection, tables, "app:n", 101), within_s=BACK_WITHIN_S)

                async def jobs_agree() -> bool:
                    done = await saved(connection)
                    return done == 5 and await all_say(connection, tables, "queue:default:succeeded", done)

                await eventually(jobs_agree)
        found = await everywhere(server.dsn(), "app:n")
        assert found == dict.fromkeys(found, 101.0)


async def test_sessions_left_on_a_read_only_server_are_left_for_new_ones(dsn: str, tables: Tables) -> None:
    """A failover: for a moment every new session is one on a server that takes no writes, and the pool keeps it.

    Without a worker: the host's own tasks end with such an error.
    """
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    leader = asyncio.Event()
    leader.set()
    metrics = Metrics(append_interval=0.2)
    async with connections(dsn, 1) as (admin,), an_app(dsn, metrics, max_connection_pool_size=1) as (chancy, _):
        projector = Projector(chancy, "p")
        async with anyio.create_task_group() as tasks, metrics.recording(chancy):
            tasks.start_soon(project, FoldSchedule("p", 0.2, leader), projector, 0.2, chancy.log)
            await metrics.increment_counter("app:n", 1)
            await eventually(lambda: all_say(admin, tables, "app:n", 1))
            await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            await admin.execute(f"SELECT pg_terminate_backend(pid) {others}")
            await eventually(lambda: is_read_only(chancy))
            await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")

            await metrics.increment_counter("app:n", 1)

            await eventually(lambda: all_say(admin, tables, "app:n", 2), within_s=BACK_WITHIN_S)
            tasks.cancel_scope.cancel()
        await projector.close()


async def is_read_only(chancy: Chancy) -> bool:
    """Whether the session the pool hands out can't write."""
    try:
        async with chancy.pool.connection() as connection:
            cursor = await connection.execute("SHOW default_transaction_read_only")
            return await cursor.fetchone() == ("on",)
    except psycopg.OperationalError:
        return False  # one that was terminated
