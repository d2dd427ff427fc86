"""Collect a baseline for a rebuild: fold pruned days again from their archives, and keep the others as they are."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import Executor
from contextlib import aclosing
from datetime import date
from pathlib import Path

import anyio
import msgspec
from anyio import to_thread

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.error_kinds import in_words, may_be_batch_error
from chancy_metrics.events.errors import AlreadyRunning, MetricsLogError
from chancy_metrics.events.partitions import gone_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.parallel.archive_task import (
    ArchivedDay,
    ArchiveTask,
    fold_archives,
    fold_archives_in_task,
    read_folded_day,
)
from chancy_metrics.plugin.parallel.shared_rules import share
from chancy_metrics.plugin.parallel.source import Source, proven_at
from chancy_metrics.plugin.parallel.tasks import Tasks
from chancy_metrics.plugin.rebuilds.backfill import Backfill
from chancy_metrics.plugin.transfer.archive_store import ArchiveStore
from chancy_metrics.projections.fold.fold import Fold
from chancy_metrics.projections.versions.collect import begin_collecting
from chancy_metrics.projections.versions.collected import Days, add_folded, add_kept, read_days
from chancy_metrics.projections.versions.imported import read_imported_day
from chancy_metrics.projections.versions.left_out import left_out_positions
from chancy_metrics.projections.versions.version import Version

#: Seconds between two looks at another run.
_POLL_S = 0.1


class KeptDay(msgspec.Struct, frozen=True):
    """A pruned day that keeps the baseline's figures, and why its archive was not taken."""

    day: date
    why: str


class Archives(msgspec.Struct, frozen=True):
    """What became of the archives that were given to a rebuild.

    Attributes:
        folded: Days that were folded again from their archives.
        kept: Pruned days without a sound archive: their figures are those that the baseline had.
        ignored: A sentence for each file that is of no pruned day.
    """

    folded: list[date]
    kept: list[KeptDay]
    ignored: list[str]


class Collection:
    """One run that collects a baseline from archives; any run resumes what another one began.

    Args:
        executor: Folds the archives in tasks, which check them against the ledger in *source*; without one, a thread
            of this process does.
    """

    def __init__(
        self,
        backfill: Backfill,
        connection: Connection,
        place: str | Path,
        *,
        patience_s: float,
        executor: Executor | None = None,
        source: Source | None = None,
    ) -> None:
        self._patience_s = patience_s
        self._executor = executor
        self._source = source
        self._backfill = backfill
        self._connection = connection
        self._tables: Tables = backfill.tables
        self._place = place

    async def run(self) -> tuple[int, Archives]:
        """Add every pruned day to a baseline; return its number, from which a version can be made.

        Each day is one transaction. A day without a sound archive is copied from the baseline in use.

        Raises:
            MetricsLogError: The archives can't be read; the next call goes on with what is left.
        """
        store = await to_thread.run_sync(ArchiveStore, self._place)
        horizons = await self._backfill.kept_horizons()
        tables = self._tables
        base = await self._begin(horizons)
        days = await self._days(base.version)
        async with aclosing(self._fold_days(store, base, days)) as results:
            async for day, folded in results:
                await self._add(base.version, day, folded)
                await self._backfill.give_way()
        async with short_transaction(self._connection) as cursor:
            gone = await gone_days(cursor, tables)
            imported = await read_imported_day(cursor, tables)
        done = await self._days(base.version)
        known = {*done.folded, *done.kept}
        unused = [
            f"{name} is not needed: {day} has not left the log of this database"
            for day in sorted(store.by_day.keys() - known - gone)
            for name in store.by_day[day]
        ]
        if imported is not None:  # no day of the log: nobody could have archived it
            done.kept.pop(imported.day, None)
        kept = [KeptDay(day, why) for day, why in sorted(done.kept.items())]
        return base.version, Archives(sorted(done.folded), kept, [*store.ignored, *unused])

    async def _begin(self, horizons: Mapping[str, int]) -> Version:
        """Claim the baseline; wait for another run to end, since the server may not know yet that it was killed."""
        until = time.monotonic() + self._patience_s
        while True:
            try:
                return await begin_collecting(
                    self._connection, self._tables, self._backfill.rules, horizons, by=self._backfill.run_name
                )
            except AlreadyRunning:
                if time.monotonic() >= until:
                    raise
            await anyio.sleep(_POLL_S)

    async def _days(self, version: int) -> Days:
        async with short_transaction(self._connection) as cursor:
            return await read_days(cursor, self._tables, version) or Days()

    async def _fold_days(
        self, store: ArchiveStore, base: Version, days: Days
    ) -> AsyncGenerator[tuple[date, Fold | str]]:
        """Yield each day that is left with the fold of its archive, or why there is none, in order."""
        added = len(days.folded) + len(days.kept)
        total = added + len(days.left)
        if self._executor is None or self._source is None:
            for number, day in enumerate(days.left, added + 1):
                self._report(base, day, number, total)
                archived = await self._archived(store, base, day)
                yield day, await fold_archives(self._connection, self._tables, self._backfill.rules, archived)
            return
        rules, source = share(self._backfill.rules), await self._proven(self._source)
        ahead = iter(days.left)
        async with Tasks(self._executor, fold_archives_in_task) as tasks:
            for number, day in enumerate(days.left, added + 1):
                while tasks.has_room and (following := next(ahead, None)) is not None:
                    tasks.submit(ArchiveTask(source, rules, await self._archived(store, base, following)))
                self._report(base, day, number, total)
                _, result = await tasks.take()
                yield day, await to_thread.run_sync(read_folded_day, result)

    async def _archived(self, store: ArchiveStore, base: Version, day: date) -> ArchivedDay:
        async with short_transaction(self._connection) as cursor:
            lost = await left_out_positions(cursor, self._tables, base.baseline, day)
        return ArchivedDay(day, store.place, tuple(store.by_day.get(day, ())), frozenset(lost), base.horizons)

    async def _proven(self, source: Source) -> Source:
        async with short_transaction(self._connection) as cursor:
            return await proven_at(cursor, self._tables, source)

    def _report(self, base: Version, day: date, number: int, total: int) -> None:
        note = f"adding {day} to baseline {base.version}, day {number} of {total}"
        self._backfill.progress.report("collecting", 0, 0, note=note)

    async def _add(self, version: int, day: date, folded: Fold | str) -> None:
        """Add the fold of a day's archive, or what the baseline in use has of it because of *folded*."""
        if isinstance(folded, str):
            await add_kept(self._connection, self._tables, version, day, folded)
            return
        try:
            await add_folded(self._connection, self._tables, version, day, folded)
        except Exception as error:
            if not may_be_batch_error(error):
                raise
            raise MetricsLogError(
                f"what the rules make of {day} can't be stored ({in_words(error)}): mend the rule and raise "
                "rules_version, or take the archive of that day away, so that the baseline's figures stay"
            ) from error
        self._backfill.progress.add_archived(folded.events)
