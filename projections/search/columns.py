"""The columns of events that match a query, with the times and durations that readers see, for many batches at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.batch import DecodedBatch, JobColumns, LogBatch, ObservationColumns
from chancy_metrics.events.errors import Damaged
from chancy_metrics.events.facts import FIRST_US, Combo, Series, microseconds
from chancy_metrics.events.kept_meta import decode_meta
from chancy_metrics.projections.rules.job_times import Outcomes, OwnTimes, believed_us, job_times, shown_us

#: Last time that a datetime can hold, microseconds since 1970.
LAST_US = microseconds(datetime.max.replace(tzinfo=UTC))
#: 16 bytes; not "S16", which drops zeros at the end.
_ID = np.dtype("V16")
_FLAGS = ("has_started", "has_completed")

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]
_Rows = _Ints | slice


class Matches(NamedTuple):
    """The matching events of one batch.

    Attributes:
        indexes: Their indexes in the batch, ascending: job updates come first.
        meta: Index -> kept meta, of those that have any and once it is read.
        damage: Index -> why its kept meta can't be read.
    """

    batch: LogBatch
    decoded: DecodedBatch
    indexes: _Ints
    meta: Mapping[int, dict[str, Any]] = {}
    damage: Mapping[int, str] = {}

    def only(self, indexes: _Ints) -> Matches:
        """Return some of these events."""
        if not (self.meta or self.damage):
            return self._replace(indexes=indexes)
        kept = frozenset(indexes.tolist())
        meta = {index: value for index, value in self.meta.items() if index in kept}
        damage = {index: why for index, why in self.damage.items() if index in kept}
        return Matches(self.batch, self.decoded, indexes, meta, damage)

    def with_meta(self) -> Matches:
        """Return the same with the kept meta read."""
        jobs = self.decoded.jobs
        if jobs is None or not jobs.meta:
            return self
        meta, damage = {}, {}
        for index in self.indexes.tolist():
            if (kept := jobs.meta.get(index)) is None:
                continue
            try:
                meta[index] = decode_meta(kept)
            except Damaged as error:
                damage[index] = str(error)
        return self._replace(meta=meta, damage=damage)


class EventColumns(NamedTuple):
    """Events in the order of the ledger, a row each; columns have zeros where an event has no such value.

    Attributes:
        batches: The batches they are in.
        batch: Which of *batches*.
        indexes: Index of each in the batch.
        at_us: When it happened, at the latest when its batch was appended. All times are microseconds since 1970 (UTC)
            that a datetime can hold: others became the first or last one.
        is_job: Whether it is a job update; the others are observations.
        combo: Which of *combos*; of job updates, as all columns up to *wait_s*.
        ids: 16 bytes each.
        has_run: Whether *run_s* is known; so are *has_wait*, *has_started* and *has_completed*.
        run: Which of *series*; of observations, as *values*.
        meta: Row -> kept meta.
        damage: Row -> why its kept meta can't be read.
    """

    batches: list[LogBatch]
    batch: _Ints
    indexes: _Ints
    at_us: _Ints
    is_job: _Bools
    combos: list[Combo]
    combo: _Ints
    ids: NDArray[np.void]
    created_us: _Ints
    scheduled_us: _Ints
    started_us: _Ints
    completed_us: _Ints
    has_started: _Bools
    has_completed: _Bools
    run_s: _Floats
    wait_s: _Floats
    has_run: _Bools
    has_wait: _Bools
    series: list[Series]
    run: _Ints
    values: _Floats
    meta: dict[int, dict[str, Any]]
    damage: dict[int, str]


def columns_of(found: Sequence[Matches]) -> EventColumns:
    """Return the columns of matching events, which come in the order of the ledger."""
    updates: list[tuple[JobColumns, _Rows]] = []
    observations: list[tuple[ObservationColumns, _Rows]] = []
    lengths: list[tuple[int, int]] = []
    for one in found:
        jobs, observed = one.decoded.jobs, one.decoded.observations
        first = 0 if jobs is None else len(jobs.at_us)
        until = first if len(one.indexes) == one.batch.events else int(np.searchsorted(one.indexes, first))
        lengths.append((until, len(one.indexes) - until))
        if jobs is not None and until:
            updates.append((jobs, _rows(one.indexes[:until], first)))
        if observed is not None and until < len(one.indexes):
            observations.append((observed, _rows(one.indexes[until:] - first, len(observed.values))))
    counts = np.array(lengths, np.int64).reshape(-1, 2)
    batch = np.repeat(np.arange(len(found)), counts.sum(axis=1))
    is_job = np.repeat(np.tile(np.array([True, False]), len(found)), counts.ravel())
    appended_us = np.array([one.batch.appended_us for one in found], np.int64)[batch]

    own = OwnTimes(
        *(
            _joined([getattr(jobs, name)[rows] for jobs, rows in updates], np.bool_ if name in _FLAGS else np.int64)
            for name in OwnTimes._fields
        )
    )
    combos = [combo for jobs, _ in updates for combo in jobs.combos]
    combo = _numbered([(jobs.combo[rows], len(jobs.combos)) for jobs, rows in updates])
    times = job_times(own, Outcomes.of(combos, combo), appended_us[is_job])
    took_s = shown_us(times.took_us) / 1e6
    ids = _joined([np.frombuffer(jobs.ids, _ID)[rows] for jobs, rows in updates], _ID)

    def spread(values: NDArray[Any], where: _Bools) -> NDArray[Any]:
        """Put *values* where *where*, and zeros elsewhere."""
        if len(values) == len(where):
            return values
        full = np.zeros((len(where), *values.shape[1:]), values.dtype)
        full[where] = values
        return full

    of_job = {name: spread(values, is_job) for name, values in own._asdict().items()}
    at_us = of_job.pop("at_us")
    at_us[~is_job] = _joined([columns.at_us[rows] for columns, rows in observations])
    for name in ("created_us", "scheduled_us", "started_us", "completed_us"):
        of_job[name] = _shown(of_job[name])
    return EventColumns(
        batches=[one.batch for one in found],
        batch=batch,
        indexes=_joined([one.indexes for one in found]),
        at_us=_shown(believed_us(at_us, appended_us)),
        is_job=is_job,
        combos=combos,
        combo=spread(combo, is_job),
        ids=spread(ids, is_job),
        **of_job,
        run_s=spread(took_s[0], is_job),
        wait_s=spread(took_s[1], is_job),
        has_run=spread(times.known[0], is_job),
        has_wait=spread(times.known[1], is_job),
        series=[one for columns, _ in observations for one in columns.series],
        run=spread(
            _numbered(
                [
                    (np.repeat(np.arange(len(columns.series)), columns.lengths)[rows], len(columns.series))
                    for columns, rows in observations
                ]
            ),
            ~is_job,
        ),
        values=spread(_joined([columns.values[rows] for columns, rows in observations], np.float64), ~is_job),
        meta=_by_row(found, [one.meta for one in found]),
        damage=_by_row(found, [one.damage for one in found]),
    )


def _rows(rows: _Ints, count: int) -> _Rows:
    """Return which rows of *count* are meant; all of them are not copied one by one."""
    return slice(None) if len(rows) == count else rows


def _joined(parts: Sequence[NDArray[Any]], kind: Any = np.int64) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, kind)


def _numbered(parts: Sequence[tuple[_Ints, int]]) -> _Ints:
    """Join numbers of names, each part with names of its own: so many come before those of the next part."""
    numbers, before = [], 0
    for part, names in parts:
        numbers.append(part + before)
        before += names
    return _joined(numbers)


def _shown(us: _Ints) -> _Ints:
    """Clamp what a datetime can't hold: a wrong clock must not hide the rest of the batch."""
    return np.clip(us, FIRST_US, LAST_US)


def _by_row(found: Sequence[Matches], parts: Sequence[Mapping[int, Any]]) -> dict[int, Any]:
    """Return what *parts* say of indexes of their batches, by row."""
    by_row: dict[int, Any] = {}
    start = 0
    for one, part in zip(found, parts, strict=True):
        if part:
            rows = np.searchsorted(one.indexes, np.fromiter(part, np.int64)) + start
            by_row.update(zip(rows.tolist(), part.values(), strict=True))
        start += len(one.indexes)
    return by_row
