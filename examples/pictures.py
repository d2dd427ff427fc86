"""The pictures of docs/pictures, light and dark: our page and our commands, on four days of history and two workers.

`python -m examples.pictures [--folder docs/pictures] [--stay] [--port PORT]`; needs Chromium, its driver and selenium.
"""

from __future__ import annotations

import argparse
import asyncio
import html
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import anyio
from chancy import Chancy
from psycopg import AsyncConnection
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from chancy_metrics.events.batch import BatchId, ObservationRun
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.facts import Combo, JobRow, Series
from chancy_metrics.events.log import append
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin import mark
from examples.demo import jobs
from examples.demo.app import chancy
from examples.demo.processes import Processes
from examples.embedded import Server

HOST, USER, PASSWORD = "127.0.0.1", "demo", "demo"
DAY_US, MINUTE_US, SECOND_US = 86_400_000_000, 60_000_000, 1_000_000
#: Nothing ran for forty minutes, six hours ago; and for half an hour, three hours ago, the bank did not answer.
OUTAGE_MINUTES, INCIDENT_MINUTES = range(340, 380), range(160, 190)
#: Minutes ago -> what happened.
MARKS = {700: "worker image 31", 194: "payments 2.4.1", 158: "rolled back"}
#: So much slower than in the demo jobs are pushed, as in the history.
PACE = 50
_MODULE = "examples.demo.jobs."


async def main(folder: Path, *, stay: bool, port: int) -> None:
    """Make the pictures; with *stay* only serve the page, until Ctrl-C."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with socket.socket() as probe:
        probe.bind((HOST, port))
        port = probe.getsockname()[1]
    with Server(prefix="pictures-") as server, Processes(server.folder) as processes:
        os.environ.update(DEMO_DSN=server.dsn(), DEMO_USER=USER, DEMO_PASSWORD=PASSWORD)
        async with chancy() as app, await AsyncConnection.connect(app.dsn, autocommit=True) as connection:
            await app.migrate()
            for kind in jobs.KINDS:
                await app.declare(kind.queue)
            await _write_history(connection, app)
            for minutes, text in MARKS.items():
                await mark(app, text, at=datetime.now(UTC) - timedelta(minutes=minutes), by="ann")
            processes.start("worker-1", "examples.demo.worker", "worker-1")
            processes.start("worker-2", "examples.demo.worker", "worker-2")
            serve = ("chancy.cli.cli", "--app", "examples.demo.app.dashboard", "worker", "web")
            processes.start("web", *serve, "--host", HOST, "--port", str(port))
            await _push(app, seconds=8)
            url = f"http://{HOST}:{port}"
            if stay:
                print(f"{url}/metrics-log   user {USER}   password {PASSWORD}", flush=True)
                await _push(app, seconds=math.inf)
            pushing = asyncio.create_task(_push(app, seconds=math.inf))
            await anyio.to_thread.run_sync(_run, "chancy-metrics verify")
            await anyio.to_thread.run_sync(_take, url, folder, server.folder)
            pushing.cancel()


async def _write_history(connection: Connection, app: Chancy) -> None:
    """Append four days of job updates and observations, made up but always the same."""
    tables, chance, producer = tables_for(app.prefix), random.Random(7), uuid.uuid4()
    now_us = time.time_ns() // 1_000
    for sequence, minutes in enumerate(range(4 * 1_440, 1, -30), 1):
        rows: list[JobRow] = []
        stock: list[tuple[int, float]] = []
        baskets: list[tuple[int, float]] = []
        for minute in range(minutes, max(minutes - 30, 1), -1):
            if minute in OUTAGE_MINUTES:
                continue
            start_us = now_us - minute * MINUTE_US
            busy = 1.2 + math.sin(2 * math.pi * (start_us % DAY_US) / DAY_US - 2)
            for func, queue, per_minute, took_s in _KINDS:
                rows += _updates(chance, start_us, func, queue, round(per_minute * busy), took_s, minute)
            stock.append((start_us, 250 + 200 * math.sin(minute / 90) + chance.uniform(-20, 20)))
            baskets += [(start_us + n, chance.lognormvariate(3, 1)) for n in range(round(6 * busy))]
        runs = [
            ObservationRun(series, [at for at, _ in values], array("d", [value for _, value in values]))
            for series, values in (
                (Series("shop:stock", "gauge", "items"), stock),
                (Series("shop:basket", "histogram", "euro"), baskets),
            )
            if values
        ]
        batch_id = BatchId(datetime.now(UTC).date(), producer, sequence)
        async with short_transaction(connection) as cursor:
            await append(cursor, tables, batch_id, encode(rows, runs), worker=f"worker-{1 + sequence % 2}")


#: Function, queue, updates a minute, and how long one usually takes in seconds.
_KINDS = (
    ("send_mail", "default", 40, 0.03),
    ("charge_card", "payments", 20, 0.12),
    ("build_report", "reports", 2, 1.2),
)


def _updates(
    chance: random.Random, start_us: int, func: str, queue: str, count: int, took_s: float, minute: int
) -> Iterator[JobRow]:
    troubled = func == "charge_card" and minute in INCIDENT_MINUTES
    for _ in range(count):
        at_us = start_us + chance.randrange(MINUTE_US)
        run_us = int(took_s * chance.lognormvariate(2.5 if troubled else 0, 0.6) * SECOND_US)
        wait_us = int(chance.expovariate(0.5 if troubled else 8) * SECOND_US)
        failed = chance.random() < (0.5 if troubled else 0.02)
        error = "ConnectionError" if failed else ""
        due_us = at_us - run_us - wait_us
        yield JobRow(
            job_id=uuid.UUID(int=chance.getrandbits(128)).bytes,
            combo=Combo(_MODULE + func, queue, "failed" if failed else "succeeded", 1, error),
            at_us=at_us,
            created_us=due_us,
            scheduled_us=due_us,
            started_us=at_us - run_us,
            completed_us=at_us,
            meta=b"",
        )


async def _push(app: Chancy, *, seconds: float) -> None:
    began, pushed_s = time.monotonic(), 0.0
    while (elapsed_s := time.monotonic() - began) < seconds:
        async for _ in app.push_many(jobs.due(pushed_s / PACE, elapsed_s / PACE)):
            pushed_s = elapsed_s
        await asyncio.sleep(0.25)


def _take(url: str, folder: Path, scratch: Path) -> None:
    """Save each picture in both themes, when what it is of is there."""
    folder.mkdir(parents=True, exist_ok=True)
    with _browser() as browser:
        browser.get(f"{url}/metrics-log")
        _until(browser, "!document.getElementById('sign-in').hidden")
        for name, text in (("username", USER), ("password", PASSWORD)):
            browser.find_element(By.ID, name).send_keys(text)
        browser.find_element(By.CSS_SELECTOR, "#sign-in button").click()
        _until(browser, _LISTED)
        for theme in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": theme}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            for name, (query, condition) in PAGES.items():
                browser.get(f"{url}/metrics-log?{query(datetime.now(UTC))}")
                _until(browser, condition)
                _save(folder / f"{name}-{theme}.png", browser.get_screenshot_as_png())
        for name, command in COMMANDS.items():
            (scratch / "terminal.html").write_text(_terminal(command.format(at=_incident(datetime.now(UTC)))))
            browser.get(f"file://{scratch}/terminal.html")
            for theme in ("light", "dark"):
                feature = {"name": "prefers-color-scheme", "value": theme}
                browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
                _save(folder / f"{name}-{theme}.png", browser.find_element(By.TAG_NAME, "pre").screenshot_as_png)


def _save(file: Path, picture: bytes) -> None:
    file.write_bytes(picture)
    print(file, flush=True)


def _until(browser: Chrome, condition: str) -> None:
    WebDriverWait(browser, 60, 0.2).until(lambda _: browser.execute_script(f"return {condition}"))


def _terminal(command: str) -> str:
    """Run a command line, and return it and what it prints as a page that looks like a terminal."""
    return _TERMINAL.format(command=html.escape(command), printed=html.escape(_run(command)))


def _run(command: str) -> str:
    environment = os.environ | {
        "CHANCY_METRICS_APP": "examples.demo.app.chancy",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, timeout=60)
    if done.returncode not in (0, 3):
        raise RuntimeError(f"{command!r} ended with exit code {done.returncode}: {done.stderr}")
    return done.stdout.rstrip()


_TERMINAL = """<!doctype html>
<meta charset="utf-8">
<style>
  :root {{ color-scheme: light dark; }}
  body {{ margin: 0; background: light-dark(#fff, #0d1117); }}
  pre {{
    display: inline-block; margin: 0; padding: 16px 20px; border-radius: 6px;
    font: 14px/1.45 "DejaVu Sans Mono", monospace;
    color: light-dark(#1f2328, #d9dee3); background: light-dark(#f3f4f6, #1b1f24);
  }}
  b {{ color: light-dark(#0b5cad, #6cb6ff); }}
</style>
<pre><b>$</b> <b>{command}</b>
{printed}</pre>
"""

_DRAWN = "document.querySelectorAll('.chart .canvas .main-svg:first-of-type').length"
_LISTED = "document.querySelectorAll('.overview tbody tr').length > 12"
_EXPLAINED = "document.getElementById('panel').textContent.includes('recomputed: equal')"
_MARKED = "document.querySelectorAll('.mark').length > 2"
_KEYS = ("global:status:succeeded", "queue:payments:failed", "queue:payments:wait_time", "shop:stock")


def _incident(now: datetime) -> str:
    """Return a moment soon after the bank had stopped answering."""
    return f"{now - timedelta(minutes=INCIDENT_MINUTES[-4]):%Y-%m-%dT%H:%MZ}"


def _overview(now: datetime) -> str:
    return urlencode({"range": "24h"})


def _charts(now: datetime) -> str:
    return urlencode([("key", key) for key in _KEYS] + [("range", "24h")])


def _explained(now: datetime) -> str:
    chosen = [("key", key) for key in (_KEYS[1], _KEYS[2])]
    return urlencode([*chosen, ("range", "6h"), ("of", _KEYS[1]), ("at", _incident(now)), ("width", "5min")])


#: Name -> the address's query, and what must hold before the picture is taken.
PAGES: dict[str, tuple[Callable[[datetime], str], str]] = {
    "overview": (_overview, _LISTED),
    "charts": (_charts, f"{_DRAWN} === 4 && {_MARKED}"),
    "explain": (_explained, f"{_DRAWN} === 2 && {_EXPLAINED}"),
}
#: Name -> the command line whose output is shown.
COMMANDS = {
    "terminal-report": "chancy-metrics report --since 4h",
    "terminal-explain": "chancy-metrics audit explain queue:payments:failed --at {at} --resolution 1hour | head -14",
}


@contextmanager
def _browser(*flags: str) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium") or shutil.which("google-chrome"))
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        *flags,
    ):
        options.add_argument(flag)
    browser = Chrome(options, ChromeService(str(shutil.which("chromedriver"))))
    size = {"width": 1320, "height": 760, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        yield browser
    finally:
        browser.quit()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--port", type=int, default=0, help="the page's port; any by default")
    parser.add_argument("--stay", action="store_true", help="serve the page until Ctrl-C instead")
    given = parser.parse_args()
    try:
        asyncio.run(main(given.folder, stay=given.stay, port=given.port))
    except asyncio.CancelledError:
        sys.exit(130)
