"""Run contenders in turns, so that noise of the machine hits all of them, and compare each with its target."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, NamedTuple

Statistic = Literal["min", "median", "p99"]
#: One turn of a contender: returns what it measured, and raises if it did not do what is measured.
Turn = Callable[[], Awaitable[float]]


class Target(NamedTuple):
    """What issue-given goal a row has.

    Attributes:
        of: The ratio ours / floor, our own figure, or the difference ours - floor.
    """

    of: Literal["ratio", "ours", "difference"]
    bound: Literal["<=", ">="]
    limit: float
    text: str


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        work: What is done.
        ours: Our figure, in *unit*.
        floor: The other contender's; None where nothing is comparable.
        against: The other contender, in words.
        statistic: What *ours* and *floor* are of the turns.
        target: None for lines that only inform.
        paired: The median of ours / floor of the turns one by one, where it is the ratio: what slows the machine for
            a while slows both of a pair.
    """

    subject: str
    work: str
    ours: float
    unit: str
    statistic: Statistic
    floor: float | None = None
    against: str = ""
    target: Target | None = None
    paired: float | None = None

    @property
    def ratio(self) -> float | None:
        if self.paired is not None:
            return self.paired
        return self.ours / self.floor if self.floor else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        figures = {"ratio": self.ratio, "ours": self.ours, "difference": self.ours - (self.floor or 0)}
        figure = figures[self.target.of]
        assert figure is not None
        return figure <= self.target.limit if self.target.bound == "<=" else figure >= self.target.limit


def at_most(limit: float, text: str = "") -> Target:
    """A target of the ratio ours / floor."""
    return Target("ratio", "<=", limit, text or f"<= {limit:g}")


def at_least(limit: float, text: str = "") -> Target:
    """A target of the ratio ours / floor."""
    return Target("ratio", ">=", limit, text or f">= {limit:g}")


class Size(NamedTuple):
    """How much is done: the full run, or the smoke run that only shows that everything still works."""

    smoke: bool

    def of(self, full: int, smoke: int) -> int:
        return smoke if self.smoke else full


async def by_turns(rounds: int, contenders: Mapping[str, Turn]) -> dict[str, list[float]]:
    """Let the contenders take *rounds* turns each, A B C, C B A, ..., after one that is not counted."""
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds + 1):
        for name in names:
            figure = await contenders[name]()
            if number:
                figures[name].append(figure)
        names.reverse()
    return figures


def by_pairs(ours: Sequence[float], floor: Sequence[float]) -> float:
    """The median of ours / floor, turn by turn."""
    return statistics.median(one / other for one, other in zip(ours, floor, strict=True))


def best(figures: Mapping[str, list[float]]) -> dict[str, float]:
    """The least of each: for work in memory, which noise can only make longer."""
    return {name: min(several) for name, several in figures.items()}


def middle(figures: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each: for work that waits for a database."""
    return {name: statistics.median(several) for name, several in figures.items()}


def percentile(several: list[float], q: float) -> float:
    """The value at rank q * n, from 1, of *several* in order."""
    ordered = sorted(several)
    return ordered[max(0, min(len(ordered), round(q * len(ordered))) - 1)]


def check(what: str, found: object, expected: object) -> None:
    """A benchmark that did not do what it measures is worth nothing.

    Raises:
        RuntimeError: The two differ.
    """
    if found != expected:
        raise RuntimeError(f"benchmark broken: {what} is {found!r}, expected {expected!r}")


class Stopwatch:
    """Seconds spent in its blocks, by *clock*; CPU time of this thread leaves out every wait."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._started = 0.0
        self.seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._started = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += self._clock() - self._started
