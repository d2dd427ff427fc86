"""Group the series by the function or queue they are of, and add up each one's numbers over a range of time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from chancy_metrics.events.facts import Series, microseconds
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.plugin.host.options import Options
from chancy_metrics.plugin.reading.columns import COLUMN_OF, Rows, since
from chancy_metrics.plugin.reading.replica import Replica, SeriesColumns
from chancy_metrics.plugin.reading.window import finite_total
from chancy_metrics.projections.buckets import bucket_of, horizons
from chancy_metrics.projections.grid import BucketRange
from chancy_metrics.projections.rules.key_parts import Subject, key_parts

#: Most whole buckets of a range, so that a line of them can be seen, and sketches of them be merged.
MAX_BUCKETS = 90
#: Seconds, and intervals of measuring, after which the last sample of a gauge says nothing of now.
_STALE_S, _STALE_SAMPLES = 300, 3
#: What the tables call a histogram of times -> the measure in its key.
MEASURES = {"run": "execution_time", "wait": "wait_time", "total": "total_time"}


class Asked(NamedTuple):
    """Which rows of a table are asked for, and in which order.

    Attributes:
        words: Words that a name contains, all of them, in any case: folded here.
        after: Rows of earlier pages.
    """

    order: str
    descending: bool
    words: Sequence[str]
    after: int
    limit: int


class Range(NamedTuple):
    """A range that ends now, in whole buckets and the current one, and as long a range before it.

    Attributes:
        before_s: Start of the range before, seconds since 1970; None where not all of it was recorded and is kept.
        lived_s: Seconds of the range from the first bucket in which anything was recorded until now.
        fresh_us: Samples of gauges that are older are not shown, microseconds since 1970.
    """

    within: BucketRange
    before_s: int | None
    lived_s: float
    fresh_us: float

    @property
    def width_s(self) -> int:
        return RESOLUTIONS[self.within.resolution]

    @property
    def buckets(self) -> range:
        return range(self.within.first_s, self.within.end_s, self.width_s)


class Group(NamedTuple):
    """The series of one function or queue: what is measured, and its state behind a colon -> number and key."""

    name: str
    series: dict[str, tuple[int, str]]


class Sums(msgspec.Struct, frozen=True):
    """What a function or queue did in a range.

    Attributes:
        count: Job updates, one for each attempt that ended.
        before: The same in the range before; None where there is none.
        times: Count and sum, seconds, of each histogram that has values.
        waiting: Jobs that were due at the last sample; None without a fresh one.
        oldest_s: Seconds the first of them had waited then.
    """

    count: float
    succeeded: float
    failed: float
    retried: float
    before: float | None
    times: dict[str, tuple[int, float]]
    waiting: float | None
    oldest_s: float | None

    @property
    def is_something(self) -> bool:
        return bool(self.count or self.before or self.times or self.waiting is not None)

    @property
    def failure_ratio(self) -> float | None:
        """Of the jobs that ended, the share that failed for good."""
        ended = self.succeeded + self.failed
        return self.failed / ended if ended else None

    def change(self, window: Range) -> float | None:
        """By how much jobs came faster than in the range before, as a share of that: 1.0 is twice as fast."""
        if not self.before or window.before_s is None:
            return None
        before_s = window.within.first_s - window.before_s
        return self.count / window.lived_s / (self.before / before_s) - 1


def choose_range(options: Options, replica: Replica, range_s: int, now: datetime) -> Range:
    """Return the range at the finest resolution that has at most `MAX_BUCKETS` of it and keeps the range before, too.

    Where none does, at the finest that keeps the range alone, or the coarsest, cut to what is kept.
    """
    now_us = microseconds(now)
    kept = horizons(now_us, options.max_points, options.maximum_metric_age)
    found: list[tuple[str, int, int]] = []  # resolution, start of the range, start of the range before
    for resolution, width in RESOLUTIONS.items():
        buckets = -(-range_s // width)
        first = bucket_of(now_us, width) - buckets * width
        if buckets <= MAX_BUCKETS:
            found.append((resolution, first, first - buckets * width))
    fitting = [one for one in found if one[2] >= kept[one[0]]] or [one for one in found if one[1] >= kept[one[0]]]
    resolution, first, before = (fitting or found[-1:])[0]
    recorded, oldest = replica.recorded[resolution], kept[resolution]
    start = int(recorded[0]) if len(recorded) else first
    first = max(first, oldest)
    end = bucket_of(now_us, RESOLUTIONS[resolution]) + RESOLUTIONS[resolution]
    return Range(
        BucketRange(resolution, first, end),
        before if before >= max(oldest, start) else None,
        max(1.0, now_us / 1e6 - max(first, start)),
        now_us - 1e6 * max(_STALE_S, _STALE_SAMPLES * options.collection_interval),
    )


def recorded_since(options: Options, replica: Replica, now: datetime) -> int | None:
    """Return the start of the first bucket that is kept and in which anything was recorded; None if there is none.

    Of the finest resolution that still keeps all of the coarser one's first bucket.
    """
    kept = horizons(microseconds(now), options.max_points, options.maximum_metric_age)
    first: int | None = None
    for resolution in reversed(RESOLUTIONS):
        buckets = replica.recorded[resolution]
        if len(buckets) and (first is None or kept[resolution] <= first):
            first = int(buckets[0])
    return first


def group(shown: Iterable[tuple[str, int]], series: Mapping[int, Series], subject: Subject) -> list[Group]:
    """Return the functions or queues that series are of, by name; *shown* are keys with the number of their series."""
    groups: dict[str, Group] = {}
    for key, number in shown:
        parts = key_parts(series[number])
        if parts.subject == subject:
            measure = parts.measure if parts.state is None else f"{parts.measure}:{parts.state}"
            groups.setdefault(parts.name, Group(parts.name, {})).series[measure] = number, key
    return [groups[name] for name in sorted(groups)]


class Cut:
    """The points of one function or queue in the buckets of a range."""

    def __init__(self, one: Group, columns: Mapping[int, SeriesColumns], window: Range) -> None:
        self._one = one
        self._columns = columns
        self._window = window

    def rows(self, measure: str, *, before: bool = False) -> Rows | None:
        """Return the points of a measure in the range, or in the one before; None if there are none."""
        within, before_s = self._window.within, self._window.before_s
        number, _ = self._one.series.get(measure, (-1, ""))
        found = self._columns.get(number, {}).get(within.resolution)
        if found is None or (before and before_s is None):
            return None
        cut = since(found, before_s, within.first_s) if before and before_s else since(found, *within[1:])
        return cut if len(cut) else None

    def counters(self) -> list[str]:
        """Return the measures that count its job updates, each once."""
        if "throughput" in self._one.series:
            return ["throughput"]
        return [measure for measure in self._one.series if measure.startswith("updates:")]

    def counted(self, measures: Iterable[str], *, before: bool = False) -> float:
        """Return the sum of counters."""
        found = [rows for measure in measures if (rows := self.rows(measure, before=before)) is not None]
        return finite_total([value for rows in found for value in rows[:, COLUMN_OF["counter"]["sum"]].tolist()])

    def sampled(self, measure: str) -> float | None:
        """Return the last sample of a gauge; None if it says nothing of now."""
        rows = self.rows(measure)
        if rows is None or rows[-1, COLUMN_OF["gauge"]["last_us"]] < self._window.fresh_us:
            return None
        return float(rows[-1, COLUMN_OF["gauge"]["last"]])

    def times(self, measure: str) -> tuple[int, float] | None:
        """Return count and sum of a histogram."""
        rows = self.rows(measure)
        if rows is None:
            return None
        column = COLUMN_OF["histogram"]
        return int(rows[:, column["count"]].sum()), finite_total(rows[:, column["sum"]].tolist())

    def add_up(self) -> Sums:
        """Return what the function or queue did in the range."""
        depths = [self.sampled(f"depth:{state}") for state in ("pending", "retrying")]
        times = {name: found for name, measure in MEASURES.items() if (found := self.times(measure)) is not None}
        return Sums(
            count=self.counted(self.counters()),
            succeeded=self.counted(["updates:succeeded"]),
            failed=self.counted(["updates:failed"]),
            retried=self.counted(["updates:retrying"]),
            before=None if self._window.before_s is None else self.counted(self.counters(), before=True),
            times=times,
            waiting=None if depths == [None, None] else sum(depth or 0.0 for depth in depths),
            oldest_s=self.sampled("oldest_wait_seconds"),
        )

    def counts(self) -> dict[int, float]:
        """Return the job updates of each bucket that has some, by its start."""
        counts: dict[int, float] = {}
        for measure in self.counters():
            if (rows := self.rows(measure)) is not None:
                for start, value in zip(
                    rows[:, 0].tolist(), rows[:, COLUMN_OF["counter"]["sum"]].tolist(), strict=True
                ):
                    counts[int(start)] = counts.get(int(start), 0.0) + value
        return counts
