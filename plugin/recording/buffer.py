"""The buffer of observations, and of job updates that the log did not take: thread-safe, columnar, bounded."""

from __future__ import annotations

import threading
from array import array
from collections import Counter, deque
from collections.abc import Callable
from time import time_ns
from typing import NamedTuple

from chancy_metrics.events.batch import EncodedBatch, ObservationRun
from chancy_metrics.events.codec import DROPPED, encode
from chancy_metrics.events.errors import InvalidObservation, NotRecording
from chancy_metrics.events.facts import DEFAULT_UNITS, JobRow, Kind, Series, check_value
from chancy_metrics.plugin.host.clock import read_times, same_clock
from chancy_metrics.projections.rules.reserved import check_own_series

#: Observations of one batch at the most, and then some that other threads make while it is closed.
CHUNK_POINTS = 10_000
#: Kept meta of the job updates in a buffer at the most, and where it closes a batch.
BUFFERED_META_BYTES = 64 << 20
_CHUNK_META_BYTES = 8 << 20
#: Series with an open run; observations of further ones are validated each time, and take the lock.
_MAX_OPEN_RUNS = 10_000
#: Integers a float64 holds exactly.
_EXACT = 2**53

#: What `NotRecording` says in a forked child.
IN_FORKED_CHILD = (
    "this process was forked after its plugin was made, and nobody in it appends metrics: open "
    "`with metrics.sync_recording(chancy)` or `async with metrics.recording(chancy)` in this process, or record with "
    "sync_record_in_transaction()"
)

Extend = Callable[[tuple[int, float]], None]


class _OpenRun(NamedTuple):
    """The observations of one series since the last chunk was closed, flat: time in ns, value, time, value, ..."""

    series: Series
    pairs: list[int | float]


class _Chunk:
    """A batch in the making: of job updates, or of observations."""

    def __init__(self) -> None:
        self.points = 0
        self.meta_bytes = 0
        self.runs: dict[Series, tuple[array[int], array[float]]] = {}
        self.jobs: list[JobRow] = []

    def run(self, series: Series) -> tuple[array[int], array[float]]:
        run = self.runs.get(series)
        if run is None:
            run = self.runs[series] = array("q"), array("d")
        return run

    def as_dropped(self) -> Counter[str]:
        return Counter(dropped=self.points - len(self.jobs), dropped_job_updates=len(self.jobs))


class Buffer:
    """Holds observations, and job updates the log could not take, until they are appended.

    Job updates are appended first. Where it is full, the oldest observations go first: job updates go only where there
    is no other batch of observations than the newest one.

    `record` may be called from any thread, and takes no lock: an open run stays for ever, threads only extend it,
    one atomic call for time and value, and only `_close_runs` takes from its other end.

    Args:
        reject: Does what is to be done about an observation that breaks a rule; raises the error by default.

    Attributes:
        counts: Counts for the next batch's header: "rejected:value", "dropped" observations, "dropped_job_updates",
            "buffered" job updates, ...
    """

    def __init__(self, max_points: int, reject: Callable[[InvalidObservation], None] | None = None) -> None:
        self._max_points = max_points
        self._reject = reject
        self._chunk_points = max(1, min(CHUNK_POINTS, max_points // 10))
        self._open_runs: list[_OpenRun] = []
        # By key alone, the first kind and unit it had: no tuple is made and hashed.
        self._firsts: dict[str, tuple[Kind, str | None, Extend]] = {}
        self._others: dict[tuple[object, Kind, object], Extend] = {}
        self._restart_clock(self._chunk_points)
        self._chunks: deque[_Chunk] = deque()
        self._job_chunks: deque[_Chunk] = deque()
        self._held = 0
        self._meta_bytes = 0
        self._lock = threading.Lock()
        self._disowned = False
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._held + sum(len(run.pairs) for run in tuple(self._open_runs)) // 2

    def held(self) -> Counter[str]:
        """Count what is in here: "observations", "job_updates", and what was dropped that no batch has reported yet."""
        with self._lock:
            updates = sum(len(chunk.jobs) for chunk in self._job_chunks)
            dropped = {name: self.counts[name] for name in DROPPED}
            return +Counter(observations=len(self) - updates, job_updates=updates, **dropped)

    def record(self, kind: Kind, key: object, value: object, unit: object) -> None:
        """Record one observation, now; one that breaks a rule is counted and rejected.

        Raises:
            NotRecording: In a child that was forked from the process whose buffer this is.
        """
        try:
            known_kind, known_unit, extend = self._firsts[key]  # type: ignore[index] # in the try
            if (
                kind is known_kind
                and unit is known_unit
                and time_ns is self._time_ns
                and (
                    (type(value) is float and value - value == 0.0)
                    or (type(value) is int and -_EXACT <= value <= _EXACT)
                )
            ):
                extend((next(self._times), value))
                return
        except (
            Exception
        ):  # it is new, or can't be hashed, for whatever reason a foreign __hash__ has, or the chunk is full
            pass
        self._record_checked(kind, key, value, unit)

    def disown(self) -> None:
        """Refuse everything from now on: a forked child has its parent's buffer, and nothing that appends it.

        Takes no lock: a thread of the parent may have held it at the fork, for ever here.
        """
        self._disowned = True
        self._firsts, self._others = {}, {}

    def measure(self, series: Series, value: float) -> None:
        """Record the present value of a gauge of this plugin's own, which `record` refuses to everybody."""
        with self._lock:
            self._add_point(series, (same_clock(time_ns)(), value))

    def record_job(self, row: JobRow, *, cut_meta: int = 0) -> None:
        """Keep a job update that did not get into the log with its job.

        Past `BUFFERED_META_BYTES` of kept meta in here, updates are kept without theirs.

        Args:
            cut_meta: 1 if some of its meta was left out already.
        """
        with self._lock:
            if row.meta and self._meta_bytes + len(row.meta) > BUFFERED_META_BYTES:
                row, cut_meta = row._replace(meta=b""), 1
            self._meta_bytes += len(row.meta)
            chunk = self._open_chunk(self._job_chunks)
            chunk.jobs.append(row)
            chunk.meta_bytes += len(row.meta)
            self._added(chunk, 1)
            if cut_meta:
                self.counts["cut:meta"] += 1
            self.counts["buffered"] += 1

    def count(self, reason: str, how_many: int = 1) -> None:
        with self._lock:
            self.counts[reason] += how_many

    def cut(self, *, is_behind: bool = False) -> EncodedBatch | None:
        """Take out the oldest batch, of job updates if there are any; None if nothing is to be said.

        Args:
            is_behind: The clock that its observations have their time from is behind: they count as skewed.

        Raises what `encode` raises; the batch is dropped then, and counted.
        """
        self._close_runs()
        with self._lock:
            chunks = self._job_chunks or self._chunks
            if not chunks and not self.counts:
                return None
            chunk = chunks.popleft() if chunks else _Chunk()
            self._forget(chunk)
            counts, self.counts = self.counts, Counter()
        try:
            runs = [
                # No -0.0: it would make min and max depend on order.
                ObservationRun(series, [ns // 1000 for ns in at_ns], [value + 0.0 for value in values])
                for series, (at_ns, values) in chunk.runs.items()
            ]
            skewed = sum(len(run.values) for run in runs) if is_behind else 0
            return encode(chunk.jobs, runs, counts + Counter(skewed=skewed))
        except Exception:
            with self._lock:
                self.counts += counts + chunk.as_dropped()
            raise

    def _record_checked(self, kind: Kind, key: object, value: object, unit: object) -> None:
        if self._disowned:
            raise NotRecording(IN_FORKED_CHILD)
        try:
            extend = self._others.get((key, kind, unit))
        except Exception:  # see above
            extend = None
        try:
            if extend is None:
                series = check_own_series(key, kind, DEFAULT_UNITS[kind] if unit is None else unit)
            number = check_value(value, key)
        except InvalidObservation as error:
            self._refuse(error)
            return
        if time_ns is not self._time_ns:
            self._close_runs()
        at_ns = next(self._times, None)
        point = (self._clock() if at_ns is None else at_ns), number
        if extend is None:
            # Not key and unit themselves: they may be strings of a foreign kind, with a __hash__ of its own.
            self._record_new(series, None if unit is None else series.unit, point)
        else:
            extend(point)
        if at_ns is None:  # this one has filled the chunk
            self._close_runs()

    def _record_new(self, series: Series, unit: str | None, point: tuple[int, float]) -> None:
        known = series.key, series.kind, unit
        with self._lock:
            if len(self._open_runs) < _MAX_OPEN_RUNS and known not in self._others:
                run = _OpenRun(series, [*point])
                self._open_runs.append(run)
                extend = self._others[known] = run.pairs.extend
                self._firsts.setdefault(series.key, (series.kind, unit, extend))
                return
            self._add_point(series, point)

    def _refuse(self, error: InvalidObservation) -> None:
        self.count(f"rejected:{error.rule}")
        if self._reject is None:
            raise error
        self._reject(error)

    def _close_runs(self) -> None:
        """Move the points of the open runs into the open chunk."""
        with self._lock:
            taken = 0
            for series, pairs in self._open_runs:
                if pairs:
                    run = self._open_chunk(self._chunks).run(series) if not taken else self._chunks[-1].run(series)
                    full = len(pairs)
                    run[0].fromlist(pairs[:full:2])  # type: ignore[arg-type] # every other one is an int
                    run[1].fromlist(pairs[1:full:2])
                    del pairs[:full]
                    taken += full // 2
            if taken:
                self._added(self._chunks[-1], taken)
            room = self._chunk_points - (self._chunks[-1].points if self._chunks else 0)
            self._restart_clock(room if room > 0 else self._chunk_points)

    def _restart_clock(self, room: int) -> None:
        """Read the time for *room* more observations, by the clock of now: freezegun may have started or stopped."""
        self._time_ns, self._clock = time_ns, same_clock(time_ns)
        self._times = read_times(self._clock, room - 1)

    def _open_chunk(self, chunks: deque[_Chunk]) -> _Chunk:
        last = chunks[-1] if chunks else None
        if last is None or last.points >= self._chunk_points or last.meta_bytes >= _CHUNK_META_BYTES:
            chunks.append(_Chunk())
        return chunks[-1]

    def _add_point(self, series: Series, point: tuple[int, float]) -> None:
        chunk = self._open_chunk(self._chunks)
        at_ns, values = chunk.run(series)
        at_ns.append(point[0])
        values.append(point[1])
        self._added(chunk, 1)

    def _added(self, chunk: _Chunk, points: int) -> None:
        chunk.points += points
        self._held += points
        while self._held > self._max_points:
            chunks = self._chunks if len(self._chunks) > 1 else self._job_chunks
            if len(chunks) <= 1:
                break
            oldest = chunks.popleft()
            self._forget(oldest)
            self.counts += oldest.as_dropped()

    def _forget(self, chunk: _Chunk) -> None:
        self._held -= chunk.points
        self._meta_bytes -= chunk.meta_bytes
