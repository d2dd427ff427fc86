"""Prometheus itself, which scrapes a target several times a second and answers queries about it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from chancy_metrics.plugin.telemetry.exposition import ENDS, cut, write_part
from chancy_metrics.plugin.telemetry.families import Family
from tests.prometheus import running

SCRAPE_S = 0.2
#: Seconds in which it has to have scraped.
_PATIENCE_S = 30

#: The labels of a series, without those of its target, and its value.
Found = dict[tuple[tuple[str, str], ...], float]


def write_form(families: Iterable[Family], content_type: str) -> bytes:
    """A whole answer, which is sent in parts."""
    return b"".join(write_part(part, content_type) for part in cut(families)) + ENDS.get(content_type, b"")


class Prometheus:
    """A running server that scrapes.

    Args:
        client: Of its API.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def query(self, expression: str, at_s: float | None = None) -> Found:
        """Return the value of an expression now, or at a time; of a histogram the number of its observations."""
        return {labels: value for labels, value, _ in self._ask(expression, at_s)}

    def value(self, expression: str, at_s: float | None = None) -> float:
        """Return the only value of an expression."""
        (value,) = self.query(expression, at_s).values()
        return value

    def samples(self, series: str) -> list[tuple[float, float]]:
        """Return (time, value) of what was scraped of one series within 5 minutes."""
        answer = self._client.get("/api/v1/query", params={"query": f"{series}[5m]"}).json()
        (found,) = answer["data"]["result"]
        return [(float(at_s), float(value)) for at_s, value in found["values"]]

    def until(self, expression: str, holds: float = 1.0) -> float:
        """Wait until the only value of *expression* is *holds*; return the time of that evaluation."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            found = self._ask(expression, None)
            if [value for _, value, _ in found] == [holds]:
                return found[0][2]
            assert time.monotonic() < deadline, f"{expression} is {found}, not {holds}: {self.targets()}"
            time.sleep(SCRAPE_S / 4)

    def targets(self) -> list[Any]:
        """Return its targets, with the error of their last scrape."""
        active = self._client.get("/api/v1/targets").json()["data"]["activeTargets"]
        return [(one["health"], one["lastError"]) for one in active]

    def _ask(self, expression: str, at_s: float | None) -> list[tuple[tuple[tuple[str, str], ...], float, float]]:
        asked = {"query": expression} | ({} if at_s is None else {"time": repr(at_s)})
        answer = self._client.get("/api/v1/query", params=asked).json()
        assert answer["status"] == "success", answer
        found = answer["data"]["result"]
        if answer["data"]["resultType"] == "scalar":
            found = [{"metric": {}, "value": found}]
        return [
            (
                tuple(sorted((k, v) for k, v in one["metric"].items() if k not in ("job", "instance"))),
                float(one["value"][1]) if "value" in one else float(one["histogram"][1]["count"]),
                float(one["value"][0]) if "value" in one else float(one["histogram"][0]),
            )
            for one in found
        ]


@contextmanager
def scraping(
    folder: Path, target: str, *, native: bool, token: str = "", every_s: float = SCRAPE_S
) -> Iterator[Prometheus]:
    """Run a server of the test's own that scrapes *target* for the length of a block.

    Args:
        target: URL.
        native: With native histograms switched on: then it asks for protobuf.
        token: Which it bears.
    """
    url = httpx.URL(target)
    interval = f"{every_s * 1_000:.0f}ms"
    settings = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "scrape_configs": [
            {
                "job_name": "chancy",
                "metrics_path": url.path,
                "static_configs": [{"targets": [f"{url.host}:{url.port}"]}],
                **({"authorization": {"credentials": token}} if token else {}),
            }
        ],
    }
    folder.mkdir()
    options = ["--enable-feature=native-histograms"] if native else []
    with running(folder, json.dumps(settings), *options) as client:  # JSON is YAML
        yield Prometheus(client)


def nearest_rank(values: list[float], q: float) -> float:
    """Return the quantile of *values*: the one at ceil(q * n) of them in order."""
    return sorted(values)[max(math.ceil(q * len(values)) - 1, 0)]
