"""The merged points of the live version in this process's memory, and the merge of what folds have changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.facts import Kind, Series
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.plugin.reading.columns import Rows, put, rows_of, without_before
from chancy_metrics.plugin.reading.shown_keys import Names
from chancy_metrics.projections.rollups.delta_ring import ChangedPoints

#: Resolution -> rows, for one series.
SeriesColumns = dict[str, Rows]
#: Resolution -> starts of the buckets in which any series has a point, ascending, seconds since 1970.
Recorded = dict[str, NDArray[np.int64]]


class RingPosition(NamedTuple):
    """The last fold of the ring that a replica has; *token* tells a restored or swapped ring from the one it knew."""

    version: int
    fold: int
    token: UUID | None


class RingChanges(NamedTuple):
    """The changes of the folds past a replica's position, up to *position*."""

    points: list[dict[str, ChangedPoints]]
    names: Mapping[int, Series]
    horizons: Mapping[str, int]
    position: RingPosition


class Replica:
    """The merged points of the live version, by series number; a series is known while it has one.

    Attributes:
        horizons: Resolution -> start of the oldest bucket kept, seconds since 1970.
        recorded: The buckets in which anything was recorded: elsewhere a series has no zero, but nothing is known.
    """

    def __init__(self, position: RingPosition, horizons: Mapping[str, int]) -> None:
        self.position = position
        self.horizons = horizons
        self.series = Names()
        self.columns: dict[int, SeriesColumns] = {}
        self.recorded: Recorded = {resolution: np.array([], np.int64) for resolution in RESOLUTIONS}

    def put(self, changed: Mapping[str, ChangedPoints], names: Mapping[int, Series]) -> None:
        """Put changed points in, replacing those of the same bucket; skip series without a name: they have expired."""
        for resolution, points in changed.items():
            self.recorded[resolution] = np.union1d(self.recorded[resolution], points.bucket)
            rows: dict[Kind, Rows] = {}
            for number, mine in _by_series(points):
                if number in names:
                    kind = names[number].kind
                    if kind not in rows:  # of all points at once: one by one takes twice as long
                        rows[kind] = rows_of(kind, points.bucket, points.values)
                    columns = self.columns.get(number, {})
                    # A new dict: a reader may hold the old one.
                    self.columns[number] = columns | {resolution: put(columns.get(resolution), rows[kind][mine])}

    def keep(self, names: Mapping[int, Series], horizons: Mapping[str, int]) -> None:
        """Drop the points below the horizons, and the series without points."""
        if horizons != self.horizons:
            self.horizons = horizons
            for resolution, buckets in self.recorded.items():
                self.recorded[resolution] = buckets[buckets >= horizons[resolution]]
            for number, columns in list(self.columns.items()):
                self.columns[number] = {
                    resolution: kept
                    for resolution, rows in columns.items()
                    if len(kept := without_before(rows, horizons[resolution]))
                }
                if not self.columns[number]:
                    del self.columns[number]
        if self.columns.keys() != self.series.keys():
            self.series = Names({number: names[number] for number in self.columns})

    def after(self, changes: RingChanges) -> Replica:
        """Return a replica with the *changes* applied; this one stays unchanged while it is read."""
        later = Replica(self.position, self.horizons)
        later.series, later.columns, later.recorded = self.series, dict(self.columns), dict(self.recorded)
        for points in changes.points:
            later.put(points, changes.names)
        later.keep(changes.names, changes.horizons)
        later.series.under(None)  # sorts the keys now, so that no reader has to
        later.position = changes.position
        return later

    def become(self, later: Replica) -> None:
        """Take everything from *later*."""
        self.position, self.horizons = later.position, later.horizons
        self.series, self.columns, self.recorded = later.series, later.columns, later.recorded


def _by_series(points: ChangedPoints) -> Iterator[tuple[int, slice]]:
    """Yield each series' number and its slice of *points*, which are sorted by series."""
    if not len(points.series):
        return
    starts = np.flatnonzero(np.concatenate(([True], points.series[1:] != points.series[:-1]))).tolist()
    for start, end in zip(starts, [*starts[1:], len(points.series)], strict=True):
        yield int(points.series[start]), slice(start, end)
