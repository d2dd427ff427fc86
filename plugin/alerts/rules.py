"""Read alert rules from a TOML file; the error for a wrong one names the rule, the key and what is allowed."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

import msgspec

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.facts import Kind
from chancy_metrics.events.humanize import span
from chancy_metrics.plugin.audit.suggest import near
from chancy_metrics.plugin.host.durations import read_duration

#: Width of the finest buckets, and the longest window and `for`, seconds.
FINEST_S, LONGEST_S = 60, 7 * 86_400
#: What a rule may judge of a series, by kind; a histogram has quantiles besides: p50, p99.9.
VALUES: dict[Kind, tuple[str, ...]] = {
    "counter": ("sum", "rate"),
    "gauge": ("max", "min", "avg", "last"),
    "histogram": ("max", "min", "avg", "count", "sum", "rate"),
}
#: Those that are of a whole window, so that it has to be named.
ADDED_UP = ("sum", "count")
_QUANTILE = re.compile(r"p(\d{1,2})(?:\.(\d{1,3}))?", re.ASCII)
_PATH = re.compile(r" - at `\$\.?([^`]*)`")
_MAX_FILE_BYTES = 1 << 20

Side = Literal["above", "below", "absent"]


class _Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file, as it is written."""

    name: str
    series: str
    of: str | list[str] = []
    value: str | None = None
    window: str | None = None
    above: float | None = None
    below: float | None = None
    absent: bool = False
    for_: str = msgspec.field(default="0s", name="for")
    min_count: int = 0


_KEYS = [field.encode_name for field in msgspec.structs.fields(_Rule)]


class Rule(NamedTuple):
    """A checked rule; times in seconds.

    Attributes:
        series: A key; one `*` in it stands for any text, and makes the rule one of each series that it matches.
        of: Counters; the value is the share of their sum that *series* has. () for a rule that is no share.
        value: As in `VALUES`, or a quantile; None for the kind's own.
        side: Whether the value has to be above or below *threshold*, or there must be none.
        for_s: The condition has to have held for longer than this.
        min_count: With fewer observations in the window (for a share: of all) the condition does not hold.
    """

    name: str
    series: str
    of: tuple[str, ...]
    value: str | None
    window_s: int
    side: Side
    threshold: float
    for_s: float
    min_count: int

    def value_of(self, kind: Kind) -> str:
        """Return what is judged of a series of *kind*: a word of `VALUES`, a quantile, or "share".

        Raises:
            MetricsLogError: That kind has no such value.
        """
        if self.side == "absent":
            return "points"
        if self.of:
            if kind != "counter":
                _refuse(self.name, "of", f"{self.series!r} is a {kind}, and only counters have a share")
            return "share"
        allowed = f"{', '.join(VALUES[kind])}" + (" or a quantile such as p95" if kind == "histogram" else "")
        value = self.value
        if value is None and kind == "gauge":
            return "max" if self.side == "above" else "min"
        if value is None and kind == "counter":
            value = "sum"
        if value is None:
            _refuse(self.name, "value", f"{self.series!r} is a histogram: say which of it, {allowed}")
        if value not in VALUES[kind] and not (kind == "histogram" and quantile_of(value)):
            _refuse(self.name, "value", f"{value!r} is nothing that a {kind} has: {allowed}")
        if value in ADDED_UP and not self.window_s:
            _refuse(self.name, "window", f"a {value} is of some time: give a window, such as window = '10m'")
        return value


def quantile_of(value: str) -> tuple[int, int] | None:
    """Return the quantile that p95 or p99.9 names, as numerator and denominator; None if it names none."""
    match = _QUANTILE.fullmatch(value)
    if match is None:
        return None
    whole, part = match[1], match[2] or ""
    return int(whole + part), 100 * 10 ** len(part)


def read_rules(path: str | PathLike[str]) -> list[Rule]:
    """Return the rules of a file, in its order.

    Raises:
        OSError: The file can't be read.
        MetricsLogError: It is no TOML, or a rule is wrong.
    """
    data = Path(path).read_bytes()
    if len(data) > _MAX_FILE_BYTES:
        raise MetricsLogError(f"{path} is no file of rules: it has more than {_MAX_FILE_BYTES:,} bytes")
    try:
        found = tomllib.loads(data.decode())
    except ValueError as error:
        raise MetricsLogError(f"{path} is no TOML: {error}") from error
    try:
        return _check_all(found)
    except MetricsLogError as error:
        raise MetricsLogError(f"{path}: {error}") from error


def _check_all(found: Mapping[str, Any]) -> list[Rule]:
    wrong = [key for key in found if key != "rule"]
    if wrong:
        raise MetricsLogError(f"there is no key {wrong[0]!r}: a file has rules only, each in a table [[rule]]")
    tables = found.get("rule", [])
    if not isinstance(tables, list) or not tables or not all(isinstance(one, dict) for one in tables):
        raise MetricsLogError("there is no rule: write each in a table [[rule]]")
    rules = [_check(table, f"rule {number}") for number, table in enumerate(tables, 1)]
    names = [rule.name for rule in rules]
    if twice := [name for name in names if names.count(name) > 1]:
        raise MetricsLogError(f"two rules have the name {twice[0]!r}: names tell them apart")
    return rules


def _check(table: dict[str, Any], place: str) -> Rule:
    name = table["name"] if isinstance(table.get("name"), str) and table["name"].strip() else place
    if unknown := [key for key in table if key not in _KEYS]:
        like = near(unknown[0], _KEYS)
        hint = f"do you mean {like[0]!r}? " if like else ""
        _refuse(name, unknown[0], f"there is no such key; {hint}a rule has {', '.join(_KEYS)}")
    try:
        rule = msgspec.convert(table, _Rule)
    except msgspec.ValidationError as error:
        at = _PATH.search(str(error))
        said = _PATH.sub("", str(error)).replace("Object missing required field", "a rule needs the key")
        key = at[1] if at else ""
        _refuse(name, key, said)
    for key, text in {"name": rule.name, "series": rule.series}.items():
        if not text.strip():
            _refuse(name, key, "it is empty")
    of = (rule.of,) if isinstance(rule.of, str) else tuple(rule.of)
    if "of" in table and not of:
        _refuse(name, "of", "it is empty: name the counters whose sum is the whole")
    side, threshold = _threshold(rule)
    if of and rule.value is not None:
        _refuse(name, "value", "a rule with `of` judges the share that `series` has of it, and nothing else")
    if of and side == "absent":
        _refuse(name, "absent", "a rule with `of` needs `above` or `below`")
    if side == "absent" and rule.value is not None:
        _refuse(name, "value", "a rule with `absent` has none")
    if rule.min_count < 0:
        _refuse(name, "min_count", f"{rule.min_count} is below 0")
    _check_stars(name, rule.series, of)
    return Rule(
        name,
        rule.series,
        of,
        rule.value,
        _window(name, rule.window),
        side,
        threshold,
        _seconds(name, "for", rule.for_),
        rule.min_count,
    )


def _threshold(rule: _Rule) -> tuple[Side, float]:
    sides: dict[Side, float] = {}
    if rule.above is not None:
        sides["above"] = rule.above
    if rule.below is not None:
        sides["below"] = rule.below
    if rule.absent:
        sides["absent"] = 0
    if len(sides) != 1:
        given = " and ".join(sides) or "none of them"
        _refuse(rule.name, "above", f"give one of above = NUMBER, below = NUMBER and absent = true; it has {given}")
    ((side, threshold),) = sides.items()
    if not isfinite(threshold):
        _refuse(rule.name, side, f"{threshold} is no finite number")
    return side, threshold


def _check_stars(name: str, series: str, of: tuple[str, ...]) -> None:
    if series.count("*") > 1:
        _refuse(name, "series", f"{series!r} has more than one *")
    for one in of:
        if one.count("*") > series.count("*"):
            _refuse(name, "of", f"{one!r} has more * than {series!r}, whose * each of them takes over")


def _window(name: str, text: str | None) -> int:
    if text is None:
        return 0
    seconds = _seconds(name, "window", text)
    if seconds < FINEST_S or seconds % FINEST_S:
        _refuse(name, "window", f"{text!r} is not whole minutes, and the finest buckets are of one")
    return int(seconds)


def _seconds(name: str, key: str, text: str) -> float:
    seconds = read_duration(text)
    if seconds is None or seconds > LONGEST_S:
        _refuse(name, key, f"{text!r} is not a duration of up to {span(LONGEST_S)}: write 30s, 15m, 24h or 7d")
    return seconds


def _refuse(name: str, key: str, why: str) -> NoReturn:
    where = f"rule {name!r}" if not name.startswith("rule ") else name
    raise MetricsLogError(f"{where}, {key}: {why}" if key else f"{where}: {why}")
