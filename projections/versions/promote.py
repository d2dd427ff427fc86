"""Promote a version to be the live one, in one transaction: readers see either all of the old one or all of the new."""

from __future__ import annotations

from typing import Literal

import anyio
from psycopg import sql

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import LeavesOutMore, SchemaMissing, VersionRefused
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.rollups.delta_ring import reset_ring
from chancy_metrics.projections.rules.rule_set import RuleSet, is_above, label
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.create import set_status
from chancy_metrics.projections.versions.left_out import LeftOut, left_out, withheld
from chancy_metrics.projections.versions.outcome import Outcome
from chancy_metrics.projections.versions.step import REBUILD_STEP_EVENTS, Announce
from chancy_metrics.projections.versions.version import (
    ADVANCING,
    Head,
    Version,
    lock_head,
    lock_version,
    no_baseline,
    read_version,
)

#: Why a version is promoted: somebody asked for it; its rules are newer; an undo returns to it; no worker has the rules
#: of the live one any more.
Cause = Literal["asked", "newer", "undo", "standstill"]

#: Seconds to go on trying while other processes take the steps of the same version.
BUSY_S = 10


async def catch_up(
    connection: Connection, tables: Tables, version: int, rules: RuleSet, *, until: int, folded_by: str
) -> int:
    """Fold *version* up to position *until*; return the number of events folded.

    Raises:
        VersionRefused: This code can't fold it, or not that far.
    """
    events = 0
    with anyio.move_on_after(BUSY_S) as patience:
        while True:
            done = await advance(
                connection,
                tables,
                folded_by=folded_by,
                rules=rules,
                version=version,
                until=until,
                step_events=REBUILD_STEP_EVENTS,
            )
            events += done.events
            if done.caught_up or done.position >= until:
                return events
            if done.outcome is Outcome.REFUSED:
                break
            if done.outcome is Outcome.BUSY:
                await anyio.sleep(0.02)
            else:
                patience.deadline = anyio.current_time() + BUSY_S
    raise VersionRefused(
        f"version {version} stops at position {done.position}: {done.reason}; `chancy-metrics status` says more"
    )


async def promote(
    holding: Connection,
    working: Connection,
    tables: Tables,
    version: int,
    rules: RuleSet,
    *,
    cause: Cause,
    folded_by: str,
    keep_s: float,
    announce: Announce | None = None,
) -> Version:
    """Make *version* the live one, and return the one that was.

    The locks of the head and of the live version are held while *version* catches up with it: meanwhile no batch gets a
    position and the live version takes no step, so that ends under any load. Catch up before, so that little is left.

    Args:
        holding: Connection that holds the locks.
        working: Connection that folds.
        keep_s: Seconds to keep the version that was live.

    Raises:
        VersionRefused: It may not be promoted, or could not catch up.
        LeavesOutMore: *cause* is "newer", and it leaves out more than the live one.
    """
    async with short_transaction(holding) as cursor:
        head = await lock_head(cursor, tables)
        live = await lock_version(cursor, tables, head.live, wait=True)
        coming = await read_version(cursor, tables, version)
        assert live is not None
        if coming is None or coming.version == live.version or coming.status not in ADVANCING:
            raise VersionRefused(
                f"version {version} can't become the live one: it is {coming.status if coming else 'not there'}"
            )
        if reason := coming.refuses(rules) or promotion_blocker(coming, live, head, cause):
            raise VersionRefused(reason)
        await catch_up(working, tables, version, rules, until=live.position, folded_by=folded_by)
        if cause == "newer" and (more := await _left_out_beyond(cursor, tables, version, live)):
            raise LeavesOutMore(withheld(more, label(coming.pair), live.version))
        await lock_version(cursor, tables, version, wait=True)
        await set_status(cursor, tables, live.version, "standby", keep_s=keep_s)
        await _set_live(cursor, tables, coming, live, head, cause)
        if announce is not None:
            await announce(cursor)
        return live


async def _left_out_beyond(cursor: Cursor, tables: Tables, version: int, live: Version) -> LeftOut:
    coming = await left_out(cursor, tables, version)
    return coming.beyond(await left_out(cursor, tables, live.version)) if coming else coming


def promotion_blocker(coming: Version, live: Version, head: Head, cause: Cause) -> str | None:
    """Return why *coming* may not be promoted over *live*, as a sentence; None if it may."""
    if cause in ("undo", "standstill"):
        return None
    if coming.pair != live.pair and not is_above(coming.pair, live.pair):
        return (
            f"version {coming.version} has rules {label(coming.pair)}, and those of the live version "
            f"{live.version}, {label(live.pair)}, are not older: go back with `chancy-metrics undo`"
        )
    if cause == "newer" and coming.pair == live.pair:
        return f"version {coming.version} has the rules of the live version"
    if cause == "newer" and label(coming.pair) in head.blocked_rules:
        return f"rules {label(coming.pair)} were left by an undo: only `chancy-metrics swap` takes them again"
    return None


async def _set_live(cursor: Cursor, tables: Tables, coming: Version, live: Version, head: Head, cause: Cause) -> None:
    blocked_rules = {"asked": [], "undo": sorted({*head.blocked_rules, label(live.pair)})}.get(
        cause, head.blocked_rules
    )
    await cursor.execute(
        sql.SQL(
            """
            UPDATE {versions} v
            SET status = 'live',
                auto_promote = true,
                -- Only the version that folded events as they came knows which were too late: a rebuild sees all late.
                counts = v.counts - 'expired' || jsonb_strip_nulls(jsonb_build_object('expired', (
                    SELECT before.counts -> 'expired' FROM {versions} before WHERE before.version = %(live)s
                ))),
                kept_until = NULL,
                live_since = clock_timestamp(),
                replaced = CASE WHEN %(keeps)s THEN v.replaced ELSE %(live)s END,
                folded_at = clock_timestamp(),
                horizon_1min = greatest(v.horizon_1min, o.horizon_1min),
                horizon_5min = greatest(v.horizon_5min, o.horizon_5min),
                horizon_1hour = greatest(v.horizon_1hour, o.horizon_1hour),
                horizon_1day = greatest(v.horizon_1day, o.horizon_1day)
            FROM {versions} o
            WHERE v.version = %(version)s
                AND o.version = v.baseline
            """
        ).format(versions=tables.versions),
        {"version": coming.version, "live": live.version, "keeps": cause == "undo"},
    )
    if not cursor.rowcount:
        raise SchemaMissing(no_baseline(coming.baseline))
    await cursor.execute(
        sql.SQL("UPDATE {head} SET live = %(version)s, blocked_rules = %(blocked_rules)s").format(head=tables.head),
        {"version": coming.version, "blocked_rules": blocked_rules},
    )
    await reset_ring(cursor, tables)
