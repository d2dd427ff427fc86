"""Name the families of custom metrics: keys as names that every reader of the formats takes, and no two the same.

A name depends on the key, kind and unit of a series, and on others only where they would get the same one.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from chancy_metrics.events.facts import DEFAULT_UNITS, Kind, Series

#: Endings that the formats give to samples of a family, so that no family may bear one.
_RESERVED = ("_total", "_bucket", "_count", "_sum", "_created", "_info", "_gcount", "_gsum")
#: Names of Prometheus itself, and the beginning of this plugin's own.
_TAKEN = re.compile(r"\d|chancy_|scrape_|(up|ALERTS|ALERTS_FOR_STATE)$")
#: What is added to a name that is reserved, or that another kind has, too. Linters dislike the names of the kinds.
_OF_KIND: dict[Kind, str] = {"counter": "counted", "gauge": "value", "histogram": "values"}
_OTHER = re.compile(r"[^a-zA-Z0-9]+")

#: Label -> value, in order of the labels.
Labels = tuple[tuple[str, str], ...]


class CustomName(NamedTuple):
    """How a custom metric is named.

    Attributes:
        family: Name of the family, without the `_total` of a counter's sample; ends with *unit*.
        unit: Ending of the name that is its unit; "" where it has none.
        labels: `key`, and `unit`, where the family alone would not tell two series apart.
    """

    family: str
    unit: str
    labels: Labels


class _Parts(NamedTuple):
    stem: str
    unit: str
    kind: Kind

    def name(self, *, with_kind: bool = False) -> str:
        middle = f"_{_OF_KIND[self.kind]}" if with_kind else ""
        return f"{self.stem}{middle}" + (f"_{self.unit}" if self.unit else "")


def custom_names(kinds: Iterable[tuple[Series, Kind]]) -> dict[Series, CustomName]:
    """Return the name of each series.

    Args:
        kinds: The series, each with the kind as which it is shown: a counter that can fall is a gauge.
    """
    groups: defaultdict[_Parts, list[Series]] = defaultdict(list)
    for series, kind in kinds:
        groups[_parts(series, kind)].append(series)
    sharing = Counter(parts.name() for parts in groups)
    names: dict[Series, CustomName] = {}
    given: set[str] = set()
    for parts in sorted(groups):
        members = groups[parts]
        family = parts.name(with_kind=sharing[parts.name()] > 1)
        while family in given:  # another key has that very word
            family = f"custom_{family}"
        given.add(family)
        labels = ("key",) if len({one.key for one in members}) == len(members) else ("key", "unit")
        for one in members:
            told_apart = tuple((name, str(getattr(one, name))) for name in labels) if len(members) > 1 else ()
            names[one] = CustomName(family, parts.unit, told_apart)
    return names


def _parts(series: Series, kind: Kind) -> _Parts:
    stem = _OTHER.sub("_", series.key).strip("_") or "custom"
    unit = "" if series.unit == DEFAULT_UNITS[series.kind] else _OTHER.sub("_", series.unit).strip("_").lower()
    if f"_{unit}".endswith(_RESERVED):
        unit = ""
    while kind == "counter" and stem.endswith("_total"):
        stem = stem.removesuffix("_total")
    if unit:
        stem = stem.removesuffix(f"_{unit}")
    elif stem.endswith(_RESERVED):
        stem += f"_{_OF_KIND[kind]}"
    return _Parts(f"custom_{stem}" if _TAKEN.match(stem) else stem, unit, kind)
