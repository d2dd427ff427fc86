"""Who folds, and when: the leader every sync interval, anybody if nobody does, or ever has."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from logging import Logger
from typing import TYPE_CHECKING

from chancy_metrics.events.error_kinds import in_words
from chancy_metrics.plugin.host.throttled_log import RateLimited
from chancy_metrics.projections.versions.outcome import Outcome

if TYPE_CHECKING:
    from chancy_metrics.plugin.folding.projector import Projector

#: Folds are heard of within this many intervals, or somebody else folds.
PATIENCE = 1.5
#: Longest pause after failures, in seconds: how soon folding goes on when the database is back.
BACKOFF_S = 5
#: Seconds between looks at an installation without numbers; later ones are further apart.
NEW_S = 1


class FoldSchedule:
    """Decides whether this worker folds: the leader does, and whoever took over and has heard of nobody else.

    Attributes:
        new: As far as is known, there are no numbers yet: Chancy elects its first leader after a minute, and the
            first numbers should not wait for it.
        wakeup: Set to end the pause between two looks.
    """

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
        self._started = self._heard = self._clock()
        self.new = True
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

    def new_s(self) -> float:
        """Seconds until the next look at a new installation: a second at first, a fifth of the time that passed later.

        Never the same for two, so that of a thousand workers one folds and the others find that somebody has.
        """
        passed = max(NEW_S, (self._clock() - self._started) / 5)
        return min(passed, PATIENCE * self._interval) * random.uniform(0.5, 1)

    def silence_s(self) -> float:
        return self._clock() - self._heard

    async def wait(self, seconds: float) -> None:
        """Wait so long, or until this worker is woken or becomes the leader."""
        waits = [asyncio.ensure_future(self.wakeup.wait())]
        if not self._leader.is_set():
            waits.append(asyncio.ensure_future(self._leader.wait()))
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        self.wakeup.clear()


async def project(
    schedule: FoldSchedule,
    projector: Projector,
    interval_s: float,
    log: Logger,
    on_failure: Callable[[str], None] | None = None,
) -> None:
    """Fold for ever, when it is this worker's turn; outlives every error.

    Args:
        on_failure: Is told of each failure what it was, and "" when all is well again.
    """
    warnings = RateLimited(log)
    pause = min(interval_s, schedule.new_s())
    while True:
        await schedule.wait(pause)
        started = time.monotonic()
        try:
            pause = await _turn(schedule, projector, interval_s)
            # Folding takes half of the time at the most, however long a round lasts.
            pause = max(pause, time.monotonic() - started)
            failure = ""
        except Exception as error:  # the host ends with a task that raises
            pause = min(BACKOFF_S, 2 * pause) * random.uniform(0.5, 1)
            warnings.warn(
                "fold",
                f"folding metrics failed, tried again in {pause:.0f} s, nothing is lost: {in_words(error)}",
            )
            failure = in_words(error)
            await _close_quietly(projector)
        if on_failure is not None:
            on_failure(failure)


async def _turn(schedule: FoldSchedule, projector: Projector, interval_s: float) -> float:
    """Do what there is to do now and return the seconds until the next look."""
    was_mine = schedule.mine
    if schedule.new:
        found = await projector.look()
        schedule.new = not found.numbers
        if schedule.new and found.events:
            schedule.take_over()
        elif not schedule.mine:
            await projector.close()
    if not schedule.mine:
        if schedule.new:
            return schedule.new_s()
        patience = schedule.patience_s()
        if schedule.silence_s() < patience:
            return patience - schedule.silence_s()
        if await projector.somebody_folds(patience):
            await projector.close()
            schedule.hear("")
            return patience
        schedule.take_over()
    # A longer round would be followed by as long a pause, in which nobody sees anything new.
    done = await projector.run_once(within_s=interval_s)
    idle = not (done.batches or done.events or done.reason is not None)
    if not was_mine and (idle or (done.outcome is Outcome.BUSY and not done.events)):
        schedule.hear("")  # of those that took over at the same time another was faster
        await projector.close()
    elif not done.events and done.reason is None:  # whoever can't fold must not keep those quiet who can
        await projector.heartbeat()
    schedule.new = schedule.new and not done.events
    return min(interval_s, schedule.new_s()) if schedule.new else interval_s


async def _close_quietly(projector: Projector) -> None:
    try:
        await projector.close()
    except Exception:  # the connection is broken already
        return
