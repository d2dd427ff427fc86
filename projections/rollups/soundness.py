"""Find rollup rows that no fold can have written, and rows of versions, producers and days that contradict others."""

from __future__ import annotations

from collections import Counter
from typing import LiteralString

from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.row_bounds import END_US, POINT_IN_BOUNDS
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.findings import Findings, Spot

#: The totals among the resolutions: a rollup of one bucket, from 0 on, that is wider than any time.
ALL_TIME = "totals"
ALL_TIME_S = 2**62
#: Rows that one check names.
_SHOWN = 20


def rollup_of(tables: Tables, resolution: str) -> sql.Identifier:
    """Return the table of a resolution, or of `ALL_TIME`."""
    return tables.totals if resolution == ALL_TIME else tables.rollup(resolution)


def _width_of(resolution: str) -> int:
    return ALL_TIME_S if resolution == ALL_TIME else RESOLUTIONS[resolution]


def sound(tables: Tables, resolution: str) -> sql.Composed:
    """Return the SQL condition that each row written by a fold meets; readers leave out rows that don't."""
    return sql.SQL("(bucket %% {width} = 0 AND {in_bounds} AND series IN (SELECT id FROM {series}))").format(
        width=_width_of(resolution), in_bounds=sql.SQL(POINT_IN_BOUNDS), series=tables.series
    )


def odd_points(tables: Tables, resolution: str) -> sql.Composed:
    """Return the query for the first rows that are not `sound`, and their number.

    It joins the names, where `sound` looks them up: under IS NOT TRUE that would compare each row with all names.
    """
    return sql.SQL(
        """
        SELECT r.version, r.bucket, r.series, s.key, s.id IS NOT NULL, count(*) OVER ()
        FROM {rollup} r
        LEFT JOIN {series} s
            ON s.id = r.series
        WHERE version IN (SELECT version FROM {versions} WHERE status NOT IN ('dropped', 'totals_dropped'))
            AND (bucket %% {width} = 0 AND {in_bounds} AND s.id IS NOT NULL) IS NOT TRUE
        ORDER BY r.version, r.series, r.bucket
        LIMIT %(shown)s
        """
    ).format(
        rollup=rollup_of(tables, resolution),
        series=tables.series,
        versions=tables.versions,
        width=_width_of(resolution),
        in_bounds=sql.SQL(POINT_IN_BOUNDS),
    )


async def check_points(cursor: Cursor, tables: Tables, found: Findings) -> None:
    """Report rows of rollups and totals that are not `sound`, of whatever bucket. Reads each table once."""
    for resolution in (*RESOLUTIONS, ALL_TIME):
        await cursor.execute(odd_points(tables, resolution), {"shown": _SHOWN})
        odd = await cursor.fetchall()
        for version, bucket, series, key, has_name, _ in odd:
            is_total = resolution == ALL_TIME
            of = f"totals, generation {version}" if is_total else f"{resolution} {bucket} of version {version}"
            where = f"{key or f'series {series}'} {of}"
            fault = (
                "no fold writes such a row: its numbers are out of bounds, or contradict each other"
                if has_name
                else "its series has no name"
            )
            remedy = "`chancy-metrics rebuild --totals`" if is_total else "a rebuild"
            found.add("rollups", where, f"{fault}; readers leave it out, and {remedy} makes it anew")
        if odd:
            found.add_uncounted(Counter({Spot("rollups"): odd[0][-1] - len(odd)}))


#: Check -> query for (where, what) of rows that contradict others; such rows are few.
_BOOKS: dict[LiteralString, LiteralString] = {
    "head": """
        SELECT 'version ' || v.version, 'its status is ' || v.status || ', and the live one is version ' || h.live
        FROM {versions} v
        CROSS JOIN {head} h
        WHERE (v.status = 'live') <> (v.version = h.live)
        UNION ALL
        SELECT 'version ' || v.version, 'it is at position ' || v.position || ', and the ledger ends at ' || h.position
        FROM {versions} v
        CROSS JOIN {head} h
        WHERE v.version NOT IN (0, h.live)
            AND (v.position > h.position OR v.position < 0)
        UNION ALL
        SELECT 'version 0', 'it is missing: no rebuild has the points of pruned days'
        WHERE NOT EXISTS (SELECT FROM {versions} WHERE version = 0)
        UNION ALL
        SELECT 'version ' || version, 'one of its times is infinite'
        FROM {versions}
        WHERE NOT (isfinite(created_at) AND coalesce(isfinite(folded_at), true) AND coalesce(isfinite(live_since), true)
            AND coalesce(isfinite(kept_until), true) AND coalesce(isfinite(folding_since), true))
        UNION ALL
        SELECT 'position ' || d.position,
            'version ' || d.version || ' leaves it out, and the ledger ends at ' || h.position
        FROM {dead} d
        CROSS JOIN {head} h
        WHERE d.position > h.position
            OR d.position < 1
    """,
    "producers": """
        SELECT 'producer ' || producer, 'its row says it was seen at ' || seen_at || ', with ' || holes || ' holes'
        FROM {producers}
        WHERE NOT isfinite(seen_at)
            OR seen_at > clock_timestamp() + interval '1 day'
            OR holes < 0
        UNION ALL
        SELECT 'producer ' || o.producer, 'its row is missing: nobody would see a hole, or an unclean end'
        FROM {ledger} o
        WHERE o.day >= (clock_timestamp() AT TIME ZONE 'UTC')::date - 1
            AND NOT EXISTS (SELECT FROM {producers} p WHERE p.producer = o.producer)
            -- An import brings them last, and that of a single day brings none.
            AND EXISTS (SELECT FROM {producers})
            AND (
                (SELECT min(position) FROM {ledger}) = 1
                OR EXISTS (SELECT FROM {days} WHERE state IN ('absorbed', 'gone'))
            )
        GROUP BY o.producer
        HAVING max(o.sequence) > 1
    """,
    "log": """
        SELECT 'day ' || day,
            'its state is ' || state || ', with a last position of ' || coalesce(last_position::text, 'none')
        FROM {days}
        WHERE NOT day BETWEEN '1970-01-01' AND '2199-12-31'
            OR NOT isfinite(changed_at)
            OR last_position < 0
            OR last_position > (SELECT position FROM {head})
            OR last_us > %(end_us)s
        UNION ALL
        SELECT 'day ' || d.day, 'its last position is said to be ' || d.last_position || ', and is ' || o.last
        FROM {days} d
        JOIN (SELECT day, max(position) AS last FROM {ledger} GROUP BY day) o
            ON o.day = d.day
        WHERE d.state IN ('absorbed', 'gone')
            AND d.last_position <> o.last
        UNION ALL
        SELECT 'day ' || d.day, 'its state is gone, and its partition is still attached to the log'
        FROM {days} d
        JOIN pg_class c
            ON c.relname = %(stem)s || to_char(d.day, 'YYYYMMDD')
        JOIN pg_inherits i
            ON i.inhrelid = c.oid
            AND i.inhparent = %(log)s::regclass
        WHERE d.state = 'gone'
    """,
}


async def check_books(cursor: Cursor, tables: Tables, found: Findings) -> None:
    """Report rows of versions, dead letters, producers and days that contradict others."""
    for check, query in _BOOKS.items():
        await cursor.execute(
            sql.SQL("SELECT subject, what FROM ({query}) AS odd (subject, what) LIMIT %(shown)s").format(
                query=sql.SQL(query).format(
                    versions=tables.versions,
                    head=tables.head,
                    dead=tables.dead_letters,
                    producers=tables.producers,
                    ledger=tables.ledger,
                    days=tables.days,
                )
            ),
            {
                "shown": _SHOWN,
                "end_us": END_US,
                "stem": tables.partition_stem,
                "log": tables.log.as_string(cursor),
            },
        )
        for where, what in await cursor.fetchall():
            found.add(check, where, what)  # type: ignore[arg-type] # a key of _BOOKS
