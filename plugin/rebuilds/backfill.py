"""Backfill a new version from the log up to the live version's position, giving way to live folding."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import anyio
from chancy import Chancy

from chancy_metrics.events.database import Connection, database_now_us, limit_locks, lock_limit_ms, short_transaction
from chancy_metrics.events.error_kinds import in_words, may_be_batch_error
from chancy_metrics.events.errors import AlreadyRunning, VersionRefused
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.folding.step_size import StepSize
from chancy_metrics.plugin.host.connection import own_connection
from chancy_metrics.plugin.host.notify import announce_by
from chancy_metrics.plugin.host.options import DAY_S, Options
from chancy_metrics.plugin.host.progress import RebuildProgress
from chancy_metrics.plugin.rebuilds.ahead import BACKFILL_EVENTS, Folder, FoldHere, read_ahead
from chancy_metrics.plugin.rebuilds.progress import Progress
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.versions.copy_baseline import copy_baseline
from chancy_metrics.projections.versions.create import make_version
from chancy_metrics.projections.versions.isolate import isolate, leave_out_next
from chancy_metrics.projections.versions.lag import live_lag
from chancy_metrics.projections.versions.left_out import LeftOut, left_out
from chancy_metrics.projections.versions.outcome import Advanced, Outcome
from chancy_metrics.projections.versions.promote import Cause, promote
from chancy_metrics.projections.versions.step import REBUILD_STEP_EVENTS, Step, read_step, write_step
from chancy_metrics.projections.versions.version import Version, live_version

#: Seconds between two checks while this run waits for the live version, or for another run to end.
_POLL_S = 0.1

_One = TypeVar("_One")
_Other = TypeVar("_Other")


class Backfill:
    """One run that backfills a version, on the caller's connection; any run can resume what another one began.

    Args:
        folder: Folds the ledger's ranges; by default a thread of this process does.

    Attributes:
        version: Number of the version; 0 before `begin`, unless one was given.
        progress: Counts what this run has folded, and reports it.
    """

    def __init__(
        self,
        chancy: Chancy,
        options: Options,
        connection: Connection,
        folded_by: str,
        *,
        version: int = 0,
        throttle_s: float | None = None,
        folder: Folder | None = None,
        on_progress: Callable[[RebuildProgress], None] | None = None,
    ) -> None:
        self.tables = tables_for(chancy.prefix)
        self.rules = options.rules
        self.version = version
        self.progress = Progress(connection, self.tables, on_progress, version)
        self._chancy = chancy
        self._connection = connection
        self._options = options
        self.run_name = folded_by
        self._patience_s = options.sync_interval + (options.sync_interval / 2 if throttle_s is None else throttle_s)
        self._folder = folder or FoldHere(self.tables, options.rules)
        self._steps = StepSize(BACKFILL_EVENTS)

    async def read_live(self) -> Version:
        async with short_transaction(self._connection) as cursor:
            return await live_version(cursor, self.tables)

    async def kept_horizons(self) -> dict[str, int]:
        """Return resolution -> start of the oldest bucket that the settings keep now, seconds."""
        async with short_transaction(self._connection) as cursor:
            now_us = await database_now_us(cursor)
        return horizons(now_us, self._options.max_points, self._options.maximum_metric_age)

    async def begin(
        self, *, auto_promote: bool, again: bool = True, patience_s: float = 0, collected: int | None = None
    ) -> None:
        """Create the version, or resume the one that is there, and copy the baseline into it.

        Args:
            again: Also if the live version has these rules already.
            patience_s: Seconds to wait for another run that backfills it. If that run was killed, the server notices
                only after the statement it was executing.
            collected: Number of a baseline that was made from archives, to begin with; the live version's if None.

        Raises:
            VersionRefused: The version that is there began with another baseline.
            AlreadyRunning: Another run backfills it, or was faster.
        """
        live = await self.read_live()
        kept = await self.kept_horizons()
        made = await self._claim_version(
            kept, auto_promote=auto_promote, again=again, patience_s=patience_s, collected=collected
        )
        self.version = made.version
        self.progress.begin(made)
        await self.progress.count_to(live.position)
        self.progress.report("copying", made.position, live.position)
        while await copy_baseline(self._connection, self.tables, made.version):
            self.progress.report("copying", made.position, live.position)

    async def run(self) -> None:
        """Fold up to the live version's position.

        The next range is read and folded while the one before it is written, so database and process work at once.

        Raises:
            VersionRefused: This code can't fold it that far.
        """
        async with AsyncExitStack() as stack:
            reading = await stack.enter_async_context(self._open_reader())
            ahead: Step | None = None
            while True:
                target = (await self.read_live()).position
                await self.progress.count_to(target)
                if reading.closed:  # libpq closes it if it has no memory for a result
                    reading = await stack.enter_async_context(self._open_reader())
                try:
                    done, ahead = await self._take_step(reading, target, ahead)
                except Exception as error:
                    ahead = None
                    recovered = await self._recover(error, target)
                    if recovered is None:
                        continue
                    done = recovered
                self._steps.went_well(grows=False)
                self.progress.events += done.events
                if done.caught_up:
                    return
                if done.outcome is Outcome.REFUSED:
                    raise VersionRefused(
                        f"version {self.version} stops at position {done.position}: {done.reason}; "
                        "`chancy-metrics status` says more"
                    )
                self.progress.report("backfilling", done.position, target)
                await self.give_way(done.position, target)

    async def promote(self, holding: Connection, *, cause: Cause, keep_s: float = DAY_S) -> None:
        """Make the version the live one. What it leaves out and the replaced version did not is logged."""
        before = await promote(
            holding,
            self._connection,
            self.tables,
            self.version,
            self.rules,
            cause=cause,
            folded_by=self.run_name,
            keep_s=keep_s,
            announce=announce_by(self._chancy, self.run_name),
        )
        async with short_transaction(self._connection) as cursor:
            more = await left_out(cursor, self.tables, self.version)
            if more and (more := more.beyond(await left_out(cursor, self.tables, before.version))):
                self._chancy.log.error(f"metrics: {more.sentence}, which version {before.version} did not leave out")

    async def left_out(self, version: int | None = None) -> LeftOut:
        """Return what a version, by default the one of this run, leaves out."""
        async with short_transaction(self._connection) as cursor:
            return await left_out(cursor, self.tables, self.version if version is None else version)

    async def _claim_version(
        self, kept: dict[str, int], *, auto_promote: bool, again: bool, patience_s: float, collected: int | None
    ) -> Version:
        """Create or resume the version; wait up to *patience_s* seconds for another run of it to end."""
        until, is_reported = time.monotonic() + patience_s, False
        while True:
            try:
                return await make_version(
                    self._connection,
                    self.tables,
                    self.rules,
                    kept,
                    by=self.run_name,
                    auto_promote=auto_promote,
                    again=again,
                    collected=collected,
                )
            except AlreadyRunning as error:
                if time.monotonic() >= until:
                    raise
                if not is_reported:
                    note = f"{error}; waits {patience_s:.0f} s for that to end"
                    self._chancy.log.info(f"metrics: {note}")
                    self.progress.report("waiting", 0, 0, note=note)
                    is_reported = True
            await anyio.sleep(_POLL_S)

    async def _take_step(self, reading: Connection, target: int, ahead: Step | None) -> tuple[Advanced, Step | None]:
        """Write *ahead*, or else the next range, and read the range after it on *reading* meanwhile.

        Returns:
            What the step did, and the range read meanwhile; None if there is none, or nothing was written before it.
        """
        step = await self._read(reading, target) if ahead is None else ahead
        if isinstance(step, Advanced):
            return step, None
        writing = write_step(self._connection, self.tables, step, folded_by=self.run_name)
        if self._steps.is_tried_alone:
            return await writing, None
        done, following = await _both(writing, self._read(reading, target, after=step.position))
        return done, following if isinstance(following, Step) and done.outcome is Outcome.FOLDED else None

    async def _recover(self, error: Exception, target: int) -> Advanced | None:
        """Narrow a failed step down to the batch that fails; None to take the step again, smaller or after a pause.

        Raises *error* if another try can't help.
        """
        if self._connection.closed:
            raise error
        if self._steps.shrink(error):
            self._chancy.log.warning(
                f"the backfill of version {self.version} took too much for one step, goes on with "
                f"{self._steps.events:,} events at a time: {in_words(error)}"
            )
            return None
        if may_be_batch_error(error):
            return await self._narrow(target)
        if await self._steps.try_again(error):
            return None
        return await leave_out_next(self._connection, self.tables, error, folded_by=self.run_name, version=self.version)

    @asynccontextmanager
    async def _open_reader(self) -> AsyncIterator[Connection]:
        """Open a second connection, with the lock limit of the first one."""
        async with own_connection(self._chancy, self.run_name) as connection:
            limit_locks(connection, lock_limit_ms(self._connection))
            yield connection

    async def _read(self, connection: Connection, until: int, *, after: int | None = None) -> Step | Advanced:
        if not self._steps.is_tried_alone:
            step = await read_ahead(
                self._folder,
                connection,
                self.tables,
                self.rules,
                self.version,
                after=after,
                until=until,
                step_events=self._steps.events,
            )
            if step is not None:
                return step
        return await read_step(
            connection,
            self.tables,
            rules=self.rules,
            version=self.version,
            after=after,
            until=until,
            step_events=min(self._steps.events, REBUILD_STEP_EVENTS),
        )

    async def _narrow(self, until: int) -> Advanced:
        return await isolate(
            self._connection,
            self.tables,
            folded_by=self.run_name,
            rules=self.rules,
            version=self.version,
            until=until,
            step_events=min(self._steps.events, REBUILD_STEP_EVENTS),
        )

    async def give_way(self, position: int = 0, target: int = 0) -> None:
        """Wait while the live version is behind, unless no process folds it."""
        while True:
            async with short_transaction(self._connection, index_only=True) as cursor:
                lag = await live_lag(cursor, self.tables)
            if lag.waiting_s <= self._patience_s or lag.silent_s > 2 * self._patience_s:
                return
            self.progress.report("backfilling", position, target, waits=True)
            await anyio.sleep(_POLL_S)


async def _both(one: Awaitable[_One], other: Awaitable[_Other]) -> tuple[_One, _Other | None]:
    """Wait for both even if one raises, so that neither goes on using its connection.

    Returns:
        None for the other one if only that failed: the result of the first one stands, and the other can be repeated.
    """
    first, second = await asyncio.gather(one, other, return_exceptions=True)
    if isinstance(first, BaseException):
        raise first
    if isinstance(second, Exception):
        return first, None
    if isinstance(second, BaseException):
        raise second
    return first, second
