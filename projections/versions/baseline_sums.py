"""Check that the merged points of an exported baseline are the sum of its workers' segments, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.events.transfer.frames import Frame, Point, Points, Segments
from chancy_metrics.projections.fold.cells import (
    ALL_WORKERS,
    Cells,
    Ints,
    Sketches,
    as_all_workers,
    concatenate,
    merge,
    select,
)
from chancy_metrics.projections.fold.diff import diff_projections
from chancy_metrics.projections.fold.exact_sum import EXACT, canonical
from chancy_metrics.projections.fold.levels import Projection, coarsen_expired, derive_points
from chancy_metrics.projections.fold.sketch_codec import decode
from chancy_metrics.projections.versions.segments_io import decode_segments

#: About how many bytes of points are compared at once; comparing them takes five times that.
SHARE_BYTES = 32 << 20
#: Least rows that are merged at once.
_WAITING_ROWS = 50_000
_CELL_BYTES = 128
#: Bytes of a code and its count as columns, for each byte that they take in a sketch.
_SKETCH_RATIO = 6


class BaselineSums:
    """Counts the merged points of a baseline, then compares them with its segments, share by share of its series."""

    def __init__(self) -> None:
        self._size = 0
        self._points = Counter[str]()

    def count(self, points: Points) -> None:
        """Count checked points of the baseline, all of which are counted before `fault` is called."""
        self._points[points.resolution] += len(points.points)
        self._size += sum(_CELL_BYTES + _SKETCH_RATIO * len(one.sketch or b"") for one in points.points)

    @property
    def shares(self) -> int:
        """How often the frames are read."""
        return -(-self._size // SHARE_BYTES) or 1

    def fault(self, frames: Iterable[Frame], horizons: Mapping[str, int], share: int) -> str | None:
        """Return where points and segments of one share contradict each other, as a clause; None if nowhere.

        Points below the horizons are not compared: the baseline is not complete there.

        Args:
            frames: Checked ones; others than points and segments are passed over.
            horizons: Of the baseline: resolution -> start of the first bucket that is complete, seconds.
            share: From 0 to before `shares`.
        """
        merged, by_worker = _Total(), _Total()
        for frame in frames:
            if isinstance(frame, Points):
                series, cells = _cells_of(frame)
                mine = self._is_mine(series, share)[cells.series] & (cells.bucket >= horizons[frame.resolution])
                merged.add(series, {frame.resolution: select(cells, mine)})
            elif isinstance(frame, Segments):
                by_worker.add(frame.series, self._kept(frame, horizons, share))
                if resolution := by_worker.beyond(self._points):
                    return f"its workers have more {resolution} points than all of them together"
        points = derive_points(by_worker.cells(), horizons)
        found = diff_projections(by_worker.projection(points), merged.projection(merged.cells()), limit=1)
        if not found.different:
            return None
        first = found.differences[0]
        return (
            f"{found.different:,} of its points are not the sum of its workers' ({first.at}: the workers' cells "
            f"together -> the merged point: {first.change})"
        )

    def _is_mine(self, series: Sequence[Series], share: int) -> NDArray[np.bool_]:
        """Return which series belong to *share*."""
        return np.array([crc32(one.key.encode()) % self.shares == share for one in series], bool)

    def _kept(self, frame: Segments, horizons: Mapping[str, int], share: int) -> dict[str, Cells]:
        """Return the cells of a frame's series of *share*, of all workers together, where the horizons keep them."""
        cells = decode_segments(frame)
        mine = self._is_mine(frame.series, share)[cells.series]
        resolution_of = np.array([one.resolution for one in frame.segments])[cells.worker]
        levels = {name: as_all_workers(select(cells, mine & (resolution_of == name))) for name in RESOLUTIONS}
        return coarsen_expired({name: one for name, one in levels.items() if one.rows}, horizons)


class _Total:
    """Cells of all workers together, added up, with series numbered anew."""

    def __init__(self) -> None:
        self._series: dict[Series, int] = {}
        self._parts: dict[str, list[Cells]] = {}

    def add(self, series: Sequence[Series], levels: Mapping[str, Cells]) -> None:
        numbers = np.array([self._series.setdefault(one, len(self._series)) for one in series], np.int64)
        for resolution, cells in levels.items():
            if not cells.rows:
                continue
            parts = self._parts.setdefault(resolution, [])
            parts.append(cells._replace(series=numbers[cells.series]))
            if sum(waiting.rows for waiting in parts[1:]) > max(_WAITING_ROWS, parts[0].rows):
                parts[:] = [merge(concatenate(parts))]

    def beyond(self, most: Mapping[str, int]) -> str | None:
        """Return a resolution with more merged rows than *most*; None if there is none, as far as they are merged."""
        for resolution, parts in self._parts.items():
            if parts[0].rows > most.get(resolution, 0) and len(parts) == 1:
                return resolution
        return None

    def cells(self) -> dict[str, Cells]:
        """Return resolution -> merged cells."""
        for parts in self._parts.values():
            parts[:] = [merge(concatenate(parts))]
        return {resolution: one for resolution, (one,) in self._parts.items()}

    def projection(self, levels: dict[str, Cells]) -> Projection:
        return Projection([], list(self._series), levels, {})


def _cells_of(frame: Points) -> tuple[list[Series], Cells]:
    """Return the series of a frame's points, and these as cells whose series are places among them."""
    numbers: dict[Series, int] = {}
    series = [numbers.setdefault(Series(one.key, one.kind, one.unit), len(numbers)) for one in frame.points]
    points = frame.points
    micro, rest = _split_sums(points)
    runs = [(row, *decode(one.sketch)) for row, one in enumerate(points) if one.sketch is not None]
    return list(numbers), Cells(
        worker=np.full(len(points), ALL_WORKERS),
        series=np.array(series, np.int64),
        bucket=np.array([one.bucket for one in points], np.int64),
        observations=np.array([one.count for one in points], np.int64),
        last_us=np.array([one.last_us for one in points], np.int64),
        micro=micro,
        rest=rest,
        minimum=np.array([one.min for one in points], np.float64),
        maximum=np.array([one.max for one in points], np.float64),
        last=np.array([np.nan if one.last is None else one.last for one in points], np.float64),
        last_position=np.array([one.last_position or 0 for one in points], np.int64),
        last_index=np.array([one.last_index or 0 for one in points], np.int64),
        sketches=Sketches(
            np.array([row for row, codes, _ in runs for _ in codes], np.int64),
            np.array([code for _, codes, _ in runs for code in codes], np.int32),
            np.array([count for _, _, counts in runs for count in counts], np.int64),
        ),
    )


def _split_sums(points: Sequence[Point]) -> tuple[Ints, dict[int, Decimal]]:
    """Return each sum in millionths, and by row those that are no such number or do not fit 64 bits."""
    micro, rest = np.zeros(len(points), np.int64), {}
    for row, one in enumerate(points):
        value = Decimal(one.sum)
        scaled = EXACT.scaleb(value, 6)
        if abs(scaled) < 2**62 and scaled == EXACT.to_integral_value(scaled):
            micro[row] = int(scaled)
        else:
            rest[row] = canonical(value)
    return micro, rest
