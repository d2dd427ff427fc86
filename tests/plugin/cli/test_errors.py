"""Run every command while something is in its way, and check what it prints and its exit code."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from chancy import Chancy
from click.testing import CliRunner, Result
from psycopg import sql

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.transfer.guard import begin_importing
from chancy_metrics.plugin.cli import output
from chancy_metrics.plugin.cli.errors import TRACEBACK, sentence_of
from chancy_metrics.plugin.cli.main import main
from chancy_metrics.plugin.cli.output import APP
from chancy_metrics.plugin.host.escape import safe
from chancy_metrics.projections.search.match import names_of
from examples.embedded import Server
from tests.factories import LogWriter, a_row, a_run, now_us, sequence_and_fold
from tests.reading import invoke
from tests.standby import Standby

PLUGIN = Path(output.__file__).parent.parent
JOB = uuid.UUID(int=7)
KEY = "app:n\x1b[2J\r\n\u202e\u200b\u0085\x9bhealthy"
WORKER = "w\nhealthy\x1b]0;x\x07\u2066"

#: Commands that only read, and those that write; FILE is a file that is not there, DIR a folder.
READS = [
    *("status", "versions", "verify", "completeness", "rebuild --status", "prune --dry-run"),
    *("audit events", f"audit job {JOB}", "audit seal", "audit check", "audit export FILE"),
    *("audit explain app:n --at 1m", "backtest examples/alerts.toml", "report"),
]
WRITES = [
    *("fold", "rebuild", "rebuild --abort", "swap", "undo", "prune --archive DIR --keep 1s"),
    *("discard 1 --why broken", "discard --rule r --why broken", "mark deploy", "mark deploy --undo"),
    "audit import --abandon",
]


#: What asks for something that is not there.
UNKNOWN = ("audit explain app:order --at 1m", "audit explain app:orders --at 1d --worker nobody")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def told(dsn: str, folder: Path, command: str, *options: str) -> Result:
    """Run one command in this process."""
    places = {"FILE": str(folder / f"{uuid.uuid4()}.export"), "DIR": str(folder)}
    return invoke(dsn, [*(places.get(one, one) for one in command.split(" ")), *options])


def is_sentence(done: Result, code: int = 1) -> bool:
    """Whether a command ended with one line on stderr and nothing else."""
    return (
        done.exit_code == code
        and done.stdout == ""
        and done.stderr.startswith("Error: ")
        and done.stderr.count("\n") == 1
        and "Traceback" not in done.stderr
    )


def is_refusal(done: Result) -> bool:
    """Whether stdout is one refusal in JSON, and nothing else."""
    found = json.loads(done.stdout)
    return found.keys() == {"error", "exit_code"} and found["exit_code"] == done.exit_code == 1 and bool(found["error"])


SITUATIONS = {
    "not migrated": ("{empty}", "run `chancy misc migrate`"),
    "server away": ("postgresql://u:hunter2@127.0.0.1:1/d", "Connection refused: check that the server runs"),
    "no such database": ("{other}", 'database "nowhere" does not exist: check the database in the app\'s DSN'),
    "a broken DSN": ("postgresql://u:hunter2%zz@127.0.0.1/d", "the app's DSN can't be read: "),
    "no such role": ("{norole}", 'role "nobody" does not exist: check user and password'),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_command_says_in_a_sentence_why_it_can_not(
    situation: str, empty_dsn: str, server: Server, folder: Path
) -> None:
    template, words = SITUATIONS[situation]
    dsn = template.format(
        empty=empty_dsn, other=server.dsn("nowhere"), norole=server.dsn().replace("postgres@", "nobody@")
    )

    wrong = {}
    for command in READS + WRITES:
        text, spoken = told(dsn, folder, command), told(dsn, folder, command, "--json")
        if not (is_sentence(text) and words in text.stderr and is_refusal(spoken) and "hunter" not in text.output):
            wrong[command] = text.output + spoken.output

    assert wrong == {}


async def test_who_has_no_grants_is_told_which(dsn: str, connection: Connection, tables: Tables, folder: Path) -> None:
    role = f"stranger_{uuid.uuid4().hex[:8]}"
    identifier = sql.Identifier(role)
    await LogWriter(connection, tables).append(runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)
    await connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(identifier))
    theirs = dsn.replace("postgres@", f"{role}@")
    try:
        found = {one: await anyio.to_thread.run_sync(told, theirs, folder, one) for one in READS + WRITES}
        await connection.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(identifier))
        await LogWriter(connection, tables).append(runs=[a_run("app:n")])
        fold = await anyio.to_thread.run_sync(told, theirs, folder, "fold")
        await connection.execute(
            sql.SQL("REVOKE SELECT ON {log} FROM {role}; GRANT SELECT (day, events) ON {log} TO {role}").format(
                log=tables.log, role=identifier
            )
        )
        check = await anyio.to_thread.run_sync(told, theirs, folder, "audit check")
    finally:
        await connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(identifier))

    assert {one: done.output for one, done in found.items() if not is_sentence(done)} == {}
    for command, done in found.items():
        assert "permission denied for" in done.stderr and f"'{role}'" in done.stderr, command
        assert "docs/roles.md has the GRANTs" in done.stderr, command
    assert f"role '{role}' has SELECT there, and not INSERT, UPDATE, DELETE" in fold.stderr
    assert f"role '{role}' has SELECT of some columns there, and not INSERT" in check.stderr


async def test_an_import_that_has_not_ended_names_the_ways_out(
    dsn: str, connection: Connection, tables: Tables, folder: Path
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n")])
    async with short_transaction(connection) as cursor:
        await begin_importing(cursor, tables)

    done = await anyio.to_thread.run_sync(told, dsn, folder, "fold")

    assert is_sentence(done) and "`chancy-metrics audit import --abandon`" in done.stderr
    assert "CONTEXT" not in done.stderr


async def test_what_is_refused_names_the_next_step(dsn: str, folder: Path) -> None:
    for command, words in {
        "undo": "`chancy-metrics rebuild` makes the numbers again",
        "swap": "make one with `chancy-metrics rebuild --no-swap`",
        "swap 7": "it is not there; `chancy-metrics versions` lists",
        "swap 1": "it is live; `chancy-metrics versions` lists",
        "discard 1 --why broken": "the ledger ends at 0",
        "discard --rule r --why broken": "has failed on no batch that is not given up; no rule has",
        "audit import --abandon": "import",
        "mark deploy --undo": "`chancy-metrics audit events --prefix mark` lists them",
    }.items():
        done = await anyio.to_thread.run_sync(told, dsn, folder, command)
        assert is_sentence(done) and words in done.stderr, (command, done.output)


#: Command -> its exit code, and words of the one line that it ends with.
ODD = {
    ("audit", "events", "--queue", ""): (2, "is a variable of the shell not set?"),
    ("audit", "events", "--parquet", ""): (2, "is a variable of the shell not set?"),
    ("audit", "explain", "app:n", "--at", "1m", "--worker="): (2, "is a variable of the shell not set?"),
    ("audit", "export", ""): (2, "is a variable of the shell not set?"),
    ("mark", ""): (2, "is a variable of the shell not set?"),
    ("discard", "--rule", "\udcff", "--why", "x"): (1, "'\\udcff' can't be written as UTF-8"),
    ("mark", "caf\udce9"): (1, "which UTF-8 can't encode"),
    ("audit", "events", "--cursor", "/nowhere/at"): (1, "the cursor can't be kept in '/nowhere/at': no such folder"),
    ("audit", "export", "/nowhere/log"): (1, "/nowhere/log: No such file or directory"),
    ("audit", "check", "--from-seal", sys.executable): (2, "is no seal this code can read"),
    ("audit", "explain", "app:n", "--at", "1m", "--unit", "euro"): (1, "'app:n' has no points in 'euro': there is"),
    ("audit", "explain", "app:n", "--at", "1m", "--kind", "gauge"): (1, "'app:n' has no gauge: there is counter in"),
    ("rebuild", "--status", "--abort"): (2, "leave one of them out"),
}


async def test_what_can_not_be_meant_is_refused_in_a_sentence(dsn: str, connection: Connection, tables: Tables) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)

    for arguments, (code, words) in ODD.items():
        done = await anyio.to_thread.run_sync(invoke, dsn, list(arguments))
        spoken = await anyio.to_thread.run_sync(invoke, dsn, [*arguments, "--json"])
        assert is_sentence(done, code) and words in done.stderr, (arguments, done.output)
        assert json.loads(spoken.stdout)["exit_code"] == code, arguments
    nothing = await anyio.to_thread.run_sync(invoke, dsn, ["audit", "events", "--until", "2020-01-01"])
    assert nothing.stderr == "no event matches all filters\n"


async def test_what_writes_belongs_on_the_primary(
    dsn: str, connection: Connection, tables: Tables, standby: Standby, folder: Path
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n")])
    await standby.arrived()
    there = standby.dsn(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"])

    for command in ("fold", "rebuild", "mark deploy", "audit import --abandon"):
        done = await anyio.to_thread.run_sync(told, there, folder, command)
        assert is_sentence(done) and "Do this on the primary" in done.stderr, (command, done.output)
        assert "cannot execute" not in done.stderr


@pytest.fixture
async def hostile(dsn: str, connection: Connection, tables: Tables) -> str:
    """A log whose names are made to fool a terminal."""
    job = a_row(now_us(), job_id=JOB.bytes, func=f"app\x1b[1A{KEY}", state="failed")
    job = job._replace(combo=job.combo._replace(error=f"E\r\n{KEY}", queue=WORKER))
    runs = [a_run(KEY, [float("1e308")], at_us=now_us()), a_run("app:n", at_us=now_us(), unit="\x1b[8m")]
    await LogWriter(connection, tables, WORKER).append(jobs=[job], runs=runs)
    await LogWriter(connection, tables, WORKER).append(runs=[a_run(f"mark:{KEY}", at_us=now_us())])
    await sequence_and_fold(connection, tables)
    await connection.execute(
        sql.SQL("UPDATE {} SET folded_by = %s, created_by = %s").format(tables.versions), [WORKER, WORKER]
    )
    return dsn


async def test_nothing_that_others_wrote_reaches_a_terminal(hostile: str, folder: Path) -> None:
    for command in [*READS, "rebuild --no-swap", f"mark {KEY.replace(' ', '')}", "audit events --state faild"]:
        for options in ([], ["--json"]):
            done = await anyio.to_thread.run_sync(told, hostile, folder, command, *options)
            assert all(letter.isprintable() for letter in done.output.replace("\n", "")), (command, done.output)
            assert done.stdout.split("\n").count("healthy as far as checked") == (
                command == "status" and not options
            ), command
            assert done.exception is None or isinstance(done.exception, SystemExit), command


async def test_json_is_all_that_stdout_has(hostile: str, folder: Path) -> None:
    for command in READS + WRITES:
        done = await anyio.to_thread.run_sync(told, hostile, folder, command, "--json")
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert answers, (command, done.output)
        if done.exit_code == 1:
            assert is_refusal(done), (command, done.output)


def process(dsn: str, command: str, **environment: str) -> dict[str, Any]:
    """How to run a command as a process of its own."""
    return {
        "args": [sys.executable, "-m", "chancy_metrics.plugin.cli", *command.split(" ")],
        "env": os.environ | {"DSN": dsn, APP: "tests.app.chancy"} | environment,
        "stderr": subprocess.PIPE,
        "stdout": subprocess.PIPE,
    }


def finished(dsn: str, command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(**process(dsn, command, **environment), timeout=60)


def left(dsn: str, command: str) -> tuple[bytes, int]:
    """Run a command whose reader leaves at once; return what it said, and its exit code."""
    with subprocess.Popen(**process(dsn, command)) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        return running.stderr.read(), running.wait()


def filled(dsn: str, command: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command whose disk is full."""
    with open("/dev/full", "wb") as full:
        return subprocess.run(**process(dsn, command) | {"stdout": full}, timeout=60)


def interrupted(dsn: str, command: str) -> tuple[bytes, int]:
    """Run a command, interrupt it after its first line; return what it said, and its exit code."""
    with subprocess.Popen(**process(dsn, command)) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.readline()
        running.send_signal(signal.SIGINT)
        _, said = running.communicate()
        return said, running.returncode


def told_while_following(dsn: str, command: str) -> tuple[bytes, int]:
    """Run a command, interrupt it after its first line on stderr; return what it said there, and its exit code."""
    with subprocess.Popen(**process(dsn, command)) as running:
        assert running.stderr is not None
        first = running.stderr.readline()
        running.send_signal(signal.SIGINT)
        return first + running.stderr.read(), running.wait()


@pytest.fixture
async def much(dsn: str, connection: Connection, tables: Tables) -> str:
    """A log with more than a pipe holds, and a name that Latin-1 has not."""
    await LogWriter(connection, tables).append(runs=[a_run("app:caf\u00e9 \u20ac", [1.0] * 3_000, at_us=now_us())])
    await sequence_and_fold(connection, tables)
    return dsn


async def test_what_an_encoding_lacks_is_a_question_mark_and_escaped_in_json(much: str) -> None:
    for encoding, options, shown in (
        ("latin-1", "", "app:caf\u00e9 ?"),
        ("latin-1", " --json", ""),
        ("ascii", "", "app:caf? ?"),
        ("utf-8", "", "app:caf\u00e9 \u20ac"),
    ):
        done = finished(much, f"audit events --limit 1{options}", PYTHONIOENCODING=encoding)

        assert done.returncode == 0, done.stderr
        assert shown in done.stdout.decode(encoding)
        assert not options or json.loads(done.stdout.decode(encoding))["key"] == "app:caf\u00e9 \u20ac"


async def test_who_leaves_ends_it_quietly(much: str) -> None:
    for command in ("audit events", "audit export -", "status", "--help", "audit events --follow --after 0"):
        assert left(much, command) == (b"", 0), command


async def test_a_full_disk_is_a_sentence(much: str) -> None:
    for command in ("audit events", "audit export -", "status --json", "--help"):
        done = filled(much, command)
        assert done.returncode == 1, command
        assert done.stderr.startswith(b"Error: ") and b"No space left on device" in done.stderr
        assert done.stderr.count(b"\n") == 1


@pytest.fixture
def interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
async def test_an_interrupted_command_ends_quietly(much: str) -> None:
    assert interrupted(much, "audit events --follow --after 0") == (b"", 130)


@pytest.mark.usefixtures("interruptible")
async def test_a_follower_of_a_name_nobody_has_is_told(much: str) -> None:
    said, code = told_while_following(much, "audit events --follow --key app:caf")

    assert said.startswith(b"no event in the log has the key 'app:caf'; near is 'app:caf")
    assert said.endswith(b"; it is waited for\n") and said.count(b"\n") == 1 and code == 130


async def test_what_loggers_and_the_app_print_is_not_in_the_answer(dsn: str, folder: Path) -> None:
    (folder / "loud.py").write_text(
        "import logging, sys, os\nfrom chancy import Chancy\nfrom chancy_metrics.plugin import Metrics\n"
        "import faulthandler\nfaulthandler.enable()\nsys.stdout.reconfigure(encoding=sys.stdout.encoding)\n"
        "logging.basicConfig(stream=sys.stdout)\nprint('hello\\x1b[2J')\nlogging.warning('loud\\u202e')\n"
        "chancy = Chancy(os.environ['DSN'], plugins=[Metrics()])\n"
    )

    done = finished(dsn, "status --json", **{APP: "loud.chancy", "PYTHONPATH": str(folder)})

    assert json.loads(done.stdout)["unhealthy"] == []
    assert b"hello\\u001b[2J\n" in done.stderr and b"loud\\u202e\n" in done.stderr


def test_help_needs_no_app_and_shows_whole_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(APP, raising=False)
    runner = CliRunner()
    groups = {(): main, ("audit",): main.commands["audit"]}
    for path, group in groups.items():
        shown = runner.invoke(main, [*path, "--help"])
        assert shown.exit_code == 0 and "..." not in shown.output.replace("[ARGS]...", "")
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            own = runner.invoke(main, [*path, name, "--help"])
            assert own.exit_code == 0 and ("--json" in own.output or name == "audit"), own.output
            first = " ".join((command.help or "").split("\n\n")[0].split()).split(". ")[0]
            assert first.rstrip(".") in " ".join(shown.output.split())

    for arguments, said in (
        (["status"], "say which app"),
        (["--app"], "requires an argument"),
        (["nothing"], "No such"),
    ):
        done = runner.invoke(main, arguments)
        assert is_sentence(done, 2) and said in done.stderr, done.output
    assert json.loads(runner.invoke(main, ["status", "--json"]).stdout)["exit_code"] == 2
    assert runner.invoke(main, []).exit_code == 2


def test_an_error_nobody_thought_of_is_a_sentence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(Exception):
        pass

    def fails(*_: object) -> None:
        raise ExceptionGroup("several", [Odd("\x1b[1mno")])

    monkeypatch.setattr(output, "load", fails)
    runner = CliRunner()

    plain = runner.invoke(main, ["--app", "x", "status"])
    whole = runner.invoke(main, ["--app", "x", "status"], env={TRACEBACK: "1"})

    assert is_sentence(plain) and "unexpected Odd: \\u001b[1mno; CHANCY_METRICS_TRACEBACK=1 shows" in plain.stderr
    assert "Traceback" in whole.stderr and whole.exit_code == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (psycopg.errors.LockNotAvailable("canceling"), "holds a lock"),
        (psycopg.errors.QueryCanceled("canceling"), "if it was statement_timeout, raise it"),
        (psycopg.errors.DeadlockDetected("deadlock"), "run the command again"),
        (psycopg.errors.AdminShutdown("terminating"), "the server is shutting down"),
        (psycopg.errors.DiskFull("could not extend"), "free some space there"),
        (psycopg.errors.ReadOnlySqlTransaction("cannot execute"), "Do this on the primary"),
        (psycopg.errors.UndefinedTable("no relation"), "chancy misc migrate"),
        (psycopg.errors.DivisionByZero("division"), "DivisionByZero (22012): division"),
        (psycopg.OperationalError("consuming input failed: server closed"), "can't be reached: consuming"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "/x: No such file or directory"),
        (MemoryError(), "no memory left"),
        (RuntimeError("dsn is postgresql://u:secret@h/d"), "u:***@h/d"),
    ],
)
def test_each_kind_of_error_says_what_to_do(error: Exception, words: str) -> None:
    said = sentence_of(error, Chancy("postgresql://chancy:chancy@127.0.0.1:1/chancy"))

    assert words in said and "\n" not in said


async def test_a_name_nobody_has_ends_with_one_and_names_what_is_near(
    dsn: str, connection: Connection, tables: Tables, folder: Path
) -> None:
    job = a_row(now_us(), func="app.send", state="failed")
    job = job._replace(combo=job.combo._replace(error="app.errors.CardDeclined: no", queue="mail"))
    await LogWriter(connection, tables, "worker-1").append(jobs=[job], runs=[a_run("app:orders")])
    await sequence_and_fold(connection, tables)

    async def events(*options: str) -> Result:
        return await anyio.to_thread.run_sync(told, dsn, folder, "audit events", *options)

    for option, value, close in (
        ("--state", "faild", "'failed'"),
        ("--queue", "mial", "'mail'"),
        ("--func", "send", "'app.send'"),
        ("--worker", "worker-2", "'worker-1'"),
        ("--error", "CardDeclind", "'CardDeclined'"),
        ("--key", "app:order", "'app:orders'"),
        ("--prefix", "ap", "'app'"),
    ):
        done = await events(option, value)
        assert is_sentence(done) and f"{value!r}; near " in done.stderr and close in done.stderr, done.output
        assert is_refusal(await events(option, value, "--json"))
    for found in ("CardDeclined", "errors.CardDeclined", "app.errors.CardDeclined", "app.errors.CardDeclined: no"):
        assert (await events("--error", found)).stdout.count("CardDeclined") == 1
    nothing = await events("--queue", "mail", "--until", "2020-01-01")
    assert (nothing.exit_code, nothing.stderr) == (0, "no event matches all filters\n")
    for unknown in (*UNKNOWN, f"audit job {uuid.uuid4()}"):
        assert is_sentence(await anyio.to_thread.run_sync(told, dsn, folder, unknown))


def test_an_error_is_found_by_the_last_parts_of_its_type() -> None:
    assert names_of("a.b.C: no. really") == ["a.b.C: no. really", "a.b.C", "b.C", "C"]
    assert names_of("ValueError") == ["ValueError", "ValueError"]


@pytest.mark.parametrize("letter", ["\x1b", "\x7f", "\x9b", "\u200b", "\u202e", "\u2028", "\ufe0f", "\u3164", "\ud800"])
def test_what_can_not_be_seen_is_escaped(letter: str) -> None:
    assert safe(f"a{letter}b") == f"a\\u{ord(letter):04x}b"


def test_only_the_door_prints() -> None:
    found = []
    for module in PLUGIN.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            is_stream = isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr")
            if is_stream or name in ("print", "click.echo", "click.secho", "echo", "sys.stdout.write"):
                found.append(module.name)

    assert set(found) == {"output.py"}
