"""Measure a rebuild and a verification that tasks share: by one process, by a pool of two, by a Dask cluster of two."""

from __future__ import annotations

import resource
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, aclosing

from chancy import Chancy
from distributed import LocalCluster

from chancy_metrics.events.batch import EncodedBatch
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.health.verify import verify
from chancy_metrics.plugin.parallel.executors import dask_cluster, process_pool
from chancy_metrics.plugin.parallel.tasks import in_order
from chancy_metrics.plugin.rebuilds.ahead import BACKFILL_EVENTS
from chancy_metrics.plugin.rebuilds.rebuild import rebuild
from chancy_metrics.projections.fold.fold import fold
from chancy_metrics.projections.versions.advance import advance

from .database import Databases, Producer, an_app, connections, sequence_all
from .facts import batches_of, job_rows, log_batches
from .harness import Row, Size, Target, Turn, at_least, by_turns, check, middle

_BATCH = 1_000
_PART = 1_000_000
#: Updates a second, and the name of such a log: a million a day are 12 a second.
_LOGS = {1_000: "dense", 12: "thin"}
_TARGETS = {"2 processes": at_least(1.5), "a Dask cluster of two": at_least(1.3)}

_Work = Callable[[Chancy, Executor | None], Awaitable[None]]


async def run(pool: Databases, size: Size) -> list[Row]:
    rows = []
    for per_second, log in _LOGS.items():
        events = size.of(1_500_000, 5_000)
        encoded = _updates(events, per_second)
        with pool.database() as dsn, ExitStack() as executors:
            await _fill(dsn, encoded)
            shared = _executors(executors)
            for executor in shared.values():
                await start_processes(executor)
            contenders = {"in memory": _folded(encoded)}
            for work, function in (("rebuild", _rebuild(events)), ("verify", _verify(events))):
                contenders[f"{work} one process"] = _timed(dsn, function, None)
                for name, executor in shared.items():
                    contenders[f"{work} {name}"] = _timed(dsn, function, executor)
            figures = middle(await by_turns(size.of(2, 1), contenders))
        for work in ("rebuild", "verify"):
            one = events / figures[f"{work} one process"]
            told = f"{work} of a {log} log of {events:,} updates"
            target = Target("ours", ">=", 800_000, ">= 800 k/s") if log == "thin" else at_least(0.6)
            memory = events / figures["in memory"]
            rows.append(
                Row(
                    *("parallel", f"{told} by one process", one, "events/s", "median", memory, "fold in memory"),
                    target if work == "rebuild" else None,
                )
            )
            for name in shared:
                ours = events / figures[f"{work} {name}"]
                mine = _TARGETS[name] if work == "rebuild" and log == "dense" else None
                rows.append(Row("parallel", f"{told} by {name}", ours, "events/s", "median", one, "one process", mine))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    rows.append(Row("parallel", "peak memory of a process of the pool or the cluster", peak, "MB", "min"))
    return rows


def _updates(events: int, per_second: int) -> list[EncodedBatch]:
    now_us = time.time_ns() // 1_000 - 60_000_000
    encoded: list[EncodedBatch] = []
    for start in range(0, events, _PART):
        count = min(_PART, events - start)
        until_us = now_us - (events - start - count) * 1_000_000 // per_second
        encoded += batches_of(job_rows(count, until_us=until_us, per_second=per_second, seed=start), _BATCH)
    return encoded


async def _fill(dsn: str, encoded: Sequence[EncodedBatch]) -> None:
    tables = tables_for("chancy_")
    async with connections(dsn, 1, prepared=False) as (connection,):
        await Producer(connection).append(encoded)
        check("batches sequenced", await sequence_all(connection, tables), len(encoded))
        while not (done := await advance(connection, tables, folded_by="bench", step_events=250_000)).caught_up:
            check("reason not to fold", done.reason, None)


def _executors(stack: ExitStack) -> dict[str, Executor]:
    cluster = stack.enter_context(
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=60,
        )
    )
    return {
        "2 processes": stack.enter_context(process_pool(2)),
        "a Dask cluster of two": stack.enter_context(dask_cluster(cluster.scheduler_address)),
    }


async def start_processes(executor: Executor) -> None:
    """Let each process of *executor* begin: they are made when tasks come."""
    async with aclosing(in_order(executor, _nothing, range(8))) as results:
        async for _ in results:
            pass


def _nothing(_: int) -> bytes:
    return b""


# Each verification records a gauge, so later turns have a few events more.
def _rebuild(events: int) -> _Work:
    async def work(chancy: Chancy, executor: Executor | None) -> None:
        done = await rebuild(chancy, executor=executor)
        check("events rebuilt, points that differ", (done.events >= events, done.different), (True, 0))

    return work


def _verify(events: int) -> _Work:
    async def work(chancy: Chancy, executor: Executor | None) -> None:
        found = await verify(chancy, executor=executor)
        check("events replayed, drift", (found.events >= events, found.drift), (True, 0))

    return work


def _timed(dsn: str, work: _Work, executor: Executor | None) -> Turn:
    async def turn() -> float:
        async with an_app(dsn, Metrics()) as chancy:
            started = time.perf_counter()
            await work(chancy, executor)
            return time.perf_counter() - started

    return turn


def _folded(encoded: Sequence[EncodedBatch]) -> Turn:
    in_memory = log_batches(encoded, workers=1)
    at_once = max(1, BACKFILL_EVENTS // 8 // _BATCH)

    async def turn() -> float:
        started = time.perf_counter()
        for start in range(0, len(in_memory), at_once):
            fold(in_memory[start : start + at_once])
        return time.perf_counter() - started

    return turn
