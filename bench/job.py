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
from .harness import Row, Size, Stopwatch, Turn, at_most, best, by_turns, check

_US = 1_000_000
#: Jobs a transaction: `Worker.flush` takes up to 1,000; a worker that finishes 20 a second has 20.
_BATCHES = (1_000, 20, 1)


async def run(pool: Databases, size: Size) -> list[Row]:
    rounds = size.of(30, 2)
    with pool.database() as dsn:
        ours = Metrics(append_interval=3600, sync_interval=3600)
        built_in: Any = BuiltIn(max_buffered_points=100_000)  # Chancy's has no types
        async with (
            a_worker(dsn, ours) as worker,
            a_worker(dsn, built_in) as other,
            connections(dsn, 1) as (connection,),
        ):
            contenders: dict[str, Turn] = {}
            for batch in _BATCHES:
                jobs = queued_jobs(batch)
                contenders[f"ours {batch}"] = _both_hooks(ours, worker, jobs)
                contenders[f"built-in {batch}"] = _built_in_hook(built_in, other, jobs)
            figures = best(await by_turns(rounds, contenders))
            expected = (rounds + 1) * sum(_BATCHES)
            check("events in the log", await ask(connection, "SELECT sum(events) FROM chancy_metrics_log"), expected)
            await built_in.flush(other.chancy)
            answer = await built_in.get_metrics(other.chancy, "global", resolution="1day")
            check("the built-in's updates", sum(m.summary for m in answer["series"].values()), expected)
    return [
        Row(
            "job",
            f"a job's two hooks, {batch:,} a transaction",
            figures[f"ours {batch}"] * _US,
            "us CPU",
            "min",
            figures[f"built-in {batch}"] * _US,
            "built-in on_job_updated",
            at_most(1 / 20, "<= 1/20") if batch == _BATCHES[0] else None,
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
