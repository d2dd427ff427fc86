"""What was seen of each function and queue in one window, looked up by the parts of a key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from chancy_metrics.events.facts import Series
from chancy_metrics.plugin.summary.period import Window
from chancy_metrics.plugin.summary.sums import Sums
from chancy_metrics.plugin.summary.usual import MIN_COUNT, Usual, usual
from chancy_metrics.projections.rules.key_parts import KeyParts, Subject, key_parts

#: What a report reads, by subject.
_MEASURES: dict[Subject, tuple[str, ...]] = {
    "job": ("updates", "execution_time"),
    "queue": ("updates", "wait_time", "depth", "oldest_wait_seconds"),
    "global": ("updates",),
    "workers": ("active",),
}


class Known:
    """The series that a report reads, by the parts of their keys."""

    def __init__(self, names: Mapping[int, Series]) -> None:
        parts = {number: key_parts(series) for number, series in names.items()}
        self.parts = {number: one for number, one in parts.items() if one.measure in _MEASURES.get(one.subject, ())}
        self._numbers = {one: number for number, one in self.parts.items()}
        self._names: dict[Subject, set[str]] = {}
        for one in self.parts.values():
            self._names.setdefault(one.subject, set()).add(one.name)

    def number(self, subject: Subject, name: str, measure: str, state: str | None = None) -> int | None:
        return self._numbers.get(KeyParts(subject, name, measure, state))

    def times(self) -> list[int]:
        """Return the histograms whose quantiles a report has: of functions' runs, and of queues' waits."""
        wanted = {("job", "execution_time"), ("queue", "wait_time")}
        return [number for number, one in self.parts.items() if (one.subject, one.measure) in wanted]

    def names(self, subject: Subject) -> list[str]:
        """Return the names of functions or queues, in order."""
        return sorted(self._names.get(subject, ()))


class Seen(NamedTuple):
    """One window.

    Attributes:
        known_s: Seconds of it in which anything was recorded.
        began_s: Start of the first bucket in which anything was, seconds since 1970; None for nothing.
        recorded_s: End of the last one.
        p95: p95 by number, of some series.
    """

    window: Window
    known: Known
    known_s: float
    began_s: float | None
    recorded_s: float | None
    sums: dict[int, Sums]
    p95: dict[int, float]

    @property
    def is_comparable(self) -> bool:
        """Whether anything was recorded in half of it at least."""
        return self.known_s * 2 >= self.window.end_s - self.window.first_s

    def of(self, subject: Subject, name: str, measure: str, state: str | None = None) -> Sums | None:
        """Return the sums of a series; None if it has no point there."""
        number = self.known.number(subject, name, measure, state)
        return None if number is None else self.sums.get(number)

    def updates(self, subject: Subject, name: str, *states: str) -> int:
        """Return how many job updates to any of *states* there were."""
        found = [self.of(subject, name, "updates", state) for state in states]
        return round(sum(one.sum for one in found if one is not None))

    def done(self, subject: Subject, name: str = "") -> int:
        return self.updates(subject, name, "succeeded", "failed")

    def share(self, subject: Subject, name: str = "") -> float | None:
        """Return the share of jobs done that failed; None if none is done."""
        done = self.done(subject, name)
        return self.updates(subject, name, "failed") / done if done else None

    def quantile(self, number: int | None) -> tuple[float, int] | None:
        """Return the p95 of a histogram and of how many observations it is; None if it was not read."""
        if number is None or number not in self.p95:
            return None
        return self.p95[number], self.sums[number].observations


def usual_done(now: Seen, days: Iterable[Seen], subject: Subject, name: str = "") -> Usual | None:
    """Return how many jobs are usually done in as long a time."""
    return usual([one.done(subject, name) * now.known_s / one.known_s for one in days])


def usual_share(days: Iterable[Seen], subject: Subject, name: str = "") -> Usual | None:
    """Return which share of jobs usually fails; days with few jobs don't count."""
    shares = [one.share(subject, name) for one in days if one.done(subject, name) >= MIN_COUNT]
    return usual([share for share in shares if share is not None])


def usual_p95(days: Iterable[Seen], number: int | None) -> Usual | None:
    """Return the usual p95 of a histogram; days with few observations don't count."""
    found = [one.quantile(number) for one in days]
    return usual([p95 for p95, count in filter(None, found) if count >= MIN_COUNT])
