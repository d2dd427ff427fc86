"""Copy the baseline into a new version, some rows a transaction; a killed copy goes on where it stopped."""

from __future__ import annotations

from psycopg import sql

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.schema import RESOLUTIONS, ROLLUP_COLUMNS, SEGMENT_COLUMNS, Tables
from chancy_metrics.projections.versions.version import Version, lock_version

#: Rows of the baseline that one transaction copies.
COPY_ROWS = 20_000
#: Segments of it that one transaction copies; each may have many cells.
COPY_SEGMENTS = 2_000


async def copy_baseline(connection: Connection, tables: Tables, version: int) -> bool:
    """Copy the next rows of the baseline into a new version; return False if none are left, or it is not copying.

    Rows are copied by key, so the last one that is there says where to go on, whoever copied it. The baseline does
    not change meanwhile: no day is absorbed that a version has not folded.
    """
    async with short_transaction(connection) as cursor:
        mine = await lock_version(cursor, tables, version, wait=True)
        if mine is None or mine.status != "copying":
            return False
        for resolution in RESOLUTIONS:
            if await _copy(cursor, tables, mine, resolution) == COPY_ROWS:
                await _set_progress(cursor, tables, version, "copying")
                return True
        if await _copy_segments(cursor, tables, mine) == COPY_SEGMENTS:
            await _set_progress(cursor, tables, version, "copying")
            return True
        await _set_progress(cursor, tables, version, "backfilling")
        return False


async def _set_progress(cursor: Cursor, tables: Tables, version: int, status: str) -> None:
    await cursor.execute(
        sql.SQL(
            "UPDATE {versions} SET status = %(status)s, folded_at = clock_timestamp() WHERE version = %(version)s"
        ).format(versions=tables.versions),
        {"status": status, "version": version},
    )


async def _copy(cursor: Cursor, tables: Tables, version: Version, resolution: str) -> int:
    columns = sql.SQL(ROLLUP_COLUMNS)
    await cursor.execute(
        sql.SQL(
            """
            WITH reached AS (
                SELECT series, bucket
                FROM {rollup}
                WHERE version = %(version)s
                ORDER BY series DESC, bucket DESC
                LIMIT 1
            )
            INSERT INTO {rollup} (version, {columns})
            SELECT %(version)s, {columns}
            FROM {rollup}
            WHERE version = %(baseline)s
                AND bucket >= %(horizon)s
                AND (series, bucket) > (
                    coalesce((SELECT series FROM reached), -1),
                    coalesce((SELECT bucket FROM reached), -1)
                )
            ORDER BY series, bucket
            LIMIT %(rows)s
            """
        ).format(rollup=tables.rollup(resolution), columns=columns),
        {
            "version": version.version,
            "baseline": version.baseline,
            "horizon": version.horizons[resolution],
            "rows": COPY_ROWS,
        },
    )
    return cursor.rowcount


async def _copy_segments(cursor: Cursor, tables: Tables, version: Version) -> int:
    """Copy segments as they are: whoever reads them leaves out what the version's horizons do not keep."""
    await cursor.execute(
        sql.SQL(
            """
            WITH reached AS (
                SELECT worker, resolution, fold, part
                FROM {segments}
                WHERE version = %(version)s
                ORDER BY worker DESC, resolution DESC, fold DESC, part DESC
                LIMIT 1
            )
            INSERT INTO {segments} (version, {columns})
            SELECT %(version)s, {columns}
            FROM {segments}
            WHERE version = %(baseline)s
                AND end_s > %(horizon)s
                AND (worker, resolution, fold, part) > (
                    coalesce((SELECT worker FROM reached), -1),
                    coalesce((SELECT resolution FROM reached), -1),
                    coalesce((SELECT fold FROM reached), -1),
                    coalesce((SELECT part FROM reached), -1)
                )
            ORDER BY worker, resolution, fold, part
            LIMIT %(rows)s
            """
        ).format(segments=tables.worker_segments, columns=sql.SQL(SEGMENT_COLUMNS)),
        {
            "version": version.version,
            "baseline": version.baseline,
            "horizon": min(version.horizons.values()),
            "rows": COPY_SEGMENTS,
        },
    )
    return cursor.rowcount
