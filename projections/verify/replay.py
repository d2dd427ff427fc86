"""Replay a range of time from the log and compare it with the rollups, bucket by bucket."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence, Set
from contextlib import aclosing
from datetime import date
from functools import partial
from typing import NamedTuple, Protocol

from anyio import to_thread

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import Damaged
from chancy_metrics.events.ledger import LedgerRow, chunks, find_batches, read_ledger
from chancy_metrics.events.partitions import days_in_log, gone_days
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.findings import Findings, FindingsParts
from chancy_metrics.projections.fold.accumulator import Accumulator
from chancy_metrics.projections.fold.diff import diff_projections
from chancy_metrics.projections.fold.fold import Fold
from chancy_metrics.projections.fold.levels import projection_of
from chancy_metrics.projections.fold.points import NO_COMPARISON, Comparison
from chancy_metrics.projections.fold.shelves import Shelves, take_pairs
from chancy_metrics.projections.rollups.read import add_stored, stored_projection, stream_stored, stream_worker_cells
from chancy_metrics.projections.rollups.segment_soundness import check_segments
from chancy_metrics.projections.rollups.soundness import check_books, check_points
from chancy_metrics.projections.rules.rule_set import RuleSet
from chancy_metrics.projections.span import Span
from chancy_metrics.projections.verify.cache import check_cache, check_quantiles
from chancy_metrics.projections.verify.coverage import Coverage, Range, ranges_of
from chancy_metrics.projections.verify.entries import check_entries
from chancy_metrics.projections.verify.ledger import check_day, check_head, check_producers, check_set_aside
from chancy_metrics.projections.verify.rollups import check_resolutions, check_workers
from chancy_metrics.projections.verify.skip_index import check_summaries
from chancy_metrics.projections.versions.counts import count_faults, decode_counts, read_counts
from chancy_metrics.projections.versions.replay import PAGE, add_rows, log_snapshot
from chancy_metrics.projections.versions.replay_base import (
    ReplayBase,
    ReplayBaseChanged,
    read_replay_base,
    retry_while_changed,
)
from chancy_metrics.projections.versions.version import Version, live_version

#: Positions left for after the snapshot, so that the replay does not chase concurrent folds for ever.
_NEAR = 500


class ReplayedRange(NamedTuple):
    """A range of the ledger that was replayed elsewhere, up to *position*.

    Attributes:
        passed: Those of the positions asked for that are in it.
    """

    position: int
    fold: Fold
    findings: FindingsParts
    passed: list[int]


class RangeReplay(Protocol):
    """Replays ranges of the ledger in other processes or on other machines; yields them in order of position.

    In its arguments *since* is resolution -> start of the first bucket that is kept, seconds; of *watched* those
    positions are named that are in a range.
    """

    def replay(
        self, base: ReplayBase, since: Mapping[str, int], after: int, until: int, watched: Set[int]
    ) -> AsyncGenerator[ReplayedRange]:
        """Check and fold the entries past *after* and up to *until*."""

    def replay_rows(
        self, base: ReplayBase, since: Mapping[str, int], rows: Sequence[LedgerRow], watched: Set[int]
    ) -> AsyncGenerator[ReplayedRange]:
        """Check and fold the entries at *rows*, in ascending order."""

    async def check_summaries(self, found: Findings) -> None:
        """Check the skip index, as the function of that name does."""


class RangeCheck(NamedTuple):
    """The outcome of one range of time.

    Attributes:
        version: The live version.
        position: Its position.
        events: Number of events replayed.
        diff: The stored points (old) against those of the replay (new).
        covered: What was covered.
    """

    version: int
    position: int
    events: int
    diff: Comparison
    findings: Findings
    covered: Coverage

    def ranges(self) -> list[Range]:
        """The compared ranges of all resolutions, seconds."""
        return [one for name in RESOLUTIONS for one in self.covered.ranges.get(name, ())]


async def check_span(
    connection: Connection,
    tables: Tables,
    rules: RuleSet,
    span: Span,
    *,
    limit: int,
    open_positions: Set[int] = frozenset(),
    kept: Mapping[str, int] | None = None,
    elsewhere: RangeReplay | None = None,
) -> RangeCheck:
    """Replay *span* under *rules* and compare it with the live version, bucket by bucket that lies whole in it.

    The log never changes, so it is read in short transactions and folded outside of them; the rollups are read in one
    snapshot. Memory grows with the points of the span. Takes no lock that others wait for.

    Args:
        limit: Differences, and findings, that are kept; further ones are counted.
        open_positions: Positions with open faults: those that the replay passes are in `covered`.
        kept: Resolution -> start of the oldest bucket that should be kept, seconds. Where a horizon is later, the
            buckets before it are compared too.
        elsewhere: Replays the ledger instead of this process, which does what is left.

    Raises:
        VersionRefused: The live version has other rules.
        MetricsLogError: Days went into the baseline, or versions were swapped, faster than the span was replayed.
    """
    return await retry_while_changed(
        lambda: _Attempt(connection, tables, rules, span, limit, open_positions, kept, elsewhere).run(),
        "they were verified",
    )


async def check_global_state(connection: Connection, tables: Tables, *, limit: int) -> Findings:
    """Check what belongs to no range of time: the cache, the head of the ledger, the producers, the counts."""
    found = Findings(limit)
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        await check_cache(cursor, tables, await live_version(cursor, tables), found)
    async with short_transaction(connection) as cursor:
        await check_head(cursor, tables, found)
    async with short_transaction(connection) as cursor:
        await check_producers(cursor, tables, found)
        await check_set_aside(cursor, tables, found)
        await check_books(cursor, tables, found)
    async with short_transaction(connection) as cursor:
        await check_points(cursor, tables, found)
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        await check_segments(cursor, tables, found)
    return found


class _Attempt:
    """One replay and its comparison."""

    def __init__(
        self,
        connection: Connection,
        tables: Tables,
        rules: RuleSet,
        span: Span,
        limit: int,
        open_positions: Set[int],
        kept: Mapping[str, int] | None,
        elsewhere: RangeReplay | None,
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._rules = rules
        self._span = span
        self._limit = limit
        self._open_positions = open_positions
        self._kept = kept
        self._elsewhere = elsewhere
        self._passed: list[int] = []
        self._days: list[int] = []
        self._found = Findings(limit)

    async def run(self) -> RangeCheck:
        """Raises `ReplayBaseChanged` where the result would mean nothing."""
        async with short_transaction(self._connection) as cursor:
            base = await self._read_base(cursor)
            days = await days_in_log(cursor, self._tables)
        total = Shelves(Accumulator(self._since(base), self._span.end_buckets()))
        after = base.version.position
        if self._span.is_everything:
            after = await self._replay_ledger(total, base, 0)
            for day in days:
                await self._check_day(day)
            if self._elsewhere is None:
                await check_summaries(self._connection, self._tables, self._found)
            else:
                await self._elsewhere.check_summaries(self._found)
        else:
            for day in days:
                await self._replay_day(total, base, day)
        after = await self._replay_ledger(total, base, after)
        async with log_snapshot(self._connection, self._tables) as cursor:
            now = await self._read_base(cursor)
            base.check(now)
            first, end = self._span.first_buckets(self._scope(now.version)), self._span.end_buckets()
            await add_stored(total, stream_worker_cells(cursor, self._tables, now.version.baseline, first, end))
            live = Shelves(Accumulator())
            await add_stored(live, stream_stored(cursor, self._tables, now.version.version, first, end))
            await check_quantiles(cursor, self._tables, now.version.version, first, end, self._found)
            counts = await read_counts(cursor, self._tables, [now.version.baseline, now.version.version])
        await self._replay_rest(total, now, after)
        diff = await to_thread.run_sync(self._compare, live, total, first, end)
        if self._span.is_everything:
            self._check_counts(counts, total.total, now)
        covered = Coverage(
            self._span.is_everything,
            ranges_of(first, end)
            | {
                "position": [(position, position + 1) for position in self._passed],
                "day": [(day, day + 1) for day in self._days],
            },
        )
        return RangeCheck(now.version.version, now.version.position, total.total.events, diff, self._found, covered)

    async def _read_base(self, cursor: Cursor) -> ReplayBase:
        return await read_replay_base(cursor, self._tables, self._rules, "verify")

    def _scope(self, version: Version) -> dict[str, int]:
        """Return where comparing begins: at the horizons, or earlier where the settings keep older buckets."""
        return {name: min(at, (self._kept or {}).get(name, at)) for name, at in version.horizons.items()}

    async def _page(self, cursor: Cursor, after: int, until: int) -> list[LedgerRow]:
        return await read_ledger(cursor, self._tables, after=after, limit=PAGE, until=until)

    async def _replay_ledger(self, total: Shelves, base: ReplayBase, after: int) -> int:
        """Replay past *after* until the live version's position is near; return how far that was."""
        while True:
            async with short_transaction(self._connection) as cursor:
                version = await live_version(cursor, self._tables)
                page = await self._page(cursor, after, version.position)
            if page and self._elsewhere is not None and version.position - after >= _NEAR:
                since = self._since(base)
                ranges = self._elsewhere.replay(base, since, after, version.position, self._open_positions)
                await self._add_replayed(total, ranges)
                after = version.position
                continue
            if not page or version.position - after < _NEAR:
                return after
            await self._replay(total, base, page)
            after = page[-1].position

    def _since(self, base: ReplayBase) -> dict[str, int]:
        return self._span.first_buckets(self._scope(base.version))

    async def _add_replayed(self, total: Shelves, ranges: AsyncGenerator[ReplayedRange]) -> None:
        async with aclosing(ranges):
            async for one in ranges:
                self._found.add_parts(one.findings)
                self._passed += one.passed
                await to_thread.run_sync(total.add, one.fold)

    async def _replay_rest(self, total: Shelves, now: ReplayBase, after: int) -> None:
        """Replay past *after* up to the position of the snapshot *now*; raise `ReplayBaseChanged` if a day left."""
        while True:
            async with short_transaction(self._connection) as cursor:
                page = await self._page(cursor, after, now.version.position)
            if not page:
                break
            await self._replay(total, now, page)
            after = page[-1].position
        async with short_transaction(self._connection) as cursor:
            if await gone_days(cursor, self._tables) != now.gone:
                raise ReplayBaseChanged

    async def _replay_day(self, total: Shelves, base: ReplayBase, day: date) -> None:
        async with short_transaction(self._connection) as cursor:
            found = await find_batches(
                cursor,
                self._tables,
                day,
                since_us=self._span.since_us,
                until_us=self._span.until_us,
                until=base.version.position,
            )
        if not found:
            return
        if self._elsewhere is None:
            await self._replay(total, base, found)
        else:
            ranges = self._elsewhere.replay_rows(base, self._since(base), found, self._open_positions)
            await self._add_replayed(total, ranges)
        await self._check_day(day)

    async def _replay(self, total: Shelves, base: ReplayBase, found: Sequence[LedgerRow]) -> None:
        for rows in chunks(found):
            async with short_transaction(self._connection) as cursor:
                await check_entries(cursor, self._tables, base.version.version, rows, self._found)
            self._passed += [row.position for row in rows if row.position in self._open_positions]
            in_log = [row for row in rows if row.batch_id.day not in base.gone]
            transaction = partial(short_transaction, self._connection)
            await add_rows(total.total, transaction, self._tables, self._rules, base.version, in_log)
            await to_thread.run_sync(total.tidy)

    async def _check_day(self, day: date) -> None:
        self._days.append(day.toordinal())
        async with short_transaction(self._connection) as cursor:
            await check_day(cursor, self._tables, day, self._found)

    def _check_counts(self, counts: Mapping[int, str], total: Accumulator, base: ReplayBase) -> None:
        """Compare the counts of the live version with the replay's, unless findings say that this lacks batches."""
        if any(spot.check in ("log", "payload") for spot in self._found.spots):
            return
        where = f"version {base.version.version}"
        try:
            before, stored = (
                decode_counts(counts.get(version, "{}"), f"what version {version} counted")
                for version in (base.version.baseline, base.version.version)
            )
        except Damaged as error:
            self._found.add("counts", where, f"{error}: a rebuild counts again")
            return
        recomputed = Counter(before)
        recomputed.update(total.counts)
        for fault in count_faults(stored, recomputed, events=None if base.gone else total.events):
            self._found.add("counts", where, f"{fault}; a rebuild counts again")

    def _compare(
        self, live: Shelves, total: Shelves, first: Mapping[str, int], end: Mapping[str, int] | None
    ) -> Comparison:
        for (position, rule), error in sorted(total.total.failed.items()):
            text = f"rule {rule!r} fails on it, and did not before: {error}"
            self._found.add("payload", f"position {position}", text, scale="position", at=position)
        for position, error in sorted(total.total.dead.items()):
            self._found.add("payload", f"position {position}", error, scale="position", at=position)
        compared = NO_COMPARISON
        for there, folded in take_pairs(live, total):
            stored = stored_projection(there)
            check_workers(stored, first, end, self._found)
            check_resolutions(stored, first, end, self._found)
            # The horizons may have risen since the replay began.
            made = projection_of(folded, first, end)
            compared = compared.plus(diff_projections(stored, made, limit=self._limit - len(compared.differences)))
        return compared
