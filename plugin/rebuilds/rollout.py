"""Decide on each worker whether a version with its rules is promoted: newer rules, or nobody folds the live one.

During a rolling deploy old and new code fold a version each. If no process folds the live version any more, because
its code is gone, any worker may promote a version of its own rules, so that metrics never stand still for good.
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

#: Seconds for which a version is kept that leaves out more than the live one; after that it is rebuilt.
WITHHELD_S = 7 * DAY_S
#: Least number of seconds without a fold, though events wait, after which any worker may replace the live version.
STANDSTILL_S = 600


def standstill_after_s(sync_interval_s: float) -> float:
    """Return the seconds without a fold after which the live version stands still; at least three sync intervals."""
    return max(STANDSTILL_S, 3 * sync_interval_s)


class RolloutPlan(NamedTuple):
    """What a worker has to do about the rules of the live version.

    Attributes:
        cause: Why a version of the worker's rules is to be promoted; None if none is.
        version: A version on standby that can be promoted again; None to backfill one.
        reason: A sentence for the operator; "" if there is nothing to say.
    """

    cause: Literal["newer", "standstill"] | None = None
    version: int | None = None
    reason: str = ""


def plan_rollout(
    rules: RuleSet,
    live: Version,
    versions: Sequence[Version],
    blocked_rules: Sequence[str],
    *,
    auto: bool,
    stands_still: bool,
) -> RolloutPlan:
    """Decide what a worker with *rules* does about a live version of other rules.

    Args:
        auto: Whether newer rules are promoted without being asked for.
        stands_still: Whether the live version has not been folded for long, though events wait.
    """
    if not (reason := live.refuses(rules)):
        return RolloutPlan()
    if live.pair == rules.pair:
        return RolloutPlan(reason=reason)
    standby = [one.version for one in versions if one.status == "standby" and not one.refuses(rules)]
    on_demand = [one.version for one in versions if one.pair == rules.pair and not one.auto_promote]
    again = max(standby, default=None)
    if stands_still:
        return RolloutPlan("standstill", again, f"nobody folds the live version: {reason}")
    if not is_above(rules.pair, live.pair):
        return RolloutPlan(reason=f"{reason}: this worker records and reads, and leaves folding to newer code")
    if label(rules.pair) in blocked_rules:
        return RolloutPlan(
            reason=f"{reason}, which an undo has blocked: `chancy-metrics swap` or `rebuild` promotes them again"
        )
    if not auto:
        return RolloutPlan(reason=f"{reason}: a rebuild is due, run `chancy-metrics rebuild`")
    if on_demand:
        return RolloutPlan(reason=f"{reason}: version {on_demand[0]} waits for `chancy-metrics swap`")
    return RolloutPlan("newer", again)


async def read_rollout_plan(
    cursor: Cursor, tables: Tables, options: Options, *, standstill_s: float | None = None
) -> RolloutPlan:
    """Read the versions and decide what a worker with these options has to do.

    Args:
        standstill_s: Seconds without a fold after which the live version stands still; `standstill_after_s` by default.
    """
    from chancy_metrics.projections.versions.lag import live_lag
    from chancy_metrics.projections.versions.version import live_version, read_head, read_versions

    live = await live_version(cursor, tables)
    if not live.refuses(options.rules):
        return RolloutPlan()
    patience_s = standstill_after_s(options.sync_interval) if standstill_s is None else standstill_s
    versions = await read_versions(cursor, tables)
    plan = plan_rollout(
        options.rules,
        live,
        versions,
        (await read_head(cursor, tables)).blocked_rules,
        auto=options.auto_rebuild,
        stands_still=(await live_lag(cursor, tables)).standstill_s > patience_s,
    )
    if plan.cause is None:
        mine = [one for one in versions if one.pair == options.rules.pair]
        for sentence in await _withheld(cursor, tables, mine, live):
            return RolloutPlan(reason=sentence)
    return plan


async def read_all_withheld(cursor: Cursor, tables: Tables) -> list[str]:
    """Return a sentence for each version with newer rules that is not promoted because it leaves out more."""
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
    """Backfills and promotes versions of one worker's rules."""

    def __init__(
        self, chancy: Chancy, folded_by: str, options: Options, log: Logger, *, standstill_s: float | None = None
    ) -> None:
        self._chancy = chancy
        self._folded_by = folded_by
        self._options = options
        self._log = log
        self._warnings = RateLimited(log)
        self._standstill_s = standstill_s

    async def run_once(self) -> RolloutPlan:
        """Read the plan and carry it out; do nothing if another worker does.

        Raises:
            VersionRefused: The version can't be folded or promoted.
            psycopg.Error: Whatever the database raises.
        """
        tables = tables_for(self._chancy.prefix)
        async with self._chancy.pool.connection(timeout=2) as connection, short_transaction(connection) as cursor:
            plan = await read_rollout_plan(cursor, tables, self._options, standstill_s=self._standstill_s)
        if plan.reason:
            self._warnings.warn("rules", f"metrics: {plan.reason}")
        if plan.cause is not None:
            try:
                await self._carry_out(plan)
            except AlreadyRunning:
                return RolloutPlan()
        return plan

    async def _carry_out(self, plan: RolloutPlan) -> None:
        from chancy_metrics.plugin.rebuilds.backfill import Backfill
        from chancy_metrics.projections.versions.create import withhold_version

        assert plan.cause is not None
        async with (
            own_connection(self._chancy, self._folded_by) as working,
            own_connection(self._chancy, self._folded_by) as holding,
        ):
            backfill = Backfill(self._chancy, self._options, working, self._folded_by, version=plan.version or 0)
            if plan.version is None:
                await backfill.begin(auto_promote=True, again=False)
            await backfill.run()
            try:
                await backfill.promote(holding, cause=plan.cause)
            except LeavesOutMore as error:
                await withhold_version(working, backfill.tables, backfill.version, keep_s=WITHHELD_S)
                self._log.error("metrics: %s", error)
                return
        self._log.info("metrics: version %s with rules %s is live", backfill.version, label(self._options.rules.pair))
