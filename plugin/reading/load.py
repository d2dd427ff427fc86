"""Read a replica from the rollups, its updates from the delta ring, and the points of one worker."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from anyio import to_thread
from numpy.typing import NDArray
from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import HORIZON_COLUMNS, RESOLUTIONS, Tables
from chancy_metrics.events.storable_text import storable, storable_worker
from chancy_metrics.plugin.reading.binary_copy import read_points
from chancy_metrics.plugin.reading.replica import Replica, RingChanges, RingPosition, SeriesColumns
from chancy_metrics.plugin.reading.shown_keys import Names
from chancy_metrics.plugin.reading.worker_points import all_columns_of, columns_of
from chancy_metrics.projections.grid import BucketRange
from chancy_metrics.projections.rollups.delta_ring import ChangedPoints, unpack_points
from chancy_metrics.projections.rollups.segments import read_unmerged, read_window
from chancy_metrics.projections.versions.version import Version, live_version


async def read_directly(
    cursor: Cursor, tables: Tables, worker: str | None, prefix: str | None, *, within: BucketRange | None = None
) -> tuple[Names, dict[int, SeriesColumns]]:
    """Read the points of one worker, or for None of all together, from the database, in the caller's snapshot.

    The series are those from which keys under *prefix* come, whether this worker has points of them or not.

    Args:
        within: Of one worker, read only the points that lie there.
    """
    if "\x00" in f"{prefix}{worker}":
        return Names(), {}  # PostgreSQL's text holds no NUL
    version = await live_version(cursor, tables)
    series = await _read_series_near(cursor, tables, version, prefix)
    replica = Replica(RingPosition(version.version, 0, None), version.horizons)
    if series and worker is None:
        where = sql.SQL("r.version = {version} AND r.bucket >= {horizon} AND r.series = ANY({series})")
        await _read_rollups(cursor, tables, replica, series, where, series=list(series))
    elif series and worker is not None:
        number = await _worker_number(cursor, tables, worker)
        if number is not None:
            columns = await _read_worker(cursor, tables, version, number, series, within)
            return Names(series), columns
    return Names(series), replica.columns


async def read_recorded(cursor: Cursor, tables: Tables, within: BucketRange) -> NDArray[np.int64]:
    """Return the buckets of *within* in which any series of the live version has a point, ascending.

    One look-up for each of them, by the index for clean-up: which version a row is of it does not know.
    """
    version = await live_version(cursor, tables)
    following = sql.SQL(
        """
        SELECT r.bucket / 60
        FROM {rollup} r
        WHERE r.version = %(version)s
            AND r.bucket / 60 {after}
            AND r.bucket / 60 < %(end)s::bigint / 60
        ORDER BY r.bucket / 60
        LIMIT 1
        """
    )
    rollup = tables.rollup(within.resolution)
    await cursor.execute(
        sql.SQL(
            """
            WITH RECURSIVE recorded (minute) AS (
                ({first})
                UNION ALL
                SELECT ({next})
                FROM recorded
                WHERE minute IS NOT NULL
            )
            SELECT minute * 60
            FROM recorded
            WHERE minute IS NOT NULL
            ORDER BY minute
            """
        ).format(
            first=following.format(rollup=rollup, after=sql.SQL(">= %(first)s::bigint / 60")),
            next=following.format(rollup=rollup, after=sql.SQL("> recorded.minute")),
        ),
        {
            "first": max(within.first_s, version.horizons[within.resolution]),
            "end": within.end_s,
            "version": version.version,
        },
    )
    return np.array([row[0] for row in await cursor.fetchall()], np.int64)


async def _read_worker(
    cursor: Cursor,
    tables: Tables,
    version: Version,
    worker: int,
    series: Mapping[int, Series],
    within: BucketRange | None,
) -> dict[int, SeriesColumns]:
    kept, ids = version.horizons, list(series)
    if within is None:
        cells = await read_unmerged(cursor, tables, version.version, kept, worker=worker, series=ids)
        return await to_thread.run_sync(all_columns_of, cells, series, kept)
    name, first_s = within.resolution, max(within.first_s, kept[within.resolution])
    found = await read_window(cursor, tables, version.version, name, first_s, within.end_s, worker=worker, series=ids)
    return await to_thread.run_sync(columns_of, {name: found}, series)


async def _worker_number(cursor: Cursor, tables: Tables, worker: str) -> int | None:
    await cursor.execute(
        sql.SQL("SELECT id FROM {workers} WHERE name = %(name)s").format(workers=tables.workers),
        {"name": storable_worker(cursor, worker)},
    )
    row = await cursor.fetchone()
    return None if row is None else int(row[0])


async def load_replica(cursor: Cursor, tables: Tables) -> Replica:
    version = await live_version(cursor, tables)
    await cursor.execute(
        sql.SQL("SELECT version, fold, token FROM {cache} ORDER BY fold DESC LIMIT 1").format(cache=tables.cache)
    )
    row = await cursor.fetchone()
    position = (
        RingPosition(*row) if row and row[0] == version.version else RingPosition(version.version, version.folds, None)
    )
    replica = Replica(position, version.horizons)
    series = await _read_series(cursor, tables, None)
    where = sql.SQL("r.version = {version} AND r.bucket >= {horizon}")
    await _read_rollups(cursor, tables, replica, series, where)
    await to_thread.run_sync(replica.keep, series, version.horizons)
    return replica


async def _read_rollups(
    cursor: Cursor,
    tables: Tables,
    replica: Replica,
    known: Mapping[int, Series],
    where: sql.SQL,
    **values: object,
) -> None:
    for resolution in RESOLUTIONS:
        values |= {"version": replica.position.version, "horizon": replica.horizons[resolution]}
        points = await read_points(cursor, tables, resolution, where, values)
        # In a thread: of a hundred thousand series this takes seconds.
        await to_thread.run_sync(replica.put, {resolution: points}, known)


async def read_ring_changes(cursor: Cursor, tables: Tables, replica: Replica) -> RingChanges | None:
    """Return the ring's changes past the replica's position; None if the ring does not continue from it.

    Raises:
        Damaged: A row of the ring was not written by a fold.
    """
    position = replica.position
    await cursor.execute(
        sql.SQL(
            """
            SELECT c.version, c.fold, c.token, CASE WHEN c.fold > %(fold)s THEN c.points END,
                v.version, v.folds, {horizons}
            FROM {head} h
            JOIN {versions} v
                ON v.version = h.live
            LEFT JOIN {cache} c
                ON c.fold >= %(fold)s
            ORDER BY c.fold
            """
        ).format(head=tables.head, versions=tables.versions, cache=tables.cache, horizons=sql.SQL(HORIZON_COLUMNS)),
        {"fold": position.fold},
        binary=True,
    )
    rows = await cursor.fetchall()
    if not rows:
        return None
    version, folds, *horizons = rows[0][4:]
    ring = [(RingPosition(*row[:3]), row[3]) for row in rows if row[1] is not None]
    if position.token is not None and (not ring or ring.pop(0)[0] != position):
        return None
    # No fold may be missing between the replica and the version.
    if version != position.version or len(ring) != folds - position.fold:
        return None
    if any((of.version, of.fold) != (version, position.fold + step) for step, (of, _) in enumerate(ring, 1)):
        return None
    changes, numbers = await to_thread.run_sync(_unpack, ring)
    known: Mapping[int, Series] = replica.series
    if missing := sorted(numbers - replica.series.keys()):
        known = {**replica.series, **await _read_series(cursor, tables, missing)}
    return RingChanges(changes, known, dict(zip(RESOLUTIONS, horizons, strict=True)), ring[-1][0] if ring else position)


def _unpack(ring: list[tuple[RingPosition, bytes]]) -> tuple[list[dict[str, ChangedPoints]], set[int]]:
    """Return the changed points of each fold, and the numbers of all their series."""
    changes = [unpack_points(points, f"fold {of.fold} of the shared cache") for of, points in ring]
    numbers = {int(one) for changed in changes for points in changed.values() for one in np.unique(points.series)}
    return changes, numbers


async def read_names(cursor: Cursor, tables: Tables) -> Names:
    """Return all series that have a name, also those without points."""
    return Names(await _read_series(cursor, tables, None))


async def _read_series(cursor: Cursor, tables: Tables, numbers: list[int] | None) -> dict[int, Series]:
    await cursor.execute(
        sql.SQL(
            "SELECT id, key, kind, unit FROM {series} WHERE %(ids)s::integer[] IS NULL OR id = ANY(%(ids)s)"
        ).format(series=tables.series),
        {"ids": numbers},
    )
    return {row[0]: Series(*row[1:]) for row in await cursor.fetchall()}


async def _read_series_near(cursor: Cursor, tables: Tables, version: Version, prefix: str | None) -> dict[int, Series]:
    """Return the known series at, below and above *prefix*.

    Above too: of a key's series with several types or units, all but one have their type and unit behind the key.
    """
    has_point = sql.SQL(" OR ").join(
        sql.SQL(
            """
            (
                SELECT true
                FROM {rollup} r
                WHERE r.version = %(version)s
                    AND r.series = s.id
                    AND r.bucket >= {horizon}
                LIMIT 1
            ) IS NOT NULL
            """
        ).format(rollup=tables.rollup(resolution), horizon=sql.Literal(version.horizons[resolution]))
        # The coarsest first: it is kept longest, mostly, so that one look-up answers. LIMIT keeps it a look-up for
        # each series: EXISTS may be planned as a scan of all that is kept.
        for resolution in reversed(RESOLUTIONS)
    )
    await cursor.execute(
        sql.SQL(
            """
            SELECT s.id, s.key, s.kind, s.unit
            FROM {series} s
            WHERE (
                %(prefix)s::text IS NULL
                OR s.key = %(prefix)s
                OR starts_with(s.key, %(prefix)s || ':')
                OR starts_with(%(prefix)s, s.key || ':')
            )
                AND ({has_point})
            """
        ).format(series=tables.series, has_point=has_point),
        {"prefix": storable(cursor, prefix) if prefix else None, "version": version.version},
    )
    return {row[0]: Series(*row[1:]) for row in await cursor.fetchall()}
