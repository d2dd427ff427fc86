"""Job updates into the log in the transaction that saves the jobs, and what is known of it after."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from logging import Logger
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import psycopg
from chancy import Chancy, QueuedJob
from psycopg import AsyncCursor, errors
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, tuple_row

from chancy_metrics.events.codec import EncodedBatch, encode
from chancy_metrics.events.errors import SequenceConflict
from chancy_metrics.events.log import BatchId, append, appended, is_recorded, send, short_transaction
from chancy_metrics.events.partitions import takes_no_batch
from chancy_metrics.events.schema import Tables, tables

from .buffer import Buffer
from .connection import DatabaseClock, one_trip, own_connection
from .job_facts import job_facts
from .limited_log import RateLimited
from .presence import Held

#: Seconds after a lock time-out in which job updates go straight to the buffer.
MUTED_S = 30
#: Seconds to wait for a connection of the pool for the first batch.
_OPEN_WAIT_S = 10
_LIMIT_LOCK_WAITS = """
SELECT set_config('chancy_metrics.lock_timeout', current_setting('lock_timeout'), true),
    set_config('lock_timeout', %s, true)
"""
_LIFT_LIMIT = "SELECT set_config('lock_timeout', current_setting('chancy_metrics.lock_timeout'), true)"


class _Bag:
    """Jobs by identity, each as often as it was put in; quickest if they are taken out in the order they came."""

    def __init__(self, jobs: Iterable[QueuedJob] = ()) -> None:
        self._jobs = deque(jobs)

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def __contains__(self, job: QueuedJob) -> bool:
        return any(job is other for other in self._jobs)

    def add(self, job: QueuedJob) -> None:
        self._jobs.append(job)

    def take(self, job: QueuedJob) -> bool:
        """Take *job* out once; False if it is not in here."""
        if self._jobs and self._jobs[0] is job:
            self._jobs.popleft()
            return True
        for number, other in enumerate(self._jobs):
            if job is other:
                del self._jobs[number]
                return True
        return False

    def jobs(self) -> list[QueuedJob]:
        return list(self._jobs)


class _Attempt(NamedTuple):
    """A batch that was written in a transaction whose outcome is not known yet."""

    batch_id: BatchId
    bag: _Bag  # its jobs, less those the host has saved since


class JobHook:
    """One worker's producer of job updates.

    Its batch commits or rolls back with the jobs. Where the host keeps its batch because it does not know what
    became of its COMMIT, it comes again with the same `QueuedJob` objects and maybe newer ones: all of them are
    written under the id that may be taken. If it was free, the first transaction never was. If it was taken, it
    was, and only the jobs that were not in it are written, under the next id. Either is final, since the host's
    own UPDATEs have waited for that transaction.
    """

    def __init__(
        self,
        worker_id: str,
        buffer: Buffer,
        clock: DatabaseClock,
        log: Logger,
        *,
        lock_timeout_s: float,
        keep_meta: tuple[str, ...],
        error_messages: bool = False,
    ) -> None:
        self.worker_id = worker_id
        self.producer: UUID = uuid4()
        self.producers = [self.producer]
        self._sequence = 1
        self._unconfirmed: _Attempt | None = None
        self._written = False  # whether the transaction under way holds the unconfirmed attempt
        self._recorded = _Bag()  # in the log for certain, their on_job_updated still to come
        self._owed = _Bag()  # saved by the host, in the log only if the unconfirmed attempt is
        self._no_day = False  # whether the day of the unconfirmed attempt takes no batch any more
        self._muted_until = 0.0
        self._closed = False
        self._buffer = buffer
        self._clock = clock
        self._lock_timeout_ms = max(1, round(lock_timeout_s * 1000))
        self._facts = partial(job_facts, keep_meta=keep_meta, error_messages=error_messages)
        self._warnings = RateLimited(log)

    async def open(self, chancy: Chancy) -> None:
        """Append the empty batch that shows that this producer exists. Never raises."""
        attempt = _Attempt(self._next_id(), _Bag())
        self._unconfirmed = attempt
        try:
            async with (
                chancy.pool.connection(timeout=_OPEN_WAIT_S) as connection,
                short_transaction(connection, lock_timeout_ms=self._lock_timeout_ms) as cursor,
            ):
                now = await append(cursor, tables(chancy.prefix), attempt.batch_id, encode(), worker=self.worker_id)
        except Exception as error:  # a worker must start whatever the log does
            self._warnings.warn("open", f"the metrics log did not take a first batch: {type(error).__name__}: {error}")
            return
        if now is not None:
            self._clock.see(now)
        self._confirm()

    async def record(self, cursor: AsyncCursor[Any], prefix: str, jobs: Sequence[QueuedJob]) -> None:
        """Write *jobs* in the caller's transaction, after a savepoint, which ends with it.

        On any failure of ours the savepoint is rolled back and the jobs are saved all the same:
        `take_saved` then buffers them.

        Raises:
            psycopg.OperationalError: The transaction is lost, or the savepoint could not be rolled back; the
                host tries the whole again.
        """
        self._written = False
        if self._unconfirmed is None and time.monotonic() < self._muted_until:
            return
        if cursor.connection.info.transaction_status == TransactionStatus.INERROR:
            # Let the host try it again rather than commit nothing.
            raise psycopg.OperationalError("the job update transaction is lost: a statement in it failed")
        async with cursor.connection.cursor(row_factory=tuple_row) as own:
            try:
                await self._write(own, tables(prefix), list(jobs))
            except Exception as error:  # our failure must not become the job's
                await self._rollback(own, error)
            else:
                self._written = self._unconfirmed is not None

    def take_saved(self, job: QueuedJob) -> None:
        """Note that the host has saved *job*; buffer it if it was not recorded with it. Never raises."""
        attempt = self._unconfirmed
        if attempt is not None and self._written and job in attempt.bag:
            self._confirm()
        if self._recorded.take(job):
            return
        if self._unconfirmed is not None and self._unconfirmed.bag.take(job):
            self._owed.add(job)
        else:
            try:
                self._buffer.record_job(self._facts([job]).rows()[0])
            except Exception as error:  # on_job_updated must not raise into the host
                self._buffer.count("rejected:job")
                what = f"an update of job {job.id} ({job.func}) could not be recorded"
                self._warnings.warn("job", f"{what}: {type(error).__name__}: {error}")

    def held(self) -> Held:
        """Count the job updates that the host has saved and that are in the log only if an unanswered COMMIT was."""
        return +Held(job_updates=len(self._owed.jobs()))

    async def close(self, chancy: Chancy) -> None:
        """Settle what is unconfirmed and append that the producer ends here.

        Raises:
            psycopg.Error: What prevented it; another call tries again.
        """
        if self._closed:
            return
        async with (
            own_connection(chancy) as connection,
            short_transaction(connection, lock_timeout_ms=self._lock_timeout_ms) as cursor,
        ):
            names = tables(chancy.prefix)
            attempt = await self._placed(cursor, names)
            if attempt is None and self._sequence == 1:
                return  # it never began
            batch = self._encoded(self._owed.jobs())
            batch_id = attempt.batch_id if attempt else self._next_id()
            now = await append(cursor, names, batch_id, batch, worker=self.worker_id, closes=True)
            if now is None:
                following = batch_id._replace(day=self._clock.today(), sequence=batch_id.sequence + 1)
                await append(cursor, names, following, encode(), worker=self.worker_id, closes=True)
        self._unconfirmed, self._owed, self._closed = None, _Bag(), True

    async def _write(self, cursor: AsyncCursor[TupleRow], names: Tables, jobs: list[QueuedJob]) -> None:
        async with one_trip(cursor.connection):
            # The server is busy with these while the batch is made.
            await cursor.execute("SAVEPOINT metrics_log")
            async with self._limited(cursor):
                attempt = await self._placed(cursor, names)
                new = _without(jobs, self._recorded)
                if self._recorded:
                    # What the host does not come back with now, it never will.
                    self._recorded = _Bag(_without(jobs, _Bag(new)))
                batch_id = attempt.batch_id if attempt else self._next_id()
                candidates = self._owed.jobs() + new
                sent = bool(candidates or attempt)
                if sent:
                    await self._send(cursor, names, batch_id, candidates)
        if not sent:
            return
        if await self._appended(cursor):
            self._unconfirmed = _Attempt(batch_id, _Bag(new))
            return
        if attempt is None:
            self.producer, self._sequence = uuid4(), 1
            self.producers.append(self.producer)
            raise SequenceConflict(
                f"batch {batch_id} of job updates is in the log already, but this process never wrote it"
            )
        # It was there: the first transaction did commit, with exactly the jobs of that attempt.
        self._settle(attempt)
        if left := _without(new, attempt.bag):
            batch_id = self._next_id()
            async with one_trip(cursor.connection), self._limited(cursor):
                await self._send(cursor, names, batch_id, left)
            if await self._appended(cursor):
                self._unconfirmed = _Attempt(batch_id, _Bag(left))

    @asynccontextmanager
    async def _limited(self, cursor: AsyncCursor[TupleRow]) -> AsyncIterator[None]:
        """Limit lock waits for a block; what fails in it is rolled back, and the limit with it."""
        await cursor.execute(_LIMIT_LOCK_WAITS, (f"{self._lock_timeout_ms}ms",))
        yield
        await cursor.connection.execute(_LIFT_LIMIT)

    async def _placed(self, cursor: AsyncCursor[TupleRow], names: Tables) -> _Attempt | None:
        """Return the unconfirmed attempt; where its day is gone, look up what became of it, or give it another day."""
        attempt = self._unconfirmed
        if attempt is None or not self._no_day:
            return attempt
        await self._clock.ask(cursor)
        if await is_recorded(cursor, names, attempt.batch_id):
            self._settle(attempt)
        else:
            self._unconfirmed = attempt._replace(batch_id=self._next_id())
        self._no_day = False
        return self._unconfirmed

    async def _send(
        self, cursor: AsyncCursor[TupleRow], names: Tables, batch_id: BatchId, jobs: list[QueuedJob]
    ) -> None:
        await send(cursor, names, batch_id, self._encoded(jobs), worker=self.worker_id)

    def _encoded(self, jobs: list[QueuedJob]) -> EncodedBatch:
        return encode(self._facts(jobs) if jobs else ())

    async def _appended(self, cursor: AsyncCursor[TupleRow]) -> bool:
        now = await appended(cursor)
        if now is not None:
            self._clock.see(now)
        return now is not None

    async def _rollback(self, cursor: AsyncCursor[TupleRow], error: Exception) -> None:
        try:
            await cursor.execute("ROLLBACK TO SAVEPOINT metrics_log; RELEASE SAVEPOINT metrics_log")
        except psycopg.Error as failure:
            # Swallowing this would turn the host's COMMIT into a silent ROLLBACK of its jobs.
            raise psycopg.OperationalError(f"the job update transaction is lost: {failure}") from error
        if isinstance(error, errors.LockNotAvailable):
            self._muted_until = time.monotonic() + MUTED_S
        self._no_day = takes_no_batch(error) and self._unconfirmed is not None
        self._warnings.warn(
            "record",
            f"job updates of worker {self.worker_id!r} go through the buffer, the log did not take them: "
            f"{type(error).__name__}: {error}",
        )

    def _confirm(self) -> None:
        """The transaction of the unconfirmed attempt has committed."""
        if self._unconfirmed is not None:
            self._settle(self._unconfirmed)
            self._written = False

    def _settle(self, attempt: _Attempt) -> None:
        """The batch of *attempt* is in the log, with its jobs and those that were owed."""
        self._recorded = _Bag(self._recorded.jobs() + attempt.bag.jobs()) if self._recorded else attempt.bag
        self._unconfirmed, self._owed = None, _Bag()
        self._sequence += 1

    def _next_id(self) -> BatchId:
        return BatchId(self._clock.today(), self.producer, self._sequence)


def _without(jobs: list[QueuedJob], gone: _Bag) -> list[QueuedJob]:
    """Return *jobs* less *gone*; a job that is there twice has to be gone twice."""
    if not gone:
        return jobs
    left = _Bag(gone.jobs())
    return [job for job in jobs if not left.take(job)]
