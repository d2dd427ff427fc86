"""The page in a real browser: what it shows, that the keyboard suffices, and that no shown text is ever run.

Needs Chromium and its driver, as the dashboard's tests do.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import time
import uuid
from array import array
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import psycopg
import pytest
from psycopg import sql
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

from chancy_metrics.events.batch import ObservationRun
from chancy_metrics.events.facts import Combo, Series
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.audit.marks import mark
from examples.embedded import Server
from tests.dashboard_app import chancy, metrics
from tests.end_to_end.test_dashboard import Page, chromium
from tests.factories import LogWriter, a_job, a_row, a_run, claimed, connections, eventually, sequence_all
from tests.processes import web

MINUTE_US = 60_000_000
JOB = uuid.UUID("019e2b7c-0000-7000-8000-0000000000aa")
EVIL = "<img src=x onerror=\"window.pwned='yes'\">'%s \u202e"
LONG = "k" * 1_024
SUCCEEDED, FAILED, RUN = "global:status:succeeded", "global:status:failed", "queue:mail:execution_time"
STORED = "recomputed: equal"


class MetricsLog(Page):
    """Our page in one browser."""

    def show(self, *keys: str, **view: str) -> None:
        """Open the page at an address, and wait until every chart is drawn and nothing above it moves it any more."""
        view = view if keys else {"view": "charts", **view}
        query = urlencode([("key", key) for key in keys] + list(view.items()))
        self.browser.get(f"{self.url}/metrics-log?{query}")
        self.drawn(len(keys))
        self.wait(lambda: self.one("#status").text and not self.one("#charts").get_attribute("aria-busy"))

    def drawn(self, charts: int) -> None:
        self.wait(lambda: self.one("#charts-view").is_displayed())
        self.wait(lambda: len(self.all(".chart .canvas .main-svg:first-of-type")) == charts)

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait until it holds; an element that is replaced while it is looked at is looked at again."""

        def holds() -> object:
            try:
                return condition()
            except StaleElementReferenceException:
                return False

        super().wait(holds)

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def plot(self, key: str) -> WebElement:
        return self.one(f'.plot[aria-labelledby="{self.chart(key)}"]')

    def chart(self, key: str) -> str:
        """The id of the chart's heading."""
        [found] = [h.get_attribute("id") for h in self.all(".chart h2") if h.text == key]
        return str(found)

    def traces(self, key: str) -> list[dict[str, Any]]:
        """What plotly was given to draw."""
        return list(self.browser.execute_script("return arguments[0].querySelector('.canvas').data", self.plot(key)))

    def values(self, key: str) -> dict[str, str]:
        """The readout of a chart."""
        return dict(
            self.browser.execute_script(
                "return [...arguments[0].closest('.chart').querySelectorAll('.readout div')]"
                ".map(d => [d.children[0].textContent, d.children[1]?.textContent ?? ''])",
                self.plot(key),
            )
        )

    def address(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.browser.current_url).query)

    def announced(self) -> str:
        return self.one("#announcer").get_attribute("textContent") or ""

    def focused(self) -> WebElement:
        return self.browser.switch_to.active_element

    def choose(self, id_: str, value: str) -> None:
        Select(self.one(f"#{id_}")).select_by_value(value)

    def emulate(self, *, theme: str = "light", width: int = 1400, height: int = 1000) -> None:
        run: Callable[..., Any] = self.browser.execute_cdp_cmd
        run("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        run("Emulation.setDeviceMetricsOverride", size)

    def sideways(self) -> int:
        """Pixels the page is wider than the window."""
        return int(self.browser.execute_script("return document.documentElement.scrollWidth - innerWidth"))

    def sign_out(self) -> None:
        self.browser.get(f"{self.url}/metrics-log")
        self.browser.execute_script("localStorage.clear()")


class Site:
    """What the browser looks at: an API server, its database, and a producer."""

    def __init__(self, page: MetricsLog, dsn: str, now_us: int) -> None:
        self.page = page
        self.dsn = dsn
        self.now_us = now_us


@pytest.fixture(scope="module")
async def site(server: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """The web process, which folds too, and a browser that is signed in."""
    name = f"page_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*map(sql.Identifier, (name, template))))
    dsn = server.dsn(name)
    now_us = time.time_ns() // 1_000
    await write(dsn, now_us)
    with web(dsn) as url:
        await folded(dsn)
        with chromium(tmp_path_factory.mktemp("profile")) as browser:
            browser.set_script_timeout(120)  # axe looks at every row, and the machine may be busy
            page = MetricsLog(browser, url)
            page.emulate()
            page.log_in()
            yield Site(page, dsn, now_us)


async def write(dsn: str, now_us: int) -> None:
    """Two hours of job updates with a hole of 20 minutes in them, a zero, a gauge, hostile names and marks."""
    minutes = [minute for minute in range(120, -1, -1) if not 40 <= minute < 60]
    ago = [now_us - minute * MINUTE_US for minute in minutes]
    good, bad = (
        Combo("app.mail", "mail", state, 1, error) for state, error in (("succeeded", ""), ("failed", "OSError"))
    )
    evil = Combo(EVIL, EVIL, "failed", 1, EVIL)
    job = a_job(id=JOB, func="app.mail", queue="mail")
    async with connections(dsn, 1) as (connection,):
        await claimed(connection, job)
        await LogWriter(connection, tables_for("chancy_"), "worker-1").append(
            jobs=[
                *(a_row(at_us, combo=good) for at_us in ago for _ in range(3)),
                *(a_row(at_us, combo=bad) for at_us in ago[::10]),
                a_row(ago[5], combo=bad, job_id=JOB.bytes, started_us=ago[5] - 9_000_000),
            ],
            runs=[
                ObservationRun(Series("app:stock", "gauge", "items"), ago, array("d", range(len(ago)))),
                a_run("app:zero", [0.0], at_us=now_us - 90 * MINUTE_US),
                a_run("app:zero", [3.0], at_us=now_us - 30 * MINUTE_US),
                a_run(LONG, [1.0], at_us=now_us - 30 * MINUTE_US),
            ],
        )
        await LogWriter(connection, tables_for("chancy_"), EVIL).append(
            jobs=[a_row(now_us - 30 * MINUTE_US, combo=evil)],
            runs=[a_run(f"evil:{EVIL}", [1.0], unit="<b>&amp;", at_us=now_us - 30 * MINUTE_US)],
        )
    async with chancy(dsn) as app:
        await mark(app, f"deploy {EVIL}")


async def folded(dsn: str) -> None:
    """Wait until the web process has folded everything."""

    async def readable() -> bool:
        async with chancy(dsn) as app:
            return f"mark:deploy {EVIL}" in await metrics.list_metrics(app)

    await eventually(readable, within_s=60)


@pytest.fixture(autouse=True)
def page(site: Site) -> Iterator[MetricsLog]:
    """The page as a signed-in desktop with light colors has it; afterwards the console must have no complaint."""
    yield site.page
    complaints = site.page.console()
    site.page.emulate()
    assert complaints == []


# -- signing in -------------------------------------------------------------------------------------------


async def test_who_signed_in_to_the_dashboard_is_signed_in_here_and_the_other_way_round(page: MetricsLog) -> None:
    page.sign_out()
    page.log_in()
    page.show(SUCCEEDED)
    assert not page.one("#sign-in").is_displayed()

    page.one("#sign-out").click()
    page.wait(lambda: page.one("#sign-in").is_displayed())
    assert not page.one("#charts-view").is_displayed() and not page.one("#status").is_displayed()
    assert page.focused() == page.one("#username")
    page.focused().send_keys("ann", Keys.TAB, "secret", Keys.ENTER)
    page.drawn(1)
    page.open("/queues", "Manage job queues")


async def test_a_token_that_is_no_good_leads_to_the_form_and_a_wrong_password_is_told(page: MetricsLog) -> None:
    page.show(SUCCEEDED)
    page.browser.execute_script(
        "for (const key of Object.keys(localStorage)) if (key.startsWith('auth')) localStorage[key] += 'x'"
    )
    page.browser.refresh()
    page.wait(lambda: page.one("#sign-in").is_displayed())
    page.one("#username").send_keys("ann", Keys.TAB, "wrong", Keys.ENTER)
    page.wait(lambda: "Invalid" in page.one("#sign-in-problem").text)
    page.one("#password").clear()
    page.one("#password").send_keys("secret", Keys.ENTER)
    page.drawn(1)

    refusals = [entry for entry in page.console() if "403" not in entry["message"] and "401" not in entry["message"]]
    assert refusals == []


# -- the overview -----------------------------------------------------------------------------------------


def cells(page: MetricsLog, table: str, name: str) -> list[str]:
    """The texts of a row of the overview."""
    rows = page.all(f'[aria-labelledby="overview-{table}"] tbody tr')
    [row] = [row for row in rows if row.find_element(By.TAG_NAME, "th").text == name]
    return [cell.text for cell in row.find_elements(By.TAG_NAME, "td")]


def names(page: MetricsLog, table: str) -> list[str]:
    return [head.text for head in page.all(f'[aria-labelledby="overview-{table}"] tbody th')]


async def test_a_first_look_shows_what_each_queue_and_function_did(page: MetricsLog) -> None:
    page.browser.get(f"{page.url}/metrics-log")

    page.wait(lambda: "app.mail" in names(page, "functions") and "mail" in names(page, "queues"))
    assert page.one("#overview-range").get_attribute("value") == "6h"  # what the log holds fits into it
    failed, share, retried, count, rate, change, trend, p50 = cells(page, "functions", "app.mail")[:8]
    assert (failed, share, retried, count) == ("12", "3.8 %", "0", "315")
    assert (trend, change) == ("", "–") and rate.endswith("/min") and p50 == "500 ms"
    assert cells(page, "queues", "mail")[:3] == ["–", "–", "315"]
    worker = cells(page, "workers", "worker-1")
    assert (worker[0], worker[1], worker[4], worker[5]) == ("–", "315", "12", "3.8 %")
    assert len(page.all(".sparkline")) == sum(len(names(page, table)) for table in ("queues", "functions", "workers"))
    page.wait(lambda: "Healthy" in page.one("#status").text)
    for fact in ("Lag", "Position", "Folded by", "Holes", "Dead letters", "Drift", "Last verify"):
        assert fact in page.one("#status").text
    page.wait(lambda: page.all("#status .quiet code"))
    assert page.one("#status code").text == "chancy-metrics verify" and "`" not in page.one("#status").text


async def test_a_worker_that_missed_its_beat_is_not_called_alive(site: Site, page: MetricsLog) -> None:
    add = """
        INSERT INTO chancy_metrics_sessions (session, worker, producers, append_interval, started_at, seen_at)
        SELECT gen_random_uuid(), name, '{}', 1, clock_timestamp() - interval '1 hour', clock_timestamp() - age
        FROM (VALUES ('beats', interval '30 s'), ('missed', interval '2 min'), ('gone', interval '4 min')) v (name, age)
    """
    with psycopg.connect(site.dsn, autocommit=True) as connection:
        connection.execute(add)
        try:
            page.browser.get(f"{page.url}/metrics-log?range=6h")
            page.wait(lambda: {"beats", "missed", "gone"} <= set(names(page, "workers")))
            said = [cells(page, "workers", name)[0] for name in ("beats", "missed", "gone")]
        finally:
            connection.execute("DELETE FROM chancy_metrics_sessions WHERE worker IN ('beats', 'missed', 'gone')")

    assert said[0] == "alive" and re.match("seen 2.* min ago", said[1]) and re.match("silent for 4.* min", said[2]), (
        said
    )


async def test_tables_are_put_in_order_by_their_heads_and_the_address_keeps_it(page: MetricsLog) -> None:
    page.browser.get(f"{page.url}/metrics-log?range=6h")
    page.wait(lambda: names(page, "functions"))

    def head(text: str) -> WebElement:
        heads = page.all('[aria-labelledby="overview-functions"] thead th')
        return next(head for head in heads if head.text.startswith(text))

    assert head("failed").get_attribute("aria-sort") == "descending"
    head("Name").find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    page.wait(lambda: head("Name").get_attribute("aria-sort") == "ascending")
    assert names(page, "functions") == sorted(names(page, "functions"))
    assert page.address()["functions"] == ["name"]
    assert page.focused().text == "Name" and "order of Name" in page.announced()
    page.browser.refresh()
    page.wait(lambda: names(page, "functions") and head("Name").get_attribute("aria-sort") == "ascending")
    page.one("#find").send_keys("MAI app")
    page.wait(lambda: names(page, "functions") == ["app.mail"])
    assert page.address()["find"] == ["MAI app"]


async def test_a_row_leads_to_its_charts_and_its_failures_to_their_jobs(page: MetricsLog) -> None:
    page.browser.get(f"{page.url}/metrics-log?range=6h")
    page.wait(lambda: "app.mail" in names(page, "functions"))

    page.one('[aria-label="Charts of app.mail"]').send_keys(Keys.ENTER)
    page.drawn(len(MAIL))
    assert page.focused() == page.one("#main") and not page.one("#found").is_displayed()
    assert page.address() == {"key": [f"job:app.mail:{ending}" for ending in MAIL], "range": ["6h"]}
    page.browser.back()
    page.wait(lambda: "app.mail" in names(page, "functions"))
    page.wait(lambda: page.one('[aria-label^="12 failed of app.mail"]').click() is None)  # rows may be replaced
    page.wait(lambda: len(page.all("#events-view tbody tr")) == 12 and page.all("#events-view a.job"))


async def test_a_worker_leads_to_its_own_charts(page: MetricsLog) -> None:
    page.browser.get(f"{page.url}/metrics-log?range=6h")
    page.wait(lambda: "worker-1" in names(page, "workers"))

    page.one('[aria-label="Charts of worker-1"]').send_keys(Keys.ENTER)

    page.wait(lambda: "Only worker worker-1." in page.one("#window").text)
    assert page.address()["worker"] == ["worker-1"] and SUCCEEDED in page.address()["key"]


async def test_the_focus_stays_on_its_row_when_the_rows_are_loaded_again(page: MetricsLog) -> None:
    page.browser.get(f"{page.url}/metrics-log?range=6h")
    page.wait(lambda: len(names(page, "functions")) > 1)
    last = page.all('[aria-labelledby="overview-functions"] tbody th a')[-1]
    label = last.get_attribute("aria-label")

    page.browser.execute_script("arguments[0].focus(); document.querySelector('.overview thead button').click()", last)

    page.wait(lambda: not is_there(last))
    assert page.focused().get_attribute("aria-label") == label


MAIL = ("succeeded", "failed", "execution_time", "wait_time", "total_time")


def is_there(element: WebElement) -> bool:
    """Whether an element is still part of the page."""
    try:
        return element.is_displayed()
    except StaleElementReferenceException:
        return False


# -- charts -----------------------------------------------------------------------------------------------


async def test_series_are_found_while_typing_and_chosen_by_key(page: MetricsLog) -> None:
    page.show(range="6h")
    search = page.one("#search")
    search.send_keys("queue:ma")
    page.wait(lambda: len(page.all("#found [role=option] .name")) == 6)

    search.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN)  # past all
    active = search.get_attribute("aria-activedescendant")
    assert page.one(f"#{active}").text.startswith(RUN)
    search.send_keys(Keys.ENTER)
    page.drawn(1)
    assert page.address()["key"] == [RUN]
    assert page.one(f"#{active}").get_attribute("aria-selected") == "true"
    search.send_keys(Keys.ESCAPE)
    assert search.get_attribute("aria-expanded") == "false"

    page.browser.refresh()
    page.drawn(1)
    page.one("#chosen button").click()
    page.drawn(0)
    page.browser.back()
    page.drawn(1)


async def test_series_are_found_by_any_part_of_their_key(page: MetricsLog) -> None:
    page.show(range="6h")
    page.one("#search").send_keys("MAIL exec")

    page.wait(lambda: [found.text for found in page.all("#found .name")] == ["job:app.mail:execution_time", RUN])


async def test_all_series_under_a_prefix_are_added_at_once(page: MetricsLog) -> None:
    page.show(range="6h")
    page.one("#search").send_keys("queue:mail:")
    page.wait(lambda: page.all("#found-0") and page.one("#found-0").text == "Add all 6")

    page.one("#found-0").click()

    page.drawn(6)


async def test_what_is_missing_zero_and_unfinished_is_drawn_differently(page: MetricsLog, site: Site) -> None:
    page.show(SUCCEEDED, "app:zero", range="6h", resolution="5min")

    missing, bars, zeros = page.traces(SUCCEEDED)
    assert len(missing["x"]) == 2 and missing["marker"]["pattern"]["shape"] == "/"  # before the log, and the hole
    assert min(missing["width"]) >= 3 * 300_000
    assert bars["marker"]["opacity"][-1] < bars["marker"]["opacity"][0]
    # The tests before this one may have taken longer than a bucket, in which nothing ran.
    assert all(start >= site.now_us // 300_000_000 * 300_000 for start in zeros["x"][::3])
    same, bars, zeros = page.traces("app:zero")
    assert same["x"] == missing["x"]  # others were recorded
    assert [value for value in bars["y"] if value] == [3]
    assert len(zeros["x"]) % 3 == 0 and {value for value in zeros["y"] if value is not None} == {0}
    flat_s = sum(end - start for start, end in zip(zeros["x"][::3], zeros["x"][1::3], strict=True)) / 1_000
    assert flat_s == 300 * len([value for value in bars["y"] if value == 0]) >= 90 * 60


async def test_counters_are_shown_as_count_or_rate_and_histograms_in_four_ways(page: MetricsLog) -> None:
    page.show(SUCCEEDED, RUN, range="6h", resolution="1hour")
    assert set(page.values(SUCCEEDED)) == {"total"}
    assert {"p50", "p95", "p99", "count"} <= set(page.values(RUN))

    page.choose("counters", "rate")
    page.choose("histograms", "spread")
    assert "per second" in page.values(SUCCEEDED)
    assert {"avg", "min", "max"} <= set(page.values(RUN))
    assert page.address()["counters"] == ["rate"]

    page.choose("histograms", "count")
    assert set(page.values(RUN)) == {"total"}


async def test_counters_are_shown_as_shares_of_their_sum_and_series_together(page: MetricsLog) -> None:
    page.show(FAILED, SUCCEEDED, range="6h", resolution="1hour")
    failed, succeeded = (page.traces(key)[1]["y"] for key in (FAILED, SUCCEEDED))
    expected = [bad / (bad + good) for bad, good in zip(failed, succeeded, strict=True) if good]

    page.choose("counters", "share")
    page.wait(lambda: "share" in page.values(FAILED))
    shares = [share for share in page.traces(FAILED)[1]["y"] if share is not None]
    assert shares == pytest.approx(expected) and max(shares) < 0.2
    page.choose("charts-mode", "together")
    page.drawn(1)
    assert page.one(".chart h2").text == "counters in count"
    assert [head.text for head in page.all(".readout dt")][1:] == [FAILED, SUCCEEDED]
    assert page.address()["charts"] == ["together"] and page.address()["counters"] == ["share"]

    page.browser.refresh()
    page.drawn(1)
    page.one(".plot").send_keys(Keys.ARROW_LEFT, Keys.ENTER)
    page.wait(lambda: STORED in page.one("#panel").text)
    assert page.one("#panel-title").text == FAILED  # of shares, that which is looked at comes first
    page.show(FAILED, RUN, charts="together")


async def test_one_worker_can_be_chosen(page: MetricsLog) -> None:
    page.show(SUCCEEDED, RUN, range="6h", resolution="1hour")
    page.wait(lambda: len(page.all("#worker option")) >= 3)

    page.choose("worker", "worker-1")

    page.wait(lambda: "Only worker worker-1." in page.one("#window").text)
    page.wait(lambda: "p95" in page.values(RUN))
    assert page.address()["worker"] == ["worker-1"]


async def test_dragging_zooms_and_back_goes_back(page: MetricsLog) -> None:
    page.show(SUCCEEDED, FAILED, range="6h", resolution="auto")
    before = len(page.traces(SUCCEEDED)[1]["x"])
    plot = page.plot(SUCCEEDED)

    ActionChains(page.browser).move_to_element_with_offset(plot, 60, 0).click_and_hold().move_by_offset(
        90, 0
    ).release().perform()

    page.wait(lambda: len(page.traces(FAILED)[1]["x"]) < before / 2)
    assert {"since", "until"} <= set(page.address())
    assert page.one("#range").get_attribute("value") == ""
    zoomed = page.one("#window").text
    page.one("#zoom-out").click()
    page.wait(lambda: page.one("#window").text != zoomed)
    page.browser.back()
    page.browser.back()
    page.wait(lambda: len(page.traces(SUCCEEDED)[1]["x"]) == before)


#: Shows one chart of the points given, in a page that is open, and keeps which buckets are asked about.
ONE_CHART = """
const [points, done] = arguments;
import("/metrics-log/chart.js").then(async ({ Chart }) => {
  window.asked = [];
  const nothing = () => {};
  const explain = (_, index) => asked.push(index);
  const chart = new Chart(points.key, { remove: nothing, cursor: nothing, zoom: nothing, explain });
  document.querySelector("#charts").replaceChildren(chart.element);
  chart.show(points, { counters: "count", histograms: "count" });
  await chart.draw();
  done();
});
"""


async def test_where_a_clock_is_put_back_each_hour_has_its_bar_and_a_click_is_of_the_bar_it_hits(
    page: MetricsLog,
) -> None:
    first = datetime(2026, 10, 24, 22, tzinfo=UTC)  # Berlin's midnight, 25 hours before the next
    starts = [first + timedelta(hours=hour) for hour in range(26)]
    points = {
        "key": "autumn",
        "type": "counter",
        "unit": "count",
        "width_s": 3_600,
        "since": starts[0].isoformat(),
        "until": starts[-1].isoformat(),
        "generated_at": starts[-1].isoformat(),
        "buckets": [{"at": start.isoformat(), "sum": hour + 1} for hour, start in enumerate(starts[:-1])],
    }
    page.browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Europe/Berlin"})
    try:
        page.show(SUCCEEDED)
        page.browser.execute_async_script(ONE_CHART, points)

        bars = page.all(".bars .point path")
        lefts = [bar.rect["x"] for bar in bars]
        assert len(bars) == 25
        steps = [after - before for before, after in pairwise(lefts)]
        assert max(steps) - min(steps) < 1 < min(steps)
        for hour in range(25):
            ActionChains(page.browser, duration=0).move_to_element(bars[hour]).click().perform()
        assert page.browser.execute_script("return asked") == list(range(25))
    finally:
        page.browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})


async def test_an_address_is_the_same_moment_in_every_zone(page: MetricsLog) -> None:
    page.browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Australia/Lord_Howe"})
    try:
        page.show(SUCCEEDED)
        views = page.browser.execute_async_script(
            "const done = arguments[0]; import('/metrics-log/view.js').then(({ parse, write }) => done("
            "['2026-10-25T02:00', '2026-10-25T02:00Z', '2026-10-25T03:00%2B01:00', '2026-10-25'].map((since) =>"
            " write(parse(`?since=${since}&until=2026-10-25T04:00`)))))"
        )
        noon, two, offset, midnight = (parse_qs(view) for view in views)
        assert noon == two == offset
        assert (noon["since"], noon["until"]) == (["2026-10-25T02:00:00.000Z"], ["2026-10-25T04:00:00.000Z"])
        assert midnight["since"] == ["2026-10-25T00:00:00.000Z"]
    finally:
        page.browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})


async def test_times_are_in_utc_or_in_the_browsers_zone_and_the_choice_is_remembered(
    page: MetricsLog, site: Site
) -> None:
    def shown() -> tuple[datetime, str]:
        """The start of the window, and the name of the zone."""
        since, until = page.one("#window").text.split(",")[0].split(" – ")
        return datetime.strptime(f"2024 {since}", "%Y %d %b %H:%M"), until.split()[-1]

    page.browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Kolkata"})
    try:
        end = datetime.fromtimestamp(site.now_us // 1_000_000, UTC).replace(minute=0, second=0)
        page.show(SUCCEEDED, since=(end - timedelta(hours=30)).isoformat(), until=end.isoformat(), resolution="1hour")
        page.wait(lambda: page.one("#window").text)
        utc = shown()
        address = page.browser.current_url
        page.choose("zone", "local")
        page.wait(lambda: page.one("#window").text and shown()[1] == "GMT+5:30")
        page.browser.refresh()
        page.wait(lambda: page.one("#window").text)
        local = shown()
        page.drawn(1)
        page.one(".values summary").click()
        assert page.one(".values th").text == "Bucket (GMT+5:30)"
        assert page.browser.current_url == address
    finally:
        page.choose("zone", "utc")
        page.browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})
    assert utc[1] == "UTC" and local == (utc[0] + timedelta(hours=5, minutes=30), "GMT+5:30")


#: Number, unit, and what is written: never a thousand of one unit where one of the next would do.
WRITTEN = [
    (59.99, "seconds", "1 min"),
    (3_599.9, "seconds", "1 h"),
    (86_399.0, "seconds", "1 d"),
    (0.9996, "seconds", "1 s"),
    (5e-7, "seconds", "0.5 µs"),
    (999.9e6, "bytes", "1 GB"),
    (994e6, "bytes", "994 MB"),
    (999_999.6, "count", "1M"),
    (999_999, "count", "999,999"),
    (-59.999, "seconds", "-1 min"),
    (sys.float_info.max, "count", "1.80e+308"),
    (0, "bytes", "0 B"),
]
#: Milliseconds and the length of time.
LENGTHS = [
    (59_400, "59 s"),
    (59_600, "1 min"),
    (3_599_000, "1 h"),
    (7_199_000, "2 h"),
    (5_400_000, "1 h 30 min"),
    (86_399_000, "1 d"),
    (172_799_000, "2 d"),
    (90_000_000, "1 d 1 h"),
]


async def test_numbers_and_lengths_of_time_are_rounded_before_their_unit_is_chosen(page: MetricsLog) -> None:
    page.show(SUCCEEDED)
    written, lengths = page.browser.execute_async_script(
        "const [numbers, spans, done] = arguments; Promise.all([import('/metrics-log/numbers.js'),"
        " import('/metrics-log/times.js')]).then(([{ number }, { length }]) =>"
        " done([numbers.map(([value, unit]) => number(value, unit)), spans.map(([ms]) => length(ms))]))",
        WRITTEN,
        LENGTHS,
    )

    assert written == [text for _, _, text in WRITTEN]
    assert lengths == [text for _, text in LENGTHS]


async def test_buckets_without_percentiles_are_drawn_by_their_average(page: MetricsLog) -> None:
    shown = page.browser.execute_async_script(
        "const [several, done] = arguments; import('/metrics-log/traces.js').then(({ lines }) => done(several.map("
        " (buckets) => lines({ buckets, type: 'histogram', key: 'a' }, { histograms: 'percentiles' })"
        " .map(({ name, values }) => [name, values]))))",
        [
            [{"count": 2, "avg": 3, "p50": 2, "p95": 4, "p99": 4}, {"count": 5, "avg": 7}, {"missing": True}],
            [{"count": 2, "avg": 3, "p50": 2, "p95": 4, "p99": 4}, {"missing": True}],
        ],
    )

    imported, measured = [dict(one) for one in shown]
    assert (imported["p50"], imported["avg"]) == ([2, None, None], [None, 7, None])
    assert "avg" not in measured


async def test_a_depth_whose_counting_stopped_is_at_least_so_much(page: MetricsLog) -> None:
    depths = [
        ("queue:mail:depth:pending", 100_000),
        ("queue:mail:depth:running", 99_999),
        ("app:depth:pending", 100_000),
    ]
    page.show(SUCCEEDED)
    written = page.browser.execute_async_script(
        "const [depths, done] = arguments; import('/metrics-log/numbers.js').then(({ valueOf }) =>"
        " done(depths.map(([key, value]) => valueOf(key, value, 'jobs'))))",
        depths,
    )

    assert written == ["≥ 100,000", "99,999", "100,000"]


async def test_the_largest_numbers_are_drawn_and_a_days_bucket_is_read_out_with_its_date(page: MetricsLog) -> None:
    first = datetime(2026, 3, 9, tzinfo=UTC)
    starts = [(first + timedelta(days=day)).isoformat() for day in range(4)]
    points = {
        "key": "large",
        "type": "counter",
        "unit": "count",
        "width_s": 86_400,
        "since": starts[0],
        "until": starts[3],
        "generated_at": starts[3],
        "buckets": [
            {"at": at, "sum": sum_}
            for at, sum_ in zip(starts, [sys.float_info.max, -sys.float_info.max, 1e308], strict=False)
        ],
    }
    page.show(SUCCEEDED)
    page.browser.execute_async_script(ONE_CHART, points)

    heights = [bar.rect["height"] for bar in page.all(".bars .point path")]
    assert min(heights) > 30 and abs(heights[0] - heights[1]) < 2
    assert "Infinity" not in page.one(".chart").text
    assert next(iter(page.values("large"))) == "total"
    readouts = page.browser.execute_async_script(
        "const done = arguments[0]; import('/metrics-log/times.js').then(({ bucketStart }) => {"
        " const at = Date.UTC(2026, 2, 10, 5), day = 864e5;"
        " done([bucketStart(at, day, at - day, at + day), bucketStart(at, 36e5, at - day, at),"
        " bucketStart(at, 36e5, at, at + 36e5)]); })"
    )
    assert readouts == ["10 Mar 2026", "10 Mar 05:00", "05:00"]


async def test_the_cursor_is_shared(page: MetricsLog) -> None:
    page.show(SUCCEEDED, "app:stock", range="6h", resolution="5min")

    ActionChains(page.browser).move_to_element_with_offset(page.plot(SUCCEEDED), 100, 0).perform()

    page.wait(lambda: [cursor.is_displayed() for cursor in page.all(".cursor")] == [True, True])
    times = [next(iter(page.values(key))) for key in (SUCCEEDED, "app:stock")]
    assert times[0] == times[1] and ":" in times[0]


async def test_marks_are_lines_over_every_chart_and_listed_in_words(page: MetricsLog) -> None:
    page.show(SUCCEEDED, FAILED)

    page.wait(lambda: len(page.all(".mark")) == 2)
    assert page.one("#marks").is_displayed()
    page.one("#marks summary").click()
    assert "deploy <img" in page.one("#marks-list").text


async def test_a_chart_has_its_numbers_as_a_table(page: MetricsLog) -> None:
    page.show(RUN, range="6h", resolution="1hour")

    page.one(".values summary").click()

    page.wait(lambda: len(page.all(".values tbody tr")) == 7)
    rows = page.all(".values tbody tr")
    assert "still filling" in rows[0].text and "nothing recorded at all" in rows[-1].text


async def test_an_overview_without_an_answer_shows_no_other_view(page: MetricsLog) -> None:
    page.browser.execute_cdp_cmd("Network.enable", {})
    page.browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/metrics-log/*?*"]})
    try:
        page.browser.get(f"{page.url}/metrics-log")
        page.wait(lambda: page.one("#overview-view > .problem").text)
        assert not page.one("#charts-view").is_displayed()
    finally:
        page.browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    page.console()


async def test_without_plotly_the_numbers_are_there(page: MetricsLog) -> None:
    page.browser.execute_cdp_cmd("Network.enable", {})
    page.browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*plotly.min.js*"]})
    try:
        page.browser.get(f"{page.url}/metrics-log?key={RUN}&range=6h&resolution=1hour")
        page.wait(lambda: page.all(".values tbody tr"))
        assert "can't be loaded" in page.one(".chart .problem").text
    finally:
        page.browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    page.console()


async def test_everything_comes_from_the_server_itself(page: MetricsLog) -> None:
    page.show(SUCCEEDED, RUN)

    loaded = page.browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert any("plotly.min.js" in url for url in loaded)
    assert [url for url in loaded if not url.startswith(page.url)] == []


# -- explanations -----------------------------------------------------------------------------------------


async def test_a_click_explains_a_bucket_down_to_its_jobs(page: MetricsLog) -> None:
    page.show(FAILED, range="24h", resolution="1hour")
    failures = page.traces(FAILED)[1]["y"]
    place = max(index for index, value in enumerate(failures[:-1]) if value)

    click_bucket(page, FAILED, place, len(failures))

    page.wait(lambda: STORED in page.one("#panel").text)
    assert page.focused() == page.one("#panel-title")
    for text in ("Function", "app.mail", "Queue", "OSError", "worker-1", "Failed or retrying", "Slowest"):
        assert text in page.one("#panel").text
    assert page.one(".chosen").is_displayed()
    page.focused().send_keys(Keys.ESCAPE)
    page.wait(lambda: not page.one("#panel").is_displayed())
    assert page.focused() == page.plot(FAILED)


def click_bucket(page: MetricsLog, key: str, place: int, buckets: int) -> None:
    plot = page.plot(key)
    left, right = 54, 10  # plotly.js: MARGIN
    width = plot.size["width"]
    x = left + (place + 0.5) / buckets * (width - left - right)
    ActionChains(page.browser).move_to_element_with_offset(plot, round(x - width / 2), 0).pause(0.1).click().perform()


async def test_a_job_of_a_bucket_leads_to_its_page_in_the_dashboard_and_to_its_history(
    site: Site, page: MetricsLog
) -> None:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(site.now_us / 1e6 - 115 * 60))
    page.show(FAILED, of=FAILED, at=at, width="1hour")
    page.wait(lambda: page.all(f'#panel a[href$="{JOB}"]'))
    link = page.one(f'#panel a[href$="{JOB}"]')
    address = str(link.get_attribute("href"))

    page.one(f'#panel button[aria-label="History of job {JOB}"]').click()
    page.wait(lambda: "One row for each attempt" in page.one("#panel").text)
    assert page.address()["job"] == [str(JOB)]
    page.browser.back()
    page.wait(lambda: STORED in page.one("#panel").text)

    page.open(address.removeprefix(page.url), "app.mail", str(JOB))


async def test_the_keyboard_does_all_of_it(page: MetricsLog) -> None:
    page.show(SUCCEEDED, range="6h", resolution="1hour")
    plot = page.plot(SUCCEEDED)
    while page.focused() != plot:
        page.focused().send_keys(Keys.TAB)

    plot.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    said = str(plot.get_attribute("aria-valuetext"))
    assert "UTC: count" in said and plot.get_attribute("aria-valuenow") == "5"
    plot.send_keys(Keys.ENTER)
    page.wait(lambda: STORED in page.one("#panel").text)
    assert STORED in page.announced()
    page.focused().send_keys(Keys.ESCAPE)
    page.wait(lambda: page.focused() == plot)
    plot.send_keys("+")
    page.wait(lambda: "since" in page.address())


async def test_the_keyboard_keeps_its_focus_when_what_it_is_on_goes(site: Site, page: MetricsLog) -> None:
    def has_focus() -> bool:
        return bool(page.browser.execute_script("return document.activeElement !== document.body"))

    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(site.now_us / 1e6 - 115 * 60))
    page.show(SUCCEEDED, FAILED, RUN, range="24h")
    for selector, charts in (("#chosen li button", 2), (".chart .remove", 1)):
        page.one(selector).send_keys(Keys.ENTER)
        page.drawn(charts)
        page.wait(has_focus)
    page.one("#chosen li button").send_keys(Keys.ENTER)
    page.drawn(0)
    page.wait(has_focus)

    page.show(FAILED, of=FAILED, at=at, width="1hour")
    page.wait(lambda: STORED in page.one("#panel").text)
    [every] = [button for button in page.all("#panel button") if button.text.startswith("List all")]
    every.send_keys(Keys.ENTER)
    page.wait(lambda: not page.one("#panel").is_displayed() and has_focus())
    page.browser.back()
    page.wait(lambda: STORED in page.one("#panel").text)
    assert page.focused() == page.one("#panel-title")
    since, until = (datetime.fromtimestamp(site.now_us / 1e6, UTC) - timedelta(hours=hours) for hours in (2, 1))
    page.show(SUCCEEDED, since=since.isoformat(), until=until.isoformat())
    page.one("#now").send_keys(Keys.ENTER)
    page.wait(lambda: not page.one("#now").is_enabled() and has_focus())


# -- a new installation -----------------------------------------------------------------------------------


async def test_a_new_installation_says_why_there_is_nothing_and_shows_the_first_numbers_when_they_come(
    server: Server, template: str, site: Site
) -> None:
    name = f"new_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*map(sql.Identifier, (name, template))))
    dsn = server.dsn(name)
    with web(dsn) as url:
        page = MetricsLog(site.page.browser, url)
        await eventually(partial(answers, url))
        page.log_in()
        page.browser.get(f"{url}/metrics-log")
        page.wait(lambda: "There are no numbers yet" in page.text)
        assert "Nothing has been recorded" in page.one("#nothing").text
        assert "first numbers within 1 s" in page.one("#nothing").text
        assert "No numbers yet" in page.one("#status").text and "Healthy" not in page.one("#status").text
        assert not page.one(".overview").is_displayed()

        async with connections(dsn, 1) as (connection,):
            now_us = time.time_ns() // 1_000
            rows = [a_row(now_us - minute * MINUTE_US) for minute in (1, 9)]
            await LogWriter(connection, tables_for("chancy_"), "worker-1").append(jobs=rows)

        page.wait(lambda: names(page, "functions") == ["app.work"])
        assert not page.one("#nothing").is_displayed()
        assert Select(page.one("#overview-range")).first_selected_option.get_attribute("value") == "15m"
        page.one('[data-view="charts"]').click()
        page.drawn(3)
        page.browser.get("about:blank")  # it would go on to ask the server that ends


#: Batches that wait, for how many seconds, the position, whether anything was recorded, and the title of what is said.
REASONS = [
    (2, 3.2, 0, False, "First numbers within 12 s"),
    (1, 14.9, 0, False, "First numbers within 1 s"),
    (1, 15.1, 0, False, "The first numbers are late"),
    (0, 0.0, 0, False, "There are no numbers yet"),
    (0, 0.0, 7, True, "No job has ended in this range"),
    (0, 0.0, 7, False, "There are no numbers any more"),
]


async def test_a_new_installation_counts_down_to_the_first_numbers_and_says_if_they_are_late(page: MetricsLog) -> None:
    page.show(SUCCEEDED)
    said = page.browser.execute_async_script(
        "const [given, done] = arguments; import('/metrics-log/beginning.js').then(({ reasons }) => done(given.map("
        "([pending_batches, oldest_waiting_s, position, isRecorded]) => reasons({ pending_batches, oldest_waiting_s,"
        " position, ordered_position: position, sync_interval_s: 10 }, isRecorded))))",
        REASONS,
    )

    assert [title for title, *_ in said] == [title for *_, title in REASONS]
    assert all(len(sentences) for _, *sentences in said)
    assert "nobody has folded any for 15 s" in said[2][1]


async def answers(url: str) -> bool:
    """Whether a web process has begun to serve."""
    with suppress(httpx.TransportError):
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{url}/metrics-log")).status_code == 200
    return False


# -- the tail ---------------------------------------------------------------------------------------------


async def test_events_come_as_they_are_recorded_and_can_be_filtered(site: Site, page: MetricsLog) -> None:
    async with connections(site.dsn, 1) as (connection,):
        writer = LogWriter(connection, tables_for("chancy_"), "tail-worker")
        page.browser.get(f"{page.url}/metrics-log?view=events")
        page.wait(lambda: "Live" in page.text and page.all("#events-view tbody tr"))

        at_us = time.time_ns() // 1_000
        await writer.append(jobs=[a_row(at_us, func="app.tailed")], runs=[a_run("tail:n", [41.5], at_us=at_us)])
        page.wait(lambda: "tail:n = 41.5" in page.text and "app.tailed" in page.text)

        page.choose("filter-kind", "job")
        page.one("#filter-worker_id").send_keys("tail-worker")
        page.wait(lambda: "tail:n" not in page.text and "app.tailed" in page.text)
        assert page.address()["event_worker_id"] == ["tail-worker"]

        at_us = time.time_ns() // 1_000
        await writer.append(jobs=[a_row(at_us, func="app.later")], runs=[a_run("tail:n", [42.5], at_us=at_us)])
        page.wait(lambda: "app.later" in page.text)
        assert "app.later" in page.one("#events-view tbody tr").text
        assert "42.5" not in page.text


async def test_a_paused_tail_goes_on_without_a_gap(site: Site, page: MetricsLog) -> None:
    async with connections(site.dsn, 1) as (connection,):
        writer = LogWriter(connection, tables_for("chancy_"), "pause-worker")
        page.browser.get(f"{page.url}/metrics-log?view=events&event_prefix=pause")
        page.wait(lambda: "Live" in page.text)
        pause(page).click()
        for number in range(3):
            await writer.append(runs=[a_run("pause:n", [101 + number], at_us=time.time_ns() // 1_000)])
        pause(page).click()

        page.wait(lambda: len(page.all("#events-view tbody tr")) == 3)
        assert all(f"pause:n = {101 + number}" in page.text for number in range(3))


async def test_a_tail_that_is_paused_and_resumed_at_once_shows_each_event_once(site: Site, page: MetricsLog) -> None:
    async with connections(site.dsn, 1) as (connection,):
        writer = LogWriter(connection, tables_for("chancy_"), "twice-worker")
        await writer.append(runs=[a_run("twice:n", [1.0] * 30, at_us=time.time_ns() // 1_000)])
        page.browser.get(f"{page.url}/metrics-log?view=events&event_prefix=twice")
        page.wait(lambda: len(page.all("#events-view tbody tr")) == 30)  # enough, so it looks no further back
        pause(page).click()
        await writer.append(runs=[a_run("twice:n", [103], at_us=time.time_ns() // 1_000)])
        await sequence_all(connection, tables_for("chancy_"))
        page.browser.execute_script("for (let i = 0; i < 5; i++) arguments[0].click()", pause(page))
        page.wait(lambda: "twice:n = 103" in page.text)
        await writer.append(runs=[a_run("twice:n", [104], at_us=time.time_ns() // 1_000)])

        page.wait(lambda: "twice:n = 104" in page.text)
        assert len(page.all("#events-view tbody tr")) == 32


def pause(page: MetricsLog) -> WebElement:
    return page.one("#events-view button[aria-pressed]")


async def test_the_events_of_a_window_come_in_the_order_of_the_log(page: MetricsLog) -> None:
    page.browser.get(f"{page.url}/metrics-log?view=events&event_key={FAILED}")
    page.wait(lambda: page.all("#when"))
    page.choose("when", "6h")

    page.wait(lambda: "In the order of the ledger" in page.text and page.all("#events-view tbody tr"))
    cursors = [row.text for row in page.all("#events-view tbody td:last-child")]
    assert cursors == sorted(cursors, key=lambda cursor: [int(part) for part in cursor.split(":")])
    assert len(cursors) >= 12
    assert {"since", "until"} <= set(page.address())


# -- for everybody ----------------------------------------------------------------------------------------


async def test_nothing_that_is_shown_is_run_or_taken_for_markup(page: MetricsLog, site: Site) -> None:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(site.now_us / 1e6 - 30 * 60))
    evil = f"evil:{EVIL}"
    shown = "<img src=x onerror"
    page.show(evil, f"job:{EVIL}:failed", of=f"job:{EVIL}:failed", at=at, width="1hour")
    page.wait(lambda: STORED in page.one("#panel").text and page.all(".mark"))
    assert shown in page.one("#panel").text and shown in page.one("#chosen").text
    assert "⟨U+202E⟩" in page.one("#chosen").text
    assert unharmed(page)

    page.one("#search").send_keys("evil:<img")
    page.wait(lambda: shown in page.one("#found").text)
    assert unharmed(page)

    page.browser.get(f"{page.url}/metrics-log?{urlencode({'view': 'events', 'event_worker_id': EVIL})}")
    page.wait(lambda: len(page.all("#events-view tbody tr")) == 2)
    assert shown in page.one("#events-view tbody").text
    assert unharmed(page)

    page.browser.get(f"{page.url}/metrics-log?range=6h")
    page.wait(lambda: shown in page.one('[aria-labelledby="overview-functions"]').text)
    assert "⟨U+202E⟩" in page.one('[aria-labelledby="overview-queues"]').text
    assert unharmed(page)

    page.browser.get(f"{page.url}/metrics-log?{urlencode({'key': '<script>window.pwned=1</script>', 'job': EVIL})}")
    page.wait(lambda: "there is no series" in page.text and "it takes a UUID" in page.text)
    assert unharmed(page)
    page.console()  # 404 and 422 are noted there


def unharmed(page: MetricsLog) -> bool:
    return bool(
        page.browser.execute_script(
            "return window.pwned === undefined && !document.querySelector('main img, #panel img')"
        )
    )


async def test_dark_and_light_follow_the_system_unless_one_is_chosen(page: MetricsLog) -> None:
    def background() -> str:
        return str(page.browser.execute_script("return getComputedStyle(document.body).backgroundColor"))

    page.emulate(theme="dark")
    page.show(SUCCEEDED)
    dark, ticks = background(), page.one(".xtick text").value_of_css_property("fill")
    page.emulate(theme="light")
    page.wait(lambda: background() != dark)
    page.wait(lambda: page.one(".xtick text").value_of_css_property("fill") != ticks)

    page.choose("theme", "dark")
    assert background() == dark
    page.browser.refresh()
    page.drawn(1)
    assert background() == dark
    page.choose("theme", "auto")


async def test_it_fits_a_phone(page: MetricsLog, site: Site) -> None:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(site.now_us / 1e6 - 30 * 60))
    page.emulate(width=390, height=844)
    page.show(SUCCEEDED, RUN, f"job:{EVIL}:failed", LONG)
    assert page.sideways() <= 0
    assert page.one(".plot").size["width"] > 300
    assert page.one(".plot").rect["y"] + page.one(".plot").rect["height"] < 844  # on the first screen
    assert not page.one("#search").is_displayed() and not page.one("#status dl").is_displayed()
    for fold in page.all(".fold"):
        if fold.is_displayed():
            fold.click()
    assert page.one("#search").is_displayed() and page.one("#status dl").is_displayed() and page.sideways() <= 0

    page.show(FAILED, of=FAILED, at=at, width="1hour")
    page.wait(lambda: STORED in page.one("#panel").text)
    assert page.sideways() <= 0 and page.one("#panel").size["width"] <= 390
    for link in page.all("#panel a.job"):
        assert link.rect["x"] > 0 and link.rect["x"] + link.rect["width"] < 390
    first, *_ = page.all("#panel a.job")
    assert page.browser.execute_script("return arguments[0].getBoundingClientRect().bottom", first) < 844

    page.browser.get(f"{page.url}/metrics-log?view=events")
    page.wait(lambda: page.all("#events-view tbody tr"))
    assert page.sideways() <= 0
    page.browser.get(f"{page.url}/metrics-log?range=6h")
    page.wait(lambda: names(page, "functions"))
    assert page.sideways() <= 0 and page.one(".overview tbody tr").rect["y"] < 500


AXE = Path(str((importlib.util.find_spec("axe_core_python") or pytest.fail("axe-core-python is missing")).origin))


async def test_axe_finds_nothing_serious_in_either_theme(page: MetricsLog, site: Site) -> None:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(site.now_us / 1e6 - 30 * 60))
    page.show(FAILED, RUN, of=FAILED, at=at, width="1hour", range="6h", resolution="1hour")
    page.wait(lambda: STORED in page.one("#panel").text and "Healthy" in page.one("#status").text)
    for summary in page.all(".values summary"):
        summary.click()
    assert findings(page) == []

    page.browser.get(f"{page.url}/metrics-log?key={FAILED}&key={SUCCEEDED}&counters=share&charts=together")
    page.drawn(1)
    assert findings(page) == []

    page.browser.get(f"{page.url}/metrics-log?range=6h")
    page.wait(lambda: names(page, "functions") and "Healthy" in page.one("#status").text)
    assert findings(page) == []

    page.browser.get(f"{page.url}/metrics-log?view=events")
    page.wait(lambda: page.all("#events-view tbody tr"))
    assert findings(page) == []

    page.browser.get(f"{page.url}/metrics-log?key={FAILED}")
    page.wait(lambda: page.one("#search").is_displayed())
    page.one("#search").send_keys("queue:")
    page.wait(lambda: page.all("#found [role=option] .name"))
    assert findings(page) == []

    page.sign_out()
    page.browser.refresh()
    page.wait(lambda: page.one("#sign-in").is_displayed())
    assert findings(page) == []
    page.log_in()


def findings(page: MetricsLog) -> list[tuple[str, str]]:
    """What axe calls serious or critical, as rule and element. The dark theme differs in colours alone."""
    page.browser.execute_script((AXE.parent / "axe.min.js").read_text())
    found = run_axe(page, {})
    page.emulate(theme="dark")
    found += run_axe(page, {"runOnly": ["color-contrast"]})
    page.emulate(theme="light")
    return found


def run_axe(page: MetricsLog, options: dict[str, Any]) -> list[tuple[str, str]]:
    options = {"resultTypes": ["violations"], **options}
    script = "const [options, done] = arguments; axe.run(options).then(done, done)"
    result = page.browser.execute_async_script(script, options)
    return [
        (violation["id"], node["html"][:200])
        for violation in result["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
