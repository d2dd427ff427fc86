"""docs/series.md has every series that the plugin makes, with its kind, its unit and the states it is made of."""

from __future__ import annotations

import pytest

from chancy_metrics.events.facts import MAX_KEY_BYTES, MAX_UNIT_CHARS, MAX_WORKER_BYTES, Series
from chancy_metrics.plugin.worker.maintenance import SERIES_ALARM
from chancy_metrics.plugin.worker.queue_health import HealthSample, QueueSample, gauges
from chancy_metrics.projections.rules import built_in
from chancy_metrics.projections.rules.measured import DRIFT, MOST_JOBS, table_sizes
from chancy_metrics.projections.rules.rule_set import BUILT_IN_RULES
from tests.reference.pages import code, page, rows, section

#: The states with which Chancy saves a job after an attempt.
STATES = ("succeeded", "retrying", "failed")
OF_JOBS = built_in.job_series("{func}", "{queue}", "{state}")
OF_QUEUES = [series for series, _ in gauges(HealthSample(0, [QueueSample("{queue}", 1, 1, 0, 0, 0, 0, 0.0)]), {})]
OF_TABLES = table_sizes("{name}")


def listed(heading: str) -> set[Series]:
    return {Series(code(key)[0], kind, unit) for key, kind, unit, *_ in rows(section("series", heading))}  # type: ignore[arg-type] # out of a text


def test_every_series_of_a_job_update_is_on_the_page_and_no_other() -> None:
    assert listed("Made of job updates") == set(OF_JOBS)


def test_every_series_that_a_worker_measures_is_on_the_page_and_no_other() -> None:
    assert listed("Measured by the folding worker") == {*OF_QUEUES, *OF_TABLES, DRIFT}


@pytest.mark.parametrize(
    ("ending", "has"),
    [
        ("wait_time", built_in.has_wait_time),
        ("total_time", built_in.has_total_time),
        ("attempts", built_in.has_attempts),
    ],
)
def test_the_states_that_have_a_time_are_those_of_the_rules(ending: str, has: object) -> None:
    of_rules = {state for state in STATES if has(state)}  # type: ignore[operator] # a function

    told = [set(code(row[3])) for row in rows(section("series", "Made of job updates")) if ending in row[0]]

    assert told and all(states == of_rules for states in told)


def test_the_numbers_of_series_and_the_limits_are_those_of_the_code() -> None:
    told = {row[0]: row[1] for row in rows(section("series", "Limits"))}

    of_jobs = [one.key.replace("{state}", state) for one in OF_JOBS for state in STATES]
    of_queues = [*of_jobs, *(one.key for one in OF_QUEUES)]
    assert told["series made of a function"] == str(len({key for key in of_jobs if key.startswith("job:")}))
    assert told["series made of a queue"] == str(len({key for key in of_queues if key.startswith("queue:")}))
    assert told["series made of a table"] == str(len(OF_TABLES))
    assert f"{MAX_KEY_BYTES:,} bytes" in told["a key"]
    assert f"{MAX_UNIT_CHARS} characters" in told["a unit"]
    assert f"{MAX_WORKER_BYTES:,} bytes" in told["a worker's id"]
    assert f"past {SERIES_ALARM:,}" in page("series") and f"stops at {MOST_JOBS:,}" in page("series")


def test_the_number_of_the_built_in_rules_is_that_of_the_code() -> None:
    assert f"**Built-in rules {BUILT_IN_RULES}**" in page("series")
    assert f"**The built-in rules** have number {BUILT_IN_RULES}." in page("rebuild")
