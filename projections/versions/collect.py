"""Begin to collect a baseline from archives, or claim one whose collection stopped."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from psycopg import sql

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import VersionRefused
from chancy_metrics.events.schema import HORIZON_COLUMNS, Tables
from chancy_metrics.projections.rules.rule_set import RuleSet
from chancy_metrics.projections.versions.baseline import day_of_segment, within_pruned_days
from chancy_metrics.projections.versions.collected import Days, write_days
from chancy_metrics.projections.versions.create import claim, lock_baseline, set_status
from chancy_metrics.projections.versions.version import (
    UNFINISHED,
    Version,
    lock_head,
    read_collecting,
    read_version,
    read_versions,
)


async def begin_collecting(
    connection: Connection, tables: Tables, rules: RuleSet, horizons: Mapping[str, int], *, by: str
) -> Version:
    """Claim the baseline that is being collected by *rules*, or begin one; or return a finished one to go on from.

    Finished is the one from which an unfinished version of *rules* is already being made.

    Args:
        horizons: Resolution -> start of the oldest bucket that it keeps, seconds.

    Raises:
        AlreadyRunning: Another run has it.
        VersionRefused: An unfinished version of *rules* is not made from archives.
        SchemaMissing: The live version's baseline is missing.
    """
    async with short_transaction(connection) as cursor:
        head = await lock_head(cursor, tables)
        base = await lock_baseline(cursor, tables, head)
        for version in await read_versions(cursor, tables):
            if version.status in UNFINISHED and version.pair == rules.pair:
                if version.baseline == base.version:
                    raise VersionRefused(
                        f"version {version.version} is being made by these rules without archives: finish it with "
                        "`chancy-metrics rebuild`, or drop it with `rebuild --abort`, then run this again"
                    )
                done = await read_version(cursor, tables, version.baseline)
                assert done is not None
                return done
        for one in await read_collecting(cursor, tables):
            if one.pair == rules.pair:
                await claim(cursor, tables, one.version, by)
                if one.baseline == base.version and one.rule_names == rules.names:
                    return one
                await set_status(cursor, tables, one.version, "dropped")
        kept = await within_pruned_days(cursor, tables, horizons)
        await cursor.execute(
            sql.SQL(
                """
                INSERT INTO {versions} (
                    version, rules, user_rules, rule_names, status, auto_promote, position, created_by, folded_by,
                    folding_since, folded_at, baseline, {horizons}
                )
                SELECT max(version) + 1, %(built_in)s, %(user)s, %(names)s, 'collecting', false, 0, %(by)s, %(by)s,
                    clock_timestamp(), clock_timestamp(), %(base)s, %(1min)s, %(5min)s, %(1hour)s, %(1day)s
                FROM {versions}
                RETURNING version
                """
            ).format(versions=tables.versions, horizons=sql.SQL(HORIZON_COLUMNS)),
            {
                "built_in": rules.built_in,
                "user": rules.user,
                "names": rules.names,
                "by": by,
                "base": base.version,
                **kept,
            },
        )
        row = await cursor.fetchone()
        assert row is not None
        await write_days(cursor, tables, row[0], Days(left=await _days_of(cursor, tables, base.version)))
        made = await read_version(cursor, tables, row[0])
        assert made is not None
        return made


async def _days_of(cursor: Cursor, tables: Tables, baseline: int) -> list[date]:
    """Return the days of a baseline: those with positions that left the log, and those that it has cells of."""
    await cursor.execute(
        sql.SQL("SELECT DISTINCT fold FROM {segments} WHERE version = %(baseline)s").format(
            segments=tables.worker_segments
        ),
        {"baseline": baseline},
    )
    with_cells = {day_of_segment(row[0]) for row in await cursor.fetchall()}
    await cursor.execute(
        sql.SQL(
            """
            SELECT d.day
            FROM {days} d
            WHERE d.state IN ('absorbed', 'gone')
                AND EXISTS (SELECT FROM {ledger} o WHERE o.day = d.day)
            """
        ).format(days=tables.days, ledger=tables.ledger)
    )
    return sorted({row[0] for row in await cursor.fetchall()} | {day for day in with_cells if day is not None})
