"""Keeps the tables in shape: days ahead, expired points, names nobody uses, table sizes."""

from __future__ import annotations

from collections.abc import Iterable

from chancy import Chancy
from psycopg import AsyncConnection, AsyncCursor, sql
from psycopg.rows import TupleRow

from chancy_metrics.events.log import short_transaction
from chancy_metrics.events.partitions import DAYS_AHEAD, make_days
from chancy_metrics.events.schema import RESOLUTIONS, TABLES, Tables
from chancy_metrics.projections.buckets import horizons

from .connection import DatabaseClock
from .options import Options

#: Rows one statement deletes, and statements of one kind a call makes: pieces that nobody waits for.
PIECE = 10_000
PIECES = 20
#: Names looked at in one call.
NAMES = 2_000
#: More series than this are an alarm: most likely an id or a user's name has got into a key.
SERIES_ALARM = 100_000
#: The dashboard's card of the built-in's table; ours are summed under its name.
DASHBOARD_NAME = "metrics"


class Maintenance:
    """Work that one process does now and then; it remembers how far it has looked through the names."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._series_seen = 0
        self._workers_seen = 0

    async def clean(
        self, connection: AsyncConnection[TupleRow], names: Tables, *, now_us: int | None = None
    ) -> int | None:
        """Raise the horizons and delete what lies below them, in bounded pieces.

        Args:
            now_us: The time to go by; the database's by default.

        Returns:
            How many rows went; None if none did.
        """
        options = self._options
        removed = 0
        async with short_transaction(connection) as cursor:
            now = now_us if now_us is not None else await _now_us(cursor)
            kept = horizons(now, options.max_points, options.maximum_metric_age)
            version = await _raise_horizons(cursor, names, kept)
        if version is None:
            return None  # a fold holds the version; the next call comes soon
        for resolution, horizon in kept.items():
            removed += await _delete_expired(connection, names, resolution, version, horizon)
        removed += await self._delete_names(connection, names, version)
        removed += await _delete_producers(connection, names, now - options.maximum_metric_age * 1_000_000)
        return removed or None

    async def _delete_names(self, connection: AsyncConnection[TupleRow], names: Tables, version: int) -> int:
        """Delete series and workers that no row has any more, under the version's lock, which folds take too."""
        async with short_transaction(connection, index_only=True) as cursor:
            if not await _lock_version(cursor, names, version):
                return 0
            series, self._series_seen = await _unused(cursor, names, names.series, "series", version, self._series_seen)
            workers, self._workers_seen = await _unused(
                cursor, names, names.workers, "worker", version, self._workers_seen
            )
            return series + workers


async def make_days_ahead(connection: AsyncConnection[TupleRow], names: Tables, clock: DatabaseClock) -> None:
    """Make the log's partitions of today and the weeks ahead."""
    cursor = await connection.execute("SELECT clock_timestamp()")
    row = await cursor.fetchone()
    if row is not None:
        clock.see(row[0])
    await make_days(connection, names, today=clock.today(), ahead=DAYS_AHEAD)


async def series_count(connection: AsyncConnection[TupleRow], names: Tables) -> int:
    """How many series there are; exact up to the alarm, which is all it is for."""
    cursor = await connection.execute(
        sql.SQL("SELECT count(*) FROM (SELECT 1 FROM {series} LIMIT {limit}) AS s").format(
            series=names.series, limit=sql.Literal(SERIES_ALARM + 1)
        )
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def table_sizes(connection: AsyncConnection[TupleRow], chancy: Chancy) -> dict[str, tuple[int, int, int]]:
    """Return total, table and index bytes of Chancy's tables and every plugin's, by name without the prefix.

    Partitions count for their table, a table that is not there is left out, and "metrics" is the sum of ours.
    """
    wanted = {"jobs", "queues", "workers", "leader", "queue_rate_limits"}
    for plugin in chancy.plugins.values():
        wanted.update(plugin.get_tables() if hasattr(plugin, "get_tables") else ())
    sizes = await _sizes(connection, chancy.prefix, wanted | set(TABLES))
    ours = [sizes[name] for name in TABLES if name in sizes]
    if ours:
        sizes[DASHBOARD_NAME] = (sum(s[0] for s in ours), sum(s[1] for s in ours), sum(s[2] for s in ours))
    return sizes


async def _sizes(
    connection: AsyncConnection[TupleRow], prefix: str, wanted: Iterable[str]
) -> dict[str, tuple[int, int, int]]:
    cursor = await connection.execute(
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
            "quoted": [sql.Identifier(f"{prefix}{name}").as_string(connection) for name in sorted(wanted)],
        },
    )
    return {row[0]: (row[1], row[2], row[3]) for row in await cursor.fetchall() if row[1] is not None}


async def _now_us(cursor: AsyncCursor[TupleRow]) -> int:
    await cursor.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def _raise_horizons(cursor: AsyncCursor[TupleRow], names: Tables, kept: dict[str, int]) -> int | None:
    await cursor.execute(
        sql.SQL(
            """
            UPDATE {versions}
            SET horizon_1min = greatest(horizon_1min, %(1min)s),
                horizon_5min = greatest(horizon_5min, %(5min)s),
                horizon_1hour = greatest(horizon_1hour, %(1hour)s),
                horizon_1day = greatest(horizon_1day, %(1day)s)
            WHERE version = (
                SELECT v.version
                FROM {versions} v
                WHERE v.version = (SELECT live FROM {head})
                FOR UPDATE OF v SKIP LOCKED
            )
            RETURNING version
            """
        ).format(versions=names.versions, head=names.head),
        kept,
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else None


async def _delete_expired(
    connection: AsyncConnection[TupleRow], names: Tables, resolution: str, version: int, horizon: int
) -> int:
    removed = 0
    for _ in range(PIECES):
        async with short_transaction(connection) as cursor:
            await cursor.execute(
                sql.SQL(
                    """
                    DELETE FROM {rollup}
                    WHERE ctid = ANY(ARRAY(
                        SELECT ctid
                        FROM {rollup}
                        WHERE version = %(version)s
                            AND bucket / 60 < %(minute)s
                        LIMIT %(piece)s
                        FOR UPDATE SKIP LOCKED
                    ))
                    """
                ).format(rollup=names.rollup(resolution)),
                {"version": version, "minute": horizon // 60, "piece": PIECE},
            )
            removed += cursor.rowcount
            if cursor.rowcount < PIECE:
                break
    return removed


async def _lock_version(cursor: AsyncCursor[TupleRow], names: Tables, version: int) -> bool:
    await cursor.execute(
        sql.SQL("SELECT 1 FROM {versions} WHERE version = %(version)s FOR UPDATE SKIP LOCKED").format(
            versions=names.versions
        ),
        {"version": version},
    )
    return await cursor.fetchone() is not None


async def _unused(
    cursor: AsyncCursor[TupleRow], names: Tables, table: sql.Identifier, column: str, version: int, after: int
) -> tuple[int, int]:
    """Delete names past id *after* that no rollup has; return how many went and where to go on."""
    used = sql.SQL(" OR ").join(
        sql.SQL("EXISTS (SELECT 1 FROM {rollup} r WHERE r.version = %(version)s AND {match})").format(
            rollup=names.rollup(resolution),
            # A series that any worker's row has is in a merged row too.
            match=sql.SQL("r.worker = 0 AND r.series = n.id" if column == "series" else "r.worker = n.id"),
        )
        for resolution in RESOLUTIONS
    )
    await cursor.execute(
        sql.SQL(
            "SELECT max(id), count(*) FROM (SELECT id FROM {table} WHERE id > %(after)s ORDER BY id LIMIT %(most)s) n"
        ).format(table=table),
        {"after": after, "most": NAMES},
    )
    row = await cursor.fetchone()
    until, found = row if row else (None, 0)
    if until is None:
        return 0, 0
    await cursor.execute(
        sql.SQL("DELETE FROM {table} n WHERE n.id > %(after)s AND n.id <= %(until)s AND NOT ({used})").format(
            table=table, used=used
        ),
        {"after": after, "until": until, "version": version},
    )
    return cursor.rowcount, int(until) if found == NAMES else 0


async def _delete_producers(connection: AsyncConnection[TupleRow], names: Tables, before_us: int) -> int:
    async with short_transaction(connection) as cursor:
        await cursor.execute(
            sql.SQL(
                """
                DELETE FROM {producers}
                WHERE producer = ANY(ARRAY(
                    SELECT producer
                    FROM {producers}
                    WHERE seen_at < to_timestamp(%(before_us)s / 1000000.0)
                    LIMIT %(piece)s
                    FOR UPDATE SKIP LOCKED
                ))
                """
            ).format(producers=names.producers),
            {"before_us": before_us, "piece": PIECE},
        )
        return cursor.rowcount
