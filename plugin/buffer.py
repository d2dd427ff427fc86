"""What was recorded and is not appended yet: thread-safe, columnar, bounded."""

from __future__ import annotations

import threading
from array import array
from collections import Counter, deque
from collections.abc import Callable
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

    Args:
        reject: Does what is to be done about an observation that breaks a rule; raises the error by default.

    Attributes:
        counts: What is to be said in the next batch's header: "rejected:value", "dropped", "buffered", ...
    """

    def __init__(self, max_points: int, reject: Callable[[InvalidObservation], None] | None = None) -> None:
        self._max_points = max_points
        self._reject = reject
        self._chunk_points = max(1, min(CHUNK_POINTS, max_points // 10))
        self._tracks: list[_Track] = []
        # By key alone, the first kind and unit it had: no tuple is made and hashed.
        self._appends: dict[str, tuple[Kind, str | None, Callable[[int], None], Callable[[float], None]]] = {}
        self._others: dict[tuple[object, Kind, object], tuple[Callable[[int], None], Callable[[float], None]]] = {}
        # One a point until that which fills the chunk: next() is atomic, += 1 is not.
        self._tickets = iter(range(self._chunk_points - 1))
        self._chunks: deque[_Chunk] = deque()
        self._held = 0
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._held + sum(len(track.values) for track in tuple(self._tracks))

    def record(self, kind: Kind, key: object, value: object, unit: object) -> None:
        """Record one observation, now; one that breaks a rule is counted and rejected."""
        try:
            known_kind, known_unit, append_at, append_value = self._appends[key]  # type: ignore[index] # in the try
            if kind != known_kind or unit != known_unit:
                append_at, append_value = self._others[key, kind, unit]
        except Exception:  # it is new, or can't be hashed, for whatever reason a foreign __hash__ has
            self._record_new(kind, key, value, unit)
            return
        if (type(value) is float and value - value == 0) or (type(value) is int and -_EXACT <= value <= _EXACT):
            number = value + 0.0  # no -0.0: it would make min and max depend on order
        else:
            checked = self._checked(value, key)
            if checked is None:
                return
            number = checked
        append_at(time_ns())
        append_value(number)
        try:
            next(self._tickets)
        except StopIteration:
            self._close_tracks()

    def record_job(self, row: JobRow) -> None:
        """Keep a job update that did not get into the log with its job."""
        with self._lock:
            self._open_chunk().jobs.append(row)
            self._added(1)
            next(self._tickets, None)
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
        except InvalidObservation as error:
            self._refuse(error)
            return
        number = self._checked(value, key)
        if number is None:
            return
        # Not key and unit themselves: they may be strings of a foreign kind, with a __hash__ of its own.
        plain_unit = None if unit is None else series.unit
        with self._lock:
            at_ns, values = self._open_chunk().run(series)
            at_ns.append(time_ns())
            values.append(number)
            self._added(1)
            next(self._tickets, None)
            if len(self._tracks) < _TRACKS and (series.key, kind, plain_unit) not in self._others:
                track = _Track(series, array("q"), array("d"))
                self._tracks.append(track)
                columns = track.at_ns.append, track.values.append
                self._others[series.key, kind, plain_unit] = columns
                self._appends.setdefault(series.key, (kind, plain_unit, *columns))

    def _checked(self, value: object, key: object) -> float | None:
        """Return the value as it is kept; None if it broke a rule and was refused."""
        try:
            return check_value(value, key)
        except InvalidObservation as error:
            self._refuse(error)
            return None

    def _refuse(self, error: InvalidObservation) -> None:
        self.count(f"rejected:{error.rule}")
        if self._reject is None:
            raise error
        self._reject(error)

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
            self._tickets = iter(range((room if room > 0 else self._chunk_points) - 1))

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
