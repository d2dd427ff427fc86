"""What was recorded and is not appended yet: thread-safe, columnar, bounded."""

from __future__ import annotations

import threading
import time
from array import array
from collections import Counter, deque

from chancy_metrics.events.codec import EncodedBatch, ObservationRun, encode
from chancy_metrics.events.errors import InvalidObservation
from chancy_metrics.events.facts import DEFAULT_UNITS, JobRow, Kind, Series, check_series, check_value

#: Observations of one batch at the most.
CHUNK_POINTS = 10_000
#: Validated series remembered; past it they are validated anew.
_REMEMBERED = 100_000


class _Chunk:
    """A batch in the making."""

    def __init__(self) -> None:
        self.points = 0
        self.runs: dict[Series, tuple[array[int], array[float]]] = {}
        self.jobs: list[JobRow] = []


class Buffer:
    """Holds observations, and job updates the log could not take, until they are appended.

    `record` may be called from any thread: appending to a deque is atomic, and only `_compact` takes from it.

    Attributes:
        counts: What is to be said in the next batch's header: "rejected:value", "dropped", "buffered", ...
    """

    def __init__(self, max_points: int) -> None:
        self._max_points = max_points
        self._chunk_points = max(1, min(CHUNK_POINTS, max_points // 10))
        self._series: dict[tuple[object, Kind, object], Series] = {}
        self._queue: deque[tuple[Series, int, float]] = deque()
        self._chunks: deque[_Chunk] = deque()
        self._held = 0
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._held + len(self._queue)

    def record(self, kind: Kind, key: object, value: object, unit: object) -> None:
        """Record one observation, now.

        Raises:
            InvalidObservation: It breaks a rule; it is counted.
        """
        try:
            series = self._series[key, kind, unit]
        except (KeyError, TypeError):
            series = self._remember(kind, key, unit)
        if type(value) is float and -1e308 < value < 1e308:
            number = value + 0.0  # no -0.0: it would make min and max depend on order
        else:
            number = self._number(value, key)
        self._queue.append((series, time.time_ns() // 1000, number))
        if len(self._queue) >= CHUNK_POINTS:
            self._compact()

    def record_job(self, row: JobRow) -> None:
        """Keep a job update that did not get into the log with its job."""
        with self._lock:
            self._compact_locked()
            self._open_chunk().jobs.append(row)
            self._added(1)
            self.counts["buffered"] += 1

    def count(self, reason: str, how_many: int = 1) -> None:
        with self._lock:
            self.counts[reason] += how_many

    def cut(self) -> EncodedBatch | None:
        """Take out the oldest batch; None if nothing is to be said."""
        with self._lock:
            self._compact_locked()
            if not self._chunks and not self.counts:
                return None
            chunk = self._chunks.popleft() if self._chunks else _Chunk()
            self._held -= chunk.points
            counts, self.counts = self.counts, Counter()
        runs = [ObservationRun(series, at, values) for series, (at, values) in chunk.runs.items()]
        return encode(chunk.jobs, runs, counts)

    def clear(self) -> None:
        """Forget everything: in a forked child it is the parent's."""
        self._lock = threading.Lock()
        self._queue.clear()
        self._chunks.clear()
        self._held = 0
        self.counts = Counter()

    def _remember(self, kind: Kind, key: object, unit: object) -> Series:
        try:
            series = check_series(key, kind, DEFAULT_UNITS[kind] if unit is None else unit)
        except InvalidObservation as error:
            self.count(f"rejected:{error.rule}")
            raise
        if len(self._series) >= _REMEMBERED:
            self._series.clear()
        self._series[key, kind, unit] = series
        return series

    def _number(self, value: object, key: object) -> float:
        if type(value) is int and -(2**53) <= value <= 2**53:
            return float(value)
        try:
            return check_value(value, key)
        except InvalidObservation as error:
            self.count(f"rejected:{error.rule}")
            raise

    def _compact(self) -> None:
        with self._lock:
            self._compact_locked()

    def _compact_locked(self) -> None:
        """Move what is in the queue into columns, 16 bytes an observation instead of 120."""
        queue = self._queue
        while queue:
            chunk = self._open_chunk()
            runs = chunk.runs
            taken = 0
            while queue and chunk.points + taken < self._chunk_points:
                series, at_us, value = queue.popleft()
                run = runs.get(series)
                if run is None:
                    run = runs[series] = array("q"), array("d")
                run[0].append(at_us)
                run[1].append(value)
                taken += 1
            self._added(taken)

    def _open_chunk(self) -> _Chunk:
        if not self._chunks or self._chunks[-1].points >= self._chunk_points:
            self._chunks.append(_Chunk())
        return self._chunks[-1]

    def _added(self, points: int) -> None:
        self._chunks[-1].points += points
        self._held += points
        while self._held > self._max_points and len(self._chunks) > 1:
            oldest = self._chunks.popleft()
            self._held -= oldest.points
            self.counts["dropped"] += oldest.points
