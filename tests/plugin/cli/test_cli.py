"""The commands, run as a user runs them."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from psycopg import sql

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.cli.main import main
from examples.embedded import Server
from tests.commands import run
from tests.factories import LogWriter, a_host, a_run


async def test_status_of_a_new_database_is_healthy(dsn: str) -> None:
    done = run(dsn, "status")

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\nhealthy as far as checked\n")


async def test_status_says_what_was_rejected_and_which_keys_have_two_types(dsn: str) -> None:
    async with a_host(dsn) as (worker, metrics):
        await metrics.increment_counter("app:x", float("nan"))
        await metrics.increment_counter("app:x", 1)
        await metrics.record_gauge("app:x", 1)
        await metrics.flush(worker.chancy)

    status = json.loads(run(dsn, "status", "--json").stdout)

    assert status["completeness"]["rejected"] == {"value": 1}
    assert status["ambiguous_keys"] == ["app:x"]
    assert status["position"] == status["ordered_position"] > 0
    assert status["folded_by"] == worker.worker_id
    assert status["unhealthy"] == []


async def test_events_that_wait_too_long_are_unhealthy_until_fold_has_folded_them(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:x", [1.0])])
    await connection.execute("SET session_replication_role = replica")
    await connection.execute(
        sql.SQL("UPDATE {} SET appended_at = appended_at - interval '5 minutes'").format(tables.log)
    )

    waiting, fold, after = run(dsn, "status"), run(dsn, "fold"), run(dsn, "status")

    assert waiting.returncode == 3
    assert "UNHEALTHY: events have been waiting for 30" in waiting.stdout
    assert fold.returncode == 0
    assert fold.stdout == "sequenced 1 batch, folded 1 event, now at position 1\n"
    assert after.returncode == 0


async def test_damage_is_unhealthy(dsn: str, connection: Connection, tables: Tables) -> None:
    writer = LogWriter(connection, tables)
    await writer.append()
    writer.next_id()  # a sequence that never comes
    await writer.append()
    await connection.execute(sql.SQL("UPDATE {} SET state = 'gone' WHERE day <= current_date + 2").format(tables.days))
    run(dsn, "fold")

    done = run(dsn, "status")

    assert done.returncode == 3
    assert "1 batch is missing" in done.stdout
    assert "the log has no partition for" in done.stdout


def test_a_missing_schema_is_one_sentence(empty_dsn: str) -> None:
    done = run(empty_dsn, "status")

    assert done.returncode == 1
    assert done.stderr.startswith("Error: the metrics tables under prefix 'chancy_' are missing, or in no schema of")
    assert "run `chancy misc migrate`" in done.stderr
    assert done.stderr.count("\n") == 1


async def test_a_table_that_was_dropped_is_named(dsn: str, connection: Connection, tables: Tables) -> None:
    await connection.execute(sql.SQL("DROP TABLE {} CASCADE").format(tables.totals))

    done = run(dsn, "status")

    assert done.returncode == 1
    assert 'relation "chancy_metrics_totals" does not exist' in done.stderr
    assert "restored from a backup" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_database_that_is_down_is_one_sentence(server: Server) -> None:
    done = run(server.dsn().replace("pg-", "no-"), "status")

    assert done.returncode == 1
    assert done.stderr.startswith("Error: the database can't be reached: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("app", ["nowhere.app", "tests.app.nothing", "tests.app.no_app", "tests.app.built_in", "x"])
def test_a_wrong_app_is_wrong_usage(app: str) -> None:
    done = run("postgresql://", "status", app=app)

    assert done.returncode == 2
    assert "--app" in done.stderr and repr(app) in done.stderr
    assert "Traceback" not in done.stderr


def test_every_command_has_help() -> None:
    for name, command in main.commands.items():
        shown = CliRunner().invoke(main, ["--app", "x", name, "--help"])

        assert shown.exit_code == 0
        assert command.help and command.help.split("\n")[0][:60] in shown.output
