"""Add merged points to the rollups of a version, and return those that changed, for the delta ring."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from anyio.lowlevel import checkpoint
from numpy.typing import NDArray
from psycopg import sql
from psycopg.rows import TupleRow

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.beside import run_beside
from chancy_metrics.projections.fold.cells import Cells, Ints, Sketches, cut, starts_of_runs
from chancy_metrics.projections.fold.exact_sum import to_float
from chancy_metrics.projections.fold.sketch import merge_runs, quantiles_many, starts_of
from chancy_metrics.projections.fold.sketch_codec import decode_sound_sketches, encode, encode_many
from chancy_metrics.projections.rollups.arrays import bigints, blobs, doubles, integers, take_arrays
from chancy_metrics.projections.rollups.delta_ring import COLUMNS, ChangedPoints

QUANTILES = {"p50": (50, 100), "p95": (95, 100), "p99": (99, 100)}

#: Rows of one statement.
_CHUNK_ROWS = 20_000

#: A sum as a finite float64; a greater one becomes the largest, since JSON has no infinity.
FINITE_SUM = sql.SQL(
    "CASE WHEN abs(r.sum) <= 1.7976931348623157e308 THEN r.sum::float8"
    " ELSE sign(r.sum)::float8 * 1.7976931348623157e308 END"
)

# n is added to the stored row r; its quantiles and sketch are those of both together already. A histogram without a
# sketch, which was imported, leaves the stored one as it is, and no quantiles: it does not have all observations.
_SUM_UP = """
SET count = r.count + n.count,
    last_us = greatest(r.last_us, n.last_us),
    sum = trim_scale(r.sum + n.sum),
    min = least(r.min, n.min),
    max = greatest(r.max, n.max),
    last = CASE WHEN {newer} THEN n.last ELSE r.last END,
    last_position = CASE WHEN {newer} THEN n.last_position ELSE r.last_position END,
    last_index = CASE WHEN {newer} THEN n.last_index ELSE r.last_index END,
    p50 = n.p50,
    p95 = n.p95,
    p99 = n.p99,
    sketch = coalesce(n.sketch, r.sketch)
"""
_NEWER = sql.SQL("(n.last_us, n.last_position, n.last_index) > (r.last_us, r.last_position, r.last_index)")

# Rows are updated by ctid: only the holder of the version's lock changes them. ON CONFLICT DO UPDATE would lock each
# row first and write half as much WAL again. LIMIT makes the join a look-up per row, whatever the statistics say.
_ADD = """
WITH added AS MATERIALIZED (
    SELECT a.series, a.bucket, a.count, a.last_us,
        trim_scale(a.micro * 0.000001 + coalesce(a.rest, 0)) AS sum, a.min, a.max,
        a.last, a.last_position, a.last_index, a.p50, a.p95, a.p99, a.sketch, there.old
    FROM unnest(
        %(series)s::integer[], %(bucket)s::bigint[], %(count)s::bigint[], %(last_us)s::bigint[],
        %(micro)s::bigint[], %(rest)s::numeric[], %(min)s::float8[], %(max)s::float8[],
        %(last)s::float8[], %(last_position)s::bigint[], %(last_index)s::integer[],
        %(p50)s::float8[], %(p95)s::float8[], %(p99)s::float8[], %(sketch)s::bytea[]
    ) AS a (
        series, bucket, count, last_us, micro, rest, min, max,
        last, last_position, last_index, p50, p95, p99, sketch
    )
    LEFT JOIN LATERAL (
        SELECT f.ctid AS old
        FROM {rollup} f
        WHERE f.version = %(version)s
            AND f.series = a.series
            AND f.bucket = a.bucket
        LIMIT 1
    ) AS there ON true
), updated AS (
    UPDATE {rollup} r
    {sum_up}
    FROM added n
    WHERE r.ctid = n.old
    {returning}
), inserted AS (
    INSERT INTO {rollup} AS r (
        version, series, bucket, count, last_us, sum, min, max,
        last, last_position, last_index, p50, p95, p99, sketch
    )
    SELECT %(version)s, n.series, n.bucket, n.count, n.last_us, n.sum, n.min, n.max,
        n.last, n.last_position, n.last_index, n.p50, n.p95, n.p99, n.sketch
    FROM added n
    WHERE n.old IS NULL
    {returning}
)
{result}
"""
_CHANGED = "RETURNING r.series, r.bucket, r.count, r.last_us, {sum}, r.min, r.max, r.last, r.p50, r.p95, r.p99"


_RESULT = "SELECT * FROM updated UNION ALL SELECT * FROM inserted"
#: What is added is added although nobody selects it.
_NO_RESULT = "SELECT FROM added LIMIT 0"


async def store(
    cursor: Cursor, tables: Tables, version: int, points: Mapping[str, Cells], *, tells: bool = True
) -> dict[str, ChangedPoints]:
    """Add merged points, which have the database's ids, to the rollups of *version*, whose lock the caller holds.

    Args:
        tells: Whether the caller needs what is returned.

    Returns:
        Resolution -> the points that changed, with their new values; {} if nobody needs them.
    """
    rollups = [(tables.rollup(resolution), cells) for resolution, cells in points.items()]
    changed = await store_rows(cursor, version, rollups, tells=tells)
    return {resolution: changed_points(rows) for resolution, rows in zip(points, changed, strict=True) if rows}


async def store_rows(
    cursor: Cursor, version: int, rollups: Sequence[tuple[sql.Identifier, Cells]], *, tells: bool
) -> list[list[TupleRow]]:
    """Add merged points to rollups of *version*, of which the totals are one.

    While the server writes some points, a thread prepares the next ones.

    Returns:
        The changed rows of each rollup as `changed_points` takes them; none if nobody needs them.
    """
    take_arrays(cursor)
    changed: list[list[TupleRow]] = [[] for _ in rollups]
    write: Callable[[], Awaitable[None]] = checkpoint
    for (rollup, cells), rows in zip(rollups, changed, strict=True):
        for chunk in _chunks(cells):
            stored = await _stored_sketches(cursor, rollup, version, chunk)
            parameters = await run_beside(partial(_parameters, version, chunk, stored), write)
            write = partial(_add, cursor, rollup, parameters, rows if tells else None)
    await write()
    return changed


async def _add(
    cursor: Cursor, rollup: sql.Identifier, parameters: Mapping[str, Any], changed: list[TupleRow] | None
) -> None:
    """Add points to a rollup, and their new values to *changed*."""
    tells = changed is not None
    statement = sql.SQL(_ADD).format(
        rollup=rollup,
        sum_up=sql.SQL(_SUM_UP).format(newer=_NEWER),
        returning=sql.SQL(_CHANGED).format(sum=FINITE_SUM) if tells else sql.SQL(""),
        result=sql.SQL(_RESULT if tells else _NO_RESULT),
    )
    await cursor.execute(statement, parameters, binary=True)
    if changed is not None:
        changed += await cursor.fetchall()


def _chunks(cells: Cells) -> Iterator[Cells]:
    """Yield *cells* in chunks: encoding all at once would leave the transaction idle until the server ends it."""
    for start in range(0, cells.rows, _CHUNK_ROWS):
        yield cut(cells, start, min(start + _CHUNK_ROWS, cells.rows))


def changed_points(rows: list[TupleRow]) -> ChangedPoints:
    """Return rows of (series, bucket, *COLUMNS) as columns."""
    table = np.array(rows, np.float64).reshape(-1, 2 + len(COLUMNS))
    return ChangedPoints(table[:, 0].astype(np.int32), table[:, 1].astype(np.int64), table[:, 2:])


def float_columns(points: Cells, names: Sequence[str]) -> NDArray[np.float64]:
    """Return points as rows of (bucket, *names): columns of the ring, with the values that a fold of theirs has."""
    made = np.empty((points.rows, 1 + len(names)))
    made[:, 0] = points.bucket
    plain = {
        "count": points.observations,
        "last_us": points.last_us,
        "min": points.minimum,
        "max": points.maximum,
        "last": points.last,
    }
    for at, name in enumerate(names, 1):
        if name in plain:
            made[:, at] = plain[name]
        elif name == "sum":
            made[:, at] = _sums(points)
        else:
            made[:, at] = np.nan
    asked = [name for name in QUANTILES if name in names]
    if asked and len(points.sketches.owner):
        sketches = starts_of(points.sketches.owner, points.rows), points.sketches.codes, points.sketches.counts
        wanted = [QUANTILES[name] for name in asked]
        found = quantiles_many(*sketches, wanted, points.minimum, points.maximum, points.observations)
        for name, values in zip(asked, found, strict=True):
            made[:, 1 + names.index(name)] = values
    return made


def _sums(points: Cells) -> NDArray[np.float64]:
    """Return the sums, each rounded once; one past the largest float64 is that, as `FINITE_SUM` says."""
    sums: NDArray[np.float64] = points.micro / 1_000_000
    large = np.flatnonzero(np.abs(points.micro) >= 2**53)
    if len(large):
        whole, part = np.divmod(points.micro[large], 1_000_000)
        sums[large] = whole
        broken = large[part != 0]
        sums[broken] = [micro / 1_000_000 for micro in points.micro[broken].tolist()]  # of Python's ints: exact
    for row in points.rest:
        sums[row] = to_float(points.sum_of(row))
    return sums


async def _stored_sketches(cursor: Cursor, rollup: sql.Identifier, version: int, cells: Cells) -> list[TupleRow]:
    """Return the rows of *cells* that have a sketch and are stored, with count, minimum, maximum and sketch there."""
    owners = cells.sketches.owner[starts_of_runs(cells.sketches.owner)]
    if not len(owners):
        return []
    await cursor.execute(
        sql.SQL(
            """
            SELECT n.owner, r.count, r.min, r.max, coalesce(r.sketch, %(empty)b)
            FROM unnest(%(owner)s::integer[], %(series)s::integer[], %(bucket)s::bigint[])
                AS n (owner, series, bucket)
            -- LIMIT keeps this a look-up for each row: as a join it may be planned as a scan of all that is kept.
            CROSS JOIN LATERAL (
                SELECT f.count, f.min, f.max, f.sketch
                FROM {rollup} f
                WHERE f.version = %(version)s
                    AND f.series = n.series
                    AND f.bucket = n.bucket
                LIMIT 1
            ) AS r
            """
        ).format(rollup=rollup),
        {
            "version": version,
            "empty": encode([], []),
            "owner": integers(owners),
            "series": integers(cells.series[owners]),
            "bucket": bigints(cells.bucket[owners]),
        },
        binary=True,
    )
    return await cursor.fetchall()


def _with_stored(cells: Cells, stored: list[TupleRow]) -> tuple[Cells, Ints]:
    """Return *cells* with the stored sketches, minima and maxima merged into theirs, and the observations of both."""
    if not stored:
        return cells, cells.observations
    rows, counts_there, minima, maxima, sketches = zip(*stored, strict=True)
    row, observations = np.array(rows, np.int64), cells.observations.copy()
    observations[row] += np.array(counts_there, np.int64)
    minimum, maximum = cells.minimum.copy(), cells.maximum.copy()
    minimum[row], maximum[row] = np.minimum(minimum[row], minima), np.maximum(maximum[row], maxima)
    owner, codes, counts = decode_sound_sketches(sketches)
    runs = merge_runs(
        np.concatenate((cells.sketches.owner, row[owner])),
        np.concatenate((cells.sketches.codes, codes)),
        np.concatenate((cells.sketches.counts, counts)),
    )
    return cells._replace(minimum=minimum, maximum=maximum, sketches=Sketches(*runs)), observations


def _parameters(version: int, cells: Cells, stored: list[TupleRow]) -> dict[str, Any]:
    """Return what `_ADD` needs to add *cells* to the rows of which *stored* are the sketches."""
    cells, observations = _with_stored(cells, stored)
    rest = ["NULL"] * cells.rows
    for row, value in cells.rest.items():
        rest[row] = str(value)
    gauges = ~np.isnan(cells.last)
    starts = starts_of(cells.sketches.owner, cells.rows)
    sketches = starts, cells.sketches.codes, cells.sketches.counts
    has_sketch = starts[1:] > starts[:-1]
    return {
        "version": version,
        "series": integers(cells.series),
        "bucket": bigints(cells.bucket),
        "count": bigints(cells.observations),
        "last_us": bigints(cells.last_us),
        "micro": bigints(cells.micro),
        "rest": f"{{{','.join(rest)}}}",
        "min": doubles(cells.minimum),
        "max": doubles(cells.maximum),
        "last": doubles(cells.last, gauges),
        "last_position": bigints(cells.last_position, gauges),
        "last_index": integers(cells.last_index, gauges),
        "sketch": blobs([data if has else b"" for data, has in zip(encode_many(*sketches), has_sketch, strict=True)]),
    } | {
        name: doubles(values, ~np.isnan(values))
        for name, values in zip(
            QUANTILES,
            quantiles_many(*sketches, QUANTILES.values(), cells.minimum, cells.maximum, observations),
            strict=True,
        )
    }
