"""A point is explained by exactly the events behind it, and they come to what is stored."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chancy_metrics.events.batch import DecodedBatch, LogBatch
from chancy_metrics.events.codec import decode_batch
from chancy_metrics.events.database import Connection, database_now_us
from chancy_metrics.events.errors import MetricsLogError, VersionRefused
from chancy_metrics.events.facts import EPOCH, KINDS, Combo, Kind
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Derived, JobColumns, Metrics
from chancy_metrics.plugin.audit.events import events
from chancy_metrics.plugin.audit.explain import explain
from chancy_metrics.plugin.audit.find_series import UnknownSeries
from chancy_metrics.plugin.audit.marks import mark, marks, take_back
from chancy_metrics.plugin.worker.retention import prune_days
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.explain import recompute as module
from chancy_metrics.projections.explain.recompute import PointKey, recompute
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.search import indexing, query
from chancy_metrics.projections.search.indexing import summarise
from chancy_metrics.projections.versions.expiry import expire
from chancy_metrics.projections.versions.replay import stored
from examples.embedded import Server
from tests.factories import LogWriter, a_database, a_row, a_run, an_app, fetch, now_us, sequence_all, sequence_and_fold

DAY_S = 86_400
DAY_US = DAY_S * 1_000_000
RETENTION = {"1min": 60, "5min": 288, "1hour": 168, "1day": 90}


def moment(at_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=at_us)


async def test_a_counter_of_job_updates_is_explained_down_to_the_jobs(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    at_us = now_us() - 60_000_000
    slow = a_row(at_us, state="failed", started_us=at_us - 9_000_000)._replace(
        combo=Combo("app.work", "default", "failed", 2, "ValueError")
    )
    await LogWriter(connection, tables, "w1").append(jobs=[a_row(at_us, state="failed"), slow, a_row(at_us)])
    await LogWriter(connection, tables, "w2").append(jobs=[a_row(at_us, state="failed", func="app.other")])
    await sequence_and_fold(connection, tables)

    async with an_app(dsn) as (chancy, _):
        found = await explain(chancy, "global:status:failed", moment(at_us), resolution="1hour", limit=2)

    assert found.equal and found.stored == found.recomputed and found.stored is not None
    assert (found.stored.count, found.events, found.pruned, found.source) == (3, 3, 0, "raw")
    assert found.by_func == [("app.work", 2), ("app.other", 1)]
    assert found.by_worker == [("w1", 2), ("w2", 1)]
    assert (found.by_state, found.by_error) == ([("failed", 3)], [("ValueError", 1)])
    assert [str(event.job_id) for event in found.largest][:1] == [str(found.failed[-1].job_id)]
    assert found.largest[0].run_s == 9.0 and found.largest[0].attempt == 2
    assert len(found.largest) == len(found.failed) == len(found.first) == 2
    assert "3 events in the log; recomputed: equal" in found.sentence


async def test_a_workers_point_has_quantiles_of_its_own(dsn: str, connection: Connection, tables: Tables) -> None:
    at_us = now_us() - 60_000_000
    run = a_run("app:size", [float(n) for n in range(1, 101)], kind="histogram", unit="MB", at_us=at_us)
    await LogWriter(connection, tables, "w1").append(runs=[run])
    await LogWriter(connection, tables, "w2").append(
        runs=[a_run("app:size", [1e9], kind="histogram", unit="MB", at_us=at_us)]
    )
    await sequence_and_fold(connection, tables)

    async with an_app(dsn) as (chancy, _):
        found = await explain(chancy, "app:size", moment(at_us), worker_id="w1")
        nobody = await explain(chancy, "app:size", moment(at_us), worker_id="w3")

    assert found.equal and found.stored is not None and found.stored.count == 100
    assert found.stored.p95 == pytest.approx(95, rel=0.0055)
    assert [event.value for event in found.largest[:2]] == [100.0, 99.0]
    assert (nobody.stored, nobody.recomputed, nobody.equal, nobody.source) == (None, None, None, "nothing")


async def test_a_batch_is_decoded_once_for_its_breakdown_and_its_fold(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_us = now_us() - 60_000_000
    writer = LogWriter(connection, tables)
    for _ in range(3):
        await writer.append(runs=[a_run("app:n", [1.0], at_us=at_us)])
    await sequence_and_fold(connection, tables)
    decoded: list[int] = []

    def decode(batch: LogBatch) -> DecodedBatch:
        decoded.append(batch.position)
        return decode_batch(batch)

    monkeypatch.setattr(module, "decode_batch", decode)
    async with an_app(dsn) as (chancy, _):
        found = await explain(chancy, "app:n", moment(at_us))

    assert (found.equal, found.events) == (True, 3)
    assert sorted(decoded) == [1, 2, 3]


async def test_what_was_changed_by_hand_is_not_what_the_events_come_to(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    at_us = now_us() - 60_000_000
    await LogWriter(connection, tables).append(runs=[a_run("app:n", [1.0, 2.0], at_us=at_us)])
    await sequence_and_fold(connection, tables)
    await fetch(connection, "UPDATE {r1day} SET count = 7", tables)

    async with an_app(dsn) as (chancy, _):
        found = await explain(chancy, "app:n", moment(at_us), resolution="1day")
        fine = await explain(chancy, "app:n", moment(at_us), resolution="1hour")

    assert (found.equal, found.difference) == (False, "observations 7 -> 2")
    assert "DIFFERENT: observations 7 -> 2" in found.sentence
    assert fine.equal


async def test_what_is_not_folded_yet_is_in_neither(dsn: str, connection: Connection, tables: Tables) -> None:
    at_us = now_us() - 60_000_000
    writer = LogWriter(connection, tables)
    await writer.append(runs=[a_run("app:n", [1.0], at_us=at_us)])
    await sequence_and_fold(connection, tables)
    await writer.append(runs=[a_run("app:n", [5.0], at_us=at_us)])
    await sequence_all(connection, tables)

    async with an_app(dsn) as (chancy, _):
        found = await explain(chancy, "app:n", moment(at_us))

    assert found.equal and found.events == 1 and found.stored is not None and found.stored.sum == 1.0


async def test_the_users_metric_is_explained_by_the_jobs_it_was_made_of(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    def failures(jobs: JobColumns) -> Any:
        rows = [row for row, combo in enumerate(jobs.combo.tolist()) if jobs.combos[combo].state == "failed"]
        yield Derived.counter("app:failures", rows)

    metrics = Metrics(rules=[failures], rules_version=1)
    at_us = now_us() - 60_000_000
    await fetch(
        connection, "UPDATE {versions} SET user_rules = 1, rule_names = '{{failures}}' WHERE version = 1", tables
    )
    bad = a_row(at_us, state="failed")
    await LogWriter(connection, tables).append(jobs=[a_row(at_us), bad])
    await sequence_and_fold(connection, tables, metrics.options.rules)

    async with an_app(dsn, metrics) as (chancy, _):
        found = await explain(chancy, "app:failures", moment(at_us))
    async with an_app(dsn) as (chancy, _):
        with pytest.raises(VersionRefused, match=r"can't explain: version 1 has rules 3\.1"):
            await explain(chancy, "app:failures", moment(at_us))

    assert found.equal and [event.job_id.bytes for event in found.first if event.job_id] == [bad.job_id]


async def test_events_are_in_their_order_whatever_the_order_of_a_rules_rows(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    def backwards(jobs: JobColumns) -> Any:
        rows = np.arange(len(jobs.at_us))[::-1]
        yield Derived.histogram("app:rows", rows, rows)

    metrics = Metrics(rules=[backwards], rules_version=1)
    at_us = now_us() - 60_000_000
    await fetch(
        connection, "UPDATE {versions} SET user_rules = 1, rule_names = '{{backwards}}' WHERE version = 1", tables
    )
    await LogWriter(connection, tables).append(jobs=[a_row(at_us) for _ in range(5)])
    await sequence_and_fold(connection, tables, metrics.options.rules)

    async with an_app(dsn, metrics) as (chancy, _):
        found = await explain(chancy, "app:rows", moment(at_us), limit=3)

    assert found.equal and found.stored is not None and found.stored.sum == 10
    assert [event.index for event in found.first] == [0, 1, 2]
    assert [event.index for event in found.largest] == [4, 3, 2]


async def test_an_update_that_never_ran_feeds_no_time(dsn: str, connection: Connection, tables: Tables) -> None:
    at_us = now_us() - 60_000_000
    jobs = [a_row(at_us), a_row(at_us, completed_us=None), a_row(at_us, started_us=None, completed_us=None)]
    await LogWriter(connection, tables).append(jobs=jobs)
    await sequence_and_fold(connection, tables)

    async with an_app(dsn) as (chancy, _):
        ran = await explain(chancy, "queue:default:execution_time", moment(at_us))
        waited = await explain(chancy, "queue:default:wait_time", moment(at_us))
        counted = await explain(chancy, "queue:default:throughput", moment(at_us))

    assert ran.equal and waited.equal and counted.equal
    assert (ran.events, waited.events, counted.events) == (1, 2, 3)


async def test_what_is_folded_while_a_point_is_explained_is_in_both_numbers(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_us = now_us() - 60_000_000
    writers = {name: LogWriter(connection, tables, name) for name in ("w1", "w2")}
    replay = module._Attempt._replay

    async def more() -> None:
        for number, writer in enumerate(writers.values()):
            await writer.append(runs=[a_run("app:n", [10.0**number], at_us=at_us)])
        await sequence_and_fold(connection, tables)

    async def replay_and_more(self: module._Attempt, *arguments: Any) -> None:
        await replay(self, *arguments)
        await more()

    await more()
    monkeypatch.setattr(module._Attempt, "_replay", replay_and_more)
    async with an_app(dsn) as (chancy, _):
        mine = await explain(chancy, "app:n", moment(at_us), worker_id="w1")
        everybodys = await explain(chancy, "app:n", moment(at_us))

    assert mine.equal and everybodys.equal, (mine.difference, everybodys.difference)
    assert (mine.events, everybodys.events) == (2, 6)


async def test_what_only_waits_for_clean_up_is_not_shown(dsn: str, connection: Connection, tables: Tables) -> None:
    at_us = now_us() - 60_000_000
    await LogWriter(connection, tables).append(runs=[a_run("app:n", [1.0], at_us=at_us)])
    await sequence_and_fold(connection, tables)
    await fetch(connection, "UPDATE {versions} SET horizon_1min = 2::bigint ^ 40 WHERE version = 1", tables)

    async with an_app(dsn) as (chancy, _):
        found = await explain(chancy, "app:n", moment(at_us))

    assert (found.stored, found.equal, found.events) == (None, None, 1)
    assert "its bucket is not kept any more" in found.sentence


async def test_an_unknown_series_is_refused_with_near_misses(dsn: str, connection: Connection, tables: Tables) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("orders:placed"), a_run("orders:placed", kind="gauge")])
    await sequence_and_fold(connection, tables)

    async with an_app(dsn) as (chancy, _):
        with pytest.raises(UnknownSeries, match="nothing was recorded under 'order:placed'; near are 'orders:placed'"):
            await explain(chancy, "order:placed", datetime.now(UTC))
        with pytest.raises(UnknownSeries, match="there is counter in count, gauge in count"):
            await explain(chancy, "orders:placed", datetime.now(UTC), unit="EUR")
        with pytest.raises(MetricsLogError, match="take one of 1min, 5min, 1hour, 1day"):
            await explain(chancy, "orders:placed", datetime.now(UTC), resolution="1week")
        with pytest.raises(MetricsLogError, match="has no zone"):
            await explain(chancy, "orders:placed", datetime(2026, 3, 10))
        shown = await explain(chancy, "orders:placed:gauge:count", datetime.now(UTC))
        hostile = "a'b%(x)s\x00<b>‮"
        with pytest.raises(UnknownSeries):
            await explain(chancy, hostile, datetime.now(UTC))

    assert shown.kind == "gauge"


async def test_of_a_pruned_day_the_baseline_vouches(dsn: str, connection: Connection, tables: Tables) -> None:
    await old_days(connection, tables, 3)
    writer = LogWriter(connection, tables)
    base_us = (now_us() // DAY_US - 3) * DAY_US
    await writer.append(runs=[a_run("app:n", [1.0] * 4, at_us=base_us)], day=moment(base_us).date())
    await sequence_and_fold(connection, tables)
    await writer.append(runs=[a_run("app:n", [10.0], at_us=base_us + 5)])  # late, in a day that stays
    await sequence_and_fold(connection, tables)
    await expire(connection, tables, horizons(now_us(), RETENTION, 90 * DAY_S))
    await pruned(connection, tables)

    async with an_app(dsn) as (chancy, _):
        found = await explain(chancy, "app:n", moment(base_us), resolution="1day")
        gone = await explain(chancy, "app:n", moment(base_us), resolution="1min")

    assert found.equal and found.stored is not None
    assert (found.stored.count, found.events, found.pruned, found.source) == (5, 1, 4, "baseline and raw")
    assert "4 observations of days that have left it, in the baseline" in found.sentence
    assert gone.stored is None and "at 1min its bucket is not kept any more" in gone.sentence


async def old_days(connection: Connection, tables: Tables, days: int) -> None:
    await make_days(connection, tables, today=moment(now_us() - days * DAY_US).date(), ahead=days)


async def pruned(connection: Connection, tables: Tables) -> None:
    async with connection.cursor() as cursor:
        now = await database_now_us(cursor)
    while True:
        done = await prune_days(connection, tables, BUILT_IN, now_us=now, log_retention_s=86_400)
        if not done:
            return
        assert not done[0].blocker, done


class Batch(NamedTuple):
    """A batch of w1 or w2 in a day of the log; its events may lie in another one, microseconds from the first."""

    day: int
    writer: int
    jobs: list[tuple[int, str, dict[str, None]]]
    runs: list[tuple[Kind, int, list[float]]]


#: What an update may not know.
TIMES: list[dict[str, None]] = [{}, {"completed_us": None}, {"started_us": None, "completed_us": None}]
at = st.integers(0, 3 * DAY_US - 1)
values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4)
batches = st.builds(
    Batch,
    st.integers(0, 2),
    st.integers(0, 1),
    st.lists(st.tuples(at, st.sampled_from(["failed", "succeeded", "retrying"]), st.sampled_from(TIMES)), max_size=4),
    st.lists(st.tuples(st.sampled_from(KINDS), at, values), max_size=3),
)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(batches, min_size=1, max_size=4))
async def test_every_stored_point_is_explained_by_its_events_before_and_after_a_prune(
    drawn: list[Batch], server: Server, template: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "RANGE_BATCHES", 1)
    first_us = (now_us() // DAY_US - 3) * DAY_US
    async with a_database(server, template) as connection:
        await old_days(connection, tables, 3)
        writers = [LogWriter(connection, tables, name) for name in ("w1", "w2")]
        for batch in drawn:
            jobs = [a_row(first_us + at_us, state=state, **times) for at_us, state, times in batch.jobs]
            runs = [a_run("app:a", some, kind=kind, at_us=first_us + at_us) for kind, at_us, some in batch.runs]
            day = moment(first_us + batch.day * DAY_US).date()
            await writers[batch.writer].append(jobs=jobs, runs=runs, day=day)
        await sequence_and_fold(connection, tables)
        await explain_stored(connection, tables)
        while await summarise(connection, tables):
            pass
        await explain_stored(connection, tables)
        await pruned(connection, tables)
        await explain_stored(connection, tables)


async def explain_stored(connection: Connection, tables: Tables) -> None:
    points = await stored(connection, tables)
    for point in points[:: max(1, len(points) // 6)]:
        key = PointKey(point.series, point.resolution, point.bucket, point.worker)
        made = await recompute(connection, tables, BUILT_IN, key, limit=3)
        assert made.difference == "", key
        assert made.stored == point
        assert made.breakdown.events + (made.baseline.observations if made.baseline else 0) == point.observations
        assert sum(made.breakdown.by["worker"].values()) == made.breakdown.events


async def test_marks_are_events_like_any_other(dsn: str, connection: Connection, tables: Tables) -> None:
    before = datetime.now(UTC) - timedelta(minutes=10)

    async with an_app(dsn) as (chancy, _):
        await mark(chancy, "deploy 1.42", by="ann")
        await mark(chancy, "rollback", at=before)
        with pytest.raises(MetricsLogError, match="lies ahead"):
            await mark(chancy, "later", at=datetime.now(UTC) + timedelta(hours=1))
        with pytest.raises(MetricsLogError, match="needs a text"):
            await mark(chancy, "  ")
        with pytest.raises(MetricsLogError, match="at most 1024 are kept"):
            await mark(chancy, "x" * 1_100)
        await sequence_and_fold(connection, tables)
        found = await marks(chancy)
        recent = await marks(chancy, before + timedelta(seconds=1))
        explained = await explain(chancy, "mark:rollback", before)

    assert [(one.text, one.count) for one in found] == [("rollback", 1), ("deploy 1.42", 1)]
    assert abs(found[0].at - before) < timedelta(microseconds=2)
    assert [one.text for one in recent] == ["deploy 1.42"]
    assert explained.equal and [one.text for one in explained.marks] == ["rollback"]


async def test_a_mark_that_is_taken_back_is_shown_no_more(dsn: str, connection: Connection, tables: Tables) -> None:
    at = datetime.now(UTC).replace(microsecond=250_000) - timedelta(minutes=3)

    async with an_app(dsn) as (chancy, _):
        await mark(chancy, "deploy", at=at - timedelta(hours=1))
        await mark(chancy, "deploy", at=at)
        await mark(chancy, "other", at=at)
        await sequence_and_fold(connection, tables)
        first = await take_back(chancy, "deploy", at=at.replace(microsecond=0), by="ann")
        await sequence_and_fold(connection, tables)
        again = await take_back(chancy, "deploy", at=at)
        left = await marks(chancy)
        by_place = await take_back(chancy, cursor=query.EventCursor(3, 0))
        last = await take_back(chancy, "deploy")
        await sequence_and_fold(connection, tables)
        none = await marks(chancy)
        explained = await explain(chancy, "mark:deploy", at)
        kept = [(one.value, one.worker) async for one in events(chancy, query.EventQuery(key="mark:deploy", since=at))]
        for wrong in (
            {"text": "never"},
            {"text": "deploy", "at": at - timedelta(days=1)},
            {"cursor": query.EventCursor(9, 0)},
        ):
            with pytest.raises(MetricsLogError, match="audit events --prefix mark"):
                await take_back(chancy, **wrong)

    assert (first.text, first.again, again.again) == ("deploy", False, True)
    assert abs(first.at - at) < timedelta(microseconds=2)
    assert [(one.text, one.count) for one in left] == [("deploy", 1), ("other", 1)]
    assert (by_place.text, by_place.again) == ("other", False)
    assert last.at == left[0].at
    assert none == explained.marks == []
    assert explained.equal
    assert [value for value, _ in kept] == [1.0, -1.0] and kept[1][1] == "ann"


async def test_two_who_take_a_mark_back_at_once_take_it_back_once(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    at = datetime.now(UTC).replace(second=10, microsecond=0) - timedelta(minutes=3)
    later = at + timedelta(seconds=30)

    async with an_app(dsn) as (chancy, _):
        await mark(chancy, "deploy", at=at)
        await mark(chancy, "deploy", at=later)
        await sequence_and_fold(connection, tables)
        both = await asyncio.gather(*[take_back(chancy, "deploy", at=later, by=by) for by in ("ann", "bob")])
        once_more = await take_back(chancy, "deploy", at=later)  # before a fold has shown the others
        await sequence_and_fold(connection, tables)
        left = await marks(chancy)
        await mark(chancy, "deploy", at=later)
        await sequence_and_fold(connection, tables)
        anew = await take_back(chancy, "deploy", at=later)
        await sequence_and_fold(connection, tables)
        values = [one.value async for one in events(chancy, query.EventQuery(key="mark:deploy"))]

    assert [one.again for one in both].count(False) >= 1 and once_more.again and not anew.again
    assert [(one.text, one.count) for one in left] == [("deploy", 1)]
    assert values == [1.0, 1.0, -1.0, 1.0, -1.0]


def test_the_commands_explain_a_point_and_mark_a_moment(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from chancy_metrics.plugin.cli.main import main

    monkeypatch.setenv("DSN", dsn)
    at = datetime.now(UTC) - timedelta(minutes=2)
    marked = CliRunner().invoke(main, ["--app", "tests.app.chancy", "mark", "deploy\x1b[31m 1", "--at", at.isoformat()])
    assert marked.exit_code == 0, marked.output
    assert "\x1b" not in marked.output and "deploy\\u001b[31m 1; shown within" in marked.output
    old = CliRunner().invoke(main, ["--app", "tests.app.chancy", "mark", "founded", "--at", "1984-05-01"])
    assert "older than every kept bucket, so only `audit events` shows it" in old.output
    assert CliRunner().invoke(main, ["--app", "tests.app.chancy", "fold"]).exit_code == 0

    command = ["--app", "tests.app.chancy", "audit", "explain", "mark:deploy\x1b[31m 1", "--at", at.isoformat()]
    text = CliRunner().invoke(main, command)
    spoken = CliRunner().invoke(main, [*command, "--json"])

    assert text.exit_code == spoken.exit_code == 0, text.output
    assert "recomputed: equal" in text.output and "\x1b" not in text.output
    assert json.loads(spoken.output)["stored"]["count"] == 1
    assert CliRunner().invoke(main, [*command[:4], "nothing:here", "--at", "1h"]).exit_code == 1
