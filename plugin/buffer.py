"""What was recorded and is not appended yet: thread-safe, columnar, bounded."""

from __future__ import annotations

import threading
from array import array
from collections import Counter, deque
from collections.abc import Callable
from itertools import count
from time import time_ns
from typing import NamedTuple

from chancy_metrics.events.codec import EncodedBatch, ObservationRun, encode
from chancy_metrics.events.errors import InvalidObservation
from chancy_metrics.events.facts import DEFAULT_UNITS, JobRow, Kind, Series, check_series, check_value

#: Observations of one batch at the most, and then some that other threads make while it is closed.
CHUNK_POINTS = 10_000
#: Series with a track; what comes past them is validated each time, and takes the lock.
_TRACKS = 10_000
#: Integers a float64 holds exactly.
_EXACT = 2**53


class _Track(NamedTuple):
    """The observations of one series since the last chunk was closed; the first ones of both columns are a pair."""

    series: Series
    at_ns: array[int]
    values: array[float]


class _Chunk:
    """A batch in the making."""

    def __init__(self) -> None:
        self.points = 0
        self.runs: dict[Series, tuple[array[int], array[float]]] = {}
        self.jobs: list[JobRow] = []

    def run(self, series: Series) -> tuple[array[int], array[float]]:
        run = self.runs.get(series)
        if run is None:
            run = self.runs[series] = array("q"), array("d")
        return run


class Buffer:
    """Holds observations, and job updates the log could not take, until they are appended.

    `record` may be called from any thread, and takes no lock: a track stays for ever, threads only append to
    its columns, one atomic call each, and only `_close_tracks` takes from their other end. A thread that comes
    between another one's two calls swaps the times of two observations, microseconds apart.

    Attributes:
        counts: What is to be said in the next batch's header: "rejected:value", "dropped", "buffered", ...
    """

    def __init__(self, max_points: int) -> None:
        self._max_points = max_points
        self._chunk_points = max(1, min(CHUNK_POINTS, max_points // 10))
        self._tracks: list[_Track] = []
        self._appends: dict[tuple[object, Kind, object], tuple[Callable[[int], None], Callable[[float], None]]] = {}
        self._tickets = count(1)  # one a point: next() is atomic, += 1 is not
        self._close_at = self._chunk_points
        self._chunks: deque[_Chunk] = deque()
        self._held = 0
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._held + sum(len(track.values) for track in tuple(self._tracks))

    def record(self, kind: Kind, key: object, value: object, unit: object) -> None:
        """Record one observation, now.

        Raises:
            InvalidObservation: It breaks a rule; it is counted.
        """
        try:
            append_at, append_value = self._appends[key, kind, unit]
        except Exception:  # it is new, or can't be hashed, for whatever reason a foreign __hash__ has
            self._record_new(kind, key, value, unit)
            return
        if type(value) is float or (type(value) is int and -_EXACT <= value <= _EXACT):
            number = value + 0.0  # no -0.0: it would make min and max depend on order
            if number - number:  # NaN for NaN and the infinities
                self._checked(value, key)
        else:
            number = self._checked(value, key)
        append_at(time_ns())
        append_value(number)
        if next(self._tickets) >= self._close_at:
            self._close_tracks()

    def record_job(self, row: JobRow) -> None:
        """Keep a job update that did not get into the log with its job."""
        with self._lock:
            self._open_chunk().jobs.append(row)
            self._added(1)
            next(self._tickets)
            self.counts["buffered"] += 1

    def count(self, reason: str, how_many: int = 1) -> None:
        with self._lock:
            self.counts[reason] += how_many

    def cut(self) -> EncodedBatch | None:
        """Take out the oldest batch; None if nothing is to be said.

        Raises what `encode` raises; the batch is dropped then, and counted.
        """
        self._close_tracks()
        with self._lock:
            if not self._chunks and not self.counts:
                return None
            chunk = self._chunks.popleft() if self._chunks else _Chunk()
            self._held -= chunk.points
            counts, self.counts = self.counts, Counter()
        try:
            runs = [
                ObservationRun(series, [ns // 1000 for ns in at_ns], values)
                for series, (at_ns, values) in chunk.runs.items()
            ]
            return encode(chunk.jobs, runs, counts)
        except Exception:
            with self._lock:
                self.counts += counts + Counter(dropped=chunk.points)
            raise

    def _record_new(self, kind: Kind, key: object, value: object, unit: object) -> None:
        try:
            series = check_series(key, kind, DEFAULT_UNITS[kind] if unit is None else unit)
            number = check_value(value, key)
        except InvalidObservation as error:
            self.count(f"rejected:{error.rule}")
            raise
        # Not key and unit themselves: they may be strings of a foreign kind, with a __hash__ of its own.
        known_as = series.key, kind, None if unit is None else series.unit
        with self._lock:
            at_ns, values = self._open_chunk().run(series)
            at_ns.append(time_ns())
            values.append(number)
            self._added(1)
            next(self._tickets)
            if len(self._tracks) < _TRACKS and known_as not in self._appends:
                track = _Track(series, array("q"), array("d"))
                self._tracks.append(track)
                self._appends[known_as] = track.at_ns.append, track.values.append

    def _checked(self, value: object, key: object) -> float:
        try:
            return check_value(value, key)
        except InvalidObservation as error:
            self.count(f"rejected:{error.rule}")
            raise

    def _close_tracks(self) -> None:
        """Move what is in the tracks into the open chunk."""
        with self._lock:
            taken = 0
            for series, at_ns, values in self._tracks:
                if points := min(len(at_ns), len(values)):
                    run = self._open_chunk().run(series) if not taken else self._chunks[-1].run(series)
                    run[0].extend(at_ns[:points])
                    run[1].extend(values[:points])
                    del at_ns[:points], values[:points]
                    taken += points
            if taken:
                self._added(taken)
            room = self._chunk_points - (self._chunks[-1].points if self._chunks else 0)
            self._close_at = next(self._tickets) + (room if room > 0 else self._chunk_points)

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
