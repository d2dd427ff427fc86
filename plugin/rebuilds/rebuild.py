"""Rebuild the rollups into a new version while the live one serves reads; compare both, and promote the new one."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from chancy import Chancy

from chancy_metrics.events.database import Connection, Cursor, database_now_us, short_transaction
from chancy_metrics.events.error_kinds import in_words
from chancy_metrics.events.errors import VersionRefused
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin.folding.projector import Projector
from chancy_metrics.plugin.host.app import options_of
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.options import DAY_S, Options
from chancy_metrics.plugin.host.progress import RebuildProgress
from chancy_metrics.plugin.parallel.source import check_read_dsn, source_of
from chancy_metrics.plugin.rebuilds.ahead import fold_ahead
from chancy_metrics.plugin.rebuilds.backfill import Backfill
from chancy_metrics.plugin.rebuilds.connection import connect_bounded, run_name
from chancy_metrics.plugin.rebuilds.from_archives import Archives, Collection
from chancy_metrics.projections.fold.points import Comparison
from chancy_metrics.projections.verify.outcomes import keep_rebuilt
from chancy_metrics.projections.verify.records import RebuildCompared
from chancy_metrics.projections.versions.compare import compare
from chancy_metrics.projections.versions.create import finish_version
from chancy_metrics.projections.versions.outcome import Outcome
from chancy_metrics.projections.versions.promote import catch_up, promotion_blocker
from chancy_metrics.projections.versions.version import (
    Version,
    live_version,
    lock_version,
    read_head,
    read_version,
)

#: Seconds to wait for another rebuild, which may have been killed a moment ago.
_PATIENCE_S = 5


class Rebuilt(msgspec.Struct, frozen=True):
    """The result of a rebuild.

    Attributes:
        version: Number of the new version.
        replaced: Number of the version that was live.
        swapped: Whether the new version is live now; otherwise it is ready for `swap`.
        position: Ledger position at which both versions were compared.
        points: Number of points of the new version in the time that both keep.
        different: Number of points that differ, or that only one version has; *differences* lists the first ones.
        left_out: Number of batches the new version leaves out; *leaves_out* says which, why, and which rules failed;
            *left_out_before* says the same of the replaced version. "" if nothing is left out.
        events: Number of events this run folded, in *seconds*.
        behind: The position past which the new version can't fold events, and why; "" if it can.
        archives: Which pruned days were folded from their archives, and which were not; None without archives.
    """

    version: int
    replaced: int
    swapped: bool
    position: int
    points: int
    different: int
    differences: list[str]
    left_out: int
    leaves_out: str
    left_out_before: str
    events: int
    took_s: float
    behind: str = ""
    archives: Archives | None = None


async def rebuild(
    chancy: Chancy,
    *,
    swap: bool = True,
    throttle_s: float | None = None,
    keep_s: float = DAY_S,
    by: str | None = None,
    executor: Executor | None = None,
    read_dsn: str | None = None,
    archive: str | Path | None = None,
    on_progress: Callable[[RebuildProgress], None] | None = None,
) -> Rebuilt:
    """Rebuild the rollups from the log into a new version, compare it with the live one, and promote it.

    If it is killed, the next call resumes it and ends with the same bytes.

    Args:
        swap: Promote the new version; otherwise it is left ready for `swap`.
        throttle_s: Pause while events have waited for the live version for longer than a sync interval and this many
            seconds; half a sync interval by default.
        keep_s: Seconds for which the replaced version, or one left ready, is kept.
        by: Name of the caller, as `status` and `versions` show it; user, host and process by default.
        executor: Runs tasks that fold ranges of the ledger, and archives, ahead; without one, this process folds them.
        read_dsn: The database from which the tasks read: a replica of the app's, by default that itself.
        archive: Where `prune --archive` wrote pruned days: a folder, or a URL that fsspec reads. They are folded again,
            and what the baseline has of them is not taken; a day without a sound archive keeps that.
        on_progress: Called after each step, from the event loop.

    Raises:
        AlreadyRunning: Another process rebuilds by the same rules.
        VersionRefused: The live version's rules are newer than this code's.
        TableLocked: A table was locked for longer than `REBUILD_LOCK_LIMIT_MS`; the next call resumes.
        WorkersLost: The processes or machines of the executor are gone; the next call resumes.
        MetricsLogError: A rule can't be imported by tasks, *read_dsn* is no replica, or the archives can't be read.
    """
    check_read_dsn(executor, read_dsn)
    options = options_of(chancy)
    folded_by = run_name("rebuild", by)
    behind = ""
    async with AsyncExitStack() as stack:
        working, holding, comparing = [
            await stack.enter_async_context(connect_bounded(chancy, folded_by)) for _ in range(3)
        ]
        folder, source = None, source_of(chancy, read_dsn)
        if executor is not None:
            tables = tables_for(chancy.prefix)
            folder = await stack.enter_async_context(fold_ahead(executor, source, tables, options.rules))
        backfill = Backfill(
            chancy, options, working, folded_by, throttle_s=throttle_s, folder=folder, on_progress=on_progress
        )
        await _check_promotable(backfill, working)
        collected, archives = None, None
        if archive is not None:
            collection = Collection(
                backfill, working, archive, patience_s=_PATIENCE_S, executor=executor, source=source
            )
            collected, archives = await collection.run()
        await backfill.begin(auto_promote=swap, patience_s=_PATIENCE_S, collected=collected)
        await backfill.run()
        live, position, compared = await _compare(backfill, working, holding, comparing, folded_by)
        if swap:
            backfill.progress.report("swapping", position, position)
            await backfill.promote(holding, cause="asked", keep_s=keep_s)
            behind = await _fold_waiting(chancy, options, folded_by)
        else:
            await finish_version(working, backfill.tables, backfill.version, keep_s=keep_s)
        left_out = await backfill.left_out()
        return Rebuilt(
            version=backfill.version,
            replaced=live,
            swapped=swap,
            position=position,
            points=compared.points,
            different=compared.different,
            differences=[str(one) for one in compared.differences],
            left_out=left_out.batches,
            leaves_out=left_out.sentence,
            left_out_before=(await backfill.left_out(live)).sentence,
            events=backfill.progress.events,
            took_s=time.monotonic() - backfill.progress.started,
            behind=behind,
            archives=archives,
        )


async def _check_promotable(backfill: Backfill, connection: Connection) -> None:
    """Raise before the work what the promotion would raise after it."""
    async with short_transaction(connection) as cursor:
        live = await live_version(cursor, backfill.tables)
        head = await read_head(cursor, backfill.tables)
    candidate = live._replace(pair=backfill.rules.pair, rule_names=backfill.rules.names)
    if reason := promotion_blocker(candidate, live, head, "asked"):
        raise VersionRefused(f"a rebuild by this code would not be taken: {reason}")
    if live.pair == candidate.pair and (reason := live.refuses(backfill.rules)):
        raise VersionRefused(reason)


async def _fold_waiting(chancy: Chancy, options: Options, folded_by: str) -> str:
    """Fold the events that wait for the new live version; return a sentence if they can't be folded, else ""."""
    projector = Projector(chancy, folded_by, rules=options.rules)
    try:
        done = await projector.run_once(within_s=_PATIENCE_S)
        reason = None if done.outcome is Outcome.BUSY else done.reason
    except Exception as error:  # the new version is live, whatever happens after that
        reason = in_words(error)
    finally:
        await projector.close()
    if not reason:
        return ""
    async with bounded_connection(chancy) as connection, short_transaction(connection) as cursor:
        live = await live_version(cursor, tables_for(chancy.prefix))
    return f"version {live.version} stands at position {live.position}, and events past it can't be folded: {reason}"


async def _compare(
    backfill: Backfill,
    working: Connection,
    holding: Connection,
    comparing: Connection,
    folded_by: str,
) -> tuple[int, int, Comparison]:
    """Compare the new version with the live one, both at one position, in one snapshot.

    Returns:
        The live version's number, the position, and the comparison.
    """
    tables = backfill.tables
    while True:
        async with AsyncExitStack() as stack:
            async with short_transaction(holding) as cursor:
                live = await _lock_live(cursor, tables, (await backfill.read_live()).version)
                if live is None:
                    continue
                backfill.progress.events += await catch_up(
                    working, tables, backfill.version, backfill.rules, until=live.position, folded_by=folded_by
                )
                snapshot = await stack.enter_async_context(short_transaction(comparing, isolation="REPEATABLE READ"))
                new = await read_version(snapshot, tables, backfill.version)  # takes the snapshot while neither moves
            assert new is not None
            await backfill.progress.count_to(live.position)
            backfill.progress.report("comparing", live.position, live.position)
            compared = await compare(snapshot, tables, live, new)
        await _keep_comparison(working, tables, backfill.version, live, compared)
        return live.version, live.position, compared


async def _keep_comparison(
    connection: Connection, tables: Tables, version: int, live: Version, compared: Comparison
) -> None:
    """Store the result of the comparison for `status`."""
    async with short_transaction(connection) as cursor:
        at = datetime.fromtimestamp(await database_now_us(cursor) / 1e6, UTC)
        made = RebuildCompared(live.version, at, live.position, compared.points, compared.different)
        await keep_rebuilt(cursor, tables, version, made)


async def _lock_live(cursor: Cursor, tables: Tables, version: int) -> Version | None:
    """Lock *version* until the transaction ends, so that no other one is promoted; None if it is not the live one.

    Another one may have been promoted before the lock was granted.
    """
    locked = await lock_version(cursor, tables, version, wait=True)
    return locked if locked is not None and version == (await read_head(cursor, tables)).live else None
