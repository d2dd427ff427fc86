"""docs/api.md names every public function with its command, and every error with when it comes."""

from __future__ import annotations

import inspect
import re

import pytest

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


@pytest.mark.parametrize("row", rows(section("api", "Functions and their commands")), ids=lambda row: row[0])
def test_what_a_function_returns_is_what_the_table_says(row: list[str]) -> None:
    told = set(code(row[1]))

    for call in code(row[0]):
        returns = inspect.signature(getattr(plugin, call.partition("(")[0])).return_annotation
        assert {name for name in re.findall(r"\w+", str(returns)) if name in plugin.__all__} <= told


def test_every_public_error_is_in_the_table() -> None:
    assert {name for row in rows(section("api", "Errors")) for name in code(row[0])} == public(is_error)
