"""docs/json.md has each key that a command prints with `--json`, and no other."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from anyio import to_thread

from chancy_metrics import plugin
from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.telemetry.push import Pushed
from chancy_metrics.projections.findings import Check
from tests.factories import LogWriter, a_row, a_run, fetch, now_us, sequence_and_fold
from tests.reading import invoke
from tests.reference.pages import code, page, rows, section
from tests.reference.test_commands import COMMANDS
from tests.reference.test_http import keys

#: What a command prints as it is; a list of them has the keys of each.
STRUCTS: dict[str, type[msgspec.Struct]] = {
    "rebuild": plugin.Rebuilt,
    "rebuild --totals": plugin.RebuiltTotals,
    "versions": plugin.VersionInfo,
    "prune": plugin.PrunedDay,
    "discard": plugin.Discarded,
    "otlp": Pushed,
    "import-builtin": plugin.BuiltInImported,
    "audit import": plugin.Imported,
}
#: Keys whose values are described in a sentence.
WHOLE = ("old", "new", "series")


def told(command: str) -> dict[str, bool]:
    """Return the keys that the page lists for a command, and whether each may be null."""
    return {code(row[0])[0]: row[1].endswith("or null") for row in rows(section("json", f"`{command}`"))}


def test_every_command_is_on_the_page() -> None:
    listed = {name for row in rows(page("json").partition("\n## ")[0]) for name in code(row[0])}
    headings = {name for line in re.findall(r"^## (`.*)$", page("json"), re.M) for name in code(line)}

    assert listed | (headings - {"rebuild --totals"}) == set(COMMANDS)
    assert listed & headings == set()


@pytest.mark.parametrize("command", STRUCTS)
def test_the_keys_of_what_is_printed_as_it_is_are_its_fields(command: str) -> None:
    assert told(command) == dict(keys(msgspec.inspect.type_info(STRUCTS[command])))


def test_every_check_is_on_the_page() -> None:
    assert {code(row[0])[0] for row in rows(section("json", "Checks"))} == {"difference", *typing.get_args(Check)}


@pytest.mark.parametrize("struct", [plugin.Report, plugin.Backtest])
def test_the_page_on_alerts_names_every_key_of_a_report_and_a_backtest(struct: type[msgspec.Struct]) -> None:
    named = set(re.findall(r"\w+", " ".join(code(re.sub(r"^```.*?^```", "", page("alerts"), flags=re.S | re.M)))))

    paths = [path for path, _ in keys(msgspec.inspect.type_info(struct))]

    assert [path for path in paths if path.rpartition(".")[2] not in named] == []


def printed(value: Any, at: str = "") -> Iterator[str]:
    """Yield the path of each key in an answer."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict) and at.rpartition(".")[2] not in (*WHOLE, "by_resolution"):
            for name, inner in one.items():
                yield f"{at}.{name}".lstrip(".")
                inside = f"{at}.{name}".lstrip(".") + ("[]" if isinstance(inner, list) else "")
                yield from printed(inner, inside)


async def test_what_commands_print_has_the_keys_of_the_page(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run(at_us=now_us())], jobs=[a_row(now_us())])
    await sequence_and_fold(connection, tables)
    path = tmp_path / "log.export"

    async def answer(line: str) -> Any:
        done = await to_thread.run_sync(invoke, dsn, [*line.split(), "--json"])
        assert done.exit_code in (0, 3), done.stderr
        return json.loads(done.stdout)

    async def check(command: str, line: str = "") -> None:
        found = set(printed(await answer(line or command)))
        assert found == told(command).keys(), command

    await check("fold")
    await check("mark", "mark deploy")
    await check("audit seal")
    await check("alert-rules")
    await check("audit export", f"audit export {path}")
    await check("audit import", f"audit import {path}")
    await fetch(connection, "UPDATE {r1day} SET count = count + 1", tables)
    await connection.execute("UPDATE chancy_metrics_head SET position = position + 1")
    await check("verify")
    await check("audit check")
    await connection.execute("UPDATE chancy_metrics_head SET position = position - 1")
    rebuilt = set(printed(await answer("rebuild --no-swap")))
    assert rebuilt == {name for name in told("rebuild") if not name.startswith("archives.")}
    await check("versions", "rebuild --status")
    await check("swap")
    await check("undo")
    await answer("rebuild --totals")
    await fetch(connection, "UPDATE {totals} SET count = count + 1", tables)
    await check("rebuild --totals")
