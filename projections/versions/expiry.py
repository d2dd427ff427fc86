"""Delete expired points, dropped versions, and the names of series and workers without points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg import sql

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.versions.baseline import raise_baseline_horizons
from chancy_metrics.projections.versions.version import (
    BASELINE,
    NO_VERSION,
    lock_version,
    raise_horizons,
    read_baselines,
    read_dropped,
    read_versions,
)

#: Most rows that one statement deletes, so that its locks are short.
CHUNK = 10_000
#: Most such statements of one call.
CHUNKS = 20
#: Names checked in one transaction.
NAMES = 2_000
#: Seconds without progress after which an unfinished version is dropped.
PROGRESS_S = 86_400


async def expire(connection: Connection, tables: Tables, kept: Mapping[str, int]) -> int:
    """Raise every version's horizons to *kept* and delete the points below them; return the number of rows deleted.

    A version whose lock is held is left for the next call.
    """
    async with short_transaction(connection) as cursor:
        versions = [version.version for version in await read_versions(cursor, tables) if version.status != "dropped"]
        baselines = [one.version for one in await read_baselines(cursor, tables)]
    removed = 0
    # The baselines last: their horizons depend on those of the others.
    for version in [*versions, *baselines]:
        async with short_transaction(connection) as cursor:
            if await lock_version(cursor, tables, version) is None:
                continue
            if version in baselines:
                if version not in {one.version for one in await read_baselines(cursor, tables)}:
                    continue  # its last version was dropped since
                horizons = await raise_baseline_horizons(cursor, tables, version)
            else:
                horizons = await raise_horizons(cursor, tables, version, kept) or {}
        for resolution, horizon in horizons.items():
            removed += await _delete_rows(
                connection,
                tables.rollup(resolution),
                # Points that a horizon ahead hides are kept, until that is repaired.
                sql.SQL("version = {} AND bucket / 60 < {}").format(version, min(horizon, kept[resolution]) // 60),
            )
        if horizons:
            oldest = min(min(horizons[name], kept[name]) for name in RESOLUTIONS)
            where = sql.SQL("version = {} AND end_s <= {}").format(version, oldest)
            removed += await _delete_rows(connection, tables.worker_segments, where)
    return removed


async def drop_versions(connection: Connection, tables: Tables, *, now_us: int) -> int:
    """Drop versions that were kept long enough or made no progress for a day; delete the rows of dropped ones.

    Returns:
        The number of rows deleted. A version is deleted after its last row.
    """
    async with short_transaction(connection) as cursor:
        await _drop_old(cursor, tables, now_us)
        dropped = [version.version for version in await read_dropped(cursor, tables)]
        # Version 0 has the record of the log, too: its row stays when no version is made from its points any more.
        is_unused = BASELINE not in {one.version for one in await read_baselines(cursor, tables)}
    removed = 0
    for version in [*([BASELINE] if is_unused else []), *dropped]:
        where = sql.SQL("version = {} AND {}").format(version, _UNUSED.format(versions=tables.versions, number=version))
        for table in _tables_of_points(tables):
            removed += await _delete_rows(connection, table, where)
    async with short_transaction(connection) as cursor:
        await _delete_dropped(cursor, tables)
    return removed


#: Whether no version is made from the baseline with this number.
_UNUSED = sql.SQL(
    f"""
    NOT EXISTS (
        SELECT
        FROM {{versions}} u
        WHERE u.baseline = {{number}}
            AND u.status NOT IN {NO_VERSION}
            AND u.status <> 'dropped'
    )
    """
)


class UnusedNames:
    """Deletes series and workers without a point in any version; remembers how far it has checked."""

    def __init__(self) -> None:
        self._last_series = 0
        self._last_worker = 0

    async def delete(self, connection: Connection, tables: Tables) -> int:
        """Check the next names, or all if there are few; return the number deleted."""
        removed = 0
        for _ in range(CHUNKS):
            removed += await self._delete_chunk(connection, tables)
            if not self._last_series and not self._last_worker:
                break
        return removed

    async def _delete_chunk(self, connection: Connection, tables: Tables) -> int:
        """Check one chunk of series and one of workers.

        Holds the locks of all versions, which folds take too, so that none writes a point of a name meanwhile. If one
        is taken, that is left for the next call.
        """
        async with short_transaction(connection, index_only=True) as cursor:
            await cursor.execute(
                sql.SQL(
                    "SELECT version, (SELECT count(*) FROM {versions}) FROM {versions} FOR UPDATE SKIP LOCKED"
                ).format(versions=tables.versions)
            )
            locked = await cursor.fetchall()
            if not locked or len(locked) < locked[0][1]:
                return 0
            versions = [row[0] for row in locked]
            # A series that a worker's cell has is in a merged row, too.
            rollups = [*map(tables.rollup, RESOLUTIONS), tables.totals]
            series, self._last_series = await _delete_names(
                cursor, tables.series, rollups, "series", versions, self._last_series
            )
            workers, self._last_worker = await _delete_names(
                cursor, tables.workers, [tables.worker_segments], "worker", versions, self._last_worker
            )
            return series + workers


async def _delete_rows(connection: Connection, table: sql.Identifier, where: sql.Composed) -> int:
    removed = 0
    for _ in range(CHUNKS):
        async with short_transaction(connection) as cursor:
            await cursor.execute(
                sql.SQL(
                    """
                    DELETE FROM {table}
                    WHERE ctid = ANY(ARRAY(
                        SELECT ctid
                        FROM {table}
                        WHERE {where}
                        LIMIT {chunk}
                        FOR UPDATE SKIP LOCKED
                    ))
                    """
                ).format(table=table, where=where, chunk=CHUNK)
            )
            removed += cursor.rowcount
            if cursor.rowcount < CHUNK:
                break
    return removed


def _tables_of_points(tables: Tables) -> list[sql.Identifier]:
    return [*map(tables.rollup, RESOLUTIONS), tables.worker_segments, tables.totals]


async def _drop_old(cursor: Cursor, tables: Tables, now_us: int) -> None:
    await cursor.execute(
        sql.SQL(
            """
            UPDATE {versions}
            SET status = CASE WHEN starts_with(status, 'totals') THEN 'totals_dropped' ELSE 'dropped' END
            WHERE version IN (
                SELECT v.version
                FROM {versions} v
                WHERE v.version <> (SELECT live FROM {head})
                    AND CASE
                        WHEN v.status IN ('ready', 'standby') THEN v.kept_until < to_timestamp(%(now)s)
                        WHEN v.status IN ('collecting', 'copying', 'backfilling') THEN
                            coalesce(v.folded_at, v.created_at) < to_timestamp(%(now)s - %(progress)s)
                        WHEN v.status IN ('totals_copying', 'totals_backfilling') THEN
                            coalesce(v.folded_at, v.created_at) < to_timestamp(%(now)s - %(progress)s)
                            AND EXISTS (SELECT FROM {versions} s WHERE s.status = 'totals')
                        WHEN v.status = 'baseline' THEN v.version > 0 AND {unused}
                        ELSE false
                    END
                FOR UPDATE SKIP LOCKED
            )
            """
        ).format(
            versions=tables.versions,
            head=tables.head,
            unused=_UNUSED.format(versions=tables.versions, number=sql.SQL("v.version")),
        ),
        {"now": now_us / 1_000_000, "progress": PROGRESS_S},
    )


async def _delete_dropped(cursor: Cursor, tables: Tables) -> None:
    """Delete dropped versions without rows; not the newest one, so that no number is used twice."""
    empty = sql.SQL(" AND ").join(
        sql.SQL("NOT EXISTS (SELECT 1 FROM {} r WHERE r.version = v.version)").format(table)
        for table in _tables_of_points(tables)
    )
    await cursor.execute(
        sql.SQL(
            """
            DELETE FROM {versions} v
            WHERE v.status IN ('dropped', 'totals_dropped')
                AND v.version < (SELECT max(version) FROM {versions})
                AND {empty}
            """
        ).format(versions=tables.versions, empty=empty)
    )


async def _delete_names(
    cursor: Cursor,
    table: sql.Identifier,
    users: Sequence[sql.Identifier],
    column: str,
    versions: list[int],
    after: int,
) -> tuple[int, int]:
    """Delete names past id *after* that no row of *users* has in its *column*.

    Returns:
        The number deleted, and the id to go on after.
    """
    used = sql.SQL(" OR ").join(
        sql.SQL("EXISTS (SELECT 1 FROM {user} r WHERE r.version = ANY(%(versions)s) AND r.{column} = n.id)").format(
            user=user, column=sql.Identifier(column)
        )
        for user in users
    )
    await cursor.execute(
        sql.SQL(
            "SELECT max(id), count(*) FROM (SELECT id FROM {table} WHERE id > %(after)s ORDER BY id LIMIT %(limit)s) n"
        ).format(table=table),
        {"after": after, "limit": NAMES},
    )
    row = await cursor.fetchone()
    until, found = row if row else (None, 0)
    if until is None:
        return 0, 0
    await cursor.execute(
        sql.SQL("DELETE FROM {table} n WHERE n.id > %(after)s AND n.id <= %(until)s AND NOT ({used})").format(
            table=table, used=used
        ),
        {"after": after, "until": until, "versions": versions},
    )
    return cursor.rowcount, int(until) if found == NAMES else 0
