"""Split a series' key into what it is of, a function, a queue or a table, that one's name, and what it measures.

Exporters, views and lists show these as labels and columns; only Chancy's dashboard needs them packed into one key.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from chancy_metrics.events.facts import Kind, Series
from chancy_metrics.projections.rules.built_in import STATES, TIMES
from chancy_metrics.projections.rules.measured import DEPTHS, DRIFT, SLOTS, SLOTS_USED, TABLE_SIZES, WORKERS_ACTIVE

#: Begins the key of a mark, whose text is the rest; marks are recorded like any counter, and not reserved.
MARK = "mark:"
Subject = Literal["job", "queue", "global", "workers", "table", "pipeline", "custom"]
_JOB_OR_QUEUE: tuple[Subject, ...] = ("job", "queue")


class KeyParts(NamedTuple):
    """The parts of a key.

    Attributes:
        subject: What the series is of; `custom` for each series that is not this plugin's own.
        name: Name of the function, queue or table; empty for other subjects.
        measure: What is measured: `updates` for a counter of job updates to one state, otherwise the ending of the key,
            such as `execution_time` or `throughput`; the whole key for `custom`.
        state: The state that is counted, or one of `DEPTHS`; None where the series is not of one state.
    """

    subject: Subject
    name: str
    measure: str
    state: str | None = None


@lru_cache(maxsize=10_000)
def key_parts(series: Series) -> KeyParts:
    """Return the parts of a series' key.

    A name may have colons itself: the ending is what follows the last one that can begin it.
    """
    for subject, pattern in _PATTERNS.get((series.kind, series.unit), ()):
        if found := pattern.fullmatch(series.key):
            named = found.groupdict()
            state = named.get("state")
            return KeyParts(subject, named.get("name", ""), named.get("measure") or "updates", state)
    return KeyParts("custom", "", series.key)


def own_series(key: str) -> Series | None:
    """Return the series of this plugin's own that has *key*, whether it has any point or not; None if none can.

    Where it may be of two names, the shorter one counts: `queue:mail:depth:pending` is a depth of `mail`.
    """
    found = [Series(key, kind, unit) for kind, unit in _PATTERNS]
    own = [series for series in found if key_parts(series).subject != "custom"]
    return min(own, key=lambda series: len(key_parts(series).name), default=None)


def _patterns() -> dict[tuple[Kind, str], list[tuple[Subject, re.Pattern[str]]]]:
    """Return (kind, unit) -> subjects and what matches the keys of this plugin's own series."""
    states, depths, sizes = "|".join(STATES), "|".join(DEPTHS), "|".join(TABLE_SIZES)
    written: list[tuple[Kind, str, Subject, str]] = [
        ("counter", "count", "job", rf"job:(?P<name>.*):(?P<state>{states})"),
        ("counter", "count", "queue", rf"queue:(?P<name>.*):(?:(?P<state>{states})|(?P<measure>throughput))"),
        # Not only the states there are: nobody else's counter belongs among those that are shown as all states.
        ("counter", "count", "global", r"global:status:(?P<state>.*)"),
        *(
            ("histogram", "seconds", subject, rf"{subject}:(?P<name>.*):(?P<measure>{'|'.join(TIMES)})")
            for subject in _JOB_OR_QUEUE
        ),
        ("histogram", "attempts", "job", r"job:(?P<name>.*):(?P<measure>attempts)"),
        ("gauge", "jobs", "queue", rf"queue:(?P<name>.*):(?P<measure>depth):(?P<state>{depths})"),
        ("gauge", "seconds", "queue", r"queue:(?P<name>.*):(?P<measure>oldest_wait_seconds)"),
        *(
            (series.kind, series.unit, "workers", rf"workers:(?P<measure>{series.key.removeprefix('workers:')})")
            for series in (WORKERS_ACTIVE, SLOTS_USED, SLOTS)
        ),
        ("gauge", "bytes", "table", rf"table:(?P<name>.*):(?P<measure>{sizes})"),
        (DRIFT.kind, DRIFT.unit, "pipeline", r"metrics:(?P<measure>drift)"),
    ]
    made: dict[tuple[Kind, str], list[tuple[Subject, re.Pattern[str]]]] = {}
    for kind, unit, subject, pattern in written:
        made.setdefault((kind, unit), []).append((subject, re.compile(pattern, re.DOTALL)))
    return made


_PATTERNS = _patterns()
