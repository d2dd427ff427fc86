"""Fold batches into each worker's cells, each at the finest resolution that is kept: pure, without I/O or a clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import compress
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from chancy_metrics.events.batch import DecodedBatch, JobColumns, LogBatch, ObservationColumns
from chancy_metrics.events.codec import decode_batch
from chancy_metrics.events.errors import DamagedBatch, UnknownCodec
from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.projections.fold.cells import ALL_WORKERS, Cells, concatenate, merge
from chancy_metrics.projections.fold.new_cells import Numbers, by_resolution, job_cells, observation_cells
from chancy_metrics.projections.rules.derive import derive
from chancy_metrics.projections.rules.job_times import believed_us
from chancy_metrics.projections.rules.rule_set import BUILT_IN, RuleSet

_DAY_S = RESOLUTIONS["1day"]
_DAY_US = _DAY_S * 1_000_000


class Fold(NamedTuple):
    """The cells that batches add to a version, and what could not be folded.

    Each observation is in one cell: that of its worker, in the bucket of the finest resolution that is kept for its
    age. `projections/fold/levels.py` makes the points of all resolutions of them.

    Attributes:
        workers: Worker ids; cells number them from 1.
        series: Series; cells number them from 0.
        cells: Resolution -> merged cells; resolutions without cells are missing.
        counts: Reason -> number of events that producers left out or the fold found skewed.
        dead: Position of a batch that can't be decoded -> error.
        failed: Position of a batch and name of a user's rule that failed on it -> error.
        days: Start of a UTC day, seconds since 1970 -> number of recorded events in it.
    """

    events: int
    workers: list[str]
    series: list[Series]
    cells: dict[str, Cells]
    counts: Counter[str]
    dead: dict[int, str]
    failed: dict[tuple[int, str], str] = {}  # noqa: RUF012 # nobody adds to it
    days: dict[int, int] = {}  # noqa: RUF012

    @classmethod
    def of_cells(cls, workers: list[str], series: list[Series], cells: dict[str, Cells]) -> Fold:
        """Return a fold that holds cells and their names, and nothing of the batches they were made of."""
        return cls(0, workers, series, cells, Counter(), {})


def fold(
    batches: Sequence[LogBatch],
    rules: RuleSet = BUILT_IN,
    horizons: Mapping[str, int] | None = None,
    *,
    only: Series | None = None,
    decode: Callable[[LogBatch], DecodedBatch] = decode_batch,
) -> Fold:
    """Fold *batches*, in any order, under *rules*.

    A batch that can't be decoded adds nothing and is in `dead`; a rule that fails on a batch adds nothing of it and is
    in `failed`.

    Args:
        horizons: Resolution -> start of the oldest bucket that is kept, seconds; without them all minutes are. An
            event older than all of them adds to no cell, and is in `events`, `counts` and `days` all the same.
        only: The only series that is needed: observations of others may be left out.
        decode: Decodes a batch, or returns it as it was decoded before; raises like `decode_batch`.
    """
    _keep_freed_memory()
    workers, series, counts, dead = Numbers[str](), Numbers[Series](), Counter[str](), dict[int, str]()
    failed = dict[tuple[int, str], str]()
    jobs: list[tuple[LogBatch, JobColumns]] = []
    recorded: list[tuple[LogBatch, ObservationColumns]] = []
    observations: list[tuple[LogBatch, ObservationColumns]] = []
    # By position, so that of two gauges in one instant the later row is the latest.
    for batch in sorted(batches, key=attrgetter("position")):
        try:
            decoded = decode(batch)
        except (DamagedBatch, UnknownCodec) as error:
            dead[batch.position] = str(error)
            continue
        counts.update(decoded.counts)
        if decoded.jobs is not None:
            jobs.append((batch, decoded.jobs))
        if decoded.observations is not None:
            recorded.append((batch, decoded.observations))
        derived, failures = derive(decoded, rules, batch.appended_us, batch.without)
        failed.update({(batch.position, name): error for name, error in failures.items()})
        if derived.observations is not None and (wanted := _of_one(derived.observations, only)) is not None:
            observations.append((batch, wanted))
    events = sum(batch.events for batch in batches if batch.position not in dead)
    parts = []
    if jobs:
        parts += job_cells(jobs, workers, series, counts, horizons)
    if observations:
        parts.append(observation_cells(observations, workers, series, counts, horizons))
    if not parts:
        return Fold(events, [], [], {}, counts, dead, failed)
    days = _days([*jobs, *recorded])
    levels = by_resolution(merge(concatenate(parts)), horizons)
    names, cells = _without_unused(list(workers), list(series), levels)
    return Fold(events, *names, cells, counts, dead, failed, days)


@cache
def _keep_freed_memory() -> None:
    """Let glibc keep freed temporaries for the next ones, which it else hands to the kernel each time.

    Freeing a block of 31 MB, just below the most that counts, raises its threshold for that (M_MMAP_THRESHOLD).
    """
    with suppress(MemoryError):  # it only saves time
        np.empty(31 << 20, np.uint8)


def _of_one(columns: ObservationColumns, only: Series | None) -> ObservationColumns | None:
    """Return the observations of one series; all of them for a gauge, whose values have an index in the batch."""
    if only is None or only.kind == "gauge":
        return columns
    wanted = np.array([one == only for one in columns.series])
    if not wanted.any():
        return None
    rows = np.repeat(wanted, columns.lengths)
    return ObservationColumns(
        list(compress(columns.series, wanted)), columns.lengths[wanted], columns.at_us[rows], columns.values[rows]
    )


def _days(decoded: Sequence[tuple[LogBatch, JobColumns | ObservationColumns]]) -> dict[int, int]:
    """Count the recorded events by day, each once, however many series it feeds."""
    at_us = np.concatenate([believed_us(columns.at_us, batch.appended_us) for batch, columns in decoded])
    day = at_us // _DAY_US
    if day.min() == day.max():
        return {int(day[0]) * _DAY_S: len(day)}
    days, events = np.unique(day, return_counts=True)
    return dict(zip((days * _DAY_S).tolist(), events.tolist(), strict=True))


def _without_unused(
    workers: list[str], series: list[Series], levels: Mapping[str, Cells]
) -> tuple[tuple[list[str], list[Series]], dict[str, Cells]]:
    """Return the names that cells have, and the cells numbered by those."""
    is_used = np.zeros(len(series), bool)
    works = np.zeros(1 + len(workers), bool)
    works[ALL_WORKERS] = True
    for cells in levels.values():
        is_used[cells.series] = True
        works[cells.worker] = True
    series_numbers, worker_numbers = np.cumsum(is_used) - 1, np.cumsum(works) - 1
    names = list(compress(workers, works[1:])), list(compress(series, is_used))
    return names, {
        resolution: cells._replace(worker=worker_numbers[cells.worker], series=series_numbers[cells.series])
        for resolution, cells in levels.items()
    }
