"""One event of the log, spelled out for who reads it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec
import numpy as np

from chancy_metrics.events.columns import DecodedBatch, JobColumns, ObservationColumns
from chancy_metrics.events.facts import EPOCH
from chancy_metrics.events.log import LogBatch

from .job_times import JobTimes, shown_us, times_of

#: "job" is a job update, the others are observations.
EventKind = Literal["job", "counter", "gauge", "histogram"]


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job update or an observation.

    Attributes:
        position: Its batch's place in the order, from 1.
        index: Its place in the batch, from 0; job updates come before observations.
        at: When it happened, which is never after its batch was appended (UTC).
        key: Of an observation, with its *unit* and *value*; None of a job update.
        run_s: Seconds the attempt ran; None if that is not known.
        wait_s: Seconds from when it was due until it started; None if that is not known, as after a retry.
        error: Type of the exception, or what `Metrics(error_messages=True)` kept; "" for none.
        meta: The keys of the job's `meta` that `Metrics(keep_meta=…)` names.
    """

    position: int
    index: int
    at: datetime
    kind: EventKind
    worker: str
    producer: UUID
    key: str | None = None
    unit: str | None = None
    value: float | None = None
    job_id: UUID | None = None
    func: str | None = None
    queue: str | None = None
    state: str | None = None
    attempt: int | None = None
    error: str = ""
    created_at: datetime | None = None
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    run_s: float | None = None
    wait_s: float | None = None
    meta: dict[str, Any] = {}  # msgspec makes a new one each time


def spell_out(batch: LogBatch, decoded: DecodedBatch, indexes: Iterable[int]) -> list[Event]:
    """Return the events at *indexes* of a batch, in that order.

    Args:
        decoded: What `decode` makes of *batch*. What user rules add lies behind it and is no event.
    """
    jobs = 0 if decoded.jobs is None else len(decoded.jobs.at_us)
    times = None if decoded.jobs is None else times_of(decoded.jobs)
    return [
        _job(batch, decoded.jobs, times, index)
        if decoded.jobs is not None and times is not None and index < jobs
        else _observation(batch, _known(decoded.observations), index, index - jobs)
        for index in indexes
    ]


def _job(batch: LogBatch, jobs: JobColumns, times: JobTimes, row: int) -> Event:
    func, queue, state, attempt, error = jobs.combos[jobs.combo[row]]
    started_us = int(jobs.started_us[row]) if jobs.has_started[row] else None
    completed_us = int(jobs.completed_us[row]) if jobs.has_completed[row] else None
    created_us, scheduled_us = int(jobs.created_us[row]), int(jobs.scheduled_us[row])
    run_s, wait_s = (
        us / 1e6 if known else None
        for us, known in zip(shown_us(times.took_us[:, row]).tolist(), times.known[:, row], strict=True)
    )
    return Event(
        batch.position,
        row,
        _moment(min(int(jobs.at_us[row]), batch.appended_us)),
        "job",
        batch.worker,
        batch.producer,
        job_id=UUID(bytes=jobs.ids[16 * row : 16 * row + 16]),
        func=func,
        queue=queue,
        state=state,
        attempt=attempt,
        error=error,
        created_at=_moment(created_us),
        scheduled_at=_moment(scheduled_us),
        started_at=None if started_us is None else _moment(started_us),
        completed_at=None if completed_us is None else _moment(completed_us),
        run_s=run_s,
        wait_s=wait_s,
        meta=msgspec.msgpack.decode(jobs.meta[row]) if row in jobs.meta else {},
    )


def _observation(batch: LogBatch, columns: ObservationColumns, index: int, row: int) -> Event:
    run = int(np.searchsorted(np.cumsum(columns.lengths), row, side="right"))
    series = columns.series[run]
    return Event(
        batch.position,
        index,
        _moment(min(int(columns.at_us[row]), batch.appended_us)),
        series.kind,
        batch.worker,
        batch.producer,
        key=series.key,
        unit=series.unit,
        value=float(columns.values[row]),
    )


def _known(columns: ObservationColumns | None) -> ObservationColumns:
    assert columns is not None
    return columns


def _moment(us: int) -> datetime:
    """A clamp, not an error, past what datetime can say: a wrong clock must not hide the rest."""
    try:
        return EPOCH + timedelta(microseconds=us)
    except OverflowError:
        return datetime.max.replace(tzinfo=EPOCH.tzinfo) if us > 0 else datetime.min.replace(tzinfo=EPOCH.tzinfo)
