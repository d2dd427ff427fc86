"""Find the series that a rule watches: those that match its `*`, and those of ours that have no point yet."""

from __future__ import annotations

import re
from typing import NamedTuple

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.facts import Series
from chancy_metrics.plugin.alerts.rules import Rule
from chancy_metrics.plugin.reading.series_index import Listed, SeriesIndex
from chancy_metrics.plugin.reading.shown_keys import Names
from chancy_metrics.projections.rules.built_in import STATES
from chancy_metrics.projections.rules.key_parts import key_parts, own_series

#: Most series that one rule watches.
MAX_WATCHED = 1_000


class Watched(NamedTuple):
    """A series that a rule watches; None as a number stands for a series without any point.

    Attributes:
        key: As it is shown.
        number: Its number in the database.
        whole: Numbers of the counters of the whole, for a share.
    """

    key: str
    series: Series
    number: int | None
    whole: tuple[int | None, ...]


class Finder:
    """Finds the series of rules among all that have a name."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._numbers = dict(names.under(None))
        parts = [key_parts(series) for series in names.values()]
        #: Functions, queues and tables of which anything was recorded.
        self._known = {(one.subject, one.name) for one in parts}

    def find(self, rule: Rule) -> list[Watched]:
        """Return what *rule* watches, by key; [] if its `*` matches nothing yet.

        Raises:
            MetricsLogError: There is no such series, or there are more than `MAX_WATCHED`.
        """
        patterns = (rule.series, *rule.of)
        for key in patterns:
            self._check(rule, key)
        found = []
        for text in self._texts(patterns) if "*" in rule.series else [""]:
            key = rule.series.replace("*", text)
            number = self._numbers.get(key)
            series = own_series(key) if number is None else self._names[number]
            assert series is not None
            whole = tuple(self._numbers.get(one.replace("*", text)) for one in rule.of)
            found.append(Watched(key, series, number, whole))
        return found

    def _texts(self, patterns: tuple[str, ...]) -> list[str]:
        """Return what `*` stands for in the keys there are."""
        texts: set[str] = set()
        for one in patterns:
            before, star, after = one.partition("*")
            if star:
                like = re.compile(f"{re.escape(before)}(.+){re.escape(after)}", re.DOTALL)
                texts |= {match[1] for key in self._numbers if (match := like.fullmatch(key))}
        if len(texts) > MAX_WATCHED:
            raise MetricsLogError(
                f"{patterns[0]!r} matches {len(texts):,} series, and a rule watches at most {MAX_WATCHED:,}: "
                "write more of the key"
            )
        return sorted(texts)

    def _check(self, rule: Rule, key: str) -> None:
        if key in self._numbers or ("*" in key and self._texts((key,))) or self._may_have_points(key):
            return
        index = SeriesIndex(Listed(shown, *self._names[number][1:]) for shown, number in self._numbers.items())
        like = index.near(key)
        hint = f"; near {'is' if len(like) == 1 else 'are'} {', '.join(map(repr, like))}" if like else ""
        raise MetricsLogError(f"rule {rule.name!r}: nothing was recorded under {key!r}{hint}")

    def _may_have_points(self, key: str) -> bool:
        """Whether it is a series of ours that has no point yet, such as the failures of a job that never failed."""
        series = own_series(key)
        if series is None:
            return False
        subject, name, _, state = key_parts(series)
        if subject == "global":
            return state in STATES
        return subject in ("workers", "pipeline") or "*" in name or (subject, name) in self._known
