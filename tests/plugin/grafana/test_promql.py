"""Every PromQL of the dashboard runs on a real Prometheus and answers right, also where two targets are scraped."""

from __future__ import annotations

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
from tests.factories import NOON_US, a_total, an_app
from tests.plugin.grafana.interpolation import Chosen, interpolate_promql
from tests.prometheus import label_values, prometheus, query, scraped

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


def answers(client: httpx.Client, chosen: Chosen) -> dict[str, list[dict[tuple[tuple[str, str], ...], float]]]:
    """Panel -> what each of its expressions answers at the last scrape; and the same of the marks."""
    variables = {one["name"]: one["allValue"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"}
    expressions = {panel["title"]: [one["expr"] for one in panel["targets"]] for panel in DASHBOARD["panels"]}
    expressions["Marks"] = [DASHBOARD["annotations"]["list"][0]["target"]["expr"]]
    return {
        name: [
            query(
                client,
                interpolate_promql(one, variables, chosen, EVERY_S, 300),
                NOON_US / 1e6 + EVERY_S * (SCRAPES - 1),
            )
            for one in each
        ]
        for name, each in expressions.items()
    }


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
    assert [dict(labels)["text"] for [answer] in [found["Marks"]] for labels in answer] == ["deploy_1_43"]


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
