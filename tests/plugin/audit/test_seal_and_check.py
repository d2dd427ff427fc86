"""Whatever is done to the log by force, the check names the position; a seal kept elsewhere finds what hides itself."""

from __future__ import annotations

import importlib
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from chancy import Chancy, QueuedJob, Worker
from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.events.batch import BatchId
from chancy_metrics.events.chain import Seal, link, read_seals
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.log import read_log_rows
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.audit import walk as walk_module
from chancy_metrics.plugin.audit.seal import LogCheck, check, seal
from chancy_metrics.plugin.cli.status import status_lines
from chancy_metrics.plugin.health.dead_letters import discard
from chancy_metrics.plugin.health.status import Status
from chancy_metrics.plugin.health.status_reader import read_status
from chancy_metrics.plugin.host.progress import LedgerProgress
from chancy_metrics.plugin.worker.maintenance import Maintenance
from chancy_metrics.plugin.worker.retention import prune_days
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.verify import entries
from tests.commands import run
from tests.factories import (
    LogWriter,
    a_row,
    a_run,
    an_app,
    connections,
    damage,
    fetch,
    now_us,
    sequence_all,
    sequence_and_fold,
)
from tests.processes import ROOT

DAY_S = 86_400
#: The batch at position 4.
FOUR = "WHERE (producer, sequence) = (SELECT producer, sequence FROM {ledger} WHERE position = 4)"


async def some_batches(connection: Connection, tables: Tables, how_many: int = 8) -> None:
    """So many batches, each with a position, alternately of two producers: an observation and a job update in each."""
    writers = [LogWriter(connection, tables, worker) for worker in ("w1", "w2")]
    for number in range(how_many):
        await writers[number % 2].append(jobs=[a_row()], runs=[a_run("app:n", [float(number)])])
        await sequence_all(connection, tables)


async def checked(dsn: str, *seals: Seal) -> LogCheck:
    async with an_app(dsn) as (chancy, _):
        return await check(chancy, seals=seals)


async def the_status(dsn: str) -> Status:
    async with an_app(dsn) as (chancy, _):
        return await read_status(chancy)


async def sealed(dsn: str) -> Seal:
    async with an_app(dsn) as (chancy, _):
        return await seal(chancy)


def first(found: LogCheck) -> tuple[str, str]:
    return found.findings[0].check, found.findings[0].where


async def test_a_log_that_nobody_touched_is_as_it_was_written(dsn: str, connection: Connection, tables: Tables) -> None:
    await some_batches(connection, tables)
    early = await sealed(dsn)
    await some_batches(connection, tables)

    found = await checked(dsn, early, await sealed(dsn))

    assert (found.found, found.notes) == (0, [])
    assert (found.first, found.position, found.batches, found.events, found.carried) == (1, 16, 16, 32, 0)
    assert found.seals == 2


async def test_an_empty_log_is_as_it_was_written_and_has_a_seal(dsn: str) -> None:
    empty = await sealed(dsn)

    assert str(empty).startswith("chancy-metrics-seal 1 position=0 hash=- at=")
    assert (await checked(dsn, empty)).found == 0


@pytest.mark.parametrize(
    ("change", "what", "where"),
    [
        (
            f"UPDATE {{log}} SET payload = set_bit(payload, 77, 1 - get_bit(payload, 77)) {FOUR}",
            "payload",
            "position 4",
        ),
        (f"DELETE FROM {{log}} {FOUR}", "log", "position 4"),
        (
            f"UPDATE {{log}} SET appended_at = appended_at - interval '1 us' {FOUR}",
            "chain",
            "position 4",
        ),
        (f"UPDATE {{log}} SET worker = 'w3' {FOUR}", "chain", "position 4"),
        (f"UPDATE {{log}} SET closes = NOT closes {FOUR}", "chain", "position 4"),
        (f"UPDATE {{log}} SET events = events + 1 {FOUR}", "ledger", "position 4"),
        ("UPDATE {ledger} SET events = events + 1 WHERE position = 4", "ledger", "position 4"),
        ("UPDATE {ledger} SET bytes = bytes + 1 WHERE position = 4", "ledger", "position 4"),
        ("UPDATE {ledger} SET chain = sha256(chain) WHERE position = 4", "chain", "position 4"),
        ("DELETE FROM {ledger} WHERE position = 4", "ledger", "position 4"),
        ("DELETE FROM {ledger} WHERE position IN (4, 5)", "ledger", "positions 4 to 5"),
        ("DELETE FROM {ledger} WHERE position < 4", "ledger", "positions 1 to 3"),
        (
            "UPDATE {ledger} l SET producer = o.producer, sequence = o.sequence + 1000 FROM {ledger} o"
            " WHERE l.position = 4 AND o.position = 5",
            "log",
            "position 4",
        ),
        (
            "WITH b AS (INSERT INTO {log} SELECT day, gen_random_uuid(), 1, worker, first_us, last_us, appended_at,"
            " events, true, codec, payload, sha256 FROM {log} LIMIT 1 RETURNING *)"
            " INSERT INTO {ledger} SELECT 9, day, octet_length(payload), producer, sequence, events, sha256(sha256)"
            " FROM b",
            "chain",
            "position 9",
        ),
        ("UPDATE {head} SET position = position + 1", "head", "position 9"),
        ("UPDATE {head} SET chain = sha256(chain)", "head", "position 8"),
        ("DELETE FROM {days} WHERE day = (SELECT day FROM {ledger} WHERE position = 1)", "log", "position 1"),
        ("UPDATE {producers} SET last_sequence = 7 WHERE worker = 'w1'", "producers", ""),
    ],
)
async def test_what_is_changed_by_force_is_found_and_named_first(
    change: str, what: str, where: str, dsn: str, connection: Connection, tables: Tables
) -> None:
    await some_batches(connection, tables)

    await damage(connection, tables, change)

    found = await checked(dsn)
    assert found.found >= 1
    assert found.findings[0].check == what
    assert found.findings[0].where == where or not where


async def test_what_the_last_check_found_stands_in_status_until_one_finds_nothing(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await some_batches(connection, tables)
    before = await the_status(dsn)
    await checked(dsn)
    sound = await the_status(dsn)
    await damage(connection, tables, f"UPDATE {{log}} SET payload = payload || '\\x00' {FOUR}")
    await sequence_and_fold(connection, tables)
    await checked(dsn)
    wrong = await the_status(dsn)
    async with an_app(dsn) as (chancy, _):
        await discard(chancy, 4, why="a test", by="me")
    await checked(dsn)
    given_up = await the_status(dsn)

    assert before.checked is None and "audit check     never" in status_lines(before)
    assert sound.checked is not None
    assert (sound.checked.first, sound.checked.position, sound.checked.found) == (1, 8, 0)
    assert any(one.endswith("positions 1 to 8, nothing found") for one in status_lines(sound))
    assert wrong.checked is not None and (wrong.checked.found, wrong.checked.given_up) == (2, 0)
    assert any("the last audit check" in one and "payload, position 4" in one for one in wrong.unhealthy)
    assert given_up.checked is not None and (given_up.checked.found, given_up.checked.given_up) == (2, 2)
    assert not any("audit check" in one for one in given_up.unhealthy)


async def test_two_rows_that_changed_contents_are_found_both(dsn: str, connection: Connection, tables: Tables) -> None:
    await some_batches(connection, tables)

    await damage(
        connection,
        tables,
        "UPDATE {log} a SET payload = b.payload, sha256 = b.sha256, first_us = b.first_us, last_us = b.last_us"
        " FROM {log} b JOIN {ledger} lb USING (producer, sequence), {ledger} la"
        " WHERE la.position + lb.position = 7 AND la.position IN (3, 4)"
        " AND a.producer = la.producer AND a.sequence = la.sequence",
    )

    found = await checked(dsn)
    assert [(one.check, one.where) for one in found.findings] == [("chain", "position 3"), ("chain", "position 4")]


async def test_a_row_without_a_position_is_found_by_its_id(dsn: str, connection: Connection, tables: Tables) -> None:
    await some_batches(connection, tables)

    await damage(
        connection,
        tables,
        "INSERT INTO {log} SELECT day, producer, 99, worker, first_us, last_us, appended_at, events, closes, codec,"
        " payload, sha256 FROM {log} WHERE sequence = 4 AND worker = 'w1'",
    )

    found = await checked(dsn)
    assert found.found == 1
    assert str(found.findings[0]).startswith("log, batch 99 of producer ")
    assert found.findings[0].text == "it is not in the ledger"


async def test_a_batch_that_waits_for_its_position_is_nothing_wrong(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await some_batches(connection, tables)
    await LogWriter(connection, tables).append(runs=[a_run()])

    assert (await checked(dsn)).found == 0


async def cut_tail(connection: Connection, tables: Tables, after: int) -> None:
    """Remove everything past *after* and all traces of it."""
    await damage(
        connection,
        tables,
        "DELETE FROM {log} l USING {ledger} o WHERE o.producer = l.producer AND o.sequence = l.sequence"
        f" AND o.position > {after}",
    )
    for change in (
        f"DELETE FROM {{ledger}} WHERE position > {after}",
        "UPDATE {head} SET (position, chain) = (SELECT position, chain FROM {ledger} ORDER BY position DESC LIMIT 1)",
        "UPDATE {producers} p SET last_sequence = (SELECT max(sequence) FROM {ledger} l WHERE l.producer = p.producer)",
    ):
        await damage(connection, tables, change)


async def rewrite_chain(connection: Connection, tables: Tables, since: int) -> None:
    """Hash everything anew from position *since* on, as somebody would who knows how."""
    rows = await fetch(connection, "SELECT position, day, producer, sequence, chain FROM {ledger} ORDER BY 1", tables)
    chain = b""
    for position, *batch_id, old in rows:
        if position >= since:
            async with short_transaction(connection) as cursor:
                [row] = (await read_log_rows(cursor, tables, [BatchId(*batch_id)])).values()
            chain = link(chain, position, row)
            await damage(
                connection, tables, f"UPDATE {{ledger}} SET chain = '\\x{chain.hex()}' WHERE position = {position}"
            )
        else:
            chain = old
    await damage(connection, tables, f"UPDATE {{head}} SET chain = '\\x{chain.hex()}'")


async def test_a_cut_tail_is_found_by_a_seal_alone(dsn: str, connection: Connection, tables: Tables) -> None:
    await some_batches(connection, tables)
    kept = await sealed(dsn)

    await cut_tail(connection, tables, after=6)

    assert (await checked(dsn)).found == 0
    found = await checked(dsn, kept)
    assert first(found) == ("head", "position 8")
    assert "the ledger ends at 6: its end was cut off" in found.findings[0].text


async def test_a_rewritten_ledger_row_is_found_and_a_rewritten_history_by_a_seal(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await some_batches(connection, tables, 4)
    early = await sealed(dsn)
    await some_batches(connection, tables, 4)
    late = await sealed(dsn)
    await damage(
        connection,
        tables,
        "UPDATE {log} l SET worker = 'w3' FROM {ledger} o"
        " WHERE o.position = 6 AND o.producer = l.producer AND o.sequence = l.sequence",
    )
    changed = await checked(dsn)

    await rewrite_chain(connection, tables, since=6)

    assert first(changed) == ("chain", "position 6")
    assert (await checked(dsn)).found == 0
    assert (await checked(dsn, early)).found == 0
    found = await checked(dsn, early, late)
    assert (found.found, found.seals) == (1, 1)
    assert first(found) == ("chain", "position 8")
    assert "rewritten after position 4, where a seal holds" in found.findings[0].text


async def test_one_ledger_row_with_a_fresh_hash_breaks_the_next_position(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await some_batches(connection, tables)
    await damage(
        connection,
        tables,
        "UPDATE {log} l SET worker = 'w3' FROM {ledger} o"
        " WHERE o.position = 5 AND o.producer = l.producer AND o.sequence = l.sequence",
    )
    rows = await fetch(connection, "SELECT day, producer, sequence FROM {ledger} WHERE position = 5", tables)
    [(before,)] = await fetch(connection, "SELECT chain FROM {ledger} WHERE position = 4", tables)
    async with short_transaction(connection) as cursor:
        [row] = (await read_log_rows(cursor, tables, [BatchId(*rows[0])])).values()

    fresh = link(before, 5, row).hex()
    await damage(connection, tables, f"UPDATE {{ledger}} SET chain = '\\x{fresh}' WHERE position = 5")

    found = await checked(dsn)
    assert [(one.check, one.where) for one in found.findings] == [("chain", "position 6")]


async def pruned_history(connection: Connection, tables: Tables) -> date:
    """A day with four batches that has left the log, and four batches after it; returns that day."""
    old = datetime.now(UTC).date() - timedelta(days=200)
    await make_days(connection, tables, today=old, ahead=0)
    writer = LogWriter(connection, tables)
    for _ in range(4):
        await writer.append(runs=[a_run()], day=old)
    await some_batches(connection, tables, 4)
    await sequence_and_fold(connection, tables)
    [gone] = await prune_days(connection, tables, BUILT_IN, now_us=now_us(), log_retention_s=DAY_S)
    assert gone.state == "gone", gone.blocker
    return old


async def test_across_a_pruned_day_the_chain_is_whole_and_says_how_much_is_carried_on(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await pruned_history(connection, tables)
    kept = await sealed(dsn)

    found = await checked(dsn, kept)
    await damage(connection, tables, "UPDATE {ledger} SET chain = sha256(chain) WHERE position = 4")
    broken = await checked(dsn, kept)

    assert (found.found, found.batches, found.events, found.carried, found.first) == (0, 4, 8, 4, 1)
    assert first(broken) == ("chain", "position 5")


async def test_where_clean_up_has_taken_the_ledgers_beginning_it_begins_there_and_says_so(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await pruned_history(connection, tables)
    early = Seal(2, b"\1" * 32, datetime.now(UTC))
    async with an_app(dsn) as (_, metrics):
        await Maintenance(metrics.options).clean(connection, tables)

    found = await checked(dsn, early, await sealed(dsn))

    assert (found.found, found.first, found.carried, found.batches, found.seals) == (0, 4, 1, 4, 1)
    assert found.notes == [
        "the ledger begins at position 4: clean-up has removed what was before",
        "the seal of position 2 lies before the beginning of the ledger, 4: it can't be checked",
    ]


async def test_a_beginning_that_is_cleaned_up_during_a_check_is_no_finding(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await pruned_history(connection, tables)
    read = entries.read_whole_rows

    async def clean_first(*arguments: Any) -> Any:
        await fetch(connection, "DELETE FROM {ledger} WHERE position < 5", tables)
        await fetch(connection, "DELETE FROM {days} WHERE day = %(old)s", tables, old=old)
        return await read(*arguments)

    monkeypatch.setattr(entries, "read_whole_rows", clean_first)
    found = await checked(dsn)

    assert (found.found, found.batches) == (0, 4)


async def test_a_seal_is_refused_while_head_and_ledger_do_not_agree(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await some_batches(connection, tables)
    await damage(connection, tables, "UPDATE {head} SET chain = sha256(chain)")

    with pytest.raises(MetricsLogError, match="`chancy-metrics audit check` finds nothing"):
        await sealed(dsn)


async def test_progress_tells_positions_up_to_the_end(dsn: str, connection: Connection, tables: Tables) -> None:
    await some_batches(connection, tables)
    told: list[LedgerProgress] = []

    async with an_app(dsn) as (chancy, _):
        await check(chancy, on_progress=told.append)

    assert [(one.position, one.until, one.events) for one in told] == [(8, 8, 16)]
    assert told[0].events_per_s > 0


async def test_what_is_appended_and_folded_during_a_check_is_no_finding(dsn: str, tables: Tables) -> None:
    async with connections(dsn, 2) as (connection, other), an_app(dsn) as (chancy, _):
        await some_batches(connection, tables)
        writer = LogWriter(other, tables)
        found = []
        for _ in range(5):
            await writer.append(runs=[a_run()])
            await sequence_all(other, tables)
            found.append((await check(chancy)).found)

    assert found == [0] * 5


async def test_a_day_that_leaves_during_a_check_is_no_finding(
    dsn: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = datetime.now(UTC).date() - timedelta(days=3)
    read = walk_module.read_unchecked
    async with connections(dsn, 2) as (connection, other), an_app(dsn) as (chancy, _):
        await make_days(connection, tables, today=old, ahead=0)
        writer = LogWriter(connection, tables)
        for day in (old, None, old):
            await writer.append(runs=[a_run()], day=day)
            await sequence_and_fold(connection, tables)

        async def prune_first(*arguments: Any) -> Any:
            gone = await prune_days(other, tables, BUILT_IN, now_us=now_us(), log_retention_s=DAY_S)
            assert [day.blocker for day in gone] in ([None], [])
            return await read(*arguments)

        monkeypatch.setattr(walk_module, "read_unchecked", prune_first)
        found = await check(chancy)

    assert (found.found, found.batches, found.carried) == (0, 1, 2)


@given(
    position=st.integers(1, 2**63 - 1),
    chain=st.binary(min_size=32, max_size=32),
    at=st.datetimes(timezones=st.just(UTC)).map(lambda at: at.replace(microsecond=0)),
    before=st.sampled_from(["", "2026-11-25 root: "]),
)
def test_a_seal_can_be_read_from_its_line(position: int, chain: bytes, at: datetime, before: str) -> None:
    one = Seal(position, chain, at)

    assert read_seals(["# kept by cron", "", f"{before}{one}\n"], "seals") == [one]
    assert "\n" not in str(one)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "seals holds no seal"),
        (["nonsense"], "line 1 of seals is no seal this code can read: 'nonsense'"),
        (["chancy-metrics-seal 2 position=1 hash=- at=2026-01-01T00:00:00Z"], "line 1 of seals is no seal"),
        (["chancy-metrics-seal 1 position=1 hash=ab at=2026-01-01T00:00:00Z"], "line 1 of seals is no seal"),
        (["chancy-metrics-seal 1 position=0 hash=- at=yesterday"], "line 1 of seals has no time: 'yesterday'"),
    ],
)
def test_a_line_that_is_no_seal_is_refused_with_its_number(lines: list[str], message: str) -> None:
    with pytest.raises(MetricsLogError, match=message):
        read_seals(lines, "seals")


@pytest.mark.slow
async def test_the_commands_print_a_seal_and_end_with_0_or_3(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await some_batches(connection, tables)
    printed = run(dsn, "audit", "seal")
    seals = tmp_path / "seals"
    seals.write_text(printed.stdout * 2)

    fine = run(dsn, "audit", "check", "--from-seal", str(seals))
    await cut_tail(connection, tables, after=6)
    without = run(dsn, "audit", "check")
    wrong = run(dsn, "audit", "check", "--from-seal", str(seals))
    as_json = json.loads(run(dsn, "audit", "check", "--from-seal", str(seals), "--json").stdout)

    assert printed.stdout.count("\n") == 1
    assert (fine.returncode, without.returncode, wrong.returncode) == (0, 0, 3), fine.stderr
    assert fine.stdout.endswith("nothing was changed; 2 of 2 seals hold\n")
    assert wrong.stdout.startswith("WRONG at position 8 (head): the seal of ")
    assert as_json["findings"][0]["where"] == "position 8"
    assert as_json["found"] == 2


async def test_a_file_without_seals_is_wrong_usage(dsn: str, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    nothing.write_text("hello\n")

    done = run(dsn, "audit", "check", "--from-seal", str(nothing))

    assert done.returncode == 2
    assert "is no seal this code can read: 'hello'" in done.stderr


async def test_without_a_metrics_log_the_check_says_what_to_run(empty_dsn: str) -> None:
    async with Chancy(empty_dsn) as chancy:
        await chancy.migrate()

    done = run(empty_dsn, "audit", "check")

    assert done.returncode == 1
    assert done.stderr.startswith("Error: the metrics tables under prefix 'chancy_' are missing")


async def test_the_documented_job_posts_a_seal_that_holds(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "audit.md").read_text()
    code = text.partition("<!-- tests/plugin/audit/test_seal_and_check.py runs this -->\n```python\n")[2].partition(
        "```"
    )[0]
    (tmp_path / "documented_seals.py").write_text(code.replace("postgresql://localhost/app", dsn))
    monkeypatch.syspath_prepend(tmp_path)
    documented = importlib.import_module("documented_seals")
    posted: list[str] = []

    async def post(line: str) -> None:
        posted.append(line)

    monkeypatch.setattr(documented, "post", post)
    async with documented.chancy as chancy:
        await chancy.migrate()
        await documented.schedule()
        async with Worker(chancy, register_signal_handlers=False):
            pushed = await chancy.push(documented.seal_metrics.job)
            done = await chancy.wait_for_job(pushed, timeout=30)
        found = await check(chancy, seals=read_seals(posted, "posted"))

    assert done is not None and done.state == QueuedJob.State.SUCCEEDED
    assert (len(posted), found.found, found.seals) == (1, 0, 1)
