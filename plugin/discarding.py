"""Batches nobody can read, given up: who said so, when and why; their day may leave the log without them."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from chancy import Chancy
from psycopg import AsyncCursor, sql
from psycopg.rows import TupleRow

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.log import short_transaction
from chancy_metrics.events.schema import Tables, tables

from .connection import own_connection

#: Positions a message names.
_NAMED = 10


class Discarded(msgspec.Struct, frozen=True):
    """A batch that is given up.

    Attributes:
        versions: Those that had to leave it out.
        again: Whether it had been given up before; *at*, *by* and *why* are those of then.
    """

    position: int
    versions: list[int]
    at: datetime
    by: str
    why: str
    again: bool


async def discard(chancy: Chancy, position: int, *, why: str, by: str) -> Discarded:
    """Give up the batch at *position*, which could not be read, in every version that left it out.

    Raises:
        MetricsLogError: No version has left it out; the message says which were.
        ValueError: There is no reason in *why*.
    """
    if not why.strip():
        raise ValueError(f"why={why!r} must say why the batch at position {position} is given up")
    names = tables(chancy.prefix)
    async with own_connection(chancy) as connection, short_transaction(connection) as cursor:
        await cursor.execute(
            sql.SQL(
                """
                UPDATE {dead}
                SET discarded_at = clock_timestamp(),
                    discarded_by = %(by)s,
                    why = %(why)s
                WHERE position = %(position)s
                    AND discarded_at IS NULL
                """
            ).format(dead=names.dead_letters),
            {"position": position, "by": by, "why": why},
        )
        again = cursor.rowcount == 0
        await cursor.execute(
            sql.SQL(
                """
                SELECT version, discarded_at, discarded_by, why
                FROM {dead}
                WHERE position = %(position)s
                ORDER BY discarded_at DESC, version
                """
            ).format(dead=names.dead_letters),
            {"position": position},
        )
        rows = await cursor.fetchall()
        if not rows:
            raise MetricsLogError(
                f"the batch at position {position} is in the numbers of every version; {await _dead(cursor, names)}"
            )
    _, at, said_by, reason = rows[0]
    return Discarded(position, sorted(row[0] for row in rows), at.astimezone(UTC), said_by, reason, again)


async def _dead(cursor: AsyncCursor[TupleRow], names: Tables) -> str:
    await cursor.execute(
        sql.SQL(
            """
            SELECT DISTINCT position
            FROM {dead}
            WHERE discarded_at IS NULL
            ORDER BY position
            LIMIT %(most)s
            """
        ).format(dead=names.dead_letters),
        {"most": _NAMED + 1},
    )
    positions = [str(row[0]) for row in await cursor.fetchall()]
    if not positions:
        return "none is left out that is not given up"
    shown = ", ".join(positions[:_NAMED])
    return f"left out and not given up: {shown}{' and more' if len(positions) > _NAMED else ''}"
