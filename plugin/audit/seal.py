"""Seal the ledger, and check the whole log against its hashes and against seals kept elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from datetime import UTC, datetime

import msgspec
from chancy import Chancy
from psycopg import sql

from chancy_metrics.events.chain import Seal, read_seal
from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import NO_HEAD, SchemaMissing
from chancy_metrics.events.humanize import counted
from chancy_metrics.events.partitions import days_in_log
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.events.transfer.guard import is_importing
from chancy_metrics.plugin.audit.walk import CheckInTasks, walk
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.progress import LedgerProgress
from chancy_metrics.plugin.parallel.source import check_read_dsn, proven_at, source_of
from chancy_metrics.projections.findings import Finding, Findings
from chancy_metrics.projections.rollups.soundness import check_books
from chancy_metrics.projections.verify.last_check import keep_checked
from chancy_metrics.projections.verify.ledger import check_day, check_head, check_producers, check_set_aside
from chancy_metrics.projections.verify.skip_index import check_summaries

#: Findings that are kept; further ones are only counted.
SHOWN = 100


class LogCheck(msgspec.Struct, frozen=True):
    """The outcome of a check of the whole log.

    Attributes:
        at: When it began, UTC.
        first: First position of the ledger: past 1 where clean-up has removed the beginning; 0 if it is empty.
        position: Last position when the check began.
        batches: Batches that were hashed, with *events* in all.
        carried: Positions whose batches left the log by retention; the chain continues over their stored hashes.
        seals: Seals that hold.
        found: Number of findings; `findings` has the first ones, by position.
        notes: What could not be checked, in sentences.
    """

    at: datetime
    took_s: float
    first: int
    position: int
    batches: int
    events: int
    carried: int
    seals: int
    found: int
    findings: list[Finding]
    notes: list[str]


async def seal(chancy: Chancy) -> Seal:
    """Return a seal of the ledger up to its last position. Batches without a position are not under it.

    Raises:
        MetricsLogError: The head and the ledger disagree about that position.
    """
    tables = tables_for(chancy.prefix)
    async with bounded_connection(chancy) as connection, short_transaction(connection) as cursor:
        return await read_seal(cursor, tables)


async def check(
    chancy: Chancy,
    *,
    seals: Sequence[Seal] = (),
    executor: Executor | None = None,
    read_dsn: str | None = None,
    on_progress: Callable[[LedgerProgress], None] | None = None,
) -> LogCheck:
    """Hash the whole log again and compare it with its ledger, and that with *seals*; keep the outcome for `status`.

    Reads in short transactions, in chunks of bounded size: it takes no lock that others wait for, and memory stays
    constant. Batches appended meanwhile are left for the next check.

    Args:
        seals: Kept elsewhere, in any order; `read_seals` reads them.
        executor: Runs tasks that hash ranges of the ledger; without one, this process hashes all of it.
        read_dsn: The database from which the tasks read: a replica, whose copy is then checked.
        on_progress: Called after each chunk, from the event loop.

    Raises:
        MetricsLogError: There is no metrics log, a table is locked, or *read_dsn* is no replica of it.
        WorkersLost: The processes or machines of the executor are gone.
    """
    check_read_dsn(executor, read_dsn)
    tables, started = tables_for(chancy.prefix), time.monotonic()
    found = Findings(SHOWN)
    async with bounded_connection(chancy) as connection:
        at, until, first, waiting, importing = await _begin(connection, tables)
        notes = ["an import is unfinished: only what it has imported so far was checked"] if importing else []
        if first > 1:
            notes.append(f"the ledger begins at position {first}: clean-up has removed what was before")
        if waiting:
            have, them = ("has", "it") if waiting == 1 else ("have", "them")
            unseen = f"neither the chain nor this check covers {them}"
            notes.append(f"{counted(waiting, 'batch')} {have} no position yet: {unseen}")
        in_tasks = None
        if executor is not None:
            async with short_transaction(connection) as cursor:
                source = await proven_at(cursor, tables, source_of(chancy, read_dsn))
            in_tasks = CheckInTasks(executor, source, connection, limit=SHOWN)
        parts = walk(connection, tables, found, until=until) if in_tasks is None else in_tasks.walk(found, until)
        batches = events = entries = 0
        async with aclosing(parts):
            async for part in parts:
                entries, batches, events = entries + part.entries, batches + part.batches, events + part.events
                if on_progress is not None:
                    rate = events / max(time.monotonic() - started, 1e-9)
                    on_progress(LedgerProgress(part.position, until, events, rate))
        async with short_transaction(connection) as cursor:
            holding = await _check_seals(cursor, tables, sorted(seals), first, found, notes)
            days = await days_in_log(cursor, tables)
        for day in days:
            async with short_transaction(connection) as cursor:
                await check_day(cursor, tables, day, found)
        async with short_transaction(connection) as cursor:
            await check_head(cursor, tables, found)
        async with short_transaction(connection) as cursor:
            await check_producers(cursor, tables, found)
            await check_set_aside(cursor, tables, found)
            await check_books(cursor, tables, found)
        await (check_summaries(connection, tables, found) if in_tasks is None else in_tasks.check_summaries(found))
        if why := await keep_checked(connection, tables, found, at=at, first=first, position=until, batches=batches):
            notes.append(why)
    return LogCheck(
        at=at,
        took_s=round(time.monotonic() - started, 3),
        first=first,
        position=until,
        batches=batches,
        events=events,
        carried=entries - batches,
        seals=holding,
        found=found.count,
        findings=found.kept,
        notes=notes,
    )


async def _begin(connection: Connection, tables: Tables) -> tuple[datetime, int, int, int, bool]:
    """Return the time, the last and first position, the waiting batches, and whether an import is unfinished."""
    async with short_transaction(connection) as cursor:
        await cursor.execute(
            sql.SQL(
                """
                SELECT clock_timestamp(), greatest(h.position, (SELECT max(position) FROM {ledger})),
                    (SELECT coalesce(min(position), 0) FROM {ledger}), (SELECT count(*) FROM {pending})
                        + (SELECT count(*) FROM {spill})
                FROM {head} h
                """
            ).format(head=tables.head, ledger=tables.ledger, pending=tables.pending, spill=tables.spill)
        )
        row = await cursor.fetchone()
        if row is None:
            raise SchemaMissing(NO_HEAD)
        return row[0].astimezone(UTC), row[1], row[2], row[3], await is_importing(cursor, tables)


async def _check_seals(
    cursor: Cursor,
    tables: Tables,
    seals: Sequence[Seal],
    first: int,
    found: Findings,
    notes: list[str],
) -> int:
    """Compare the ledger with *seals*, which come by position; return how many hold."""
    await cursor.execute(
        sql.SQL("SELECT position, chain FROM {ledger} WHERE position = ANY(%(positions)s)").format(
            ledger=tables.ledger
        ),
        {"positions": [one.position for one in seals]},
    )
    chains = {position: bytes(chain) for position, chain in await cursor.fetchall()}
    await cursor.execute(sql.SQL("SELECT coalesce(max(position), 0) FROM {ledger}").format(ledger=tables.ledger))
    row = await cursor.fetchone()
    last = row[0] if row else 0
    holds = 0
    held = 0
    for one in seals:
        where = f"position {one.position}"
        if one.position == 0 or chains.get(one.position) == one.chain:
            holds += 1
            held = one.position
        elif one.position > last:
            found.add(
                "head",
                where,
                f"the seal of {one.at:%Y-%m-%d %H:%M:%S %Z} is at this position, but the ledger ends at {last}: its "
                "end was cut off, or this is an older copy or another log",
            )
        elif one.position in chains:
            since = f"after position {held}, where a seal holds" if held else "somewhere up to this position"
            found.add(
                "chain",
                where,
                f"its hash differs from the seal of {one.at:%Y-%m-%d %H:%M:%S %Z}: the log was rewritten "
                f"{since}, or this is another log",
            )
        elif one.position < first:
            notes.append(
                f"the seal of position {one.position} lies before the beginning of the ledger, {first}: "
                "it can't be checked"
            )
    return holds
