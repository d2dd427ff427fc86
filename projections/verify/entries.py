"""Check ranges of ledger entries one by one: gaps, the hash chain, and each batch's row and payload in the log."""

from __future__ import annotations

from collections.abc import Sequence, Set
from datetime import date
from typing import NamedTuple

from psycopg import sql

from chancy_metrics.events.batch import BatchId, LogRow
from chancy_metrics.events.chain import chain_fault, payload_fault
from chancy_metrics.events.codec import decode
from chancy_metrics.events.database import Cursor
from chancy_metrics.events.errors import DamagedBatch, UnknownCodec
from chancy_metrics.events.humanize import counted
from chancy_metrics.events.ledger import LedgerRow
from chancy_metrics.events.log import read_log_rows, read_whole_rows
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.findings import Check, Findings


class _Entry(NamedTuple):
    """A ledger entry, with the hash of the entry before it.

    Attributes:
        before: Hash of the preceding position; None where the ledger has none.
        last_before: The last position before a gap; None without a gap and at the beginning of the ledger.
    """

    position: int
    batch_id: BatchId
    events: int
    size_bytes: int
    chain: bytes
    before: bytes | None
    last_before: int | None


class _Days(NamedTuple):
    """Days in the log, and days that have left it."""

    raw: set[date]
    gone: set[date]


async def check_entries(
    cursor: Cursor, tables: Tables, version: int, rows: Sequence[LedgerRow], found: Findings
) -> None:
    """Check that each entry follows the one before it, and that its hash covers its row in the log.

    Rows that retention has removed can't be hashed again: the chain continues from the ledger's hash. A lost row is
    no finding once its dead letter in *version* is given up.
    """
    known = await _days(cursor, tables)
    entries = await _entries(cursor, tables, [row.position for row in rows])
    in_log = await read_log_rows(cursor, tables, [entry.batch_id for entry in entries])
    days = await _days(cursor, tables, known.gone)
    given_up = await _given_up(cursor, tables, version, rows)
    for entry in entries:
        _check_entry(entry, in_log.get(entry.batch_id), days, entry.position in given_up, found)


class Unchecked(NamedTuple):
    """Ledger entries with their log rows and payloads, read and not yet checked."""

    entries: list[_Entry]
    in_log: dict[BatchId, tuple[LogRow, bytes]]
    days: _Days


async def read_unchecked(cursor: Cursor, tables: Tables, rows: Sequence[LedgerRow]) -> Unchecked:
    """Read these entries for `check_batches`."""
    known = await _days(cursor, tables)
    entries = await _entries(cursor, tables, [row.position for row in rows])
    in_log = await read_whole_rows(cursor, tables, [entry.batch_id for entry in entries])
    return Unchecked(entries, in_log, await _days(cursor, tables, known.gone))


def check_batches(unchecked: Unchecked, found: Findings) -> tuple[int, int]:
    """Check what `check_entries` does, and each payload: its sha256 and its number of events.

    Batches that are given up are found too.

    Returns:
        How many batches were hashed, which are those in the log, and how many events they have.
    """
    batches = events = 0
    for entry in unchecked.entries:
        row, payload = unchecked.in_log.get(entry.batch_id, (None, b""))
        _check_entry(entry, row, unchecked.days, False, found)
        if row is not None and entry.batch_id.day in unchecked.days.raw:
            batches, events = batches + 1, events + entry.events
            if entry.size_bytes != len(payload):
                text = f"the ledger says {entry.size_bytes} bytes, the log has {len(payload)}"
                found.add("ledger", f"position {entry.position}", text, scale="position", at=entry.position)
            if fault := _payload_fault(row, payload):
                found.add("payload", f"position {entry.position}", fault, scale="position", at=entry.position)
    return batches, events


def _check_entry(entry: _Entry, row: LogRow | None, days: _Days, is_given_up: bool, found: Findings) -> None:
    def add(check: Check, text: str) -> None:
        found.add(check, f"position {entry.position}", text, scale="position", at=entry.position)

    day = entry.batch_id.day
    _check_gap(entry, days, found)
    if day in days.gone:
        return
    if day not in days.raw:
        add("log", f"its day {day} is not in the log, and retention did not remove it")
    elif row is None:
        if not is_given_up:
            add("log", f"its row of {day} is not in the log")
    else:
        if row.events != entry.events:
            add("ledger", f"the ledger says {counted(entry.events, 'event')}, the log has {row.events}")
        before = b"" if entry.position == 1 else entry.before
        if before is not None and (fault := chain_fault(before, entry.position, row, entry.chain)):
            add("chain", fault)


def _check_gap(entry: _Entry, days: _Days, found: Findings) -> None:
    if entry.before is not None or entry.position == 1:
        return
    if entry.last_before is None and entry.batch_id.day in days.gone:
        return  # retention removed the entries before it
    first, last = (entry.last_before or 0) + 1, entry.position - 1
    # Without a spot: only a run over the whole ledger covers it again.
    if first == last:
        found.add("ledger", f"position {first}", "it is missing", scale="position")
    else:
        found.add("ledger", f"positions {first} to {last}", "they are missing", scale="position")


def _payload_fault(row: LogRow, payload: bytes) -> str:
    try:
        decoded = decode(row.codec, payload, row.sha256, row.events)
    except UnknownCodec:
        return payload_fault(row, payload)
    except DamagedBatch as error:
        return str(error)
    if (times := decoded.times()) != (row.first_us, row.last_us):
        return (
            f"its events are from {_moment(times[0])} to {_moment(times[1])}, its row says from {_moment(row.first_us)}"
            f" to {_moment(row.last_us)}, and searches use the latter"
        )
    faults = decoded.jobs.meta_faults() if decoded.jobs is not None else {}
    if not faults:
        return ""
    index, fault = next(iter(faults.items()))
    others = f", and that of {len(faults) - 1} more" if len(faults) > 1 else ""
    return f"the kept meta of event {index}{others} can't be read: {fault}"


def _moment(at_us: int | None) -> str:
    return "never" if at_us is None else f"{at_us} us"


async def _days(cursor: Cursor, tables: Tables, gone: Set[date] = frozenset()) -> _Days:
    """Return what days are now; those that were *gone* before stay so, even where clean-up has deleted their rows.

    Call it after reading the rows, so that days that left meanwhile count as gone.
    """
    await cursor.execute(sql.SQL("SELECT day, state IN ('absorbed', 'gone') FROM {days}").format(days=tables.days))
    rows = await cursor.fetchall()
    return _Days({day for day, is_gone in rows if not is_gone}, {day for day, is_gone in rows if is_gone} | gone)


async def _entries(cursor: Cursor, tables: Tables, positions: Sequence[int]) -> list[_Entry]:
    await cursor.execute(
        sql.SQL(
            """
            SELECT o.position, o.day, o.producer, o.sequence, o.events, o.bytes, o.chain, b.chain,
                CASE WHEN b.position IS NULL THEN (
                    SELECT max(e.position) FROM {ledger} e WHERE e.position < o.position
                ) END
            FROM {ledger} o
            LEFT JOIN {ledger} b
                ON b.position = o.position - 1
                AND b.position BETWEEN %(first)s - 1 AND %(last)s -- or the whole ledger would be read for a page
            WHERE o.position = ANY(%(positions)s)
            ORDER BY o.position
            """
        ).format(ledger=tables.ledger),
        {"positions": list(positions), "first": min(positions), "last": max(positions)},
    )
    return [_Entry(row[0], BatchId(*row[1:4]), *row[4:]) for row in await cursor.fetchall()]


async def _given_up(cursor: Cursor, tables: Tables, version: int, rows: Sequence[LedgerRow]) -> set[int]:
    await cursor.execute(
        sql.SQL(
            """
            SELECT position
            FROM {dead}
            WHERE version = %(version)s
                AND position BETWEEN %(first)s AND %(last)s
                AND rule = ''
                AND discarded_at IS NOT NULL
            """
        ).format(dead=tables.dead_letters),
        {"version": version, "first": rows[0].position, "last": rows[-1].position},
    )
    return {row[0] for row in await cursor.fetchall()}
