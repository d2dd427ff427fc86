"""What docs/upgrade.md says does so: a cluster moves without a loss and goes on, and a rule joins two names."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from chancy_metrics.events.database import Connection
from chancy_metrics.events.facts import Combo
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import check, rebuild, verify
from examples.embedded import Server
from tests.factories import LogWriter, a_row, a_run, an_app, connections, eventually, now_us, sequence_and_fold, total
from tests.faults.own_server import a_database
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "upgrade.md").read_text()


class Clusters(NamedTuple):
    """The servers of a move, and the folder in which its commands run."""

    old: Server
    new: Server
    folder: Path

    def named(self, line: str) -> str:
        """A command or statement of the page with these servers in it."""
        for name, server in (("old", self.old), ("new", self.new)):
            line = line.replace(f"host={name} dbname=app", f"host={server.folder} user=postgres dbname=app")
        return line

    def run(self, line: str) -> None:
        environment = os.environ | {"PATH": f"{self.old.binaries}:{os.environ['PATH']}"}
        words = ["bash", "-ec", self.named(line)]
        done = subprocess.run(words, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def clusters(tmp_path: Path) -> Iterator[Clusters]:
    binaries = os.environ.get("PG_BIN")
    with ExitStack() as stack:
        old, new = (
            stack.enter_context(Server(Path(binaries) if binaries else None, wal_level="logical")) for _ in range(2)
        )
        yield Clusters(old, new, tmp_path)


def section(begin: str, end: str) -> str:
    return PAGE.partition(f"**{begin}")[2].partition(f"**{end}")[0]


def commands(text: str) -> list[str]:
    """The commands of PostgreSQL in a section of the page."""
    return re.findall(r"^\$ (p.*(?:\n .*)*)", text, re.M)


async def record(connection: Connection, tables: Tables, batches: int = 1) -> None:
    writer = LogWriter(connection, tables, "worker")
    for _ in range(batches):
        await writer.append(jobs=[a_row(now_us())], runs=[a_run("app:n", [1.0], at_us=now_us())])
        await sequence_and_fold(connection, tables)


async def check_new(clusters: Clusters, tables: Tables, expected: int) -> None:
    """Check that all is there and right, and that the log goes on."""
    dsn = clusters.new.dsn("app")
    async with connections(dsn, 1) as (connection,), an_app(dsn) as (chancy, _):
        assert await total(connection, tables, "app:n") == [expected] * 4
        assert ((await check(chancy)).found, (await verify(chancy)).drift) == (0, 0)
        await record(connection, tables, batches=2)
        writer = LogWriter(connection, tables, "a new worker")
        await writer.append(runs=[a_run("app:new", [1.0], at_us=now_us())])
        await sequence_and_fold(connection, tables)
        assert await total(connection, tables, "app:n") == [expected + 2] * 4
        assert await total(connection, tables, "app:new") == [1] * 4
        assert ((await check(chancy)).found, (await verify(chancy)).drift) == (0, 0)


async def test_by_a_dump(clusters: Clusters, tables: Tables) -> None:
    dsn = await a_database(clusters.old, "app")
    async with connections(dsn, 1) as (connection,):
        await record(connection, tables, batches=3)
    dump, restore = commands(section("By a dump", "By logical"))

    clusters.run(f"createdb -h {clusters.new.folder} -U postgres app")
    clusters.run(dump)
    clusters.run(restore)

    await check_new(clusters, tables, 3)


async def test_by_logical_replication_while_workers_go_on(clusters: Clusters, tables: Tables) -> None:
    text = section("By logical", "The log alone")
    publish, subscribe, end = re.findall(r"^```sql\n(.*?)^```", text, re.M | re.S)
    dump, load, read_sequences, set_sequences = commands(text)
    dsn = await a_database(clusters.old, "app")
    clusters.run(f"createdb -h {clusters.new.folder} -U postgres app")
    async with connections(dsn, 1) as (connection,):
        await record(connection, tables, batches=3)
        clusters.run(dump)
        clusters.run(load)
        await connection.execute(publish.encode())
        async with connections(clusters.new.dsn("app"), 1) as (new,):
            await new.execute(clusters.named(subscribe).encode())
            await record(connection, tables, batches=4)

            async def has_all() -> bool:
                query = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'"
                row = await (await new.execute(query)).fetchone()
                return row == (0,) and await total(new, tables, "app:n") == [7] * 4

            await eventually(has_all, within_s=60)
            await new.execute(end.encode())
    clusters.run(read_sequences)
    clusters.run(set_sequences)

    await check_new(clusters, tables, 7)


async def test_a_rule_counts_a_queue_under_both_of_its_names(dsn: str, connection: Connection, tables: Tables) -> None:
    [block] = [text for text in re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S) if "letters_sent" in text]
    page: dict[str, Any] = {}
    exec(block, page)
    ended = [("mail", "succeeded"), ("mail", "failed"), *[("letters", "succeeded")] * 2, ("other", "succeeded")]
    jobs = [a_row(now_us(), combo=Combo("app.work", queue, state, 1, "")) for queue, state in ended]
    await LogWriter(connection, tables).append(jobs=jobs)
    await sequence_and_fold(connection, tables)

    async with an_app(dsn, page["metrics"]) as (chancy, _):
        await rebuild(chancy)

    assert await total(connection, tables, "letters:sent") == [3] * 4
