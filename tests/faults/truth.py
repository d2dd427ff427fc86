"""What the database itself saw, and what the log and the rollups make of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

from chancy_metrics.events.batch import DecodedBatch
from chancy_metrics.events.codec import decode
from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from tests.factories import fetch

STATES = ("succeeded", "failed", "retrying")


class Update(NamedTuple):
    """One saved job update: after a lost COMMIT the host saves the same one again."""

    job_id: UUID
    attempt: int
    state: str


class Written(NamedTuple):
    """A batch in the log."""

    producer: UUID
    sequence: int
    worker: str
    closes: bool
    batch: DecodedBatch


async def install_truth(connection: Connection) -> None:
    """Let a trigger write down each job update in the transaction that saves it."""
    await connection.execute(
        """
        CREATE TABLE truth (
            job_id uuid, attempt integer, state text, func text, queue text, PRIMARY KEY (job_id, attempt)
        );
        CREATE FUNCTION note_truth() RETURNS trigger LANGUAGE plpgsql AS $fn$
        BEGIN
            INSERT INTO truth VALUES (NEW.id, NEW.attempts, NEW.state, NEW.func, NEW.queue) ON CONFLICT DO NOTHING;
            RETURN NULL;
        END
        $fn$;
        CREATE TRIGGER note_truth AFTER UPDATE ON chancy_jobs
            FOR EACH ROW WHEN (NEW.state IN ('succeeded', 'failed', 'retrying')) EXECUTE FUNCTION note_truth();
        """
    )


async def saved_updates(connection: Connection) -> Counter[Update]:
    cursor = await connection.execute("SELECT job_id, attempt, state FROM truth")
    return Counter([Update(*row) for row in await cursor.fetchall()])


async def read_log(
    connection: Connection, tables: Tables, *, producers: Collection[UUID] | None = None
) -> list[Written]:
    """Every batch of the log (of these producers), decoded, by producer and sequence."""
    rows = await fetch(
        connection,
        "SELECT producer, sequence, worker, closes, codec, payload, sha256, events FROM {log}"
        " WHERE %(all)s OR producer = ANY(%(producers)s) ORDER BY producer, sequence",
        tables,
        all=producers is None,
        producers=list(producers or ()),
    )
    return [Written(*row[:4], decode(row[4], bytes(row[5]), bytes(row[6]), row[7])) for row in rows]


def logged_updates(log: list[Written]) -> Counter[Update]:
    return Counter(
        Update(UUID(bytes=jobs.ids[16 * row : 16 * row + 16]), combo.attempt, combo.state)
        for written in log
        if (jobs := written.batch.jobs)
        for row, combo in enumerate(jobs.combos[index] for index in jobs.combo.tolist())
    )


def logged_values(log: list[Written], key: str) -> list[float]:
    """Every value of the observations under *key*, in the log's order."""
    values: list[float] = []
    for written in log:
        if found := written.batch.observations:
            row = 0
            for series, length in zip(found.series, found.lengths.tolist(), strict=True):
                if series.key == key:
                    values += found.values[row : row + length].tolist()
                row += length
    return values


def logged_counts(log: list[Written]) -> Counter[str]:
    return sum((Counter(written.batch.counts) for written in log), Counter())


async def rolled_up(connection: Connection, tables: Tables) -> dict[str, dict[str, int]]:
    """Resolution -> counter's key -> sum of the merged points."""
    return {
        resolution: {
            key: int(total)
            for key, total in await fetch(
                connection,
                f"SELECT s.key, sum(r.sum) FROM {{r{resolution}}} r JOIN {{series}} s ON s.id = r.series"
                " WHERE s.kind = 'counter' GROUP BY 1",
                tables,
            )
        }
        for resolution in RESOLUTIONS
    }


async def true_counters(connection: Connection) -> dict[str, int]:
    """What every counter of job updates must say."""
    cursor = await connection.execute("SELECT func, queue, state, count(*) FROM truth GROUP BY 1, 2, 3")
    counters: Counter[str] = Counter()
    for func, queue, state, number in await cursor.fetchall():
        for key in (f"job:{func}:{state}", f"queue:{queue}:{state}", f"queue:{queue}:throughput"):
            counters[key] += number
        counters[f"global:status:{state}"] += number
    return dict(counters)
