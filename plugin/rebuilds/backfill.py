"""One run that fills a version up to where the live one stands: resumable, and giving way to the live one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import anyio
from chancy import Chancy
from psycopg import sql

from chancy_metrics.events.classify import in_words, may_be_of_a_batch
from chancy_metrics.events.database import Connection, database_now_us, limit_locks, lock_limit_ms, short_transaction
from chancy_metrics.events.errors import AlreadyRunning, VersionRefused
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.folding.step_size import StepSize
from chancy_metrics.plugin.host.connection import own_connection
from chancy_metrics.plugin.host.notify import announce_by
from chancy_metrics.plugin.host.options import DAY_S, Options
from chancy_metrics.plugin.host.progress import Phase, RebuildProgress
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.versions.create import copy_baseline, make_version
from chancy_metrics.projections.versions.isolate import isolate, leave_out_next
from chancy_metrics.projections.versions.lag import live_lag
from chancy_metrics.projections.versions.left_out import LeftOut, left_out
from chancy_metrics.projections.versions.outcome import BUSY, Advanced
from chancy_metrics.projections.versions.promote import Cause, promote
from chancy_metrics.projections.versions.step import REBUILD_STEP_EVENTS, Step, read_step, write_step
from chancy_metrics.projections.versions.version import Version, live_version

#: Seconds between looks at the live version while it is behind and a filler gives way to it.
_GIVE_WAY_S = 0.1

_One = TypeVar("_One")
_Other = TypeVar("_Other")


class Backfill:
    """One run: its connection, its place, and what it tells of itself.

    Attributes:
        version: Number of the version it fills; 0 before `begin`.
        events: How many it has folded.
    """

    def __init__(
        self,
        chancy: Chancy,
        options: Options,
        connection: Connection,
        folded_by: str,
        *,
        throttle_s: float | None = None,
        on_progress: Callable[[RebuildProgress], None] | None = None,
    ) -> None:
        self.tables = tables_for(chancy.prefix)
        self.rules = options.rules
        self.version = 0
        self.events = 0
        self.started = time.monotonic()
        self._chancy = chancy
        self._connection = connection
        self._options = options
        self._folded_by = folded_by
        self._patience_s = options.sync_interval + (options.sync_interval / 2 if throttle_s is None else throttle_s)
        self._on_progress = on_progress
        self._total_events = 0
        self._aimed_at = 0
        self._steps = StepSize(REBUILD_STEP_EVENTS)

    async def live(self) -> Version:
        async with short_transaction(self._connection) as cursor:
            return await live_version(cursor, self.tables)

    async def begin(self, *, auto_promote: bool, again: bool = True, patience_s: float = 0) -> Version:
        """Make the version, or go on with the one that is there, and copy the baseline into it.

        Args:
            again: Also where the live version has these rules already.
            patience_s: How long to wait for somebody else who fills it: of one that was killed, the server
                notices the end only when it has done with what it was doing.

        Raises:
            AlreadyRunning: Somebody else fills it, or was faster.
        """
        live = await self.live()
        async with short_transaction(self._connection) as cursor:
            now_us = await database_now_us(cursor)
        kept = horizons(now_us, self._options.max_points, self._options.maximum_metric_age)
        impatient, said = time.monotonic() + patience_s, ""
        while True:
            try:
                made = await make_version(
                    self._connection,
                    self.tables,
                    self.rules,
                    kept,
                    by=self._folded_by,
                    auto_promote=auto_promote,
                    again=again,
                )
                break
            except AlreadyRunning as error:
                if time.monotonic() >= impatient:
                    raise
                if not said:
                    said = f"{error}; waits {patience_s:.0f} s for that to end"
                    self._chancy.log.info(f"metrics: {said}")
                    self.tell("waiting", 0, 0, note=said)
            await anyio.sleep(_GIVE_WAY_S)
        self.version = made.version
        self._aimed_at = made.position
        await self.aim(live.position)
        self.tell("copying", made.position, live.position)
        while await copy_baseline(self._connection, self.tables, made.version):
            self.tell("copying", made.position, live.position)
        return made

    async def fill(self) -> None:
        """Fold up to where the live version stands.

        While one step is written the next one is read and folded: the database and this process work at a time.

        Raises:
            VersionRefused: This code can't fold it that far.
        """
        async with AsyncExitStack() as stack:
            reading = await stack.enter_async_context(self._another())
            following: Step | Advanced | None = None
            while True:
                target = (await self.live()).position
                await self.aim(target)
                if reading.closed:  # libpq gives it up where it has no memory for what comes
                    reading = await stack.enter_async_context(self._another())
                try:
                    step = following if isinstance(following, Step) else await self._read(reading, target)
                    if isinstance(step, Step) and self._steps.is_tried_alone:
                        following = None
                        done = await write_step(self._connection, self.tables, step, folded_by=self._folded_by)
                    elif isinstance(step, Step):
                        done, following = await _both(
                            write_step(self._connection, self.tables, step, folded_by=self._folded_by),
                            self._read(reading, target, after=step.position),
                        )
                    else:
                        done = step
                except Exception as error:
                    following = None
                    if self._connection.closed:
                        raise
                    if self._steps.shrink(error):
                        self._chancy.log.warning(
                            f"the backfill of version {self.version} took too much for one step, goes on with "
                            f"{self._steps.events:,} events at a time: {in_words(error)}"
                        )
                        continue
                    if may_be_of_a_batch(error):
                        done = await self._narrow(target)
                    elif await self._steps.try_again(error):
                        continue
                    else:
                        done = await leave_out_next(
                            self._connection, self.tables, error, folded_by=self._folded_by, version=self.version
                        )
                self._steps.went_well(grows=False)
                if done.reason:
                    following = None
                self.events += done.events
                if done.caught_up:
                    return
                if done.reason and done.reason != BUSY:
                    raise VersionRefused(
                        f"version {self.version} stops at position {done.position}: {done.reason}; "
                        "`chancy-metrics status` says more"
                    )
                self.tell("backfilling", done.position, target)
                await self._give_way(done.position, target)

    async def take_over(self, holding: Connection, *, cause: Cause, keep_s: float = DAY_S) -> Version:
        """Let readers see the version from here on; return the one they saw. What is left out for it is logged."""
        before = await promote(
            holding,
            self._connection,
            self.tables,
            self.version,
            self.rules,
            cause=cause,
            folded_by=self._folded_by,
            keep_s=keep_s,
            announce=announce_by(self._chancy, self._folded_by),
        )
        async with short_transaction(self._connection) as cursor:
            more = await left_out(cursor, self.tables, self.version)
            if more and (more := more.beyond(await left_out(cursor, self.tables, before.version))):
                self._chancy.log.error(f"metrics: {more.sentence}, which version {before.version} did not leave out")
        return before

    async def left_out(self, version: int | None = None) -> LeftOut:
        """What a version, by default the one it fills, leaves out."""
        async with short_transaction(self._connection) as cursor:
            return await left_out(cursor, self.tables, self.version if version is None else version)

    async def aim(self, target: int) -> None:
        """Count the events up to *target* too: the live version moves on while another one is filled."""
        if target > self._aimed_at:
            self._total_events += await self._events_between(self._aimed_at, target)
            self._aimed_at = target

    def tell(self, phase: Phase, position: int, target: int, *, waits: bool = False, note: str = "") -> None:
        if self._on_progress is None:
            return
        rate = self.events / max(time.monotonic() - self.started, 1e-9)
        left = max(self._total_events - self.events, 0)
        self._on_progress(
            RebuildProgress(
                phase,
                self.version,
                position,
                target,
                self.events,
                self._total_events,
                rate,
                left / rate if rate else None,
                waits,
                note,
            )
        )

    @asynccontextmanager
    async def _another(self) -> AsyncIterator[Connection]:
        """Open one more connection, which waits for locks as long as the first one."""
        async with own_connection(self._chancy, self._folded_by) as connection:
            limit_locks(connection, lock_limit_ms(self._connection))
            yield connection

    async def _read(self, connection: Connection, until: int, *, after: int | None = None) -> Step | Advanced:
        return await read_step(
            connection,
            self.tables,
            rules=self.rules,
            version=self.version,
            after=after,
            until=until,
            step_events=self._steps.events,
        )

    async def _narrow(self, until: int) -> Advanced:
        return await isolate(
            self._connection,
            self.tables,
            folded_by=self._folded_by,
            rules=self.rules,
            version=self.version,
            until=until,
            step_events=self._steps.events,
        )

    async def _give_way(self, position: int, target: int) -> None:
        """Wait while the live version is behind, unless nobody folds it."""
        while True:
            async with short_transaction(self._connection, index_only=True) as cursor:
                lag = await live_lag(cursor, self.tables)
            if lag.waiting_s <= self._patience_s or lag.silent_s > 2 * self._patience_s:
                return
            self.tell("backfilling", position, target, waits=True)
            await anyio.sleep(_GIVE_WAY_S)

    async def _events_between(self, after: int, until: int) -> int:
        async with short_transaction(self._connection) as cursor:
            await cursor.execute(
                sql.SQL(
                    """
                    SELECT coalesce(sum(events), 0)::bigint
                    FROM {ledger}
                    WHERE position > %(after)s
                        AND position <= %(until)s
                    """
                ).format(ledger=self.tables.ledger),
                {"after": after, "until": until},
            )
            row = await cursor.fetchone()
        return row[0] if row else 0


async def _both(one: Awaitable[_One], other: Awaitable[_Other]) -> tuple[_One, _Other | None]:
    """Wait for both also where one raises, so that neither is left at work on its connection.

    Returns:
        None for the other one where only that raised an error: what the first one did stands, and it may be done again.
    """
    first, second = await asyncio.gather(one, other, return_exceptions=True)
    if isinstance(first, BaseException):
        raise first
    if isinstance(second, Exception):
        return first, None
    if isinstance(second, BaseException):
        raise second
    return first, second
