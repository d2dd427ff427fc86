"""Walk through ranges of the ledger and hash each batch again, in this process or in tasks on an executor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from typing import NamedTuple

import msgspec
from anyio import to_thread

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.ledger import LedgerRow, chunks, find_range_end, naming_batches, read_ledger
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin.parallel.source import Source, connected
from chancy_metrics.plugin.parallel.summaries_task import check_summaries_in_tasks
from chancy_metrics.plugin.parallel.tasks import Tasks
from chancy_metrics.projections.findings import Findings, FindingsParts
from chancy_metrics.projections.verify.entries import Unchecked, check_batches, read_unchecked
from chancy_metrics.projections.versions.replay import PAGE

#: What a task checks, unless one batch has more: some tenths of a second.
_TASK_EVENTS, _TASK_BYTES, _TASK_ROWS = 250_000, 64 << 20, 20_000


class Walked(msgspec.Struct, frozen=True, array_like=True):
    """A part of the ledger that was checked.

    Attributes:
        position: Its last position.
        entries: Positions, of which *batches* with *events* are in the log and were hashed.
    """

    position: int
    entries: int
    batches: int
    events: int


async def walk(
    connection: Connection, tables: Tables, found: Findings, *, after: int = 0, until: int
) -> AsyncGenerator[Walked]:
    """Check the entries past *after* and up to *until*, in chunks of bounded size; yield each chunk.

    An entry is checked against the hash of the one before it, so any ranges can be checked in any order.
    """
    reader = _Reader(connection, tables, until)
    ahead = asyncio.create_task(reader.read(after))
    try:
        while (chunk := await ahead) is not None:
            rows, unchecked = chunk
            # The next chunk is read while this one is hashed: two of them are held at once.
            ahead = asyncio.create_task(reader.read(rows[-1].position))
            with naming_batches(rows):
                batches, events = await to_thread.run_sync(check_batches, unchecked, found)
            yield Walked(rows[-1].position, len(rows), batches, events)
    finally:
        ahead.cancel()
        await asyncio.wait([ahead])


class _Reader:
    def __init__(self, connection: Connection, tables: Tables, until: int) -> None:
        self._connection = connection
        self._tables = tables
        self._until = until
        self._page: list[list[LedgerRow]] = []

    async def read(self, after: int) -> tuple[Sequence[LedgerRow], Unchecked] | None:
        """Read the next chunk; None at the end."""
        if not self._page:
            async with short_transaction(self._connection) as cursor:
                page = await read_ledger(cursor, self._tables, after=after, limit=PAGE, until=self._until)
            self._page = list(chunks(page))
            if not page:
                return None
        rows = self._page.pop(0)
        async with short_transaction(self._connection, index_only=True) as cursor:
            with naming_batches(rows):
                return rows, await read_unchecked(cursor, self._tables, rows)


class RangeTask(NamedTuple):
    """What one task checks: the entries past *after* and up to *until*.

    Attributes:
        limit: Findings that are kept.
    """

    source: Source
    after: int
    until: int
    limit: int


class _Checked(msgspec.Struct, frozen=True, array_like=True):
    walked: list[Walked]
    findings: FindingsParts


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(_Checked)


class CheckInTasks:
    """Checks ranges of the ledger on an executor; what is found is what one walk finds, in the same order.

    Args:
        connection: To the app's database, to cut the ledger into ranges.
        limit: Findings of a range that are kept.
    """

    def __init__(self, executor: Executor, source: Source, connection: Connection, *, limit: int) -> None:
        self._executor = executor
        self._source = source
        self._connection = connection
        self._tables = tables_for(source.prefix)
        self._limit = limit
        self._ends: list[int] = []

    async def walk(self, found: Findings, until: int) -> AsyncGenerator[Walked]:
        """Check the entries up to *until*; yield each chunk."""
        async with Tasks(self._executor, check_range) as tasks:
            after: int | None = 0
            while True:
                while after is not None and tasks.has_room:
                    end = await self._find_end(after, until)
                    if end is not None:
                        tasks.submit(RangeTask(self._source, after, end, self._limit))
                        self._ends.append(end)
                    after = end
                if not tasks:
                    return
                checked = _decoder.decode((await tasks.take())[1])
                found.add_parts(checked.findings)
                for part in checked.walked:
                    yield part

    async def check_summaries(self, found: Findings) -> None:
        """Check the skip index, in the ranges into which `walk` has cut the ledger."""
        await check_summaries_in_tasks(self._executor, self._source, self._ends, found, limit=self._limit)

    async def _find_end(self, after: int, until: int) -> int | None:
        async with short_transaction(self._connection, index_only=True) as cursor:
            return await find_range_end(
                cursor,
                self._tables,
                after=after,
                until=until,
                events=_TASK_EVENTS,
                size=_TASK_BYTES,
                limit=_TASK_ROWS,
            )


def check_range(task: RangeTask) -> bytes:
    """Check a range, in whatever process this is called; return what was checked and found."""
    return _encoder.encode(asyncio.run(_check(task)))


async def _check(task: RangeTask) -> _Checked:
    tables, found = tables_for(task.source.prefix), Findings(task.limit)
    async with (
        connected(task.source) as connection,
        aclosing(walk(connection, tables, found, after=task.after, until=task.until)) as parts,
    ):
        walked = [part async for part in parts]
    return _Checked(walked, found.to_parts())
