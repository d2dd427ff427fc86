"""Measure how late timers of a process's event loop are while it serves the page of 20,000 series to 50 clients.

The clients ask in parallel for everything that the page has; against the same process without clients.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import httpx
from chancy import Worker
from chancy.plugins.api import Api, SimpleAuthBackend

from chancy_metrics.events.batch import ObservationRun
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection
from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin import Metrics
from chancy_metrics.projections.versions.advance import advance

from .database import Databases, Producer, an_app, connections, sequence_all
from .delay import delays_for
from .facts import job_rows
from .harness import Row, Size, Target, check, percentile

_MS = 1_000
_PARALLEL = 50
_USER, _PASSWORD = "ann", "secret"
_API = "api/v1/metrics-log"


async def run(pool: Databases, size: Size) -> list[Row]:
    series, seconds = size.of(20_000, 300), size.of(15, 1)
    with pool.database() as dsn:
        async with connections(dsn, 1, prepared=False) as (connection,):
            await _fill(connection, series)
        async with _serving(dsn) as (process, url), httpx.AsyncClient(base_url=url, timeout=60) as client:
            await _sign_in(client)
            began = time.perf_counter()
            check("the first answer", (await client.get(f"{_API}/series")).status_code, 200)
            first_s = time.perf_counter() - began
            check("series listed", (await client.get("api/v1/metrics")).json()["count"] >= series, True)
            idle = await _delays(process, seconds / 3)
            asked, delays = await asyncio.gather(_ask_for(client, seconds, series), _delays(process, seconds))
    work = f"event-loop delay, {_PARALLEL} parallel, {series:,} series"
    within = Target("ours", "<=", 50, "<= 50 ms")
    figures = {"p99": (percentile(delays, 0.99), percentile(idle, 0.99)), "the longest": (max(delays), max(idle))}
    return [
        *(
            Row("page", f"{work}, {name}", ours * _MS, "ms", "p99", floor * _MS, "nobody asks", within)
            for name, (ours, floor) in figures.items()
        ),
        Row("page", "answers a second meanwhile", asked / seconds, "1/s", "median"),
        Row("page", "the first answer of a process", first_s * _MS, "ms", "median"),
    ]


async def _fill(connection: Connection, series: int) -> None:
    tables, now_us = tables_for("chancy_"), time.time_ns() // 1_000
    producer = Producer(connection)
    for minutes in (120, 60, 30, 1):
        at_us = now_us - minutes * 60_000_000
        runs = [
            ObservationRun(Series(f"bench:{number % 97}:{number}:count", "counter", "count"), [at_us], [1.0])
            for number in range(series)
        ]
        await producer.append([encode((), runs)])
    rows = job_rows(2_000, until_us=now_us, per_second=100)
    meta = json.dumps({"text": "x" * 3_000}).encode()
    await producer.append([encode([row._replace(meta=meta) for row in rows[:500]]), encode(rows[500:])])
    await sequence_all(connection, tables)
    while not (await advance(connection, tables, folded_by="bench")).caught_up:
        pass


def _questions(series: int) -> list[str]:
    at = (datetime.now(UTC) - timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    keys = [f"bench:{number % 97}:{number}:count" for number in range(0, series, max(1, series // 10))]
    points = [f"{_API}/points?key={key}&resolution=1min&range=3600" for key in keys]
    return [
        *points,
        f"{_API}/series?search=1 count",
        f"{_API}/series?prefix=bench:&limit=1000",
        f"{_API}/points?key=bench:7:107:coumt",  # nobody has it
        f"{_API}/points?key=bench:7:7:count&worker_id=bench",
        f"{_API}/explain?key=global:status:succeeded&at={at}&resolution=1hour&limit=200",
        f"{_API}/events?after=-10&limit=1000",
        f"{_API}/marks",
        f"{_API}/workers",
        f"{_API}/status",
        "api/v1/metrics",
        "api/v1/metrics/bench:7?resolution=1min&range=3600",
    ]


async def _ask_for(client: httpx.AsyncClient, seconds: float, series: int) -> int:
    """Ask for so long, in parallel; how many answers came."""
    questions, ends, answers = _questions(series), time.monotonic() + seconds, 0

    async def viewer(number: int) -> None:
        nonlocal answers
        while time.monotonic() < ends:
            number += 7
            answer = await client.get(questions[number % len(questions)])
            check(f"{answer.url} is answered, {answer.text[:200]}", answer.status_code in (200, 404, 422, 503), True)
            answers += answer.status_code < 500

    await asyncio.gather(*(viewer(number) for number in range(_PARALLEL)))
    return answers


async def _sign_in(client: httpx.AsyncClient) -> None:
    for _ in range(100):  # it may not listen yet
        with suppress(httpx.TransportError):
            answer = await client.post("api/v1/login", json={"username": _USER, "password": _PASSWORD})
            break
        await asyncio.sleep(0.1)
    client.headers["Authorization"] = f"Bearer {answer.json()['token']}"


async def _delays(process: Process, seconds: float) -> list[float]:
    """Let the serving process measure its own timers for so long."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{seconds}\n".encode())
    return list(json.loads(await process.stdout.readline()))


@asynccontextmanager
async def _serving(dsn: str) -> AsyncIterator[tuple[Process, str]]:
    """A process with a worker that serves the page, and its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.page", dsn, stdin=PIPE, stdout=PIPE, limit=64 * 1024 * 1024
    )
    try:
        assert process.stdout is not None
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _serve(dsn: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    api = Api(port=port, authentication_backend=SimpleAuthBackend({_USER: _PASSWORD}))
    async with (
        an_app(dsn, Metrics(sync_interval=1), api) as chancy,
        Worker(chancy, register_signal_handlers=False),
    ):
        print(f"http://127.0.0.1:{port}/", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await delays_for(float(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
