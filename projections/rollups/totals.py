"""Add workers' cells to the totals of a generation, which are a rollup of one bucket."""

from __future__ import annotations

from collections.abc import Mapping

from anyio import to_thread
from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.fold.cells import (
    Cells,
    Ints,
    as_all_workers,
    coarsen,
    concatenate,
    merge,
    starts_of_runs,
)
from chancy_metrics.projections.rollups.arrays import bigints, integers
from chancy_metrics.projections.rollups.soundness import ALL_TIME_S
from chancy_metrics.projections.rollups.write import store_rows


async def add_totals(
    cursor: Cursor, tables: Tables, generation: int, cells: Mapping[str, Cells], *, is_served: bool
) -> None:
    """Add cells, which have the database's ids, to the totals of *generation*, whose lock the caller holds.

    A series that is new to a generation that *is_served* counts since the generation's last step, as of which readers
    saw that it was not there; while one is built, since its first bucket.
    """
    if not any(one.rows for one in cells.values()):
        return
    totals, first_us = await to_thread.run_sync(_sum_up, cells)
    await store_rows(cursor, generation, [(tables.totals, totals)], tells=False)
    await cursor.execute(
        sql.SQL(
            """
            UPDATE {totals} r
            SET created_us = CASE
                WHEN %(is_served)s THEN (extract(epoch FROM v.folded_at) * 1000000)::bigint
                ELSE least(r.created_us, n.first_us)
            END
            FROM unnest(%(series)s::integer[], %(first_us)s::bigint[]) AS n (series, first_us)
            CROSS JOIN {versions} v
            WHERE v.version = %(generation)s
                AND r.version = %(generation)s
                AND r.series = n.series
                AND (r.created_us IS NULL OR (r.created_us > n.first_us AND NOT %(is_served)s))
            """
        ).format(totals=tables.totals, versions=tables.versions),
        {
            "generation": generation,
            "series": integers(totals.series),
            "first_us": bigints(first_us),
            "is_served": is_served,
        },
        binary=True,
    )


def _sum_up(cells: Mapping[str, Cells]) -> tuple[Cells, Ints]:
    """Return one row a series, and the start of the first bucket of each, microseconds since 1970."""
    together = merge(concatenate([as_all_workers(one) for one in cells.values()]))
    first_us = together.bucket[starts_of_runs(together.series)] * 1_000_000
    return coarsen(together, ALL_TIME_S), first_us
