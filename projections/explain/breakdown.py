"""Count the events behind one point by func, queue, state, error and worker; keep the largest, first and failed."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from chancy_metrics.events.batch import DecodedBatch, LogBatch
from chancy_metrics.events.errors import DamagedBatch, UnknownCodec
from chancy_metrics.events.facts import Series
from chancy_metrics.projections.fold.cells import Floats, Ints
from chancy_metrics.projections.rules.contributions import fed
from chancy_metrics.projections.rules.job_times import believed_us, shown_us, times_of
from chancy_metrics.projections.rules.rule_set import RuleSet
from chancy_metrics.projections.search.columns import Matches
from chancy_metrics.projections.search.event import Event, to_events
from chancy_metrics.projections.span import Span

#: States of updates that count as failed.
_WRONG = ("failed", "retrying")


class EventBreakdown:
    """The events that feed *series* within *span*, counted and ranked; memory does not grow with their number.

    Args:
        limit: How many events each list keeps.

    Attributes:
        events: How many there are.
        by: "func", "queue", "state", "error" (of job updates) and "worker" -> how many by name.
        first: The first ones, in ledger order.
        failed: The last updates that failed or will be retried, in ledger order.
    """

    def __init__(self, series: Series, span: Span, rules: RuleSet, limit: int) -> None:
        self.events = 0
        self.by: dict[str, Counter[str]] = {name: Counter() for name in ("func", "queue", "state", "error", "worker")}
        self.first: list[Event] = []
        self.failed: list[Event] = []
        self._series = series
        self._since_us, self._until_us = span.since_us or 0, span.until_us or 0
        self._rules = rules
        self._limit = limit
        self._largest: list[tuple[float, int, int, Event]] = []

    @property
    def largest(self) -> list[Event]:
        """The events with the largest values, or for a counter of job updates the longest runs; the largest first."""
        return [event for *_, event in sorted(self._largest, reverse=True)]

    def add(self, batches: Sequence[LogBatch], decode: Callable[[LogBatch], DecodedBatch]) -> None:
        """Add *batches*, in ascending order; one that *decode* refuses adds nothing."""
        for batch in batches:
            try:
                decoded = decode(batch)
                found = fed(decoded, self._series, self._rules, batch.appended_us, batch.without)
            except (DamagedBatch, UnknownCodec):
                continue
            at_us = believed_us(found.at_us, batch.appended_us)
            inside = (at_us >= self._since_us) & (at_us < self._until_us)
            if inside.any():
                self._add(batch, decoded, found.indexes[inside], found.values[inside])

    def _add(self, batch: LogBatch, decoded: DecodedBatch, index: Ints, values: Floats) -> None:
        self.events += len(index)
        self.by["worker"][batch.worker] += len(index)
        self.first += _events(batch, decoded, index[: self._limit - len(self.first)])
        if decoded.jobs is not None:
            rows = index[index < len(decoded.jobs.at_us)]
            combos = decoded.jobs.combos
            counts = np.bincount(decoded.jobs.combo[rows], minlength=len(combos)).tolist()
            for combo, count in zip(combos, counts, strict=True):
                if count:
                    for name in ("func", "queue", "state", "error"):
                        if text := getattr(combo, name):
                            self.by[name][text] += count
            went_wrong = np.array([combo.state in _WRONG for combo in combos])[decoded.jobs.combo[rows]]
            last = rows[went_wrong][-self._limit :]
            self.failed = (self.failed + _events(batch, decoded, last))[-self._limit :]
            if self._series.kind == "counter":
                values = values.copy()
                ran_us = times_of(decoded.jobs, batch.appended_us).took_us[0][rows]
                values[index < len(decoded.jobs.at_us)] = shown_us(ran_us) / 1e6
        self._sort(batch, decoded, index, values)

    def _sort(self, batch: LogBatch, decoded: DecodedBatch, index: Ints, values: Floats) -> None:
        if len(values) > self._limit:
            top = np.sort(np.argpartition(values, -self._limit)[-self._limit :])
            index, values = index[top], values[top]
        if len(self._largest) >= self._limit:
            above = values > self._largest[0][0]
            index, values = index[above], values[above]
        for value, event in zip(values.tolist(), _events(batch, decoded, index), strict=True):
            heapq.heappush(self._largest, (value, -event.position, -event.index, event))
        while len(self._largest) > self._limit:
            heapq.heappop(self._largest)


def _events(batch: LogBatch, decoded: DecodedBatch, indexes: Ints) -> list[Event]:
    return to_events([Matches(batch, decoded, indexes).with_meta()]) if len(indexes) else []
