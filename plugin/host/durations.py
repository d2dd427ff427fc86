"""Read durations that people write, such as 30s, 15m, 24h or 7d."""

from __future__ import annotations

import re

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"(?P<number>\d+(\.\d*)?)(?P<unit>[smhd])", re.ASCII)


def read_duration(text: str) -> float | None:
    """Return the seconds of a duration, without a bound; None if *text* is none."""
    match = _DURATION.fullmatch(text)
    return None if match is None else float(match["number"]) * _SECONDS[match["unit"]]
