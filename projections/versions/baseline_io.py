"""Read the baseline for an export, and write it on import: names instead of one database's numbers."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from decimal import Decimal

from psycopg import sql
from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

from chancy_metrics.events.database import Connection, Cursor
from chancy_metrics.events.errors import Damaged, InvalidObservation, SchemaMissing
from chancy_metrics.events.facts import Series, check_series
from chancy_metrics.events.schema import HORIZON_COLUMNS, RESOLUTIONS, ROLLUP_COLUMNS, SEGMENT_COLUMNS, Tables
from chancy_metrics.events.transfer.frames import Baseline, Point, Points
from chancy_metrics.projections.fold.exact_sum import LEAST_BIT
from chancy_metrics.projections.fold.sketch_codec import decode
from chancy_metrics.projections.rollups.delta_ring import reset_ring
from chancy_metrics.projections.rollups.ids import number_series, number_workers
from chancy_metrics.projections.versions.counts import decode_counts
from chancy_metrics.projections.versions.version import BASELINE, Version, no_baseline, raise_horizons

#: Rows in one frame.
_ROWS = 1_000

#: Most digits of a sum before its point, and after it.
_MAX_DIGITS, _MAX_DECIMALS = 400, LEAST_BIT + 6

_COLUMNS = sql.SQL(ROLLUP_COLUMNS)


async def read_baseline(cursor: Cursor, tables: Tables, number: int) -> Baseline:
    """Return the counts and the horizons of the baseline with this number.

    Raises:
        Damaged: Its counts can't be read.
        SchemaMissing: It is missing.
    """
    await cursor.execute(
        sql.SQL(
            """
            SELECT counts::text, {horizons}
            FROM {versions}
            WHERE version = %(baseline)s
            """
        ).format(versions=tables.versions, horizons=sql.SQL(HORIZON_COLUMNS)),
        {"baseline": number},
    )
    row = await cursor.fetchone()
    if row is None:
        raise SchemaMissing(no_baseline(number))
    counts, *horizons = row
    return Baseline(dict(zip(RESOLUTIONS, horizons, strict=True)), decode_counts(counts, "the baseline's row"))


async def read_points(cursor: Cursor, tables: Tables, number: int) -> AsyncIterator[Points]:
    """Yield the rows of the baseline with this number in the caller's transaction, in chunks."""
    for resolution in RESOLUTIONS:
        async with cursor.connection.cursor("metrics_baseline", row_factory=tuple_row) as rollup:
            await rollup.execute(
                sql.SQL(
                    """
                    SELECT s.key, s.kind, s.unit, r.bucket, r.count, r.last_us, r.sum::text, r.min, r.max,
                        r.last, r.last_position, r.last_index, r.p50, r.p95, r.p99, r.sketch
                    FROM {rollup} r
                    JOIN {series} s
                        ON s.id = r.series
                    WHERE r.version = %(baseline)s
                    ORDER BY s.key, s.kind, s.unit, r.bucket
                    """
                ).format(rollup=tables.rollup(resolution), series=tables.series),
                {"baseline": number},
                binary=True,
            )
            while rows := await rollup.fetchmany(_ROWS):
                yield Points(resolution, [Point(*row) for row in rows])  # type: ignore[arg-type] # one of those four


class Names:
    """Cached numbers of series and workers; new ones are inserted and committed on a connection of their own."""

    def __init__(self, connection: Connection, tables: Tables) -> None:
        self._connection = connection
        self._tables = tables
        self._series: dict[Series, int] = {}
        self._workers: dict[str, int] = {}

    async def series(self, wanted: Collection[Series]) -> Mapping[Series, int]:
        if new := sorted(set(wanted) - self._series.keys()):
            self._series |= await number_series(self._connection, self._tables, new)
        return self._series

    async def workers(self, wanted: Collection[str]) -> Mapping[str, int]:
        if new := sorted(set(wanted) - self._workers.keys()):
            self._workers |= await number_workers(self._connection, self._tables, new)
        return self._workers


def check_points(points: Points) -> None:
    """Check that the baseline can hold each of these points.

    Raises:
        Damaged: It can't hold one of them; the message names the first.
    """
    for one in points.points:
        try:
            check_series(one.key, one.kind, one.unit)
            fault: str | None = _fault(one, RESOLUTIONS[points.resolution])
        except (InvalidObservation, Damaged) as error:
            fault = str(error)
        if fault:
            where = f"the baseline's {points.resolution} point of {one.key[:100]!r} at {one.bucket}"
            raise Damaged(f"can't be in a rollup: {fault}", where=where, kind="point")


def _fault(point: Point, width: int) -> str | None:
    """Return why no rollup can hold *point*, as a clause, past the bounds of its fields; None if one can."""
    known = [one for one in (point.last, point.p50, point.p95, point.p99) if one is not None]
    if not all(map(math.isfinite, (point.min, point.max, *known))) or point.min > point.max:
        return f"its values are from {point.min} to {point.max}, {known}"
    if (total := Decimal(point.sum)).adjusted() >= _MAX_DIGITS or int(total.as_tuple().exponent) < -_MAX_DECIMALS:
        return f"no sum of float64 has the digits of {point.sum[:40]}..."
    if point.bucket % width:
        return f"no bucket of {width} s begins there"
    if (point.kind == "gauge") != (point.last is not None):
        return "only a gauge has a last value"
    if len({point.last is None, point.last_position is None, point.last_index is None}) > 1:
        return "its last value has no position, or a position has no value"
    if point.sketch is not None:
        if point.kind != "histogram":
            return "only a histogram has a sketch"
        decode(point.sketch)
    return None


async def write_points(cursor: Cursor, tables: Tables, points: Points, names: Names) -> None:
    """Copy points into the baseline, which has none of them and whose lock the caller holds."""
    series = await names.series([Series(one.key, one.kind, one.unit) for one in points.points])
    async with cursor.copy(
        sql.SQL("COPY {rollup} (version, {columns}) FROM STDIN").format(
            rollup=tables.rollup(points.resolution), columns=_COLUMNS
        )
    ) as copy:
        for one in points.points:
            await copy.write_row((BASELINE, series[Series(one.key, one.kind, one.unit)], *_values(one)))


async def copy_to_versions(cursor: Cursor, tables: Tables, baseline: Baseline, versions: Sequence[Version]) -> None:
    """Copy the imported baseline into *versions*, which have folded nothing; the caller holds the locks of all."""
    numbers = [one.version for one in versions]
    await cursor.execute(
        sql.SQL("UPDATE {versions} SET counts = %(counts)s WHERE version = ANY(%(numbers)s)").format(
            versions=tables.versions
        ),
        {"counts": Jsonb(baseline.counts), "numbers": [BASELINE, *numbers]},
    )
    for version in (BASELINE, *numbers):
        await raise_horizons(cursor, tables, version, baseline.horizons)
    for resolution in RESOLUTIONS:
        await cursor.execute(
            sql.SQL(
                """
                INSERT INTO {rollup} (version, {columns})
                SELECT v.version, {columns}
                FROM {rollup} r
                CROSS JOIN unnest(%(numbers)s::integer[]) AS v (version)
                WHERE r.version = %(baseline)s
                """
            ).format(rollup=tables.rollup(resolution), columns=_COLUMNS),
            {"numbers": numbers, "baseline": BASELINE},
        )
    await cursor.execute(
        sql.SQL(
            """
            INSERT INTO {segments} (version, {columns})
            SELECT v.version, {columns}
            FROM {segments} s
            CROSS JOIN unnest(%(numbers)s::integer[]) AS v (version)
            WHERE s.version = %(baseline)s
            """
        ).format(segments=tables.worker_segments, columns=sql.SQL(SEGMENT_COLUMNS)),
        {"numbers": numbers, "baseline": BASELINE},
    )
    await reset_ring(cursor, tables)


async def empty_versions(cursor: Cursor, tables: Tables) -> None:
    """Delete the points, dead letters and counts of all versions, with the baseline; the caller holds their locks."""
    for resolution in RESOLUTIONS:
        await cursor.execute(sql.SQL("DELETE FROM {rollup}").format(rollup=tables.rollup(resolution)))
    await cursor.execute(sql.SQL("DELETE FROM {segments}").format(segments=tables.worker_segments))
    await cursor.execute(sql.SQL("DELETE FROM {dead}").format(dead=tables.dead_letters))
    await cursor.execute(
        sql.SQL(
            """
            UPDATE {versions}
            SET position = 0,
                counts = '{{}}',
                baseline = 0,
                status = CASE status WHEN 'collecting' THEN 'dropped' ELSE status END,
                verified = NULL,
                horizon_1min = 0,
                horizon_5min = 0,
                horizon_1hour = 0,
                horizon_1day = 0
            """
        ).format(versions=tables.versions)
    )
    await reset_ring(cursor, tables)


def _values(point: Point) -> tuple[object, ...]:
    """Return the columns of a rollup row past its series."""
    return (
        *(point.bucket, point.count, point.last_us, point.sum, point.min, point.max),
        *(point.last, point.last_position, point.last_index, point.p50, point.p95, point.p99, point.sketch),
    )
