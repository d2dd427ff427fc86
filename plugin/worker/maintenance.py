"""Maintain the tables: create partitions ahead, delete expired rows, compact segments, prune days, measure sizes."""

from __future__ import annotations

from collections.abc import Iterable

from chancy import Chancy
from psycopg import sql

from chancy_metrics.events.database import Connection, Cursor, database_now_us, short_transaction
from chancy_metrics.events.expiry import (
    forget_days,
    forget_positions,
    forget_producers,
    forget_sessions,
    forget_set_aside,
)
from chancy_metrics.events.partitions import DAYS_AHEAD, make_days
from chancy_metrics.events.schema import TABLES, Tables, tables_for
from chancy_metrics.plugin.host.connection import DatabaseClock, own_connection
from chancy_metrics.plugin.host.options import Options
from chancy_metrics.plugin.worker.retention import first_kept_day, prune_days
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.totals.expiry import expire_totals
from chancy_metrics.projections.versions.compact import Compacted, Compaction
from chancy_metrics.projections.versions.expiry import CHUNK, UnusedNames, drop_versions, expire
from chancy_metrics.projections.versions.horizons_ahead import mend
from chancy_metrics.projections.versions.lag import newest_appended_us
from chancy_metrics.projections.versions.left_out import forget_left_out

#: More series than this are reported: most likely an id or a user's name is part of a key.
SERIES_ALARM = 100_000
#: Share of the time that compaction takes at most while it goes on, and seconds after which it is begun anew.
COMPACTION_SHARE = 0.25
COMPACTION_WITHIN_S = 60
#: Name of the dashboard's card for the built-in plugin's table; the sizes of our tables are summed under it.
DASHBOARD_NAME = "metrics"
#: The database's clock is trusted up to this long after the newest batch, in microseconds.
_IDLE_US = 3_600_000_000


class Maintenance:
    """Periodic clean-up by one process; it remembers how far it has scanned the names and compacted the segments."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._names = UnusedNames()
        self._compaction = Compaction(share=COMPACTION_SHARE)

    async def clean(self, connection: Connection, tables: Tables, *, now_us: int | None = None) -> int | None:
        """Delete expired rows in bounded chunks, and prune one day of the log past its retention.

        Args:
            connection: An autocommit one outside a transaction.
            now_us: Time to expire by, microseconds since 1970; the database's clock by default.

        Returns:
            How many rows were deleted, without those of the pruned day; None for none.
        """
        options = self._options
        latest = await believed_now_us(connection, tables)
        now = latest if now_us is None else now_us
        # Horizons only rise, so a clock that is ahead must not move them.
        kept = horizons(min(now, latest), options.max_points, options.maximum_metric_age)
        forgotten = first_kept_day(now, options.maximum_metric_age)
        removed = await expire(connection, tables, kept)
        silent_us = min(now, latest) - options.maximum_metric_age * 1_000_000
        removed += await expire_totals(connection, tables, before_us=silent_us, chunk=CHUNK)
        removed += await drop_versions(connection, tables, now_us=now)
        removed += await self._names.delete(connection, tables)
        async with short_transaction(connection) as cursor:
            removed += await forget_producers(cursor, tables, before=forgotten, chunk=CHUNK)
            removed += await forget_sessions(cursor, tables, before=forgotten, chunk=CHUNK)
            removed += await forget_set_aside(cursor, tables, before=forgotten, chunk=CHUNK)
        async with short_transaction(connection) as cursor:
            removed += await forget_positions(cursor, tables, before=forgotten, chunk=CHUNK)
            removed += await forget_days(cursor, tables, before=forgotten)
            removed += await forget_left_out(cursor, tables, chunk=CHUNK)
        await prune_days(connection, tables, options.rules, now_us=now, log_retention_s=options.log_retention)
        keeps = horizons(latest, options.max_points, options.maximum_metric_age)
        await mend(connection, tables, options.rules, keeps, now_s=latest // 1_000_000)
        return removed or None

    async def compact(self, connection: Connection, tables: Tables) -> Compacted:
        """Merge the segments of workers that have many, and coarsen those that are past their horizon.

        Args:
            connection: An autocommit one outside a transaction.
        """
        latest = await believed_now_us(connection, tables)
        kept = horizons(latest, self._options.max_points, self._options.maximum_metric_age)
        return await self._compaction.run(connection, tables, kept, within_s=COMPACTION_WITHIN_S)


async def believed_now_us(connection: Connection, tables: Tables) -> int:
    """Return the database's clock, microseconds since 1970, at most an hour past the newest batch in the ledger.

    So a clock that jumps ahead expires nothing before a batch was recorded by it. While workers run, one is recorded
    each `collection_interval`.
    """
    async with short_transaction(connection) as cursor:
        now_us = await database_now_us(cursor)
        newest_us = await newest_appended_us(cursor, tables)
    return now_us if newest_us is None else min(now_us, newest_us + _IDLE_US)


async def mend_horizons(chancy: Chancy, options: Options) -> list[str]:
    """Fold again the points hidden by horizons that are ahead; return a sentence for each version that had any."""
    tables = tables_for(chancy.prefix)
    async with own_connection(chancy) as connection:
        now_us = await believed_now_us(connection, tables)
        kept = horizons(now_us, options.max_points, options.maximum_metric_age)
        return await mend(connection, tables, options.rules, kept, now_s=now_us // 1_000_000)


async def make_days_ahead(connection: Connection, tables: Tables, clock: DatabaseClock) -> None:
    """Create the log's partitions of today and the weeks ahead."""
    await clock.ask(connection.cursor())
    await make_days(connection, tables, today=clock.today(), ahead=DAYS_AHEAD)


async def series_count(connection: Connection, tables: Tables) -> int:
    """Return the number of series, at most `SERIES_ALARM` + 1."""
    cursor = await connection.execute(
        sql.SQL("SELECT count(*) FROM (SELECT 1 FROM {series} LIMIT {limit}) AS s").format(
            series=tables.series, limit=sql.Literal(SERIES_ALARM + 1)
        )
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def table_sizes(connection: Connection, chancy: Chancy) -> dict[str, tuple[int, int, int]]:
    """Return total, table and index bytes of the tables of Chancy and its plugins, by name without the prefix.

    A partitioned table includes its partitions, a missing table is left out, and "metrics" is the sum of ours.
    """
    wanted = {"jobs", "queues", "workers", "leader", "queue_rate_limits"}
    for plugin in chancy.plugins.values():
        wanted.update(plugin.get_tables() if hasattr(plugin, "get_tables") else ())
    async with short_transaction(connection) as cursor:
        sizes = await _sizes(cursor, chancy.prefix, wanted | set(TABLES))
    ours = [sizes[name] for name in TABLES if name in sizes]
    if ours:
        sizes[DASHBOARD_NAME] = (sum(s[0] for s in ours), sum(s[1] for s in ours), sum(s[2] for s in ours))
    return sizes


async def _sizes(cursor: Cursor, prefix: str, wanted: Iterable[str]) -> dict[str, tuple[int, int, int]]:
    await cursor.execute(
        """
        SELECT n.name, sum(pg_total_relation_size(t.relid))::bigint, sum(pg_relation_size(t.relid))::bigint,
            sum(pg_indexes_size(t.relid))::bigint
        FROM unnest(%(names)s::text[], %(quoted)s::text[]) AS n (name, quoted)
        CROSS JOIN LATERAL (
            SELECT p.relid
            FROM pg_partition_tree(to_regclass(n.quoted)) AS p
            UNION
            SELECT to_regclass(n.quoted)
        ) AS t
        WHERE t.relid IS NOT NULL
        GROUP BY n.name
        """,
        {
            "names": sorted(wanted),
            "quoted": [sql.Identifier(f"{prefix}{name}").as_string(cursor) for name in sorted(wanted)],
        },
    )
    return {row[0]: (row[1], row[2], row[3]) for row in await cursor.fetchall() if row[1] is not None}
