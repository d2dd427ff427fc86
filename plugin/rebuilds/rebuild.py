"""The aggregates made again beside the living ones, and taken for them while readers see nothing but the result."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime
from uuid import uuid4

import msgspec
from chancy import Chancy

from chancy_metrics.events.classify import in_words
from chancy_metrics.events.database import Connection, Cursor, database_now_us, short_transaction
from chancy_metrics.events.errors import VersionRefused
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin.folding.projector import Projector
from chancy_metrics.plugin.host.app import options_of, who
from chancy_metrics.plugin.host.bounded_connection import REBUILD_LOCK_LIMIT_MS, bounded_connection
from chancy_metrics.plugin.host.options import DAY_S, Options
from chancy_metrics.plugin.host.progress import RebuildProgress
from chancy_metrics.plugin.rebuilds.backfill import Backfill
from chancy_metrics.projections.verify.outcomes import keep_rebuilt
from chancy_metrics.projections.verify.records import RebuildCompared
from chancy_metrics.projections.versions.compare import Comparison, compare
from chancy_metrics.projections.versions.create import drop_version, finish_version
from chancy_metrics.projections.versions.outcome import BUSY
from chancy_metrics.projections.versions.promote import Cause, catch_up, promotion_blocker
from chancy_metrics.projections.versions.version import (
    UNFINISHED,
    Version,
    live_version,
    lock_version,
    read_head,
    read_version,
    read_versions,
)

#: Seconds to wait for another rebuild that may have been killed a moment ago.
_PATIENCE_S = 5


class Rebuilt(msgspec.Struct, frozen=True):
    """What a rebuild came to.

    Attributes:
        version: Number of the version it filled.
        replaced: Number of the version that is, or was, live.
        swapped: Whether the new one is the live one now; otherwise it is kept, ready for `swap`.
        position: Where both stood when they were compared.
        points: How many the new one has where both keep them.
        different: How many of them differ, or are in one of them only; `differences` spells out the first ones.
        left_out: Batches that are not in the new one; *leaves_out* says which and why, and which rules failed;
            *left_out_before* says the same of the replaced one; "" where nothing is left out.
        events: How many this run folded, in *seconds*.
        behind: Where the new one stands and why it gets no further, if events past it can't be folded; else "".
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
    seconds: float
    behind: str = ""


async def rebuild(
    chancy: Chancy,
    *,
    swap: bool = True,
    throttle_s: float | None = None,
    keep_s: float = DAY_S,
    by: str | None = None,
    on_progress: Callable[[RebuildProgress], None] | None = None,
) -> Rebuilt:
    """Make the aggregates again from the log, compare them with the living ones and take their place.

    Killed at any moment, the next call goes on where this one stood and ends with the same bytes.

    Args:
        swap: Take the place; otherwise the version is left ready.
        throttle_s: Give way whenever events have waited for the live version for a sync interval and so many
            seconds more; half an interval by default.
        keep_s: Seconds the replaced version (or a ready one) is kept.
        by: Who does it, as `status` and `versions` show it; user, host and process by default.
        on_progress: Called after each step, from the event loop.

    Raises:
        AlreadyRunning: Somebody else rebuilds under the same rules.
        VersionRefused: The live version's rules are newer than this code's.
        TableLocked: Somebody holds a lock on a table for longer than `REBUILD_LOCK_LIMIT_MS`; the next call goes on.
    """
    options = options_of(chancy)
    folded_by = _folded_by("rebuild", by)
    behind = ""
    async with AsyncExitStack() as stack:
        working, holding, looking = [await stack.enter_async_context(_working(chancy, folded_by)) for _ in range(3)]
        backfill = Backfill(chancy, options, working, folded_by, throttle_s=throttle_s, on_progress=on_progress)
        await _check_wins(backfill, working)
        await backfill.begin(auto_promote=swap, patience_s=_PATIENCE_S)
        await backfill.run()
        live, position, compared = await _compare(backfill, working, holding, looking, folded_by)
        if swap:
            backfill.report("swapping", position, position)
            await backfill.promote(holding, cause="asked", keep_s=keep_s)
            behind = await _fold_on(chancy, options, folded_by)
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
            events=backfill.events,
            seconds=time.monotonic() - backfill.started,
            behind=behind,
        )


async def swap(chancy: Chancy, version: int | None = None, *, keep_s: float = DAY_S, by: str | None = None) -> int:
    """Let a version that is ready, or rests, take the live one's place; return its number.

    Args:
        version: Its number; the newest that is ready by default.
        keep_s: Seconds the replaced version is kept for `undo`.
        by: Who does it, as `status` and `versions` show it; user, host and process by default.

    Raises:
        VersionRefused: No version is ready, or this one may not become live; the message says why.
        TableLocked: A table was locked for longer than `REBUILD_LOCK_LIMIT_MS`; the next call goes on.
    """
    async with bounded_connection(chancy) as connection, short_transaction(connection) as cursor:
        ready = [one.version for one in await read_versions(cursor, tables_for(chancy.prefix)) if one.status == "ready"]
    if version is None and not ready:
        raise VersionRefused("no version is ready: make one with `chancy-metrics rebuild --no-swap`")
    return await _take(chancy, ready[-1] if version is None else version, cause="asked", keep_s=keep_s, by=by)


async def undo(chancy: Chancy, *, keep_s: float = DAY_S, by: str | None = None) -> int:
    """Let the version that was live before catch up and take its place again; return its number.

    The rules that are left are not taken again without an explicit `swap` or `rebuild`.

    Args:
        keep_s: Seconds the replaced version is kept for another `undo`.
        by: Who does it, as `status` and `versions` show it; user, host and process by default.

    Raises:
        VersionRefused: No earlier version is kept, or it has other rules than this code.
        TableLocked: A table was locked for longer than `REBUILD_LOCK_LIMIT_MS`; the next call goes on.
    """
    tables = tables_for(chancy.prefix)
    async with bounded_connection(chancy) as connection, short_transaction(connection) as cursor:
        live = await live_version(cursor, tables)
        before = None if live.replaced is None else await read_version(cursor, tables, live.replaced)
    if before is None or before.status != "standby":
        raise VersionRefused(
            f"there is nothing to go back to: no version from before {live.version} is kept; "
            "`chancy-metrics rebuild` makes the numbers again by the rules of this app"
        )
    return await _take(chancy, before.version, cause="undo", keep_s=keep_s, by=by)


async def abort(chancy: Chancy) -> int | None:
    """Drop the unfinished version of this code's rules; return its number, None if there is none.

    Raises:
        MetricsLogError: There is no metrics log, or a table is locked.
    """
    tables = tables_for(chancy.prefix)
    pair = options_of(chancy).rules.pair
    async with bounded_connection(chancy) as connection:
        async with short_transaction(connection) as cursor:
            versions = await read_versions(cursor, tables)
        for one in versions:
            if one.status in UNFINISHED and one.pair == pair and await drop_version(connection, tables, one.version):
                return one.version
    return None


async def _check_wins(backfill: Backfill, connection: Connection) -> None:
    """Refuse before the work what the swap would refuse after it."""
    async with short_transaction(connection) as cursor:
        live = await live_version(cursor, backfill.tables)
        head = await read_head(cursor, backfill.tables)
    wanted = live._replace(pair=backfill.rules.pair, rule_names=backfill.rules.names)
    if reason := promotion_blocker(wanted, live, head, "asked"):
        raise VersionRefused(f"a rebuild by this code would not be taken: {reason}")
    if live.pair == wanted.pair and (reason := live.refuses(backfill.rules)):
        raise VersionRefused(reason)


async def _fold_on(chancy: Chancy, options: Options, folded_by: str) -> str:
    """Fold what waits for the version that is live now, for a moment; say what keeps it from that, if anything does."""
    projector = Projector(chancy, folded_by, rules=options.rules)
    try:
        done = await projector.run_once(within_s=_PATIENCE_S)
        reason = "" if done.reason == BUSY else done.reason
    except Exception as error:  # the new version is live, whatever comes after it
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
    looking: Connection,
    folded_by: str,
) -> tuple[int, int, Comparison]:
    """Compare with the live version, both at one position, in one snapshot; return its number and that position."""
    tables = backfill.tables
    while True:
        async with AsyncExitStack() as stack:
            async with short_transaction(holding) as cursor:
                live = await _lock_live(cursor, tables, (await backfill.read_live()).version)
                if live is None:
                    continue
                backfill.events += await catch_up(
                    working, tables, backfill.version, backfill.rules, until=live.position, folded_by=folded_by
                )
                snapshot = await stack.enter_async_context(short_transaction(looking, isolation="REPEATABLE READ"))
                filled = await read_version(snapshot, tables, backfill.version)  # takes the snapshot while both stand
            assert filled is not None
            await backfill.count_events(live.position)
            backfill.report("comparing", live.position, live.position)
            compared = await compare(snapshot, tables, live, filled)
        await _keep_comparison(working, tables, backfill.version, live, compared)
        return live.version, live.position, compared


async def _keep_comparison(
    connection: Connection, tables: Tables, version: int, live: Version, compared: Comparison
) -> None:
    """Keep for `status` what the comparison with the version before has found."""
    async with short_transaction(connection) as cursor:
        at = datetime.fromtimestamp(await database_now_us(cursor) / 1e6, UTC)
        made = RebuildCompared(live.version, at, live.position, compared.points, compared.different)
        await keep_rebuilt(cursor, tables, version, made)


async def _lock_live(cursor: Cursor, tables: Tables, version: int) -> Version | None:
    """Lock *version* until the transaction ends: no pointer turns from it meanwhile; None if it is not the live one.

    Another one may have taken its place before the lock was there, and it may be on its way out.
    """
    locked = await lock_version(cursor, tables, version, wait=True)
    return locked if locked is not None and version == (await read_head(cursor, tables)).live else None


async def _take(chancy: Chancy, version: int, *, cause: Cause, keep_s: float, by: str | None) -> int:
    folded_by = _folded_by("swap" if cause == "asked" else cause, by)
    options = options_of(chancy)
    async with _working(chancy, folded_by) as working, _working(chancy, folded_by) as holding:
        async with short_transaction(working) as cursor:
            there = {one.version: one for one in await read_versions(cursor, tables_for(chancy.prefix))}
        if version not in there or there[version].status in ("live", "dropped"):
            is_what = there[version].status if version in there else "not there"
            raise VersionRefused(
                f"version {version} can't become the live one: it is {is_what}; `chancy-metrics versions` lists those "
                f"that rest or are ready, and `chancy-metrics rebuild` makes one"
            )
        backfill = Backfill(chancy, options, working, folded_by)
        backfill.version = version
        # Long before the locks, so that under them little is left.
        until = (await backfill.read_live()).position
        await catch_up(working, backfill.tables, version, options.rules, until=until, folded_by=folded_by)
        await backfill.promote(holding, cause=cause, keep_s=keep_s)
    return version


def _working(chancy: Chancy, folded_by: str) -> AbstractAsyncContextManager[Connection]:
    return bounded_connection(chancy, folded_by, lock_limit_ms=REBUILD_LOCK_LIMIT_MS)


def _folded_by(what: str, by: str | None) -> str:
    name = f"{what} {uuid4().hex[:8]} by {by or f'{who()} ({os.getpid()})'}"
    return name.encode("ascii", "replace").decode()  # PostgreSQL takes nothing else in an application_name
