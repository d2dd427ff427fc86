"""The examples run as their READMEs say, each in a process of its own, on a real database."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from tests.factories import LogWriter, a_row, eventually, now_us, sequence_and_fold, total
from tests.processes import ROOT, free_port

EXAMPLES = ROOT / "examples"
BIN = Path(sys.executable).parent
LATEST_S = 60

pytestmark = pytest.mark.slow


def environment(dsn: str) -> Mapping[str, str]:
    return {**os.environ, "DATABASE_URL": dsn, "PYTHONPATH": "."}


def run(folder: str, dsn: str, *command: str) -> str:
    """Run a command in the folder of an example; return what it prints."""
    done = subprocess.run(
        [BIN / command[0], *command[1:]],
        cwd=EXAMPLES / folder,
        env=environment(dsn),
        capture_output=True,
        text=True,
        timeout=LATEST_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def served(folder: str, dsn: str, *command: str) -> Iterator[httpx.Client]:
    """Run a server in the folder of an example, and hand out a client that waits for it to come up."""
    port = free_port()
    process = subprocess.Popen(
        [BIN / command[0], *(word.format(port=port) for word in command[1:])],
        cwd=EXAMPLES / folder,
        env=environment(dsn),
        start_new_session=True,
    )
    again = httpx.HTTPTransport(retries=8)  # after 0.5, 1, 2, ... seconds
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=again, timeout=LATEST_S) as client:
            yield client
    finally:
        process.terminate()
        process.wait(LATEST_S)


async def counted(connection: Connection, tables: Tables, key: str) -> int:
    """What of a counter is in the log by now, folded."""
    await sequence_and_fold(connection, tables)
    return (await total(connection, tables, key))[0]


async def test_a_script_records(dsn: str, connection: Connection, tables: Tables) -> None:
    run("script", dsn, "python", "main.py")
    run("script", dsn, "chancy-metrics", "--app", "main.chancy", "fold")

    assert await total(connection, tables, "shop:orders") == [3] * 4
    assert await total(connection, tables, "shop:payments") == [1] * 4


async def test_fastapi_counts_and_shows_what_it_counted(dsn: str) -> None:
    with served("fastapi_app", dsn, "uvicorn", "main:app", "--port", "{port}") as client:
        assert [client.post(f"/orders/{order}").json() for order in (1, 2)] == [{"order": 1}, {"order": 2}]

        async def is_shown() -> bool:
            shown = {**client.get("/numbers/shop").json(), **client.get("/numbers/global").json()}
            sums = {key: sum(value for _, value in points) for key, points in shown.items()}
            return sums == {"shop:orders": 2, "global:status:succeeded": 2}

        await eventually(is_shown, within_s=LATEST_S)


async def test_flask_counts_and_pushes(dsn: str, connection: Connection, tables: Tables) -> None:
    with served("flask_app", dsn, "flask", "--app", "main:create_app", "run", "--port", "{port}") as client:
        assert client.post("/orders/7").json() == {"order": 7}

        async def is_counted() -> bool:
            return await counted(connection, tables, "shop:orders") == 1

        await eventually(is_counted, within_s=LATEST_S)
    cursor = await connection.execute("SELECT func, kwargs FROM chancy_jobs")
    assert await cursor.fetchall() == [("jobs.send_receipt", {"order": 7})]


async def test_django_counts_in_its_own_transaction(dsn: str, connection: Connection, tables: Tables) -> None:
    run("django_app", dsn, "python", "manage.py", "migrate")
    with served("django_app", dsn, "python", "manage.py", "runserver", "--noreload", "127.0.0.1:{port}") as client:
        assert [client.get(f"/orders/{euro}/").status_code for euro in ("99.50", "12.00", "nonsense")] == [
            200,
            200,
            500,
        ]

    assert await counted(connection, tables, "shop:orders") == 2


async def test_a_rule_is_over_all_jobs_of_the_log(dsn: str, connection: Connection, tables: Tables) -> None:
    ended = now_us()
    jobs = [a_row(ended, started_us=ended - seconds * 1_000_000) for seconds in (1, 31, 45)]
    await LogWriter(connection, tables).append(jobs=jobs)
    await sequence_and_fold(connection, tables)  # without the rule

    command = ("chancy-metrics", "--app", "main.chancy")
    run("rules", dsn, *command, "rebuild")
    asked = ("audit", "explain", "slow:default", "--at", "0s", "--resolution", "1day")

    assert "2 events" in run("rules", dsn, *command, *asked)


def test_every_example_has_a_readme_of_a_few_lines() -> None:
    for folder in ("script", "fastapi_app", "flask_app", "django_app", "rules", "compose"):
        lines = (EXAMPLES / folder / "README.md").read_text().splitlines()
        assert lines[0].startswith("# ") and len(lines) <= 10, folder
