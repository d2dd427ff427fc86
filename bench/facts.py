"""Job updates as a busy application makes them: many of a few functions, few of many, some that fail."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import accumulate

import msgspec
from chancy import QueuedJob

from chancy_metrics.events import codec
from chancy_metrics.events.batch import EncodedBatch, LogBatch
from chancy_metrics.events.codec import encode
from chancy_metrics.events.facts import Combo, JobRow

FUNCTIONS = 50
QUEUES = 10
_STATES = {"succeeded": 95, "retrying": 3, "failed": 2}
_TRACEBACK = """Traceback (most recent call last):
  File "/srv/app/jobs.py", line 41, in work
    return await charge(order)
  File "/srv/app/billing.py", line 12, in charge
    raise Declined("card declined")
app.billing.Declined: card declined
"""


def combos(functions: int = FUNCTIONS, queues: int = QUEUES) -> list[Combo]:
    """Every function on its queue in every state."""
    return [
        Combo(f"app.jobs.function_{number}", f"queue_{number % queues}", state, 1, _error(state))
        for number in range(functions)
        for state in _STATES
    ]


def job_rows(
    count: int, *, until_us: int, per_second: int, seed: int = 1, functions: int = FUNCTIONS, queues: int = QUEUES
) -> list[JobRow]:
    """Facts of *count* job updates that ended at *per_second*, the last one at *until_us*.

    Function number n is called 1/n as often as the first.
    """
    chance = random.Random(seed)
    known = combos(functions, queues)
    kinds = [known[index : index + len(_STATES)] for index in range(0, len(known), len(_STATES))]
    shares = list(accumulate(1 / (number + 1) for number in range(functions)))
    called = chance.choices(kinds, cum_weights=shares, k=count)
    states = chance.choices(range(len(_STATES)), list(_STATES.values()), k=count)
    rows = []
    for number, (states_of_function, state) in enumerate(zip(called, states, strict=True)):
        combo = states_of_function[state]
        at_us = until_us - (count - 1 - number) * 1_000_000 // per_second
        run_us = int(chance.lognormvariate(11, 1))  # 60 ms in the middle
        wait_us = int(chance.lognormvariate(10, 1.5))
        created_us = at_us - run_us - wait_us
        rows.append(
            JobRow(
                job_id=chance.randbytes(16),
                combo=combo,
                at_us=at_us,
                created_us=created_us,
                scheduled_us=created_us,
                started_us=at_us - run_us,
                completed_us=None if combo.state == "retrying" else at_us,
                meta=b"",
            )
        )
    return rows


def batches_of(rows: Sequence[JobRow], size: int) -> list[EncodedBatch]:
    return [encode(rows[start : start + size]) for start in range(0, len(rows), size)]


def moved(batch: EncodedBatch, ids: bytes, ends_us: int) -> EncodedBatch:
    """The same updates of other jobs, at another time: the other columns are relative to it."""
    payload = codec._decoder.decode(batch.payload)
    jobs = payload.jobs
    assert jobs is not None and batch.last_us is not None and batch.first_us is not None
    by_us = ends_us - batch.last_us
    at = msgspec.structs.replace(jobs.at, base=jobs.at.base + by_us)
    data = codec._encoder.encode(msgspec.structs.replace(payload, jobs=msgspec.structs.replace(jobs, at=at, ids=ids)))
    return batch._replace(first_us=batch.first_us + by_us, last_us=ends_us, payload=data, sha256=sha256(data).digest())


def log_batches(batches: Sequence[EncodedBatch], *, workers: int = 4) -> list[LogBatch]:
    """The batches as they are read from the log, in turn of that many workers."""
    producers = [uuid.uuid4() for _ in range(workers)]
    return [
        LogBatch(
            position=number + 1,
            producer=producers[number % workers],
            sequence=number // workers + 1,
            worker=f"worker-{number % workers}",
            appended_us=batch.last_us or 0,
            events=batch.events,
            codec=batch.codec,
            payload=batch.payload,
            sha256=batch.sha256,
        )
        for number, batch in enumerate(batches)
    ]


def queued_jobs(count: int, *, seed: int = 1) -> list[QueuedJob]:
    """Jobs as the host hands them to the update hooks."""
    return list(_queued_jobs(count, seed))


def _queued_jobs(count: int, seed: int) -> Iterator[QueuedJob]:
    now = datetime.now(UTC)
    for row in job_rows(count, until_us=0, per_second=1_000, seed=seed):
        yield QueuedJob(
            id=uuid.UUID(bytes=row.job_id),
            claim_id=uuid.uuid4(),
            func=row.combo.func,
            kwargs={},
            queue=row.combo.queue,
            state=QueuedJob.State(row.combo.state),
            attempts=1,
            created_at=now + timedelta(microseconds=row.created_us),
            scheduled_at=now + timedelta(microseconds=row.scheduled_us),
            started_at=now + timedelta(microseconds=row.started_us or 0),
            completed_at=None if row.completed_us is None else now + timedelta(microseconds=row.completed_us),
            errors=[{"attempt": 0, "traceback": _TRACEBACK}] if row.combo.error else [],
        )


def _error(state: str) -> str:
    return "" if state == "succeeded" else "app.billing.Declined"
