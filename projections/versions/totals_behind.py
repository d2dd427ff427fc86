"""Find the generation of the totals that keeps a day in the log, since it has not added all of it."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.versions.version import read_generations


class TotalsBehind(NamedTuple):
    """A generation of the totals that lacks a part of a day, in a *sentence*; *is_advanced* by whoever reads totals."""

    sentence: str
    is_advanced: bool


async def totals_behind(cursor: Cursor, tables: Tables, day: date) -> TotalsBehind | None:
    """Return which generation of the totals has not added all of *day*; None if none lacks any of it."""
    await cursor.execute(
        sql.SQL("SELECT coalesce(max(position), 0) FROM {ledger} WHERE day = %(day)s").format(ledger=tables.ledger),
        {"day": day},
    )
    row = await cursor.fetchone()
    last = row[0] if row else 0
    generations = await read_generations(cursor, tables)
    is_served = any(one.status == "totals" for one in generations)
    for one in generations:
        if one.position < last:
            place = f"position {one.position:,}, and {day} ends at {last:,}"
            stands = f"generation {one.version} of the totals is at {place}"
            if one.status == "totals" or not is_served:
                return TotalsBehind(stands, is_advanced=True)
            return TotalsBehind(f"{stands}; `chancy-metrics rebuild --totals` finishes it", is_advanced=False)
    return None
