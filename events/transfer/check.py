"""Check the ledger entries of an export against their hash chain before they are imported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path

from chancy_metrics.events.chain import chain_fault, payload_fault
from chancy_metrics.events.errors import ImportRefused
from chancy_metrics.events.ledger import PAGE, LedgerEntry
from chancy_metrics.events.transfer.frames import Batch, Frame, Gone, entry_of

#: Bytes of payloads in a chunk, or one batch.
CHUNK_BYTES = 4 << 20


def checked_entries(
    frames: Iterable[Frame], after: int, chain: bytes, gone: set[date], path: Path
) -> Iterator[list[LedgerEntry]]:
    """Yield the entries past position *after* in chunks of bounded size, each entry checked against the previous hash.

    Raises:
        ImportRefused: At the first entry that was changed or is missing, after all entries before it were yielded.
    """
    chunk: list[LedgerEntry] = []
    size = 0
    last = 0
    for frame in frames:
        if not isinstance(frame, Gone | Batch):
            continue
        entry = entry_of(frame)
        if entry.position <= after:
            if entry.position == after and entry.chain != chain:
                raise ImportRefused(
                    f"the log of this database is not the beginning of {path}: at position {after} they differ"
                )
            last = entry.position
            continue
        if last < after or (fault := _fault(entry, last, chain, gone)):
            if chunk:
                yield chunk
            raise ImportRefused(
                f"position {entry.position} of {path} is not what was written: "
                f"{fault if last >= after else f'it has no position {after}'}; nothing is taken from there on"
            )
        chunk.append(entry)
        size += len(entry.payload)
        last, chain = entry.position, entry.chain
        if len(chunk) == PAGE or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
    if last < after:
        raise ImportRefused(f"{path} ends at position {last}, and position {after} is in this database already")


def _fault(entry: LedgerEntry, last: int, chain: bytes, gone: set[date]) -> str:
    """Return what is wrong with an entry that follows position *last* with hash *chain*; "" if nothing."""
    if last and entry.position != last + 1:
        return f"position {last + 1} is missing before it"
    if entry.row is None:
        return "" if entry.batch_id.day in gone else "its batch is missing"
    if entry.batch_id.day in gone:
        return f"it has a batch of {entry.batch_id.day}, which the file says is gone"
    if entry.position > 1 and not last:
        return "the hash before it is missing"
    if entry.events != entry.row.events:
        return f"its ledger row says {entry.events} events, its batch {entry.row.events}"
    return chain_fault(chain, entry.position, entry.row, entry.chain) or payload_fault(entry.row, entry.payload)
