"""Append a buffer under one producer: each batch exactly once, even if the answer to a COMMIT is lost."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from logging import Logger
from typing import NamedTuple
from uuid import UUID, uuid4

import anyio
import psycopg
from chancy import Chancy

from chancy_metrics.events.batch import BatchId, EncodedBatch
from chancy_metrics.events.codec import count_kinds, encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.errors import SequenceConflict
from chancy_metrics.events.log import append
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.events.silent_server import Patience, ServerSilent
from chancy_metrics.plugin.host.connection import DatabaseClock, any_connection, connect, own_connection
from chancy_metrics.plugin.host.throttled_log import RateLimited
from chancy_metrics.plugin.recording.buffer import Buffer
from chancy_metrics.plugin.recording.session_row import Held, SessionRow, listed

#: Seconds to wait for the server's answer to an append; then its connection is given up.
ANSWER_S = 20
#: Milliseconds an append may hold that connection waiting for a lock: a locked log must not starve jobs.
LOCK_WAIT_MS = 100
#: Seconds without a batch after which a producer appends an empty one, where its session's row can't be written.
ALIVE_S = 120


class KeptConnection:
    """One connection of our own, made when it is first needed and kept between appends.

    For recorders that can't use the app's pool: its connections belong to another event loop, or to the process that
    this one was forked from.
    """

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._lock = anyio.Lock()

    @asynccontextmanager
    async def __call__(self, chancy: Chancy) -> AsyncIterator[Connection]:
        async with self._lock:  # a batch and the session's row may be written at the same time
            if self._connection is None or self._connection.closed:
                self._connection = await connect(chancy)
            try:
                yield self._connection
            except BaseException:  # whatever it was, the next append begins with a connection whose state is known
                await self.close()
                raise

    async def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()


class _InFlight(NamedTuple):
    batch_id: BatchId
    batch: EncodedBatch
    closes: bool


class Recorder:
    """One worker's (or block's) buffer and the producer that appends it.

    A sequence is used up only when its commit is known; until then the same batch is sent again under it.

    Attributes:
        worker_id: Under which its events are stored.
        producer: Id of the producer, new for each recorder; *producers* are all it ever was.
        session_row: The row of its session, which it writes; None for a recorder that lives for one flush.
        kept_connection: Its connection, where it can't use the app's pool.
    """

    def __init__(
        self,
        worker_id: str,
        buffer: Buffer,
        clock: DatabaseClock,
        log: Logger,
        *,
        session_row: SessionRow | None = None,
        kept_connection: KeptConnection | None = None,
    ) -> None:
        self.worker_id = worker_id
        self.buffer = buffer
        self.producer: UUID = uuid4()
        self.producers = [self.producer]
        self.session_row = session_row
        self.kept_connection = kept_connection
        self._sequence = 1
        self._in_flight: _InFlight | None = None
        self._closed = False
        self._sent_at = time.monotonic()
        self._clock = clock
        self._lock = anyio.Lock()
        self._patience = Patience(ANSWER_S)
        self._log = log
        self._warnings = RateLimited(log)

    async def open(self, chancy: Chancy) -> None:
        """Append the empty batch that shows that this producer exists. Never raises."""
        if self._sequence == 1 and self._in_flight is None:
            self._in_flight = self._cut_as(encode(), closes=False)
        await self.append(chancy)

    async def append(self, chancy: Chancy) -> bool:
        """Append all that is buffered, and write the session's row; what can't be appended stays. Never raises.

        Returns:
            Whether everything is in the log.
        """
        failure: Exception | None = None
        try:
            await self.flush(chancy)
        except Exception as error:  # the append loop and the host outlive every failure of ours
            failure = error
            held = self.held()
            self._warnings.warn(
                "append" if held else "append nothing",
                f"metrics of worker {self.worker_id!r} could not be appended; {listed(held)} in memory, tried again: "
                f"{type(error).__name__}: {error}",
            )
        await self._write_session_row(chancy, failure)
        return failure is None

    async def flush(self, chancy: Chancy) -> None:
        """Append all that is buffered; what can't be appended stays.

        Raises:
            psycopg.Error: What prevented it.
            SequenceConflict: Somebody else has written under this producer; the next call uses a new one.
        """
        async with self._lock:
            if self._in_flight is None:
                self._in_flight = self._next()
            unseen = self.session_row is not None and self.session_row.refused
            if self._in_flight is None and unseen and time.monotonic() - self._sent_at > ALIVE_S:
                self._in_flight = self._cut_as(encode(), closes=False)
            if self._in_flight is not None:
                tables = tables_for(chancy.prefix)
                try:
                    async with (self.kept_connection or any_connection)(chancy) as connection:
                        await self._drain(connection, tables)
                except ServerSilent as error:  # the pool's other connections may be as dead
                    self._warnings.warn("silent", f"metrics of worker {self.worker_id!r}: {error}")
                    async with own_connection(chancy) as connection:
                        await self._drain(connection, tables)

    def held(self) -> Held:
        """Count what is in memory, in flight included: it is not known to be in the log."""
        return self.buffer.held() + (count_kinds(self._in_flight.batch) if self._in_flight else Held())

    async def close(self, chancy: Chancy) -> None:
        """Append what is left on a connection of our own, and that the producer ends here.

        Raises:
            psycopg.Error: What prevented it; another call tries again.
            SequenceConflict: Somebody else has written under this producer; another call uses a new one.
        """
        async with self._lock, own_connection(chancy) as connection:
            tables = tables_for(chancy.prefix)
            await self._drain(connection, tables)
            if not self._closed and self._sequence > 1:
                self._in_flight = self._cut_as(encode(), closes=True)
                await self._send(connection, tables)

    def renew(self) -> None:
        """Become a new producer with nothing to append."""
        self.producer, self._sequence, self._in_flight, self._closed = uuid4(), 1, None, False
        self.producers.append(self.producer)

    async def _write_session_row(self, chancy: Chancy, failure: Exception | None) -> None:
        """Write the session's row, if that is due and the database answers."""
        if self.session_row is None or (isinstance(failure, psycopg.OperationalError) and failure.sqlstate is None):
            return
        held = self.held() if failure else Held()
        if not self.session_row.is_due(held):
            return
        try:
            # A kept connection is one: a flush from elsewhere must not use it at the same time.
            async with self._lock, (self.kept_connection or any_connection)(chancy) as connection:
                with self._patience.waiting(connection):
                    await self.session_row.write(connection, tables_for(chancy.prefix), held)
        except Exception as error:  # see append()
            self._warnings.warn(
                "session_row",
                f"worker {self.worker_id!r} could not say that it lives, tried again: {type(error).__name__}: {error}",
            )

    async def _drain(self, connection: Connection, tables: Tables) -> None:
        while self._in_flight or (next_batch := self._next()):
            self._in_flight = self._in_flight or next_batch
            await self._send(connection, tables)

    def _next(self) -> _InFlight | None:
        while True:
            try:
                batch = self.buffer.cut(is_behind=self._clock.is_ahead_of_host())
            except Exception as error:  # a batch that can't be encoded must not stand in the way of the next ones
                held = listed(self.buffer.held())
                what = f"a batch of metrics of worker {self.worker_id!r} could not be encoded and is dropped"
                self._warnings.warn("encode", f"{what}; {held} in memory: {error!r}")
            else:
                return None if batch is None else self._cut_as(batch, closes=False)

    def _cut_as(self, batch: EncodedBatch, *, closes: bool) -> _InFlight:
        # The day is fixed here: a retry hits the partition in which it may have left the batch.
        return _InFlight(BatchId(self._clock.today(), self.producer, self._sequence), batch, closes)

    async def _send(self, connection: Connection, tables: Tables) -> None:
        assert self._in_flight is not None
        batch_id, batch, closes = self._in_flight
        with self._patience.waiting(connection):
            async with short_transaction(connection) as cursor:
                appended = await append(
                    cursor,
                    tables,
                    batch_id,
                    batch,
                    worker=self.worker_id,
                    closes=closes,
                    lock_wait_ms=LOCK_WAIT_MS,
                )
        if appended.state == "taken":
            self.renew()
            self._in_flight = self._cut_as(batch, closes=closes)
            raise SequenceConflict(
                f"batch {batch_id.sequence} of producer {batch_id.producer} is recorded with other content; this one "
                "is kept and appended under a new id: two processes must not share a producer"
            )
        if appended.state == "spilled":
            self._warnings.warn("spill", f"metrics of worker {self.worker_id!r}: {appended.spill_note}")
        self._clock.see(appended.now)
        if updates := count_kinds(batch)["job_updates"]:
            self._log.info(f"{updates:,} job updates of worker {self.worker_id!r} that waited in memory are written")
        self._done()

    def _done(self) -> None:
        """The batch in flight is in the log."""
        self._closed = self._in_flight is not None and self._in_flight.closes
        self._in_flight = None
        self._sequence += 1
        self._sent_at = time.monotonic()
