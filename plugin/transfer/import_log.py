"""Import an export into an empty log, or resume an import: days, baseline, ledger entries, producers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime
from functools import partial
from itertools import chain as chained
from itertools import islice, takewhile
from pathlib import Path

import msgspec
from anyio import to_thread
from chancy import Chancy
from psycopg import errors, sql

from chancy_metrics.events.database import Connection, Cursor, database_now_us, needs_schema, short_transaction
from chancy_metrics.events.errors import ImportRefused
from chancy_metrics.events.ledger import PAGE, LedgerEntry
from chancy_metrics.events.partitions import DDL_LOCK_MS, attached_days, close_day, make_days, remove_day
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.events.transfer.check import checked_entries
from chancy_metrics.events.transfer.file import check_whole, read_frames
from chancy_metrics.events.transfer.frames import (
    Baseline,
    Batch,
    Frame,
    Gone,
    GoneDay,
    Header,
    Points,
    Producer,
    Segments,
)
from chancy_metrics.events.transfer.guard import allow_positions, begin_importing, end_importing
from chancy_metrics.events.transfer.rows import write_entries, write_gone_days, write_producers
from chancy_metrics.plugin.host.connection import own_connection
from chancy_metrics.plugin.host.progress import LedgerProgress
from chancy_metrics.plugin.transfer.import_check import ExportContents
from chancy_metrics.plugin.transfer.import_locks import lock_head, lock_versions, retry_locked
from chancy_metrics.projections.versions.baseline_io import Names, copy_to_versions, write_points
from chancy_metrics.projections.versions.imported import refuse_imported
from chancy_metrics.projections.versions.segments_io import write_segment_frame
from chancy_metrics.projections.versions.version import Version


class Imported(msgspec.Struct, frozen=True):
    """What an import has written.

    Attributes:
        since: Position after which this run resumed; 0 if it began.
        position: Last position of the ledger now.
        batches: Number of batches this run has written, with their *events*.
    """

    since: int
    position: int
    batches: int
    events: int
    took_s: float


async def import_log(
    chancy: Chancy, path: Path, *, on_progress: Callable[[LedgerProgress], None] | None = None
) -> Imported:
    """Import an export into a database whose log is empty; if it is stopped, the next call resumes it.

    Each batch is checked against the chain before it is written. What workers append meanwhile stays pending until
    an import has ended, and gets its positions after it.

    Args:
        on_progress: Called after each chunk, from the event loop.

    Raises:
        DamagedExport: The file is no export, or not as it was written; nothing was imported.
        ImportRefused: The log is not empty, or a batch in the file is not what was written.
        OSError: The file can't be read.
    """
    await to_thread.run_sync(check_whole, path)
    tables = tables_for(chancy.prefix)
    async with own_connection(chancy) as connection, own_connection(chancy) as beside:
        with needs_schema(tables):
            return await ImportRun(connection, beside, tables, path, on_progress).run()


class ImportRun:
    """One run of an import. *beside* numbers the names while *connection* holds a transaction.

    Attributes:
        position: Last position of the ledger that this run has written.
    """

    def __init__(
        self,
        connection: Connection,
        beside: Connection,
        tables: Tables,
        path: Path,
        on_progress: Callable[[LedgerProgress], None] | None = None,
    ) -> None:
        self.position = 0
        self._started = time.monotonic()
        self._until = 0
        self._connection = connection
        self._beside = beside
        self._tables = tables
        self._path = path
        self._on_progress = on_progress
        self._frames = read_frames(path)
        self._gone: list[GoneDay] = []
        self._attached: set[date] = set()
        self._chain = b""
        self._batches = 0
        self._events = 0

    async def run(self) -> Imported:
        """Import what is in the file and not in the log yet.

        Raises:
            ImportRefused: The log has batches of its own, or the file is damaged; the message says what stays.
        """
        contents = ExportContents(self._path)
        await to_thread.run_sync(contents.check)
        header = await self._next_frame()
        assert isinstance(header, Header), "read_frames begins with one"
        self._until = header.position
        frame = await self._read_gone_days()
        async with short_transaction(self._connection) as cursor:
            state = await lock_head(cursor, self._tables)
        if not state.importing:
            if state.position and (state.position, state.chain) == (header.position, header.chain):
                return Imported(state.position, state.position, 0, 0, 0.0)
            if state.position:
                raise ImportRefused(
                    f"the log of this database has {state.position} positions of its own: {self._path} can only be "
                    "taken into a database whose log is empty"
                )
            await self._check_database(contents)
            await self._close_gone_days()
            frame = await self._write_prologue(frame)
            for one in self._gone:
                await remove_day(self._connection, self._tables, one.day)  # a later clean-up does what this can't
        while isinstance(
            frame, Baseline | Points | Segments | Producer
        ):  # an earlier run wrote these, in the transaction of the mark
            frame = await self._next_frame()
        self.position, self._chain = state.position, state.chain
        await self._append_entries(frame)
        await retry_locked(self._finish)
        took_s = round(time.monotonic() - self._started, 3)
        return Imported(state.position, self.position, self._batches, self._events, took_s)

    async def _next_frame(self) -> Frame | None:
        return await to_thread.run_sync(next, self._frames, None)

    async def _check_database(self, contents: ExportContents) -> None:
        """Check the file against this database, before anything is changed.

        Raises:
            ImportRefused: A day of its batches has left the log here, its baseline is ahead of the clock here, or
                points of Chancy's own plugin were imported here.
        """
        async with short_transaction(self._connection) as cursor:
            await refuse_imported(cursor, self._tables)
            await cursor.execute(
                sql.SQL("SELECT day FROM {days} WHERE state <> 'attached' AND day = ANY(%(days)s) LIMIT 1").format(
                    days=self._tables.days
                ),
                {"days": sorted(contents.days)},
            )
            row = await cursor.fetchone()
            now_us = await database_now_us(cursor)
        if row is not None:
            raise ImportRefused(f"{row[0]} has left the log of this database: it can't take that day's batches")
        horizons = contents.baseline.horizons if contents.baseline is not None else {}
        if late := [f"{name} {at}" for name, at in horizons.items() if at * 1_000_000 > now_us]:
            raise ImportRefused(
                f"the points of {self._path} begin in the future of this database's clock ({', '.join(late)} s): set "
                "the clock right, or export again where it is"
            )

    async def _read_gone_days(self) -> Frame | None:
        """Read the days that had left the exported log; return the frame after them."""
        while isinstance(frame := await self._next_frame(), GoneDay):
            if not self._gone or self._gone[-1].day != frame.day:
                self._gone.append(frame)
        return frame

    async def _close_gone_days(self) -> None:
        """Close the days that had left the exported log, so that nothing is appended to them here."""
        async with short_transaction(self._connection) as cursor:
            attached = set(await attached_days(cursor, self._tables))
            today = datetime.fromtimestamp(await database_now_us(cursor) / 1_000_000, UTC).date()
        for one in self._gone:
            if one.day >= today:
                raise ImportRefused(
                    f"{self._path} is without the batches of {one.day}, and that day is not over in this database, "
                    "where it would be closed: import it after that day"
                )
            if one.day in attached:
                await retry_locked(partial(self._close, one.day))

    async def _close(self, day: date) -> None:
        if await close_day(self._connection, self._tables, day):
            raise errors.LockNotAvailable
        async with short_transaction(self._connection) as cursor:
            await cursor.execute(
                sql.SQL("SELECT 1 FROM {log} WHERE day = %(day)s LIMIT 1").format(log=self._tables.log), {"day": day}
            )
            if await cursor.fetchone():
                raise ImportRefused(f"this database has batches of {day}, a day that has left the log in {self._path}")

    async def _write_prologue(self, frame: Frame | None) -> Frame | None:
        """Mark the import as begun and write all that precedes the entries; return the first frame after that.

        One transaction, so a marked import has all of it.
        """
        async with AsyncExitStack() as stack:
            cursor, versions = await retry_locked(partial(self._open_first_transaction, stack))
            await write_gone_days(cursor, self._tables, self._gone)
            baseline: Baseline | None = None
            names = Names(self._beside, self._tables)
            try:
                while isinstance(frame, Baseline | Points | Segments | Producer):
                    if isinstance(frame, Points):
                        await write_points(cursor, self._tables, frame, names)
                    elif isinstance(frame, Segments):
                        await write_segment_frame(cursor, self._tables, frame, names)
                    elif isinstance(frame, Baseline):
                        baseline = frame
                    frame = await self._next_frame()
                if baseline is not None:
                    await copy_to_versions(cursor, self._tables, baseline, versions)
            except (errors.IntegrityError, errors.DataError, OverflowError) as error:
                raise ImportRefused(f"the baseline in {self._path} can't be taken, and nothing was: {error}") from error
            return frame

    async def _open_first_transaction(self, stack: AsyncExitStack) -> tuple[Cursor, list[Version]]:
        """Open a transaction, lock the head and the versions, and mark the import as begun."""
        async with AsyncExitStack() as mine:
            cursor = await mine.enter_async_context(short_transaction(self._connection, lock_timeout_ms=DDL_LOCK_MS))
            state = await lock_head(cursor, self._tables)
            if state.position or state.importing:
                raise ImportRefused("another import has begun, or a batch got a position, at this moment: run it again")
            versions = await lock_versions(cursor, self._tables)
            await begin_importing(cursor, self._tables)
            await cursor.execute("SET LOCAL lock_timeout = 0")
            stack.push_async_exit(mine.pop_all())
            return cursor, versions

    async def _append_entries(self, frame: Frame | None) -> None:
        """Write the entries past the end of the ledger in chunks, each in its own transaction."""
        gone = {one.day for one in self._gone}
        frames = chained([] if frame is None else [frame], self._frames)
        chunks = checked_entries(frames, self.position, self._chain, gone, self._path)
        while chunk := await to_thread.run_sync(next, chunks, None):
            await self._append_chunk(chunk)
            if self._on_progress is not None:
                rate = self._events / max(time.monotonic() - self._started, 1e-9)
                self._on_progress(LedgerProgress(self.position, self._until, self._events, rate))

    async def _append_chunk(self, chunk: Sequence[LedgerEntry]) -> None:
        wanted = {entry.batch_id.day for entry in chunk if entry.row is not None}
        for day in sorted(wanted - self._attached):
            await retry_locked(partial(self._attach_day, day))
        self._attached |= wanted
        try:
            async with short_transaction(self._connection) as cursor:
                await allow_positions(cursor)
                await write_entries(cursor, self._tables, chunk, after=self.position, chain=self._chain)
        except (errors.IntegrityError, errors.DataError, OverflowError) as error:
            raise ImportRefused(
                f"positions {chunk[0].position} to {chunk[-1].position} of {self._path} can't be taken, those before "
                f"them stay: {error}; `chancy-metrics audit import --abandon` takes them back"
            ) from error
        self.position, self._chain = chunk[-1].position, chunk[-1].chain
        self._batches += sum(entry.row is not None for entry in chunk)
        self._events += sum(entry.events for entry in chunk if entry.row is not None)

    async def _attach_day(self, day: date) -> None:
        await make_days(self._connection, self._tables, today=day, ahead=0)
        async with short_transaction(self._connection) as cursor:
            if day in await attached_days(cursor, self._tables):
                return
            await cursor.execute(
                sql.SQL("SELECT 1 FROM {days} WHERE day = %(day)s").format(days=self._tables.days), {"day": day}
            )
            if await cursor.fetchone():
                raise ImportRefused(f"{day} has left the log of this database: it can't take that day's batches")
        raise errors.LockNotAvailable

    async def _finish(self) -> None:
        """Write the producers, whose state is that of the last position, and delete the mark."""
        prologue = takewhile(lambda frame: not isinstance(frame, Gone | Batch), read_frames(self._path))
        frames = (frame for frame in prologue if isinstance(frame, Producer))
        async with short_transaction(self._connection, lock_timeout_ms=DDL_LOCK_MS) as cursor:
            state = await lock_head(cursor, self._tables)
            if state != (self.position, self._chain, True):
                raise ImportRefused("the import was taken back, or ended, by somebody else meanwhile")
            while some := await to_thread.run_sync(list, islice(frames, PAGE)):
                await write_producers(cursor, self._tables, some)
            await end_importing(cursor, self._tables)
