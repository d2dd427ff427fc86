"""The log folded once more, and what that differs in from what is stored: the one check behind every check."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

import numpy as np
from anyio import to_thread
from psycopg import AsyncConnection, AsyncCursor, sql
from psycopg.rows import TupleRow

from chancy_metrics.events.facts import Series
from chancy_metrics.events.ledger import read_ledger
from chancy_metrics.events.log import LogBatch, read_batches, short_transaction
from chancy_metrics.events.schema import RESOLUTIONS, Tables

from .cells import ALL_WORKERS, Cells, concatenate, merge
from .fold import fold
from .sketch import encode_many, starts_of
from .sums import canonical
from .versions import live_version

_PIECE = 500


class Point(NamedTuple):
    """One point of a projection, spelled out.

    Attributes:
        worker: Worker id; None in the points that hold all workers.
        tally: How many observations.
        bucket: Start of the bucket, seconds since 1970.
        last: Latest value of a gauge, else None.
        sketch: Encoded quantile sketch of a merged histogram, else b"".
    """

    resolution: str
    worker: str | None
    series: Series
    bucket: int
    tally: int
    sum: Decimal
    minimum: float
    maximum: float
    last_us: int
    last: float | None
    sketch: bytes


class Difference(NamedTuple):
    """A point that two projections do not agree on; None where one does not have it."""

    resolution: str
    worker: str | None
    series: Series
    bucket: int
    old: Point | None
    new: Point | None

    def __str__(self) -> str:
        where = f"{self.series.key} {self.resolution} {self.bucket} worker {self.worker or 'all'}"
        if self.old is None or self.new is None:
            return f"{where}: only in the {'new' if self.old is None else 'old'}"
        changed = [
            f"{name} {old!r} -> {new!r}"
            for name, old, new in zip(Point._fields, self.old, self.new, strict=True)
            if old != new
        ]
        return f"{where}: {', '.join(changed)}"


async def replay(connection: AsyncConnection[TupleRow], tables: Tables, *, until: int | None = None) -> list[Point]:
    """Fold the whole log again, up to the live version's position (or *until*), and return what it adds up to.

    Reads in one snapshot; memory grows with the points, not with the events.
    """
    total = _Total()
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        version = await live_version(cursor, tables)
        end = version.position if until is None else until
        await cursor.execute(
            sql.SQL("SELECT position FROM {dead} WHERE version = %(version)s").format(dead=tables.dead_letters),
            {"version": version.version},
        )
        dead = {row[0] for row in await cursor.fetchall()}
        position = 0
        while rows := await read_ledger(cursor, tables, after=position, limit=_PIECE, until=end):
            position = rows[-1].position
            places = [(row.position, row.batch_id) for row in rows if row.position not in dead]
            await to_thread.run_sync(total.add, await read_batches(cursor, tables, places))
    return [
        point
        for resolution, cells in total.levels.items()
        for point in _points(resolution, cells, [None, *total.workers], list(total.series))
        if point.bucket >= version.horizons[resolution]
    ]


async def stored(connection: AsyncConnection[TupleRow], tables: Tables) -> list[Point]:
    """Return every point of the live version, in one snapshot."""
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        version = await live_version(cursor, tables)
        return [
            point
            for resolution in RESOLUTIONS
            for point in await _stored(cursor, tables, version.version, resolution, version.horizons[resolution])
        ]


def diff(old: Iterable[Point], new: Iterable[Point]) -> list[Difference]:
    """Return where two projections differ, exactly, sorted by place; [] if they are the same."""
    olds = {point[:4]: point for point in old}
    news = {point[:4]: point for point in new}
    places = sorted(olds.keys() | news.keys(), key=lambda place: (place[0], place[1] or "", *place[2:]))
    return [
        Difference(*place, olds.get(place), news.get(place)) for place in places if olds.get(place) != news.get(place)
    ]


class _Total:
    """Folds added up, in numbers of its own."""

    def __init__(self) -> None:
        self.workers: dict[str, int] = {}
        self.series: dict[Series, int] = {}
        self.levels: dict[str, Cells] = {}

    def add(self, batches: list[LogBatch]) -> None:
        part = fold(batches)

        workers = np.array([ALL_WORKERS, *(self.workers.setdefault(w, len(self.workers) + 1) for w in part.workers)])
        series = np.array([self.series.setdefault(s, len(self.series)) for s in part.series])
        for resolution, cells in part.levels.items():
            mine = [self.levels[resolution]] if resolution in self.levels else []
            renumbered = cells._replace(worker=workers[cells.worker], series=series[cells.series])
            self.levels[resolution] = merge(concatenate([*mine, renumbered]))


def _points(resolution: str, cells: Cells, workers: list[str | None], series: list[Series]) -> list[Point]:
    starts = starts_of(cells.sketches.owner, cells.rows)
    sketches = encode_many(starts, cells.sketches.codes, cells.sketches.counts)
    lengths = (starts[1:] - starts[:-1]).tolist()
    return [
        Point(
            resolution,
            workers[worker],
            series[number],
            bucket,
            count,
            cells.sum_of(row),
            minimum,
            maximum,
            last_us,
            None if last != last else last,
            sketches[row] if lengths[row] else b"",
        )
        for row, (worker, number, bucket, count, minimum, maximum, last_us, last) in enumerate(
            zip(
                cells.worker.tolist(),
                cells.series.tolist(),
                cells.bucket.tolist(),
                cells.tally.tolist(),
                cells.minimum.tolist(),
                cells.maximum.tolist(),
                cells.last_us.tolist(),
                cells.last.tolist(),
                strict=True,
            )
        )
    ]


async def _stored(
    cursor: AsyncCursor[TupleRow], tables: Tables, version: int, resolution: str, horizon: int
) -> list[Point]:
    await cursor.execute(
        sql.SQL(
            """
            SELECT w.name, s.key, s.kind, s.unit, r.bucket, r.count, r.sum, r.min, r.max, r.last_us, r.last,
                coalesce(r.sketch, '')
            FROM {rollup} r
            JOIN {series} s
                ON s.id = r.series
            LEFT JOIN {workers} w
                ON w.id = r.worker
            WHERE r.version = %(version)s
                AND r.bucket >= %(horizon)s
            """
        ).format(rollup=tables.rollup(resolution), series=tables.series, workers=tables.workers),
        {"version": version, "horizon": horizon},
        binary=True,
    )
    return [
        Point(resolution, row[0], Series(*row[1:4]), row[4], row[5], canonical(row[6]), *row[7:])
        for row in await cursor.fetchall()
    ]
