"""Read the archive of a day, and check each of its entries against the ledger before anything in it is believed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Set
from datetime import date
from pathlib import Path

from anyio import to_thread
from psycopg import sql

from chancy_metrics.events.batch import LogBatch
from chancy_metrics.events.chain import chain_fault, payload_fault
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.errors import DamagedExport
from chancy_metrics.events.facts import bounded_worker
from chancy_metrics.events.ledger import PAGE, LedgerEntry, read_entries
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.transfer.file import check_whole, read_frames
from chancy_metrics.events.transfer.frames import Batch, Frame, Gone, Header, entry_of

#: Largest chunk: entries, which are read from the ledger with the one before them, events, and bytes of payload.
_ENTRIES, _EVENTS, _BYTES = PAGE - 1, 50_000, 16 << 20


async def archived_batches(
    connection: Connection, tables: Tables, path: Path, day: date, lost: Set[int]
) -> AsyncIterator[list[LogBatch]]:
    """Yield the batches of *day* in its archive, in chunks of bounded size, each checked against the ledger.

    Nothing of the day is proven complete before the last chunk was yielded.

    Args:
        lost: Positions of batches that were missing when the day was archived, as is known.

    Raises:
        DamagedExport: The file was changed or cut short, is that of another day or log, or lacks a batch.
        OSError: It can't be read.
    """
    await to_thread.run_sync(check_whole, path)
    frames = read_frames(path)
    header = await to_thread.run_sync(next, frames)
    if not isinstance(header, Header) or header.day != day:
        of = header.day if isinstance(header, Header) and header.day else "a whole log"
        raise DamagedExport(f"is an export of {of}, not of {day}", where=str(path))
    chunks = _chunks(frames)
    found, chain, last = 0, b"", 0
    while chunk := await to_thread.run_sync(next, chunks, None):
        first = chunk[0].position
        if first <= last:
            raise DamagedExport(f"has position {first} after {last}", where=str(path))
        async with short_transaction(connection, index_only=True) as cursor:
            page = await read_entries(cursor, tables, after=first - 2, until=chunk[-1].position, limit=len(chunk) + 1)
        ledger = {entry.position: entry for entry in page}
        try:
            batches, matched = await to_thread.run_sync(_checked, chunk, ledger, chain, day, lost)
        except DamagedExport as error:
            raise DamagedExport(error.fault, where=str(path)) from error
        found, chain, last = found + matched, chunk[-1].chain, chunk[-1].position
        if batches:
            yield batches
    async with short_transaction(connection) as cursor:
        await cursor.execute(
            sql.SQL("SELECT count(*) FROM {ledger} WHERE day = %(day)s").format(ledger=tables.ledger), {"day": day}
        )
        row = await cursor.fetchone()
    assert row is not None
    if row[0] != found:
        raise DamagedExport(f"has {found:,} of the {row[0]:,} batches that {day} has in the ledger", where=str(path))


def _chunks(frames: Iterator[Frame]) -> Iterator[list[LedgerEntry]]:
    chunk: list[LedgerEntry] = []
    events = size = 0
    for frame in frames:
        if isinstance(frame, Gone | Batch):
            entry = entry_of(frame)
            chunk.append(entry)
            events, size = events + entry.events, size + len(entry.payload)
            if len(chunk) == _ENTRIES or events >= _EVENTS or size >= _BYTES:
                yield chunk
                chunk, events, size = [], 0, 0
    if chunk:
        yield chunk


def _checked(
    entries: list[LedgerEntry], ledger: Mapping[int, LedgerEntry], chain: bytes, day: date, lost: Set[int]
) -> tuple[list[LogBatch], int]:
    """Return the batches of *day*, and how many of its positions these entries have.

    Args:
        chain: Hash of the entry before the first one, by the file; the ledger's counts where it has that.
    """
    batches, matched, last = [], 0, 0
    for entry in entries:
        position, row = entry.position, entry.row
        if position <= last:
            raise DamagedExport(f"has position {position} after {last}")
        if entry.batch_id.day == day:
            there, before = ledger.get(position), ledger.get(position - 1)
            if there is None:
                raise DamagedExport(f"has position {position}, which is not in the ledger")
            if (there.batch_id, there.events, there.chain) != (entry.batch_id, entry.events, entry.chain):
                raise DamagedExport(f"is of another log, or was changed: the ledger has another batch at {position}")
            matched += 1
            if row is not None:
                fault = chain_fault(chain if before is None else before.chain, position, row, there.chain)
                if fault := fault or payload_fault(row, entry.payload):
                    raise DamagedExport(f"was changed at position {position}: {fault}")
                worker = bounded_worker(row.worker)
                batches.append(
                    LogBatch(
                        *(position, row.producer, row.sequence, worker, row.appended_us, row.events),
                        *(row.codec, entry.payload, row.sha256),
                    )
                )
            elif position not in lost:
                raise DamagedExport(f"lacks the batch at position {position}, which the baseline has")
        elif row is not None:
            raise DamagedExport(f"has a batch of {entry.batch_id.day} at position {position}")
        last, chain = position, entry.chain
    return batches, matched
