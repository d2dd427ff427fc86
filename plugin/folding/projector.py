"""Sequence pending batches and fold them into the live version; concurrent projectors are safe: row locks decide."""

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
from chancy_metrics.events.sequencer import SEQUENCE_LIMIT, Sequenced, sequence
from chancy_metrics.events.silent_server import Patience
from chancy_metrics.plugin.folding.step_size import StepSize
from chancy_metrics.plugin.host.bounded_connection import LOCK_LIMIT_MS, naming_locks
from chancy_metrics.plugin.host.connection import connect
from chancy_metrics.plugin.host.notify import announce_by, read_installation
from chancy_metrics.plugin.host.throttled_log import RateLimited
from chancy_metrics.projections.rules.rule_set import BUILT_IN, RuleSet
from chancy_metrics.projections.versions.outcome import Advanced, Outcome

#: Seconds between two reads of the whole unsettled pending table, which find rows that committed late.
SWEEP_S = 10
#: Seconds to wait for the server in one step; after that a smaller step is tried on a new connection.
ANSWER_S = 30
_BY_A_FOLD = "by a fold"
#: Seconds for which `fold_all` tries again while another process folds.
BUSY_S = 10


#: What this process knows of each app's pending table, shared by its projectors.
_pending_cursors: weakref.WeakKeyDictionary[Chancy, PendingCursor] = weakref.WeakKeyDictionary()


class Round(NamedTuple):
    """What one round has sequenced and folded.

    Attributes:
        position: Position of the live version after it.
        outcome: Why the round ended.
        reason: Why it could not fold further, in a sentence; None if it could.
    """

    batches: int
    events: int
    position: int
    outcome: Outcome
    reason: str | None


class Installation(NamedTuple):
    """Whether any series has points, and, if none has, whether events wait to be folded."""

    has_points: bool
    has_events: bool


class Projector:
    """Sequences and folds for one process; keeps its connection and its progress in the pending table between rounds.

    Args:
        folded_by: Name of the process, as `status` and `versions` show it.
        projector_id: Id in its announcements; a random one by default.

    Attributes:
        installation: Id that announcements of this installation carry; None before the first connection.
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
        self._pending = _pending_cursors.setdefault(chancy, PendingCursor())
        self._swept = -math.inf
        self._patience = Patience(ANSWER_S)
        self._steps: StepSize | None = None

    async def run_once(self, *, within_s: float = math.inf) -> Round:
        """Give every committed batch its position and fold up to the last of them, in bounded transactions.

        Starts no further step once *within_s* seconds have passed. Other processes may do the same concurrently.

        Raises:
            TableLocked: The log or the pending table is locked; the message says by whom.
            psycopg.Error: Whatever else the database raises.
        """
        async with naming_locks(self._chancy, _BY_A_FOLD):
            return await self._run_once(within_s)

    async def _run_once(self, within_s: float) -> Round:
        connection = await self._connected()
        tables = tables_for(self._chancy.prefix)
        started = time.monotonic()
        batches, target = await self._sequence_all(connection, tables)
        events = 0
        while True:
            advanced = await self._advance(tables)
            events += advanced.events
            if advanced.left_out:
                self._warnings.warn("left out", f"metrics: {advanced.left_out.sentence}; see `chancy-metrics status`")
            enough = advanced.position >= target or time.monotonic() - started >= within_s
            if advanced.outcome is not Outcome.FOLDED or enough:
                return Round(batches, events, advanced.position, advanced.outcome, advanced.reason)

    async def _sequence_all(self, connection: Connection, tables: Tables) -> tuple[int, float]:
        """Give every pending batch its position.

        Returns:
            How many batches got one, and the position to fold up to: appends can outpace folds, so a round ends at the
            last position of its start. `math.inf` if another process sequences.
        """
        batches = 0
        now = time.monotonic()
        sweep = now - self._swept >= SWEEP_S
        if sweep:
            self._swept = now
            async with self._cursor() as cursor:
                snapshot = await read_id_snapshot(cursor, tables)
        after = self._pending.sweep(snapshot) if sweep else self._pending.after
        taken = SEQUENCE_LIMIT
        while taken == SEQUENCE_LIMIT:
            with self._patience.waiting(connection):
                sequenced = await sequence(connection, tables, after=after, settled=self._pending.settled)
            self._warn_of(sequenced)
            after, taken = sequenced.last_id, sequenced.batches + sequenced.set_aside
            batches += sequenced.batches
        self._pending.note_seen(after)
        if sweep and sequenced.position is not None:
            self._pending.swept(snapshot)
        return batches, math.inf if sequenced.position is None else sequenced.position

    def _warn_of(self, sequenced: Sequenced) -> None:
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

    async def _advance(self, tables: Tables) -> Advanced:
        """Fold one step; if it exceeds some limit, half of it, and let later steps grow slowly."""
        # It imports numpy, which a process that never folds does without.
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

    async def read_installation(self) -> Installation:
        """Read whether there are points, or events to make the first ones of."""
        async with self._cursor() as cursor:
            return await _read_installation(cursor, tables_for(self._chancy.prefix))

    async def is_folded(self, within_s: float) -> bool:
        """Whether a fold was stored in the last *within_s* seconds, or nothing waits to be folded."""
        async with self._cursor() as cursor:
            return await _is_folded(cursor, tables_for(self._chancy.prefix), within_s, self._pending.settled)

    async def heartbeat(self) -> None:
        """Announce to the other workers that this projector works, even if there is nothing to fold."""
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
    """Sequence and fold all that was appended, and return; for a cluster whose workers are down.

    Tries again for up to `BUSY_S` while another process folds.
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


async def _read_installation(cursor: Cursor, tables: Tables) -> Installation:
    await cursor.execute(
        sql.SQL(
            """
            SELECT s.has_points, NOT s.has_points AND (
                EXISTS (SELECT 1 FROM {pending} JOIN {log} USING (day, producer, sequence) WHERE events > 0)
                OR EXISTS (SELECT 1 FROM {ledger} l WHERE l.position > v.position AND l.events > 0)
            )
            FROM {head} h
            JOIN {versions} v
                ON v.version = h.live
            CROSS JOIN (SELECT EXISTS (SELECT 1 FROM {series})) AS s (has_points)
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
    return Installation(*row) if row else Installation(False, False)


async def _is_folded(cursor: Cursor, tables: Tables, within_s: float, settled: int) -> bool:
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
