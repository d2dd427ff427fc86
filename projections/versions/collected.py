"""A baseline that is being collected: each day is folded again from its archive, or copied from the baseline in use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import date

import msgspec
from psycopg import sql
from psycopg.types.json import Jsonb

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import VersionRefused
from chancy_metrics.events.schema import RESOLUTIONS, SEGMENT_COLUMNS, Tables
from chancy_metrics.projections.fold.fold import Fold
from chancy_metrics.projections.fold.levels import coarsen_expired, derive_points, merge_workers
from chancy_metrics.projections.rollups.ids import number, still_numbered
from chancy_metrics.projections.rollups.segments import read_segments, write_segments
from chancy_metrics.projections.rollups.write import store
from chancy_metrics.projections.versions.baseline import count, segment_of_day
from chancy_metrics.projections.versions.left_out import copy_left_out, write_left_out
from chancy_metrics.projections.versions.step import too_late
from chancy_metrics.projections.versions.version import Version, lock_version, read_version


class Days(msgspec.Struct):
    """The days of a baseline that is made from archives.

    Attributes:
        left: Days that are still to be added, ascending.
        folded: Days that were folded again from their archives.
        kept: Day -> why it was copied from the baseline in use instead.
    """

    left: list[date] = []
    folded: list[date] = []
    kept: dict[date, str] = {}


async def read_days(cursor: Cursor, tables: Tables, version: int) -> Days | None:
    """Return the days of a baseline; None if it was not made from archives."""
    await cursor.execute(
        sql.SQL("SELECT archives::text FROM {versions} WHERE version = %(version)s").format(versions=tables.versions),
        {"version": version},
    )
    row = await cursor.fetchone()
    return None if row is None or row[0] is None else decode_days(row[0])


def decode_days(archives: str | None) -> Days:
    """Return the days that a version's row has in `archives`; none if nothing is there."""
    return Days() if archives is None else msgspec.json.decode(archives, type=Days)


async def write_days(cursor: Cursor, tables: Tables, version: int, days: Days) -> None:
    await cursor.execute(
        sql.SQL(
            """
            UPDATE {versions}
            SET archives = %(archives)s,
                folded_at = clock_timestamp()
            WHERE version = %(version)s
            """
        ).format(versions=tables.versions),
        {"archives": Jsonb(msgspec.to_builtins(days)), "version": version},
    )


async def add_folded(connection: Connection, tables: Tables, version: int, day: date, folded: Fold) -> None:
    """Add what the archive of *day* was folded into, in one transaction that takes the day off the list.

    Dead letters that the baseline in use has of the day, and that are found again, stay given up if they were.
    """
    while True:
        numbered = await number(connection, tables, folded)
        async with short_transaction(connection, index_only=True) as cursor:
            mine, days = await _lock(cursor, tables, version)
            if day not in days.left:
                return
            if not await still_numbered(cursor, tables, numbered.series, numbered.workers):
                continue  # the clean-up deleted one of its names since
            cells = coarsen_expired(numbered.cells, mine.horizons)
            await store(cursor, tables, version, derive_points(merge_workers(cells), mine.horizons), tells=False)
            await write_segments(cursor, tables, version, segment_of_day(day), cells, compressed=True)
            await copy_left_out(cursor, tables, mine.baseline, version, day=day)
            await _forget_found_no_more(cursor, tables, version, day, folded)
            await write_left_out(cursor, tables, version, folded.dead, folded.failed)
            counts = folded.counts + Counter({"expired": too_late(folded.days, mine.horizons)})
            await count(cursor, tables, version, counts)
            days.left.remove(day)
            days.folded.append(day)
            await write_days(cursor, tables, version, days)
            return


async def add_kept(connection: Connection, tables: Tables, version: int, day: date, reason: str) -> None:
    """Copy *day* from the baseline in use, in one transaction that takes it off the list.

    Segments are copied as they are, damaged ones too, so that `verify` goes on to find them.
    """
    async with short_transaction(connection, index_only=True) as cursor:
        mine, days = await _lock(cursor, tables, version)
        if day not in days.left:
            return
        source = await read_version(cursor, tables, mine.baseline)
        assert source is not None
        since = {name: max(source.horizons[name], mine.horizons[name]) for name in RESOLUTIONS}
        fold = segment_of_day(day)
        cells = await read_segments(cursor, tables, source.version, since, fold=fold)
        await cursor.execute(
            sql.SQL(
                """
                INSERT INTO {segments} (version, {columns})
                SELECT %(version)s, {columns}
                FROM {segments}
                WHERE version = %(source)s
                    AND fold = %(fold)s
                """
            ).format(segments=tables.worker_segments, columns=sql.SQL(SEGMENT_COLUMNS)),
            {"version": version, "source": source.version, "fold": fold},
        )
        await store(cursor, tables, version, derive_points(merge_workers(cells), since), tells=False)
        await copy_left_out(cursor, tables, source.version, version, day=day)
        days.left.remove(day)
        days.kept[day] = reason
        await write_days(cursor, tables, version, days)


async def finish_collected(cursor: Cursor, tables: Tables, version: int, base: Version) -> Version:
    """Make a collected baseline one that a version can be made from, and return it; the caller holds *base*'s lock.

    If a day was kept, its horizons and its counts are those of *base*: below them it would lack that day's points, and
    a baseline does not know its counts by day.

    Raises:
        VersionRefused: It was not collected from *base*, or not to its end.
    """
    found = await lock_version(cursor, tables, version, wait=True)
    if found is not None and found.status == "baseline":  # a version was made from it before
        return found
    mine, days = await _lock(cursor, tables, version)
    if mine.baseline != base.version or days.left:
        raise VersionRefused(
            f"another version became live while the days of baseline {version} were folded from their archives: "
            "run the command again"
        )
    await cursor.execute(
        sql.SQL(
            """
            UPDATE {versions} v
            SET status = 'baseline',
                folded_at = clock_timestamp(),
                counts = CASE WHEN w.is_whole THEN v.counts ELSE o.counts END,
                horizon_1min = greatest(v.horizon_1min, CASE WHEN w.is_whole THEN 0 ELSE o.horizon_1min END),
                horizon_5min = greatest(v.horizon_5min, CASE WHEN w.is_whole THEN 0 ELSE o.horizon_5min END),
                horizon_1hour = greatest(v.horizon_1hour, CASE WHEN w.is_whole THEN 0 ELSE o.horizon_1hour END),
                horizon_1day = greatest(v.horizon_1day, CASE WHEN w.is_whole THEN 0 ELSE o.horizon_1day END)
            FROM {versions} o
            CROSS JOIN (
                -- Days whose positions were cleaned up may be missing altogether.
                SELECT %(is_whole)s AND coalesce(min(position), 1) = 1
                FROM {ledger}
            ) AS w (is_whole)
            WHERE v.version = %(version)s
                AND o.version = %(base)s
            """
        ).format(versions=tables.versions, ledger=tables.ledger),
        {"is_whole": not days.kept, "version": version, "base": base.version},
    )
    done = await read_version(cursor, tables, version)
    assert done is not None
    return done


async def _lock(cursor: Cursor, tables: Tables, version: int) -> tuple[Version, Days]:
    mine = await lock_version(cursor, tables, version, wait=True)
    if mine is None or mine.status != "collecting":
        raise VersionRefused(
            f"baseline {version}, into which archives were folded, was given up meanwhile: run the command again"
        )
    days = await read_days(cursor, tables, version)
    return mine, days or Days()


async def _forget_found_no_more(cursor: Cursor, tables: Tables, version: int, day: date, folded: Fold) -> None:
    """Delete the copied dead letters of *day* that the fold of its archive did not find."""
    found: Mapping[tuple[int, str], str] = {(position, ""): "" for position in folded.dead} | dict(folded.failed)
    await cursor.execute(
        sql.SQL(
            """
            DELETE FROM {dead} d
            USING {ledger} o
            WHERE d.version = %(version)s
                AND o.position = d.position
                AND o.day = %(day)s
                AND NOT EXISTS (
                    SELECT
                    FROM unnest(%(positions)s::bigint[], %(rules)s::text[]) AS f (position, rule)
                    WHERE f.position = d.position
                        AND f.rule = d.rule
                )
            """
        ).format(dead=tables.dead_letters, ledger=tables.ledger),
        {
            "version": version,
            "day": day,
            "positions": [position for position, _ in found],
            "rules": [rule for _, rule in found],
        },
    )
