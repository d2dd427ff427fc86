"""Sample the health of queues: how many jobs each holds, how long the first one has waited, workers and their slots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from psycopg import sql

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.facts import Series
from chancy_metrics.projections.rules.measured import (
    MOST_JOBS,
    SLOTS,
    SLOTS_USED,
    WORKERS_ACTIVE,
    oldest_wait,
    queue_depths,
)

#: A sample that takes longer is given up, waits for locks included: it must never be what the database is busy with.
SAMPLE_MS = 2_000
#: Share of the time that samples take at most: where they are meant to come every second, many jobs make them rarer.
SAMPLE_SHARE = 0.05

# Chancy's index (queue, state, attempts, scheduled_at) has the attempts before the time, so each number of attempts
# that waiting jobs have is looked up, which are few, and then its due jobs and the others lie in one range each.
# `state IN (...)` is the index's own condition, and without it the index could not be used. These are subqueries of
# one value, since the planner may turn a lateral join into one that reads all jobs before a limit ends it.
_SAMPLE: sql.SQL = sql.SQL(
    """
    WITH clock AS MATERIALIZED (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now),
    alive AS MATERIALIZED (SELECT w.queues FROM {workers} AS w, clock WHERE w.expires_at > clock.now),
    serving AS (
        SELECT served.queue, count(*) AS workers
        FROM alive CROSS JOIN unnest(alive.queues) AS served (queue)
        GROUP BY served.queue
    )
    SELECT
        (SELECT count(*) FROM alive) AS alive,
        q.name,
        q.concurrency,
        coalesce(serving.workers, 0) AS workers,
        waiting.pending,
        running.jobs AS running,
        waiting.retrying,
        waiting.scheduled,
        greatest(extract(epoch FROM clock.now - waiting.first_due), 0)::float8 AS oldest_s
    FROM clock
    LEFT JOIN {queues} AS q ON true
    LEFT JOIN serving ON serving.queue = q.name
    CROSS JOIN LATERAL (
        SELECT count(*) AS jobs
        FROM (SELECT FROM {jobs} AS j WHERE j.queue = q.name AND j.state = 'running' LIMIT %(most)s) AS upto
    ) AS running
    CROSS JOIN LATERAL (
        SELECT
            least(coalesce(sum(one.due) FILTER (WHERE one.state = 'pending'), 0), %(most)s)::bigint AS pending,
            least(coalesce(sum(one.due) FILTER (WHERE one.state = 'retrying'), 0), %(most)s)::bigint AS retrying,
            least(coalesce(sum(one.later), 0), %(most)s)::bigint AS scheduled,
            min(one.first_due) AS first_due
        FROM (
            SELECT k.state, counted.due, counted.later, counted.first_due
            FROM (VALUES ('pending'), ('retrying')) AS k (state)
            CROSS JOIN LATERAL (
                WITH RECURSIVE tries (attempts) AS (
                    SELECT (
                        SELECT j.attempts
                        FROM {jobs} AS j
                        WHERE j.queue = q.name AND j.state = k.state AND j.state IN ('pending', 'retrying')
                        ORDER BY j.attempts
                        LIMIT 1
                    )
                    UNION ALL
                    SELECT (
                        SELECT j.attempts
                        FROM {jobs} AS j
                        WHERE j.queue = q.name AND j.state = k.state AND j.state IN ('pending', 'retrying')
                            AND j.attempts > tries.attempts
                        ORDER BY j.attempts
                        LIMIT 1
                    )
                    FROM tries
                    WHERE tries.attempts IS NOT NULL
                )
                SELECT
                    (
                        SELECT count(*)
                        FROM (
                            SELECT
                            FROM {jobs} AS j
                            WHERE j.queue = q.name AND j.state = k.state AND j.state IN ('pending', 'retrying')
                                AND j.attempts = tries.attempts AND j.scheduled_at <= clock.now
                            LIMIT %(most)s
                        ) AS upto
                    ) AS due,
                    (
                        SELECT count(*)
                        FROM (
                            SELECT
                            FROM {jobs} AS j
                            WHERE j.queue = q.name AND j.state = k.state AND j.state IN ('pending', 'retrying')
                                AND j.attempts = tries.attempts AND j.scheduled_at > clock.now
                            LIMIT %(most)s
                        ) AS upto
                    ) AS later,
                    (
                        SELECT j.scheduled_at
                        FROM {jobs} AS j
                        WHERE j.queue = q.name AND j.state = k.state AND j.state IN ('pending', 'retrying')
                            AND j.attempts = tries.attempts AND j.scheduled_at <= clock.now
                        ORDER BY j.scheduled_at
                        LIMIT 1
                    ) AS first_due
                FROM tries
                WHERE tries.attempts IS NOT NULL
            ) AS counted
        ) AS one
    ) AS waiting
    """
)


class QueueSample(NamedTuple):
    """A queue at one moment; numbers of jobs are `MOST_JOBS` where there are as many or more.

    Attributes:
        concurrency: How many of its jobs a worker runs at once; None where each worker decides.
        workers: How many workers that are alive serve it.
        pending: Jobs that are due and were never tried.
        retrying: Jobs that are due once more.
        scheduled: Jobs, new or to be tried again, that are due later.
        oldest_s: Seconds since the first of its due jobs was due; 0 where none is.
    """

    name: str
    concurrency: int | None
    workers: int
    pending: int
    running: int
    retrying: int
    scheduled: int
    oldest_s: float


class HealthSample(NamedTuple):
    """All queues there are, and how many workers are alive."""

    workers: int
    queues: list[QueueSample]


async def sample(connection: Connection, prefix: str, *, now: datetime | None = None) -> HealthSample:
    """Read Chancy's tables in one statement, by indexes alone, whatever else they hold.

    Args:
        connection: An autocommit one outside a transaction.
        now: Moment by which jobs are due and workers alive; the database's clock by default.

    Raises:
        psycopg.Error: The tables can't be read, or not within `SAMPLE_MS`.
    """
    async with short_transaction(connection, index_only=True) as cursor:
        await cursor.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(SAMPLE_MS), binary=False)
        await cursor.execute(sample_statement(prefix), {"now": now, "most": MOST_JOBS})
        rows = await cursor.fetchall()
    return HealthSample(rows[0][0], [QueueSample(*row[1:]) for row in rows if row[1] is not None])


def sample_statement(prefix: str) -> sql.Composed:
    """Return the statement of `sample`."""
    return _SAMPLE.format(**{name: sql.Identifier(f"{prefix}{name}") for name in ("jobs", "queues", "workers")})


def gauges(found: HealthSample, own_concurrency: Mapping[str, int]) -> Iterator[tuple[Series, float]]:
    """Yield the gauges of a sample.

    Args:
        own_concurrency: Queue -> how many of its jobs this process runs at once: what each worker is taken to do where
            the queue leaves that to them. Where that is unknown of a served queue, there is no number of slots.
    """
    slots: list[int | None] = []
    for queue in found.queues:
        depths = (queue.pending, queue.running, queue.retrying, queue.scheduled)
        yield from zip(queue_depths(queue.name), depths, strict=True)
        yield oldest_wait(queue.name), queue.oldest_s
        if queue.workers:
            each = own_concurrency.get(queue.name) if queue.concurrency is None else queue.concurrency
            slots.append(None if each is None else each * queue.workers)
    yield WORKERS_ACTIVE, found.workers
    yield SLOTS_USED, sum(queue.running for queue in found.queues)
    known = [number for number in slots if number is not None]
    if len(known) == len(slots):
        yield SLOTS, sum(known)
