"""Read the quantiles of histograms over a range of time from their merged sketches, never from quantiles of buckets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from psycopg import sql
from psycopg.rows import TupleRow

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.off_loop import in_thread
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.fold.sketch import merge_runs, quantiles_many, starts_of
from chancy_metrics.projections.fold.sketch_codec import decode_sound_sketches, encode
from chancy_metrics.projections.grid import BucketRange
from chancy_metrics.projections.rollups.write import QUANTILES
from chancy_metrics.projections.versions.version import live_version

#: Sketches read and merged at once.
_CHUNK_ROWS = 2_000


class Quantiles(NamedTuple):
    """Quantiles of all values of a range, each at most 0.55 % off."""

    p50: float
    p95: float
    p99: float


async def read_quantiles(
    cursor: Cursor, tables: Tables, series: Sequence[int], within: BucketRange
) -> dict[int, Quantiles]:
    """Return the quantiles of each of these histograms of the live version.

    Series are missing that have no value, or one without a sketch: those that were imported have none.
    """
    found: dict[int, Quantiles] = {}
    version = (await live_version(cursor, tables)).version
    buckets = -(-(within.end_s - within.first_s) // RESOLUTIONS[within.resolution])
    size = max(1, _CHUNK_ROWS // max(1, buckets))
    for start in range(0, len(series), size):
        await cursor.execute(
            sql.SQL(
                """
                SELECT series, count, min, max, coalesce(sketch, %(empty)b)
                FROM {rollup}
                WHERE version = %(version)s
                    AND series = ANY(%(series)s::integer[])
                    AND bucket >= %(first)s
                    AND bucket < %(end)s
                """
            ).format(rollup=tables.rollup(within.resolution)),
            {
                "empty": encode([], []),
                "version": version,
                "series": list(series[start : start + size]),
                "first": within.first_s,
                "end": within.end_s,
            },
            binary=True,
        )
        found |= await in_thread(_merged, await cursor.fetchall())
    return found


def _merged(rows: Sequence[TupleRow]) -> dict[int, Quantiles]:
    """Return the quantiles of each series of rows (series, count, min, max, sketch)."""
    if not rows:
        return {}
    numbers, counts_there, minima, maxima, sketches = zip(*rows, strict=True)
    series, of_row = np.unique(np.array(numbers, np.int64), return_inverse=True)
    minimum, maximum = np.full(len(series), np.inf), np.full(len(series), -np.inf)
    observations = np.zeros(len(series), np.int64)
    np.minimum.at(minimum, of_row, minima)
    np.maximum.at(maximum, of_row, maxima)
    np.add.at(observations, of_row, counts_there)
    owner, codes, counts = decode_sound_sketches(sketches)
    owner, codes, counts = merge_runs(of_row[owner], codes, counts)
    bounds = minimum, maximum, observations
    values = quantiles_many(starts_of(owner, len(series)), codes, counts, QUANTILES.values(), *bounds)
    of_series = zip(series.tolist(), *(one.tolist() for one in values), strict=True)
    return {number: Quantiles(*found) for number, *found in of_series if not np.isnan(found[0])}
