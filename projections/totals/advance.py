"""Advance the totals by one step, exactly once beside other processes; begin to build them where there are none."""

from __future__ import annotations

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.rules.rule_set import RuleSet
from chancy_metrics.projections.totals.generation import begin_generation, copy_baseline, serve, take_over
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.isolate import leave_out_next
from chancy_metrics.projections.versions.outcome import Advanced
from chancy_metrics.projections.versions.step import STEP_EVENTS
from chancy_metrics.projections.versions.version import Version, read_generations


async def advance_totals(
    connection: Connection,
    tables: Tables,
    rules: RuleSet,
    *,
    folded_by: str,
    step_events: int = STEP_EVENTS,
    lock_wait_ms: int | None = None,
) -> Advanced:
    """Take the next step of the totals: of the generation that is served or, without one, of the one that is built.

    It is a step of a version (`projections/versions/step.py`): rows and position are one transaction under the row's
    lock, for which nobody waits long, and a batch that can't be folded is left out as a dead letter. A generation that
    has caught up with the ledger is served from then on.

    Raises:
        TotalsNotReady: There is none, and none can be begun now.
        StuckAt: A batch fails alone, and its error may be temporary.
    """
    current = await current_generation(connection, tables)
    if current is not None and current.refuses(rules):
        if reason := await take_over(connection, tables, current, rules):
            return Advanced.refused(current.position, reason)
        current = await current_generation(connection, tables)
    if current is None:
        current = await begin_generation(connection, tables, rules, by=folded_by)
    return await step_generation(
        connection, tables, current, rules, folded_by=folded_by, step_events=step_events, lock_wait_ms=lock_wait_ms
    )


async def step_generation(
    connection: Connection,
    tables: Tables,
    generation: Version,
    rules: RuleSet,
    *,
    folded_by: str,
    step_events: int = STEP_EVENTS,
    lock_wait_ms: int | None = None,
) -> Advanced:
    """Take the next step of *generation*; serve it once it has caught up."""
    if generation.status == "totals_copying":
        return await copy_baseline(connection, tables, generation)
    done = await advance(
        connection,
        tables,
        folded_by=folded_by,
        rules=rules,
        version=generation.version,
        step_events=step_events,
        lock_wait_ms=lock_wait_ms,
    )
    if done.caught_up and generation.status == "totals_backfilling":
        await serve(connection, tables, generation)
    return done


async def current_generation(connection: Connection, tables: Tables) -> Version | None:
    """Return the generation that is served, or else the one that is being built; None without any."""
    async with short_transaction(connection) as cursor:
        generations = await read_generations(cursor, tables)
    served = [one for one in generations if one.status == "totals"]
    return next(iter([*served, *generations]), None)


async def leave_out_next_total(connection: Connection, tables: Tables, error: Exception, *, folded_by: str) -> Advanced:
    """Leave out the next batch of the totals, for which there was too little memory."""
    current = await current_generation(connection, tables)
    if current is None:
        raise error
    return await leave_out_next(connection, tables, error, folded_by=folded_by, version=current.version)
