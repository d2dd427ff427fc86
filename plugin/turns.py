"""Who folds, and when: the leader every sync interval, anybody if nobody does."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from logging import Logger
from typing import TYPE_CHECKING

from .limited_log import RateLimited

if TYPE_CHECKING:
    from .projector import Projector

#: Folds are heard of within this many intervals, or somebody else folds.
PATIENCE = 1.5
#: Longest pause after failures, in seconds: how soon folding goes on when the database is back.
BACKOFF_S = 5


class Turns:
    """Decides whether this worker folds: the leader does, and whoever took over and has heard of nobody else."""

    def __init__(
        self,
        projector_id: str,
        sync_interval: float,
        leader: asyncio.Event,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._projector_id = projector_id
        self._interval = sync_interval
        self._leader = leader
        self._took_over = False
        self._heard = self._clock()
        self.wakeup = asyncio.Event()

    @property
    def mine(self) -> bool:
        return self._leader.is_set() or self._took_over

    def hear(self, projector_id: str) -> None:
        """Somebody has folded."""
        self._heard = self._clock()
        if projector_id != self._projector_id:
            self._took_over = False

    def take_over(self) -> None:
        self._took_over = True

    def patience_s(self) -> float:
        """Seconds of silence after which this worker looks whether anybody folds; never the same for two."""
        return PATIENCE * self._interval + random.uniform(0, 0.5 * self._interval)

    def silence_s(self) -> float:
        return self._clock() - self._heard


async def project(turns: Turns, projector: Projector, interval_s: float, log: Logger) -> None:
    """Fold for ever, when it is this worker's turn; outlives every error."""
    warnings = RateLimited(log)
    pause = min(interval_s, PATIENCE)
    while True:
        await _wait(turns.wakeup, pause)
        started = time.monotonic()
        try:
            pause = await _turn(turns, projector, interval_s)
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


async def _turn(turns: Turns, projector: Projector, interval_s: float) -> float:
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
    # A longer round would be followed by as long a pause, in which nobody sees anything new.
    done = await projector.run_once(within_s=interval_s)
    if not done.events and not done.reason:  # whoever can't fold must not keep those quiet who can
        await projector.heartbeat()
    return interval_s


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
