"""Build the totals anew from the baseline and the log, compare them with those that are served, and serve them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AsyncExitStack, suppress
from typing import NamedTuple

import anyio
import msgspec
from chancy import Chancy

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.errors import VersionRefused
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin.host.app import options_of
from chancy_metrics.plugin.host.progress import RebuildProgress
from chancy_metrics.plugin.parallel.source import check_read_dsn, source_of
from chancy_metrics.plugin.rebuilds.ahead import fold_ahead
from chancy_metrics.plugin.rebuilds.backfill import Backfill
from chancy_metrics.plugin.rebuilds.connection import connect_bounded, run_name
from chancy_metrics.projections.rules.rule_set import RuleSet, is_above
from chancy_metrics.projections.totals.advance import current_generation
from chancy_metrics.projections.totals.compare import TotalDifference, TotalsCompared, compare_totals
from chancy_metrics.projections.totals.generation import begin_generation, copy_baseline, drop_unserved, serve
from chancy_metrics.projections.versions.left_out import left_out
from chancy_metrics.projections.versions.outcome import Outcome
from chancy_metrics.projections.versions.promote import catch_up
from chancy_metrics.projections.versions.version import TOTALS_DROPPED, Version, read_head, read_version

_BUSY_S = 0.05


class RebuiltTotals(msgspec.Struct, frozen=True):
    """The result of building the totals anew.

    Attributes:
        generation: Number of the new generation.
        replaced: The one that was served before; None if none was.
        swapped: Whether the new one is served now; otherwise it was only compared, and is dropped.
        position: Ledger position at which both were compared, or which the new one has reached if they were not.
        series: How many series were compared; None if the two never were at one position, or none was served.
        different: How many of those differ in any column, or are in one only; *differences* are the first ones.
        leaves_out: Which batches the new one leaves out, and which rules failed; "" for none.
        events: Number of events this run folded, in *seconds*.
    """

    generation: int
    replaced: int | None
    swapped: bool
    position: int
    series: int | None
    different: int
    differences: list[TotalDifference]
    leaves_out: str
    events: int
    took_s: float


async def rebuild_totals(
    chancy: Chancy,
    *,
    swap: bool = True,
    throttle_s: float | None = None,
    by: str | None = None,
    executor: Executor | None = None,
    read_dsn: str | None = None,
    on_progress: Callable[[RebuildProgress], None] | None = None,
) -> RebuiltTotals:
    """Build the totals anew from the baseline and the log by this app's rules, and serve them instead of the old ones.

    The only way to correct a total, for instance after a bug, an import of the built-in's points or a rebuild from
    archives. Exporters read the old generation until then; a total of the new one may be lower, which they see as
    another `generation`. If it is killed, the next call resumes it.

    Args:
        swap: Serve them; otherwise only compare them with those that are served, and drop them.
        throttle_s: Pause while events have waited for the live version for longer than a sync interval and this many
            seconds; half a sync interval by default.
        by: Name of the caller, as `status` shows it; user, host and process by default.
        executor: Runs tasks that fold ranges of the ledger ahead; without one, this process folds them.
        read_dsn: The database from which the tasks read: a replica of the app's, by default that itself.
        on_progress: Called after each step, from the event loop.

    Raises:
        TotalsNotReady: An import has not ended.
        VersionRefused: The old generation has newer rules, or a batch can't be folded now; or, without *swap*, none is
            served that these could be compared with, or only one of other rules.
        TableLocked: A table was locked for longer than `REBUILD_LOCK_LIMIT_MS`; the next call resumes.
        WorkersLost: The processes or machines of the executor are gone; the next call resumes.
    """
    check_read_dsn(executor, read_dsn)
    options, tables, name = options_of(chancy), tables_for(chancy.prefix), run_name("rebuild --totals", by)
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(connect_bounded(chancy, name))
        folder = None
        if executor is not None:
            source = source_of(chancy, read_dsn)
            folder = await stack.enter_async_context(fold_ahead(executor, source, tables, options.rules))
        current = await current_generation(connection, tables)
        replaced = current if current is not None and current.status == "totals" else None
        if replaced is not None and is_above(replaced.pair, options.rules.pair):
            raise VersionRefused(
                f"totals by this code would lack what newer rules make: {replaced.refuses(options.rules)}"
            )
        if replaced is None and not swap:
            raise VersionRefused("no totals are served yet that others could be compared with: serve these")
        made = await begin_generation(connection, tables, options.rules, by=name)
        backfill = Backfill(
            chancy,
            options,
            connection,
            name,
            version=made.version,
            throttle_s=throttle_s,
            folder=folder,
            on_progress=on_progress,
        )
        backfill.progress.begin(made)
        await _copy(backfill, connection, tables, made)
        await backfill.run()
        done = await _finish(connection, tables, made, replaced, options.rules, name, swap=swap)
        async with short_transaction(connection) as cursor:
            leaves_out = (await left_out(cursor, tables, made.version)).sentence
    return RebuiltTotals(
        generation=made.version,
        replaced=None if replaced is None else replaced.version,
        swapped=swap,
        position=done.position,
        series=done.compared and done.compared.series,
        different=done.compared.different if done.compared else 0,
        differences=list(done.compared.differences) if done.compared else [],
        leaves_out=leaves_out,
        events=backfill.progress.events + done.events,
        took_s=time.monotonic() - backfill.progress.started,
    )


async def _copy(backfill: Backfill, connection: Connection, tables: Tables, generation: Version) -> None:
    while True:
        async with short_transaction(connection) as cursor:
            mine = await read_version(cursor, tables, generation.version)
        if mine is None or mine.status != "totals_copying":
            return
        target = (await backfill.read_live()).position
        await backfill.progress.count_to(target)
        backfill.progress.report("copying", mine.position, target)
        if (await copy_baseline(connection, tables, mine)).outcome is Outcome.BUSY:
            await anyio.sleep(_BUSY_S)


class _Finish(NamedTuple):
    """Where a new generation was served, how it compares with the old one, and what was folded for that."""

    position: int
    compared: TotalsCompared | None
    events: int


async def _finish(
    connection: Connection,
    tables: Tables,
    generation: Version,
    replaced: Version | None,
    rules: RuleSet,
    folded_by: str,
    *,
    swap: bool,
) -> _Finish:
    """Fold the rest into both generations, compare them, and serve the new one once it is not behind; or drop it."""
    events, compared = 0, None
    while True:
        async with short_transaction(connection) as cursor:
            target = (await read_head(cursor, tables)).position
            mine = await read_version(cursor, tables, generation.version)
        if mine is None or mine.status == TOTALS_DROPPED:
            raise VersionRefused(
                f"generation {generation.version} of the totals was given up meanwhile, for an import or for one of "
                "other rules: run the command again"
            )
        if mine.status == "totals":  # another call of this was faster
            return _Finish(mine.position, compared, events)
        events += await catch_up(connection, tables, mine.version, rules, until=target, folded_by=folded_by)
        if replaced is not None:
            with suppress(*([VersionRefused] if swap else [])):  # of other rules: then they are not compared
                await catch_up(connection, tables, replaced.version, rules, until=target, folded_by=folded_by)
            compared = await _compare(connection, tables, replaced.version, mine.version)
        if not swap:
            if compared is not None and await drop_unserved(connection, tables, mine):
                return _Finish(target, compared, events)
        elif await serve(connection, tables, mine):
            return _Finish(target, compared, events)


async def _compare(connection: Connection, tables: Tables, before: int, after: int) -> TotalsCompared | None:
    """Compare two generations if both are at one position."""
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        old, new = await read_version(cursor, tables, before), await read_version(cursor, tables, after)
        if old is None or new is None or old.position != new.position:
            return None
        return await compare_totals(cursor, tables, before, after)
