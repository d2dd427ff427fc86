"""Rule sets, which say what metrics facts make: numbers, names and order. Each version has one for its whole life."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from chancy_metrics.events.batch import JobColumns
from chancy_metrics.events.facts import DEFAULT_UNITS, Kind, Series
from chancy_metrics.projections.rules.reserved import check_own_series

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

#: Number of the rules in this code, which `job_series` and `job_times` hold. 2: durations end at the append.
#: 3: total times and attempts.
BUILT_IN_RULES = 3


_NAME_CHARS = 200


class Derived(NamedTuple):
    """Observations of one series that a rule makes of job updates.

    Attributes:
        rows: Of which update each is: its time and worker are the update's.
        values: As many finite numbers, or one for all rows.
    """

    series: Series
    rows: ArrayLike
    values: ArrayLike

    @classmethod
    def counter(cls, key: str, rows: ArrayLike, values: ArrayLike = 1, *, unit: str = "") -> Derived:
        return cls(_series("counter", key, unit), rows, values)

    @classmethod
    def gauge(cls, key: str, rows: ArrayLike, values: ArrayLike, *, unit: str = "") -> Derived:
        return cls(_series("gauge", key, unit), rows, values)

    @classmethod
    def histogram(cls, key: str, rows: ArrayLike, values: ArrayLike, *, unit: str = "") -> Derived:
        return cls(_series("histogram", key, unit), rows, values)


#: A pure function: of the same job updates it makes the same observations, in any process, at any time.
Rule: TypeAlias = Callable[[JobColumns], Iterable[Derived]]


class RuleSet(NamedTuple):
    """The built-in rules, and the user's after them.

    Attributes:
        built_in: Number of the built-in rules.
        user: Number that the user gave theirs; 0 for none.
        rules: The user's rules, in their order.
    """

    built_in: int = BUILT_IN_RULES
    user: int = 0
    rules: tuple[Rule, ...] = ()

    @property
    def pair(self) -> tuple[int, int]:
        return self.built_in, self.user

    @property
    def names(self) -> list[str]:
        return [name_of(rule) for rule in self.rules]


BUILT_IN = RuleSet()


def name_of(rule: Any) -> str:
    """Return the name of a rule in versions and messages: up to 200 characters."""
    return str(getattr(rule, "__name__", type(rule).__name__))[:_NAME_CHARS]


def label(pair: Sequence[int]) -> str:
    """Return a pair of numbers as text: "1.3" are built-in rules 1 with the user's rules 3."""
    return f"{pair[0]}.{pair[1]}"


def is_above(pair: Sequence[int], other: Sequence[int]) -> bool:
    """Whether *pair* is not *other*, and neither of its numbers is lower."""
    return tuple(pair) != tuple(other) and pair[0] >= other[0] and pair[1] >= other[1]


def _series(kind: Kind, key: str, unit: str) -> Series:
    return check_own_series(key, kind, unit or DEFAULT_UNITS[kind])
