"""Read the points that Chancy's own metrics plugin stored, and cut them so that each observation is in one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from math import isfinite
from typing import NamedTuple, TypeVar

import numpy as np
from anyio import to_thread
from numpy.typing import NDArray
from psycopg import sql
from psycopg.rows import TupleRow, tuple_row

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.errors import InvalidObservation, MetricsLogError
from chancy_metrics.events.facts import Series, bounded_worker, check_series
from chancy_metrics.events.row_bounds import END_US
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.projections.fold.cells import Cells, concatenate, merge, no_sketches, select
from chancy_metrics.projections.fold.exact_sum import canonical
from chancy_metrics.projections.fold.fold import Fold
from chancy_metrics.projections.rules.key_parts import key_parts

_Name = TypeVar("_Name", str, Series)

_ROWS = 20_000
_US = 1_000_000


class BuiltInPoints(NamedTuple):
    """What Chancy's own plugin stored, as cells of each worker.

    Attributes:
        folded: Resolution -> cells, each observation in one of them; without sketches, so without quantiles.
        complete: Resolution -> start of the first bucket that has all observations, seconds; 0 if that is the first.
        last_us: Time of the latest observation, microseconds since 1970; None if there are no points.
        skipped: Points that the plugin can't have written: without a number or a time, or between two buckets.
    """

    folded: Fold
    complete: dict[str, int]
    last_us: int | None
    skipped: int


async def read_built_in(cursor: Cursor, prefix: str) -> BuiltInPoints:
    """Return all points of the tables `metrics` and `metric_definitions`, in the caller's snapshot.

    Raises:
        MetricsLogError: The tables are not there, or are those of a Chancy before 0.26.
    """
    metrics, definitions = (sql.Identifier(f"{prefix}{name}") for name in ("metrics", "metric_definitions"))
    await _check_tables(cursor, metrics, definitions)
    reading = _Reading()
    async with cursor.connection.cursor("metrics_built_in", row_factory=tuple_row) as points:
        await points.execute(
            sql.SQL(
                """
                SELECT d.key, d.metric_type, d.unit, m.worker_id, m.resolution,
                    CASE WHEN isfinite(p.bucket) THEN extract(epoch FROM p.bucket)::bigint END,
                    coalesce(p.count, 1), coalesce(p.total, p.value),
                    coalesce(p.minimum, p.total, p.value), coalesce(p.maximum, p.total, p.value), p.value,
                    CASE WHEN isfinite(p.sampled_at) THEN (extract(epoch FROM p.sampled_at) * 1000000)::bigint END
                FROM {metrics} m
                JOIN {definitions} d
                    ON d.id = m.metric_id
                CROSS JOIN LATERAL unnest(
                    m.buckets, m.counts, m.totals, m.minimums, m.maximums, m.gauges, m.sampled_at
                ) AS p (bucket, count, total, minimum, maximum, value, sampled_at)
                ORDER BY m.metric_id, m.resolution, m.session_id, p.bucket
                """
            ).format(metrics=metrics, definitions=definitions),
            binary=True,
        )
        while rows := await points.fetchmany(_ROWS):
            await to_thread.run_sync(reading.add, rows)
    return await to_thread.run_sync(reading.points)


async def _check_tables(cursor: Cursor, metrics: sql.Identifier, definitions: sql.Identifier) -> None:
    await cursor.execute(
        "SELECT to_regclass(%(metrics)s) IS NOT NULL, to_regclass(%(definitions)s) IS NOT NULL",
        {"metrics": metrics.as_string(cursor), "definitions": definitions.as_string(cursor)},
    )
    row = await cursor.fetchone()
    assert row is not None
    has_metrics, has_definitions = row
    if not has_metrics:
        raise MetricsLogError(
            f"there is no table {metrics.as_string(cursor)}: Chancy's own metrics plugin has never run with this "
            "database and prefix, so there is nothing to import"
        )
    if not has_definitions:
        raise MetricsLogError(
            f"table {metrics.as_string(cursor)} is that of a Chancy before 0.26, whose points can't be imported: they "
            "do not say which of them are whole"
        )


class _Reading:
    """Makes cells of rows of points."""

    def __init__(self) -> None:
        self._series: dict[Series, int] = {}
        self._workers: dict[str, int] = {}
        self._parts: dict[str, list[Cells]] = {}
        self._skipped = 0
        self._rows = 0

    def add(self, rows: Sequence[TupleRow]) -> None:
        names = {width: resolution for resolution, width in RESOLUTIONS.items()}
        of_resolution: dict[str, list[TupleRow]] = {}
        for row in rows:
            name = names.get(row[4])
            if name is None or not self._is_sound(row):
                self._skipped += 1
            else:
                of_resolution.setdefault(name, []).append(row)
        for name, several in of_resolution.items():
            self._parts.setdefault(name, []).append(self._cells(several))

    def points(self) -> BuiltInPoints:
        levels = {name: merge(concatenate(self._parts[name])) for name in RESOLUTIONS if name in self._parts}
        complete = first_complete(levels)
        last_us = max((int(cells.last_us.max()) for cells in levels.values()), default=None)
        folded = Fold.of_cells(list(self._workers), list(self._series), each_once(levels, complete))
        return BuiltInPoints(folded, complete, last_us, self._skipped)

    def _is_sound(self, row: TupleRow) -> bool:
        key, kind, unit, _, width, bucket, count, *values, _, sampled_us = row
        try:
            check_series(key, kind, unit)
        except InvalidObservation:
            return False
        if bucket is None or sampled_us is None:
            return False
        return (
            all(value is not None and isfinite(value) for value in values)
            and values[1] <= values[2]
            and 1 <= count < 2**53
            and bucket % width == 0
            and 0 <= bucket * _US <= sampled_us < END_US
            and (kind == "gauge") == (row[10] is not None)
        )

    def _cells(self, rows: Sequence[TupleRow]) -> Cells:
        """Return rows of one resolution as unmerged cells."""
        keys, kinds, units, workers, widths, buckets, counts, totals, minima, maxima, values, sampled = zip(
            *rows, strict=True
        )
        series = [Series(*one) for one in zip(keys, kinds, units, strict=True)]
        bucket, total = np.array(buckets, np.int64), np.array(totals, np.float64) + 0.0
        # A counter of jobs has added 1 for each: so many observations, each of 1.
        ones = np.array([self._counts_jobs(one) for one in series]) & (total >= 1) & (np.trunc(total) == total)
        micro, rest = _in_millionths(total)
        last = np.array([np.nan if value is None else value for value in values], np.float64) + 0.0
        place = np.arange(self._rows, self._rows + len(rows))
        self._rows += len(rows)
        return Cells(
            worker=_numbers(self._workers, [bounded_worker(one) for one in workers]) + 1,
            series=_numbers(self._series, series),
            bucket=bucket,
            observations=np.where(ones, total, np.array(counts, np.int64)).astype(np.int64),
            last_us=np.minimum(np.array(sampled, np.int64), (bucket + np.array(widths)) * _US - 1),
            micro=micro,
            rest=rest,
            minimum=np.where(ones, 1.0, np.array(minima, np.float64) + 0.0),
            maximum=np.where(ones, 1.0, np.array(maxima, np.float64) + 0.0),
            last=last,
            last_position=np.zeros(len(rows), np.int64),
            last_index=np.where(np.isnan(last), 0, place),  # of two sessions at one instant the later one counts
            sketches=no_sketches(),
        )

    def _counts_jobs(self, series: Series) -> bool:
        return series.kind == "counter" and key_parts(series).subject != "custom"


def _in_millionths(totals: NDArray[np.float64]) -> tuple[NDArray[np.int64], dict[int, Decimal]]:
    """Return totals as whole millionths, and row -> the exact total of each that is none as a float64."""
    with np.errstate(over="ignore"):
        micro = np.rint(totals * _US)
    is_whole = (np.abs(micro) < 2.0**53) & (micro / _US == totals)
    rest = {int(row): canonical(Decimal(float(totals[row]))) for row in np.flatnonzero(~is_whole)}
    return np.where(is_whole, micro, 0).astype(np.int64), rest


def _numbers(known: dict[_Name, int], names: Sequence[_Name]) -> NDArray[np.int64]:
    """Return the number of each name; new ones get the next."""
    return np.array([known.setdefault(name, len(known)) for name in names], np.int64)


def first_complete(levels: Mapping[str, Cells]) -> dict[str, int]:
    """Return resolution -> start of the first bucket from which on it has what the coarser ones have, seconds.

    Each resolution is kept for another time, the finer ones for less. It starts where a bucket of the next coarser
    one does; 0 if it goes back as far as that.
    """
    complete = dict.fromkeys(RESOLUTIONS, 0)
    for (fine, _), (coarse, width) in reversed([*pairwise(RESOLUTIONS.items())]):
        start = 0
        if coarse in levels:
            first = int(levels[coarse].bucket.min())
            if fine not in levels:
                start = int(levels[coarse].bucket.max()) + width
            elif first < (begin := int(levels[fine].bucket.min())) // width * width:
                start = -(-begin // width) * width
        complete[fine] = max(start, complete[coarse])
    return complete


def each_once(levels: Mapping[str, Cells], complete: Mapping[str, int]) -> dict[str, Cells]:
    """Return of each resolution the cells from where it is complete to where the next finer one is."""
    once = {}
    end = END_US // _US
    for resolution in RESOLUTIONS:
        if resolution in levels:
            cells = levels[resolution]
            kept = select(cells, (cells.bucket >= complete[resolution]) & (cells.bucket < end))
            if kept.rows:
                once[resolution] = kept
        end = complete[resolution]
    return once
