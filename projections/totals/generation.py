"""Generations of the totals: begin one, copy the baseline into it, give it newer rules, serve it instead of another."""

from __future__ import annotations

from psycopg import sql

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import TotalsNotReady
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.events.transfer.guard import is_importing
from chancy_metrics.projections.rollups.read import read_merged
from chancy_metrics.projections.rollups.soundness import sound
from chancy_metrics.projections.rollups.totals import add_totals
from chancy_metrics.projections.rules.rule_set import RuleSet, is_above
from chancy_metrics.projections.versions.create import insert_version, lock_baseline, set_status
from chancy_metrics.projections.versions.outcome import Advanced
from chancy_metrics.projections.versions.version import (
    TOTALS,
    TOTALS_DROPPED,
    Version,
    lock_head,
    lock_version,
    lock_version_soon,
    read_baselines,
    read_generations,
)

#: Series of the baseline that one transaction adds up.
COPY_SERIES = 200
#: Seconds without a step, though batches wait, after which code with other rules than a generation's takes it over.
STANDSTILL_S = 3_600
#: Events are folded at the coarsest resolution at once: totals have no buckets.
HORIZONS = dict.fromkeys(RESOLUTIONS, 2**62) | {"1day": 0}


async def begin_generation(connection: Connection, tables: Tables, rules: RuleSet, *, by: str) -> Version:
    """Return the generation of *rules* that is being built; begin it if there is none, and drop one of other rules.

    Raises:
        TotalsNotReady: An import has not ended.
    """
    async with short_transaction(connection) as cursor:
        head = await lock_head(cursor, tables)
        if await is_importing(cursor, tables):
            raise TotalsNotReady("an import has not ended, and the totals are built of what it brings: try again later")
        # A day that is being absorbed is either in the baseline or folded from the log; this lock decides which.
        base = await lock_baseline(cursor, tables, head)
        for one in await read_generations(cursor, tables):
            if one.status == "totals":
                continue
            if one.refuses(rules) is None:
                return one
            await lock_version(cursor, tables, one.version, wait=True)
            await set_status(cursor, tables, one.version, TOTALS_DROPPED)
        return await insert_version(cursor, tables, rules, head, base, HORIZONS, status="totals_copying", by=by)


async def copy_baseline(connection: Connection, tables: Tables, generation: Version) -> Advanced:
    """Add up the next series of the baseline, or say that none are left; nothing moves the baseline's points meanwhile.

    The last series that is there says where to go on, whoever added it. If the baseline is not in use any more, since
    another one was collected from archives, its rows may be gone, and the generation is dropped.
    """
    async with short_transaction(connection, index_only=True) as cursor:
        mine = await lock_version_soon(cursor, tables, generation.version)
        if mine is None or mine.status != "totals_copying":
            return Advanced.busy(generation.position)
        series = await _next_series(cursor, tables, mine)
        cells = {}
        if series:
            since = {"1day": mine.horizons["1day"]}
            cells = await read_merged(cursor, tables, mine.baseline, since, series=(series[0], series[-1]))
        if mine.baseline not in {one.version for one in await read_baselines(cursor, tables)}:
            await set_status(cursor, tables, mine.version, TOTALS_DROPPED)
            return Advanced.busy(mine.position)
        await add_totals(cursor, tables, mine.version, cells, is_served=False)
        await _note_progress(cursor, tables, mine, "totals_copying" if series else "totals_backfilling")
        return Advanced(0, mine.position)


async def take_over(connection: Connection, tables: Tables, generation: Version, rules: RuleSet) -> str | None:
    """Let code with *rules* go on with a generation; return why that is not possible now, as a sentence, or None.

    Newer rules take over at once: the series that they add count from then on. Others do if nobody has advanced the
    generation for long, though batches wait, as after a deploy that was rolled back. One that is still being built
    is dropped instead, to be built anew, so that each series in it is by one set of rules.
    """
    if (reason := generation.refuses(rules)) is None:
        return None
    async with short_transaction(connection) as cursor:
        mine = await lock_version_soon(cursor, tables, generation.version)
        if mine is None or (reason := mine.refuses(rules)) is None:
            return reason
        if mine.pair == rules.pair or not (
            is_above(rules.pair, mine.pair) or await _stands_still(cursor, tables, mine.version)
        ):
            return reason
        if mine.status != "totals":
            await set_status(cursor, tables, mine.version, TOTALS_DROPPED)
            return None
        await cursor.execute(
            sql.SQL(
                """
                UPDATE {versions}
                SET rules = %(built_in)s,
                    user_rules = %(user)s,
                    rule_names = %(names)s
                WHERE version = %(version)s
                """
            ).format(versions=tables.versions),
            {"built_in": rules.built_in, "user": rules.user, "names": rules.names, "version": mine.version},
        )
    return None


async def serve(connection: Connection, tables: Tables, generation: Version) -> bool:
    """Serve a generation that is built, and drop the one that was served, in one transaction.

    A series whose total is the same counts since the same time: another one would say that it began anew.

    Returns:
        False if it is not being built any more, or is behind the one that is served: advance it further first.
    """
    async with short_transaction(connection) as cursor:
        before = []
        for one in await read_generations(cursor, tables):
            locked = await lock_version(cursor, tables, one.version, wait=True)
            if locked is not None and locked.status in TOTALS:
                before.append(locked)
        mine = next((one for one in before if one.version == generation.version), None)
        if mine is None or mine.status != "totals_backfilling" or any(one.position > mine.position for one in before):
            return False
        for one in before:
            if one.status == "totals":
                await _keep_created(cursor, tables, one.version, mine.version)
            await set_status(cursor, tables, one.version, "totals" if one is mine else TOTALS_DROPPED)
        return True


async def drop_unserved(connection: Connection, tables: Tables, generation: Version) -> bool:
    """Drop a generation that is not served; return False if it is."""
    async with short_transaction(connection) as cursor:
        mine = await lock_version(cursor, tables, generation.version, wait=True)
        if mine is None or mine.status == "totals":
            return False
        await set_status(cursor, tables, mine.version, TOTALS_DROPPED)
        return True


async def _keep_created(cursor: Cursor, tables: Tables, old: int, new: int) -> None:
    await cursor.execute(
        sql.SQL(
            """
            UPDATE {totals} n
            SET created_us = o.created_us
            FROM {totals} o
            WHERE o.version = %(old)s
                AND n.version = %(new)s
                AND n.series = o.series
                AND n.count = o.count
                AND n.sum = o.sum
                AND n.created_us <> o.created_us
            """
        ).format(totals=tables.totals),
        {"old": old, "new": new},
    )


async def _next_series(cursor: Cursor, tables: Tables, generation: Version) -> list[int]:
    """Return the ids of the next series that the baseline has sound points of, past those that the generation has."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT DISTINCT series
            FROM {rollup}
            WHERE version = %(baseline)s
                AND series > coalesce((SELECT max(series) FROM {totals} WHERE version = %(version)s), -1)
                AND bucket >= %(since)s
                AND {sound}
            ORDER BY series
            LIMIT %(limit)s
            """
        ).format(rollup=tables.rollup("1day"), totals=tables.totals, sound=sound(tables, "1day")),
        {
            "baseline": generation.baseline,
            "version": generation.version,
            "since": generation.horizons["1day"],
            "limit": COPY_SERIES,
        },
    )
    return [row[0] for row in await cursor.fetchall()]


async def _note_progress(cursor: Cursor, tables: Tables, generation: Version, status: str) -> None:
    await cursor.execute(
        sql.SQL(
            "UPDATE {versions} SET status = %(status)s, folded_at = clock_timestamp() WHERE version = %(version)s"
        ).format(versions=tables.versions),
        {"status": status, "version": generation.version},
    )


async def _stands_still(cursor: Cursor, tables: Tables, generation: int) -> bool:
    await cursor.execute(
        sql.SQL(
            """
            SELECT v.position < h.position
                AND v.folded_at < clock_timestamp() - make_interval(secs => %(standstill)s)
            FROM {versions} v
            CROSS JOIN {head} h
            WHERE v.version = %(version)s
            """
        ).format(versions=tables.versions, head=tables.head),
        {"version": generation, "standstill": STANDSTILL_S},
    )
    row = await cursor.fetchone()
    return bool(row and row[0])
