"""Name the conditions of a query that no event in the log meets, and suggest similar names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import aclosing
from difflib import get_close_matches

from chancy import Chancy
from psycopg import sql

from chancy_metrics.events.database import Cursor, short_transaction
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin.audit.events import pages
from chancy_metrics.plugin.host.connection import own_connection
from chancy_metrics.projections.search.query import EventQuery, names_of, type_of
from chancy_metrics.projections.search.scan import read_end

#: Limits of the search for similar names: positions before the end of the ledger, events, names of series or workers.
_POSITIONS, _EVENTS, _NAMES = 200, 50_000, 5_000
#: Up to this many names are all suggested.
_FEW = 6
_WORDS = {
    "state": "state",
    "queue": "queue",
    "func": "function",
    "worker": "worker",
    "error": "type of error",
    "key": "key",
    "prefix": "prefix",
    "job_id": "job id",
    "producer": "producer",
}


def asked_names(query: EventQuery) -> list[str]:
    """Return the fields of *query* that name something."""
    return [field for field in _WORDS if getattr(query, field)]


async def unknown_names(chancy: Chancy, query: EventQuery) -> list[str]:
    """Return a sentence for each name in *query* that no event in the log has, with similar names.

    Searches the whole log for each; the skip index excludes most of it.
    """
    return [
        f"no event in the log has the {_WORDS[field]} {str(value)!r}{await _near(chancy, field, str(value))}"
        for field in asked_names(query)
        if not await _is_known(chancy, EventQuery(**{field: (value := getattr(query, field))}))
    ]


def near(name: str, names: Iterable[str]) -> list[str]:
    """Return up to three names that are similar to *name* or contain it; the most similar first."""
    there = sorted(set(names) - {""})
    lower = name.lower()
    alike = get_close_matches(lower, [one.lower() for one in there], n=3)
    found = [one for like in alike for one in there if one.lower() == like]
    return list(dict.fromkeys([*found, *(one for one in there if lower in one.lower())]))[:3]


async def _is_known(chancy: Chancy, query: EventQuery) -> bool:
    async with aclosing(pages(chancy, query)) as found:
        async for page in found:
            if page.found:
                return True
    return False


async def _near(chancy: Chancy, field: str, value: str) -> str:
    if field in ("job_id", "producer"):
        return ""
    there = {name for name in await _names(chancy, field) if name}
    if close := near(value, there):
        return f"; near {'is' if len(close) == 1 else 'are'} {_listed(close)}"
    if there and len(there) <= _FEW:
        return f"; there {'is' if len(there) == 1 else 'are'} {_listed(sorted(there))}"
    return ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


async def _names(chancy: Chancy, field: str) -> set[str]:
    """Return names of *field*: those of the latest events, of series and of workers."""
    tables = tables_for(chancy.prefix)
    async with own_connection(chancy) as connection, short_transaction(connection) as cursor:
        end = await read_end(cursor, tables)
        found = await _stored(cursor, tables, field)
    seen = 0
    async with aclosing(pages(chancy, EventQuery(first_position=max(1, end - _POSITIONS)))) as recent:
        async for page in recent:
            seen += page.events
            if seen > _EVENTS:
                break
            for event in page.to_events():
                if field == "error":
                    found |= set(names_of(type_of(event.error)))
                else:
                    found.add(getattr(event, "key" if field == "prefix" else field, None) or "")
    if field == "prefix":
        found |= {key[:colon] for key in found for colon, letter in enumerate(key) if letter == ":"}
    return found


async def _stored(cursor: Cursor, tables: Tables, field: str) -> set[str]:
    table, column = (tables.workers, "name") if field == "worker" else (tables.series, "key")
    await cursor.execute(
        sql.SQL("SELECT {column} FROM {table} LIMIT %(limit)s").format(column=sql.Identifier(column), table=table),
        {"limit": _NAMES},
    )
    found = {row[0] for row in await cursor.fetchall()}
    if field in ("worker", "key", "prefix"):
        return found
    segments = [key.split(":") for key in found]
    if field == "queue":
        return {":".join(one[1:-1]) for one in segments if one[0] == "queue" and one[-1] == "throughput"}
    if field == "state":
        return {one[2] for one in segments if one[:2] == ["global", "status"] and len(one) == 3}
    if field == "func":
        return {":".join(one[1:-1]) for one in segments if one[0] == "job" and len(one) > 2}
    return set()
