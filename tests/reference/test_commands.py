"""docs/commands.md has the exit codes of every command, and the commands end with them."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator

import click
import pytest
from anyio import to_thread
from click.testing import CliRunner

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.cli import output
from chancy_metrics.plugin.cli.main import main
from tests.factories import LogWriter, a_row, a_run, damage, fetch, now_us, sequence_and_fold
from tests.reading import invoke
from tests.reference.pages import code, rows, section

GENERAL, OF_COMMANDS = (
    [row for row in rows(section("commands", "Exit codes")) if row[0].isdigit() is numbers] for numbers in (True, False)
)


def commands(group: click.Group = main, before: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, one in group.commands.items():
        if isinstance(one, click.Group):
            yield from commands(one, f"{before}{name} ")
        else:
            yield f"{before}{name}", one


COMMANDS = dict(commands())
#: What looks for something wrong; `status` and `report` after those whose findings they have.
CHECKS = (
    *("verify", "audit check", "status", "report", "audit events"),
    "audit explain app:n --at 1s --resolution 1day",
)


def test_every_command_has_a_row_and_every_code_too() -> None:
    codes = {output.FINE, output.COULD_NOT, output.WRONG_USAGE, output.FOUND_SOMETHING, output.INTERRUPTED}

    assert sorted(code(row[0])[0] for row in OF_COMMANDS) == sorted(COMMANDS)
    assert {int(row[0]) for row in GENERAL} == codes


@pytest.mark.parametrize("row", OF_COMMANDS, ids=lambda row: row[0].strip("`"))
def test_a_command_that_never_ends_with_3_can_not(row: list[str]) -> None:
    can = "FOUND_SOMETHING" in names_in(COMMANDS[code(row[0])[0]].callback)

    assert row[1].startswith("never") is not can


def names_in(function: object, seen: frozenset[str] = frozenset()) -> set[str]:
    """Return the names in a function, and in the functions of its module that it names."""
    function = inspect.unwrap(function)  # type: ignore[arg-type] # a function
    module = sys.modules[function.__module__]
    names = {node.id for node in ast.walk(ast.parse(inspect.getsource(function))) if isinstance(node, ast.Name)}
    for name in names - seen:
        other = getattr(module, name, None)
        if inspect.isfunction(other) and other.__module__ == module.__name__:
            names |= names_in(other, seen | names)
    return names


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_0_and_wrong_usage_with_2(name: str) -> None:
    helped = CliRunner().invoke(main, [*name.split(), "--help"])
    wrong = CliRunner().invoke(main, [*name.split(), "--no-such-option"])
    empty = CliRunner().invoke(main, [*name.split(), ""])

    assert (helped.exit_code, wrong.exit_code, empty.exit_code) == (0, 2, 2)


async def test_commands_end_with_0_where_all_is_well_with_3_where_it_is_not_and_with_1_for_what_is_not_there(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run(at_us=now_us())], jobs=[a_row(now_us())])
    await sequence_and_fold(connection, tables)

    well = await exit_codes(dsn)
    unknown = await to_thread.run_sync(invoke, dsn, ["audit", "job", "019e2b7c-0000-7000-8000-000000000000"])
    await fetch(connection, "UPDATE {r1day} SET count = count + 1", tables)
    await damage(connection, tables, "UPDATE {log} SET payload = '\\x00'")
    ill = await exit_codes(dsn)

    assert well == dict.fromkeys(CHECKS, 0)
    assert unknown.exit_code == 1
    assert ill == dict.fromkeys(CHECKS, 3)


async def exit_codes(dsn: str) -> dict[str, int]:
    """Run each of `CHECKS`; return what it ended with."""
    return {line: (await to_thread.run_sync(invoke, dsn, line.split())).exit_code for line in CHECKS}
