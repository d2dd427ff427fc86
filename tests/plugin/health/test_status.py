"""What `status` says of versions, of folding and of days that should have left the log."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import msgspec
import pytest

from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import SchemaMissing
from chancy_metrics.events.partitions import close_day, make_days
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.cli.status import status_lines
from chancy_metrics.plugin.health.status import Status
from chancy_metrics.plugin.health.status_reader import read_status
from chancy_metrics.plugin.rebuilds.rebuild import rebuild
from chancy_metrics.plugin.rebuilds.rollout import STANDSTILL_S, Rollout, standstill_after_s
from chancy_metrics.plugin.rebuilds.swap import swap, undo
from chancy_metrics.plugin.telemetry.totals import read_totals
from chancy_metrics.plugin.worker.retention import DueDay
from chancy_metrics.projections.rules.rule_set import BUILT_IN, RuleSet, label
from chancy_metrics.projections.totals.advance import advance_totals
from chancy_metrics.projections.totals.generation import begin_generation
from chancy_metrics.projections.versions.create import make_version
from tests import rules
from tests.factories import (
    LogWriter,
    a_run,
    an_app,
    connections,
    damage,
    fetch,
    sequence_all,
    sequence_and_fold,
    today,
)

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


async def status(dsn: str, *made_by: Callable[..., Any], version: int = 0, **options: Any) -> Status:
    async with an_app(dsn, Metrics(rules=made_by, rules_version=version, **options)) as (chancy, _):
        return await read_status(chancy)


def line(found: Status, name: str) -> str:
    """What the text says beside *name*."""
    return next(line[15:].strip() for line in status_lines(found) if line.startswith(f"{name} "))


async def let_wait(connection: Connection, tables: Tables, seconds: int, *, silent_s: int | None = None) -> None:
    """Let an ordered event wait for so long already, and the last fold be as long ago (or *silent_s*)."""
    await LogWriter(connection, tables).append(runs=[a_run()])
    await sequence_all(connection, tables)
    await damage(connection, tables, f"UPDATE {{log}} SET appended_at = appended_at - interval '{seconds} s'")
    silent = seconds if silent_s is None else silent_s
    await fetch(
        connection,
        f"UPDATE {{versions}} SET folded_by = 'ann', folded_at = clock_timestamp() - interval '{silent} s'"
        " WHERE status = 'live'",
        tables,
    )


async def test_a_batch_that_waits_for_newer_code_is_named_with_its_end(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await LogWriter(connection, tables, "w9").append(batch=encode((), [a_run()])._replace(codec=7))
    await damage(connection, tables, "UPDATE {log} SET appended_at = '2026-03-10 12:00Z'")
    before = await status(dsn)
    await sequence_all(connection, tables)

    found = await status(dsn)

    assert before.waited_for == ""
    assert found.waited_for.startswith("position 1, by worker 'w9', has codec 7, which this code does not know")
    assert "left out after 2026-03-10 12:10:00 UTC" in line(found, "newer code")
    assert any("events have been waiting" in reason and "has codec 7" in reason for reason in found.unhealthy)


async def test_the_verdict_comes_last_and_a_new_database_is_healthy(dsn: str) -> None:
    found = await status(dsn)

    assert (found.version, found.rules, found.app_rules, found.rules_note) == (1, "3.0", "3.0", "")
    assert (found.unfinished, found.due_day, found.unhealthy) == ([], None, [])
    assert line(found, "version") == "1, rules 3.0"
    assert line(found, "retention") == "no day is due for pruning"
    assert (line(found, "folded by"), line(found, "last fold")) == ("nobody", "never")
    assert line(found, "days") == f"{found.first_day} to {found.last_day} have a partition, 21 days ahead"
    assert line(found, "other tables").endswith(" kB, 0 series")
    assert status_lines(found)[-1] == "healthy as far as checked"
    assert status_lines(msgspec.structs.replace(found, not_looked_at=[]))[-1] == "healthy"


async def test_newer_rules_are_named_and_what_comes_of_them(dsn: str, connection: Connection, tables: Tables) -> None:
    by_itself = await status(dsn, rules.first, version=4)
    asked = await status(dsn, rules.first, version=4, auto_rebuild=False)

    assert (by_itself.rules, by_itself.app_rules) == ("3.0", "3.4")
    assert by_itself.rules_note == (
        "rules 3.4 are newer: a worker of this app backfills a version of its own and promotes it"
    )
    assert asked.rules_note == (
        "version 1 has rules 3.0, this code has 3.4: a rebuild is due, run `chancy-metrics rebuild`"
    )
    assert line(asked, "this app") == f"rules 3.4; {asked.rules_note}"
    assert by_itself.unhealthy == asked.unhealthy == []


async def test_rules_that_an_undo_has_left_and_older_ones_are_said_to_be_that(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with an_app(dsn, Metrics(rules=[rules.first], rules_version=1)) as (old, _):
        await rebuild(old)
        async with an_app(dsn, Metrics(rules=[rules.second], rules_version=2)) as (new, _):
            await rebuild(new)
            assert await undo(old) == 2
            blocked_rules = await status(dsn, rules.second, version=2)
            await swap(new, 3)
    older = await status(dsn, rules.first, version=1)

    assert blocked_rules.rules_note == (
        "version 2 has rules 3.1, this code has 3.2, which an undo has blocked: "
        "`chancy-metrics swap` or `rebuild` promotes them again"
    )
    assert older.rules_note == (
        "version 3 has rules 3.2, this code has 3.1: this worker records and reads, and leaves folding to newer code"
    )
    assert blocked_rules.unhealthy == older.unhealthy == []


async def test_equal_numbers_with_other_rules_are_unhealthy(dsn: str, connection: Connection, tables: Tables) -> None:
    async with an_app(dsn, Metrics(rules=[rules.first], rules_version=1)) as (chancy, _):
        await rebuild(chancy)

    found = await status(dsn, rules.second, version=1)

    assert found.unhealthy == [
        "this app can't fold: version 2 was made by rules 3.1 named first, this code's 3.1 are named second: "
        "raise rules_version where rules change"
    ]
    await let_wait(connection, tables, 660)
    waits, _ = (await status(dsn, rules.second, version=1, sync_interval=1)).unhealthy
    assert waits.endswith(": no worker has folded for 660 s; start one")


@pytest.mark.parametrize(
    ("waits", "silent", "says"),
    [
        (660, 660, "no worker has folded for 660 s; start one or run `chancy-metrics fold`"),
        (120, 120, "no worker has folded for 120 s; start one or run `chancy-metrics fold`"),
        (120, 1, "ann folds but does not keep up"),
    ],
)
async def test_where_events_wait_it_says_since_when_nobody_folds_or_who_is_too_slow(
    dsn: str, connection: Connection, tables: Tables, waits: int, silent: int, says: str
) -> None:
    await let_wait(connection, tables, waits, silent_s=silent)

    found = await status(dsn, sync_interval=1)

    [reason] = found.unhealthy
    assert reason.startswith(f"events have been waiting for {waits}")
    assert reason.endswith(says)


async def test_where_only_other_code_can_fold_it_says_which(dsn: str, connection: Connection, tables: Tables) -> None:
    async with an_app(dsn, Metrics(rules=[rules.first], rules_version=1)) as (chancy, _):
        await rebuild(chancy)
    await let_wait(connection, tables, 120)
    soon = await status(dsn, sync_interval=1)
    await let_wait(connection, tables, STANDSTILL_S + 60)
    late = await status(dsn, sync_interval=1)

    [waits], [stands_still] = soon.unhealthy, late.unhealthy
    assert waits.endswith(": no worker with rules 3.1 folds, and this app has 3.0; start one")
    assert stands_still.endswith(
        ": nobody folds the live version: version 2 has rules 3.1, this code has 3.0; "
        "start a worker with rules 3.1, or one of this app, which then promotes a version of its own"
    )


async def test_a_standstill_is_more_than_three_of_the_intervals_in_which_it_folds(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with an_app(dsn, Metrics(rules=[rules.first], rules_version=1)) as (chancy, _):
        await rebuild(chancy)
    await let_wait(connection, tables, 3_700)

    async with an_app(dsn, Metrics(sync_interval=1_800)) as (chancy, metrics):
        seldom = await Rollout(chancy, "w", metrics.options, chancy.log).run_once()
        found = await read_status(chancy)

    assert (standstill_after_s(1), standstill_after_s(1_800)) == (STANDSTILL_S, 5_400)
    assert (seldom.cause, found.version, found.unhealthy) == (None, 2, [])


async def test_an_unfinished_version_is_shown_with_who_fills_it_and_what_remains(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    for _ in range(3):
        await LogWriter(connection, tables).append(runs=[a_run()])
    await sequence_and_fold(connection, tables)
    newer = RuleSet(user=4, rules=(rules.first,))
    async with connections(dsn, 1) as (filler,):
        await filler.execute("SET application_name = 'rebuild by ann'")
        await make_version(filler, tables, newer, dict.fromkeys(RESOLUTIONS, 0), by="rebuild by ann")
        await fetch(connection, "UPDATE {versions} SET status = 'backfilling', position = 1 WHERE version = 2", tables)

        [one] = (found := await status(dsn)).unfinished

    assert (one.version, one.status, one.rules, one.position, one.remaining) == (2, "backfilling", "3.4", 1, 2)
    assert (one.filled_by, one.is_filled) == ("rebuild by ann", True)
    assert line(found, "version 2") == "backfilling, rules 3.4, position 1, 2 batches left"
    assert line(found, "  of 2").startswith("backfilled by rebuild by ann, last step 20")


async def test_an_unfinished_version_that_nobody_fills_any_more_and_one_that_waits_for_a_swap(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    newer = RuleSet(user=4, rules=(rules.first,))
    await make_version(connection, tables, newer, dict.fromkeys(RESOLUTIONS, 0), by="gone")

    left = await status(dsn)
    await fetch(connection, "UPDATE {versions} SET status = 'ready', kept_until = '2026-03-10 12:00Z'", tables)
    await fetch(connection, "UPDATE {versions} SET status = 'live' WHERE version = 1", tables)
    ready = await status(dsn)

    assert (left.unfinished[0].is_filled, left.unhealthy) == (False, [])
    said = line(left, "  of 2")
    assert said.startswith("backfilled by nobody since 20")
    assert said.endswith("UTC: `rebuild` resumes it, `rebuild --abort` ends it")
    assert [one.kept_until for one in ready.unfinished if one.version == 2] == [NOON]
    assert line(ready, "version 2") == "ready, rules 3.4, position 0, 0 batches left"
    assert line(ready, "  of 2") == "kept until 2026-03-10 12:00:00 UTC for `swap`"


async def a_day(connection: Connection, tables: Tables, days_ago: int) -> date:
    """A day of the log with a batch that is in the numbers."""
    day = today() - timedelta(days=days_ago)
    await make_days(connection, tables, today=day, ahead=0)
    await LogWriter(connection, tables).append(runs=[a_run()], day=day)
    await sequence_and_fold(connection, tables)
    return day


async def test_a_day_that_is_due_is_no_fault_and_one_that_hangs_for_a_day_is(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    day = await a_day(connection, tables, 4)
    assert await close_day(connection, tables, day) is None
    newer = RuleSet(user=4, rules=(rules.first,))
    await make_version(connection, tables, newer, dict.fromkeys(RESOLUTIONS, 0), by="gone")

    due = await status(dsn, log_retention=3 * 86_400)
    overdue = await status(dsn, log_retention=86_400)

    blocker = (
        f"version 2 (copying) is at position 0, and {day} ends at 1: "
        "finish it with `chancy-metrics rebuild`, or drop it with `chancy-metrics rebuild --abort`"
    )
    assert due.due_day is not None and overdue.due_day is not None
    assert (due.due_day.state, due.due_day.blocker, due.unhealthy) == ("closed", blocker, [])
    assert due.due_day.due_at == datetime.combine(day + timedelta(days=4), time(), UTC)
    assert line(due, "retention") == str(due.due_day)
    assert overdue.unhealthy == [f"{overdue.due_day}: {blocker}"]
    assert status_lines(overdue)[-1] == f"UNHEALTHY: {overdue.unhealthy[0]}"


async def test_a_day_that_nothing_keeps_hangs_if_nobody_lets_it_go(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    for days_ago in (5, 4):
        await a_day(connection, tables, days_ago)

    nobody = await status(dsn, log_retention=86_400)
    await fetch(
        connection,
        "INSERT INTO {days} (day, state, changed_at) VALUES ('2020-01-01', 'gone', clock_timestamp())",
        tables,
    )
    one_by_one = await status(dsn, log_retention=86_400)

    [reason] = nobody.unhealthy
    assert reason.startswith(f"2 days, the oldest {today() - timedelta(days=5)}, are due to leave the log since ")
    assert reason.endswith(
        "and still attached: no worker cleans up, or an open transaction holds it: `chancy-metrics prune` says which"
    )
    assert one_by_one.due_day is not None and one_by_one.due_day.days == 2
    assert one_by_one.unhealthy == []


async def test_totals_that_nobody_finishes_are_named_where_they_keep_a_day(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    day = await a_day(connection, tables, 4)
    async with an_app(dsn) as (chancy, _):
        await read_totals(chancy)
    await begin_generation(connection, tables, BUILT_IN, by="gone")

    found = await status(dsn, log_retention=86_400)

    blocker = (
        f"generation 3 of the totals is at position 0, and {day} ends at 1; "
        "`chancy-metrics rebuild --totals` finishes it"
    )
    assert found.unhealthy == [f"{found.due_day}: {blocker}"]


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("late", "blocker", "last_gone", "is_overdue"),
    [
        (24 * HOUR, "a reason", None, False),
        (25 * HOUR, "a reason", None, True),
        (25 * HOUR, "a reason", 0 * HOUR, True),
        (25 * HOUR, None, None, True),
        (25 * HOUR, None, 2 * HOUR, True),
        (25 * HOUR, None, 1 * HOUR, False),
    ],
)
def test_a_day_hangs_a_day_after_its_time_unless_days_go_one_by_one(
    late: timedelta, blocker: str | None, last_gone: timedelta | None, is_overdue: bool
) -> None:
    gone_at = None if last_gone is None else NOON - last_gone
    due = DueDay(date(2026, 3, 1), "closed", NOON, NOON - late, 1, gone_at, blocker)

    assert due.is_overdue(NOON) is is_overdue


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("attached", "still attached"),
        ("closed", "closed since 2026-03-10 12:00 UTC"),
        ("absorbed", "in the baseline since 2026-03-10 12:00 UTC"),
    ],
)
def test_a_due_day_says_where_it_is_and_since_when(state: str, says: str) -> None:
    due = DueDay(date(2026, 3, 1), state, NOON, NOON - 48 * HOUR, 1, None, None)

    assert str(due) == f"2026-03-01 is due to leave the log since 2026-03-08 12:00 UTC, and {says}"


async def test_tables_of_another_release_are_refused_with_what_to_do(dsn: str, connection: Connection) -> None:
    await connection.execute("ALTER TABLE chancy_metrics_versions RENAME COLUMN folded_by TO something_else")

    with pytest.raises(
        SchemaMissing, match=r"are older than this code: run `chancy misc migrate` \(column .*folded_by"
    ):
        await status(dsn)


async def test_totals_have_a_line_once_somebody_reads_them(dsn: str, connection: Connection, tables: Tables) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(runs=[a_run("app:a"), a_run("app:b")])
    await writer.append(batch=encode((), [a_run()])._replace(payload=b"?"))
    await sequence_and_fold(connection, tables)
    nobody = await status(dsn)
    async with an_app(dsn) as (chancy, _):
        totals = await read_totals(chancy)
    await writer.append(runs=[a_run("app:a")])
    await sequence_and_fold(connection, tables)
    await begin_generation(connection, tables, BUILT_IN, by="test")

    found = await status(dsn)

    assert nobody.totals == []
    assert not any(line.startswith("totals") for line in status_lines(nobody))
    text = line(found, "totals")
    assert text.startswith(f"generation {totals.generation}, 2 series, position 2, 1 batch behind, last step 20")
    assert "; leaves out 1 batch of 1 event (position 2: the payload does not match its sha256" in text
    newer = await status(dsn, rules.first, version=1)
    assert line(newer, "totals").startswith(f"generation {totals.generation}, rules {label(BUILT_IN.pair)}, 2 series")
    assert line(found, "totals anew").startswith("generation 3, copies the baseline, 0 series so far, last")


async def test_totals_that_are_built_for_the_first_time_say_how_far_they_are(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run()])
    await sequence_and_fold(connection, tables)
    await advance_totals(connection, tables, BUILT_IN, folded_by="test")

    found = await status(dsn)

    assert line(found, "totals built").startswith("generation 2, at position 0 of 1, last step 20")
