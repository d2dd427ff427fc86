"""Rate-limited warnings: each kind once a minute, with a count of those left out."""

from __future__ import annotations

import math
import time
from logging import Logger

#: Seconds in which a warning of one kind is written once.
INTERVAL_S = 60


class RateLimited:
    """Writes each kind of warning at most once a minute, or *every_s*, and says how many it left out."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._last: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def warn(self, kind: str, message: str, *, every_s: float = INTERVAL_S) -> None:
        now = time.monotonic()
        if now - self._last.get(kind, -math.inf) < every_s:
            self._held[kind] = self._held.get(kind, 0) + 1
            return
        self._last[kind] = now
        held = self._held.pop(kind, 0)
        self._log.warning("%s%s", message, f" ({held} more like this since)" if held else "")
