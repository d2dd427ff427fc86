"""What a browser saw of the counters, look after look: never empty, never falling."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from .browser import Answer, Point

#: Without one of these at some resolution the page is empty.
COUNTERS = ("global:status:succeeded", "shop:orders")


class Fault(NamedTuple):
    """A counter that was not shown (*bucket* is None), or a bucket of one that had less than before."""

    poll: int
    resolution: str
    key: str
    bucket: datetime | None
    before: float
    after: float

    def __str__(self) -> str:
        where = f"poll {self.poll}, {self.resolution}, {self.key}"
        if self.bucket is None:
            return f"{where}: nothing was shown"
        return f"{where}: the bucket of {self.bucket:%Y-%m-%d %H:%M} fell from {self.before:g} to {self.after:g}"


class Sightings:
    """Looks at the dashboard, compared bucket by bucket: only those that left the window may be gone.

    Attributes:
        polls: How many there were.
        empty: Counters that were not there.
        falling: Buckets of counters and histograms that had less in them than before.
        total: Of the first counter, when it was last seen.
    """

    def __init__(self) -> None:
        self.polls = 0
        self.empty: list[Fault] = []
        self.falling: list[Fault] = []
        self.total = 0.0
        self._seen: dict[str, dict[str, dict[datetime, float]]] = {}

    def note(self, look: Mapping[str, Answer | None]) -> None:
        """Compare one look with those before it."""
        self.polls += 1
        for resolution, answer in look.items():
            shown = {} if answer is None else _counts(answer)
            self.empty += [Fault(self.polls, resolution, key, None, 0, 0) for key in COUNTERS if not shown.get(key)]
            if answer is not None:
                self._compare(resolution, answer.start, shown)
        self.total = sum(self._seen.get("1day", {}).get(COUNTERS[0], {}).values())

    def _compare(self, resolution: str, start: datetime, shown: dict[str, dict[datetime, float]]) -> None:
        seen = self._seen.setdefault(resolution, {})
        for key, buckets in seen.items():
            self.falling += [
                Fault(self.polls, resolution, key, bucket, before, after)
                for bucket, before in buckets.items()
                if bucket >= start and (after := shown.get(key, {}).get(bucket, 0)) < before
            ]
        seen.update(shown)


def full(look: Mapping[str, Answer | None]) -> bool:
    """Whether every counter is shown at every resolution."""
    return all(answer is not None and _counts(answer).keys() >= set(COUNTERS) for answer in look.values())


def _counts(answer: Answer) -> dict[str, dict[datetime, float]]:
    """What only grows, by key and bucket: a counter's value, or how many observations a histogram has."""
    return {
        key: {point.timestamp: _count(point) for point in series.data}
        for key, series in answer.series.items()
        if series.type != "gauge" and series.data
    }


def _count(point: Point) -> float:
    return point.value["count"] if isinstance(point.value, dict) else point.value
