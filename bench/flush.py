"""Measure Worker.flush of claimed jobs in wall time, against no metrics plugin and against the built-in one."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime

from chancy import Job, Queue, QueuedJob, Worker
from chancy.plugins.metrics import Metrics as BuiltIn

from chancy_metrics.plugin import Metrics

from .database import Databases, a_worker, ask, connections
from .harness import Row, Size, Turn, at_most, by_pairs, by_turns, check, middle

_MS = 1_000
_QUEUE = Queue("bench")


async def run(pool: Databases, size: Size) -> list[Row]:
    rows = []
    full = size.of(1_000, 50)
    for batch, rounds in ((full, size.of(60, 1)), (20, size.of(300, 2))):
        with pool.database() as with_ours, pool.database() as without, pool.database() as with_built_in:
            ours = Metrics(append_interval=3600, sync_interval=3600)
            async with (
                a_worker(with_ours, ours) as worker,
                a_worker(without) as bare,
                a_worker(with_built_in, BuiltIn()) as other,
            ):
                turns = await by_turns(
                    rounds,
                    {"ours": _flush(worker, batch), "none": _flush(bare, batch), "built-in": _flush(other, batch)},
                )
                figures = middle(turns)
            expected = (rounds + 1) * batch
            for dsn in (with_ours, without, with_built_in):
                async with connections(dsn, 1) as (connection,):
                    saved = "SELECT count(*) FROM chancy_jobs WHERE state = 'succeeded'"
                    check("jobs saved", await ask(connection, saved), expected)
                    if dsn == with_ours:
                        logged = await ask(connection, "SELECT sum(events) FROM chancy_metrics_log")
                        check("events in the log", logged, expected)
        target = at_most(1.1) if batch == full else at_most(1.25)
        for other_name, against, goal in (
            ("none", "no metrics plugin", target),
            ("built-in", "built-in plugin", None),
        ):
            rows.append(
                Row(
                    "flush",
                    f"Worker.flush, {batch:,} jobs",
                    figures["ours"] * _MS,
                    "ms",
                    "median",
                    figures[other_name] * _MS,
                    against,
                    goal,
                    by_pairs(turns["ours"], turns[other_name]),
                )
            )
    return rows


def _flush(worker: Worker, jobs: int) -> Turn:
    async def turn() -> float:
        for job in await _claimed(worker, jobs):
            done = replace(
                job, state=QueuedJob.State.SUCCEEDED, completed_at=datetime.now(UTC), attempts=job.attempts + 1
            )
            await worker.queue_update(done)
        started = time.perf_counter()
        await worker.flush()
        return time.perf_counter() - started

    return turn


async def _claimed(worker: Worker, count: int) -> list[QueuedJob]:
    jobs = [Job(func=f"app.jobs.function_{number % 50}", queue=_QUEUE.name) for number in range(count)]
    async for _ in worker.chancy.push_many(jobs):
        pass
    async with worker.chancy.pool.connection() as connection:
        claimed = await worker.fetch_jobs(_QUEUE, connection, up_to=count)
    check("jobs claimed", len(claimed), count)
    return claimed
