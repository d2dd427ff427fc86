"""One round of ordering and folding; two row locks make it safe beside another one."""

from __future__ import annotations

import asyncio
import math
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from uuid import uuid4

from chancy import Chancy
from psycopg import sql

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.error_kinds import in_words
from chancy_metrics.events.pending import set_aside_sentence
from chancy_metrics.events.pending_cursor import PendingCursor, read_id_snapshot
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.events.sequencer import SEQUENCE_LIMIT, sequence
from chancy_metrics.events.silent_server import Patience
from chancy_metrics.plugin.folding.step_size import StepSize
from chancy_metrics.plugin.host.bounded_connection import LOCK_LIMIT_MS, naming_locks
from chancy_metrics.plugin.host.connection import connect
from chancy_metrics.plugin.host.notify import announce_by, read_installation
from chancy_metrics.plugin.host.throttled_log import RateLimited
from chancy_metrics.projections.rules.rule_set import BUILT_IN, RuleSet
from chancy_metrics.projections.versions.outcome import Advanced, Outcome

#: Seconds between looks at all of the pending table that is not settled: what committed late lies below the others'.
SWEEP_S = 10
#: Seconds to wait for the server at one step; then its connection is given up, and a smaller step tried on another.
ANSWER_S = 30
_BY_A_FOLD = "by a fold"
#: Seconds `fold_all` goes on trying beside somebody else who folds.
BUSY_S = 10


#: What this process knows of each app's pending table, whoever projects in it.
_hints: weakref.WeakKeyDictionary[Chancy, PendingCursor] = weakref.WeakKeyDictionary()


class Round(NamedTuple):
    """What one round of ordering and folding did."""

    batches: int
    events: int
    position: int
    outcome: Outcome
    reason: str | None


class Look(NamedTuple):
    """Whether any series has numbers, and, if none has, whether an event waits to become the first."""

    numbers: bool
    events: bool


class Projector:
    """Orders and folds for one process; keeps its connection and its place in the pending table between rounds.

    Args:
        folded_by: The name people see.
        projector_id: Its own in the announcements; a new one by default.

    Attributes:
        installation: Whose announcements concern it; None until it was first connected.
    """

    def __init__(
        self, chancy: Chancy, folded_by: str, *, rules: RuleSet = BUILT_IN, projector_id: str | None = None
    ) -> None:
        self._chancy = chancy
        self._folded_by = folded_by
        self._rules = rules
        self._announce = announce_by(chancy, folded_by, projector_id or str(uuid4()))
        self.installation: int | None = None
        self._connection: Connection | None = None
        self._warnings = RateLimited(chancy.log)
        self._hint = _hints.setdefault(chancy, PendingCursor())
        self._swept = -math.inf
        self._patience = Patience(ANSWER_S)
        self._steps: StepSize | None = None

    async def run_once(self, *, within_s: float = math.inf) -> Round:
        """Give every committed batch its position and fold up to the last of them, in bounded transactions.

        Takes no further step once *within_s* seconds have passed. Another process may do the same at the same time.

        Raises:
            TableLocked: The log, or what waits for its position, is locked; the message says by whom.
            psycopg.Error: What else the database says.
        """
        async with naming_locks(self._chancy, _BY_A_FOLD):
            return await self._run_once(within_s)

    async def _run_once(self, within_s: float) -> Round:
        connection = await self._connected()
        tables = tables_for(self._chancy.prefix)
        batches = events = 0
        now = time.monotonic()
        sweep = now - self._swept >= SWEEP_S
        if sweep:
            self._swept = now
            async with self._cursor() as cursor:
                moment = await read_id_snapshot(cursor, tables)
        after = self._hint.sweep(moment) if sweep else self._hint.after
        ordered = SEQUENCE_LIMIT
        while ordered == SEQUENCE_LIMIT:
            with self._patience.waiting(connection):
                sequenced = await sequence(connection, tables, after=after, settled=self._hint.settled)
            after, ordered = sequenced.last_id, sequenced.batches + sequenced.set_aside
            for conflict in sequenced.conflicts:
                self._chancy.log.warning(f"metrics: {conflict}")
            if sequenced.refused:
                self._warnings.warn(
                    "refused",
                    "the metrics log refuses what is in the spill table; it stays there, and is tried again with each "
                    f"fold: {sequenced.refused}",
                )
            if sequenced.set_aside:
                self._warnings.warn("set aside", f"metrics: {set_aside_sentence(sequenced.set_aside)}")
            batches += sequenced.batches
        self._hint.looked(after)
        if sweep and sequenced.position is not None:
            self._hint.swept(moment)
        # Up to what was there at the start, or as far as somebody else orders: what comes meanwhile can outpace us.
        target = math.inf if sequenced.position is None else sequenced.position
        while True:
            advanced = await self._advance(tables)
            events += advanced.events
            if advanced.left_out:
                self._warnings.warn("left out", f"metrics: {advanced.left_out.sentence}; see `chancy-metrics status`")
            enough = advanced.position >= target or time.monotonic() - now >= within_s
            if advanced.outcome is not Outcome.FOLDED or enough:
                return Round(batches, events, advanced.position, advanced.outcome, advanced.reason)

    async def _advance(self, tables: Tables) -> Advanced:
        """Take one step; where it is too much for some limit, half of it, and later steps little by little more."""
        # numpy comes with this: a process that never folds starts without it.
        from chancy_metrics.projections.versions.advance import advance
        from chancy_metrics.projections.versions.isolate import leave_out_next
        from chancy_metrics.projections.versions.step import STEP_EVENTS

        steps = self._steps = self._steps or StepSize(STEP_EVENTS)
        while True:
            try:
                connection = await self._connected()
                with self._patience.waiting(connection):
                    advanced = await advance(
                        connection,
                        tables,
                        folded_by=self._folded_by,
                        rules=self._rules,
                        step_events=steps.events,
                        announce=self._announce,
                        lock_wait_ms=LOCK_LIMIT_MS,
                    )
            except Exception as error:
                if steps.shrink(error):
                    self._warnings.warn(
                        "step",
                        f"folding metrics took too much for one step, goes on with {steps.events:,} events at a time: "
                        f"{in_words(error)}",
                    )
                    continue
                if await steps.try_again(error):
                    continue
                advanced = await leave_out_next(
                    await self._connected(), tables, error, folded_by=self._folded_by, announce=self._announce
                )
            steps.went_well(grows=True)
            return advanced

    async def look(self) -> Look:
        """Ask the database whether there are numbers, or events to make the first ones of."""
        async with self._cursor() as cursor:
            return await _look(cursor, tables_for(self._chancy.prefix))

    async def somebody_folds(self, within_s: float) -> bool:
        """Whether a fold was stored within so many seconds, or nothing waits to be folded."""
        async with self._cursor() as cursor:
            return await _is_current(cursor, tables_for(self._chancy.prefix), within_s, self._hint.settled)

    async def heartbeat(self) -> None:
        """Tell the other workers that somebody folds, also where there is nothing to fold."""
        async with self._cursor() as cursor:
            await self._announce(cursor)

    async def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    @asynccontextmanager
    async def _cursor(self) -> AsyncIterator[Cursor]:
        connection = await self._connected()
        async with naming_locks(self._chancy, _BY_A_FOLD):
            with self._patience.waiting(connection):
                async with short_transaction(connection, lock_timeout_ms=LOCK_LIMIT_MS, index_only=True) as cursor:
                    yield cursor

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = await connect(self._chancy, self._folded_by)
            with self._patience.waiting(self._connection):
                async with short_transaction(self._connection) as cursor:
                    self.installation = await read_installation(cursor, tables_for(self._chancy.prefix))
        return self._connection


async def fold_all(chancy: Chancy, folded_by: str = "chancy-metrics fold", *, rules: RuleSet = BUILT_IN) -> Round:
    """Order and fold what is there, and return; for a cluster whose workers are down.

    Where somebody else folds at the same time, tries again for up to `BUSY_S`.
    """
    projector = Projector(chancy, folded_by, rules=rules)
    until = time.monotonic() + BUSY_S
    batches = events = 0
    try:
        while True:
            done = await projector.run_once()
            batches, events = batches + done.batches, events + done.events
            if done.outcome is not Outcome.BUSY or time.monotonic() > until:
                return done._replace(batches=batches, events=events)
            await asyncio.sleep(0.05)
    finally:
        await projector.close()


async def _look(cursor: Cursor, tables: Tables) -> Look:
    await cursor.execute(
        sql.SQL(
            """
            SELECT s.numbers, NOT s.numbers AND (
                EXISTS (SELECT 1 FROM {pending} JOIN {log} USING (day, producer, sequence) WHERE events > 0)
                OR EXISTS (SELECT 1 FROM {ledger} l WHERE l.position > v.position AND l.events > 0)
            )
            FROM {head} h
            JOIN {versions} v
                ON v.version = h.live
            CROSS JOIN (SELECT EXISTS (SELECT 1 FROM {series})) AS s (numbers)
            """
        ).format(
            series=tables.series,
            pending=tables.pending,
            log=tables.log,
            ledger=tables.ledger,
            head=tables.head,
            versions=tables.versions,
        )
    )
    row = await cursor.fetchone()
    return Look(*row) if row else Look(False, False)


async def _is_current(cursor: Cursor, tables: Tables, within_s: float, settled: int) -> bool:
    await cursor.execute(
        sql.SQL(
            """
            SELECT coalesce(v.folded_at > clock_timestamp() - make_interval(secs => %(within)s), false)
                OR (
                    v.position = h.position
                    AND NOT EXISTS (SELECT 1 FROM {pending} WHERE id > %(settled)s)
                    AND NOT EXISTS (SELECT 1 FROM {spill})
                )
            FROM {head} h
            JOIN {versions} v
                ON v.version = h.live
            """
        ).format(head=tables.head, versions=tables.versions, pending=tables.pending, spill=tables.spill),
        {"within": within_s, "settled": settled},
    )
    row = await cursor.fetchone()
    return bool(row and row[0])
