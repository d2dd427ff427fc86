"""docs/api.md names every public function with its command, and every error with when it comes."""

from __future__ import annotations

import inspect

from chancy_metrics import plugin
from tests.reference.pages import code, rows, section
from tests.reference.test_commands import COMMANDS


def public(condition: object) -> set[str]:
    return {name for name in plugin.__all__ if condition(getattr(plugin, name))}  # type: ignore[operator] # a function


def is_error(one: object) -> bool:
    return inspect.isclass(one) and issubclass(one, Exception)


def test_every_public_function_is_in_the_table_and_every_command_in_it_is_there() -> None:
    table = rows(section("api", "Functions and their commands"))
    called = {call.partition("(")[0] for row in table for call in code(row[0])}
    # `check(chancy, seals=read_seals(lines, "file"))`
    named = called | {"read_seals"}

    assert named == public(inspect.isfunction)
    assert all(any(f"{line} ".startswith(f"{name} ") for name in COMMANDS) for row in table for line in code(row[2]))


def test_every_public_error_is_in_the_table() -> None:
    assert {name for row in rows(section("api", "Errors")) for name in code(row[0])} == public(is_error)
