"""Rollup rows back into cells: what a version has stored, in the form that a fold has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal

import numpy as np
from anyio import to_thread
from psycopg import AsyncCursor, sql
from psycopg.rows import TupleRow

from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import RESOLUTIONS, Tables

from .cells import Cells, Sketches, merge
from .fold import Fold
from .sketch import decode
from .sums import canonical


async def read_cells(
    cursor: AsyncCursor[TupleRow],
    tables: Tables,
    version: int,
    since: Mapping[str, int],
    until: Mapping[str, int] | None = None,
) -> Fold:
    """Return what *version* has stored, in the caller's snapshot.

    Args:
        since: Resolution -> start of the first bucket, seconds; a resolution that is not in it is not read.
        until: The same of the first bucket past the end; all there is by default.
    """
    series: dict[int, int] = {}
    workers: dict[int, int] = {}
    levels = {}
    for resolution in [name for name in RESOLUTIONS if name in since]:
        await cursor.execute(
            sql.SQL(
                """
                SELECT worker, series, bucket, count, last_us, sum, min, max, last, last_position, last_index,
                    coalesce(sketch, '')
                FROM {rollup}
                WHERE version = %(version)s
                    AND bucket >= %(since)s
                    AND bucket < %(until)s
                """
            ).format(rollup=tables.rollup(resolution)),
            {
                "version": version,
                "since": since[resolution],
                "until": 2**63 - 1 if until is None else until[resolution],
            },
            binary=True,
        )
        if rows := await cursor.fetchall():
            levels[resolution] = await to_thread.run_sync(_cells, rows, series, workers)
    return Fold(
        0,
        [name for (name,) in await _names(cursor, tables.workers, ["name"], list(workers))],
        [Series(*row) for row in await _names(cursor, tables.series, ["key", "kind", "unit"], list(series))],
        levels,
        Counter(),
        {},
    )


def _cells(rows: Sequence[TupleRow], series: dict[int, int], workers: dict[int, int]) -> Cells:
    """Make cells of rows; numbers of the database become those of a fold."""
    worker, number, bucket, count, last_us, sums, least, most, last, position, index, sketch = zip(*rows, strict=True)
    decoded = [(row, *decode(data)) for row, data in enumerate(sketch) if data]
    return merge(
        Cells(
            worker=np.array([workers.setdefault(one, len(workers) + 1) if one else 0 for one in worker], np.int64),
            series=np.array([series.setdefault(one, len(series)) for one in number], np.int64),
            bucket=np.array(bucket, np.int64),
            tally=np.array(count, np.int64),
            last_us=np.array(last_us, np.int64),
            micro=np.zeros(len(rows), np.int64),
            rest={row: canonical(Decimal(value)) for row, value in enumerate(sums) if value},
            minimum=np.array(least, np.float64),
            maximum=np.array(most, np.float64),
            last=np.array([np.nan if one is None else one for one in last], np.float64),
            last_position=np.array([one or 0 for one in position], np.int64),
            last_index=np.array([one or 0 for one in index], np.int64),
            sketches=Sketches(
                np.repeat(
                    np.array([row for row, _, _ in decoded], np.int64),
                    np.array([len(codes) for _, codes, _ in decoded], np.int64),
                ),
                np.array([code for _, codes, _ in decoded for code in codes], np.int32),
                np.array([many for _, _, counts in decoded for many in counts], np.int64),
            ),
        )
    )


async def _names(
    cursor: AsyncCursor[TupleRow], table: sql.Identifier, columns: Sequence[str], numbers: list[int]
) -> list[TupleRow]:
    await cursor.execute(
        sql.SQL(
            """
            SELECT {columns}
            FROM unnest(%(numbers)s::integer[]) WITH ORDINALITY AS wanted (id, place)
            JOIN {table} t
                ON t.id = wanted.id
            ORDER BY wanted.place
            """
        ).format(columns=sql.SQL(", ").join(map(sql.Identifier, columns)), table=table),
        {"numbers": numbers},
    )
    return await cursor.fetchall()
