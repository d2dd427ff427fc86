"""Points as Python objects, made of cells, and the differences of two projections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from chancy_metrics.events.facts import Series
from chancy_metrics.projections.findings import Spot, bucket_in_words
from chancy_metrics.projections.fold.cells import Cells, kept_of
from chancy_metrics.projections.fold.levels import Projection, derive_points
from chancy_metrics.projections.fold.sketch import starts_of
from chancy_metrics.projections.fold.sketch_codec import encode_many


class Point(NamedTuple):
    """One point of a projection.

    Attributes:
        worker: Worker id; None in the points that hold all workers.
        observations: How many observations.
        bucket: Start of the bucket, seconds since 1970.
        last: Latest value of a gauge, else None.
        sketch: Encoded quantile sketch of a histogram, else b"".
        last_at: Ledger position and index of that gauge value, which decide between equal times.
    """

    resolution: str
    worker: str | None
    series: Series
    bucket: int
    observations: int
    sum: Decimal
    minimum: float
    maximum: float
    last_us: int
    last: float | None
    sketch: bytes
    last_at: tuple[int, int] | None = None


class Difference(NamedTuple):
    """A point that two projections do not agree on; None where one does not have it."""

    resolution: str
    worker: str | None
    series: Series
    bucket: int
    old: Point | None
    new: Point | None

    @property
    def at(self) -> str:
        """The point in words."""
        where = f"{self.series.key} {self.resolution} {bucket_in_words(self.bucket)}"
        return f"{where} worker {self.worker or 'all'}"

    @property
    def change(self) -> str:
        """The values that differ, in words."""
        if self.old is None or self.new is None:
            return f"only in the {'new' if self.old is None else 'old'}"
        return ", ".join(
            "another sketch" if isinstance(old, bytes) or isinstance(new, bytes) else f"{name} {old} -> {new}"
            for name, old, new in zip(Point._fields, self.old, self.new, strict=True)
            if old != new
        )

    def __str__(self) -> str:
        return f"{self.at}: {self.change}"


class Comparison(NamedTuple):
    """Where two projections differ.

    Attributes:
        points: How many were compared.
        different: How many of them differ, or are in one projection only.
        differences: The first of those.
        spots: How many of those lie in each bucket; empty where the database compared two versions.
    """

    points: int
    different: int
    differences: list[Difference]
    spots: Counter[Spot]

    def plus(self, other: Comparison) -> Comparison:
        """Return this comparison and that of other points as one."""
        return Comparison(
            self.points + other.points,
            self.different + other.different,
            [*self.differences, *other.differences],
            self.spots + other.spots,
        )


NO_COMPARISON = Comparison(0, 0, [], Counter())


def diff(old: Iterable[Point], new: Iterable[Point]) -> list[Difference]:
    """Return the points that differ, by resolution, worker, series and bucket; [] if the projections are the same."""
    olds = {point[:4]: point for point in old}
    news = {point[:4]: point for point in new}
    keys = sorted(olds.keys() | news.keys(), key=lambda key: (key[0], key[1] or "", *key[2:]))
    return [Difference(*key, olds.get(key), news.get(key)) for key in keys if olds.get(key) != news.get(key)]


def points_of(projection: Projection, horizons: Mapping[str, int]) -> list[Point]:
    """Return the points of all workers together and of each, at every resolution, without those before the horizons."""
    return [
        point
        for levels in (kept_of(projection.merged, horizons), derive_points(projection.by_worker, horizons))
        for resolution, cells in levels.items()
        for point in to_points(resolution, cells, [None, *projection.workers], projection.series)
    ]


def to_points(resolution: str, cells: Cells, workers: Sequence[str | None], series: Sequence[Series]) -> list[Point]:
    """Return each row of cells as a point."""
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
            None if last != last else (position, index),
        )
        for row, (worker, number, bucket, count, minimum, maximum, last_us, last, position, index) in enumerate(
            zip(
                cells.worker.tolist(),
                cells.series.tolist(),
                cells.bucket.tolist(),
                cells.observations.tolist(),
                cells.minimum.tolist(),
                cells.maximum.tolist(),
                cells.last_us.tolist(),
                cells.last.tolist(),
                cells.last_position.tolist(),
                cells.last_index.tolist(),
                strict=True,
            )
        )
    ]
