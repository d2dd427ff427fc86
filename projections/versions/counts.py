"""The counts in a version's row, JSON of reason -> events: how many were dropped, skewed, expired and so on."""

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
    """Decode counts from the text of their JSON; as text, since psycopg's own decoder recurses as deep as it nests.

    Raises:
        Damaged: It is not JSON of counts.
    """
    return decode_as(_decoder, text.encode(), "map of counts", where)


async def added_counts(cursor: Cursor, tables: Tables, version: int, counts: Counter[str]) -> dict[str, int] | None:
    """Return the counts of *version*, whose lock the caller holds, with *counts* added.

    None if the stored ones are damaged: then they are left as they are, `status` reports them, and a rebuild counts
    again.
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
    """Return version -> the text of its counts, JSON, for those of *versions* that exist."""
    await cursor.execute(
        sql.SQL("SELECT version, counts::text FROM {versions} WHERE version = ANY(%(versions)s::integer[])").format(
            versions=tables.versions
        ),
        {"versions": versions},
    )
    return dict(await cursor.fetchall())


def count_faults(stored: Mapping[str, int], derived: Mapping[str, int], *, events: int | None) -> list[str]:
    """Compare the counts of a version with those of a replay; return a sentence for each that differs.

    "expired" can't be derived, since it depends on when an event was folded: it must only not exceed *events*.

    Args:
        derived: The counts of the baseline and the whole log, folded again.
        events: Number of events in the log; None if days were pruned.
    """
    faults = [
        f"it counted {stored.get(reason, 0):,} as {reason!r}, and the log says {derived.get(reason, 0):,}"
        for reason in sorted((stored.keys() | derived.keys()) - {"expired"})
        if stored.get(reason, 0) != derived.get(reason, 0)
    ]
    if events is not None and (expired := stored.get("expired", 0)) > events:
        faults.append(f"it counted {expired:,} as 'expired', and the log has {counted(events, 'event')}")
    return faults
