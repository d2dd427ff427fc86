"""docs/tables.md has each table, view, function, domain and column of a migrated database, and nothing else."""

from __future__ import annotations

import re
from typing import Any

from chancy_metrics.events.database import Connection
from tests.reference.pages import code, page, rows, section

#: What the page says of one as "the columns of that one", and then those that it has besides.
EXTENDS = {
    "chancy_metrics_spill": "chancy_metrics_log",
    "chancy_metrics_totals": "chancy_metrics_1min",
    "chancy_metrics_points": "chancy_metrics_points_1min",
}
_SHORT = {"timestamp with time zone": "timestamptz"}


async def fetch(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query)).fetchall()


def documented() -> dict[str, list[tuple[str, str]]]:
    """Return each relation of the page with its columns: name and type."""
    found: dict[str, list[tuple[str, str]]] = {}
    for heading in re.findall(r"^### (`chancy_metrics_.*)$", page("tables"), re.M):
        columns = [(code(column)[0], kind) for column, kind, _ in rows(section("tables", heading))]
        found |= dict.fromkeys(code(heading), columns)
    return {name: found.get(EXTENDS.get(name, ""), []) + columns for name, columns in found.items()}


async def test_every_column_of_the_database_is_on_the_page_with_its_type_and_no_other(connection: Connection) -> None:
    made = await fetch(
        connection,
        """
        SELECT c.relname, a.attname, format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL)
            || CASE WHEN a.attnotnull OR c.relkind = 'v' THEN '' ELSE ' NULL' END
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        JOIN pg_type t ON t.oid = a.atttypid
        WHERE starts_with(c.relname, 'chancy_metrics_') AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
        """,
    )
    there: dict[str, set[tuple[str, str]]] = {}
    for relation, column, kind in made:
        long = kind.removesuffix(" NULL")
        there.setdefault(relation, set()).add((column, _SHORT.get(long, long) + kind[len(long) :]))

    told = documented()

    assert told.keys() == there.keys()
    assert {name: set(columns) for name, columns in told.items()} == there
    assert all(len(set(columns)) == len(columns) for columns in told.values())


async def test_every_function_is_on_the_page_with_its_arguments(connection: Connection) -> None:
    made = await fetch(
        connection,
        """
        SELECT p.proname, (
            SELECT coalesce(string_agg(a.name || ' ' || format_type(a.kind, NULL), ', ' ORDER BY a.number), '')
            FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS k (kind, number)
            CROSS JOIN LATERAL (SELECT p.proargnames[k.number] AS name, k.kind, k.number) AS a
        )
        FROM pg_proc p
        WHERE starts_with(p.proname, 'chancy_metrics_')
        """,
    )

    told = [code(row[0])[0] for row in rows(section("tables", "Functions"))]

    assert sorted(told) == sorted(f"{name}({arguments})" for name, arguments in made)


async def test_every_domain_is_on_the_page_with_its_type(connection: Connection) -> None:
    made = await fetch(
        connection,
        """
        SELECT typname, format_type(typbasetype, NULL)
        FROM pg_type
        WHERE typtype = 'd' AND starts_with(typname, 'chancy_metrics_')
        """,
    )

    told = {code(name)[0]: kind for name, kind, _ in rows(section("tables", "Domains"))}

    assert told == dict(made)


async def test_the_states_of_days_and_versions_are_those_that_the_database_accepts(connection: Connection) -> None:
    made = await fetch(
        connection,
        """
        SELECT conrelid::regclass::text, pg_get_constraintdef(oid)
        FROM pg_constraint
        WHERE conname IN ('chancy_metrics_days_state_check', 'chancy_metrics_versions_status_check')
        """,
    )
    accepted = {relation: set(re.findall(r"'(\w+)'::text", check)) for relation, check in made}

    of_day = {row[0]: row[2] for row in rows(section("tables", "`chancy_metrics_days`"))}["`state`"]
    of_version = {row[0]: row[2] for row in rows(section("tables", "`chancy_metrics_versions`"))}["`status`"]

    assert set(code(of_day)) == accepted["chancy_metrics_days"]
    assert set(code(of_version)) - {"swap", "undo"} == accepted["chancy_metrics_versions"]
