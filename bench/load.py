"""A process that appends batches of job updates for many producers over a few connections, as fast as it is told."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID, uuid4

from chancy_metrics.events.batch import BatchId, EncodedBatch
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.log import append
from chancy_metrics.events.schema import tables_for

from .database import connections
from .facts import batches_of, job_rows, moved

FUNCTIONS = 500
QUEUES = 200
#: How often a batch of so many job updates comes, of a hundred.
SIZES = {1: 40, 2: 20, 5: 16, 20: 12, 50: 8, 200: 3, 1_000: 1}
#: What the workers of the load are called by.
WORKER = "producer"
_MEAN = sum(size * share for size, share in SIZES.items()) / sum(SIZES.values())
#: Batches of each size that are really encoded; the others are these with other job ids, at other times.
_DISTINCT = 20
_TABLES = tables_for("chancy_")


class _Pace:
    """The rate that is wanted now, and what was appended since it was last told.

    Attributes:
        took_s: Seconds of each append, from BEGIN to the answer to COMMIT.
        behind_s: How late an append began at the most.
    """

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.updates = 0
        self.took_s: list[float] = []
        self.behind_s = 0.0

    def set(self, per_second: float) -> None:
        self.per_second, self.since = per_second, time.monotonic()

    async def reach(self, due: float) -> bool:
        """Wait until then; whether there is more to append."""
        try:
            async with asyncio.timeout(max(0, due - time.monotonic())):
                await self.ended.wait()
        except TimeoutError:
            pass
        return not self.ended.is_set()

    def tell(self) -> None:
        told = {"updates": self.updates, "took_s": self.took_s, "behind_s": self.behind_s}
        self.updates, self.took_s, self.behind_s = 0, [], 0.0
        print(json.dumps(told), flush=True)


class LoadProducer(NamedTuple):
    """One worker's producer; only one connection appends for it, so that one batch is in flight."""

    id: UUID
    worker: str

    async def append(self, connection: Connection, sequence: int, batch: EncodedBatch) -> None:
        batch_id = BatchId(datetime.now(UTC).date(), self.id, sequence)
        async with short_transaction(connection) as cursor:
            if not (await append(cursor, _TABLES, batch_id, batch, worker=self.worker)).is_written:
                raise RuntimeError(f"benchmark broken: {batch_id} is in the log already")


def encoded_batches() -> dict[int, list[EncodedBatch]]:
    now_us = time.time_ns() // 1_000
    return {
        size: batches_of(
            job_rows(
                size * _DISTINCT, until_us=now_us, per_second=1_000, seed=size, functions=FUNCTIONS, queues=QUEUES
            ),
            size,
        )
        for size in SIZES
    }


async def _append_for_ever(
    connection: Connection,
    producers: Sequence[LoadProducer],
    encoded: dict[int, list[EncodedBatch]],
    pace: _Pace,
    share: float,
) -> None:
    """Append for *producers* at *share* of the pace, at random moments that do not wait for earlier appends."""
    chance = random.Random()
    sequences = dict.fromkeys(producers, 0)

    def next_due(due: float) -> float:
        return max(due, pace.since) + chance.expovariate(share * pace.per_second / _MEAN)

    due = next_due(0)
    while await pace.reach(due):
        producer = chance.choice(producers)
        (size,) = chance.choices(list(SIZES), list(SIZES.values()))
        batch = moved(chance.choice(encoded[size]), chance.randbytes(16 * size), time.time_ns() // 1_000)
        sequences[producer] += 1
        started = time.monotonic()
        await producer.append(connection, sequences[producer], batch)
        pace.took_s.append(time.monotonic() - started)
        pace.updates += size
        pace.behind_s = max(pace.behind_s, started - due)
        due = next_due(due)


async def _tell(pace: _Pace) -> None:
    while await pace.reach(time.monotonic() + 1):
        pace.tell()


async def _follow(pace: _Pace) -> None:
    """Take a rate from each line of stdin, in updates a second, until it ends."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        pace.set(float(line))
    pace.ended.set()


async def _main(dsn: str, producers: int, connected: int) -> None:
    pace, encoded = _Pace(), encoded_batches()
    everybody = [LoadProducer(uuid4(), f"{WORKER}-{number}") for number in range(producers)]
    async with connections(dsn, connected) as several:
        print(json.dumps({"ready": True}), flush=True)
        pace.set(float(await asyncio.to_thread(sys.stdin.readline)))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_follow(pace))
            tasks.create_task(_tell(pace))
            for number, connection in enumerate(several):
                mine = everybody[number::connected]
                tasks.create_task(_append_for_ever(connection, mine, encoded, pace, 1 / connected))
    pace.tell()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], *map(int, sys.argv[2:])))
