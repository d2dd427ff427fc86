"""Show PostgreSQL's plans of the statements that sequence and fold, with their real values."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from psycopg import AsyncConnection, sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.schema import tables_for
from chancy_metrics.events.sequencer import sequence
from chancy_metrics.projections.versions.advance import advance

_TABLES = tables_for("chancy_")
_EXPLAIN = sql.SQL("EXPLAIN (FORMAT JSON) ")
#: Seconds to wait for a moment at which the projector leaves something to do.
_PATIENCE_S = 5
#: Less than the projector's steps, so that it is not kept from its work for long.
_STEP_EVENTS = 5_000

#: The nodes of plans, by what they are of: a statement's beginning, or when they were made.
Plans = dict[str, str]


async def plans(dsn: str) -> Plans:
    """Order and fold once beside the projector, asking for the plan of each statement before it runs."""
    found: Plans = {}
    connection = await AsyncConnection.connect(
        dsn, autocommit=True, prepare_threshold=None, cursor_factory=_explaining(found)
    )
    async with connection:
        after, events, until = 0, 0, time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            done = await sequence(connection, _TABLES, after=after)
            if not events:
                events = (await advance(connection, _TABLES, folded_by="bench", step_events=_STEP_EVENTS)).events
            if after and done.batches and events:
                break
            after = done.last_id
            await asyncio.sleep(0.1)
    return found


def changed(taken: Mapping[str, Plans]) -> dict[str, Plans]:
    """The statements that did not have one plan all the time, with the plans and when each of them was met first."""
    found: dict[str, Plans] = {}
    for when, several in taken.items():
        for statement, plan in several.items():
            if plan not in (known := found.setdefault(statement, {})).values():
                known[when] = plan
    return {statement: known for statement, known in found.items() if len(known) > 1}


def _explaining(found: Plans) -> type[Cursor]:
    class Explaining(Cursor):
        async def execute(self, query: Any, params: Any = None, **options: Any) -> Explaining:
            if isinstance(query, sql.Composed) and not (text := query.as_string(self)).startswith("SET "):
                await super().execute(_EXPLAIN + query, params)
                row = await self.fetchone()
                assert row is not None
                found[_title(text)] = ", ".join(_nodes(row[0][0]["Plan"]))
            await super().execute(query, params, **options)
            return self

    return Explaining


def _title(text: str) -> str:
    return " ".join(text.split())[:100]


def _nodes(plan: dict[str, Any]) -> Iterator[str]:
    of = [plan[key] for key in ("Relation Name", "Index Name") if key in plan]
    yield re.sub(r"_\d{8}", "_DAY", " ".join([plan["Node Type"], *of]))
    for part in plan.get("Plans", ()):
        yield from _nodes(part)
