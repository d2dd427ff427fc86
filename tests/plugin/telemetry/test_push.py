"""A collector gets every total, whatever becomes of it or of us meanwhile, and what it rejects is said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any

import anyio
import pytest
from chancy import Chancy

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.telemetry.push import (
    Pusher,
    PushFailed,
    client_for,
    metrics_endpoint,
    pause_s,
    push_once,
    retry_after_s,
)
from chancy_metrics.plugin.telemetry.resource import read_pairs, resource_of
from tests.commands import command, run
from tests.factories import LogWriter, a_row, a_run, an_app, now_us, sequence_all
from tests.otlp_receiver import Answer, Receiver, rejecting
from tests.otlp_receiver import resource_of as resource_in

PLACED = ("orders.placed", frozenset([("chancy.key", "orders:placed")]))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().running() as one:
        yield one


async def record(connection: Connection, tables: Tables, value: float = 1.0) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("orders:placed", [value], at_us=now_us())])
    await sequence_all(connection, tables)


async def pusher_to(chancy: Chancy, url: str) -> Pusher:
    return Pusher(chancy, metrics_endpoint(url), {"x-tenant": "a"}, await resource_of(chancy, {}))


async def test_a_round_sends_every_total_and_the_health_of_the_pipeline(
    dsn: str, connection: Connection, tables: Tables, receiver: Receiver
) -> None:
    await record(connection, tables, 2.5)
    await LogWriter(connection, tables).append(jobs=[a_row(now_us()), a_row(now_us(), state="failed")])
    await sequence_all(connection, tables)
    async with an_app(dsn) as (chancy, _):
        done = await push_once(await pusher_to(chancy, receiver.url), 0)

    assert (done.position, done.taken_position, done.rejected, done.requests) == (2, 2, 0, 1)
    points = receiver.points()
    of_queue = [("messaging.system", "chancy"), ("messaging.destination.name", "default")]
    ran = points["messaging.process.duration", frozenset([*of_queue, ("messaging.operation.name", "process")])]
    assert (ran.count, ran.sum, ran.min, ran.max, ran.scale) == (2, 1.0, 0.5, 0.5, 6)
    assert points["chancy.queue.updates", frozenset([*of_queue, ("chancy.job.state", "failed")])].as_int == 1
    assert points[PLACED].as_double == 2.5 and len(points) == done.points
    assert ("chancy.metrics.healthy", frozenset()) in points
    assert receiver.headers[0]["content-encoding"] == "gzip" and receiver.headers[0]["x-tenant"] == "a"
    assert receiver.headers[0]["content-type"] == "application/x-protobuf"


async def test_an_outage_of_the_collector_costs_no_total(dsn: str, connection: Connection, tables: Tables) -> None:
    first = Receiver()
    async with an_app(dsn) as (chancy, _), client_for() as client:
        pusher = await pusher_to(chancy, first.url)
        await record(connection, tables)
        with first.running():
            before = await pusher.push(client)
        await record(connection, tables)
        with pytest.raises(PushFailed, match="can't be reached: ") as caught:
            await pusher.push(client)
        at_outage = pusher.taken_position
        await record(connection, tables)
        with Receiver(first.port).running() as second:
            after = await pusher.push(client)

    assert caught.value.retryable
    assert (before.taken_position, at_outage, after.taken_position) == (1, 1, 3)
    old, new = first.points()[PLACED], second.points()[PLACED]
    assert (old.as_double, new.as_double) == (1, 3)
    assert old.start_time_unix_nano == new.start_time_unix_nano > 0
    assert new.time_unix_nano > old.time_unix_nano


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_busy_collector_is_asked_again_when_it_says(
    dsn: str, connection: Connection, tables: Tables, receiver: Receiver, status: int
) -> None:
    await record(connection, tables)
    receiver.answers = [Answer(status, headers={"Retry-After": "0"})]
    async with an_app(dsn) as (chancy, _):
        done = await push_once(await pusher_to(chancy, receiver.url), 20)

    assert (done.taken_position, receiver.attempts, len(receiver.taken)) == (1, 2, 1)


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500])
async def test_what_will_never_be_taken_is_sent_once(
    dsn: str, connection: Connection, tables: Tables, receiver: Receiver, status: int
) -> None:
    await record(connection, tables)
    receiver.answers = [Answer(status, b"so it is", "text/plain")]
    async with an_app(dsn) as (chancy, _):
        pusher = await pusher_to(chancy, receiver.url)
        with pytest.raises(PushFailed, match=rf"answered {status} .*\(so it is\)") as caught:
            await push_once(pusher, 20)

    assert (caught.value.retryable, receiver.attempts, pusher.taken_position) == (False, 1, None)


async def test_rejected_points_are_counted_and_the_position_stays(
    dsn: str, connection: Connection, tables: Tables, receiver: Receiver
) -> None:
    await record(connection, tables)
    receiver.answers = [rejecting(1, "orders.placed is too new")]
    async with an_app(dsn) as (chancy, _), client_for() as client:
        pusher = await pusher_to(chancy, receiver.url)
        some = await pusher.push(client)
        all_of_it = await pusher.push(client)

    assert (some.rejected, some.message, some.taken_position) == (1, "orders.placed is too new", None)
    assert (all_of_it.rejected, all_of_it.message, all_of_it.taken_position) == (0, "", 1)


async def test_an_answer_of_another_server_is_no_success(
    dsn: str, connection: Connection, tables: Tables, receiver: Receiver
) -> None:
    receiver.answers = [Answer(body=b"<html>Welcome", kind="text/html; charset=utf-8")]
    async with an_app(dsn) as (chancy, _):
        with pytest.raises(PushFailed, match=r"answered 200 with text/html, which no OTLP receiver does.*/v1/metrics"):
            await push_once(await pusher_to(chancy, receiver.url), 0)


async def test_no_sentence_has_a_password(dsn: str) -> None:
    async with an_app(dsn) as (chancy, _):
        with pytest.raises(PushFailed, match=r"^http://127.0.0.1:1/v1/metrics can't be reached: ") as caught:
            await push_once(await pusher_to(chancy, "http://u:secret@127.0.0.1:1/?token=secret"), 0)

    assert "secret" not in str(caught.value)


async def test_the_instance_is_the_log_and_not_the_process(dsn: str, empty_dsn: str) -> None:
    async with an_app(dsn) as (chancy, _):
        first = await resource_of(chancy, {})
    async with an_app(dsn) as (chancy, _):
        again = await resource_of(
            chancy,
            {
                "OTEL_SERVICE_NAME": "shop",
                "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=a%2Fb,service.name=x",
            },
            [("host.name", "h")],
        )
    async with an_app(empty_dsn) as (chancy, _):
        await chancy.migrate()
        other = await resource_of(chancy, {})

    assert first["service.name"] == "chancy"
    assert again["service.instance.id"] == first["service.instance.id"] != other["service.instance.id"]
    assert (again["service.name"], again["deployment.environment"], again["host.name"]) == ("shop", "a/b", "h")


@contextmanager
def sending(dsn: str, url: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command("otlp", "--endpoint", url, "--every", "1s", *arguments),
        env=os.environ | {"DSN": dsn},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def said_by(process: subprocess.Popen[str]) -> str:
    """The next line on standard output: a round is told once its answer has come, which is after it was taken."""
    assert process.stdout is not None
    with anyio.fail_after(60):
        return await anyio.to_thread.run_sync(process.stdout.readline, abandon_on_cancel=True)


async def rounds_until(process: subprocess.Popen[str], position: int) -> None:
    """Wait for a round with totals as of so late a position, all of them taken; earlier rounds may be behind."""
    while json.loads(await said_by(process))["taken_position"] != position:
        pass


async def test_kill_and_restart_change_nothing(
    dsn: str, connection: Connection, tables: Tables, receiver: Receiver
) -> None:
    await record(connection, tables)
    with sending(dsn, receiver.url, "--json") as process:
        await rounds_until(process, 1)
        process.kill()
        process.wait()
    killed_at = len(receiver.taken)
    await record(connection, tables)
    with sending(dsn, receiver.url, "--json") as process:
        await rounds_until(process, 2)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)

    first, last = receiver.points(killed_at - 1)[PLACED], receiver.points()[PLACED]
    assert (first.as_double, last.as_double) == (1, 2)
    assert first.start_time_unix_nano == last.start_time_unix_nano
    assert resource_in(receiver.taken[0]) == resource_in(receiver.taken[-1])
    assert (process.returncode, err) == (0, "")


async def test_it_tells_of_the_first_round_of_an_outage_once_and_when_it_ends(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await record(connection, tables)
    first = Receiver()
    with sending(dsn, first.url) as process, first.running():
        sent = await said_by(process)
        first.answers = [Answer(503, headers={"Retry-After": "0"})] * 3
        assert process.stderr is not None
        with anyio.fail_after(60):
            told = [await anyio.to_thread.run_sync(process.stderr.readline, abandon_on_cancel=True) for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)

    assert sent.startswith("sent ") and sent.endswith(f" to {first.url}/v1/metrics\n")
    assert "answered 503" in told[0] and told[0].endswith("the next round sends all that is missing\n")
    assert "takes all points again after" in told[1] and told[1].endswith("no total was lost\n")
    assert (process.returncode, out, err) == (0, "", "")


async def test_once_exits_with_3_where_points_are_rejected(
    dsn: str, connection: Connection, tables: Tables, receiver: Receiver
) -> None:
    await record(connection, tables)
    receiver.answers = [rejecting(2, "too old")]

    done = run(dsn, "otlp", "--endpoint", receiver.url, "--once", "--json")

    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["rejected"] == 2
    assert "rejected 2 of" in done.stderr and "too old" in done.stderr


def test_headers_and_endpoint_come_from_opentelemetrys_variables(dsn: str, receiver: Receiver) -> None:
    done = run(
        dsn,
        "otlp",
        "--once",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"{receiver.url}/",
        OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20secret",
    )

    assert done.returncode == 0, done.stderr
    assert receiver.headers[0]["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "say where to send: give --endpoint http://localhost:4318"),
        (("--endpoint", "collector:4317"), 2, "is not a URL such as http://localhost:4318"),
        (("--endpoint", "http://x", "--header", "novalue"), 2, "'novalue' is not KEY=VALUE"),
        (("--endpoint", "http://x", "--header", "k=é"), 2, "'k' has a character that can't be sent"),
        (("--endpoint", "http://x", "--every", "0s"), 2, "at least 1s"),
    ],
)
def test_what_is_wrong_is_one_sentence(dsn: str, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = run(dsn, "otlp", "--once", *arguments)

    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr and len(done.stderr.splitlines()) == 1 and "secret" not in done.stderr


@pytest.mark.parametrize(
    ("failures", "error", "least", "most"),
    [
        (0, None, 15, 15),
        (1, PushFailed("", retryable=True), 0.5, 1),
        (4, PushFailed("", retryable=True), 4, 8),
        (99, PushFailed("", retryable=True), 30, 60),
        (1, PushFailed("", retryable=True, after_s=7), 7, 7),
        (1, PushFailed("", retryable=False), 15, 15),
        (3, RuntimeError("the database"), 2, 4),
    ],
)
def test_pauses_grow_and_the_collectors_wish_is_kept(
    failures: int, error: Exception | None, least: float, most: float
) -> None:
    assert pause_s(failures, error, 15, 0.0) == least
    assert pause_s(failures, error, 15, 1.0) == most


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7),
        (" 0 ", 0),
        (formatdate(1_090, usegmt=True), 90),
        (formatdate(10, usegmt=True), 0),
        ("soon", None),
        ("99999999999", 86_400),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, 1_000) == seconds


@pytest.mark.parametrize(
    ("url", "posts_to"),
    [
        ("http://c:4318", "http://c:4318/v1/metrics"),
        ("https://c/", "https://c/v1/metrics"),
        ("https://c/otlp/v1/metrics?k=v", "https://c/otlp/v1/metrics?k=v"),
    ],
)
def test_a_collector_without_a_path_has_the_usual_one(url: str, posts_to: str) -> None:
    assert metrics_endpoint(url) == posts_to


@pytest.mark.parametrize("url", ["", "c:4318", "grpc://c", "http://", "http://c:0"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not a URL such as"):
        metrics_endpoint(url)


def test_pairs_of_the_environment_are_percent_encoded() -> None:
    found: Any = read_pairs("a=1, b=x%2Cy ,nothing,=z,c==")

    assert found == [("a", "1"), ("b", "x,y"), ("c", "=")]
