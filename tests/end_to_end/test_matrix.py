"""Each damage, or thing withheld, and what every surface says of it: a fault, or that it does not look there."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, NamedTuple

import anyio
import psycopg
import pytest
from psycopg import AsyncConnection, sql

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.facts import EPOCH
from chancy_metrics.events.ledger import read_ledger
from chancy_metrics.events.log import read_batches
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.events.skip_index import write_summary
from chancy_metrics.plugin.host import bounded_connection as reading_module
from chancy_metrics.projections.search.indexing import describe
from examples.embedded import Server
from tests import processes
from tests.factories import LogWriter, a_row, a_run, damage, fetch, now_us, sequence_all, sequence_and_fold
from tests.plugin.http.test_routes import ROOT, asking
from tests.reading import invoke
from tests.standby import Standby

Change = Callable[[Connection, Tables], Awaitable[object]]
PAGE = processes.ROOT / "plugin" / "http" / "page"
#: The minute that is damaged: whole, and not long ago.
MINUTE_US = (now_us() // 60_000_000 - 3) * 60_000_000
MINUTE = EPOCH + timedelta(microseconds=MINUTE_US)
KEY = "app:n"

#: What a surface says that does not look where the damage is, by its own words.
UNSEEN = {
    "status": ["not looked at   the numbers were never compared with the log", "healthy"],
    "completeness": ["not looked at   whether the numbers match the log: `chancy-metrics verify` compares them"],
    "explain": ["recomputed: equal"],
    "check": ["not looked at: the rollups", "which only a seal shows", "every batch matches its hash"],
}
#: What is said after a run that has found something.
AFTER = {
    "status after": ["UNHEALTHY: verify found"],
    "status json": ["verify found"],
    "http": ["verify found"],
    "strip": ["bad Unhealthy", "Drift bad"],
}


class Case(NamedTuple):
    """A damage, and the words each surface must say; of the others `UNSEEN` and, with a *finding*, `AFTER`."""

    name: str
    change: Change
    finding: str
    words: dict[str, list[str]] = {}  # noqa: RUF012 # nobody adds to it


def by(query: str) -> Change:
    """Damage by a statement, by force."""

    async def change(connection: Connection, tables: Tables) -> None:
        await damage(connection, tables, query)

    return change


POINT = (
    f"version = 1 AND series = (SELECT id FROM {{series}} WHERE key = 'app:n') AND bucket = {MINUTE_US // 1_000_000}"
)
THIRD = "(producer, sequence) = (SELECT producer, sequence FROM {ledger} WHERE position = 3)"
DIFFERS = {"explain": ["recomputed: DIFFERENT"]}


async def undecodable(connection: Connection, tables: Tables) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(runs=[a_run(KEY, at_us=MINUTE_US)])
    await damage(
        connection, tables, f"UPDATE {{log}} SET payload = payload || '\\x00' WHERE producer = '{writer.producer}'"
    )
    await sequence_and_fold(connection, tables)


async def a_hole(connection: Connection, tables: Tables) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(runs=[a_run(KEY, at_us=MINUTE_US)])
    writer.next_id()
    await writer.append(runs=[a_run(KEY, at_us=MINUTE_US)])
    await sequence_and_fold(connection, tables)


async def what_waits(connection: Connection, tables: Tables) -> None:
    await LogWriter(connection, tables).append(runs=[a_run(KEY, at_us=MINUTE_US)])
    await sequence_all(connection, tables)
    await LogWriter(connection, tables).append(runs=[a_run(KEY, at_us=MINUTE_US)])
    await LogWriter(connection, tables).spill(runs=[a_run(KEY, at_us=MINUTE_US)])


CASES = [
    Case(
        "a rollup row changed",
        by(f"UPDATE {{r1min}} SET count = count + 1 WHERE {POINT}"),
        "observations 3 -> 2",
        DIFFERS,
    ),
    Case("a rollup row removed", by(f"DELETE FROM {{r1min}} WHERE {POINT}"), "only in the new", DIFFERS),
    Case(
        "a rollup row added",
        by(
            "INSERT INTO {r1min} (version, series, bucket, count, last_us, sum, min, max)"
            f" SELECT version, series, bucket + 60, 1, last_us, 1, 1, 1 FROM {{r1min}} WHERE {POINT}"
        ),
        "only in the old",
    ),
    Case(
        "the cache's last fold removed",
        by("DELETE FROM {cache} WHERE fold = (SELECT max(fold) FROM {cache})"),
        "cache, fold 1 of version 1",
    ),
    Case(
        "a position removed",
        by("DELETE FROM {ledger} WHERE position = 3"),
        "ledger, position 3: it is missing",
        DIFFERS | {"check": ["WRONG at position 3 (ledger): it is missing"]},
    ),
    Case(
        "a hash changed",
        by("UPDATE {ledger} SET chain = '\\x00' WHERE position = 3"),
        "chain, position 3",
        {"check": ["WRONG at position 3 (chain)"]},
    ),
    Case(
        "a batch removed",
        by(f"DELETE FROM {{log}} WHERE {THIRD}"),
        "log, position 3: its row of",
        {
            "check": ["WRONG at position 3 (log)"],
            "explain": ["recomputed: DIFFERENT", "lost and may belong here (position 3: its row is not in the log)"],
        },
    ),
    Case(
        "a payload changed",
        by(f"UPDATE {{log}} SET payload = payload || '\\x00' WHERE {THIRD}"),
        "payload, position 3",
        {
            "check": ["payload, position 3"],
            "strip": ["bad Unhealthy", "Drift bad", "Last check bad "],
            "explain": ["recomputed: DIFFERENT", "lost and may belong here (position 3: ", "sha256"],
        },
    ),
    Case(
        "a column of a batch changed",
        by(f"UPDATE {{log}} SET closes = NOT closes WHERE {THIRD}"),
        "chain, position 3",
        {"check": ["WRONG at position 3 (chain)"]},
    ),
    Case(
        "a summary changed",
        by("UPDATE {summaries} SET first_us = 1, last_us = 2"),
        "summaries, positions 1 to 4",
        {
            "explain": ["recomputed: equal; damaged summaries excluded some of these events from searches"],
            "check": ["WRONG at positions 1 to 4 (summaries)"],
        },
    ),
    Case(
        "a batch that can't be decoded",
        undecodable,
        "",
        {
            "status": ["UNHEALTHY: 1 batch could not be folded and is not in the numbers"],
            "completeness": ["dead letters    1"],
            "explain": ["recomputed: equal; not in either: version 1 leaves out", "1 batch of 1 event (position 5: "],
            "check": ["WRONG at position 5 (payload)"],
            "verify": ["they agree; version 1 leaves out 1 batch of 1 event"],
            "status after": ["UNHEALTHY: 1 batch could not be folded", "exit 3"],
            "status json": ["could not be folded and is not in the numbers"],
            "http": ["could not be folded and is not in the numbers"],
            "strip": ["bad Unhealthy", "Dead letters bad 1"],
        },
    ),
    Case(
        "a hole in a producer's sequence",
        a_hole,
        "producers, producer ",
        {
            "status": ["UNHEALTHY: 1 batch is missing from the sequences of producers"],
            "completeness": ["holes           1"],
            "check": ["(producers): 1 of its batches 1 to 3 are missing from the ledger"],
        },
    ),
    Case(
        "an unclean end",
        by("UPDATE {producers} SET seen_at = seen_at - interval '1 hour'"),
        "",
        {
            "status": ["unclean ends    2"],
            "completeness": ["unclean ends    2"],
            "verify": ["everything agrees; 2 sessions ended uncleanly: `completeness` says what may be missing"],
            "status after": ["unclean ends    2", "healthy"],
            "status json": ['"ended_uncleanly":2'],
            "http": ['"ended_uncleanly":2'],
            "strip": ["good Healthy", "Unclean ends warn 2", "Drift  0"],
        },
    ),
    Case(
        "what a session lost at its end, and what others hold",
        by(
            """
            INSERT INTO {sessions} (session, worker, producers, append_interval, seen_at, ended_at, held)
            SELECT gen_random_uuid(), 'web', '{{}}', 1, clock_timestamp() - age, ended_at, held::jsonb
            FROM (
                VALUES (interval '0', clock_timestamp(), '{{"observations": 400, "job_updates": 20}}'),
                    ('1 hour', NULL, '{{"observations": 3}}'), ('0', NULL, '{{"job_updates": 5}}')
            ) AS s (age, ended_at, held)
            """
        ),
        "",
        {
            "status": ["lost            400 observations, 20 job updates", "in memory       5 job updates"],
            "completeness": ["lost            400 observations, 20 job updates", "in memory       5 job updates"],
            "status json": ['"lost":{"job_updates":20,"observations":400}'],
            "http": ['"in_memory":{"job_updates":5}'],
            "strip": [
                "Lost at a stop bad 20 job updates, 400 observations",
                "Uncertain warn 3 observations",
                "In memory warn 5 job updates",
            ],
        },
    ),
    Case(
        "what is not folded yet",
        what_waits,
        "",
        {
            "status": ["4 folded of 5 in the ledger", "2 batches"],
            "completeness": ["not folded yet  3 batches"],
            "explain": ["recomputed: equal; 3 batches are not folded yet and may add more"],
            "check": ["note: 2 batches have no position yet: neither the chain nor this check covers them"],
            "verify": ["compared at position 4", "everything agrees"],
            "strip": ["Position  4 of "],
        },
    ),
    Case(
        "nothing at all",
        by("SELECT 1"),
        "",
        {"verify": ["everything agrees"], "status after": ["nothing found is open", "log checked     whole up to"]},
    ),
]


@pytest.fixture(scope="module")
async def history(server: Server, template: str) -> AsyncIterator[str]:
    """A database with four batches, folded and summarised, that nobody is connected to."""
    name = "matrix_template"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*map(sql.Identifier, (name, template))))
    tables = tables_for("chancy_")
    async with await AsyncConnection.connect(server.dsn(name), autocommit=True) as connection:
        writers = [LogWriter(connection, tables, worker) for worker in ("w1", "w2")]
        for at_us in (MINUTE_US - 10**10, MINUTE_US):
            for writer in writers:
                await writer.append(jobs=[a_row(at_us)], runs=[a_run(KEY, [1.0], at_us=at_us)])
        await sequence_and_fold(connection, tables)
        async with short_transaction(connection) as cursor:
            rows = await read_ledger(cursor, tables, after=0, limit=10)
            batches = await read_batches(cursor, tables, [(row.position, row.batch_id) for row in rows])
            await write_summary(cursor, tables, describe(rows, batches))
    yield name
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))


@pytest.fixture
def damaged(server: Server, history: str) -> Any:
    """A copy of that database, of the test's own."""
    name = "matrix"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*map(sql.Identifier, (name, history))))
        yield server.dsn(name)
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


async def ask(dsn: str) -> dict[str, str]:
    """What every surface says, the ones after `verify` as it is then."""
    commands = {
        "status": ["status"],
        "completeness": ["completeness"],
        "explain": ["audit", "explain", KEY, "--at", MINUTE.isoformat()],
        "check": ["audit", "check"],
        "verify": ["verify"],
        "status after": ["status"],
        "status json": ["status", "--json"],
    }
    said = {name: await anyio.to_thread.run_sync(said_by, dsn, command) for name, command in commands.items()}
    async with asking(dsn) as client:
        answer = await client.get(f"{ROOT}/status")
        events = await client.get(f"{ROOT}/events?after=-1")
    said["http"] = f"{answer.status_code} {answer.text}"
    said["events"] = f"{events.status_code} {events.text}"
    said["strip"] = strip(answer.json()) if answer.status_code == 200 else answer.json()["title"]
    return said


def said_by(dsn: str, command: list[str]) -> str:
    done = invoke(dsn, command)
    return f"{done.output}\nexit {done.exit_code}"


def strip(status: dict[str, Any]) -> str:
    """The strip's words, by its own functions where there is a node to run them."""
    node = shutil.which("node")
    if node is None:
        return json.dumps(status)
    code = (
        f'import {{ verdict, facts }} from "{(PAGE / "verdict.js").as_uri()}";'
        f"const status = {json.dumps(status)};"
        'console.log(verdict(status).join(" "));'
        "for (const [name, value, how] of facts(status))"
        " console.log(`${name} ${how ?? ''} ${[value].flat().join('')}`);"
    )
    done = subprocess.run([node, "--input-type=module"], input=code, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_every_surface_says_what_is_wrong_or_that_it_does_not_look_there(
    damaged: str, tables: Tables, case: Case
) -> None:
    async with await AsyncConnection.connect(damaged, autocommit=True) as connection:
        await case.change(connection, tables)

    said = await ask(damaged)

    expected = UNSEEN | (AFTER if case.finding else {}) | case.words
    if case.finding:
        expected["verify"] = [case.finding, "exit 3", *case.words.get("verify", [])]
    if shutil.which("node") is None:
        del expected["strip"]
    missing = {name: [word for word in words if word not in said[name]] for name, words in expected.items()}
    assert {name: (words, said[name]) for name, words in missing.items() if words} == {}
    if case.finding:
        assert "agree" not in said["verify"] and "exit 3" in said["status after"]
        assert "\nhealthy" not in said["status after"]


@pytest.mark.parametrize("table", ["log", "r1min", "head"])
async def test_a_locked_table_is_waited_for_a_moment_and_named_with_who_holds_it(
    damaged: str, tables: Tables, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_module, "LOCK_LIMIT_MS", 50)
    named = {"log": "metrics_log", "r1min": "metrics_1min", "head": "metrics_head"}[table]
    unread = {"log": ["completeness"], "r1min": ["completeness", "check", "events"], "head": []}[table]
    async with await AsyncConnection.connect(damaged, application_name="a migration") as holder:
        await fetch(holder, f"LOCK TABLE {{{table}}} IN ACCESS EXCLUSIVE MODE", tables)
        with anyio.fail_after(30):
            said = await ask(damaged)

    for name, text in said.items():
        text = " ".join(text.split())
        if name in unread:
            assert ("exit 0" in text and "not looked at" in text) or text.startswith("200"), (name, text)
        else:
            assert f"table chancy_{named} could not be read for 0.05 s: process " in text, (name, text)
            assert "application 'a migration'" in text and "LOCK TABLE" in text
            assert "exit 1" in text or name in ("http", "events", "strip")
    assert said["http"].startswith("503")


async def test_where_nothing_was_migrated_every_surface_says_what_to_run(empty_dsn: str) -> None:
    said = await ask(empty_dsn)

    for name, text in said.items():
        assert "run `chancy misc migrate`" in text, (name, text)
        assert "exit 1" in text or name in ("http", "events", "strip")
    assert said["http"].startswith("503")


async def test_a_new_installation_is_not_said_to_be_more_than_it_is(dsn: str) -> None:
    said = await ask(dsn)

    expected = {
        "status": ["not looked at   nothing was folded yet, so there are no numbers", "verified        never"],
        "completeness": ["position        0", "not looked at"],
        "explain": ["nothing was recorded under 'app:n'", "exit 1"],
        "check": ["there is nothing in the log to check yet"],
        "verify": ["nothing was compared: nothing was folded yet"],
        "status after": ["nothing was compared, nothing found is open", "the numbers were never compared with the log"],
        "status json": ['"whole":0.0'],
        "http": ['"whole":0.0'],
        "strip": ["new No numbers yet", "Drift  not checked", "Compared  nothing"],
    }
    if shutil.which("node") is None:
        del expected["strip"]
    missing = {name: [word for word in words if word not in said[name]] for name, words in expected.items()}
    assert {name: (words, said[name]) for name, words in missing.items() if words} == {}
    assert not any("agree" in text for text in said.values())


async def test_on_a_standby_the_fault_is_found_and_it_is_said_that_it_could_not_be_kept(
    damaged: str, tables: Tables, standby: Standby
) -> None:
    async with await AsyncConnection.connect(damaged, autocommit=True) as connection:
        await CASES[0].change(connection, tables)
    await standby.arrived()

    said = await ask(standby.dsn(psycopg.conninfo.conninfo_to_dict(damaged)["dbname"]))

    assert CASES[0].finding in said["verify"] and "exit 3" in said["verify"]
    assert "could not be kept for `status`" in " ".join(said["verify"].split())
    for name in ("status", "status after"):
        assert "standby         as of the commits" in said[name]
        assert "the numbers were never compared with the log" in said[name]
    assert "recomputed: DIFFERENT" in said["explain"]
    assert "every batch matches its hash" in said["check"]
