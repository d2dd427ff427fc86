"""Who folds, and when: the leader every sync interval, anybody if nobody does; two row locks make each of them safe."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from logging import Logger
from typing import NamedTuple

from chancy import Chancy
from psycopg import AsyncConnection, AsyncCursor, sql
from psycopg.rows import TupleRow

from chancy_metrics.events.ledger import SEQUENCE_LIMIT, sequence
from chancy_metrics.events.log import short_transaction
from chancy_metrics.events.schema import Tables, tables
from chancy_metrics.projections.rules import BUILT_IN, RuleSet

from .announcing import announce_by
from .connection import connect
from .limited_log import RateLimited

#: Seconds between looks at all of the pending table: what committed late lies below where the others look.
SWEEP_S = 10
#: Folds are heard of within this many intervals, or somebody else folds.
PATIENCE = 1.5
#: Longest pause after failures, in seconds: how soon folding goes on when the database is back.
BACKOFF_S = 5


#: Seconds `fold_all` goes on trying beside somebody else who folds.
BUSY_S = 10


class Round(NamedTuple):
    """What one round of ordering and folding did."""

    batches: int
    events: int
    position: int
    reason: str


class Projector:
    """Orders and folds for one process; keeps its connection and its place in the pending table between rounds."""

    def __init__(self, chancy: Chancy, folder: str, *, rules: RuleSet = BUILT_IN) -> None:
        self._chancy = chancy
        self._folder = folder
        self._rules = rules
        self._announce = announce_by(chancy, folder)
        self._connection: AsyncConnection[TupleRow] | None = None
        self._after = 0
        self._swept = 0.0

    async def run_once(self) -> Round:
        """Give every committed batch its position and fold up to the last of them, in bounded transactions.

        Another process may do the same at the same time. Raises what the database raises.
        """
        # numpy comes with this: a process that never folds starts without it.
        from chancy_metrics.projections.advance import advance

        connection = await self._connected()
        names = tables(self._chancy.prefix)
        batches = events = 0
        now = time.monotonic()
        if now - self._swept >= SWEEP_S:
            self._after, self._swept = 0, now
        ordered = SEQUENCE_LIMIT
        while ordered == SEQUENCE_LIMIT:
            sequenced = await sequence(connection, names, after=self._after)
            self._after, ordered = sequenced.last_id, sequenced.batches
            batches += ordered
        # Up to what was there at the start, or as far as somebody else orders: what comes meanwhile can outpace us.
        target = math.inf if sequenced.position is None else sequenced.position
        while True:
            advanced = await advance(connection, names, folder=self._folder, rules=self._rules, announce=self._announce)
            events += advanced.events
            if advanced.caught_up or advanced.reason or advanced.position >= target:
                return Round(batches, events, advanced.position, advanced.reason)

    async def somebody_folds(self, within_s: float) -> bool:
        """Whether a fold was stored within so many seconds, or nothing waits to be folded."""
        async with short_transaction(await self._connected(), index_only=True) as cursor:
            return await _is_current(cursor, tables(self._chancy.prefix), within_s)

    async def heartbeat(self) -> None:
        """Tell the other workers that somebody folds, also where there is nothing to fold."""
        async with short_transaction(await self._connected()) as cursor:
            await self._announce(cursor)

    async def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def _connected(self) -> AsyncConnection[TupleRow]:
        if self._connection is None or self._connection.closed:
            self._connection = await connect(self._chancy, self._folder)
        return self._connection


class Turns:
    """Decides whether this worker folds: the leader does, and whoever took over and has heard of nobody else."""

    def __init__(
        self,
        folder: str,
        sync_interval: float,
        leader: asyncio.Event,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._folder = folder
        self._interval = sync_interval
        self._leader = leader
        self._took_over = False
        self._heard = self._clock()
        self.wakeup = asyncio.Event()

    @property
    def mine(self) -> bool:
        return self._leader.is_set() or self._took_over

    def hear(self, folder: str) -> None:
        """Somebody has folded."""
        self._heard = self._clock()
        if folder != self._folder:
            self._took_over = False

    def take_over(self) -> None:
        self._took_over = True

    def patience_s(self) -> float:
        """Seconds of silence after which this worker looks whether anybody folds; never the same for two."""
        return PATIENCE * self._interval + random.uniform(0, 0.5 * self._interval)

    def silence_s(self) -> float:
        return self._clock() - self._heard


async def project(chancy: Chancy, turns: Turns, projector: Projector, interval_s: float, log: Logger) -> None:
    """Fold for ever, when it is this worker's turn; outlives every error."""
    warnings = RateLimited(log)
    pause = min(interval_s, PATIENCE)
    while True:
        await _wait(turns.wakeup, pause)
        started = time.monotonic()
        try:
            pause = await _turn(chancy, turns, projector, interval_s)
            # Folding takes half of the time at the most, however long a round lasts.
            pause = max(pause, time.monotonic() - started)
        except Exception as error:  # the host ends with a task that raises
            pause = min(BACKOFF_S, 2 * pause) * random.uniform(0.5, 1)
            warnings.warn(
                "fold",
                f"folding metrics failed, tried again in {pause:.0f} s, nothing is lost: "
                f"{type(error).__name__}: {error}",
            )
            await _close_quietly(projector)


async def fold_all(chancy: Chancy, folder: str = "chancy-metrics fold", *, rules: RuleSet = BUILT_IN) -> Round:
    """Order and fold what is there, and return; for a cluster whose workers are down.

    Where somebody else folds at the same time, tries again for up to `BUSY_S`.
    """
    from chancy_metrics.projections.advance import BUSY

    projector = Projector(chancy, folder, rules=rules)
    until = time.monotonic() + BUSY_S
    batches = events = 0
    try:
        while True:
            done = await projector.run_once()
            batches, events = batches + done.batches, events + done.events
            if done.reason != BUSY or time.monotonic() > until:
                return done._replace(batches=batches, events=events)
            await asyncio.sleep(0.05)
    finally:
        await projector.close()


async def _turn(chancy: Chancy, turns: Turns, projector: Projector, interval_s: float) -> float:
    """Do what there is to do now and return the seconds until the next look."""
    if not turns.mine:
        patience = turns.patience_s()
        if turns.silence_s() < patience:
            return patience - turns.silence_s()
        if await projector.somebody_folds(patience):
            await projector.close()
            turns.hear("")
            return patience
        turns.take_over()
    done = await projector.run_once()
    if not done.events and not done.reason:  # whoever can't fold must not keep those quiet who can
        await projector.heartbeat()
    return interval_s


async def _is_current(cursor: AsyncCursor[TupleRow], names: Tables, within_s: float) -> bool:
    await cursor.execute(
        sql.SQL(
            """
            SELECT coalesce(v.folded_at > clock_timestamp() - make_interval(secs => %(within)s), false)
                OR (v.position = h.position AND NOT EXISTS (SELECT 1 FROM {pending}))
            FROM {head} h
            JOIN {versions} v
                ON v.version = h.live
            """
        ).format(head=names.head, versions=names.versions, pending=names.pending),
        {"within": within_s},
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
    event.clear()


async def _close_quietly(projector: Projector) -> None:
    try:
        await projector.close()
    except Exception:  # the connection is broken already
        return
