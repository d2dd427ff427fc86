"""Measure a sample of the health of queues beside many finished jobs: a million that wait, in one queue and in twenty.

Rows as they were inserted, and after a vacuum, which lets an index-only scan leave the table alone.
"""

from __future__ import annotations

import time

from chancy import Queue
from psycopg import sql

from chancy_metrics.events.database import Connection
from chancy_metrics.plugin.worker.queue_health import sample
from chancy_metrics.projections.rules.measured import MOST_JOBS

from .database import Databases, an_app, ask, connections
from .harness import Row, Size, Target, Turn, by_turns, check, middle

_QUEUES = 20
_INDEXES = """
SELECT indexdef FROM pg_indexes WHERE tablename = 'chancy_jobs' AND indexname <> 'chancy_jobs_pkey'
"""
_FINISHED = """
INSERT INTO chancy_jobs (id, queue, func, state, attempts, completed_at)
SELECT md5(n::text)::uuid, 'q' || n %% 20, 'app.work', CASE n %% 50 WHEN 0 THEN 'failed' ELSE 'succeeded' END, 1, now()
FROM generate_series(1, %(jobs)s) AS n
"""
_WAITING = """
INSERT INTO chancy_jobs (id, queue, func, scheduled_at)
SELECT gen_random_uuid(), 'q' || n %% %(queues)s, 'app.work', now() - make_interval(secs => n)
FROM generate_series(1, %(jobs)s) AS n
"""


async def run(pool: Databases, size: Size) -> list[Row]:
    finished, waiting, rounds = size.of(10_000_000, 2_000), size.of(1_000_000, 200), size.of(15, 1)
    rows = []
    with pool.database() as dsn:
        async with an_app(dsn) as chancy:
            for number in range(_QUEUES):
                await chancy.declare(Queue(f"q{number}", executor=chancy.Executor.Async))
        async with connections(dsn, 1, prepared=False) as (connection,):
            await _finish(connection, finished)
            for queues, limit_ms in ((1, 50), (_QUEUES, None)):
                await connection.execute("DELETE FROM chancy_jobs WHERE state = 'pending'")
                await connection.execute("VACUUM chancy_jobs")
                await connection.execute(_WAITING.encode(), {"jobs": waiting, "queues": queues})
                for vacuumed in (False, True):
                    if vacuumed:
                        await connection.execute("VACUUM ANALYZE chancy_jobs")
                    contenders = {"sample": _sampled(connection, queues * min(MOST_JOBS, waiting // queues))}
                    took = middle(await by_turns(rounds, contenders))["sample"]
                    where = "one queue" if queues == 1 else f"{queues} queues"
                    work = f"sample {waiting:,} waiting in {where}{', vacuumed' if vacuumed else ''}"
                    target = Target("ours", "<=", limit_ms, f"<= {limit_ms} ms") if limit_ms else None
                    rows.append(Row("queues", work, took, "ms", "median", target=target))
    return rows


async def _finish(connection: Connection, jobs: int) -> None:
    """Fill Chancy's table with jobs that have ended: indexes after the rows, which takes a third of the time."""
    definitions = [row[0] for row in await (await connection.execute(_INDEXES)).fetchall()]
    for definition in definitions:
        name = definition.split(" INDEX ")[1].split(" ON ")[0]
        await connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
    await connection.execute(_FINISHED.encode(), {"jobs": jobs})
    for definition in definitions:
        await connection.execute(definition.encode())
    await connection.execute("VACUUM ANALYZE chancy_jobs")
    check("jobs", await ask(connection, "SELECT count(*) FROM chancy_jobs"), jobs)


def _sampled(connection: Connection, counted: int) -> Turn:
    async def turn() -> float:
        began = time.perf_counter()
        found = await sample(connection, "chancy_")
        took = time.perf_counter() - began
        check("jobs counted", sum(queue.pending for queue in found.queues), counted)
        return took * 1_000

    return turn
