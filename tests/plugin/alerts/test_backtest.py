"""Rules are replayed over a real log: stored points of each resolution, gaps in it, and series without points."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from chancy import Queue
from click.testing import Result

from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import MetricsLogError, WrongMoment
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import backtest
from chancy_metrics.plugin.alerts import watched
from chancy_metrics.plugin.alerts.backtest import Backtest
from chancy_metrics.plugin.alerts.outcome import RuleReplay
from chancy_metrics.plugin.host.moments import from_us
from chancy_metrics.plugin.worker.queue_health import gauges, sample
from tests.factories import an_app
from tests.feeder import Feeder
from tests.processes import ROOT
from tests.reading import invoke


def rules_file(folder: Path, *rules: str) -> Path:
    path = folder / "rules.toml"
    path.write_text("".join(f"[[rule]]\nname = 'rule {n}'\n{rule}\n" for n, rule in enumerate(rules, 1)))
    return path


async def replayed(dsn: str, path: Path, since_us: int) -> Backtest:
    async with an_app(dsn) as (chancy, _):
        return await backtest(chancy, path, since=from_us(since_us))


async def replay(dsn: str, folder: Path, rule: str, since_us: int) -> RuleReplay:
    return (await replayed(dsn, rules_file(folder, rule), since_us)).rules[0]


@pytest.fixture
def feeder(connection: Connection, tables: Tables) -> Feeder:
    return Feeder(connection, tables)


WAIT = "queue:mail:oldest_wait_seconds"


async def test_a_queue_that_stopped_for_a_minute_fires_the_oldest_wait_rule(
    dsn: str, feeder: Feeder, tmp_path: Path
) -> None:
    await feeder.gauge(WAIT, dict.fromkeys(range(2, 12), 0.2) | {7: 31.0, 6: 64.0, 5: 12.0})
    await feeder.gauge("queue:other:oldest_wait_seconds", dict.fromkeys(range(2, 12), 0.1))
    await feeder.fold()

    found = await replay(dsn, tmp_path, "series = 'queue:*:oldest_wait_seconds'\nabove = 30", feeder.minute(11))

    (only,) = found.firings
    assert (only.key, only.worst, only.firing_s, only.unknown_s, only.width_s) == (WAIT, 64.0, 120.0, 0.0, 60)
    assert (only.since, only.until) == (from_us(feeder.minute(7)), from_us(feeder.minute(5)))
    assert only.worst_at == from_us(feeder.minute(6))
    assert (found.series, found.worst, found.worst_key, found.unit) == (2, 64.0, WAIT, "seconds")
    assert found.condition == "max of queue:*:oldest_wait_seconds above 30 seconds"


async def test_what_the_leader_samples_of_a_queue_that_nobody_serves_fires(
    dsn: str, feeder: Feeder, connection: Connection, tmp_path: Path
) -> None:
    async with an_app(dsn) as (chancy, _):
        await chancy.declare(Queue("mail"))
    due_at = from_us(feeder.minute(8))
    await connection.execute(
        "INSERT INTO chancy_jobs (id, func, queue, state, created_at, scheduled_at)"
        " VALUES (gen_random_uuid(), 'app.send', 'mail', 'pending', %(at)s, %(at)s)",
        {"at": due_at},
    )
    for ago in range(10, 1, -1):
        if ago == 5:  # a worker takes it at last
            await connection.execute("UPDATE chancy_jobs SET state = 'running', started_at = scheduled_at")
        await feeder.measure(ago, gauges(await sample(connection, "chancy_", now=from_us(feeder.minute(ago))), {}))
    await feeder.fold()

    found = await replay(dsn, tmp_path, f"series = '{WAIT}'\nabove = 30", feeder.minute(10))

    (only,) = found.firings
    assert (only.since, only.until) == (due_at + timedelta(minutes=1), due_at + timedelta(minutes=3))
    assert (only.worst, found.known) == (120.0, pytest.approx(9 / 10, abs=0.1))


async def test_where_the_log_holds_nothing_a_rule_neither_fires_nor_resolves(
    dsn: str, feeder: Feeder, tmp_path: Path
) -> None:
    await feeder.gauge(WAIT, {9: 50.0, 8: 60.0, 3: 70.0, 2: 0.0})

    await feeder.fold()
    found = await replay(dsn, tmp_path, f"series = '{WAIT}'\nabove = 30\nfor = '1m'", feeder.minute(10))

    (only,) = found.firings
    assert (only.firing_s, only.unknown_s, only.worst) == (6 * 60.0, 4 * 60.0, 70.0)


async def test_a_counter_without_points_is_zero_while_the_log_holds_anything(
    dsn: str, feeder: Feeder, tmp_path: Path
) -> None:
    await feeder.jobs(9, 3)
    await feeder.alive(8, 7, 3, 2)
    await feeder.fold()
    rules = rules_file(
        tmp_path,
        "series = 'global:status:succeeded'\nwindow = '1m'\nbelow = 1",
        "series = 'global:status:succeeded'\nwindow = '1m'\nabove = 2",
        "series = 'global:status:failed'\nwindow = '1m'\nabove = 0",
        "series = 'job:app.work:succeeded'\nabsent = true",
    )

    found = await replayed(dsn, rules, feeder.minute(9))

    silent, busy, never, absent = found.rules
    seconds = found.until.timestamp() - feeder.minute(8) / 1e6
    assert [(one.firing_s, one.unknown_s) for one in silent.firings] == [(seconds, seconds - 4 * 60)]
    assert silent.firings[0].until is None
    assert [(one.firing_s, one.worst) for one in busy.firings] == [(60.0, 3.0)]
    assert (never.firings, never.worst, never.series) == ([], 0.0, 1)
    assert [one.unknown_s for one in absent.firings] == [seconds - 4 * 60]
    assert silent.known == 5 * 60 / (seconds + 60)


async def test_older_times_are_judged_by_coarser_buckets_and_say_so(dsn: str, feeder: Feeder, tmp_path: Path) -> None:
    await feeder.gauge(WAIT, {3 * 1_440: 100.0, 3 * 1_440 - 120: 1.0, 180: 90.0, 150: 1.0, 3: 80.0, 2: 1.0})
    await feeder.fold()
    await feeder.expire()

    found = await replayed(dsn, rules_file(tmp_path, f"series = '{WAIT}'\nabove = 30"), feeder.minute(4 * 1_440))

    assert [one.resolution for one in found.judged] == ["1hour", "5min", "1min"]
    assert all(one.until == after.since for one, after in pairwise(found.judged))
    assert [(one.worst, one.width_s) for one in found.rules[0].firings] == [(100.0, 3_600), (90.0, 300), (80.0, 60)]
    assert found.rules[0].known < 0.1


async def test_a_quantile_of_a_window_is_of_its_sketches_together(dsn: str, feeder: Feeder, tmp_path: Path) -> None:
    await feeder.histogram("app:t", {5: [1.0] * 99, 4: [100.0]})  # the mean of the two medians is 50
    await feeder.alive(6, 3, 2)
    await feeder.fold()

    found = await replay(dsn, tmp_path, "series = 'app:t'\nvalue = 'p50'\nwindow = '2m'\nabove = 10", feeder.minute(5))
    alone = await replay(dsn, tmp_path, "series = 'app:t'\nvalue = 'p50'\nabove = 10", feeder.minute(5))

    assert [one.worst for one in found.firings] == [100.0]  # the window that has only the last bucket
    assert [one.firing_s for one in found.firings] == [60.0]
    assert [one.firing_s for one in alone.firings] == [60.0]
    assert found.firings[0].since == alone.firings[0].since + timedelta(minutes=1)


async def test_a_share_is_one_counter_of_several_for_each_function(dsn: str, feeder: Feeder, tmp_path: Path) -> None:
    for ago in (5, 4):
        await feeder.jobs(ago, 8, func="app.good")
        await feeder.jobs(ago, 6, func="app.bad")
        await feeder.jobs(ago, 4, func="app.bad", state="failed")
    await feeder.alive(6, 3, 2)
    await feeder.fold()
    rule = "series = 'job:*:failed'\nof = ['job:*:failed', 'job:*:succeeded']\nwindow = '2m'\nabove = 0.3\n"

    found = await replay(dsn, tmp_path, f"{rule}min_count = 15", feeder.minute(6))

    assert [(one.key, one.worst, one.firing_s) for one in found.firings] == [("job:app.bad:failed", 0.4, 60.0)]
    assert (found.series, found.is_share, found.unit) == (2, True, "")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (
            "queue:mial:failed",
            "rule 'rule 1': nothing was recorded under 'queue:mial:failed'; near is 'queue:mail:succeeded'",
        ),
        ("app:*", "rule 'rule 1': nothing was recorded under 'app:*'"),
        ("global:status:faild", "nothing was recorded under 'global:status:faild'; near"),
    ],
)
async def test_an_unknown_series_is_refused_with_those_that_are_near(
    dsn: str, feeder: Feeder, tmp_path: Path, key: str, words: str
) -> None:
    await feeder.jobs(3, 1, queue="mail")
    await feeder.fold()

    with pytest.raises(MetricsLogError) as refused:
        await replay(dsn, tmp_path, f"series = '{key}'\nwindow = '1m'\nabove = 1", feeder.minute(5))

    assert words in str(refused.value)


async def test_a_star_that_matches_too_many_series_is_refused(
    dsn: str, feeder: Feeder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "MAX_WATCHED", 2)
    await feeder.gauge("app:a", {2: 1.0})
    await feeder.gauge("app:b", {2: 1.0})
    await feeder.gauge("app:c", {2: 1.0})
    await feeder.fold()

    with pytest.raises(MetricsLogError, match="'app:\\*' matches 3 series, and a rule watches at most 2"):
        await replay(dsn, tmp_path, "series = 'app:*'\nabove = 1", feeder.minute(5))


async def test_a_moment_that_is_not_over_is_refused(dsn: str, feeder: Feeder, tmp_path: Path) -> None:
    await feeder.gauge(WAIT, {2: 1.0})
    await feeder.fold()

    with pytest.raises(WrongMoment, match="is not before"):
        await replay(dsn, tmp_path, f"series = '{WAIT}'\nabove = 1", feeder.minute(-5))


def ran(dsn: str, *arguments: str) -> Result:
    return invoke(dsn, ["backtest", *arguments])


def test_the_example_runs_on_an_empty_log_and_says_that_nothing_was_judged(dsn: str) -> None:
    done = ran(dsn, str(ROOT / "examples" / "alerts.toml"), "--since", "1h")

    assert done.exit_code == 0, done.output
    assert "a queue waits: no series matches yet" in done.output
    assert "nothing is done: could not be judged" in done.output


async def test_the_command_says_when_a_rule_fired_and_json_has_the_same(
    dsn: str, feeder: Feeder, tmp_path: Path
) -> None:
    hostile = "queue:\x1b[2Jmail:oldest_wait_seconds"
    await feeder.gauge(WAIT, dict.fromkeys(range(2, 12), 1.0) | {7: 31.0, 6: 64.0})
    await feeder.gauge(hostile, dict.fromkeys(range(2, 12), 1.0) | {4: 50.0})
    await feeder.fold()
    path = str(
        rules_file(tmp_path, "series = 'queue:*:oldest_wait_seconds'\nabove = 30", f"series = '{WAIT}'\nabove = 99")
    )

    text = await anyio.to_thread.run_sync(ran, dsn, path, "--since", "30m")
    spoken = await anyio.to_thread.run_sync(ran, dsn, path, "--since", "30m", "--json")

    assert text.exit_code == spoken.exit_code == 0, text.output
    assert "rule 1: fired twice, 3 min in all, the longest 2 min" in text.output
    assert "worst 64 at " in text.output
    assert "queue:\\u001b[2Jmail:oldest_wait_seconds" in text.output and "\x1b" not in text.output
    assert "rule 2: never fired" in text.output
    assert "the log holds nothing of " in text.output
    found = json.loads(spoken.stdout)
    assert [one["key"] for one in found["rules"][0]["firings"]] == [WAIT, hostile]
    assert found["rules"][1]["worst"] == 64.0
