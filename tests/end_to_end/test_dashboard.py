"""The stock dashboard in a real browser: every page shows what this plugin recorded.

Needs Chromium and its driver. Where they are missing the module is passed over, with a warning; in CI it fails.
"""

from __future__ import annotations

import os
import shutil
import time
import warnings
from array import array
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from chancy.plugins.workflow import WorkflowPlugin
from psycopg import sql
from selenium.common.exceptions import TimeoutException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from chancy_metrics.events.batch import ObservationRun
from chancy_metrics.events.facts import Combo, Series
from chancy_metrics.events.schema import RESOLUTIONS, tables_for
from examples.embedded import Server
from tests.dashboard_app import PASSWORD, QUEUE, USER, bounce, campaign, chancy, defer, metrics, send
from tests.factories import LogWriter, a_row, connections, eventually
from tests.processes import module, web

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
if not CHROMIUM or not DRIVER:
    missing = "no Chromium with its driver was found (Debian: chromium, chromium-driver): the dashboard is not tested"
    if os.environ.get("CI"):
        raise RuntimeError(missing)
    warnings.warn(missing, stacklevel=1)
    pytest.skip(missing, allow_module_level=True)

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1500,1600"
)
FONT = "https://fonts.googleapis.com/"
WORKER = "worker-1"
MINUTE_US = 60_000_000
#: What a card or a page shows where a metric is missing.
MISSING = ("—", "Could not refresh", "Could not load", "No observations", "Insufficient observations", "Loading")

#: Ranges of a metric's page, and the resolutions each can be had in.
OFFERED = {
    3_600: ("1min", "5min", "1hour"),
    86_400: ("5min", "1hour", "1day"),
    604_800: ("1hour", "1day"),
    2_592_000: ("1day",),
}

#: Job updates that `push` causes, by their end; the history of the last day on top has two that succeeded
#: and one that failed at each moment.
SENT, BOUNCED = 30 + 3 + 2, 6 + 4 + 1
AGO_MINUTES = (*range(1, 30), *range(30, 1_000, 5), *range(1_000, 40_000, 720))
LAST_DAY = sum(minutes < 24 * 60 for minutes in AGO_MINUTES)

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
        self.wait(lambda: self.shows(*texts))

    def shows(self, *texts: str) -> bool:
        """Whether the page has *texts* on it, and no metric is missing."""
        shown = self.text
        return all(text.lower() in shown.lower() for text in texts) and not lacking(shown)

    def wait(self, condition: Callable[[], object]) -> None:
        try:
            WebDriverWait(self.browser, 20, 0.05).until(lambda _: condition())
        except TimeoutException:
            self.keep("failure")
            pytest.fail(f"{self.browser.current_url} lacks {lacking(self.text)}:\n{self.text}")

    @property
    def text(self) -> str:
        return str(self.browser.execute_script("return document.body.innerText"))

    def cards(self) -> dict[str, str]:
        """Title and value of each metric card."""
        return dict(
            self.browser.execute_script(
                "return [...document.querySelectorAll('.card')].filter(c => c.querySelector('h2'))"
                ".map(c => [c.querySelector('h6').textContent, c.querySelector('h2').textContent])"
            )
        )

    def lines(self) -> int:
        """How many lines the charts draw that lead from one point to another."""
        paths = self.browser.execute_script(
            "return [...document.querySelectorAll('.recharts-area-curve, .recharts-line-curve')]"
            ".map(path => path.getAttribute('d') || '')"
        )
        return sum("L" in path or "C" in path for path in paths)

    def console(self) -> list[Any]:
        """What the console has complained about since it was last asked, but for the font from another host."""
        entries = self.browser.get_log("browser")
        return [e for e in entries if e["level"] != "INFO" and not e["message"].startswith(FONT)]

    def keep(self, name: str) -> None:
        """Save a picture where `SCREENSHOTS` says, if it does."""
        if folder := os.environ.get("SCREENSHOTS"):
            self.browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def lacking(text: str) -> list[str]:
    """What a page does not show, in its own words."""
    return [sign for sign in MISSING if sign in text]


@contextmanager
def chromium(profile: Path) -> Iterator[Chrome]:
    """Run a headless browser with a profile of its own, which logs what pages write to the console."""
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options, ChromeService(DRIVER))
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture(scope="module")
async def dashboard(server: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Page]:
    """A worker that has worked, the web process, and a browser that is logged in."""
    name = "dashboard"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*map(sql.Identifier, (name, template))))
    dsn = server.dsn(name)
    await push(dsn)
    with module(dsn, "tests.dashboard_worker", WORKER), web(dsn) as url:
        await recorded(dsn)
        with chromium(tmp_path_factory.mktemp("profile")) as browser:
            page = Page(browser, url)
            page.log_in()
            yield page


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
    ago = [now_us - minutes * MINUTE_US for minutes in AGO_MINUTES]
    combos = [
        Combo("tests.dashboard_app.send", "default", state, 1, "") for state in ("succeeded", "succeeded", "failed")
    ]
    series = [Series("app:mails", "counter", "count"), Series("app:outbox", "gauge", "mails")]
    async with connections(dsn, 1) as (connection,):
        await LogWriter(connection, tables_for("chancy_"), WORKER).append(
            jobs=[a_row(at_us, combo=combo) for at_us in ago for combo in combos],
            runs=[
                ObservationRun(one, ago, array("d", range(len(ago))))
                for one in [*series, Series("app:size", "histogram", "bytes")]
            ],
        )


async def recorded(dsn: str) -> None:
    """Wait until every job has ended and all of it can be read."""
    async with chancy(dsn) as app:

        async def ended() -> bool:
            cursor = await connection.execute(
                "SELECT NOT EXISTS (SELECT FROM chancy_jobs WHERE state IN ('pending', 'running', 'retrying'))"
                " AND NOT EXISTS (SELECT FROM chancy_workflows WHERE state IN ('pending', 'running'))"
                " AND EXISTS (SELECT FROM chancy_workers WHERE 'default' = ANY(queues))"
            )
            return bool((await cursor.fetchone() or (False,))[0])

        async def readable() -> bool:
            return set(await metrics.list_metrics(app)) >= RECORDED

        async with connections(dsn, 1) as (connection,):
            await eventually(ended, within_s=60)
        await eventually(readable, within_s=60)


@pytest.mark.parametrize(
    ("path", "texts", "lines"),
    [
        pytest.param(path, texts, lines, id=path.split("/")[1] if path.count("/") == 1 else path.split("/")[1][:-1])
        for path, texts, lines in [
            ("/dashboard", ("Tasks Succeeded", "Metrics Table Size", "Avg final attempt time"), 5),
            ("/queues", ("Update events (24h)", "default"), 1),
            ("/queues/default", ("Tasks Succeeded", "Success Rate"), 3),
            (f"/workers/{WORKER}", ("this worker only", "Tasks Failed"), 3),
            ("/jobs", ("Job update events",), 2),
            ("/workflows", ("Workflows Completed", "Steps Queued"), 0),
            ("/system", ("metrics_1min Table Size", "queue_rate_limits Index Size"), 0),
            ("/metrics", ("Global Metrics", "Workflows Metrics", "App Metrics", "Table Metrics"), 0),
        ]
    ],
)
async def test_a_page_shows_values_and_lines(
    dashboard: Page, request: pytest.FixtureRequest, path: str, texts: tuple[str, ...], lines: int
) -> None:
    dashboard.open(path, *texts)
    dashboard.wait(lambda: dashboard.lines() >= lines)
    dashboard.keep(request.node.callspec.id)

    assert dashboard.console() == []


async def test_one_workflow_shows_its_kinds_metrics(dashboard: Page) -> None:
    dashboard.open("/workflows", "campaign")
    link = dashboard.browser.find_element(By.CSS_SELECTOR, "a[href*='/workflows/']").get_attribute("href")
    assert link is not None

    dashboard.open(link.removeprefix(dashboard.url), "Statistics for all campaign workflows", "Avg workflow duration")
    dashboard.keep("workflow")

    cards = dashboard.cards()
    assert [cards[title] for title in ("Started", "Completed", "Failed")] == ["3", "2", "1"]
    assert dashboard.console() == []


@pytest.mark.parametrize("path", ["/queues/default", f"/workers/{WORKER}"])
async def test_the_cards_show_what_happened(dashboard: Page, path: str) -> None:
    dashboard.open(path, "Tasks Succeeded")

    cards = dashboard.cards()
    succeeded, failed = SENT + 2 * LAST_DAY, BOUNCED + LAST_DAY
    assert cards["Tasks Succeeded"] == str(succeeded)
    assert cards["Tasks Failed"] == str(failed)
    assert cards["Success Rate"] == f"{100 * succeeded / (succeeded + failed):.1f}%"


@pytest.mark.parametrize("key", ["app", "table:metrics"])
async def test_a_metric_is_drawn_for_each_range_and_resolution(dashboard: Page, key: str) -> None:
    dashboard.open(f"/metrics/{quote(key, safe='')}", key, "Resolution")

    drawn = set()
    for range_s in OFFERED:
        dashboard.wait(lambda: charts(dashboard))
        Select(dashboard.browser.find_element(By.TAG_NAME, "select")).select_by_value(str(range_s))
        for resolution in RESOLUTIONS:
            dashboard.wait(lambda: charts(dashboard))
            button = dashboard.browser.find_element(By.XPATH, f"//button[text()='{resolution}']")
            if button.is_enabled():
                button.click()
                dashboard.wait(lambda: charts(dashboard))
                drawn.add((range_s, resolution))
        dashboard.keep(f"metric-{key.replace(':', '-')}-{range_s}")

    assert drawn == {(range_s, resolution) for range_s, resolutions in OFFERED.items() for resolution in resolutions}
    assert dashboard.console() == []


def charts(page: Page) -> bool:
    """Whether each series on a metric's page is drawn, and nothing else is told."""
    headers, drawn, alerts = (
        len(page.browser.find_elements(By.CSS_SELECTOR, selector))
        for selector in (
            ".card-header h5",
            ".card-body svg.recharts-surface .recharts-line:first-of-type",
            "[role=alert]",
        )
    )
    return 0 < headers <= drawn and not alerts and not lacking(page.text)
