"""Find the segments that are due to be merged, some workers at a time, without reading their data."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import groupby

from psycopg import sql

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.off_loop import in_thread
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.rollups.tiers import FAN_OUT, TIERS, Segment, choose, choose_whole

#: Workers that one query looks through.
WORKERS = 1_000
#: Rows of segments that are weighed up at once.
ROWS = 5_000
#: Segments, cells and bytes that are merged and replaced at once, unless one worker has more to merge.
PIECE_SEGMENTS, PIECE_CELLS, PIECE_BYTES = 1_000, 50_000, 8 << 20

#: Segments of one worker that are merged.
Choice = list[Segment]


async def last_worker(connection: Connection, tables: Tables, after: int) -> int | None:
    """Return the id of the last of the next `WORKERS` workers; None if there are none."""
    async with short_transaction(connection, index_only=True) as cursor:
        await cursor.execute(
            sql.SQL(
                "SELECT max(id) FROM (SELECT id FROM {workers} WHERE id > %(after)s ORDER BY id LIMIT %(limit)s) AS w"
            ).format(workers=tables.workers),
            {"after": after, "limit": WORKERS},
        )
        row = await cursor.fetchone()
        return None if row is None else row[0]


async def read_due(
    connection: Connection,
    tables: Tables,
    version: int,
    horizons: Mapping[str, int],
    after: int,
    until: int,
    *,
    by_day: bool,
) -> AsyncIterator[list[Choice]]:
    """Yield what to merge of the workers past id *after* and up to *until*, some workers at a time."""
    by_width = {width: horizons[name] for name, width in RESOLUTIONS.items()}
    async with short_transaction(connection, index_only=True) as cursor:
        due = await _due(cursor, tables, version, by_width, after, until, merges=not by_day)
    workers: list[int] = []
    rows = 0
    for worker, its_rows in [*due, (0, ROWS)]:
        if workers and rows + its_rows > ROWS:
            async with short_transaction(connection, index_only=True) as cursor:
                segments = await _read_rows(cursor, tables, version, workers)
            yield await in_thread(_choose, segments, by_width, by_day)
            workers, rows = [], 0
        workers.append(worker)
        rows += its_rows


async def _due(
    cursor: Cursor, tables: Tables, version: int, horizons: Mapping[int, int], after: int, until: int, *, merges: bool
) -> list[tuple[int, int]]:
    """Return the ids of workers with something to merge, and how many segments each has; reads no data."""
    horizon = sql.SQL(" ").join(
        sql.SQL("WHEN {} THEN {}").format(width, 2 * horizon) for width, horizon in horizons.items()
    )
    await cursor.execute(
        sql.SQL(
            """
            SELECT worker, sum(segments)::bigint
            FROM (
                SELECT worker, count(*) AS segments,
                    bool_or(first_s + end_s < CASE resolution {horizon} END)
                    OR (%(merges)s AND count(*) >= {fan_out} AND tier < {full}) AS is_due
                FROM (
                    SELECT worker, resolution, first_s, end_s, width_bucket(cells, {tiers}::integer[]) AS tier
                    FROM {segments}
                    WHERE version = %(version)s
                        AND worker > %(after)s
                        AND worker <= %(until)s
                ) AS s
                GROUP BY worker, resolution, tier
            ) AS t
            GROUP BY worker
            HAVING bool_or(is_due)
            ORDER BY worker
            """
        ).format(
            segments=tables.worker_segments,
            horizon=horizon,
            fan_out=FAN_OUT,
            tiers=sql.Literal(list(TIERS)),
            full=len(TIERS),
        ),
        {"version": version, "after": after, "until": until, "merges": merges},
    )
    return [(row[0], row[1]) for row in await cursor.fetchall()]


async def _read_rows(cursor: Cursor, tables: Tables, version: int, workers: Sequence[int]) -> list[Segment]:
    """Return the rows of the segments of *workers* without their data; of those with very many, the first ones."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT worker, resolution, fold, part, first_s, end_s, cells, octet_length(data), xmin::text
            FROM {segments}
            WHERE version = %(version)s
                AND worker = ANY(%(workers)s::integer[])
                AND resolution = ANY(%(widths)s::integer[])
            ORDER BY worker, resolution, fold, part
            LIMIT %(limit)s
            """
        ).format(segments=tables.worker_segments),
        {
            "version": version,
            "workers": list(workers),
            "widths": list(RESOLUTIONS.values()),
            "limit": 2 * ROWS,
        },
    )
    return [Segment(*row) for row in await cursor.fetchall()]


def _choose(segments: Sequence[Segment], horizons: Mapping[int, int], by_day: bool) -> list[Choice]:
    if by_day:
        # A day's segments stay apart from those of others, so that it can be replaced.
        days = sorted(segments, key=_worker_and_fold)
        choices = [choose_whole(list(rows), horizons) for _, rows in groupby(days, _worker_and_fold)]
    else:
        choices = [choose(list(rows), horizons) for _, rows in groupby(segments, lambda one: one.worker)]
    return [choice for choice in choices if choice]


def _worker_and_fold(segment: Segment) -> tuple[int, int]:
    return segment.worker, segment.fold


def pieces(choices: Sequence[Choice]) -> Iterator[list[Choice]]:
    piece: list[Choice] = []
    segments = cells = size_bytes = 0
    for choice in choices:
        own = len(choice), sum(one.cells for one in choice), sum(one.size_bytes for one in choice)
        segments, cells, size_bytes = segments + own[0], cells + own[1], size_bytes + own[2]
        if piece and (segments > PIECE_SEGMENTS or cells > PIECE_CELLS or size_bytes > PIECE_BYTES):
            yield piece
            piece = []
            segments, cells, size_bytes = own
        piece.append(choice)
    if piece:
        yield piece
