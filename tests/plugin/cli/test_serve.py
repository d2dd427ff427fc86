"""`chancy-metrics serve`, run as a user runs it."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from time import monotonic

import httpx
import psycopg
import pytest
from psycopg import sql

from chancy_metrics.plugin.telemetry.exposition import OPENMETRICS
from examples.embedded import Server
from tests.commands import run, serving

TOKEN = "0123456789abcdef-right"


def get(url: str, **headers: str) -> httpx.Response:
    return httpx.get(url, headers=headers)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_answers_scrapes_until_a_signal_which_ends_it_at_once(dsn: str, number: signal.Signals) -> None:
    with serving(dsn) as (url, process):
        answer = get(url, Accept="application/openmetrics-text")
        other = get(url.replace("/metrics", "/metrics-log/prometheus"))
        nothing = get(url.replace("/metrics", "/"))
        with socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0)):  # a client that says nothing
            began = monotonic()
            process.send_signal(number)
            code = process.wait(10)

    assert (answer.status_code, answer.headers["content-type"]) == (200, OPENMETRICS)
    assert "chancy_metrics_healthy 1.0" in answer.text and "server" not in answer.headers
    assert (other.status_code, nothing.status_code) == (200, 404)
    assert code == (0 if number == signal.SIGTERM else 130) and monotonic() - began < 5


async def test_with_a_token_file_only_its_bearer_may_scrape(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    with serving(dsn, "--token-file", str(tmp_path / "token")) as (url, process):
        refused, answered = (get(url, Authorization=f"Bearer {token}") for token in (TOKEN[::-1], TOKEN))
        process.terminate()
        _, said = process.communicate(timeout=10)

    assert (refused.status_code, answered.status_code) == (401, 200)
    assert TOKEN not in said


async def test_an_address_that_is_taken_or_none_is_a_sentence(dsn: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        done = run(dsn, "serve", "--listen", f"127.0.0.1:{port}")
    unknown = run(dsn, "serve", "--listen", "nohost.invalid:9470")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Error: 127.0.0.1:{port} can't be listened on: Address already in use; give --listen another address or port\n"
    )
    assert (
        unknown.returncode == 1 and "nohost.invalid:9470 can't be listened on: no host has this name;" in unknown.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--listen", "9470"], "'9470' is no address such as 127.0.0.1:9470 or [::1]:9470"),
        (["--listen", "127.0.0.1:99999"], "'127.0.0.1:99999' is no address"),
        (["--token-file", "/nowhere/token"], "'/nowhere/token' has no token: No such file or directory"),
        (["--token-file", "/dev/null"], "'/dev/null' has no token: a token has 16 characters or more"),
    ],
)
async def test_wrong_usage_is_a_sentence(dsn: str, arguments: list[str], sentence: str) -> None:
    done = run(dsn, "serve", *arguments)

    assert done.returncode == 2 and sentence in done.stderr and done.stderr.count("\n") == 1


async def test_a_database_that_is_down_is_said_once_and_each_scrape_says_it(server: Server, dsn: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    gone = sql.Identifier(f"{name}_gone")
    with (
        psycopg.connect(server.dsn(), autocommit=True) as admin,
        serving(server.dsn(f"{name}_gone")) as (url, process),
    ):
        answers = [get(url) for _ in range(3)]
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(gone, sql.Identifier(str(name))))
        answers += [get(url) for _ in range(2)]
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(gone))
        answers += [get(url) for _ in range(2)]
        process.terminate()
        _, said = process.communicate(timeout=10)

    assert [one.status_code for one in answers] == [503, 503, 503, 200, 200, 503, 503]
    assert f'database "{name}_gone" does not exist' in answers[0].text and answers[0].text.count("\n") == 1
    down, back, again = said.splitlines()
    assert down.startswith("metrics: a scrape can't be answered in full: the database can't be reached: ")
    assert (back, again) == ("metrics: scrapes are answered in full again", down)
    assert process.returncode == 0
