"""Read what series come to in a window: sums, extremes, the latest value, and quantiles of their sketches together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import NamedTuple

import numpy as np
from anyio import to_thread
from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.fold.sketch import merge_runs, quantile_many, starts_of
from chancy_metrics.projections.fold.sketch_codec import decode_sound_sketches
from chancy_metrics.projections.grid import BucketRange
from chancy_metrics.projections.rollups.read import read_sketches
from chancy_metrics.projections.rollups.write import FINITE_SUM


class Sums(NamedTuple):
    """What a series comes to in a window.

    Attributes:
        observations: How many.
        last: The latest value of a gauge; None for other kinds.
        last_us: When the last observation was made, microseconds since 1970.
    """

    observations: int
    sum: float
    minimum: float
    maximum: float
    last: float | None
    last_us: int

    def add(self, other: Sums) -> Sums:
        """Return both together."""
        return Sums(
            self.observations + other.observations,
            self.sum + other.sum,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            self.last if self.last_us >= other.last_us else other.last,
            max(self.last_us, other.last_us),
        )


async def read_sums(
    cursor: Cursor, tables: Tables, version: int, parts: Sequence[BucketRange], series: Sequence[int]
) -> dict[int, Sums]:
    """Return the sums of those of *series* that have points in a window."""
    found: dict[int, Sums] = {}
    for part in parts:
        await cursor.execute(
            sql.SQL(
                """
                SELECT r.series, sum(r.count)::bigint, sum({finite}), min(r.min), max(r.max),
                    (array_agg(r.last ORDER BY r.bucket DESC))[1], max(r.last_us)
                FROM {rollup} r
                WHERE r.version = %(version)s
                    AND r.series = ANY(%(series)s::integer[])
                    AND r.bucket >= %(first)s
                    AND r.bucket < %(end)s
                GROUP BY r.series
                """
            ).format(finite=FINITE_SUM, rollup=tables.rollup(part.resolution)),
            {"version": version, "series": list(series), "first": part.first_s, "end": part.end_s},
        )
        for number, *values in await cursor.fetchall():
            sums = Sums(*values)
            found[number] = found[number].add(sums) if number in found else sums
    return found


async def read_quantiles(
    cursor: Cursor, tables: Tables, version: int, parts: Sequence[BucketRange], sums: Mapping[int, Sums]
) -> dict[int, float]:
    """Return the p95 of those series of *sums* whose sketches have all observations of the window."""
    rows: list[tuple[int, bytes]] = []
    for part in parts:
        found = await read_sketches(cursor, tables, version, part, list(sums))
        rows += [(number, sketch) for number, _, sketch in found]
    return await to_thread.run_sync(_quantiles, rows, sums)


def _quantiles(rows: Sequence[tuple[int, bytes]], sums: Mapping[int, Sums]) -> dict[int, float]:
    if not rows:
        return {}
    series = np.array(sorted({number for number, _ in rows}), np.int64)
    whose = np.searchsorted(series, [number for number, _ in rows])
    owner, codes, counts = decode_sound_sketches([sketch for _, sketch in rows])
    owner, codes, counts = merge_runs(whose[owner], codes, counts)
    minimum = np.array([sums[number].minimum for number in series.tolist()])
    maximum = np.array([sums[number].maximum for number in series.tolist()])
    observations = np.array([sums[number].observations for number in series.tolist()], np.int64)
    found = quantile_many(starts_of(owner, len(series)), codes, counts, (95, 100), minimum, maximum, observations)
    return {number: value for number, value in zip(series.tolist(), found.tolist(), strict=True) if not isnan(value)}
