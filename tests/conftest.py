"""One real PostgreSQL for the run, a template database made once, a clone of it for each test that needs one."""

from __future__ import annotations

import inspect
import itertools
import multiprocessing.util
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import CodeType

import psycopg
import pytest
from chancy import Chancy
from hypothesis import settings
from psycopg import AsyncConnection, sql

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin import Metrics
from examples.embedded import Server
from tests import commands, scratch
from tests.roles import made_roles
from tests.standby import Standby

_numbers = itertools.count(1)
TEMPLATE = "metrics_template"
#: What is slow as a whole, and what makes each test slow that calls it; other slow tests wear the mark themselves.
SLOW_FOLDERS, SLOW_FIXTURES = {"end_to_end", "faults"}, {"standby"}
SLOW_CALLS = (commands.run, commands.serving, commands.command, subprocess)

# In CI the same examples every time: a run decides about a commit, the search for new ones goes on elsewhere. No test
# judges how long it takes: on a busy machine the first examples take any time.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=20)
settings.load_profile("ci" if os.environ.get("CI") else "search")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--only-database", action="store_true", help="only tests that use PostgreSQL, for another release")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("markexpr") == "not slow" and not os.environ.get("CI"):
        settings.load_profile("quick")
    if "PYTEST_XDIST_WORKER" not in os.environ and (folder := scratch.enter()):
        # After multiprocessing has removed its own folder in it, whose priority is -100.
        multiprocessing.util.Finalize(None, shutil.rmtree, (folder, True), exitpriority=-200)


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if (
            SLOW_FOLDERS.intersection(item.path.parts)
            or SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ()))
            or starts_processes(item)
        ):
            item.add_marker(pytest.mark.slow)
    if config.getoption("--only-database"):
        items[:] = [
            item for item in items if "server" in getattr(item, "fixturenames", ()) or "faults" in item.path.parts
        ]


def starts_processes(item: pytest.Item) -> bool:
    """Whether the test, or a function of its module that it calls, names one of `SLOW_CALLS`."""
    function = getattr(item, "function", None)
    function = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    waiting, seen = [function], set()
    while waiting:
        function = inspect.unwrap(waiting.pop())
        if not inspect.isfunction(function) or function in seen:
            continue
        seen.add(function)
        for name in names_in(function.__code__):
            named = function.__globals__.get(name)
            if any(named is call for call in SLOW_CALLS):
                return True
            if getattr(named, "__module__", None) == function.__module__:
                waiting.append(named)
    return False


def names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from names_in(inner)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which files take longest, where --durations asks for the slowest tests: a file is run by one process."""
    limit = config.getoption("durations")
    if not limit:
        return
    seconds: Counter[str] = Counter()
    tests: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.partition("::")[0]] += report.duration
                tests[report.nodeid.partition("::")[0]] += report.when == "call"
    terminalreporter.section(f"slowest {limit} of {len(seconds)} files")
    for path, spent in seconds.most_common(limit):
        terminalreporter.write_line(f"{spent:.2f}s {tests[path]:4} tests  {path}")
    terminalreporter.write_line(f"{seconds.total():.2f}s {tests.total():4} tests  all of them, one after the other")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server of the run: the wheel's PostgreSQL 18, or the one whose binaries `PG_BIN` names."""
    binaries = os.environ.get("PG_BIN")
    with Server(Path(binaries) if binaries else None) as instance:
        yield instance


@pytest.fixture(scope="module")
def standby(server: Server) -> Iterator[Standby]:
    """A hot standby of the run's server: `standby.dsn(database)`, once it has `arrived`.

    It ends with the module: it replays each database that a later test makes.
    """
    binaries = os.environ.get("PG_BIN")
    with Standby(server, Path(binaries) if binaries else None) as instance:
        yield instance


@pytest.fixture(scope="session")
async def template(server: Server) -> str:
    """A migrated database nobody is connected to."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    async with Chancy(server.dsn(TEMPLATE), plugins=[Metrics()]) as chancy:
        await chancy.migrate()
    return TEMPLATE


@pytest.fixture
def dsn(server: Server, template: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(*map(sql.Identifier, (name, template)))
        )
        yield server.dsn(name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def empty_dsn(server: Server) -> Iterator[str]:
    """A database without any table."""
    name = f"empty_{next(_numbers)}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield server.dsn(name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def roles(dsn: str) -> Iterator[tuple[str, ...]]:
    """The names of roles that have the rights of the documents, in the order of `ROLES`."""
    with made_roles(dsn) as names:
        yield names


@pytest.fixture
def tables() -> Tables:
    return tables_for("chancy_")


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[Connection]:
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        yield connection
