"""The event that readers of the log see, made from the columns of a decoded batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec
import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.batch import DecodedBatch, JobColumns, LogBatch, ObservationColumns
from chancy_metrics.events.errors import Damaged
from chancy_metrics.events.facts import EPOCH
from chancy_metrics.events.kept_meta import decode_meta
from chancy_metrics.projections.rules.job_times import believed_us, shown_us, times_of

#: "job" is a job update, the others are observations.
EventKind = Literal["job", "counter", "gauge", "histogram"]


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job update or an observation.

    Attributes:
        position: Position of its batch in the ledger, from 1.
        index: Index in its batch, from 0; job updates come before observations.
        at: When it happened, at the latest when its batch was appended (UTC).
        key: Of an observation, like *unit* and *value*; None for a job update.
        completed_at: By the worker's clock, as logged, even if that lies after the append.
        run_s: Seconds the attempt ran, counted up to the append at most; None if unknown.
        wait_s: Seconds from when it was due until it started; None if unknown, as after a retry.
        error: Type of the exception, or what `Metrics(error_messages=True)` kept; "" for none.
        meta: The keys of the job's `meta` that `Metrics(keep_meta=…)` names.
        damage: Why the kept meta can't be read; "" if it can.
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
    damage: str = ""


def to_events(batch: LogBatch, decoded: DecodedBatch, indexes: Iterable[int]) -> list[Event]:
    """Return the events at *indexes* of a batch.

    Args:
        decoded: What `decode` returns for *batch*, without the observations that user rules add.
        indexes: Ascending; those of job updates come first.
    """
    wanted = np.fromiter(indexes, np.int64)
    jobs = 0 if decoded.jobs is None else len(decoded.jobs.at_us)
    events: list[Event] = []
    if decoded.jobs is not None:
        events += _jobs(batch, decoded.jobs, wanted[wanted < jobs])
    if decoded.observations is not None:
        events += _observations(batch, decoded.observations, wanted[wanted >= jobs], jobs)
    return events


def _jobs(batch: LogBatch, jobs: JobColumns, rows: NDArray[np.int64]) -> Iterator[Event]:
    times = times_of(jobs, batch.appended_us)
    took_s, known = (shown_us(times.took_us[:, rows]) / 1e6).tolist(), times.known[:, rows].tolist()
    columns = (jobs.at_us, jobs.combo, jobs.created_us, jobs.scheduled_us, jobs.started_us, jobs.completed_us)
    flags = (jobs.has_started, jobs.has_completed)
    # As Python's own values at once: numpy's, one by one, take ten times as long.
    plain = [column[rows].tolist() for column in (*columns, *flags)]
    for row, at_us, combo, created_us, scheduled_us, started_us, completed_us, has_started, has_completed, *took in zip(
        rows.tolist(), *plain, *took_s, *known, strict=True
    ):
        func, queue, state, attempt, error = jobs.combos[combo]
        run_s, wait_s, has_run, has_wait = took
        meta, damage = _meta(jobs, row)
        yield Event(
            batch.position,
            row,
            _moment(min(at_us, batch.appended_us)),
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
            started_at=_moment(started_us) if has_started else None,
            completed_at=_moment(completed_us) if has_completed else None,
            run_s=run_s if has_run else None,
            wait_s=wait_s if has_wait else None,
            meta=meta,
            damage=damage,
        )


def _meta(jobs: JobColumns, row: int) -> tuple[dict[str, Any], str]:
    if row not in jobs.meta:
        return {}, ""
    try:
        return decode_meta(jobs.meta[row]), ""
    except Damaged as error:
        return {}, str(error)


def _observations(
    batch: LogBatch, columns: ObservationColumns, indexes: NDArray[np.int64], jobs: int
) -> Iterator[Event]:
    rows = indexes - jobs
    runs = np.searchsorted(np.cumsum(columns.lengths), rows, side="right")
    at_us = believed_us(columns.at_us[rows], batch.appended_us)
    for index, run, moment_us, value in zip(
        indexes.tolist(), runs.tolist(), at_us.tolist(), columns.values[rows].tolist(), strict=True
    ):
        key, kind, unit = columns.series[run]
        yield Event(
            batch.position,
            index,
            _moment(moment_us),
            kind,
            batch.worker,
            batch.producer,
            key=key,
            unit=unit,
            value=value,
        )


def _moment(us: int) -> datetime:
    """Clamp what datetime can't express: a wrong clock must not hide the rest of the batch."""
    try:
        return EPOCH + timedelta(microseconds=us)
    except OverflowError:
        return datetime.max.replace(tzinfo=EPOCH.tzinfo) if us > 0 else datetime.min.replace(tzinfo=EPOCH.tzinfo)
