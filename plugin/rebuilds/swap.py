"""Promote another version than the live one: swap to one that is ready, undo the last promotion, abort a rebuild."""

from __future__ import annotations

from chancy import Chancy

from chancy_metrics.events.database import short_transaction
from chancy_metrics.events.errors import VersionRefused
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.host.app import options_of
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.options import DAY_S
from chancy_metrics.plugin.rebuilds.backfill import Backfill
from chancy_metrics.plugin.rebuilds.connection import connect_bounded, run_name
from chancy_metrics.projections.versions.create import drop_version
from chancy_metrics.projections.versions.promote import Cause, catch_up
from chancy_metrics.projections.versions.version import (
    UNFINISHED,
    live_version,
    read_collecting,
    read_version,
    read_versions,
)


async def swap(chancy: Chancy, version: int | None = None, *, keep_s: float = DAY_S, by: str | None = None) -> int:
    """Promote a version that is ready or on standby; return its number.

    Args:
        version: Its number; the newest that is ready by default.
        keep_s: Seconds the replaced version is kept for `undo`.
        by: Name of the caller, as `status` and `versions` show it; user, host and process by default.

    Raises:
        VersionRefused: No version is ready, or this one may not become live; the message says why.
        TableLocked: A table was locked for longer than `REBUILD_LOCK_LIMIT_MS`; the next call resumes.
    """
    async with bounded_connection(chancy) as connection, short_transaction(connection) as cursor:
        ready = [one.version for one in await read_versions(cursor, tables_for(chancy.prefix)) if one.status == "ready"]
    if version is None and not ready:
        raise VersionRefused("no version is ready: make one with `chancy-metrics rebuild --no-swap`")
    return await _promote(chancy, ready[-1] if version is None else version, cause="asked", keep_s=keep_s, by=by)


async def undo(chancy: Chancy, *, keep_s: float = DAY_S, by: str | None = None) -> int:
    """Let the version that was live before catch up, and promote it again; return its number.

    The rules of the version it replaces are blocked: only an explicit `swap` or `rebuild` promotes them again.

    Args:
        keep_s: Seconds the replaced version is kept for another `undo`.
        by: Name of the caller, as `status` and `versions` show it; user, host and process by default.

    Raises:
        VersionRefused: No earlier version is kept, or it has other rules than this code.
        TableLocked: A table was locked for longer than `REBUILD_LOCK_LIMIT_MS`; the next call resumes.
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
    return await _promote(chancy, before.version, cause="undo", keep_s=keep_s, by=by)


async def abort(chancy: Chancy) -> int | None:
    """Drop the unfinished version of this code's rules; return its number, None if there is none.

    Raises:
        MetricsLogError: There is no metrics log, or a table is locked.
    """
    tables = tables_for(chancy.prefix)
    pair = options_of(chancy).rules.pair
    # A frozen rebuild holds the version's lock until the server ends its transaction, after 5 s.
    async with connect_bounded(chancy, run_name("abort", None)) as connection:
        async with short_transaction(connection) as cursor:
            versions = await read_versions(cursor, tables)
            collecting = await read_collecting(cursor, tables)
        for one in [*versions, *collecting]:
            if (
                one.status in ("collecting", *UNFINISHED)
                and one.pair == pair
                and await drop_version(connection, tables, one.version)
            ):
                return one.version
    return None


async def _promote(chancy: Chancy, version: int, *, cause: Cause, keep_s: float, by: str | None) -> int:
    folded_by = run_name("swap" if cause == "asked" else cause, by)
    options = options_of(chancy)
    async with connect_bounded(chancy, folded_by) as working, connect_bounded(chancy, folded_by) as holding:
        async with short_transaction(working) as cursor:
            versions = {one.version: one for one in await read_versions(cursor, tables_for(chancy.prefix))}
        if version not in versions or versions[version].status in ("live", "dropped"):
            status = versions[version].status if version in versions else "not there"
            raise VersionRefused(
                f"version {version} can't become the live one: it is {status}; `chancy-metrics versions` lists those "
                f"that are ready or on standby, and `chancy-metrics rebuild` makes one"
            )
        if reason := versions[version].refuses(options.rules):
            raise VersionRefused(
                f"version {version} would have to catch up first, and this code can't fold it: {reason}; run the same "
                "command with the code that has the version's rules"
            )
        backfill = Backfill(chancy, options, working, folded_by, version=version)
        # Before the locks are taken, so that little is left to fold under them.
        until = (await backfill.read_live()).position
        await catch_up(working, backfill.tables, version, options.rules, until=until, folded_by=folded_by)
        await backfill.promote(holding, cause=cause, keep_s=keep_s)
    return version
