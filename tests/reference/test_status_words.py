"""docs/status.md has each line and each JSON key of `status` and `completeness`, and the words of each reason."""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from chancy_metrics.events import pending
from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.cli import status as status_command
from chancy_metrics.plugin.cli import verify as verify_command
from chancy_metrics.plugin.health import completeness_facts, status_reader, verdict
from chancy_metrics.plugin.health.completeness import Completeness
from chancy_metrics.plugin.health.status import Status
from chancy_metrics.plugin.rebuilds import rollout
from chancy_metrics.plugin.worker import retention
from chancy_metrics.projections.verify import records
from chancy_metrics.projections.versions import baseline, grace, horizons_ahead, left_out, totals_behind, version
from tests.commands import run
from tests.factories import LogWriter, a_row, a_run, now_us, sequence_and_fold
from tests.reference.pages import code, page, rows, section

#: Everything that words a line of `status`, or a reason for unhealthy.
WORDING = [
    *(verdict.not_looked_at, verdict.unhealthy_reasons, verdict._why_waiting, status_reader._rules_note),
    *(pending.set_aside_sentence, horizons_ahead.sentence, left_out.withheld, grace.read_waited_for),
    *(completeness_facts.read_facts, completeness_facts._held_by, completeness_facts._counts, records._read_all),
    *(
        totals_behind.totals_behind,
        retention.DueDay,
        baseline.refusal,
        baseline._what_to_do,
        rollout.plan_rollout,
        version.Version.refuses,
    ),
]


def parsed(thing: Any) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(thing)))


def lines_of(thing: Any) -> set[str]:
    """Return the names of lines in a function's source: the keys of its dicts. "N" stands for a number in one."""
    found = set()
    for node in ast.walk(parsed(thing)):
        keys: list[ast.expr | None] = []
        if isinstance(node, ast.Dict):
            keys = node.keys
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            keys = [node.slice]
        for key in keys:
            if isinstance(key, ast.Constant):
                found.add(key.value)
            elif isinstance(key, ast.JoinedStr):
                found.add("".join(one.value if isinstance(one, ast.Constant) else "N" for one in key.values))
    return found


def test_every_line_of_status_is_on_the_page() -> None:
    functions = [one for one in vars(status_command).values() if inspect.isfunction(one)]
    own = set[str]().union(*(lines_of(one) for one in functions if inspect.getmodule(one) is status_command))
    counts = lines_of(verify_command.counted)

    table = [row for row in rows(section("status", "The lines of `status`")) if len(row) == 4]
    told = [name for row in table for name in code(row[0])]

    # "totals" has two more names in a conditional expression, and the counts are in the next table.
    assert set(told) == own | {"totals", "totals anew", "totals built", "rejected", "in memory", "unreadable"}
    assert counts >= {"rejected", "in memory", "unreadable"}


def test_every_line_of_completeness_is_on_the_page() -> None:
    printed = lines_of(verify_command.counted) | lines_of(verify_command._completeness_lines)
    table = [row for row in rows(section("status", "Completeness")) if len(row) == 5]

    assert {name for row in table for name in code(row[0])} == printed
    assert {name for row in table for name in code(row[1])} == {
        one.name for one in msgspec.structs.fields(Completeness)
    }


def keys(kind: msgspec.inspect.Type, at: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the path of each key that a struct has in JSON, however deep, and whether it may be null."""
    if isinstance(kind, msgspec.inspect.UnionType):
        for one in kind.types:
            yield from keys(one, at)
    elif isinstance(kind, msgspec.inspect.ListType):
        yield from keys(kind.item_type, f"{at}[]")
    elif isinstance(kind, msgspec.inspect.StructType):
        for field in kind.fields:
            path = f"{at}.{field.name}".lstrip(".")
            is_union = isinstance(field.type, msgspec.inspect.UnionType)
            yield path, is_union and field.type.includes_none  # type: ignore[attr-defined] # a union
            yield from keys(field.type, path)


def test_every_key_of_the_json_is_on_the_page_and_no_other() -> None:
    made = dict(keys(msgspec.inspect.type_info(Status)))
    table = rows(section("status", "The JSON of `status`"))
    told = {code(row[0])[0]: row[1].endswith("or null") for row in table}
    of_rules = {f"completeness.{code(row[0])[0]}" for row in rows(section("status", "Completeness")) if len(row) == 2}

    assert told == {path: null for path, null in made.items() if not path.startswith("completeness.")}
    assert of_rules == {path for path in made if path.startswith("completeness.failing_rules[]")}


def in_json(value: Any, at: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield f"{at}.{name}".lstrip(".")
            yield from in_json(one, f"{at}.{name}")
    elif isinstance(value, list):
        for one in value:
            yield from in_json(one, f"{at}[]")


async def test_a_real_run_prints_keys_and_lines_of_the_page(dsn: str, connection: Connection, tables: Tables) -> None:
    await LogWriter(connection, tables).append(runs=[a_run()], jobs=[a_row(now_us())])
    await sequence_and_fold(connection, tables)
    assert run(dsn, "verify").returncode == 0
    assert run(dsn, "audit", "check").returncode == 0

    found = json.loads(run(dsn, "status", "--json").stdout)
    lines = run(dsn, "status").stdout.splitlines()

    known = dict(keys(msgspec.inspect.type_info(Status))).keys()
    maps = "verified.share.by_resolution."
    assert {path for path in in_json(found) if not path.startswith(maps)} <= known
    assert found.keys() == {path for path in known if not re.search(r"[.\[]", path)}
    names = {line[:15].strip() for line in lines[:-1]}
    tables_of_lines = section("status", "The lines of `status`") + section("status", "Completeness")
    assert names <= {name for row in rows(tables_of_lines) for name in code(row[0])}
    assert lines[-1] == "healthy"
    always = set(
        code(section("status", "The lines of `status`").partition("\nAlways printed are ")[2].partition(".\n")[0])
    )
    counts = lines_of(verify_command.counted)
    assert names - {"compared", "log checked"} == (always | counts) - {"unreadable"}


def words(thing: Any) -> set[str]:
    """Return what a function says: pieces of its texts of three words or more; no docstrings, no SQL."""
    found: set[str] = set()
    tree = parsed(thing)
    docstrings = {
        id(node.body[0].value)  # type: ignore[attr-defined] # an expression
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and ast.get_docstring(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            piece = " ".join(node.value.split()).strip(" :;,.()")
            if len(piece.split()) >= 3 and not re.search(r"\n|^SELECT|%[a-zA-Z]", node.value):
                found.add(piece)
    return found


@pytest.mark.parametrize("thing", WORDING, ids=lambda thing: thing.__qualname__)
def test_what_a_reason_says_is_on_the_page_word_by_word(thing: Any) -> None:
    text = " ".join(page("status").replace("|", " ").split())

    assert [piece for piece in words(thing) if piece not in text] == []


def test_words_are_found_at_all() -> None:
    assert "folds but does not keep up" in words(verdict._why_waiting)
    assert "series: most likely a key contains an id" in words(verdict.unhealthy_reasons)
