"""A server of the test's own, to be crashed and dumped; what it has committed survives that."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from chancy import Chancy
from psycopg import sql

from chancy_metrics.plugin import Metrics
from examples.embedded import Server


@contextmanager
def own_server() -> Iterator[Server]:
    binaries = os.environ.get("PG_BIN")
    with Server(Path(binaries) if binaries else None, prefix="fault-", synchronous_commit="on") as server:
        yield server


def crash(server: Server) -> None:
    """End all of its processes at once, and start it again.

    Called on the main thread, whose end would be the server's, too.
    """
    server.stop(signal.SIGQUIT)
    server.start()


async def a_database(server: Server, name: str) -> str:
    """Make a migrated database and return its DSN."""
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    async with Chancy(server.dsn(name), plugins=[Metrics()]) as chancy:
        await chancy.migrate()
    return server.dsn(name)


def dump(server: Server, name: str) -> bytes:
    return _run(server, "pg_dump", "--format=custom", server.dsn(name))


def restore(server: Server, name: str, dumped: bytes) -> None:
    """Replace the database *name*, if there is one, by a dump; whoever is connected to it is cut off."""
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    _run(server, "pg_restore", "--single-transaction", "--dbname", server.dsn(name), data=dumped)


def _run(server: Server, program: str, *arguments: str, data: bytes = b"") -> bytes:
    done = subprocess.run([server.binaries / program, *arguments], input=data, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
