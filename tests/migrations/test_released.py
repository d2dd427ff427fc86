"""A database that a release left is migrated by today's code: its schema, log and numbers are whole, and it goes on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from psycopg.rows import TupleRow

from chancy_metrics.events.chain import read_seals
from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import list_versions, undo, verify
from chancy_metrics.plugin.audit.seal import check
from chancy_metrics.plugin.folding.projector import fold_all
from examples.embedded import Server
from tests.factories import LogWriter, a_run, an_app, connections, now_us
from tests.migrations.dump import RELEASED, counts_of
from tests.migrations.test_migrations import catalogue

RELEASES = sorted(RELEASED.glob("*.sql"), key=lambda path: path.name)


def restore(server: Server, dsn: str, path: Path) -> None:
    words = ["--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--single-transaction", "--file", path, dsn]
    done = subprocess.run([server.binaries / "psql", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def without_days(rows: list[TupleRow]) -> list[TupleRow]:
    """What the catalogue has but for the log's partitions, which are of other days."""
    return [row for row in rows if "metrics_log_2" not in str(row)]


@pytest.mark.parametrize("path", RELEASES, ids=lambda path: path.stem)
async def test_a_database_of_a_release_is_migrated_and_goes_on(
    path: Path, server: Server, empty_dsn: str, tables: Tables, connection: Connection
) -> None:
    restore(server, empty_dsn, path)
    facts = json.loads(path.with_suffix(".json").read_text())

    async with an_app(empty_dsn) as (chancy, _):
        await chancy.migrate()
        await fold_all(chancy)
        counts = await counts_of(chancy)
        verified = await verify(chancy)
        checked = await check(chancy, seals=read_seals([facts["seal"]], path.name))
        versions = await list_versions(chancy)
        async with connections(empty_dsn, 1) as (restored,):
            migrated = await catalogue(restored)
            await LogWriter(restored, tables).append(runs=[a_run("app:n", [2.0], at_us=now_us())])
        await fold_all(chancy)
        later = await counts_of(chancy)
        await undo(chancy)
        again = await verify(chancy)

    again_here = "the schema is not what migrations make: before 1.0, run python -m tests.migrations.dump"
    assert without_days(migrated) == without_days(await catalogue(connection)), again_here
    assert counts == facts["counts"]
    assert (verified.drift, verified.nothing, checked.found, checked.seals) == (0, "", 0, 1)
    assert [one.status for one in versions][-2:] == ["standby", "live"]
    assert float(later["app:n"][1]) == float(counts["app:n"][1]) + 2
    assert (again.drift, again.version) == (0, 1)
