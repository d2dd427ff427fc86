"""Measure the CPU time of one job update on the worker: both hooks, without the wait for the INSERT.

Against the built-in plugin's on_job_updated.
"""

from __future__ import annotations

import time
from typing import Any

from chancy import QueuedJob, Worker
from chancy.plugins.metrics import Metrics as BuiltIn
from psycopg.rows import dict_row

from chancy_metrics.plugin import Metrics

from .database import Databases, a_worker, ask, connections
from .facts import queued_jobs
from .harness import Row, Size, Stopwatch, Target, Turn, at_most, best, by_turns, check

_US = 1_000_000
_TARGETS: dict[int, Target] = {1_000: at_most(1 / 20, "<= 1/20"), 1: at_most(1.2)}
#: Jobs a transaction -> turns: `Worker.flush` takes up to 1,000; a worker that finishes 20 a second has 20. A turn is
#: one transaction, and of short ones it takes more until nothing has disturbed one.
_BATCHES = {1_000: 30, 20: 200, 1: 1_000}


async def run(pool: Databases, size: Size) -> list[Row]:
    with pool.database() as dsn:
        ours = Metrics(append_interval=3600, sync_interval=3600)
        built_in: Any = BuiltIn(max_buffered_points=100_000)  # Chancy's has no types
        async with (
            a_worker(dsn, ours) as worker,
            a_worker(dsn, built_in) as other,
            connections(dsn, 1) as (connection,),
        ):
            figures: dict[int, dict[str, float]] = {}
            expected = 0
            for batch, turns in _BATCHES.items():
                rounds = size.of(turns, 2)
                jobs = queued_jobs(batch)
                contenders = {
                    "ours": _both_hooks(ours, worker, jobs),
                    "built-in": _built_in_hook(built_in, other, jobs),
                }
                figures[batch] = best(await by_turns(rounds, contenders))
                expected += (rounds + 1) * batch
            check("events in the log", await ask(connection, "SELECT sum(events) FROM chancy_metrics_log"), expected)
            await built_in.flush(other.chancy)
            answer = await built_in.get_metrics(other.chancy, "global", resolution="1day")
            check("the built-in's updates", sum(m.summary for m in answer["series"].values()), expected)
    return [
        Row(
            "job",
            f"a job's two hooks, {batch:,} a transaction",
            figures[batch]["ours"] * _US,
            "us CPU",
            "min",
            figures[batch]["built-in"] * _US,
            "built-in on_job_updated",
            _TARGETS.get(batch),
        )
        for batch in _BATCHES
    ]


def _both_hooks(metrics: Metrics, worker: Worker, jobs: list[QueuedJob]) -> Turn:
    async def turn() -> float:
        watch = Stopwatch(time.thread_time)
        async with (
            worker.chancy.pool.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
            connection.transaction(),
        ):
            with watch:
                await metrics.on_jobs_updated_in_transaction(worker=worker, jobs=tuple(jobs), cursor=cursor)
        with watch:
            for job in jobs:
                await metrics.on_job_updated(worker=worker, job=job)
        return watch.seconds / len(jobs)

    return turn


def _built_in_hook(metrics: BuiltIn, worker: Worker, jobs: list[QueuedJob]) -> Turn:
    async def turn() -> float:
        with Stopwatch(time.thread_time) as watch:
            for job in jobs:
                await metrics.on_job_updated(worker=worker, job=job)
        return watch.seconds / len(jobs)

    return turn
