"""Compare two generations of the totals at one position: which series add up to something else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.schema import Tables

#: Differences that are returned.
_SHOWN = 20


class TotalDifference(msgspec.Struct, frozen=True):
    """A series whose total differs; None where a generation does not have it. Sums are exact decimals."""

    key: str
    kind: str
    unit: str
    count_before: int | None
    sum_before: str | None
    count_after: int | None
    sum_after: str | None

    def __str__(self) -> str:
        before = "not there" if self.count_before is None else f"{self.sum_before} of {self.count_before:,}"
        after = "not there" if self.count_after is None else f"{self.sum_after} of {self.count_after:,}"
        return f"{self.key} ({self.kind}, {self.unit}): {before} -> {after}"


class TotalsCompared(NamedTuple):
    """How many series two generations have together, how many differ, and the first of those."""

    series: int
    different: int
    differences: Sequence[TotalDifference]


async def compare_totals(cursor: Cursor, tables: Tables, before: int, after: int) -> TotalsCompared:
    """Compare generation *before* with generation *after*, in every column, in the caller's snapshot."""
    columns = "count, sum, min, max, last, last_us, last_position, last_index, sketch"
    await cursor.execute(
        sql.SQL(
            f"""
            WITH both_of AS MATERIALIZED (
                SELECT coalesce(o.series, n.series) AS series, o.count AS count_before, o.sum AS sum_before,
                    n.count AS count_after, n.sum AS sum_after, o.all_columns IS DISTINCT FROM n.all_columns AS differs
                FROM (
                    SELECT series, count, sum, ROW({columns}) AS all_columns
                    FROM {{totals}}
                    WHERE version = %(before)s
                ) AS o
                FULL JOIN (
                    SELECT series, count, sum, ROW({columns}) AS all_columns
                    FROM {{totals}}
                    WHERE version = %(after)s
                ) AS n
                    ON n.series = o.series
            )
            SELECT s.key, s.kind, s.unit, b.count_before, b.sum_before::text, b.count_after, b.sum_after::text,
                count(*) OVER (), (SELECT count(*) FROM both_of)
            FROM both_of b
            JOIN {{series}} s
                ON s.id = b.series
            WHERE b.differs
            ORDER BY s.key, s.kind, s.unit
            LIMIT %(shown)s
            """
        ).format(totals=tables.totals, series=tables.series),
        {"before": before, "after": after, "shown": _SHOWN},
    )
    rows = await cursor.fetchall()
    if rows:
        return TotalsCompared(rows[0][8], rows[0][7], [TotalDifference(*row[:7]) for row in rows])
    await cursor.execute(
        sql.SQL("SELECT count(*) FROM {totals} WHERE version = %(after)s").format(totals=tables.totals),
        {"after": after},
    )
    row = await cursor.fetchone()
    return TotalsCompared(row[0] if row else 0, 0, [])
