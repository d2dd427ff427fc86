"""The producers table: last sequence, holes and end of each producer that appends more than one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from psycopg import sql

from chancy_metrics.events.batch import LogRow
from chancy_metrics.events.database import Cursor
from chancy_metrics.events.schema import Tables


class _Producer(NamedTuple):
    producer: UUID
    worker: str
    last_sequence: int
    closed: bool
    holes: int
    seen_us: int


async def last_sequences(cursor: Cursor, tables: Tables, producers: set[UUID]) -> dict[UUID, int]:
    """Return producer -> its last sequence, from the ledger if clean-up has deleted its row; new ones are left out."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT wanted.producer, coalesce(
                p.last_sequence,
                (SELECT max(sequence) FROM {ledger} l WHERE l.producer = wanted.producer)
            )
            FROM unnest(%(ids)s::uuid[]) AS wanted (producer)
            LEFT JOIN {producers} p
                ON p.producer = wanted.producer
            """
        ).format(ledger=tables.ledger, producers=tables.producers),
        {"ids": sorted(producers)},
    )
    return {row[0]: row[1] for row in await cursor.fetchall() if row[1] is not None}


async def write_producers(cursor: Cursor, tables: Tables, rows: Sequence[LogRow], known: dict[UUID, int]) -> None:
    """Add *rows*, in order of position, to their producers; *known* is what `last_sequences` returned before."""
    by_producer: dict[UUID, list[LogRow]] = {}
    for row in rows:
        by_producer.setdefault(row.producer, []).append(row)
    long_lived = [
        _progress(producer, mine, known.get(producer, 0))
        for producer, mine in sorted(by_producer.items())
        if producer in known or len(mine) > 1 or not (mine[0].closes and mine[0].sequence == 1)
    ]
    await cursor.execute(
        sql.SQL(
            """
            INSERT INTO {producers} AS p (producer, worker, last_sequence, closed, holes, seen_at)
            SELECT producer, worker, last_sequence, closed, holes, to_timestamp(seen_us / 1000000.0)
            FROM unnest(
                %(producer)s::uuid[], %(worker)s::text[], %(last_sequence)s::bigint[], %(closed)s::boolean[],
                %(holes)s::bigint[], %(seen_us)s::bigint[]
            ) AS n (producer, worker, last_sequence, closed, holes, seen_us)
            ON CONFLICT (producer) DO UPDATE
            SET last_sequence = greatest(p.last_sequence, excluded.last_sequence),
                closed = p.closed OR excluded.closed,
                holes = p.holes + excluded.holes,
                seen_at = greatest(p.seen_at, excluded.seen_at)
            """
        ).format(producers=tables.producers),
        {
            "producer": [row.producer for row in long_lived],
            "worker": [row.worker for row in long_lived],
            "last_sequence": [row.last_sequence for row in long_lived],
            "closed": [row.closed for row in long_lived],
            "holes": [row.holes for row in long_lived],
            "seen_us": [row.seen_us for row in long_lived],
        },
    )


def _progress(producer: UUID, rows: Sequence[LogRow], last: int) -> _Producer:
    """Count the holes between *last* and the new rows; a late batch fills one."""
    holes = 0
    for row in rows:
        if row.sequence > last:
            holes += row.sequence - last - 1
            last = row.sequence
        else:
            holes -= 1
    return _Producer(
        producer, rows[0].worker, last, any(row.closes for row in rows), holes, max(row.appended_us for row in rows)
    )
