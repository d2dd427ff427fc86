"""Every PromQL of the dashboard runs on a real Prometheus and answers right, also where two targets are scraped."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chancy_metrics.events.facts import Series
from chancy_metrics.plugin import read_status
from chancy_metrics.plugin.grafana.prometheus import dashboard
from chancy_metrics.plugin.telemetry.families import families_of
from chancy_metrics.plugin.telemetry.pipeline import pipeline_families
from chancy_metrics.projections.rules.built_in import job_series
from chancy_metrics.projections.totals.read import Total, Totals
from tests.end_to_end.test_prometheus_forms import a_target
from tests.factories import NOON_US, a_total, an_app, some_totals
from tests.plugin.grafana.interpolation import Chosen, interpolate_promql
from tests.prometheus import label_values, prometheus, query, scraped
from tests.scraping import nearest_rank, scraping

pytestmark = pytest.mark.slow

FUNC = "app.it's (1.0)"
EVERY_S, SCRAPES = 15, 41
DASHBOARD: Any = dashboard().to_json()


def totals_at(number: int) -> Totals:
    """What is counted by a scrape: three jobs succeed and one fails between two of them."""
    at_us = NOON_US + number * EVERY_S * 1_000_000
    made: dict[Series, Total] = {}
    for state, each in (("succeeded", 3), ("failed", 1), ("retrying", 2)):
        for series in job_series(FUNC, "mail", state):
            if series.kind == "counter":
                made[series] = a_total(series, float(each * (number + 1)))
            else:
                made[series] = a_total(series, values=[0.5, 2.0] * (number + 1))
    total = Series(f"job:{FUNC}:total_time", "histogram", "seconds")
    made[total] = a_total(total, values=[0.5, 2.0] * (number + 1))
    gauges = {
        ("queue:mail:depth:pending", "jobs"): 7.0,
        ("queue:mail:oldest_wait_seconds", "seconds"): 90.0,
        ("workers:active", "workers"): 2.0,
        ("workers:slots", "slots"): 8.0,
        ("workers:slots_used", "slots"): 5.0,
    }
    for (key, unit), value in gauges.items():
        series = Series(key, "gauge", unit)
        made[series] = a_total(series, value, last_us=at_us)
    for text, since in (("deploy 1.42", 0), ("deploy 1.43", SCRAPES - 4)):
        if number >= since:
            series = Series(f"mark:{text}", "counter", "count")
            made[series] = a_total(series)
    return Totals(1, 1, at_us, NOON_US, list(made.values()))


@pytest.fixture
async def client(dsn: str, tmp_path: Path) -> AsyncIterator[httpx.Client]:
    """A Prometheus that has scraped two targets, which expose the same."""
    async with an_app(dsn) as (chancy, _):
        status = await read_status(chancy)
    exposed = [
        (NOON_US / 1e6 + number * EVERY_S, pipeline_families(status, totals) + families_of(totals))
        for number in range(SCRAPES)
        for totals in [totals_at(number)]
    ]
    samples = "".join(
        scraped(families, at_s, job="chancy", instance=instance) for at_s, families in exposed for instance in "ab"
    )
    with prometheus(tmp_path, samples) as client:
        yield client


def expressions(chosen: Chosen) -> dict[str, list[str]]:
    """Panel -> its expressions as Prometheus gets them; and that of the marks."""
    variables = {one["name"]: one["allValue"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"}
    each = {panel["title"]: [one["expr"] for one in panel["targets"]] for panel in DASHBOARD["panels"]}
    each["Marks"] = [DASHBOARD["annotations"]["list"][0]["target"]["expr"]]
    return {
        name: [interpolate_promql(one, variables, chosen, EVERY_S, 300) for one in asked]
        for name, asked in each.items()
    }


def answers(client: httpx.Client, chosen: Chosen) -> dict[str, list[dict[tuple[tuple[str, str], ...], float]]]:
    """Panel -> what each of its expressions answers at the last scrape."""
    last_s = NOON_US / 1e6 + EVERY_S * (SCRAPES - 1)
    return {name: [query(client, one, last_s) for one in asked] for name, asked in expressions(chosen).items()}


@pytest.mark.parametrize("func", [None, [FUNC], [FUNC, "other"]])
async def test_every_expression_answers_right(client: httpx.Client, func: list[str] | None) -> None:
    found = answers(client, {"func": func})
    of_func, of_queue = (("func", FUNC),), (("queue", "mail"),)

    assert found["Jobs a minute"] == [{(): pytest.approx(16)}]
    assert found["Failure ratio"] == [{(): pytest.approx(0.25)}]
    assert found["Oldest wait"] == [{(): 90}]
    assert found["Lag"] == [{(): 0}]
    assert found["Throughput by function"] == [{of_func: pytest.approx(16)}]
    assert found["Throughput by queue"] == [{of_queue: pytest.approx(16)}]
    assert found["Failures by function"] == [
        {
            (*of_func, ("state", "failed")): pytest.approx(4),
            (*of_func, ("state", "retrying")): pytest.approx(8),
        }
    ]
    assert found["Failure ratio by function"] == [{of_func: pytest.approx(0.25)}]
    times = {"Run time by function": of_func, "Total time by function": of_func, "Wait time by queue": of_queue}
    for title, labels in times.items():
        half, most, nearly_all = found[title]
        assert half == {labels: pytest.approx(0.5, rel=0.5)}  # classic buckets have the width of a power of two
        assert most == {labels: pytest.approx(2, rel=0.5)} and nearly_all == {labels: pytest.approx(2, rel=0.5)}
    assert found["Queue depth"] == [{(*of_queue, ("state", "pending")): 7}]
    assert found["Oldest wait by queue"] == [{of_queue: 90}]
    assert found["Workers"] == [{(): 2}, {(): 8}, {(): 5}]
    assert found["Pipeline"] == [{(): 0}, {(): 0}, {(): 0}]
    assert [dict(labels)["mark"] for [answer] in [found["Marks"]] for labels in answer] == ["deploy 1.43"]


async def test_names_that_were_not_chosen_are_not_shown(client: httpx.Client) -> None:
    found = answers(client, {"func": ["other"], "queue": ["other"]})

    shown = {name for name, each in found.items() if any(each)}
    assert shown == {"Lag", "Workers", "Pipeline", "Marks"}


async def test_the_variables_ask_for_labels_that_are_exposed(client: httpx.Client) -> None:
    found = {
        one["name"]: label_values(client, one["definition"].replace("$job", ".*"))
        for one in DASHBOARD["templating"]["list"][1:]
    }

    assert found == {"job": ["chancy"], "func": [FUNC], "queue": ["mail"]}


def test_quantiles_are_of_native_histograms_where_these_are_stored(tmp_path: Path) -> None:
    chance = random.Random(7)
    # 999, so that no quantile is at the edge of a value: an increase is extrapolated, and so not a whole number.
    values = [chance.lognormvariate(-1, 1.2) for _ in range(999)]
    updates = "chancy_jobs_total{state='succeeded'}"

    with a_target() as target, scraping(tmp_path / "native", target.url, native=True) as server:
        for recorded in ([100.0] * 10, [100.0] * 10 + values):
            times = a_total(f"job:{FUNC}:execution_time", kind="histogram", unit="seconds", values=recorded)
            target.families = families_of(some_totals(times, a_total(f"job:{FUNC}:succeeded", len(recorded))))
            server.until(updates, len(recorded))
        server.until(f"count_over_time({updates}[1m]) >= bool 15")  # an increase is extrapolated by up to a scrape
        shown = [server.value(one) for one in expressions({})["Run time by function"]]

    assert shown == pytest.approx([nearest_rank(values, q) for q in (0.5, 0.95, 0.99)], rel=0.01)
