"""Read the totals for an exporter, and advance them before, as far as the time allows."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from weakref import WeakKeyDictionary

import psycopg
from chancy import Chancy

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.error_kinds import in_words
from chancy_metrics.events.errors import StuckAt, TotalsNotReady
from chancy_metrics.events.humanize import moment
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin.folding.totals import advance_for
from chancy_metrics.plugin.host.app import options_of
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.throttled_log import RateLimited
from chancy_metrics.projections.totals.read import Totals, read_served, read_states
from chancy_metrics.projections.versions.outcome import Outcome

_NAME = "chancy-metrics totals"
#: Milliseconds to wait for a lock on a table: a scrape answers with what is there rather than wait.
_LOCK_LIMIT_MS = 300

_warnings = WeakKeyDictionary[Chancy, RateLimited]()


async def read_totals(chancy: Chancy, *, within_s: float = 2.0) -> Totals:
    """Return the totals of all series, after advancing them along the ledger for up to *within_s* seconds.

    Whoever asks advances them, under a row lock for which nobody waits longer than 0.2 s: if another process holds it,
    or they can't be advanced now, the answer is as of their position. Its connection is one of its own.

    Args:
        within_s: Seconds after which no further step is taken; one is always.

    Raises:
        TotalsNotReady: They are being built, or can't be; the message says how far that is, or why.
        MetricsLogError: There is no metrics log, or a table is locked.
        psycopg.OperationalError: The database can't be reached.
    """
    tables, rules = tables_for(chancy.prefix), options_of(chancy).rules
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(_connect(chancy))
        try:
            done = await advance_for(
                connection, tables, rules, folded_by=_NAME, within_s=within_s, lock_wait_ms=_LOCK_LIMIT_MS
            )
            reason, is_alarming = done.reason, done.outcome is Outcome.REFUSED
        except (psycopg.Error, StuckAt) as error:
            reason, is_alarming = in_words(error), True
        if is_alarming:
            warnings = _warnings.setdefault(chancy, RateLimited(chancy.log))
            warnings.warn("totals", f"metrics: the totals were not advanced: {reason}")
        if connection.closed:  # by a server that takes no writes, for one
            connection = await stack.enter_async_context(_connect(chancy))
        return await _read(connection, tables, reason)


def _connect(chancy: Chancy) -> AbstractAsyncContextManager[Connection]:
    return bounded_connection(chancy, _NAME, lock_limit_ms=_LOCK_LIMIT_MS)


async def _read(connection: Connection, tables: Tables, reason: str | None) -> Totals:
    """Read the totals in one snapshot; *reason* is why they were not advanced further, if that is known."""
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        totals = await read_served(cursor, tables)
        if totals is not None:
            return totals
        states = await read_states(cursor, tables)
    why = f"; not further now: {reason}" if reason else ""
    if not states:
        raise TotalsNotReady(f"the totals are not built yet{why}; `chancy-metrics rebuild --totals` builds them")
    raise TotalsNotReady(
        f"the totals are being built since {moment(states[0].created_at)}: {states[0].progress}{why}; each request "
        "goes on with it, and `chancy-metrics rebuild --totals` builds them at once"
    )
