"""Add points that another program summed up to the baselines and to every version, once: a day without events."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import NamedTuple

from anyio import to_thread
from psycopg import sql

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import ImportRefused, VersionRefused
from chancy_metrics.events.facts import EPOCH
from chancy_metrics.events.humanize import moment
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.events.transfer.guard import is_importing
from chancy_metrics.projections.fold.fold import Fold
from chancy_metrics.projections.fold.levels import coarsen_expired, derive_points, merge_workers
from chancy_metrics.projections.rollups.delta_ring import reset_ring
from chancy_metrics.projections.rollups.ids import Numbered, number, still_numbered
from chancy_metrics.projections.rollups.segments import write_segments
from chancy_metrics.projections.rollups.write import store
from chancy_metrics.projections.versions.baseline import raise_baseline_horizons, segment_of_day
from chancy_metrics.projections.versions.create import drop_generations
from chancy_metrics.projections.versions.step import Announce
from chancy_metrics.projections.versions.version import (
    Version,
    lock_head,
    lock_version,
    raise_horizons,
    read_baselines,
    read_collecting,
    read_versions,
)


class ImportedDay(NamedTuple):
    """The day that stands for what was imported: before all days of the log, and the baseline alone has it.

    Attributes:
        last_us: Time of the latest observation that was imported, microseconds since 1970.
    """

    day: date
    last_us: int


async def read_imported_day(cursor: Cursor, tables: Tables) -> ImportedDay | None:
    """Return the day of the imported points; None if none were imported, or they have expired.

    It left the log without a position, and yet has a latest event: no day of the log is like that.
    """
    await cursor.execute(
        sql.SQL(
            """
            SELECT day, last_us
            FROM {days}
            WHERE state = 'gone'
                AND last_position = 0
                AND last_us IS NOT NULL
            ORDER BY day
            LIMIT 1
            """
        ).format(days=tables.days)
    )
    row = await cursor.fetchone()
    return None if row is None else ImportedDay(*row)


async def refuse_imported(cursor: Cursor, tables: Tables) -> None:
    """Raise `ImportRefused` if points were imported: what an export brings would meet them in the baseline."""
    if (day := await read_imported_day(cursor, tables)) is not None:
        until = moment(EPOCH + timedelta(microseconds=day.last_us))
        raise ImportRefused(
            f"this database has points of Chancy's own plugin up to {until}, and an export can only be taken into one "
            "that has none: import the log into another database, then run `chancy-metrics import-builtin` there"
        )


async def add_imported(
    connection: Connection,
    tables: Tables,
    folded: Fold,
    complete: Mapping[str, int],
    last_us: int,
    *,
    announce: Announce | None = None,
) -> bool:
    """Add the cells of *folded* to each baseline and version, in one transaction; return False if some are there.

    So each version stays its baseline and the log, and a rebuild begins with them. The folds of the live version wait
    meanwhile: six seconds for 300,000 cells of four workers.

    Args:
        complete: Resolution -> start of the first bucket that has all imported observations, seconds: versions keep
            none before it.
        last_us: Time of the latest observation.
        announce: Tells readers in the same transaction.

    Raises:
        VersionRefused: A version or a baseline is being made now.
        ImportRefused: The import of a log has not ended.
    """
    while True:
        numbered = await number(connection, tables, folded)
        async with short_transaction(connection, index_only=True) as cursor:
            # The lock of the head keeps promotions, new versions and other imports away.
            await lock_head(cursor, tables)
            if await is_importing(cursor, tables):
                raise ImportRefused("the import of a log has not ended: run this again when it has")
            if await read_imported_day(cursor, tables) is not None:
                return False
            baselines, versions = await _lock_all(cursor, tables)
            if not await still_numbered(cursor, tables, numbered.series, numbered.workers):
                continue  # the clean-up deleted one of its names since
            day = await _insert_day(cursor, tables, last_us)
            kept = []
            for one in versions:
                horizons = await raise_horizons(cursor, tables, one.version, complete)
                assert horizons is not None  # it is locked
                kept.append(horizons)
                await _add(cursor, tables, one.version, numbered, horizons, day)
            together = {name: min(horizons[name] for horizons in kept) for name in RESOLUTIONS}
            for one in baselines:
                await _add(cursor, tables, one.version, numbered, together, day)
                await raise_baseline_horizons(cursor, tables, one.version)
            await reset_ring(cursor, tables)
            if announce is not None:
                await announce(cursor)
            return True


async def _lock_all(cursor: Cursor, tables: Tables) -> tuple[list[Version], list[Version]]:
    """Lock the baselines in use and all versions, and return both.

    Totals that are being built are begun anew, since they may have copied a part of the baseline. Those that are served
    stay without what is imported, as counters that jumped would look like a rate.
    """
    baselines = await read_baselines(cursor, tables)
    for one in baselines:
        await lock_version(cursor, tables, one.version, wait=True)
    versions = [one for one in await read_versions(cursor, tables) if one.status != "dropped"]
    for one in [*await read_collecting(cursor, tables), *versions]:
        if one.status in ("collecting", "copying"):
            raise VersionRefused(
                f"version {one.version} is being made now, and would lack what is imported: finish it with "
                "`chancy-metrics rebuild`, or drop it with `chancy-metrics rebuild --abort`"
            )
    for one in versions:
        await lock_version(cursor, tables, one.version, wait=True)
    await drop_generations(cursor, tables, served=False)
    return baselines, versions


async def _insert_day(cursor: Cursor, tables: Tables, last_us: int) -> date:
    """Insert the day of the imported points, before all others, and return it."""
    await cursor.execute(
        sql.SQL(
            """
            INSERT INTO {days} (day, state, changed_at, last_position, last_us)
            SELECT coalesce(min(day), (clock_timestamp() AT TIME ZONE 'UTC')::date) - 1, 'gone', clock_timestamp(), 0,
                %(last_us)s
            FROM {days}
            RETURNING day
            """
        ).format(days=tables.days),
        {"last_us": last_us},
    )
    row = await cursor.fetchone()
    assert row is not None
    day: date = row[0]
    return day


async def _add(
    cursor: Cursor, tables: Tables, version: int, numbered: Numbered, horizons: Mapping[str, int], day: date
) -> None:
    cells = await to_thread.run_sync(coarsen_expired, numbered.cells, horizons)
    points = await to_thread.run_sync(lambda: derive_points(merge_workers(cells), horizons))
    await store(cursor, tables, version, points, tells=False)
    await write_segments(cursor, tables, version, segment_of_day(day), cells, compressed=True)
