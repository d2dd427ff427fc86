"""Write job updates into the log in the transaction that saves the jobs; after a lost COMMIT write them again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from logging import Logger
from typing import Any, LiteralString, NamedTuple
from uuid import UUID, uuid4

import psycopg
from chancy import Chancy, QueuedJob
from psycopg import AsyncCursor
from psycopg.pq import TransactionStatus

from chancy_metrics.events.batch import BatchId
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import short_transaction
from chancy_metrics.events.log import append
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin.host.connection import DatabaseClock, own_connection
from chancy_metrics.plugin.host.options import META_BYTES
from chancy_metrics.plugin.host.throttled_log import RateLimited
from chancy_metrics.plugin.recording.buffer import Buffer
from chancy_metrics.plugin.recording.job_facts import job_facts
from chancy_metrics.plugin.recording.session_row import Held, listed
from chancy_metrics.plugin.recording.unconfirmed import JobBag, UnconfirmedBatch, without

#: Milliseconds a flush waits for the log's locks after one that waited in vain; half of that after the next, and so on.
RETRY_WAIT_MS = 8
_SAVEPOINT: LiteralString = "metrics_log"
#: Seconds between warnings that job updates wait in memory: the last one before a kill says what is lost.
MEMORY_WARNING_S = 1
#: Seconds to wait for a connection of the pool for the first batch.
_OPEN_WAIT_S = 10


class _Writing(NamedTuple):
    """An unconfirmed batch that is being written in a transaction.

    Attributes:
        earlier: The sha256 of the bytes that it replaces under its id; None if it replaces none.
        closes: Whether the producer ends with it.
        savepoint: The name of one to make first.
    """

    cursor: AsyncCursor[Any]
    tables: Tables
    unconfirmed: UnconfirmedBatch
    earlier: bytes | None = None
    closes: bool = False
    savepoint: LiteralString | None = None


class JobHook:
    """One worker's producer of job updates.

    Its batch commits or rolls back with the jobs, whether the log takes it or, while that is locked or broken, the
    spill table. Where the host keeps its batch because it does not know what became of its COMMIT, it comes again with
    the same `QueuedJob` objects and maybe newer ones. Then the same bytes are written under the same id once more,
    which needs no look at what became of them, since an id is counted once; and the newer jobs under the next id.
    Only where the database refuses some of the jobs now, because somebody else has claimed them, would the same bytes
    be wrong. Then the id is looked up wherever a batch can be: if it is nowhere, the earlier transaction rolled back,
    and what is left of its jobs is written under that id. That is final, since the host's own UPDATEs have waited for
    that transaction. Where it can't be looked up its jobs wait in memory.
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
        others: Callable[[], Held] | None = None,
    ) -> None:
        self.worker_id = worker_id
        self.producer: UUID = uuid4()
        self.producers = [self.producer]
        self._sequence = 1
        self._unconfirmed: list[UnconfirmedBatch] = []  # by sequence
        self._written = False  # whether the transaction under way holds every unconfirmed batch
        self._has_savepoint = False  # in the current transaction
        self._recorded = JobBag()  # in the log for certain, their on_job_updated still to come
        self._closed = False
        self._others = others or buffer.held
        self._buffer = buffer
        self._clock = clock
        self._full_wait_ms = self._lock_wait_ms = lock_wait_ms
        self._facts = partial(
            job_facts, keep_meta=keep_meta, max_meta_bytes=max_meta_bytes, error_messages=error_messages
        )
        self._log = log
        self._warnings = RateLimited(log)

    async def open(self, chancy: Chancy) -> None:
        """Append the empty batch that shows that this producer exists. Never raises."""
        unconfirmed = self._cut([])
        self._keep(unconfirmed)
        try:
            async with (
                chancy.pool.connection(timeout=_OPEN_WAIT_S) as connection,
                short_transaction(connection) as cursor,
            ):
                await self._append(_Writing(cursor, tables_for(chancy.prefix), unconfirmed))
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
        self._written = self._has_savepoint = False
        if cursor.connection.pgconn.transaction_status == TransactionStatus.INERROR:
            # Let the host try it again rather than commit nothing.
            raise psycopg.OperationalError("the job update transaction is lost: a statement in it failed")
        try:
            await self._write(cursor, tables_for(prefix), list(jobs))
        except Exception as error:  # our failure must not become the job's
            await self._rollback(cursor, len(without(list(jobs), self._recorded)), error)
        else:
            self._written = True

    def take_saved(self, job: QueuedJob) -> None:
        """Note that the host has saved *job*; buffer it if it was not recorded with it. Never raises."""
        if self._written and any(job in unconfirmed.jobs for unconfirmed in self._unconfirmed):
            self._confirm()
        if self._recorded.take(job):
            return
        for unconfirmed in self._unconfirmed:
            if unconfirmed.jobs.take(job):
                unconfirmed.saved.add(job)
                return
        try:
            facts = self._facts([job])
            encode(facts)  # one that the codec refuses must not take the others of its batch along
            self._buffer.record_job(facts.rows()[0], cut_meta=facts.cut_meta)
        except Exception as error:  # on_job_updated must not raise into the host
            self._buffer.count("rejected:job")
            what = f"an update of job {job.id} ({job.func}) could not be recorded"
            self._warnings.warn("job", f"{what}: {type(error).__name__}: {error}")

    def held(self) -> Held:
        """Count the job updates that the host has saved and that are in the log only if an unanswered COMMIT was."""
        return +Held(job_updates=sum(len(unconfirmed.saved) for unconfirmed in self._unconfirmed))

    async def close(self, chancy: Chancy) -> None:
        """Settle the unconfirmed batches and append that the producer ends here.

        Raises:
            psycopg.Error: What prevented it; another call tries again.
        """
        if self._closed or (self._sequence == 1 and not self._unconfirmed):  # it has ended, or never began
            return
        async with own_connection(chancy) as connection, short_transaction(connection) as cursor:
            tables = tables_for(chancy.prefix)
            for unconfirmed in tuple(self._unconfirmed):
                await self._write_again(cursor, tables, unconfirmed, [])
            await self._append(_Writing(cursor, tables, self._cut([]), closes=True))
        self._unconfirmed, self._closed = [], True

    async def _write(self, cursor: AsyncCursor[Any], tables: Tables, jobs: list[QueuedJob]) -> None:
        new = without(jobs, self._recorded)
        if self._recorded:
            # What the host does not come back with now, it never will.
            self._recorded = JobBag(without(jobs, JobBag(new)))
        if not self._unconfirmed:
            if new:
                writing = _Writing(cursor, tables, self._cut(new), savepoint=_SAVEPOINT)
                self._has_savepoint = True
                self._keep(await self._append(writing))
            return
        self._has_savepoint = True
        async with cursor.connection.cursor() as own:
            await own.execute(f"SAVEPOINT {_SAVEPOINT}")
        for unconfirmed in tuple(self._unconfirmed):
            rest = without(new, unconfirmed.jobs)
            back = without(new, JobBag(rest))
            try:
                await self._write_again(cursor, tables, unconfirmed, back)
            except psycopg.Error:
                if back or cursor.connection.info.transaction_status != TransactionStatus.INTRANS:
                    raise
                # None of it is saved now, so it may stay unknown for as long as it must.
            new = rest
        if new:
            self._keep(await self._append(_Writing(cursor, tables, self._cut(new))))

    async def _write_again(
        self, cursor: AsyncCursor[Any], tables: Tables, unconfirmed: UnconfirmedBatch, back: list[QueuedJob]
    ) -> None:
        """Write *unconfirmed* once more under its id, with *back*: those of its jobs that are saved now."""
        is_recut = len(back) < len(unconfirmed.jobs)
        again = self._cut(back, unconfirmed) if is_recut else unconfirmed
        earlier = unconfirmed.batch.sha256 if is_recut else None
        written = await self._append(_Writing(cursor, tables, again, earlier=earlier))
        if written is None:
            self._settle(unconfirmed)
        else:
            self._unconfirmed[self._unconfirmed.index(unconfirmed)] = written

    async def _append(self, writing: _Writing) -> UnconfirmedBatch | None:
        """Return the batch as this transaction has written it; None if an earlier one had."""
        unconfirmed = writing.unconfirmed
        try:
            appended = await append(
                writing.cursor,
                writing.tables,
                unconfirmed.batch_id,
                unconfirmed.batch,
                worker=self.worker_id,
                closes=writing.closes,
                lock_wait_ms=self._lock_wait_ms,
                earlier=writing.earlier,
                savepoint=writing.savepoint,
            )
        except psycopg.Error:
            self._wait_shorter()
            raise
        self._clock.see(appended.now)
        if appended.state == "spilled":
            self._wait_shorter()
            self._warnings.warn("spill", f"job updates of worker {self.worker_id!r}: {appended.spill_note}")
        else:
            self._lock_wait_ms = self._full_wait_ms
        if appended.state != "taken":
            return unconfirmed if appended.is_written else None
        self._warnings.warn(
            "conflict",
            f"{unconfirmed.batch_id} of job updates is recorded already, but this process never wrote it: "
            "two processes must not share a producer, and this one takes a new id",
        )
        self.producer, self._sequence = uuid4(), 1
        self.producers.append(self.producer)
        moved = unconfirmed._replace(batch_id=self._next_id())
        self._sequence += 1
        return await self._append(writing._replace(unconfirmed=moved, earlier=None, savepoint=None))

    def _wait_shorter(self) -> None:
        self._lock_wait_ms = max(1, min(self._lock_wait_ms // 2, RETRY_WAIT_MS))

    async def _rollback(self, cursor: AsyncCursor[Any], how_many: int, error: Exception) -> None:
        if self._has_savepoint:
            try:
                async with cursor.connection.cursor() as own:
                    await own.execute(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}; RELEASE SAVEPOINT {_SAVEPOINT}")
            except psycopg.Error as failure:
                # Swallowing this would turn the host's COMMIT into a silent ROLLBACK of its jobs.
                raise psycopg.OperationalError(f"the job update transaction is lost: {failure}") from error
        others = listed(self._others() + self.held())
        self._warnings.warn(
            "record",
            f"neither the log nor the spill table took {how_many:,} job updates of worker {self.worker_id!r}: they "
            f"wait in memory beside {others}; if this process is killed before the database takes them, they are lost: "
            f"{type(error).__name__}: {error}",
            every_s=MEMORY_WARNING_S,
        )

    def _cut(self, jobs: list[QueuedJob], earlier: UnconfirmedBatch | None = None) -> UnconfirmedBatch:
        """Make a batch of *jobs*: a new one, or what is left of an *earlier* one under its id."""
        batch_id, saved = (earlier.batch_id, earlier.saved) if earlier else (self._next_id(), JobBag())
        rows = saved.jobs() + jobs
        return UnconfirmedBatch(batch_id, encode(self._facts(rows) if rows else ()), JobBag(jobs), saved)

    def _next_id(self) -> BatchId:
        return BatchId(self._clock.today(), self.producer, self._sequence)

    def _keep(self, unconfirmed: UnconfirmedBatch | None) -> None:
        """Remember a new unconfirmed batch, which uses its id up."""
        if unconfirmed is not None:
            self._unconfirmed.append(unconfirmed)
            self._sequence = unconfirmed.batch_id.sequence + 1

    def _confirm(self) -> None:
        """The transaction that holds every unconfirmed batch has committed."""
        for unconfirmed in tuple(self._unconfirmed):
            self._settle(unconfirmed)
        self._written = False

    def _settle(self, unconfirmed: UnconfirmedBatch) -> None:
        """*unconfirmed* is in the log, with its jobs and those that were saved since."""
        self._recorded = JobBag(self._recorded.jobs() + unconfirmed.jobs.jobs()) if self._recorded else unconfirmed.jobs
        self._unconfirmed.remove(unconfirmed)
        if unconfirmed.saved:
            self._log.info(
                f"{len(unconfirmed.saved):,} job updates of worker {self.worker_id!r} that waited in memory are written"
            )
