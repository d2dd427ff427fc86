"""Collect a baseline for a rebuild: fold pruned days again from their archives, and keep the others as they are."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import anyio
import msgspec
from anyio import to_thread

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.error_kinds import in_words, may_be_batch_error
from chancy_metrics.events.errors import AlreadyRunning, DamagedExport, MetricsLogError
from chancy_metrics.events.partitions import gone_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.transfer.archived import archived_batches
from chancy_metrics.plugin.rebuilds.backfill import Backfill
from chancy_metrics.plugin.transfer.archive_store import ArchiveStore
from chancy_metrics.projections.fold.accumulator import Accumulator
from chancy_metrics.projections.fold.fold import Fold
from chancy_metrics.projections.versions.collect import begin_collecting
from chancy_metrics.projections.versions.collected import Days, add_folded, add_kept, read_days
from chancy_metrics.projections.versions.left_out import left_out_positions
from chancy_metrics.projections.versions.version import Version

#: Seconds between two looks at another run.
_POLL_S = 0.1
_MISSING = "there is no archive of it"


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
    """One run that collects a baseline from archives; any run resumes what another one began."""

    def __init__(self, backfill: Backfill, connection: Connection, place: str | Path, *, patience_s: float) -> None:
        self._patience_s = patience_s
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
        total = len(days.left) + len(days.folded) + len(days.kept)
        for number, day in enumerate(days.left, total - len(days.left) + 1):
            note = f"adding {day} to baseline {base.version}, day {number} of {total}"
            self._backfill.progress.report("collecting", 0, 0, note=note)
            folded = await self._fold_archive(store, day, base)
            if isinstance(folded, str):
                await add_kept(self._connection, tables, base.version, day, folded)
            else:
                await self._add(base.version, day, folded)
                self._backfill.progress.add_archived(folded.events)
            await self._backfill.give_way()
        async with short_transaction(self._connection) as cursor:
            gone = await gone_days(cursor, tables)
        done = await self._days(base.version)
        known = {*done.folded, *done.kept}
        unused = [
            f"{name} is not needed: {day} has not left the log of this database"
            for day in sorted(store.by_day.keys() - known - gone)
            for name in store.by_day[day]
        ]
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

    async def _fold_archive(self, store: ArchiveStore, day: date, base: Version) -> Fold | str:
        """Fold the first sound archive of *day*; return why there is none otherwise."""
        why = []
        for name in store.by_day.get(day, ()):
            opened = store.opened(name)
            path = await to_thread.run_sync(opened.__enter__)
            try:
                return await self._fold_file(path, day, base)
            except DamagedExport as error:
                why.append(f"its archive {name} {error.fault}")
            except OSError as error:
                raise MetricsLogError(f"the archive {name} can't be read: {error}; the same command resumes") from error
            finally:
                await to_thread.run_sync(opened.__exit__, None, None, None)
        return "; ".join(why) or _MISSING

    async def _fold_file(self, path: Path, day: date, base: Version) -> Fold:
        async with short_transaction(self._connection) as cursor:
            lost = await left_out_positions(cursor, self._tables, base.baseline, day)
        total = Accumulator(base.horizons)
        async for batches in archived_batches(self._connection, self._tables, path, day, lost):
            lost -= {batch.position for batch in batches}
            await to_thread.run_sync(total.add_batches, batches, self._backfill.rules)
        folded = await to_thread.run_sync(total.fold)
        folded.dead.update(dict.fromkeys(lost, "it was lost before its day was archived"))
        return folded

    async def _add(self, version: int, day: date, folded: Fold) -> None:
        try:
            await add_folded(self._connection, self._tables, version, day, folded)
        except Exception as error:
            if not may_be_batch_error(error):
                raise
            raise MetricsLogError(
                f"what the rules make of {day} can't be stored ({in_words(error)}): mend the rule and raise "
                "rules_version, or take the archive of that day away, so that the baseline's figures stay"
            ) from error
