"""The skip index: summaries of ranges of the ledger (times, a Bloom filter), by which a search skips ranges.

Only a hint: where a summary is missing or damaged, the batches are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from hashlib import sha256
from typing import NamedTuple

from psycopg import sql

from chancy_metrics.events.bloom import MIN_BYTES, bit_positions
from chancy_metrics.events.database import Cursor
from chancy_metrics.events.schema import Tables

#: Format of the filters. Raise it with any change to `bloom.py` or to the tokens that
#: `projections/search/indexing.py` makes: filters of another format are not used.
FORMAT = 1


class Summary(NamedTuple):
    """Summary of the batches from one position to another, both inclusive.

    Attributes:
        day: The latest of their log days.
        first_us: Earliest event in them, microseconds since 1970; None without any.
        filter: Bloom filter over their tokens; None if one of them can't be decoded.
    """

    first_position: int
    last_position: int
    day: date
    first_us: int | None
    last_us: int | None
    events: int
    filter: bytes | None


class Wanted(NamedTuple):
    """Condition of a search: events in a range of time, with a token of each clause.

    Attributes:
        since_us: Begin, inclusive; *until_us* is exclusive; microseconds since 1970.
        clauses: Sets of tokens; a range must have at least one of each set.
    """

    since_us: int
    until_us: int
    clauses: Sequence[Sequence[bytes]] = ()


class SkipRange(NamedTuple):
    """Positions from *first* to *last*, inclusive; *skips* if nothing wanted can be in them.

    Attributes:
        is_broken: Whether the summary is damaged; the range is read then.
    """

    first: int
    last: int
    skips: bool
    is_broken: bool = False


def digest_of(summary: Summary) -> bytes:
    """Return the hash by which a search recognises a damaged summary."""
    *numbers, bits = summary
    return sha256(" ".join(map(str, [*numbers, FORMAT])).encode() + (bits or b"")).digest()


async def last_summarised(cursor: Cursor, tables: Tables) -> int:
    """Return the position up to which there are summaries; 0 without any."""
    await cursor.execute(
        sql.SQL("SELECT last_position FROM {summaries} ORDER BY first_position DESC LIMIT 1").format(
            summaries=tables.summaries
        )
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def write_summary(cursor: Cursor, tables: Tables, summary: Summary) -> bool:
    """Write the summary that follows the last one; False if another process has written that range."""
    await cursor.execute(
        sql.SQL(
            """
            INSERT INTO {summaries} (
                first_position, last_position, day, first_us, last_us, events, format, filter, digest
            )
            VALUES (
                %(first_position)s, %(last_position)s, %(day)s, %(first_us)s, %(last_us)s, %(events)s, %(format)s,
                %(filter)b, %(digest)b
            )
            ON CONFLICT (first_position) DO NOTHING
            """
        ).format(summaries=tables.summaries),
        summary._asdict() | {"format": FORMAT, "digest": digest_of(summary)},
    )
    return cursor.rowcount == 1


async def forget_summaries(cursor: Cursor, tables: Tables, *, chunk: int) -> int:
    """Delete up to *chunk* summaries whose days have all left the log; the last one stays, to go on from."""
    await cursor.execute(
        sql.SQL(
            """
            DELETE FROM {summaries}
            WHERE first_position = ANY(ARRAY(
                SELECT first_position
                FROM {summaries}
                WHERE day < (SELECT min(day) FROM {days} WHERE state <> 'gone')
                    AND first_position < (SELECT max(first_position) FROM {summaries})
                ORDER BY first_position
                LIMIT %(chunk)s
                FOR UPDATE SKIP LOCKED
            ))
            """
        ).format(summaries=tables.summaries, days=tables.days),
        {"chunk": chunk},
    )
    return cursor.rowcount


async def read_skip_ranges(
    cursor: Cursor, tables: Tables, wanted: Wanted, *, after: int, until: int, limit: int
) -> list[SkipRange]:
    """Return up to *limit* ranges that reach past position *after*, in order, none that begins past *until*.

    Reads single bytes of the filters in the database; a filter by which a range is skipped is read whole and hashed.
    """
    await cursor.execute(
        sql.SQL(
            """
            SELECT first_position, last_position,
                -- CASE, since AND has no order of evaluation: a damaged filter must not be read.
                CASE
                    WHEN format <> %(format)s OR filter IS NULL THEN 'read'
                    WHEN octet_length(filter) < %(least)s THEN 'broken'
                    WHEN {holds} THEN 'read'
                    WHEN digest = sha256(
                        convert_to(
                            concat_ws(
                                ' ', first_position, last_position, to_char(day, 'YYYY-MM-DD'),
                                coalesce(first_us::text, 'None'), coalesce(last_us::text, 'None'), events, format
                            ),
                            'UTF8'
                        ) || filter
                    ) THEN 'skip'
                    ELSE 'broken'
                END
            FROM {summaries}
            WHERE first_position >= coalesce(
                    (SELECT max(first_position) FROM {summaries} WHERE first_position <= %(after)s + 1), 0
                )
                AND first_position <= %(until)s
                AND last_position > %(after)s
            ORDER BY first_position
            LIMIT %(limit)s
            """
        ).format(summaries=tables.summaries, holds=_holds(wanted)),
        {
            "after": after,
            "until": until,
            "limit": limit,
            "format": FORMAT,
            "least": MIN_BYTES,
            "since_us": wanted.since_us,
            "until_us": wanted.until_us,
        },
    )
    return [SkipRange(first, last, what == "skip", what == "broken") for first, last, what in await cursor.fetchall()]


def _holds(wanted: Wanted) -> sql.Composed:
    """SQL: whether the range of a summary may hold wanted events; cheapest condition first."""
    in_time = sql.SQL("coalesce(first_us < %(until_us)s AND last_us >= %(since_us)s, false)")
    clauses = [
        sql.SQL("({})").format(sql.SQL(" OR ").join([_has(token) for token in clause])) for clause in wanted.clauses
    ]
    return sql.SQL(" AND ").join([in_time, *clauses])


def _has(token: bytes) -> sql.Composed:
    bits = [
        sql.SQL(
            "get_bit(substring(filter FROM ({stride} %% octet_length(filter) + 1)::integer FOR 1), {bit}) = 1"
        ).format(stride=sql.Literal(at.stride), bit=sql.Literal(at.bit))
        for at in bit_positions(token)
    ]
    return sql.SQL("({})").format(sql.SQL(" AND ").join(bits))
