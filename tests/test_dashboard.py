"""The stock dashboard in a real browser: every page shows what this plugin recorded.

Needs Chromium and its driver. Where they are missing the module is passed over, with a warning; in CI it fails.
"""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from chancy.plugins.workflow import WorkflowPlugin
from psycopg import sql
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from chancy_metrics.events.facts import Combo
from chancy_metrics.events.schema import tables
from examples.embedded import Server
from tests.dashboard_app import PASSWORD, QUEUE, USER, bounce, campaign, chancy, defer, metrics, send
from tests.factories import LogWriter, a_row, connections, eventually
from tests.processes import chancy_command, web

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
if not CHROMIUM or not DRIVER:
    missing = "no Chromium with its driver was found (Debian: chromium, chromium-driver): the dashboard is not tested"
    assert not os.environ.get("CI"), missing
    warnings.warn(missing, stacklevel=1)
    pytest.skip(missing, allow_module_level=True)

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1500,1600"
)
WORKER = "worker-1"
MINUTE_US, DAY_US = 60_000_000, 86_400_000_000
#: What a card or a page shows where a metric is missing.
MISSING = ("—", "Could not refresh", "Could not load", "No observations", "Insufficient observations", "Loading")

#: Everything the workers must have recorded before a page is opened.
RECORDED = {
    "global:status:succeeded",
    "global:status:failed",
    "global:status:retrying",
    "queue:default:execution_time",
    "app:mails",
    "app:outbox",
    "app:size",
    "table:metrics:total_size_bytes",
    "table:workflow_steps:index_size_bytes",
    "workflows:state:completed",
    "workflows:state:failed",
    "workflows:steps:queued",
    "workflow:campaign:execution_time",
}


class Page:
    """One browser, logged in."""

    def __init__(self, browser: Chrome, url: str) -> None:
        self.browser = browser
        self.url = url

    def log_in(self) -> None:
        self.browser.get(self.url)
        self.wait(lambda: self.browser.find_elements(By.ID, "username"))
        self.browser.find_element(By.ID, "username").send_keys(USER)
        self.browser.find_element(By.ID, "password").send_keys(PASSWORD)
        self.browser.find_element(By.CSS_SELECTOR, "button[type=submit]").click()
        self.wait(lambda: "Metrics" in self.text)
        self.console()

    def open(self, path: str, *texts: str) -> None:
        """Open a page and wait until it shows *texts* and lacks nothing."""
        self.browser.get(self.url + path)
        self.wait(lambda: all(text.lower() in self.text.lower() for text in texts) and not self.lacking())

    def wait(self, condition: Callable[[], object]) -> None:
        WebDriverWait(self.browser, 20, 0.05).until(
            lambda _: condition(), f"{self.browser.current_url} lacks {self.lacking()}:\n{self.text}"
        )

    @property
    def text(self) -> str:
        return str(self.browser.execute_script("return document.body.innerText"))

    def lacking(self) -> list[str]:
        """What the page does not show, in its own words."""
        return [sign for sign in MISSING if sign in self.text.replace("– ", "")]

    def cards(self) -> dict[str, str]:
        """Title and value of each metric card."""
        return dict(
            self.browser.execute_script(
                "return [...document.querySelectorAll('.card')].filter(c => c.querySelector('h2'))"
                ".map(c => [c.querySelector('h6').textContent, c.querySelector('h2').textContent])"
            )
        )

    def lines(self, of: str = ".recharts-area-curve, .recharts-line-curve") -> int:
        """How many lines charts draw that lead from one point to another."""
        return sum(
            "L" in (path or "") or "C" in (path or "")
            for path in self.browser.execute_script(
                "return [...document.querySelectorAll(arguments[0])].map(path => path.getAttribute('d'))", of
            )
        )

    def console(self) -> list[Any]:
        """What the console has said since it was last asked."""
        return [entry for entry in self.browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def keep(self, name: str) -> None:
        """Save a picture where `SCREENSHOTS` says, if it does."""
        if folder := os.environ.get("SCREENSHOTS"):
            self.browser.save_screenshot(str(Path(folder) / f"{name}.png"))


@pytest.fixture(scope="module")
async def dashboard(server: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Page]:
    """A worker that has worked, the web process, and a browser that is logged in."""
    name = "dashboard"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*map(sql.Identifier, (name, template))))
    dsn = server.dsn(name)
    await push(dsn)
    with chancy_command(dsn, "worker", "start", "--worker-id", WORKER), web(dsn) as url:
        await recorded(dsn)
        options = ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        browser = Chrome(options, ChromeService(DRIVER))
        try:
            page = Page(browser, url)
            page.log_in()
            yield page
        finally:
            browser.quit()


async def push(dsn: str) -> None:
    """Push what succeeds, fails and is retried, and workflows that do; and put a month of history into the log."""
    async with chancy(dsn) as app:
        await app.migrate()
        await app.declare(QUEUE)
        for job, times in ((send, 30), (bounce, 6), (defer, 4)):
            for _ in range(times):
                await app.push(job)
        for fails in (False, False, True):
            await WorkflowPlugin.push(app, campaign(fails=fails))
    now_us = time.time_ns() // 1_000
    ago = [5 * MINUTE_US * n for n in range(1, 200)] + [DAY_US * n for n in range(1, 30)]
    states = ("succeeded", "succeeded", "failed")
    async with connections(dsn, 1) as (connection,):
        await LogWriter(connection, tables("chancy_"), WORKER).append(
            jobs=[
                a_row(now_us - us, combo=Combo("tests.dashboard_app.send", "default", state, 1, ""))
                for us in ago
                for state in states
            ]
        )


async def recorded(dsn: str) -> None:
    """Wait until every job has ended and all of it can be read."""
    async with chancy(dsn) as app:

        async def ended() -> bool:
            cursor = await connection.execute(
                "SELECT NOT EXISTS (SELECT FROM chancy_jobs WHERE state IN ('pending', 'running', 'retrying'))"
                " AND NOT EXISTS (SELECT FROM chancy_workflows WHERE state IN ('pending', 'running'))"
            )
            return bool((await cursor.fetchone() or (False,))[0])

        async def readable() -> bool:
            return set(await metrics.list_metrics(app)) >= RECORDED

        async with connections(dsn, 1) as (connection,):
            await eventually(ended, within_s=60)
        await eventually(readable, within_s=60)


PAGES: dict[str, tuple[str, tuple[str, ...], int]] = {
    "dashboard": ("/dashboard", ("Tasks Succeeded", "Metrics Table Size", "Avg final attempt time"), 5),
    "queues": ("/queues", ("Update events (24h)", "default"), 1),
    "queue": ("/queues/default", ("Tasks Succeeded", "Success Rate"), 3),
    "worker": (f"/workers/{WORKER}", ("this worker only", "Tasks Failed"), 3),
    "jobs": ("/jobs", ("Job update events",), 2),
    "workflows": ("/workflows", ("Workflows Completed", "Steps Queued"), 0),
    "system": ("/system", ("metrics_1min Table Size", "queue_rate_limits Index Size"), 0),
}


@pytest.mark.parametrize("name", list(PAGES))
async def test_a_page_shows_values_and_lines(dashboard: Page, name: str) -> None:
    path, texts, lines = PAGES[name]

    dashboard.open(path, *texts)
    dashboard.wait(lambda: dashboard.lines() >= lines)
    dashboard.keep(name)

    assert dashboard.lacking() == []
    assert dashboard.console() == []


async def test_the_cards_show_what_happened(dashboard: Page) -> None:
    dashboard.open("/queues/default", "Tasks Succeeded")
    assert dashboard.cards()
