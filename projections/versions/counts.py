"""What a version counted beside its points, kept in its row as JSON: reason -> how many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated

import msgspec
from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.decoding import decode_as
from chancy_metrics.events.errors import Damaged
from chancy_metrics.events.humanize import counted
from chancy_metrics.events.schema import Tables

_decoder = msgspec.json.Decoder(dict[str, Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]])


def decode_counts(text: str, where: str = "") -> dict[str, int]:
    """Decode counts from the text of their JSON, which is asked for as text: psycopg would recurse as deep as it nests.

    Raises:
        Damaged: It is something else.
    """
    return decode_as(_decoder, text.encode(), "map of counts", where)


async def added_counts(cursor: Cursor, tables: Tables, version: int, counts: Counter[str]) -> dict[str, int] | None:
    """Return what *version* counted, and *counts* added; the caller holds its lock.

    None where it can't be read, to leave it as it is: no fold stops at it, `status` names it, a rebuild counts again.
    """
    await cursor.execute(
        sql.SQL("SELECT counts::text FROM {versions} WHERE version = %(version)s").format(versions=tables.versions),
        {"version": version},
    )
    row = await cursor.fetchone()
    try:
        return dict(Counter(decode_counts(row[0]) if row else {}) + counts)
    except Damaged:
        return None


async def read_counts(cursor: Cursor, tables: Tables, versions: list[int]) -> dict[int, str]:
    """Return version -> the text of what it counted, as JSON, of those of *versions* that are there."""
    await cursor.execute(
        sql.SQL("SELECT version, counts::text FROM {versions} WHERE version = ANY(%(versions)s::integer[])").format(
            versions=tables.versions
        ),
        {"versions": versions},
    )
    return dict(await cursor.fetchall())


def count_faults(stored: Mapping[str, int], derived: Mapping[str, int], *, events: int | None) -> list[str]:
    """Say where what a version counted is not what the log says, a sentence for each reason.

    Args:
        derived: The same of the whole log folded again, upon what the days counted that have left it.
        events: How many the log has; None where days have left it. Which came too late ("expired") can't be derived,
            since that depends on when they were folded: it is held against this alone.
    """
    faults = [
        f"it counted {stored.get(reason, 0):,} as {reason!r}, and the log says {derived.get(reason, 0):,}"
        for reason in sorted((stored.keys() | derived.keys()) - {"expired"})
        if stored.get(reason, 0) != derived.get(reason, 0)
    ]
    if events is not None and (expired := stored.get("expired", 0)) > events:
        faults.append(f"it counted {expired:,} as 'expired', and the log has {counted(events, 'event')}")
    return faults
