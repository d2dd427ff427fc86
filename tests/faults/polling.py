"""Readers that look every few milliseconds, through a copy of the cache and over HTTP, and note what changes."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from subprocess import PIPE
from typing import Any, NamedTuple

import anyio
import httpx
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream
from chancy import Chancy

from chancy_metrics.plugin import Metrics
from tests.dashboard_app import PASSWORD, USER

POLL_S = 0.005


class Sighting(NamedTuple):
    """One answer.

    Attributes:
        made: Counters of the user's rules, of which there is one: key -> total.
        updates: Total of the built-in counters of job updates; None where the answer does not hold them.
        status: Of an HTTP answer without any of these.
    """

    made: dict[str, int]
    updates: int | None = None
    status: int = 200


class Sightings:
    """The answers of one reader, in order, without repetitions."""

    def __init__(self) -> None:
        self.all: list[Sighting] = []
        self.answers = 0

    def add(self, sighting: Sighting) -> None:
        self.answers += 1
        if not self.all or self.all[-1] != sighting:
            self.all.append(sighting)

    @property
    def key(self) -> str:
        """The rule's counter that was seen last; "" if there was none, or more than one."""
        return next(iter(self.all[-1].made), "") if self.all and len(self.all[-1].made) == 1 else ""

    @property
    def total(self) -> int:
        return self.all[-1].made.get(self.key, 0) if self.all else 0

    def wrong(self) -> list[Sighting]:
        """Answers that are mixed or empty."""
        return [
            one
            for one in self.all
            if one.status == 200
            and (len(one.made) != 1 or not min(one.made.values()) > 0 or one.updates not in (None, *one.made.values()))
        ]

    def falls(self) -> list[tuple[Sighting, Sighting]]:
        """Answers older than the one before them."""
        seen = [one for one in self.all if one.status == 200]
        return [(one, next) for one, next in pairwise(seen) if sum(next.made.values()) < sum(one.made.values())]


@asynccontextmanager
async def polled_cache(dsn: str) -> AsyncIterator[Sightings]:
    """Let a process of its own poll `get_metrics` for the length of a block."""
    sightings = Sightings()

    async def receive() -> None:
        assert process.stdout is not None
        lines = BufferedByteReceiveStream(process.stdout)
        while True:
            sightings.add(msgspec.json.decode(await lines.receive_until(b"\n", 10_000), type=Sighting))

    async with await anyio.open_process(
        [sys.executable, "-m", "tests.faults.polling", dsn], stdin=None, stdout=PIPE, stderr=None
    ) as process:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            yield sightings
            tasks.cancel_scope.cancel()
        assert process.returncode is None
        process.kill()


@asynccontextmanager
async def polled_http(url: str) -> AsyncIterator[Sightings]:
    """Poll the dashboard's API for the length of a block."""
    sightings = Sightings()

    async def poll() -> None:
        while True:
            answer = await client.get("/api/v1/metrics/made", params={"resolution": "1day", "limit": 90})
            series: dict[str, Any] = answer.json()["series"] if answer.status_code == 200 else {}
            made = {key: int(metric["summary"] or 0) for key, metric in series.items()}
            sightings.add(Sighting(made, status=answer.status_code))
            await anyio.sleep(POLL_S)

    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        with anyio.fail_after(30):
            while True:
                try:
                    answer = await client.post("/api/v1/login", json={"username": USER, "password": PASSWORD})
                    break
                except httpx.ConnectError:
                    await anyio.sleep(0.05)
        client.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poll)
            yield sightings
            tasks.cancel_scope.cancel()


async def poll_for_ever(dsn: str) -> None:
    """Print each answer of `get_metrics`."""
    metrics = Metrics(sync_interval=0.05)
    async with Chancy(dsn, plugins=[metrics], log=logging.getLogger("polling")) as chancy:  # not to stdout
        while True:
            found = await metrics.get_metrics(chancy)
            totals = {
                key: int(sum(value for _, value in metric.values_1day if not isinstance(value, dict)))
                for key, metric in found.items()
            }
            made = {key: total for key, total in totals.items() if key.startswith("made:by:")}
            updates = sum(total for key, total in totals.items() if key.startswith("global:status:"))
            print(msgspec.json.encode(Sighting(made, updates)).decode(), flush=True)
            await asyncio.sleep(POLL_S)


if __name__ == "__main__":
    asyncio.run(poll_for_ever(sys.argv[1]))
