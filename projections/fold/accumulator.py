"""Add up many folds into one, in memory that grows with the points and not with the events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from chancy_metrics.events.batch import LogBatch
from chancy_metrics.events.facts import Series
from chancy_metrics.projections.fold.cells import ALL_WORKERS, Cells, concatenate, merge, within
from chancy_metrics.projections.fold.fold import Fold, fold
from chancy_metrics.projections.rules.rule_set import RuleSet

#: Least rows that are merged at once: merging after each fold would sort all points again every time.
_WAITING_ROWS = 50_000


class Accumulator:
    """Adds up folds, and numbers their workers and series anew.

    Args:
        since: Resolution -> start of the first bucket that is kept, seconds; all by default. What is added must be
            folded, or read, with these as its horizons.
        until: Resolution -> start of the first bucket past the end; no end by default.
    """

    def __init__(self, since: Mapping[str, int] | None = None, until: Mapping[str, int] | None = None) -> None:
        self.events = 0
        self.dead: dict[int, str] = {}
        self.failed: dict[tuple[int, str], str] = {}
        self._since = since
        self._until = until
        self._workers: dict[str, int] = {}
        self._series: dict[Series, int] = {}
        self._parts: dict[str, list[Cells]] = {}
        self.counts = Counter[str]()
        self._days = Counter[int]()

    def add(self, part: Fold) -> None:
        self.events += part.events
        self.counts.update(part.counts)
        self.dead.update(part.dead)
        self.failed.update(part.failed)
        self._days.update(part.days)
        workers = [self._workers.setdefault(name, len(self._workers) + 1) for name in part.workers]
        series = [self._series.setdefault(one, len(self._series)) for one in part.series]
        worker_numbers, series_numbers = np.array([ALL_WORKERS, *workers], np.int64), np.array(series, np.int64)
        for resolution, cells in within(part.cells, self._since, self._until).items():
            parts = self._parts.setdefault(resolution, [])
            parts.append(cells._replace(worker=worker_numbers[cells.worker], series=series_numbers[cells.series]))
            if sum(waiting.rows for waiting in parts[1:]) > max(_WAITING_ROWS, parts[0].rows):
                parts[:] = [merge(concatenate(parts))]

    @property
    def workers(self) -> list[str]:
        return list(self._workers)

    @property
    def series(self) -> list[Series]:
        return list(self._series)

    @property
    def rows(self) -> int:
        """How many cells it holds, of which some may still become one."""
        return sum(part.rows for parts in self._parts.values() for part in parts)

    @property
    def codes(self) -> int:
        """How many codes their sketches hold, which take most of the memory."""
        return sum(len(part.sketches.codes) for parts in self._parts.values() for part in parts)

    def add_batches(self, batches: Sequence[LogBatch], rules: RuleSet) -> None:
        """Fold *batches* and add them."""
        self.add(fold(batches, rules, self._since))

    def take(self) -> dict[str, Cells]:
        """Return the cells, unmerged, and forget them; their numbers stay those of `workers` and `series`."""
        taken = {resolution: concatenate(parts) for resolution, parts in self._parts.items()}
        self._parts.clear()
        return taken

    def fold(self) -> Fold:
        """Return the sum as one fold."""
        for parts in self._parts.values():
            parts[:] = [merge(concatenate(parts))]
        cells = {resolution: one for resolution, (one,) in self._parts.items() if one.rows}
        return Fold(self.events, self.workers, self.series, cells, self.counts, self.dead, self.failed, self._days)
