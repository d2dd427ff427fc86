"""Replay the ledger in tasks, for verify: each checks the entries of a range and folds its batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence, Set
from concurrent.futures import Executor
from datetime import date
from typing import NamedTuple

import msgspec

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.ledger import CHUNK_BYTES, LedgerRow, chunks, find_range_end, naming_batches, read_ledger
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.parallel.shared_rules import SharedRules, share
from chancy_metrics.plugin.parallel.source import Source, connected, proven_at
from chancy_metrics.plugin.parallel.summaries_task import check_summaries_in_tasks
from chancy_metrics.plugin.parallel.tasks import Tasks
from chancy_metrics.projections.findings import Findings, FindingsParts
from chancy_metrics.projections.fold.accumulator import Accumulator
from chancy_metrics.projections.fold.fold_codec import decode_fold, encode_fold
from chancy_metrics.projections.rules.rule_set import RuleSet
from chancy_metrics.projections.verify.entries import check_entries
from chancy_metrics.projections.verify.replay import ReplayedRange
from chancy_metrics.projections.versions.replay import PAGE, read_left_out, read_without
from chancy_metrics.projections.versions.replay_base import ReplayBase

#: What a task replays, unless one batch has more.
_TASK_EVENTS, _TASK_ROWS = 250_000, 20_000
#: Events of a task where only some batches are replayed: a day of them is to be shared, too.
_PART_EVENTS = 100_000


class ReplayTask(NamedTuple):
    """A range to check and fold, past position *after* and up to *until*.

    Attributes:
        only: The positions in it that are meant; None for all.
        since: Resolution -> start of the first bucket that is kept, seconds.
        version: The live version; *left_out* are position and rule of its dead letters in the range.
        gone: Days that are in the baseline instead of the log.
        watched: Positions of which those that are in the range are named.
        limit: Findings that are kept.
    """

    source: Source
    rules: SharedRules
    since: Mapping[str, int]
    after: int
    until: int
    only: frozenset[int] | None
    version: int
    left_out: tuple[tuple[int, str], ...]
    gone: frozenset[date]
    watched: frozenset[int]
    limit: int


class _Result(msgspec.Struct, frozen=True, array_like=True):
    position: int
    fold: bytes
    findings: FindingsParts
    passed: list[int]


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(_Result)


class ReplayInTasks:
    """Replays ranges of the ledger on an executor.

    Args:
        connection: To the app's database, to cut the ledger into ranges.
        limit: Findings of a range that are kept.

    Raises:
        MetricsLogError: A rule can't be imported by tasks.
    """

    def __init__(
        self, executor: Executor, source: Source, connection: Connection, rules: RuleSet, *, limit: int
    ) -> None:
        self._executor = executor
        self._source = source
        self._connection = connection
        self._tables = tables_for(source.prefix)
        self._rules = share(rules)
        self._limit = limit
        self._ends: list[int] = []

    async def replay(
        self, base: ReplayBase, since: Mapping[str, int], after: int, until: int, watched: Set[int]
    ) -> AsyncGenerator[ReplayedRange]:
        """Check and fold the entries past *after* and up to *until*; yield ranges in order of position."""
        if not after:
            self._ends = []
        async with Tasks(self._executor, replay_range) as tasks:
            begin: int | None = after
            while True:
                while begin is not None and tasks.has_room:
                    begin = end = await self._find_end(begin, until)
                    if end is not None:
                        tasks.submit(await self._task(base, since, after, end, watched))
                        self._ends.append(end)
                        after = end
                if not tasks:
                    return
                yield _replayed((await tasks.take())[1])

    async def replay_rows(
        self, base: ReplayBase, since: Mapping[str, int], rows: Sequence[LedgerRow], watched: Set[int]
    ) -> AsyncGenerator[ReplayedRange]:
        """Check and fold the entries at *rows*, in ascending order; yield ranges in order of position."""
        left = chunks(rows, events=_PART_EVENTS, size=2 * CHUNK_BYTES)
        async with Tasks(self._executor, replay_range) as tasks:
            while True:
                while tasks.has_room and (part := next(left, None)) is not None:
                    only = frozenset(row.position for row in part)
                    tasks.submit(await self._task(base, since, min(only) - 1, max(only), watched, only))
                if not tasks:
                    return
                yield _replayed((await tasks.take())[1])

    async def check_summaries(self, found: Findings) -> None:
        """Check the skip index, in the ranges into which `replay` has cut the ledger."""
        async with short_transaction(self._connection) as cursor:
            source = await proven_at(cursor, self._tables, self._source)
        await check_summaries_in_tasks(self._executor, source, self._ends, found, limit=self._limit)

    async def _find_end(self, after: int, until: int) -> int | None:
        async with short_transaction(self._connection, index_only=True) as cursor:
            return await find_range_end(
                cursor,
                self._tables,
                after=after,
                until=until,
                events=_TASK_EVENTS,
                size=2 * CHUNK_BYTES,
                limit=_TASK_ROWS,
            )

    async def _task(
        self,
        base: ReplayBase,
        since: Mapping[str, int],
        after: int,
        end: int,
        watched: Set[int],
        only: frozenset[int] | None = None,
    ) -> ReplayTask:
        async with short_transaction(self._connection, index_only=True) as cursor:
            version = base.version.version
            left_out = await read_left_out(cursor, self._tables, version, after + 1, end)
            return ReplayTask(
                source=await proven_at(cursor, self._tables, self._source, end),
                rules=self._rules,
                since=since,
                after=after,
                until=end,
                only=only,
                version=version,
                left_out=tuple(left_out),
                gone=frozenset(base.gone),
                watched=frozenset(at for at in watched if after < at <= end),
                limit=self._limit,
            )


def _replayed(result: bytes) -> ReplayedRange:
    read = _decoder.decode(result)
    return ReplayedRange(read.position, decode_fold(read.fold), read.findings, read.passed)


def replay_range(task: ReplayTask) -> bytes:
    """Replay a range, in whatever process this is called."""
    return _encoder.encode(asyncio.run(_replay(task)))


async def _replay(task: ReplayTask) -> _Result:
    rules, tables = task.rules.load(), tables_for(task.source.prefix)
    found, total = Findings(task.limit), Accumulator(task.since)
    passed: list[int] = []
    after = task.after
    async with connected(task.source) as connection:
        while after < task.until:
            async with short_transaction(connection) as cursor:
                page = await read_ledger(cursor, tables, after=after, limit=PAGE, until=task.until)
            if not page:
                break
            after = page[-1].position
            for rows in chunks(row for row in page if task.only is None or row.position in task.only):
                async with short_transaction(connection) as cursor:
                    await check_entries(cursor, tables, task.version, rows, found)
                passed += [row.position for row in rows if row.position in task.watched]
                in_log = [row for row in rows if row.batch_id.day not in task.gone]
                with naming_batches(rows):
                    async with short_transaction(connection) as cursor:
                        batches = await read_without(cursor, tables, in_log, task.left_out)
                    total.add_batches(batches, rules)
    return _Result(after, encode_fold(total.fold()), found.to_parts(), passed)
