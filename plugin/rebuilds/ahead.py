"""Fold ranges of the ledger for a backfill, here or in tasks, and add several up to one step worth a transaction."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Set
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from datetime import date
from functools import partial
from typing import Protocol

from anyio import to_thread

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.ledger import CHUNK_BYTES, find_range_end
from chancy_metrics.events.partitions import gone_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.parallel.fold_task import Folded, FoldTask, fold_range, read_folded
from chancy_metrics.plugin.parallel.shared_rules import SharedRules, share
from chancy_metrics.plugin.parallel.source import Source, proven_at
from chancy_metrics.plugin.parallel.tasks import Tasks
from chancy_metrics.projections.beside import run_beside
from chancy_metrics.projections.fold.accumulator import Accumulator
from chancy_metrics.projections.rules.rule_set import RuleSet
from chancy_metrics.projections.versions.step import REBUILD_STEP_EVENTS, LogRange, Step, make_step, read_range
from chancy_metrics.projections.versions.version import Version, read_version

#: Most events of a step, unless one range has more: the fewer steps, the less often a coarse bucket's row is rewritten.
BACKFILL_EVENTS = 2_000_000
#: Cells, or codes in their sketches, at which a step is large enough: bounds its transaction, and memory.
_STEP_CELLS, _STEP_CODES = 200_000, 1_000_000
#: Events that this process folds at once, unless one batch has more: what a fold takes of memory.
_HERE_EVENTS = 100_000
#: Ledger rows of a task's range at the most: what the statement that cuts it reads.
_RANGE_ROWS = 50_000


class Folder(Protocol):
    """Folds the ledger range after range."""

    async def fold_next(
        self, connection: Connection, version: Version, gone: Set[date], after: int, until: int, events: int
    ) -> Folded | None:
        """Fold the range past *after*, at most up to *until*; None where there is none.

        Args:
            connection: To the app's database.
            gone: Days that are in the baseline instead of the log.
            events: About how many events.
        """


class FoldHere:
    """Folds in a thread of this process, and reads the next range meanwhile."""

    def __init__(self, tables: Tables, rules: RuleSet) -> None:
        self._tables = tables
        self._rules = rules
        self._after = 0
        #: The range past position `_after`; None where none was read ahead.
        self._read: LogRange | None = None

    async def fold_next(
        self, connection: Connection, version: Version, gone: Set[date], after: int, until: int, events: int
    ) -> Folded | None:
        async def read_next(after: int) -> None:
            self._read = None
            async with short_transaction(connection, index_only=True) as cursor:
                read = await read_range(cursor, self._tables, after, until, min(events, _HERE_EVENTS), gone)
            if read.rows:
                self._after, self._read = after, read

        if after != self._after or self._read is None:
            await read_next(after)
        if (read := self._read) is None:
            return None
        fold = partial(read.fold, self._rules, version.horizons)
        return Folded(read.position, await run_beside(fold, partial(read_next, read.position)))


class FoldAhead:
    """Folds in tasks on an executor, as many ranges ahead as keep its workers busy.

    Those days are gone that were when the version was made: none leaves before the version is past it.
    """

    def __init__(self, tasks: Tasks[FoldTask], source: Source, tables: Tables, rules: SharedRules) -> None:
        self._tasks = tasks
        self._source = source
        self._tables = tables
        self._rules = rules
        self._next = 0
        self._end = 0

    async def fold_next(
        self, connection: Connection, version: Version, gone: Set[date], after: int, until: int, events: int
    ) -> Folded | None:
        if after != self._next:
            self._tasks.cancel()
            self._next = self._end = after
        await self._submit(connection, version, frozenset(gone), until, events)
        if not self._tasks:
            return None
        _, result = await self._tasks.take()
        folded = await to_thread.run_sync(read_folded, result)
        self._next = folded.position
        return folded

    async def _submit(
        self, connection: Connection, version: Version, gone: frozenset[date], until: int, events: int
    ) -> None:
        while self._tasks.has_room:
            async with short_transaction(connection, index_only=True) as cursor:
                end = await find_range_end(
                    cursor,
                    self._tables,
                    after=self._end,
                    until=until,
                    events=events,
                    size=CHUNK_BYTES,
                    limit=_RANGE_ROWS,
                )
                if end is None:
                    return
                source = await proven_at(cursor, self._tables, self._source, end)
            self._tasks.submit(FoldTask(source, self._rules, version.horizons, self._end, end, gone))
            self._end = end


async def read_ahead(
    folder: Folder,
    connection: Connection,
    tables: Tables,
    rules: RuleSet,
    version: int,
    *,
    after: int | None,
    until: int,
    step_events: int,
) -> Step | None:
    """Fold ranges past position *after*, by default the version's, until they are worth a transaction.

    Returns:
        The step that adds them; None where there is none, and `read_step` says why.
    """
    started_ns = time.monotonic_ns()
    async with short_transaction(connection, index_only=True) as cursor:
        mine = await read_version(cursor, tables, version)
        if mine is None or mine.refuses(rules):
            return None
        gone = await gone_days(cursor, tables)
    before = position = mine.position if after is None else after
    total = Accumulator(mine.horizons)
    while total.events < step_events and total.rows < _STEP_CELLS and total.codes < _STEP_CODES:
        events = min(step_events, REBUILD_STEP_EVENTS)
        folded = await folder.fold_next(connection, mine, gone, position, until, events)
        if folded is None or folded.position == position:
            break
        position = folded.position
        await to_thread.run_sync(total.add, folded.fold)
    if position == before:
        return None
    whole = await to_thread.run_sync(total.fold)
    return await make_step(connection, tables, version, before, position, whole, started_ns)


@asynccontextmanager
async def fold_ahead(executor: Executor, source: Source, tables: Tables, rules: RuleSet) -> AsyncIterator[FoldAhead]:
    """Fold in tasks for a block.

    Raises:
        MetricsLogError: A rule can't be imported by tasks.
    """
    shared = share(rules)
    async with Tasks(executor, fold_range) as tasks:
        yield FoldAhead(tasks, source, tables, shared)
