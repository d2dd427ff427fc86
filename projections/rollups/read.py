"""Read the rollup rows of a version back into cells, as a Fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import numpy as np
from anyio import to_thread
from psycopg import sql
from psycopg.rows import TupleRow, tuple_row

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.errors import Damaged
from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.fold.cells import Cells, Sketches, concatenate, merge
from chancy_metrics.projections.fold.exact_sum import canonical
from chancy_metrics.projections.fold.fold import Fold
from chancy_metrics.projections.fold.sketch import decode
from chancy_metrics.projections.rollups.soundness import sound

#: Rows read at once.
_CHUNK_ROWS = 20_000
_ONLY = sql.SQL("AND worker = %(worker)s AND series = %(series)s")
#: Whether a sum is a number of millionths that 64 bits hold.
_WHOLE_MICRO = sql.SQL("(scale(sum) <= 6 AND abs(sum) < 9000000000000)")


async def read_cells(
    cursor: Cursor,
    tables: Tables,
    version: int,
    since: Mapping[str, int],
    until: Mapping[str, int] | None = None,
    only: tuple[int, int] | None = None,
) -> Fold:
    """Return the stored points of *version* in the caller's snapshot, without rows that are not `sound`.

    Args:
        since: Resolution -> start of the first bucket, seconds; other resolutions are not read.
        until: Resolution -> start of the first bucket past the end; no end by default.
        only: Id of a worker (0: all together) and id of a series, to read only their points.
    """
    series: dict[int, int] = {}
    workers: dict[int, int] = {}
    levels = {}
    for resolution in [name for name in RESOLUTIONS if name in since]:
        parts = []
        async with cursor.connection.cursor("metrics_rollup", row_factory=tuple_row) as rollup:
            await rollup.execute(
                sql.SQL(
                    """
                    SELECT worker, series, bucket, count, last_us,
                        CASE WHEN {whole} THEN (sum * 1000000)::bigint ELSE 0 END,
                        CASE WHEN {whole} THEN 0 ELSE sum END,
                        min, max, last, last_position, last_index, coalesce(sketch, '')
                    FROM {rollup}
                    WHERE version = %(version)s
                        AND bucket >= %(since)s
                        AND bucket < %(until)s
                        AND {sound}
                        {only}
                    """
                ).format(
                    rollup=tables.rollup(resolution),
                    whole=_WHOLE_MICRO,
                    sound=sound(tables, resolution),
                    only=_ONLY if only else sql.SQL(""),
                ),
                {
                    "version": version,
                    "since": since[resolution],
                    "until": 2**63 - 1 if until is None else until[resolution],
                    "worker": only[0] if only else None,
                    "series": only[1] if only else None,
                },
                binary=True,
            )
            while rows := await rollup.fetchmany(_CHUNK_ROWS):
                parts.append(await to_thread.run_sync(_cells, rows, series, workers))
        if parts:
            levels[resolution] = await to_thread.run_sync(lambda parts: merge(concatenate(parts)), parts)
    return Fold.of_cells(
        [name for (name,) in await _names(cursor, tables.workers, ["name"], list(workers))],
        [Series(*row) for row in await _names(cursor, tables.series, ["key", "kind", "unit"], list(series))],
        levels,
    )


def _cells(rows: Sequence[TupleRow], series: dict[int, int], workers: dict[int, int]) -> Cells:
    """Return rows as unmerged cells, with the numbers of a fold instead of the database's ids."""
    columns = zip(*rows, strict=True)
    worker, number, bucket, count, last_us, micro, rest, minimum, maximum, last, position, index, sketch = columns
    decoded = [(row, *decode_or_empty(data)) for row, data in enumerate(sketch) if data]
    return Cells(
        worker=np.array([workers.setdefault(one, len(workers) + 1) if one else 0 for one in worker], np.int64),
        series=np.array([series.setdefault(one, len(series)) for one in number], np.int64),
        bucket=np.array(bucket, np.int64),
        observations=np.array(count, np.int64),
        last_us=np.array(last_us, np.int64),
        micro=np.array(micro, np.int64),
        rest={row: canonical(Decimal(value)) for row, value in enumerate(rest) if value},
        minimum=np.array(minimum, np.float64),
        maximum=np.array(maximum, np.float64),
        last=np.array([np.nan if one is None else one for one in last], np.float64),
        last_position=np.array([one or 0 for one in position], np.int64),
        last_index=np.array([one or 0 for one in index], np.int64),
        sketches=Sketches(
            np.repeat(
                np.array([row for row, _, _ in decoded], np.int64),
                np.array([len(codes) for _, codes, _ in decoded], np.int64),
            ),
            np.array([code for _, codes, _ in decoded for code in codes], np.int32),
            np.array([one for _, _, counts in decoded for one in counts], np.int64),
        ),
    )


def decode_or_empty(sketch: bytes) -> tuple[list[int], list[int]]:
    """Return a stored sketch's codes and counts; none if it is damaged, so that it differs from any sound one."""
    try:
        return decode(sketch)
    except Damaged:
        return [], []


async def _names(cursor: Cursor, table: sql.Identifier, columns: Sequence[str], numbers: list[int]) -> list[TupleRow]:
    await cursor.execute(
        sql.SQL(
            """
            SELECT {columns}
            FROM unnest(%(numbers)s::integer[]) WITH ORDINALITY AS wanted (id, number)
            JOIN {table} t
                ON t.id = wanted.id
            ORDER BY wanted.number
            """
        ).format(columns=sql.SQL(", ").join(map(sql.Identifier, columns)), table=table),
        {"numbers": numbers},
    )
    return await cursor.fetchall()


async def first_day(cursor: Cursor, tables: Tables, version: int) -> int | None:
    """Return the start of the first day that *version* has a point in, seconds since 1970; None without any."""
    await cursor.execute(
        sql.SQL("SELECT min(bucket) FROM {rollup} WHERE version = %(version)s AND worker = 0").format(
            rollup=tables.rollup("1day")
        ),
        {"version": version},
    )
    row = await cursor.fetchone()
    return row[0] if row else None
