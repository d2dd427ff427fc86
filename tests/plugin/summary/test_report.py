"""The report says what happened and what is wrong, on real logs: empty, steady, failing, standing still, silent."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import anyio
import pytest
from click.testing import Result

from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import WrongMoment
from chancy_metrics.events.humanize import moment
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Report, mark, report, verify
from chancy_metrics.plugin.host.moments import from_us
from tests.factories import an_app, damage
from tests.feeder import Feeder
from tests.reading import invoke

DAY = 24 * 60


@pytest.fixture
def feeder(connection: Connection, tables: Tables) -> Feeder:
    return Feeder(connection, tables)


async def reported(dsn: str, since: datetime | None = None) -> Report:
    async with an_app(dsn) as (chancy, _):
        return await report(chancy, since=since)


async def ran(dsn: str, *arguments: str) -> Result:
    return await anyio.to_thread.run_sync(invoke, dsn, ["report", *arguments])


def kinds(found: Report) -> list[str]:
    return [one.kind for one in found.problems]


async def steady(feeder: Feeder) -> None:
    """Let 100 jobs an hour end at these hours of the last six days, one of which failed, and 50 in the last hour."""
    for day in range(1, 7):
        for hour in (-1, 0, 1, 2):
            await feeder.jobs(day * DAY + hour * 60, 99)
            await feeder.jobs(day * DAY + hour * 60, 1, state="failed")
    for ago in range(1, 60):
        await feeder.jobs(ago, 2)


async def test_an_empty_log_is_not_judged_and_names_when_numbers_come(dsn: str) -> None:
    found, text = await reported(dsn), await ran(dsn)

    assert (found.problems, found.first_numbers_s, found.recorded_at, found.days) == ([], 1.0, None, 0)
    assert text.exit_code == 0
    assert text.stdout.startswith("nothing to judge yet\n")
    assert "first numbers within 1 s of the first job" in text.stdout
    assert "not compared with the log: `chancy-metrics verify` does it" in text.stdout


async def test_a_steady_hour_is_compared_with_the_same_hours_of_the_days_before(dsn: str, feeder: Feeder) -> None:
    await steady(feeder)
    await feeder.fold()
    await feeder.expire()

    found, text = await reported(dsn), await ran(dsn)

    assert (found.problems, found.flow.done) == ([], 118)
    assert found.days in (5, 6)  # in the first hour after midnight only the whole of the sixth day is kept
    assert found.flow.usual is not None and 80 <= found.flow.usual.median <= 120
    assert (found.failures.share, found.failures.newest) == (0.0, None)
    assert found.failures.usual is not None and found.failures.usual.median == 0.01
    assert [(one.func, one.runs, one.p95_s) for one in found.slowest] == [
        ("app.work", 118, pytest.approx(0.5, rel=0.006))
    ]
    assert found.changes == []
    assert (text.exit_code, text.stdout.split("\n")[0]) == (0, "nothing is wrong, as far as was looked")
    assert "not sampled: nothing is known of the queues' depth" in text.stdout


async def test_failures_slow_runs_and_more_jobs_than_usual_are_seen(dsn: str, feeder: Feeder) -> None:
    await steady(feeder)
    await feeder.jobs(9, 300, func="app.new")
    await feeder.jobs(8, 40, run_s=3.0)
    for hour in (-1, 0, 1, 2):
        for day in range(1, 7):
            await feeder.jobs(day * DAY + hour * 60, 25, func="app.rare")
    await feeder.jobs(8, 19, func="app.rare", run_s=9.0)  # too few to be compared
    await feeder.jobs(5, 30, state="failed", error="app.Declined: no")
    newest = await feeder.jobs(4, 1, state="failed", error="app.Refused: \x1b[2Jno")
    await feeder.fold()
    await feeder.expire()

    found, text, spoken = await reported(dsn), await ran(dsn), await ran(dsn, "--json")

    assert kinds(found) == ["failures"]
    assert found.problems[0].sentence == "app.work: 31 of 189 jobs failed (16.4 %, usually 1.0 %)"
    assert [(one.what, one.name) for one in found.changes] == [
        ("jobs", "app.new"),
        ("failure_share", "app.work"),
        ("run_time_p95", "app.work"),
    ]
    assert [one.func for one in found.slowest] == ["app.rare", "app.work", "app.new"]
    assert found.slowest[1].p95_s == pytest.approx(3.0, rel=0.006)
    error = found.failures.newest
    assert error is not None
    assert (error.at, error.job_id.bytes) == (from_us(newest[0].at_us), newest[0].job_id)
    assert (text.exit_code, spoken.exit_code) == (3, 3)
    assert f"`chancy-metrics audit job {error.job_id}` shows it" in text.stdout
    assert "1 THING IS WRONG" in text.stdout and "\x1b" not in text.stdout + spoken.stdout
    answer = json.loads(spoken.stdout)
    assert answer["failures"]["newest"]["job_id"] == str(error.job_id)
    assert answer["problems"][0]["kind"] == "failures"


async def queue(
    feeder: Feeder, name: str, *, pending: float, oldest_s: float, ago: int = 1, workers: float = 1
) -> None:
    """Sample a queue so many minutes ago."""
    for state in ("running", "retrying", "scheduled"):
        await feeder.gauge(f"queue:{name}:depth:{state}", {ago: 0.0}, "jobs")
    await feeder.gauge(f"queue:{name}:depth:pending", {ago: pending}, "jobs")
    await feeder.gauge(f"queue:{name}:oldest_wait_seconds", {ago: oldest_s})
    await feeder.gauge("workers:active", {ago: workers}, "workers")


async def test_a_queue_whose_due_jobs_do_not_end_stands_still(dsn: str, feeder: Feeder) -> None:
    await feeder.jobs(20, 3, queue="mail")
    await feeder.jobs(1, 3, queue="busy")
    await queue(feeder, "mail", pending=12, oldest_s=1_100)
    await queue(feeder, "busy", pending=3, oldest_s=2)
    await feeder.fold()

    found, text = await reported(dsn), await ran(dsn)

    assert kinds(found) == ["standstill"]
    assert found.problems[0].sentence.startswith("queue mail: 12 jobs due, the oldest for 18 min 20 s, and none of its")
    assert [(one.queue, one.pending, one.oldest_wait_s) for one in found.waiting.queues] == [
        ("mail", 12, 1_100.0),
        ("busy", 3, 2.0),
    ]
    assert "mail  12 due, the oldest for 18 min 20 s" in text.stdout and "1 worker active" in text.stdout


async def test_a_wait_is_wrong_where_it_is_far_longer_than_usual(dsn: str, feeder: Feeder) -> None:
    await feeder.jobs(1, 3, queue="mail")
    for day in (1, 2, 3):
        await queue(feeder, "mail", pending=5, oldest_s=290, ago=day * DAY)
        await queue(feeder, "nightly", pending=5, oldest_s=4_000, ago=day * DAY)
    await feeder.jobs(1, 3, queue="nightly")
    await queue(feeder, "mail", pending=12, oldest_s=600)
    await queue(feeder, "nightly", pending=12, oldest_s=5_000)
    await feeder.fold()
    await feeder.expire()

    found = await reported(dsn)

    assert kinds(found) == ["waiting"]
    assert "queue mail: 12 jobs due, the oldest for 10 min; the longest at these hours was 4 min 50 s" in (
        found.problems[0].sentence
    )


async def test_due_jobs_without_a_worker_are_wrong(dsn: str, feeder: Feeder) -> None:
    await queue(feeder, "mail", pending=2, oldest_s=30, workers=0)
    await feeder.fold()

    found = await reported(dsn)

    assert kinds(found) == ["no_worker"]
    assert (found.waiting.workers, found.problems[0].sentence) == (
        0,
        "2 jobs due, and no worker is active: start one",
    )


async def test_a_sample_of_minutes_ago_says_its_age(dsn: str, feeder: Feeder) -> None:
    await queue(feeder, "mail", pending=2, oldest_s=30, ago=4)
    await feeder.jobs(1, 1)
    await feeder.fold()

    text = await ran(dsn)

    assert re.search(
        r"waiting +as of [45] min.* ago, when queues and workers were last sampled\n +mail  2 due", text.stdout
    )


async def test_a_sample_that_is_old_says_nothing_of_now(dsn: str, feeder: Feeder) -> None:
    await queue(feeder, "mail", pending=2, oldest_s=3_000, ago=30, workers=0)
    await feeder.jobs(1, 1)
    await feeder.fold()

    found, text = await reported(dsn), await ran(dsn)

    assert found.problems == []
    assert not found.waiting.sampled
    assert (
        found.waiting.sampled_at is not None and f"not sampled since {moment(found.waiting.sampled_at)}" in text.stdout
    )
    assert [(one.queue, one.pending) for one in found.waiting.queues] == [("default", None), ("mail", None)]


async def test_a_log_that_fell_silent_is_wrong(dsn: str, feeder: Feeder) -> None:
    await feeder.jobs(12, 5)
    await feeder.fold()

    found, text = await reported(dsn), await ran(dsn)

    assert kinds(found) == ["silent"]
    assert found.recorded_at == from_us(feeder.minute(11))
    assert text.exit_code == 3 and "nothing was recorded since " in text.stdout


async def test_hours_in_which_nothing_is_done_are_wrong_where_jobs_are_usual(dsn: str, feeder: Feeder) -> None:
    for day in (1, 2, 3):
        for hour in (-1, 0, 1):
            await feeder.jobs(day * DAY + hour * 60, 100)
    await feeder.alive(*range(1, 60))
    await feeder.fold()
    await feeder.expire()

    found = await reported(dsn)

    assert kinds(found) == ["no_flow"]
    assert [(one.what, one.now) for one in found.changes] == [("jobs", 0.0)]


async def test_events_that_wait_too_long_are_wrong_and_late(
    dsn: str, feeder: Feeder, connection: Connection, tables: Tables
) -> None:
    await feeder.jobs(1, 1)
    await feeder.fold()
    await feeder.jobs(1, 1)
    await damage(connection, tables, "UPDATE {log} SET appended_at = appended_at - interval '200 s'")

    found = await reported(dsn)

    assert kinds(found) == ["pipeline"]
    assert found.problems[0].sentence.startswith("events have been waiting for 200 s")
    assert 200 <= found.numbers.lag_s < 260


async def test_what_verify_covered_and_found_is_said_and_nothing_more(dsn: str, feeder: Feeder) -> None:
    await feeder.jobs(1, 1)
    await feeder.fold()
    before = await reported(dsn)
    async with an_app(dsn) as (chancy, _):
        done = await verify(chancy)

    found, text = await reported(dsn), await ran(dsn)

    assert (before.numbers.verified_at, before.numbers.verified_share) == (None, 0.0)
    assert (found.numbers.verified_at, found.numbers.verified_share, found.numbers.open_faults) == (done.at, 1.0, 0)
    assert "100 % of them compared with the log, last " in text.stdout


async def test_marks_of_the_time_are_shown(dsn: str, feeder: Feeder) -> None:
    async with an_app(dsn) as (chancy, _):
        await mark(chancy, "deploy 1.42", at=from_us(feeder.minute(3)))
    await feeder.fold()

    found, text = await reported(dsn), await ran(dsn)

    assert [one.text for one in found.marks] == ["deploy 1.42"]
    assert "marked: " in text.stdout and "deploy 1.42" in text.stdout


async def test_a_time_to_come_is_refused(dsn: str, feeder: Feeder) -> None:
    with pytest.raises(WrongMoment, match="is not in the past"):
        await reported(dsn, from_us(feeder.minute(-5)))


@pytest.mark.slow
def test_a_time_longer_than_anything_is_kept_is_reported_as_far_as_it_is(dsn: str) -> None:
    done: Any = invoke(dsn, ["report", "--since", "2000d"])

    assert done.exit_code == 0, done.output
