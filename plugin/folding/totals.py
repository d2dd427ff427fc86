"""Advance the totals in this process for some time, in steps that shrink after errors of memory or time."""

from __future__ import annotations

import time
from collections.abc import Callable

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.folding.step_size import StepSize
from chancy_metrics.projections.rules.rule_set import RuleSet
from chancy_metrics.projections.totals.advance import advance_totals, leave_out_next_total
from chancy_metrics.projections.versions.outcome import Advanced, Outcome
from chancy_metrics.projections.versions.step import STEP_EVENTS


async def advance_for(
    connection: Connection,
    tables: Tables,
    rules: RuleSet,
    *,
    folded_by: str,
    within_s: float,
    is_enough: Callable[[Advanced], bool] = lambda done: False,
    lock_wait_ms: int | None = None,
) -> Advanced:
    """Advance the totals, and begin to build them if there are none, until they have caught up with the ledger.

    Starts no further step once *within_s* seconds have passed, or a step *is_enough*.

    Returns:
        The outcome of the last step.

    Raises:
        TotalsNotReady: There are none, and none can be begun now.
        StuckAt: A batch fails alone, and its error may be temporary.
        psycopg.Error: Whatever else the database raises.
    """
    until = time.monotonic() + within_s
    steps = StepSize(STEP_EVENTS)
    while True:
        try:
            done = await advance_totals(
                connection, tables, rules, folded_by=folded_by, step_events=steps.events, lock_wait_ms=lock_wait_ms
            )
        except Exception as error:
            if connection.closed:
                raise
            if steps.shrink(error) or await steps.try_again(error):
                continue
            done = await leave_out_next_total(connection, tables, error, folded_by=folded_by)
        steps.went_well(grows=False)
        if done.outcome is not Outcome.FOLDED or is_enough(done) or time.monotonic() >= until:
            return done
