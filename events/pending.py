"""The pending table: take out rows of batches that need a position, put them back, or set them aside as no batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from psycopg import sql

from chancy_metrics.events.batch import BatchId
from chancy_metrics.events.database import Cursor
from chancy_metrics.events.row_bounds import ID_IN_BOUNDS
from chancy_metrics.events.schema import Tables


class PendingRow(NamedTuple):
    id: int
    batch_id: BatchId


class SetAsideRow(NamedTuple):
    """A row of pending for which there is no batch; its day is text, since `date` may be unable to hold it."""

    day: str
    producer: UUID
    sequence: int
    why: str


async def take_pending(
    cursor: Cursor, tables: Tables, after: int, limit: int
) -> tuple[list[PendingRow], list[SetAsideRow]]:
    """Delete up to *limit* rows past id *after* from pending; return them, and apart those with ids out of bounds."""
    await cursor.execute(
        sql.SQL(
            """
            DELETE FROM {pending}
            WHERE id = ANY(ARRAY(
                SELECT id
                FROM {pending}
                WHERE id > %(after)s
                ORDER BY id
                LIMIT %(limit)s
            ))
            RETURNING id, CASE WHEN {in_bounds} THEN day END, producer, sequence, day::text
            """
        ).format(pending=tables.pending, in_bounds=sql.SQL(ID_IN_BOUNDS)),
        {"after": after, "limit": limit},
    )
    taken, odd = [], []
    for number, day, producer, sequence, text in await cursor.fetchall():
        if day is None:
            odd.append(SetAsideRow(text, producer, sequence, "no log can hold a batch of this id"))
        else:
            taken.append(PendingRow(number, BatchId(day, producer, sequence)))
    return taken, odd


async def put_back(cursor: Cursor, tables: Tables, rows: Sequence[PendingRow]) -> None:
    """Insert rows again that `take_pending` has deleted, under their ids."""
    await cursor.execute(
        sql.SQL(
            """
            INSERT INTO {pending} (id, day, producer, sequence) OVERRIDING SYSTEM VALUE
            SELECT *
            FROM unnest(%(ids)s::bigint[], %(days)s::date[], %(producers)s::uuid[], %(sequences)s::bigint[])
            """
        ).format(pending=tables.pending),
        {
            "ids": [row.id for row in rows],
            "days": [row.batch_id.day for row in rows],
            "producers": [row.batch_id.producer for row in rows],
            "sequences": [row.batch_id.sequence for row in rows],
        },
    )


def set_aside_sentence(rows: int) -> str:
    """Return a sentence for `status`: so many rows of pending were set aside."""
    what = "entry that waited for a position was" if rows == 1 else "entries that waited for a position were"
    return (
        f"{rows:,} {what} set aside, since no batch is in the log under that id: the entry was forged, or its batch "
        "was deleted by force; `chancy-metrics audit check` names the first ones"
    )


async def set_aside(cursor: Cursor, tables: Tables, odd: Sequence[SetAsideRow]) -> None:
    if odd:
        await cursor.execute(
            sql.SQL(
                """
                INSERT INTO {set_aside} (day, producer, sequence, why)
                SELECT *
                FROM unnest(%(day)s::text[], %(producer)s::uuid[], %(sequence)s::bigint[], %(why)s::text[])
                """
            ).format(set_aside=tables.set_aside),
            {name: [getattr(one, name) for one in odd] for name in SetAsideRow._fields},
        )
