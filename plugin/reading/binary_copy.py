"""Read rollup rows as numpy columns by binary COPY, whose fixed-width rows are an array already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from anyio import to_thread
from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.rollups.delta_ring import ChangedPoints
from chancy_metrics.projections.rollups.write import FINITE_SUM

_HEADER = 19
_TRAILER = 2
_FIELDS = 11
_ROW = np.dtype(
    [("fields", ">i2")]
    + [
        part
        for name, kind in [("series", ">i4"), ("bucket", ">i8")] + [(f"v{i}", ">f8") for i in range(_FIELDS - 2)]
        for part in ((f"{name}_size", ">i4"), (name, kind))
    ]
)


async def read_points(
    cursor: Cursor, tables: Tables, resolution: str, where: sql.SQL, values: Mapping[str, Any]
) -> ChangedPoints:
    """Return the points of *resolution* that *where* selects, by series and bucket; NaN stands for NULL.

    *where* names the rollup `r`; its `{placeholders}` take *values* as literals: COPY has no parameters.
    """
    query = sql.SQL(
        """
        COPY (
            SELECT r.series, r.bucket, r.count::float8, r.last_us::float8, {sum}, r.min, r.max,
                coalesce(r.last, 'NaN'), coalesce(r.p50, 'NaN'), coalesce(r.p95, 'NaN'), coalesce(r.p99, 'NaN')
            FROM {rollup} r
            WHERE {where}
            ORDER BY r.series, r.bucket
        ) TO STDOUT (FORMAT BINARY)
        """
    ).format(
        sum=FINITE_SUM,
        rollup=tables.rollup(resolution),
        where=where.format(**{name: sql.Literal(value) for name, value in values.items()}),
    )
    async with cursor.copy(query) as copy:
        blocks = [bytes(block) async for block in copy]
    return await to_thread.run_sync(_columns, blocks)


def _columns(blocks: list[bytes]) -> ChangedPoints:
    data = b"".join(blocks)
    table = np.frombuffer(data, _ROW, offset=_HEADER, count=(len(data) - _HEADER - _TRAILER) // _ROW.itemsize)
    return ChangedPoints(
        table["series"].astype(np.int32),
        table["bucket"].astype(np.int64),
        np.column_stack([table[f"v{i}"].astype(np.float64) for i in range(_FIELDS - 2)]),
    )
