"""Read what completeness is computed from: counts, producers, silent sessions, what the live version leaves out."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import NamedTuple
from uuid import UUID

from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.errors import NO_LIVE_VERSION, Damaged, SchemaMissing
from chancy_metrics.events.hot_standby import NOW
from chancy_metrics.events.humanize import counted
from chancy_metrics.events.row_bounds import ID_IN_BOUNDS, LAST_DAY
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.span import Span
from chancy_metrics.projections.versions.counts import decode_counts
from chancy_metrics.projections.versions.lag import count_waiting
from chancy_metrics.projections.versions.left_out import LeftOut, left_out

#: Seconds without a heartbeat after which a session counts as silent.
SILENT_S = 180


class End(NamedTuple):
    """A session that ended uncleanly, or holds in memory what it can't append.

    Attributes:
        how: "silent" (no end recorded), "lossy" (ended with something unwritten) or "alive".
        session: None for a producer without a session's row, which is known by its worker.
        held: What it held in memory when it was last seen, by kind.
        append_interval_s: Its longest time between appends; None if unknown.
    """

    worker: str
    seen_at: datetime
    how: str = "silent"
    session: UUID | None = None
    held: dict[str, int] = {}  # noqa: RUF012 # nobody writes to it
    append_interval_s: float | None = None


class Facts(NamedTuple):
    """The facts that completeness is computed from.

    Attributes:
        counts: The live version's counts: reason -> number.
        left_out: What the live version leaves out of the window.
        last_gone: Last day that has left the log.
        ended: Sessions that ended uncleanly or hold something.
        waiting: Batches past *position*, and those without one.
        unreadable: Facts that could not be read, a sentence each.
    """

    position: int
    counts: dict[str, int]
    left_out: LeftOut
    holes: int
    set_aside: int
    last_gone: date | None
    ended: list[End]
    waiting: int
    unreadable: tuple[str, ...] = ()


async def read_facts(
    cursor: Cursor,
    tables: Tables,
    span: Span = Span(),  # noqa: B008 # immutable
) -> Facts:
    """Read the facts in the caller's transaction; those with dates for *span* only.

    Raises:
        SchemaMissing: There is no live version.
    """
    await cursor.execute(
        sql.SQL(
            """
            SELECT v.version, v.position, v.counts::text,
                (
                    -- A hole whose batch still waits in pending or in the spill table is none.
                    SELECT least(
                        coalesce(sum(greatest(p.holes - coalesce(late.batches, 0), 0)), 0), 9007199254740991
                    )::bigint
                    FROM {producers} p
                    LEFT JOIN (
                        SELECT w.producer, count(*) AS batches
                        FROM (
                            SELECT producer, sequence FROM {pending} UNION SELECT producer, sequence FROM {spill}
                        ) AS w
                        JOIN {producers} AS known USING (producer)
                        WHERE w.sequence < known.last_sequence
                        GROUP BY w.producer
                    ) AS late USING (producer)
                    WHERE p.holes > 0
                ),
                (SELECT count(*) FROM {producers} WHERE holes < 0),
                (SELECT count(*) FROM {set_aside}) + (SELECT count(*) FROM {spill} WHERE NOT ({in_bounds})),
                (SELECT max(day) FROM {days} WHERE state IN ('absorbed', 'gone') AND day <= %(last_day)s)
            FROM {head} h
            JOIN {versions} v
                ON v.version = h.live
            """
        ).format(
            head=tables.head,
            versions=tables.versions,
            producers=tables.producers,
            set_aside=tables.set_aside,
            pending=tables.pending,
            spill=tables.spill,
            in_bounds=sql.SQL(ID_IN_BOUNDS),
            days=tables.days,
        ),
        {"last_day": LAST_DAY},
    )
    row = await cursor.fetchone()
    if row is None:
        raise SchemaMissing(NO_LIVE_VERSION)
    version, position, text, holes, below_zero, set_aside, last_gone = row
    unreadable: list[str] = []
    counts = _counts(text, f"what version {version} counted", unreadable, "`chancy-metrics rebuild` counts again")
    if below_zero:
        unreadable.append(
            f"{counted(below_zero, 'producer')} with a negative number of holes, which is damage: they are left out "
            "here; `chancy-metrics audit check` names them"
        )
    ended = [*await _sessions(cursor, tables, unreadable), *await _without_session(cursor, tables)]
    left, waiting = await left_out(cursor, tables, version, span), await count_waiting(cursor, tables, position)
    return Facts(position, counts, left, holes, set_aside, last_gone, ended, waiting, tuple(unreadable))


def _counts(text: str, where: str, unreadable: list[str], remedy: str) -> dict[str, int]:
    """Decode counts; unreadable ones are empty, and *unreadable* gets a sentence with the *remedy*."""
    try:
        return decode_counts(text, where)
    except Damaged as error:
        unreadable.append(f"{error}: it is left out here; {remedy}")
        return {}


async def _sessions(cursor: Cursor, tables: Tables, unreadable: list[str]) -> list[End]:
    """Return the sessions that fell silent, ended with something unwritten, or live and hold something.

    A producer's batch counts as a heartbeat, and its closing as an end: the session's row may not have been written.
    """
    await cursor.execute(
        sql.SQL(
            """
            SELECT worker, seen_at, CASE WHEN ended THEN 'lossy' WHEN silent THEN 'silent' ELSE 'alive' END,
                session, coalesce(held, '{{}}')::text, append_interval
            FROM (
                SELECT s.worker, s.session, s.held, s.append_interval, greatest(s.seen_at, p.seen_at) AS seen_at,
                    s.ended_at IS NOT NULL AS ended, p.closed,
                    p.closed IS NOT TRUE
                        AND greatest(s.seen_at, p.seen_at) < {now} - make_interval(secs => %(silent)s) AS silent
                FROM {sessions} s
                CROSS JOIN LATERAL (
                    SELECT max(seen_at) AS seen_at, bool_and(closed) AS closed
                    FROM {producers}
                    WHERE producer = ANY(s.producers)
                ) AS p
                WHERE s.ended_at IS NULL
                    OR s.held IS NOT NULL
            ) AS s
            WHERE silent
                OR (held IS NOT NULL AND (ended OR closed IS NOT TRUE))
            """
        ).format(sessions=tables.sessions, producers=tables.producers, now=NOW),
        {"silent": SILENT_S},
    )
    return [
        End(worker, seen_at.astimezone(UTC), how, session, _held_by(worker, held, unreadable), interval)
        for worker, seen_at, how, session, held, interval in await cursor.fetchall()
    ]


def _held_by(worker: str, held: str, unreadable: list[str]) -> dict[str, int]:
    return _counts(held, f"what {worker} held", unreadable, "its session writes it again, if it lives")


async def _without_session(cursor: Cursor, tables: Tables) -> list[End]:
    """Return the open producers without a session's row, of workers none of whose such producers was seen lately."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT worker, seen_at
            FROM (
                SELECT p.worker, p.seen_at, max(p.seen_at) OVER (PARTITION BY p.worker) AS heard_at
                FROM {producers} p
                LEFT JOIN (SELECT unnest(producers) AS producer FROM {sessions}) s
                    ON s.producer = p.producer
                WHERE NOT p.closed
                    AND s.producer IS NULL
            ) AS p
            WHERE heard_at < {now} - make_interval(secs => %(silent)s)
            """
        ).format(producers=tables.producers, sessions=tables.sessions, now=NOW),
        {"silent": SILENT_S},
    )
    return [End(row[0], row[1].astimezone(UTC)) for row in await cursor.fetchall()]
