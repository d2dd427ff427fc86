"""Fold the log again, as a version would: for `verify`, for absorbing days, and to compare with the stored points."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import date

from anyio import to_thread
from psycopg import sql

from chancy_metrics.events.batch import LogBatch
from chancy_metrics.events.database import Connection, Cursor, Transaction, short_transaction
from chancy_metrics.events.ledger import LedgerRow, chunks, naming_batches, read_ledger
from chancy_metrics.events.log import read_batches
from chancy_metrics.events.partitions import gone_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.fold.accumulator import Accumulator
from chancy_metrics.projections.fold.levels import projection_of
from chancy_metrics.projections.fold.points import Point, points_of
from chancy_metrics.projections.rollups.read import read_projection, read_worker_cells
from chancy_metrics.projections.rules.rule_set import BUILT_IN, RuleSet
from chancy_metrics.projections.versions.version import Version, live_version

#: Ledger rows read at once.
PAGE = 2_000


@asynccontextmanager
async def log_snapshot(connection: Connection, tables: Tables) -> AsyncIterator[Cursor]:
    """Open a REPEATABLE READ transaction during which no day of the log is detached; it does not block appends."""
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        # Before the snapshot is taken: a day detached after it would be missing from the log and not in the baseline.
        await cursor.execute(sql.SQL("LOCK TABLE ONLY {log} IN ACCESS SHARE MODE").format(log=tables.log))
        yield cursor


async def replay(
    connection: Connection, tables: Tables, rules: RuleSet = BUILT_IN, *, until: int | None = None
) -> list[Point]:
    """Return the points of the baseline and the whole log, folded again up to the live version's position (or *until*).

    Reads in one snapshot; memory grows with the points, not with the events. Leaves out points below the live
    version's horizons, and its dead letters.
    """
    async with log_snapshot(connection, tables) as cursor:
        version = await live_version(cursor, tables)
        end = version.position if until is None else until
        total = Accumulator(version.horizons)
        await to_thread.run_sync(total.add, await read_worker_cells(cursor, tables, version.baseline, version.horizons))
        await replay_into(total, lambda: nullcontext(cursor), tables, rules, version, until=end)
    return points_of(projection_of(total.fold(), version.horizons), version.horizons)


async def replay_into(
    total: Accumulator,
    transaction: Transaction,
    tables: Tables,
    rules: RuleSet,
    version: Version,
    *,
    after: int = 0,
    until: int,
    day: date | None = None,
) -> None:
    """Add the log's batches past position *after* and up to *until* to *total*, as *version* would fold them.

    Leaves out the version's dead letters and the days that are in the baseline.

    Args:
        transaction: Opens the transaction that each chunk is read in; folding happens after it.
        day: Only batches of this day of the log.
    """
    while True:
        async with transaction() as cursor:
            gone = await gone_days(cursor, tables)
            page = await read_ledger(cursor, tables, after=after, limit=PAGE, until=until)
        if not page:
            return
        after = page[-1].position
        rows = [row for row in page if row.batch_id.day not in gone and day in (None, row.batch_id.day)]
        await add_rows(total, transaction, tables, rules, version, rows)


async def add_rows(
    total: Accumulator,
    transaction: Transaction,
    tables: Tables,
    rules: RuleSet,
    version: Version,
    rows: Sequence[LedgerRow],
) -> None:
    """Add the batches at *rows*, in ascending order, to *total*: read a chunk in a transaction, then fold it.

    Raises:
        OutOfMemory: There is too little memory for a chunk; the message names it.
    """
    for chunk in chunks(rows):
        with naming_batches(chunk):
            async with transaction() as cursor:
                batches = await read_alive(cursor, tables, version, chunk)
            await to_thread.run_sync(total.add_batches, batches, rules)
        del batches  # not held while the next chunk is read


async def read_alive(cursor: Cursor, tables: Tables, version: Version, rows: Sequence[LedgerRow]) -> list[LogBatch]:
    """Return the batches at *rows*, in ascending order, but for the version's dead letters and rows that are lost.

    The rules that failed on a batch are named in its `without`.
    """
    left_out = await read_left_out(cursor, tables, version.version, rows[0].position, rows[-1].position)
    return await read_without(cursor, tables, rows, left_out)


async def read_left_out(cursor: Cursor, tables: Tables, version: int, first: int, last: int) -> list[tuple[int, str]]:
    """Return position and rule of each dead letter of *version* from *first* to *last*; rule "" is the batch itself."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT position, rule
            FROM {dead}
            WHERE version = %(version)s
                AND position BETWEEN %(first)s AND %(last)s
            """
        ).format(dead=tables.dead_letters),
        {"version": version, "first": first, "last": last},
    )
    return [(position, rule) for position, rule in await cursor.fetchall()]


async def read_without(
    cursor: Cursor, tables: Tables, rows: Sequence[LedgerRow], left_out: Iterable[tuple[int, str]]
) -> list[LogBatch]:
    """Return the batches at *rows*, in ascending order, as `read_alive` does, but for what *left_out* names."""
    without: dict[int, set[str]] = {}
    for position, rule in left_out:
        without.setdefault(position, set()).add(rule)
    wanted = [(row.position, row.batch_id) for row in rows if "" not in without.get(row.position, ())]
    batches = await read_batches(cursor, tables, wanted) if wanted else []
    return [
        batch._replace(without=frozenset(without[batch.position])) if batch.position in without else batch
        for batch in batches
    ]


async def stored(connection: Connection, tables: Tables) -> list[Point]:
    """Return the points of the live version."""
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        version = await live_version(cursor, tables)
        projection = await read_projection(cursor, tables, version.version, version.horizons)
    return points_of(projection, version.horizons)
