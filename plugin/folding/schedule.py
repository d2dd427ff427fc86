"""Decide which worker folds, and when: the leader every sync interval, any other worker if the leader does not."""

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

#: Sync intervals without an announced fold after which another worker than the leader folds.
PATIENCE = 1.5
#: Longest pause after failures, in seconds; folding resumes so soon after the database is back.
BACKOFF_S = 5
#: Seconds between the first checks of an installation without points; later ones are further apart.
NEW_S = 1


class FoldSchedule:
    """Decides whether this worker folds: the leader does, and one that took over and has heard of no other.

    Attributes:
        is_new: Whether the installation has no points yet, as far as is known. Chancy elects its first leader after a
            minute; the first points do not wait for it.
        wakeup: Set it to end the pause before the next check.
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
        self.is_new = True
        self.wakeup = asyncio.Event()

    @property
    def is_mine(self) -> bool:
        """Whether this worker folds."""
        return self._leader.is_set() or self._took_over

    def hear(self, projector_id: str) -> None:
        """Note that *projector_id* has folded; another one than this worker's ends its turn."""
        self._heard = self._clock()
        if projector_id != self._projector_id:
            self._took_over = False

    def take_over(self) -> None:
        """Let this worker fold until another one is heard of."""
        self._took_over = True

    def patience_s(self) -> float:
        """Return the seconds of silence after which this worker checks whether anyone folds; random, so that few do."""
        return PATIENCE * self._interval + random.uniform(0, 0.5 * self._interval)

    def new_s(self) -> float:
        """Return the seconds until the next check of a new installation: 1 at first, later a fifth of its age.

        Random, so that of a thousand workers one folds and the others find its points.
        """
        passed = max(NEW_S, (self._clock() - self._started) / 5)
        return min(passed, PATIENCE * self._interval) * random.uniform(0.5, 1)

    def silence_s(self) -> float:
        """Return the seconds since a fold was last heard of."""
        return self._clock() - self._heard

    async def wait(self, seconds: float) -> None:
        """Wait *seconds*, or until `wakeup` is set or this worker becomes the leader."""
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
    """Fold whenever it is this worker's turn, until cancelled; errors are logged and retried.

    Args:
        on_failure: Called with the text of each failure, and with "" after a round without one.
    """
    warnings = RateLimited(log)
    pause = min(interval_s, schedule.new_s())
    while True:
        await schedule.wait(pause)
        started = time.monotonic()
        try:
            pause = await _take_turn(schedule, projector, interval_s)
            # Folding takes at most half of the time, however long a round lasts.
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


async def _take_turn(schedule: FoldSchedule, projector: Projector, interval_s: float) -> float:
    """Fold if it is this worker's turn; return the seconds until the next check."""
    was_mine = schedule.is_mine
    if schedule.is_new:
        installation = await projector.read_installation()
        schedule.is_new = not installation.has_points
        if schedule.is_new and installation.has_events:
            schedule.take_over()
        elif not schedule.is_mine:
            await projector.close()
    if not schedule.is_mine:
        if schedule.is_new:
            return schedule.new_s()
        patience = schedule.patience_s()
        if schedule.silence_s() < patience:
            return patience - schedule.silence_s()
        if await projector.is_folded(patience):
            await projector.close()
            schedule.hear("")
            return patience
        schedule.take_over()
    # A longer round would be followed by as long a pause, in which readers see nothing new.
    done = await projector.run_once(within_s=interval_s)
    idle = not (done.batches or done.events or done.reason is not None)
    if not was_mine and (idle or (done.outcome is Outcome.BUSY and not done.events)):
        schedule.hear("")  # several took over at once, and another one was faster
        await projector.close()
    elif not done.events and done.reason is None:  # a worker that can't fold must not silence those that can
        await projector.heartbeat()
    schedule.is_new = schedule.is_new and not done.events
    return min(interval_s, schedule.new_s()) if schedule.is_new else interval_s


async def _close_quietly(projector: Projector) -> None:
    try:
        await projector.close()
    except Exception:  # the connection is broken already
        return
