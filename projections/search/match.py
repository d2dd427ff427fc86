"""Decide which events of a batch match a query: first by its log row, then by its columns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.batch import DecodedBatch, JobColumns, LogBatch, LogRow, ObservationColumns
from chancy_metrics.events.facts import bounded_worker
from chancy_metrics.projections.rules.contributions import updates_that_feed
from chancy_metrics.projections.rules.job_times import believed_us
from chancy_metrics.projections.search.query import EventQuery, names_of

_Mask = NDArray[np.bool_]


def may_match(query: EventQuery, row: LogRow) -> bool:
    """Whether a batch may hold matching events, by its row without the payload.

    A row without times may have events at any time.
    """
    return (
        (row.first_us is None or min(row.first_us, row.appended_us) < query.until_us)
        and (row.last_us is None or min(row.last_us, row.appended_us) >= query.since_us)
        and query.worker in (None, bounded_worker(row.worker))
        and query.producer in (None, row.producer)
    )


def matching(query: EventQuery, batch: LogBatch, decoded: DecodedBatch) -> NDArray[np.int64]:
    """Return the indexes of the matching events of a batch, ascending."""
    parts = []
    if decoded.jobs is not None:
        parts.append(_jobs(query, decoded.jobs) & _in_time(query, batch, decoded.jobs.at_us))
    if decoded.observations is not None:
        parts.append(_observations(query, decoded.observations) & _in_time(query, batch, decoded.observations.at_us))
    if not parts or query.worker not in (None, batch.worker) or query.producer not in (None, batch.producer):
        return np.empty(0, np.int64)
    found = np.flatnonzero(np.concatenate(parts))
    after = query.after
    if after is None or batch.position > after.position:
        return found
    if batch.position < after.position or after.index is None:
        return found[:0]
    return found[found > after.index]


def _in_time(query: EventQuery, batch: LogBatch, own_us: NDArray[np.int64]) -> _Mask:
    at_us = believed_us(own_us, batch.appended_us)
    return (at_us >= query.since_us) & (at_us < query.until_us)


def _jobs(query: EventQuery, jobs: JobColumns) -> _Mask:
    if query.kinds and "job" not in query.kinds:
        return np.zeros(len(jobs.at_us), np.bool_)
    of_combo = np.array(
        [
            query.func in (None, func)
            and query.queue in (None, queue)
            and query.state in (None, state)
            and (query.error is None or query.error in names_of(error))
            for func, queue, state, _, error in jobs.combos
        ],
        np.bool_,
    )
    found: _Mask = of_combo[jobs.combo]
    if query.job_id is not None:
        ids = np.frombuffer(jobs.ids, "<u8").reshape(-1, 2)
        found &= (ids == np.frombuffer(query.job_id.bytes, "<u8")).all(axis=1)
    if query.key is not None or query.prefix:
        matches = _key_test(query)
        found &= np.logical_or.reduce(updates_that_feed(jobs, lambda series: matches(series.key)))
    return found


def _observations(query: EventQuery, columns: ObservationColumns) -> _Mask:
    if query.of_jobs:
        return np.zeros(len(columns.values), np.bool_)
    matches = _key_test(query)
    of_series = np.array(
        [(not query.kinds or series.kind in query.kinds) and matches(series.key) for series in columns.series],
        np.bool_,
    )
    return np.repeat(of_series, columns.lengths)


def _key_test(query: EventQuery) -> Callable[[str], bool]:
    key, prefix = query.key, query.prefix

    def matches(one: str) -> bool:
        return key in (None, one) and (not prefix or one == prefix or one.startswith(f"{prefix}:"))

    return matches
