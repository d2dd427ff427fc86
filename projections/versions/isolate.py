"""Find the batch that makes a step fail, by halving the range, and leave it out of the version as a dead letter."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.error_kinds import in_words, is_deterministic, may_be_batch_error
from chancy_metrics.events.errors import StuckAt
from chancy_metrics.events.ledger import read_ledger
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.rollups.ids import Numbered
from chancy_metrics.projections.rules.rule_set import BUILT_IN, RuleSet
from chancy_metrics.projections.versions.left_out import summed_up
from chancy_metrics.projections.versions.outcome import Advanced, Outcome
from chancy_metrics.projections.versions.step import (
    STEP_EVENTS,
    Announce,
    Step,
    next_rows,
    read_step,
    write_step,
)
from chancy_metrics.projections.versions.version import live_version, read_version


async def isolate(
    connection: Connection,
    tables: Tables,
    *,
    folded_by: str,
    rules: RuleSet = BUILT_IN,
    version: int | None = None,
    until: int | None = None,
    step_events: int = STEP_EVENTS,
    announce: Announce | None = None,
) -> Advanced:
    """Take the step that failed because of its data in halves, and halve those that fail again.

    Of a batch that fails alone, the user's rules that make it fail are left out, or else the whole batch.

    Raises:
        StuckAt: A batch fails alone, and its error may be temporary; the version stops right before it.
    """
    async with short_transaction(connection, index_only=True) as cursor:
        mine = await (live_version(cursor, tables) if version is None else read_version(cursor, tables, version))
        if mine is None:
            return Advanced.refused(0, f"there is no version {version}")
        rows = await next_rows(cursor, tables, mine.position, until, step_events)
    positions = [row.position for row in rows]
    if not positions:
        return Advanced.nothing_left(mine.position)
    bisection = _Bisection(connection, tables, mine.version, rules, folded_by, announce)
    done = await bisection.fold(mine.position, positions)
    left_out = summed_up(mine.version, bisection.dead, bisection.failed)
    return done._replace(events=bisection.events, left_out=left_out or None)


async def leave_out(
    connection: Connection, tables: Tables, version: int, position: int, reason: str, *, folded_by: str
) -> Advanced:
    """Leave out the batch at *position*, which is the next one of *version*."""
    step = _nothing(version, position - 1, position, {position: reason})
    return await write_step(connection, tables, step, folded_by=folded_by)


async def leave_out_next(
    connection: Connection,
    tables: Tables,
    error: Exception,
    *,
    folded_by: str,
    version: int | None = None,
    announce: Announce | None = None,
) -> Advanced:
    """Leave out the next batch of *version* (the live one by default), for which there was too little memory.

    Its dead letter says how large it is. A rebuild in a process with more memory folds it.
    """
    async with short_transaction(connection, index_only=True) as cursor:
        mine = await (live_version(cursor, tables) if version is None else read_version(cursor, tables, version))
        rows = await read_ledger(cursor, tables, after=mine.position, limit=1) if mine is not None else []
    if mine is None or not rows:
        return Advanced.nothing_left(mine.position if mine else 0)
    (row,) = rows
    reason = (
        f"too little memory for its {row.events:,} events of {row.size_bytes:,} bytes: {in_words(error)}; "
        "`chancy-metrics rebuild` where there is more folds it"
    )
    step = _nothing(mine.version, mine.position, row.position, {row.position: reason})
    return await write_step(connection, tables, step, folded_by=folded_by, announce=announce)


def _nothing(version: int, before: int, position: int, dead: dict[int, str]) -> Step:
    """Return a step that only writes dead letters."""
    nothing = Numbered({}, [], [])
    return Step(version, before, position, 0, nothing, Counter(), {}, dead, {}, time.monotonic_ns())


class _Bisection:
    """Folds a range by halves.

    Attributes:
        events: How many events were folded.
        dead: Position -> why its batch is left out.
        failed: Position and name of a rule -> why that rule's metrics of the batch are left out.
    """

    def __init__(
        self,
        connection: Connection,
        tables: Tables,
        version: int,
        rules: RuleSet,
        folded_by: str,
        announce: Announce | None,
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._version = version
        self._rules = rules
        self._folded_by = folded_by
        self._announce = announce
        self.events = 0
        self.dead: dict[int, str] = {}
        self.failed: dict[tuple[int, str], str] = {}

    async def fold(self, before: int, positions: Sequence[int]) -> Advanced:
        """Fold the batches at *positions*, which follow position *before*; return what the last step did."""
        try:
            return await self._step(before, positions[-1])
        except Exception as error:
            if not may_be_batch_error(error):
                raise
            if len(positions) == 1:
                if is_deterministic(error):
                    return await self._leave_out(before, positions[0], error)
                raise StuckAt(
                    f"version {self._version} can't get past position {positions[0]}: {in_words(error)}; if that comes "
                    f"again, `chancy-metrics discard {positions[0]} --why ...` leaves the batch out"
                ) from error
        middle = len(positions) // 2
        done = await self.fold(before, positions[:middle])
        if done.position < positions[middle - 1]:  # busy, or refused
            return done
        return await self.fold(done.position, positions[middle:])

    async def _step(self, before: int, until: int, *, without: Mapping[str, str] | None = None) -> Advanced:
        step = await read_step(
            self._connection,
            self._tables,
            rules=self._rules,
            version=self._version,
            after=before,
            until=until,
            step_events=sys.maxsize,
            without=frozenset(without or ()),
        )
        if isinstance(step, Advanced):
            return step
        if without:
            failed = {(until, name): reason for name, reason in without.items()}
            step = step._replace(failed=step.failed | failed)
        return await self._write(step)

    async def _leave_out(self, before: int, position: int, error: Exception) -> Advanced:
        reason = in_words(error)
        names = self._rules.names
        for some in [*([name] for name in names), *([names] if len(names) > 1 else [])]:
            try:
                return await self._step(before, position, without=dict.fromkeys(some, f"can't be stored: {reason}"))
            except Exception as again:
                if not is_deterministic(again):
                    raise
        dead = {position: f"can't be stored: {reason}"}
        return await self._write(_nothing(self._version, before, position, dead))

    async def _write(self, step: Step) -> Advanced:
        done = await write_step(
            self._connection, self._tables, step, folded_by=self._folded_by, announce=self._announce
        )
        if done.outcome is Outcome.FOLDED:
            self.events += done.events
            self.dead |= step.dead
            self.failed |= step.failed
        return done
