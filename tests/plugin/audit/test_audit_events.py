"""The raw events are listed, followed and told of one job, and whatever can't be read is said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream
from click.testing import CliRunner

from chancy_metrics.events.batch import DecodedBatch
from chancy_metrics.events.codec import decode_batch
from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.audit import tail
from chancy_metrics.plugin.audit.events import events, job_life
from chancy_metrics.plugin.cli.main import main
from chancy_metrics.projections.search import indexing
from chancy_metrics.projections.search.event import Event
from chancy_metrics.projections.search.gaps import Gap, Pruned, Unreadable
from chancy_metrics.projections.search.indexing import summarise
from chancy_metrics.projections.search.query import EventCursor, EventQuery
from tests.commands import command, run
from tests.events.test_skip_index import OLD, OLD_US, let_go
from tests.factories import (
    NOON_US,
    LogWriter,
    a_row,
    a_run,
    an_app,
    damage,
    eventually,
    fetch,
    sequence_all,
    sequence_and_fold,
)

JOB = uuid.UUID(int=7)
SECOND_US = 1_000_000
EVIL = "evil\u202e[red]x\x1b]0;t\x07\u009b2J\u2028:smile:"


def audit(dsn: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(dsn, "audit", *arguments, **environment)


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def cursors(found: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(one["position"], one["index"]) for one in found]


async def a_log(connection: Connection, tables: Tables) -> None:
    """A job that is retried, another one, and observations, in two batches of two workers."""
    await LogWriter(connection, tables, "w1").append(
        jobs=[a_row(NOON_US, job_id=JOB.bytes, state="retrying", completed_us=None)],
        runs=[a_run("app:n", [1.0, 2.0]), a_run("app:level", [3.5], kind="gauge")],
    )
    failed = a_row(NOON_US + 9 * SECOND_US, job_id=JOB.bytes, state="failed")
    failed = failed._replace(combo=failed.combo._replace(attempt=2, error="app.Declined"))
    await LogWriter(connection, tables, "w2").append(jobs=[failed, a_row(NOON_US + SECOND_US, func="app.rest")])
    await sequence_and_fold(connection, tables)


async def batches(connection: Connection, tables: Tables, count: int) -> None:
    """So many batches of one event."""
    for _ in range(count):
        await LogWriter(connection, tables).append(runs=[a_run("app:n")])
    await sequence_all(connection, tables)


async def an_old_day(connection: Connection, tables: Tables) -> None:
    """Two batches of a day that then leaves the log, and one of today."""
    await make_days(connection, tables, today=OLD, ahead=0)
    for number in range(2):
        await LogWriter(connection, tables).append(runs=[a_run("app:old", at_us=OLD_US + number)], day=OLD)
    await LogWriter(connection, tables).append(jobs=[a_row(job_id=JOB.bytes)])
    await sequence_and_fold(connection, tables)
    await let_go(connection, tables)


async def test_events_are_listed_in_their_order(dsn: str, connection: Connection, tables: Tables) -> None:
    await a_log(connection, tables)

    found = lines(audit(dsn, "events", "--json"))

    assert cursors(found) == [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1)]
    assert found[0] == {
        "position": 1,
        "index": 0,
        "at": "2026-03-10T12:00:00Z",
        "kind": "job",
        "worker": "w1",
        "producer": found[0]["producer"],
        "job_id": str(JOB),
        "func": "app.work",
        "queue": "default",
        "state": "retrying",
        "attempt": 1,
        "created_at": "2026-03-10T11:59:58.500000Z",
        "scheduled_at": "2026-03-10T11:59:58.500000Z",
        "started_at": "2026-03-10T11:59:59.500000Z",
    }
    assert {name: found[3][name] for name in ("kind", "key", "value", "unit")} == {
        "kind": "gauge",
        "key": "app:level",
        "value": 3.5,
        "unit": "count",
    }


#: What `events` is told, and the cursors of what it then shows of `a_log`.
CASES: list[tuple[list[str], list[tuple[int, int]]]] = [
    (["--since", "2026-03-10T12:00:01", "--until", "2026-03-10T12:00:09Z"], [(2, 1)]),
    (["--after", "1:2"], [(1, 3), (2, 0), (2, 1)]),
    (["--after", "1"], [(2, 0), (2, 1)]),
    (["--worker", "w2"], [(2, 0), (2, 1)]),
    (["--kind", "gauge", "--kind", "job"], [(1, 0), (1, 3), (2, 0), (2, 1)]),
    (["--key", "job:app.work:execution_time"], [(2, 0)]),
    (["--prefix", "app"], [(1, 1), (1, 2), (1, 3)]),
    (["--func", "app.rest"], [(2, 1)]),
    (["--queue", "default", "--state", "failed"], [(2, 0)]),
    (["--job-id", str(JOB)], [(1, 0), (2, 0)]),
    (["--error", "app.Declined"], [(2, 0)]),
    (["--limit", "3"], [(1, 0), (1, 1), (1, 2)]),
    (["--key", "nowhere"], []),
    (["--worker", "\udcff"], []),
]


def invoke(*arguments: str) -> list[tuple[int, int]]:
    """Run `events` in this process, which is quicker."""
    done = CliRunner().invoke(main, ["--app", "tests.app.chancy", "audit", "events", "--json", *arguments])
    assert done.exit_code == 0 or json.loads(done.stdout)["exit_code"] == 1, done.output
    return [] if done.exit_code else cursors([json.loads(line) for line in done.stdout.splitlines()])


async def test_every_option_narrows_the_list(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_log(connection, tables)
    monkeypatch.setenv("DSN", dsn)

    found = [(arguments, await anyio.to_thread.run_sync(invoke, *arguments)) for arguments, _ in CASES]

    assert found == CASES


async def test_people_get_a_table_that_fits_and_is_only_text(dsn: str, connection: Connection, tables: Tables) -> None:
    await a_log(connection, tables)
    await LogWriter(connection, tables, "w\x1b[31m").append(runs=[a_run(EVIL)])
    await sequence_all(connection, tables)

    shown = [audit(dsn, "events", COLUMNS=str(columns), FORCE_COLOR="1") for columns in (80, 200)]
    told = audit(dsn, "events", "--json")

    for done in shown:
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[0].split() == ["at", "(UTC)", "position", "worker", "event"]
        assert str(JOB) in done.stdout
        assert all(letter.isprintable() for letter in done.stdout.replace("\n", ""))
    assert max(map(len, shown[0].stdout.splitlines())) == 80
    assert r"evil\u202e[red]x\u001b]0;t\u0007\u009b2J\u2028:smile:" in shown[1].stdout
    assert all(letter.isprintable() for letter in told.stdout.replace("\n", ""))
    assert json.loads(told.stdout.splitlines()[-1])["key"] == EVIL


@pytest.mark.parametrize("rich", ["installed", "missing"])
async def test_without_rich_or_a_terminal_an_event_is_a_line_of_text(
    rich: str, dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await a_log(connection, tables)
    (tmp_path / "rich.py").write_text("raise ImportError")
    environment = {} if rich == "installed" else {"PYTHONPATH": str(tmp_path), "FORCE_COLOR": "1"}

    done = audit(dsn, "events", "--limit", "2", **environment)

    assert done.stdout.splitlines() == [
        "at (UTC)             position   worker    event",
        f"2026-03-10 12:00:00  1:0        w1        app.work retrying, queue default, attempt 1, job {JOB}",
        "2026-03-10 12:00:00  1:1        w1        counter app:n 1 count",
    ]


async def test_a_job_is_told_from_beginning_to_end(dsn: str, connection: Connection, tables: Tables) -> None:
    await a_log(connection, tables)
    await LogWriter(connection, tables).append()

    shown, told = audit(dsn, "job", str(JOB), COLUMNS="80", FORCE_COLOR="1"), audit(dsn, "job", str(JOB), "--json")

    assert shown.returncode == told.returncode == 0
    assert f"job       {JOB}, app.work\n" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) == 80
    assert shown.stderr == "1 batch waits for a position, which the next fold assigns: there may be more updates soon\n"
    life = json.loads(told.stdout)
    assert [(one["state"], one["attempt"], one["worker"]) for one in life["updates"]] == [
        ("retrying", 1, "w1"),
        ("failed", 2, "w2"),
    ]
    assert [(one.get("run_s"), one.get("wait_s"), one.get("error")) for one in life["updates"]] == [
        (None, None, None),
        (0.5, 1.0, "app.Declined"),
    ]
    assert (life["pruned"], life["unreadable"], life["position"]) == ([], [], 2)
    assert life["first_day"] == f"{datetime.now(UTC):%Y-%m-%d}"


async def test_of_what_is_summarised_hardly_a_batch_is_decoded(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "RANGE_EVENTS", 50)
    for number in range(100):
        ids = [JOB] if number == 40 else []
        jobs = [a_row(job_id=one.bytes) for one in ids] + [a_row() for _ in range(5 - len(ids))]
        await LogWriter(connection, tables).append(jobs=jobs)
    await sequence_all(connection, tables)
    assert await summarise(connection, tables) == 10
    decoded: list[int] = []

    def counted(*arguments: Any) -> DecodedBatch:
        decoded.append(1)
        return decode_batch(*arguments)

    monkeypatch.setattr("chancy_metrics.projections.search.scan.decode_batch", counted)
    async with an_app(dsn) as (chancy, _):
        life = await job_life(chancy, JOB)

    assert [event.position for event in life.updates] == [41]
    assert 10 <= len(decoded) <= 20  # its range, and one in three hundred others


async def test_a_job_that_is_not_in_the_log_is_one_sentence(dsn: str, connection: Connection, tables: Tables) -> None:
    await a_log(connection, tables)

    done = audit(dsn, "job", str(uuid.UUID(int=8)))

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: the log has no update of job {uuid.UUID(int=8)} up to position 2\n"


@pytest.mark.parametrize("summarised", [True, False])
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("UPDATE {log} SET payload = payload || 'x' WHERE worker = 'w2'", "does not match its sha256"),
        ("DELETE FROM {log} WHERE worker = 'w2'", "its row is not in the log"),
        ("UPDATE {log} SET codec = 77 WHERE worker = 'w2'", "codec 77 is unknown"),
    ],
)
async def test_a_batch_that_can_not_be_read_is_said_and_the_others_are_shown(
    change: str,
    why: str,
    summarised: bool,
    dsn: str,
    connection: Connection,
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await a_log(connection, tables)
    await damage(connection, tables, change)
    if summarised:
        monkeypatch.setattr(indexing, "RANGE_BATCHES", 2)
        assert await summarise(connection, tables) == 1
    gaps: list[Gap] = []

    async with an_app(dsn) as (chancy, _):
        found = [event async for event in events(chancy, EventQuery(key="app:n"), on_gap=gaps.append)]
        life = await job_life(chancy, JOB)

    assert [event.position for event in found] == [1, 1]
    assert [event.position for event in life.updates] == [1]
    assert gaps == life.unreadable
    [gap] = life.unreadable
    assert (gap.position, gap.events) == (2, 2) and why in gap.error


async def test_who_finds_something_unreadable_ends_with_three(dsn: str, connection: Connection, tables: Tables) -> None:
    await a_log(connection, tables)
    await damage(connection, tables, "UPDATE {log} SET payload = payload || 'x' WHERE worker = 'w2'")

    listed, shown, told = (
        audit(dsn, *arguments) for arguments in (["events"], ["job", str(JOB)], ["job", str(JOB), "--json"])
    )

    assert [done.returncode for done in (listed, shown, told)] == [3, 3, 3]
    assert listed.stderr.startswith("the batch at position 2 (2 events, batch 1 of producer ")
    assert listed.stderr == shown.stderr and listed.stderr.count("\n") == 1
    assert [gap["position"] for gap in json.loads(told.stdout)["unreadable"]] == [2]


async def test_damage_elsewhere_does_not_concern_who_asks_for_something_else(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await a_log(connection, tables)
    await damage(connection, tables, "UPDATE {log} SET payload = payload || 'x' WHERE worker = 'w2'")

    assert cursors(lines(audit(dsn, "events", "--json", "--worker", "w1"))) == [(1, index) for index in range(4)]
    assert lines(audit(dsn, "events", "--json", "--since", "2026-03-10T12:00:10")) == []


@pytest.mark.parametrize("summarised", [True, False])
async def test_a_day_that_left_the_log_is_said_and_is_no_error(
    summarised: bool, dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await an_old_day(connection, tables)
    if summarised:
        monkeypatch.setattr(indexing, "RANGE_BATCHES", 1)
        await summarise(connection, tables)
        await summarise(connection, tables)
        assert await fetch(connection, "SELECT first_position FROM {summaries}", tables) == [(3,)]

    listed, recent, job = (
        audit(dsn, "events", "--json"),
        audit(dsn, "events", "--json", "--since", "2d"),
        audit(dsn, "job", str(JOB), "--json"),
    )

    assert (listed.returncode, len(listed.stdout.splitlines())) == (0, 1)
    assert listed.stderr == (
        f"{OLD} has left the log: its events up to position 2 are in the numbers and can't be listed\n"
    )
    assert recent.stderr == ""
    assert json.loads(job.stdout)["pruned"] == [{"gap": "pruned", "day": str(OLD), "last_position": 2}]
    assert len(json.loads(job.stdout)["updates"]) == 1


async def test_a_day_that_leaves_while_it_is_read_is_said_once(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chancy_metrics.projections.search.scan._ROWS", 1)
    await make_days(connection, tables, today=OLD, ahead=0)
    for number in range(4):
        await LogWriter(connection, tables).append(runs=[a_run("app:old", at_us=OLD_US + number)], day=OLD)
    await LogWriter(connection, tables).append(runs=[a_run("app:new")])
    await sequence_and_fold(connection, tables)
    gaps: list[Gap] = []
    found: list[Event] = []

    async with an_app(dsn) as (chancy, _):
        async for event in events(chancy, on_gap=gaps.append):
            found.append(event)
            if len(found) == 2:
                await let_go(connection, tables)

    assert [event.position for event in found] == [1, 2, 5]
    assert gaps == [Pruned(OLD, 4)]


async def test_gaps_nobody_asks_for_are_in_the_log_of_the_app(
    dsn: str, connection: Connection, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    await a_log(connection, tables)
    await damage(connection, tables, "UPDATE {log} SET payload = '' WHERE worker = 'w1'")
    async with an_app(dsn) as (chancy, _):
        chancy.log.addHandler(caplog.handler)
        try:
            found = [event async for event in events(chancy, limit=1)]
            life = await job_life(chancy, JOB)
        finally:
            chancy.log.removeHandler(caplog.handler)

    assert [event.position for event in found] == [2]
    assert "the batch at position 1" in caplog.text
    assert [type(gap) for gap in life.unreadable] == [Unreadable]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "POLL_S", 0.01)
    monkeypatch.setattr(tail, "RETRY_S", 0.01)


async def test_who_follows_sees_what_comes_and_goes_on_after_a_restart(
    dsn: str, connection: Connection, tables: Tables, quick: None
) -> None:
    await batches(connection, tables, 2)
    seen: list[tuple[int, int]] = []

    async def follow(how_many: int, **begin: Any) -> None:
        async with an_app(dsn) as (chancy, _), aclosing(events(chancy, EventQuery(**begin), follow=True)) as found:
            for _ in range(how_many):
                event = await anext(found)
                seen.append((event.position, event.index))

    with anyio.fail_after(30):
        await follow(2, first_position=1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                follow,
                3,
            )
            await eventually(lambda: following(connection))
            await LogWriter(connection, tables).append(runs=[a_run("app:n", [1.0, 2.0])])
            await sequence_and_fold(connection, tables)
            await batches(connection, tables, 1)
        await LogWriter(connection, tables).append(runs=[a_run("app:n", [1.0, 2.0])])
        await sequence_all(connection, tables)
        await follow(1, after=EventCursor(*seen[-1]))
        await batches(connection, tables, 1)
        await follow(2, after=EventCursor(*seen[-1]))

    assert seen == [(1, 0), (2, 0), (3, 0), (3, 1), (4, 0), (5, 0), (5, 1), (6, 0)]


async def following(connection: Connection) -> bool:
    """Whether somebody follows the end of the ledger."""
    cursor = await connection.execute("SELECT 1 FROM pg_stat_activity WHERE application_name = 'metrics audit'")
    return await cursor.fetchone() is not None


async def test_who_follows_survives_the_end_of_its_connection(
    dsn: str, connection: Connection, tables: Tables, quick: None
) -> None:
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'metrics audit'"
    begin = EventQuery(first_position=1)
    async with an_app(dsn) as (chancy, _), aclosing(events(chancy, begin, follow=True)) as found:
        with anyio.fail_after(30):
            seen = []
            for _ in range(3):
                await batches(connection, tables, 2)
                seen += [(await anext(found)).position for _ in range(2)]
                await connection.execute(end)

    assert seen == [1, 2, 3, 4, 5, 6]


@asynccontextmanager
async def a_follower(dsn: str, *arguments: str) -> AsyncIterator[tuple[Process, AsyncIterator[str]]]:
    """`audit events --follow`, and its lines as they come."""
    process = await anyio.open_process(
        command("audit", "events", "--follow", "--json", *arguments),
        env=os.environ | {"DSN": dsn, "PYTHONUNBUFFERED": "1"},
    )
    async with process:
        assert process.stdout is not None
        yield process, by_lines(TextReceiveStream(process.stdout))


async def by_lines(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    text = ""
    async for chunk in chunks:
        text += chunk
        *whole, text = text.split("\n")
        for line in whole:
            yield line


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let processes that are started obey SIGINT: what a shell runs in the background ignores it, and so do they."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
async def test_a_follower_goes_on_where_its_cursor_stands_whatever_ended_it(
    ending: signal.Signals, dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    cursor = tmp_path / "cursor"
    seen: list[int] = []
    with anyio.fail_after(60):
        async with a_follower(dsn, "--cursor", str(cursor)) as (process, _):
            await eventually(lambda: anyio.to_thread.run_sync(cursor.exists))
            process.send_signal(ending)
        for upto in (2, 4, 6):
            await batches(connection, tables, 2)
            async with a_follower(dsn, "--cursor", str(cursor)) as (process, shown):
                while len(seen) < upto:
                    seen.append(json.loads(await anext(shown))["position"])
                await eventually(lambda: anyio.to_thread.run_sync(lambda: cursor.read_text() == f"{upto}\n"))  # noqa: B023
                process.send_signal(ending)
                assert await process.wait() == (130 if ending == signal.SIGINT else -ending)

    assert seen == [1, 2, 3, 4, 5, 6]


async def test_a_list_is_cut_at_its_cursor_too(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await a_log(connection, tables)
    arguments = ("events", "--json", "--limit", "4", "--cursor", str(tmp_path / "cursor"))

    found = [cursors(lines(audit(dsn, *arguments))) for _ in range(3)]

    assert found == [[(1, 0), (1, 1), (1, 2), (1, 3)], [(2, 0), (2, 1)], []]
    assert (tmp_path / "cursor").read_text() == "2\n"


def leave_early(dsn: str) -> tuple[bytes, bytes]:
    """Read one line and close the pipe, as `head -1` does; return it and what the command said of that."""
    with subprocess.Popen(
        command("audit", "events", "--json"),
        env=os.environ | {"DSN": dsn},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.readline()
        process.stdout.close()
        return first, process.stderr.read()


async def test_a_reader_that_leaves_ends_the_command_quietly(dsn: str, connection: Connection, tables: Tables) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n", [1.0] * 5_000)])
    await sequence_all(connection, tables)

    first, said = leave_early(dsn)

    assert json.loads(first)["position"] == 1
    assert said == b""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["events", "--follow", "--until", "1h"], "--follow never ends"),
        (["events", "--after", "1", "--cursor", "x"], "both say where to start"),
        (["events", "--after", "one"], "'one' is no cursor"),
        (["events", "--since", "1h", "--until", "2h"], "is not after --since"),
        (["events", "--json", "--parquet", "x"], "leave one of them out"),
        (["events", "--limit", "0"], "--limit"),
        (["events", "--kind", "jobs"], "'jobs' is not one of"),
        (["job", "one"], "'one' is not a valid UUID"),
    ],
)
def test_wrong_usage_says_what_is_wrong(arguments: list[str], said: str) -> None:
    done = audit("postgresql://", *arguments)

    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize("content", ["", "x", "1:2:3", "-1"])
async def test_a_broken_cursor_is_one_sentence(dsn: str, content: str, tmp_path: Path) -> None:
    (tmp_path / "cursor").write_text(content)

    done = audit(dsn, "events", "--cursor", str(tmp_path / "cursor"))

    assert done.returncode == 1
    assert "can't be used" in done.stderr and done.stderr.count("\n") == 1


async def test_a_position_past_the_end_is_of_another_log(dsn: str) -> None:
    done = audit(dsn, "events", "--after", "5")

    assert done.returncode == 1
    assert "position 5 lies past the end of the ledger, 0" in done.stderr


@pytest.mark.parametrize("arguments", [["events"], ["events", "--follow"], ["job", str(JOB)]])
def test_a_missing_schema_is_one_sentence(empty_dsn: str, arguments: list[str]) -> None:
    done = audit(empty_dsn, *arguments)

    assert done.returncode == 1
    assert "run `chancy misc migrate`" in done.stderr and done.stderr.count("\n") == 1


async def test_a_moment_without_a_zone_is_refused(dsn: str) -> None:
    async with an_app(dsn) as (chancy, _):
        with pytest.raises(MetricsLogError, match="has no zone"):
            [event async for event in events(chancy, EventQuery(since=datetime(2026, 1, 1)))]
