"""Job updates into the log in the transaction that saves the jobs, and what is known of it after."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from logging import Logger
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import psycopg
from chancy import Chancy, QueuedJob
from psycopg import AsyncCursor
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, tuple_row

from chancy_metrics.events.codec import encode
from chancy_metrics.events.log import Appended, BatchId, receive, send, short_transaction
from chancy_metrics.events.schema import Tables, tables

from .buffer import Buffer
from .connection import DatabaseClock, one_trip, own_connection
from .job_facts import job_facts
from .limited_log import RateLimited
from .options import META_BYTES
from .presence import Held, spell

#: Milliseconds a flush waits for the log's locks after one that waited in vain; half of that after the next, and so on.
RETRY_WAIT_MS = 8
#: Seconds between warnings that job updates wait in memory: the last one before a kill says what is lost.
MEMORY_WARNING_S = 1
#: Seconds to wait for a connection of the pool for the first batch.
_OPEN_WAIT_S = 10


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

    Its batch commits or rolls back with the jobs, whether the log takes it or, while that is locked or broken, the
    spill table. Where the host keeps its batch because it does not know what became of its COMMIT, it comes again with
    the same `QueuedJob` objects and maybe newer ones. Then the id of the earlier attempt is looked up wherever a batch
    can be: spilled, waiting for its position, or in the ledger. If it is nowhere, the earlier transaction rolled back,
    and all jobs are written under that id. If it is there, that transaction committed, and only the jobs that were not
    in it are written, under the next id. Either is final, since the host's own UPDATEs have waited for that
    transaction. Where it can't be looked up nothing is written, and the jobs wait in memory for the next flush.
    """

    def __init__(
        self,
        worker_id: str,
        buffer: Buffer,
        clock: DatabaseClock,
        log: Logger,
        *,
        lock_wait_ms: int,
        keep_meta: tuple[str, ...],
        max_meta_bytes: int = META_BYTES,
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
        self._closed = False
        self._buffer = buffer
        self._clock = clock
        self._full_wait_ms = self._lock_wait_ms = lock_wait_ms
        self._facts = partial(
            job_facts, keep_meta=keep_meta, max_meta_bytes=max_meta_bytes, error_messages=error_messages
        )
        self._warnings = RateLimited(log)

    async def open(self, chancy: Chancy) -> None:
        """Append the empty batch that shows that this producer exists. Never raises."""
        attempt = _Attempt(self._next_id(), _Bag())
        self._unconfirmed = attempt
        try:
            async with (
                chancy.pool.connection(timeout=_OPEN_WAIT_S) as connection,
                short_transaction(connection) as cursor,
            ):
                await self._append(cursor, tables(chancy.prefix), attempt.batch_id, [], is_retry=False)
        except Exception as error:  # a worker must start whatever the log does
            self._warnings.warn("open", f"the metrics log did not take a first batch: {type(error).__name__}: {error}")
            return
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
        if cursor.connection.info.transaction_status == TransactionStatus.INERROR:
            # Let the host try it again rather than commit nothing.
            raise psycopg.OperationalError("the job update transaction is lost: a statement in it failed")
        async with cursor.connection.cursor(row_factory=tuple_row) as own:
            try:
                await self._write(own, tables(prefix), list(jobs))
            except Exception as error:  # our failure must not become the job's
                await self._rollback(own, len(jobs), error)
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
                facts = self._facts([job])
                self._buffer.record_job(facts.rows()[0], cut_meta=facts.cut_meta)
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
        async with own_connection(chancy) as connection, short_transaction(connection) as cursor:
            names, attempt = tables(chancy.prefix), self._unconfirmed
            if attempt is None and self._sequence == 1:
                return  # it never began
            batch_id = attempt.batch_id if attempt else self._next_id()
            closing = partial(self._append, cursor, names, closes=True)
            appended = await closing(batch_id, self._owed.jobs(), is_retry=attempt is not None)
            if not appended.is_written:
                following = batch_id._replace(day=self._clock.today(), sequence=batch_id.sequence + 1)
                await closing(following, [], is_retry=False)
        self._unconfirmed, self._owed, self._closed = None, _Bag(), True

    async def _write(self, cursor: AsyncCursor[TupleRow], names: Tables, jobs: list[QueuedJob]) -> None:
        async with one_trip(cursor.connection):
            # The server is busy with this while the batch is made.
            await cursor.execute("SAVEPOINT metrics_log")
            attempt = self._unconfirmed
            new = _without(jobs, self._recorded)
            if self._recorded:
                # What the host does not come back with now, it never will.
                self._recorded = _Bag(_without(jobs, _Bag(new)))
            batch_id = attempt.batch_id if attempt else self._next_id()
            candidates = self._owed.jobs() + new
            sent = bool(candidates or attempt)
            if sent:
                await self._send(cursor, names, batch_id, candidates, is_retry=attempt is not None)
        if not sent:
            return
        if (await self._appended(cursor)).is_written:
            self._unconfirmed = _Attempt(batch_id, _Bag(new))
            return
        left = new
        if attempt is None:
            self._warnings.warn(
                "conflict",
                f"{batch_id} of job updates is recorded already, but this process never wrote it: "
                "two processes must not share a producer, and this one takes a new id",
            )
            self.producer, self._sequence = uuid4(), 1
            self.producers.append(self.producer)
        else:
            # It was there: the first transaction did commit, with exactly the jobs of that attempt.
            self._settle(attempt)
            left = _without(new, attempt.bag)
        if left:
            batch_id = self._next_id()
            await self._append(cursor, names, batch_id, left, is_retry=False)
            self._unconfirmed = _Attempt(batch_id, _Bag(left))

    async def _append(
        self,
        cursor: AsyncCursor[TupleRow],
        names: Tables,
        batch_id: BatchId,
        jobs: list[QueuedJob],
        *,
        is_retry: bool,
        closes: bool = False,
    ) -> Appended:
        await self._send(cursor, names, batch_id, jobs, is_retry=is_retry, closes=closes)
        return await self._appended(cursor)

    async def _send(
        self,
        cursor: AsyncCursor[TupleRow],
        names: Tables,
        batch_id: BatchId,
        jobs: list[QueuedJob],
        *,
        is_retry: bool,
        closes: bool = False,
    ) -> None:
        await send(
            cursor,
            names,
            batch_id,
            encode(self._facts(jobs) if jobs else ()),
            worker=self.worker_id,
            closes=closes,
            lock_wait_ms=self._lock_wait_ms,
            is_retry=is_retry,
        )

    async def _appended(self, cursor: AsyncCursor[TupleRow]) -> Appended:
        try:
            appended = await receive(cursor)
        except psycopg.Error:
            self._wait_shorter()
            raise
        self._clock.see(appended.now)
        if appended.state == "spilled":
            self._wait_shorter()
            self._warnings.warn("spill", f"job updates of worker {self.worker_id!r}: {appended.spill_note}")
        else:
            self._lock_wait_ms = self._full_wait_ms
        return appended

    def _wait_shorter(self) -> None:
        self._lock_wait_ms = max(1, min(self._lock_wait_ms // 2, RETRY_WAIT_MS))

    async def _rollback(self, cursor: AsyncCursor[TupleRow], how_many: int, error: Exception) -> None:
        try:
            await cursor.execute("ROLLBACK TO SAVEPOINT metrics_log; RELEASE SAVEPOINT metrics_log")
        except psycopg.Error as failure:
            # Swallowing this would turn the host's COMMIT into a silent ROLLBACK of its jobs.
            raise psycopg.OperationalError(f"the job update transaction is lost: {failure}") from error
        others = spell(self._buffer.held() + self.held())
        self._warnings.warn(
            "record",
            f"neither the log nor the spill table took {how_many} job updates of worker {self.worker_id!r}: they wait "
            f"in memory beside {others}; if this process is killed before the database takes them, they are lost: "
            f"{type(error).__name__}: {error}",
            every_s=MEMORY_WARNING_S,
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
