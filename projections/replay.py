"""The log folded once more, and what that differs in from what is stored: the one check behind every check."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import date

import numpy as np
from anyio import to_thread
from psycopg import AsyncConnection, AsyncCursor, sql
from psycopg.rows import TupleRow

from chancy_metrics.events.facts import Series
from chancy_metrics.events.ledger import LedgerRow, naming, pieces, read_ledger
from chancy_metrics.events.log import LogBatch, Transaction, read_batches, short_transaction
from chancy_metrics.events.partitions import gone_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.cells import ALL_WORKERS, Cells, concatenate, kept_of, merge, select
from chancy_metrics.projections.fold import Fold, fold
from chancy_metrics.projections.points import Point, points_of
from chancy_metrics.projections.rules import BUILT_IN, RuleSet
from chancy_metrics.projections.stored import read_cells
from chancy_metrics.projections.versions import OPENING, Version, live_version

#: Ledger rows read at once: with a piece of them what a replay holds beside its points.
PAGE = 2_000
#: Rows that wait until they are merged: merging each piece at once would sort all points again every time.
_WAITING_ROWS = 50_000


@asynccontextmanager
async def log_snapshot(connection: AsyncConnection[TupleRow], tables: Tables) -> AsyncIterator[AsyncCursor[TupleRow]]:
    """Open a REPEATABLE READ transaction under which no day of the log is detached; appends do not feel it."""
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        # Before the snapshot is taken: a day detached after it would be missing from the log and not in the opening.
        await cursor.execute(sql.SQL("LOCK TABLE ONLY {log} IN ACCESS SHARE MODE").format(log=tables.log))
        yield cursor


async def replay(
    connection: AsyncConnection[TupleRow], tables: Tables, rules: RuleSet = BUILT_IN, *, until: int | None = None
) -> list[Point]:
    """Fold the whole log again upon the opening, up to the live version's position (or *until*).

    Reads in one snapshot; memory grows with the points, not with the events. Leaves out what lies below the live
    version's horizons, and its dead letters.
    """
    async with log_snapshot(connection, tables) as cursor:
        version = await live_version(cursor, tables)
        end = version.position if until is None else until
        total = Sum(version.horizons)
        await to_thread.run_sync(total.add, await read_cells(cursor, tables, OPENING, version.horizons))
        await replay_into(total, lambda: nullcontext(cursor), tables, rules, version, until=end)
    return points_of(total.fold(), version.horizons)


async def replay_into(
    total: Sum,
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

    Leaves out the version's dead letters and what is in the opening.

    Args:
        transaction: What is read is read in one that is folded outside of, unless it hands out one that stays open.
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
    total: Sum,
    transaction: Transaction,
    tables: Tables,
    rules: RuleSet,
    version: Version,
    rows: Sequence[LedgerRow],
) -> None:
    """Add the batches at *rows*, in ascending order, to *total*: read a piece in a transaction, fold it behind that.

    Raises:
        OutOfMemory: There is too little memory for a piece, which it names.
    """
    for piece in pieces(rows):
        with naming(piece):
            async with transaction() as cursor:
                batches = await read_alive(cursor, tables, version, piece)
            await to_thread.run_sync(total.add_batches, batches, rules)
        del batches  # not held while the next piece is read


async def read_alive(
    cursor: AsyncCursor[TupleRow], tables: Tables, version: Version, rows: Sequence[LedgerRow]
) -> list[LogBatch]:
    """Return the batches at *rows*, in ascending order, without what *version* leaves out of them.

    Dead letters and rows that are lost are not among them; rules that failed on one are named in its `without`.
    """
    await cursor.execute(
        sql.SQL(
            """
            SELECT position, rule
            FROM {dead}
            WHERE version = %(version)s
                AND position BETWEEN %(first)s AND %(last)s
            """
        ).format(dead=tables.dead_letters),
        {"version": version.version, "first": rows[0].position, "last": rows[-1].position},
    )
    without: dict[int, set[str]] = {}
    for position, rule in await cursor.fetchall():
        without.setdefault(position, set()).add(rule)
    places = [(row.position, row.batch_id) for row in rows if "" not in without.get(row.position, ())]
    batches = await read_batches(cursor, tables, places) if places else []
    return [
        batch._replace(without=frozenset(without[batch.position])) if batch.position in without else batch
        for batch in batches
    ]


async def stored(connection: AsyncConnection[TupleRow], tables: Tables) -> list[Point]:
    """Return what the live version holds."""
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        version = await live_version(cursor, tables)
        return points_of(await read_cells(cursor, tables, version.version, version.horizons), version.horizons)


class Sum:
    """Folds added up, in numbers of its own.

    Args:
        since: Resolution -> start of the first bucket that is kept, seconds; all by default.
        until: The same of the first bucket past the end.
    """

    def __init__(self, since: Mapping[str, int] | None = None, until: Mapping[str, int] | None = None) -> None:
        self.events = 0
        self.dead: dict[int, str] = {}
        self.failed: dict[tuple[int, str], str] = {}
        self._since = since
        self._until = until
        self._workers: dict[str, int] = {}
        self._series: dict[Series, int] = {}
        self._parts: dict[str, list[Cells]] = {}
        self.counts = Counter[str]()
        self._days = Counter[int]()

    def add(self, part: Fold) -> None:
        self.events += part.events
        self.counts.update(part.counts)
        self.dead.update(part.dead)
        self.failed.update(part.failed)
        self._days.update(part.days)
        workers = [self._workers.setdefault(name, len(self._workers) + 1) for name in part.workers]
        series = [self._series.setdefault(one, len(self._series)) for one in part.series]
        worker_numbers, series_numbers = np.array([ALL_WORKERS, *workers], np.int64), np.array(series, np.int64)
        for resolution, cells in within(part.levels, self._since, self._until).items():
            parts = self._parts.setdefault(resolution, [])
            parts.append(cells._replace(worker=worker_numbers[cells.worker], series=series_numbers[cells.series]))
            if sum(waiting.rows for waiting in parts[1:]) > max(_WAITING_ROWS, parts[0].rows):
                parts[:] = [merge(concatenate(parts))]

    def add_batches(self, batches: Sequence[LogBatch], rules: RuleSet) -> None:
        """Fold *batches* and add them."""
        self.add(fold(batches, rules))

    def fold(self) -> Fold:
        """All of it as one fold."""
        for parts in self._parts.values():
            parts[:] = [merge(concatenate(parts))]
        levels = {resolution: cells for resolution, (cells,) in self._parts.items()}
        names = list(self._workers), list(self._series)
        return Fold(self.events, *names, levels, self.counts, self.dead, self.failed, self._days)


def within(
    levels: Mapping[str, Cells], since: Mapping[str, int] | None, until: Mapping[str, int] | None
) -> dict[str, Cells]:
    """Return the cells from each resolution's first bucket to before its end; all where a bound is None."""
    kept = dict(levels) if since is None else kept_of(levels, since)
    if until is None:
        return kept
    return {resolution: select(cells, cells.bucket < until[resolution]) for resolution, cells in kept.items()}
