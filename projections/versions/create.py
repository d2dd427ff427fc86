"""Create a version from the baseline, or claim one whose backfill stopped; set it ready, withheld or dropped."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC

from psycopg import sql

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import AlreadyRunning, SchemaMissing, VersionRefused
from chancy_metrics.events.schema import HORIZON_COLUMNS, Tables
from chancy_metrics.projections.rules.rule_set import RuleSet, label
from chancy_metrics.projections.versions.collected import finish_collected
from chancy_metrics.projections.versions.left_out import copy_left_out, left_out
from chancy_metrics.projections.versions.version import (
    BASELINE,
    TOTALS,
    TOTALS_DROPPED,
    UNFINISHED,
    UNFINISHED_TOTALS,
    Head,
    Version,
    lock_head,
    lock_version,
    no_baseline,
    read_generations,
    read_version,
    read_versions,
)

#: Seconds without a step after which a backfill counts as dead, even if its connection is open, as behind a pooler.
ABANDONED_S = 60
#: Whether a backfill of version *v* is at work: it took a step lately, and its connection is there.
IS_BACKFILLED = sql.SQL(
    """
    coalesce(v.folded_at > clock_timestamp() - make_interval(secs => {silent}), false)
        AND EXISTS (
            SELECT 1
            FROM pg_stat_activity a
            WHERE a.datname = current_database()
                AND a.application_name = left(v.folded_by, 63)
        )
    """
).format(silent=ABANDONED_S)


async def make_version(
    connection: Connection,
    tables: Tables,
    rules: RuleSet,
    horizons: Mapping[str, int],
    *,
    by: str,
    auto_promote: bool = True,
    again: bool = True,
    collected: int | None = None,
) -> Version:
    """Claim the unfinished version of *rules* for a backfill by *by*; create it if there is none.

    A new one has no points yet, and keeps buckets from *horizons* on, as far as the log and the baseline reach.

    Args:
        by: Name of the backfill and `application_name` of its connection: while that connection lives and the version
            takes steps, no other backfill gets it.
        again: Whether to create one even if the live version has these rules.
        collected: Number of a baseline that was collected from archives, to create it from; the live version's if None.

    Raises:
        VersionRefused: The unfinished version is made from another baseline, or *collected* is not what it was.
        AlreadyRunning: Another backfill has it, or, unless *again*, the live version has these rules.
        SchemaMissing: The live version's baseline is missing.
    """
    async with short_transaction(connection) as cursor:
        head = await lock_head(cursor, tables)
        # A day that is being absorbed is either in the baseline or folded from the log; this lock decides which.
        base = await lock_baseline(cursor, tables, head)
        versions = await read_versions(cursor, tables)
        if not again and any(one.version == head.live and one.pair == rules.pair for one in versions):
            raise AlreadyRunning(f"version {head.live} has rules {label(rules.pair)} and is live already")
        for version in versions:
            if version.status in UNFINISHED and version.pair == rules.pair:
                if collected not in (None, version.baseline):
                    raise VersionRefused(
                        f"version {version.version} was begun by these rules without archives meanwhile: finish it "
                        "with `chancy-metrics rebuild`, or drop it with `--abort`, then run this again"
                    )
                await claim(cursor, tables, version.version, by)
                if not await _is_withheld(cursor, tables, version, head.live):
                    return version
                await set_status(cursor, tables, version.version, "dropped")
        if collected is not None:
            base = await finish_collected(cursor, tables, collected, base)
        return await insert_version(
            cursor, tables, rules, head, base, horizons, status="copying", by=by, auto_promote=auto_promote
        )


async def insert_version(
    cursor: Cursor,
    tables: Tables,
    rules: RuleSet,
    head: Head,
    base: Version,
    horizons: Mapping[str, int],
    *,
    status: str,
    by: str,
    auto_promote: bool = True,
) -> Version:
    """Insert the row of a version that begins with the baseline *base*; the caller holds the locks of head and base.

    Its position is the last one before the first batch of a day that is still in the log.
    """
    await cursor.execute(
        sql.SQL(
            """
            INSERT INTO {versions} (
                version, rules, user_rules, rule_names, status, auto_promote, replaced, position, counts,
                created_by, folded_by, folding_since, folded_at, baseline, {horizons}
            )
            SELECT (SELECT max(version) + 1 FROM {versions}), %(built_in)s, %(user)s, %(names)s, %(status)s,
                %(auto_promote)s, %(live)s, coalesce(
                    (
                        SELECT l.position - 1
                        FROM {ledger} l
                        WHERE NOT EXISTS (
                            SELECT 1 FROM {days} d WHERE d.day = l.day AND d.state IN ('absorbed', 'gone')
                        )
                        ORDER BY l.position
                        LIMIT 1
                    ),
                    %(position)s
                ),
                o.counts, %(by)s, %(by)s, clock_timestamp(), clock_timestamp(), o.version,
                greatest(o.horizon_1min, %(1min)s), greatest(o.horizon_5min, %(5min)s),
                greatest(o.horizon_1hour, %(1hour)s), greatest(o.horizon_1day, %(1day)s)
            FROM {versions} o
            WHERE o.version = %(baseline)s
            RETURNING version
            """
        ).format(versions=tables.versions, ledger=tables.ledger, days=tables.days, horizons=sql.SQL(HORIZON_COLUMNS)),
        {
            "built_in": rules.built_in,
            "user": rules.user,
            "names": rules.names,
            "status": status,
            "auto_promote": auto_promote,
            "live": head.live,
            "position": head.position,
            "by": by,
            "baseline": base.version,
            **horizons,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    await copy_left_out(cursor, tables, base.version, row[0])
    made = await read_version(cursor, tables, row[0])
    assert made is not None
    return made


async def lock_baseline(cursor: Cursor, tables: Tables, head: Head) -> Version:
    """Lock the live version's baseline until the transaction ends, and return it.

    Raises:
        SchemaMissing: It is missing.
    """
    live = await read_version(cursor, tables, head.live)
    number = live.baseline if live is not None else BASELINE
    baseline = await lock_version(cursor, tables, number, wait=True)
    if baseline is None:
        raise SchemaMissing(no_baseline(number))
    return baseline


async def _is_withheld(cursor: Cursor, tables: Tables, version: Version, live: int) -> bool:
    """Whether a version is ready and leaves out more than the live one does: a new one may leave out less."""
    if version.status != "ready":
        return False
    found = await left_out(cursor, tables, version.version)
    return bool(found and found.beyond(await left_out(cursor, tables, live)))


async def claim(cursor: Cursor, tables: Tables, version: int, by: str) -> None:
    """Write *by* into an unfinished version's row; raise `AlreadyRunning` if another backfill of it is at work."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT v.folded_by, v.folding_since
            FROM {versions} v
            WHERE v.version = %(version)s
                AND v.folded_by <> %(by)s
                AND {is_backfilled}
            """
        ).format(versions=tables.versions, is_backfilled=IS_BACKFILLED),
        {"version": version, "by": by},
    )
    if row := await cursor.fetchone():
        raise AlreadyRunning(
            f"version {version} has been backfilled by {row[0]!r} since {row[1].astimezone(UTC):%Y-%m-%d %H:%M:%S %Z}: "
            "`chancy-metrics rebuild --status` shows how far it is"
        )
    await cursor.execute(
        sql.SQL(
            """
            UPDATE {versions}
            SET folded_by = %(by)s,
                folding_since = clock_timestamp(),
                folded_at = clock_timestamp()
            WHERE version = %(version)s
            """
        ).format(versions=tables.versions),
        {"version": version, "by": by},
    )


async def drop_version(connection: Connection, tables: Tables, version: int) -> bool:
    """Drop a version that is unfinished or on standby; return False if it is neither. The clean-up deletes its rows."""
    async with short_transaction(connection) as cursor:
        mine = await lock_version(cursor, tables, version, wait=True)
        if mine is None or mine.status not in ("collecting", *UNFINISHED, "standby"):
            return False
        await set_status(cursor, tables, version, "dropped")
        return True


async def finish_version(connection: Connection, tables: Tables, version: int, *, keep_s: float) -> None:
    """Set a version whose backfill is complete to ready, and keep it for *keep_s* seconds for a swap."""
    async with short_transaction(connection) as cursor:
        mine = await lock_version(cursor, tables, version, wait=True)
        if mine is not None and mine.status == "backfilling":
            await set_status(cursor, tables, version, "ready", keep_s=keep_s)


async def withhold_version(connection: Connection, tables: Tables, version: int, *, keep_s: float) -> None:
    """Set a version to ready and not to be promoted by itself, and keep it for *keep_s* seconds for a swap."""
    async with short_transaction(connection) as cursor:
        mine = await lock_version(cursor, tables, version, wait=True)
        if mine is not None and mine.status in ("backfilling", "ready", "standby"):
            await set_status(cursor, tables, version, "ready", keep_s=keep_s)
            await cursor.execute(
                sql.SQL("UPDATE {versions} SET auto_promote = false WHERE version = %(version)s").format(
                    versions=tables.versions
                ),
                {"version": version},
            )


async def drop_generations(cursor: Cursor, tables: Tables, *, served: bool = True) -> None:
    """Drop the generations of the totals, or without *served* only one that is being built.

    The caller holds the head's lock, so that none is begun meanwhile.
    """
    for one in await read_generations(cursor, tables):
        locked = await lock_version(cursor, tables, one.version, wait=True)
        if locked is not None and locked.status in (TOTALS if served else UNFINISHED_TOTALS):
            await set_status(cursor, tables, one.version, TOTALS_DROPPED)


async def set_status(cursor: Cursor, tables: Tables, version: int, status: str, *, keep_s: float | None = None) -> None:
    """Set the status of a version, whose lock the caller holds; drop it after *keep_s* seconds, if that is given."""
    await cursor.execute(
        sql.SQL(
            """
            UPDATE {versions}
            SET status = %(status)s,
                kept_until = clock_timestamp() + make_interval(secs => %(keep)s)
            WHERE version = %(version)s
            """
        ).format(versions=tables.versions),
        {"status": status, "keep": keep_s, "version": version},
    )
