"""Whose rules the live version has: a worker with newer ones fills a version of its own, which then takes over.

Through a rolling deploy old and new code fold a version each. Where nobody folds the live version any more,
because its code is gone, whoever is there takes over with what it has: metrics never stand still for good.
"""

from __future__ import annotations

from collections.abc import Sequence
from logging import Logger
from typing import TYPE_CHECKING, Literal, NamedTuple

from chancy import Chancy

from chancy_metrics.events.database import Cursor, short_transaction
from chancy_metrics.events.errors import AlreadyRunning, LeavesOutMore
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin.host.connection import own_connection
from chancy_metrics.plugin.host.options import DAY_S, Options
from chancy_metrics.plugin.host.throttled_log import RateLimited
from chancy_metrics.projections.rules.rule_set import RuleSet, is_above, label
from chancy_metrics.projections.versions.left_out import left_out, withheld

if TYPE_CHECKING:  # numpy comes with this: a worker that only records starts without it
    from chancy_metrics.projections.versions.version import Version

#: Seconds for which a version is kept that leaves out more than the live one; it is made anew after that.
WITHHELD_S = 7 * DAY_S
#: Seconds after which a live version that nobody folds, though events wait, is left to whoever is there, at the least.
STANDSTILL_S = 600


def standstill_after_s(sync_interval_s: float) -> float:
    """Seconds without a fold after which nobody folds: where folds are rare, three of them must have been missed."""
    return max(STANDSTILL_S, 3 * sync_interval_s)


class Task(NamedTuple):
    """What a worker finds to do.

    Attributes:
        cause: Why a version of its rules is to become the live one; None if none is.
        version: A version that rests and can be taken again; None to fill one.
        reason: What an operator should know; "" if all is as it should be.
    """

    cause: Literal["newer", "standstill"] | None = None
    version: int | None = None
    reason: str = ""


def find_task(
    rules: RuleSet,
    live: Version,
    versions: Sequence[Version],
    blocked_rules: Sequence[str],
    *,
    auto: bool,
    stands_still: bool,
) -> Task:
    """Decide what a worker with *rules* does about a live version of other rules.

    Args:
        auto: Whether newer rules take over by themselves.
        stands_still: Whether nobody has folded the live version for long, though events wait.
    """
    if not (reason := live.refuses(rules)):
        return Task()
    if live.pair == rules.pair:
        return Task(reason=reason)
    resting = [one.version for one in versions if one.status == "standby" and not one.refuses(rules)]
    held = [one.version for one in versions if one.pair == rules.pair and not one.auto_promote]
    again = max(resting, default=None)
    if stands_still:
        return Task("standstill", again, f"nobody folds the live version: {reason}")
    if not is_above(rules.pair, live.pair):
        return Task(reason=f"{reason}: this worker records and reads, and leaves folding to newer code")
    if label(rules.pair) in blocked_rules:
        return Task(reason=f"{reason}, which an undo has left: `chancy-metrics swap` or `rebuild` takes them again")
    if not auto:
        return Task(reason=f"{reason}: a rebuild is due, run `chancy-metrics rebuild`")
    if held:
        return Task(reason=f"{reason}: version {held[0]} is made for `chancy-metrics swap`, and waits for it")
    return Task("newer", again)


async def read_task(cursor: Cursor, tables: Tables, options: Options, *, standstill_s: float | None = None) -> Task:
    """Find what a worker with these options has to do.

    Args:
        standstill_s: Seconds without a fold after which nobody folds; `standstill_after_s` by default.
    """
    from chancy_metrics.projections.versions.lag import live_lag
    from chancy_metrics.projections.versions.version import live_version, read_head, read_versions

    live = await live_version(cursor, tables)
    if not live.refuses(options.rules):
        return Task()
    patience_s = standstill_after_s(options.sync_interval) if standstill_s is None else standstill_s
    versions = await read_versions(cursor, tables)
    task = find_task(
        options.rules,
        live,
        versions,
        (await read_head(cursor, tables)).blocked_rules,
        auto=options.auto_rebuild,
        stands_still=(await live_lag(cursor, tables)).standstill_s > patience_s,
    )
    if task.cause is None:
        mine = [one for one in versions if one.pair == options.rules.pair]
        for sentence in await _withheld(cursor, tables, mine, live):
            return Task(reason=sentence)
    return task


async def read_all_withheld(cursor: Cursor, tables: Tables) -> list[str]:
    """Say which versions do not take over by themselves, though their rules are newer, and for what they leave out."""
    from chancy_metrics.projections.versions.version import live_version, read_versions

    return await _withheld(cursor, tables, await read_versions(cursor, tables), await live_version(cursor, tables))


async def _withheld(cursor: Cursor, tables: Tables, versions: Sequence[Version], live: Version) -> list[str]:
    sentences = []
    for one in versions:
        if one.status in ("copying", "backfilling", "ready") and is_above(one.pair, live.pair):
            found = await left_out(cursor, tables, one.version)
            if found and (more := found.beyond(await left_out(cursor, tables, live.version))):
                sentences.append(withheld(more, label(one.pair), live.version))
    return sentences


class Rollout:
    """Looks, for one worker, whether a version of its rules is to become the live one, and makes it so."""

    def __init__(
        self, chancy: Chancy, folded_by: str, options: Options, log: Logger, *, standstill_s: float | None = None
    ) -> None:
        self._chancy = chancy
        self._folded_by = folded_by
        self._options = options
        self._log = log
        self._warnings = RateLimited(log)
        self._standstill_s = standstill_s

    async def look(self) -> Task:
        """Find what there is to do, and do it to the end; nothing where another worker is at it.

        Raises what the database raises, and VersionRefused.
        """
        tables = tables_for(self._chancy.prefix)
        async with self._chancy.pool.connection(timeout=2) as connection, short_transaction(connection) as cursor:
            task = await read_task(cursor, tables, self._options, standstill_s=self._standstill_s)
        if task.reason:
            self._warnings.warn("rules", f"metrics: {task.reason}")
        if task.cause is not None:
            try:
                await self._do(task)
            except AlreadyRunning:
                return Task()
        return task

    async def _do(self, task: Task) -> None:
        from chancy_metrics.plugin.rebuilds.backfill import Backfill
        from chancy_metrics.projections.versions.create import withhold_version

        assert task.cause is not None
        async with (
            own_connection(self._chancy, self._folded_by) as working,
            own_connection(self._chancy, self._folded_by) as holding,
        ):
            backfill = Backfill(self._chancy, self._options, working, self._folded_by)
            if task.version is None:
                await backfill.begin(auto_promote=True, again=False)
            else:
                backfill.version = task.version
            await backfill.run()
            try:
                await backfill.promote(holding, cause=task.cause)
            except LeavesOutMore as error:
                await withhold_version(working, backfill.tables, backfill.version, keep_s=WITHHELD_S)
                self._log.error("metrics: %s", error)
                return
        self._log.info("metrics: version %s with rules %s is live", backfill.version, label(self._options.rules.pair))
