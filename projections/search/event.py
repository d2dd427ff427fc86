"""The event that readers of the log see one by one, made from columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec
import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.facts import EPOCH
from chancy_metrics.projections.search.columns import EventColumns, Matches, columns_of

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


def to_events(found: Sequence[Matches]) -> list[Event]:
    """Return the matching events of some batches one by one."""
    if not found:
        return []
    columns = columns_of(found)
    updates = _updates(columns, np.flatnonzero(columns.is_job))
    observations = _observations(columns, np.flatnonzero(~columns.is_job))
    return [next(updates if is_job else observations) for is_job in columns.is_job.tolist()]


def _updates(columns: EventColumns, rows: NDArray[np.int64]) -> Iterator[Event]:
    ids, known = columns.ids[rows].tobytes(), [columns.has_started, columns.has_completed]
    known += [columns.has_run, columns.has_wait]
    times = [columns.at_us, columns.created_us, columns.scheduled_us, columns.started_us, columns.completed_us]
    # As Python's own values at once: numpy's, one by one, take ten times as long.
    plain = [
        column[rows].tolist()
        for column in (columns.batch, columns.indexes, columns.combo, *times, columns.run_s, columns.wait_s, *known)
    ]
    for number, (row, of_batch, index, combo, at, created, scheduled, started, completed, run, wait, *has) in enumerate(
        zip(rows.tolist(), *plain, strict=True)
    ):
        batch = columns.batches[of_batch]
        func, queue, state, attempt, error = columns.combos[combo]
        has_started, has_completed, has_run, has_wait = has
        yield Event(
            batch.position,
            index,
            _moment(at),
            "job",
            batch.worker,
            batch.producer,
            job_id=UUID(bytes=ids[16 * number : 16 * number + 16]),
            func=func,
            queue=queue,
            state=state,
            attempt=attempt,
            error=error,
            created_at=_moment(created),
            scheduled_at=_moment(scheduled),
            started_at=_moment(started) if has_started else None,
            completed_at=_moment(completed) if has_completed else None,
            run_s=run if has_run else None,
            wait_s=wait if has_wait else None,
            meta=columns.meta.get(row, {}),
            damage=columns.damage.get(row, ""),
        )


def _observations(columns: EventColumns, rows: NDArray[np.int64]) -> Iterator[Event]:
    plain = (columns.batch, columns.indexes, columns.at_us, columns.run, columns.values)
    for of_batch, index, at, run, value in zip(*(column[rows].tolist() for column in plain), strict=True):
        batch = columns.batches[of_batch]
        key, kind, unit = columns.series[run]
        yield Event(
            batch.position,
            index,
            _moment(at),
            kind,
            batch.worker,
            batch.producer,
            key=key,
            unit=unit,
            value=value,
        )


def _moment(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)
