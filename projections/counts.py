"""What a version counted beside its points, kept in its row as JSON: reason -> how many."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import msgspec
from psycopg import AsyncCursor, sql
from psycopg.rows import TupleRow

from chancy_metrics.events.decoding import decode_as
from chancy_metrics.events.errors import Damaged
from chancy_metrics.events.schema import Tables

_decoder = msgspec.json.Decoder(dict[str, Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]])


def decode_counts(text: str, where: str = "") -> dict[str, int]:
    """Decode counts from the text of their JSON, which is asked for as text: psycopg would recurse as deep as it nests.

    Raises:
        Damaged: It is something else.
    """
    return decode_as(_decoder, text.encode(), "map of counts", where)


async def added_counts(
    cursor: AsyncCursor[TupleRow], tables: Tables, version: int, counts: Counter[str]
) -> dict[str, int] | None:
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
