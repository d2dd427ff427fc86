"""A real Prometheus, over samples that a test has written."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from chancy_metrics.plugin.telemetry.families import Family
from chancy_metrics.plugin.telemetry.text_form import openmetrics_text
from tests.processes import free_port

_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")


def scraped(families: Sequence[Family], at_s: float, **target: str) -> str:
    """Return the exposition of *families* as samples of a moment, with the labels of a target; without its end."""
    labels = ",".join(f'{name}="{value}"' for name, value in target.items())
    lines = openmetrics_text(families).decode().splitlines()
    found = [_SAMPLE.match(line) for line in lines if not line.startswith("#")]
    assert all(found)
    return "".join(f"{one[1]}{{{labels}{',' + one[2] if one[2] else ''}}} {one[3]} {at_s}\n" for one in found if one)


@contextmanager
def prometheus(folder: Path, samples: str) -> Iterator[httpx.Client]:
    """Run a Prometheus that holds *samples*, in OpenMetrics with times, for the length of a block."""
    (folder / "samples").write_text(f"{samples}# EOF\n")
    made = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(folder / "samples"), str(folder / "data")]
    subprocess.run(made, check=True, capture_output=True, text=True)
    with running(folder, "", "--storage.tsdb.retention.time=10y") as client:
        yield client


@contextmanager
def running(folder: Path, settings: str, *options: str) -> Iterator[httpx.Client]:
    """Run a Prometheus for the length of a block, with its data in *folder*."""
    (folder / "prometheus.yml").write_text(settings)
    port = free_port()
    own = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "data",
        "web.listen-address": f"127.0.0.1:{port}",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["prometheus", *(f"--{name}={value}" for name, value in own.items()), *options], stdout=log, stderr=log
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            until = time.monotonic() + 20
            while not _is_ready(client):
                assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.05)
            yield client
    finally:
        process.terminate()
        process.wait(15)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").is_success
    except httpx.TransportError:
        return False


def query(client: httpx.Client, expression: str, at_s: float) -> dict[tuple[tuple[str, str], ...], float]:
    """Return labels -> value of an expression at a moment."""
    answer = client.get("/api/v1/query", params={"query": expression, "time": at_s}).json()
    assert answer["status"] == "success", f"{answer.get('error')}: {expression}"
    return {tuple(sorted(one["metric"].items())): float(one["value"][1]) for one in answer["data"]["result"]}


def label_values(client: httpx.Client, asked: str) -> list[str]:
    """Return what Grafana's `label_values(selector, label)` lists."""
    found = re.fullmatch(r"label_values\((.+), (\w+)\)", asked)
    assert found
    answer = client.get(f"/api/v1/label/{found[2]}/values", params={"match[]": found[1]}).json()
    return list(answer["data"])
