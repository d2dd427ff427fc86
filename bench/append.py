"""Measure appending batches of job updates, log and pending row in one statement, against a plain INSERT.

The INSERT writes the same columns into one plain table.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from chancy_metrics.events.batch import BatchId, EncodedBatch
from chancy_metrics.events.database import Connection, Cursor
from chancy_metrics.events.log import append
from chancy_metrics.events.partitions import attached_days
from chancy_metrics.events.schema import tables_for

from .database import Databases, ask, connections
from .facts import batches_of, job_rows
from .harness import Row, Size, Turn, at_least, by_pairs, by_turns, check, middle

# The strictest floor: no partition, no trigger, one narrow index, the payload not compressed either.
_PLAIN = """
CREATE TABLE plain (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    day date NOT NULL, producer uuid NOT NULL, sequence bigint NOT NULL, worker text NOT NULL,
    first_us bigint, last_us bigint, appended_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    events integer NOT NULL, closes boolean NOT NULL, codec smallint NOT NULL,
    payload bytea NOT NULL, sha256 bytea NOT NULL
);
ALTER TABLE plain ALTER COLUMN payload SET STORAGE EXTERNAL
"""
_INSERT = """
INSERT INTO plain (day, producer, sequence, worker, first_us, last_us, events, closes, codec, payload, sha256)
VALUES (
    %(day)s, %(producer)s, %(sequence)s, %(worker)s, %(first_us)s, %(last_us)s, %(events)s, %(closes)s, %(codec)s,
    %(payload)b, %(sha256)b
)
RETURNING clock_timestamp()
"""

Write = Callable[[Cursor, BatchId, EncodedBatch], Awaitable[None]]


async def run(pool: Databases, size: Size) -> list[Row]:
    rows = []
    for writers, goal, events in ((1, 0.85, 1_000), (16, 0.9, 1_000), (16, 0.85, 20)):
        each = size.of(200, 4) // (1 if writers == 1 else 4)
        rounds = size.of(40, 2)
        batches = batches_of(job_rows(events * 10, until_us=time.time_ns() // 1_000, per_second=1_000), events)
        with pool.database() as dsn:
            async with connections(dsn, writers) as several:
                log = await _log_writer(several[0])
                await several[0].execute(_PLAIN)
                turns = await by_turns(
                    rounds,
                    {
                        "log": _written(several, log, batches, each),
                        "plain": _written(several, _insert, batches, each),
                    },
                )
                figures = middle(turns)
                sums = "SELECT (count(*), sum(octet_length(payload)), sum(events))::text FROM "
                check(
                    "log against plain table",
                    await ask(several[0], sums + "chancy_metrics_log"),
                    await ask(several[0], sums + "plain"),
                )
                pending = await ask(several[0], "SELECT count(*) FROM chancy_metrics_pending")
                check("pending rows", pending, (rounds + 1) * each * writers)
        rows.append(
            Row(
                "append",
                f"append, {writers} writer{'s' * (writers > 1)}, batches of {events:,}",
                figures["log"],
                "batches/s",
                "median",
                figures["plain"],
                "plain INSERT",
                at_least(goal),
                by_pairs(turns["log"], turns["plain"]),
            )
        )
    return rows


def _written(several: Sequence[Connection], write: Write, batches: Sequence[EncodedBatch], each: int) -> Turn:
    async def writer(connection: Connection) -> None:
        producer, supply = uuid4(), itertools.cycle(batches)
        day = datetime.now(UTC).date()
        async with connection.cursor() as cursor:
            for sequence in range(1, each + 1):
                async with connection.transaction():
                    await write(cursor, BatchId(day, producer, sequence), next(supply))

    async def turn() -> float:
        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for connection in several:
                tasks.create_task(writer(connection))
        return len(several) * each / (time.perf_counter() - started)

    return turn


async def _log_writer(connection: Connection) -> Write:
    tables = tables_for("chancy_")
    async with connection.cursor() as cursor:
        day = (await attached_days(cursor, tables))[0]

    async def write(cursor: Cursor, batch_id: BatchId, batch: EncodedBatch) -> None:
        done = await append(cursor, tables, batch_id._replace(day=day), batch, worker="bench")
        check("what became of it", done.state, "appended")

    return write


async def _insert(cursor: Cursor, batch_id: BatchId, batch: EncodedBatch) -> None:
    values: dict[str, Any] = batch_id._asdict() | batch._asdict() | {"worker": "bench", "closes": False}
    await cursor.execute(_INSERT.encode(), values)
    check("whether it was new", await cursor.fetchone() is not None, True)
