"""A browser on the dashboard: logs in, and reads what the pages' charts are drawn from."""

from __future__ import annotations

from datetime import datetime
from http.client import HTTPConnection, HTTPException

import msgspec

#: Where the dashboard listens.
HOST = "127.0.0.1"
#: The dashboard's resolutions, each with the range of the page that shows it; seconds.
RANGES_S = {"1min": 3_600, "5min": 86_400, "1hour": 604_800, "1day": 2_592_000}
#: Prefixes of the metrics it looks at: what Chancy's jobs did, and what the shop recorded itself.
PREFIXES = ("global:status", "shop")

_TIMEOUT_S = 10


class Point(msgspec.Struct, frozen=True):
    """One bucket's value: a number, or a histogram's statistics."""

    timestamp: datetime
    value: float | dict[str, float]


class Series(msgspec.Struct, frozen=True):
    """One metric's points in an answer's window, oldest first."""

    type: str
    data: list[Point]


class Answer(msgspec.Struct, frozen=True):
    """What one resolution's charts show.

    Attributes:
        start: Of the window; what began before it is not in the answer.
    """

    start: datetime
    series: dict[str, Series]


class Browser:
    """One session; an answer that fails is an empty one, as it is to who looks at the page."""

    def __init__(self, port: int, user: str, password: str) -> None:
        self._http = HTTPConnection(HOST, port, timeout=_TIMEOUT_S)
        self._credentials = {"username": user, "password": password}
        self._headers = {"Content-Type": "application/json"}

    def log_in(self) -> None:
        """Get the token that every other request carries.

        Raises:
            RuntimeError: The dashboard does not take us in.
        """
        self._http.request("POST", "/api/v1/login", msgspec.json.encode(self._credentials), self._headers)
        answer = self._http.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"the dashboard refused the login of {self._credentials['username']!r}: {body!r}")
        self._headers["Authorization"] = f"Bearer {msgspec.json.decode(body)['token']}"

    def look(self) -> dict[str, Answer | None]:
        """Ask once for every metric at every resolution; None for a resolution of which an answer failed."""
        return {resolution: self._look(resolution, range_s) for resolution, range_s in RANGES_S.items()}

    def _look(self, resolution: str, range_s: int) -> Answer | None:
        series: dict[str, Series] = {}
        answers = [
            self._get(f"/api/v1/metrics/{prefix}?resolution={resolution}&range={range_s}") for prefix in PREFIXES
        ]
        found = [msgspec.json.decode(body, type=Answer) for body in answers if body is not None]
        if len(found) < len(answers):
            return None
        for one in found:
            series |= one.series
        return Answer(max(one.start for one in found), series)

    def _get(self, path: str) -> bytes | None:
        try:
            self._http.request("GET", path, headers=self._headers)
            answer = self._http.getresponse()
            body = answer.read()
        except (OSError, HTTPException):
            self._http.close()  # the next request opens it again
            return None
        return body if answer.status == 200 else None
