"""Measure checking, exporting and importing a whole log, against hashing the same payloads in memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

from chancy_metrics.events.batch import EncodedBatch
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.audit.seal import check as check_log
from chancy_metrics.plugin.parallel.executors import process_pool
from chancy_metrics.plugin.transfer.export_log import export_log
from chancy_metrics.plugin.transfer.import_log import import_log

from .database import Databases, Producer, an_app, connections, sequence_all
from .facts import batches_of, job_rows
from .harness import Row, Size, Target, Turn, by_turns, check, middle

WORKERS = 4
_AGAINST = "sha256 of the payloads"


async def run(pool: Databases, size: Size) -> list[Row]:
    rows = []
    for batch_size, count in ((1_000, size.of(1_000_000, 5_000)), (20, size.of(200_000, 500))):
        facts = job_rows(count, until_us=time.time_ns() // 1_000 - 60_000_000, per_second=100)
        encoded = batches_of(facts, batch_size)
        with pool.database() as dsn, tempfile.TemporaryDirectory() as folder, ExitStack() as pools:
            async with connections(dsn, 1, prepared=False) as (connection,):
                for number in range(WORKERS):
                    producer = Producer(connection, worker=f"worker-{number}")
                    await producer.append(encoded[number::WORKERS])
                check("batches sequenced", await sequence_all(connection, tables_for("chancy_")), len(encoded))
            contenders = {
                "check": _checked(dsn, count),
                "check in 2 processes": _checked(dsn, count, pools.enter_context(process_pool(2))),
                "export": _exported(dsn, Path(folder), count),
                "import": _imported(pool, Path(folder), count),
                "hash": _hashed(encoded),
            }
            figures = middle(await by_turns(size.of(5, 1), contenders))
        floor = count / figures["hash"]
        for name in ("check", "export", "import"):
            work = f"{name}, {count:,} job updates in batches of {batch_size:,}"
            target = None
            if name == "check" and batch_size == 1_000:
                target = Target("ours", ">=", 1_000_000, "1 M events/s")
            rows.append(Row("proof", work, count / figures[name], "events/s", "median", floor, _AGAINST, target))
        work = f"check in 2 processes that run already, {count:,} job updates in batches of {batch_size:,}"
        ours, one = count / figures["check in 2 processes"], count / figures["check"]
        rows.append(Row("proof", work, ours, "events/s", "median", one, "check in this process"))
    return rows


def _checked(dsn: str, count: int, executor: Executor | None = None) -> Turn:
    async def turn() -> float:
        async with an_app(dsn, Metrics()) as chancy:
            started = time.perf_counter()
            found = await check_log(chancy, executor=executor)
            took = time.perf_counter() - started
        check("what is wrong, events", (found.found, found.events), (0, count))
        return took

    return turn


def _exported(dsn: str, folder: Path, count: int) -> Turn:
    async def turn() -> float:
        path = folder / "log.export"
        path.unlink(missing_ok=True)
        async with an_app(dsn, Metrics()) as chancy:
            started = time.perf_counter()
            out = await export_log(chancy, path)
            took = time.perf_counter() - started
        check("what is lost, events", (out.lost, out.events), (0, count))
        return took

    return turn


def _imported(pool: Databases, folder: Path, count: int) -> Turn:
    async def turn() -> float:
        with pool.database() as dsn:
            async with an_app(dsn, Metrics()) as chancy:
                started = time.perf_counter()
                back = await import_log(chancy, folder / "log.export")
                took = time.perf_counter() - started
        check("events", back.events, count)
        return took

    return turn


def _hashed(encoded: Sequence[EncodedBatch]) -> Turn:
    async def turn() -> float:
        started = time.perf_counter()
        same = sum(sha256(batch.payload).digest() == batch.sha256 for batch in encoded)
        took = time.perf_counter() - started
        check("batches", same, len(encoded))
        return took

    return turn
