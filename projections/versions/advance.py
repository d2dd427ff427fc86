"""Advance a version by one step, exactly once beside other projectors; leave out a batch that makes steps fail."""

from __future__ import annotations

from chancy_metrics.events.database import Connection
from chancy_metrics.events.error_kinds import may_be_batch_error
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.rules.rule_set import BUILT_IN, RuleSet
from chancy_metrics.projections.versions.isolate import isolate
from chancy_metrics.projections.versions.outcome import Advanced
from chancy_metrics.projections.versions.step import (
    STEP_EVENTS,
    Announce,
    read_step,
    write_step,
)


async def advance(
    connection: Connection,
    tables: Tables,
    *,
    folded_by: str,
    rules: RuleSet = BUILT_IN,
    version: int | None = None,
    until: int | None = None,
    step_events: int = STEP_EVENTS,
    announce: Announce | None = None,
    lock_wait_ms: int | None = None,
) -> Advanced:
    """Fold the next range of the ledger into a version, exactly once; call again until it has caught up.

    Ledger rows never change, so the range is read and folded before any lock is taken. Under the version's lock the
    version must still be at the position that the range follows; otherwise another process was faster, and nothing is
    written. Rows, position and, of the live version, the ring row are one transaction.

    A batch that can't be folded or stored is isolated and left out; errors that may pass are raised.

    Args:
        version: Number of the version; the live one by default.
        until: Last position to fold; the end of the ledger by default.
        step_events: Most events to fold, unless the first batch has more.
        announce: Announces a fold of the live version, in its transaction.
        lock_wait_ms: How long to wait for a locked table while reading; by default what `limit_locks` says.
    """
    try:
        step = await read_step(
            connection,
            tables,
            rules=rules,
            version=version,
            until=until,
            step_events=step_events,
            lock_wait_ms=lock_wait_ms,
        )
        if isinstance(step, Advanced):
            return step
        return await write_step(connection, tables, step, folded_by=folded_by, announce=announce)
    except Exception as error:
        if not may_be_batch_error(error):
            raise
    return await isolate(
        connection,
        tables,
        folded_by=folded_by,
        rules=rules,
        version=version,
        until=until,
        step_events=step_events,
        announce=announce,
    )
