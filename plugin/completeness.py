"""What is missing from the numbers, or late in them: the answer to "can I trust that number?" as a value."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Literal, NamedTuple
from weakref import WeakKeyDictionary

import anyio
import msgspec
from chancy import Chancy
from psycopg import AsyncCursor, sql
from psycopg.rows import TupleRow

from chancy_metrics.events.errors import MetricsLogError, SchemaMissing
from chancy_metrics.events.facts import microseconds
from chancy_metrics.events.log import short_transaction
from chancy_metrics.events.schema import Tables, tables
from chancy_metrics.projections.left_out import FailingRule, LeftOut, left_out
from chancy_metrics.projections.span import Span

from .connection import own_connection
from .metrics import metrics_of

#: A producer is taken for dead after so many seconds of silence, unless its worker announces itself to Chancy.
SILENT_S = 180
#: `recent_completeness` asks the database again after so many seconds, and waits so long for the answer.
RECENT_S = 5
_WAIT_S = 0.5
#: What no window is known of: it is counted, not dated.
_UNDATED = ["rejected", "dropped", "skewed", "expired", "buffered", "holes"]

Source = Literal["raw", "opening", "opening and raw"]


class Completeness(msgspec.Struct, frozen=True):
    """What is missing from the numbers, or late in them; all zero means that everything recorded is in them.

    Attributes:
        rejected: Invalid observations, by the rule they broke.
        dropped: Observations that a full buffer let go.
        skewed: Events whose clock contradicts the database's by more than a second, each once: observations made after
            they were appended; updates that happened, started or completed after that, happened before their job was
            created or started, completed before they started, started before they were due, or took more than 142
            years. They are in: at the time they were appended if ahead, in the old bucket they name if behind.
        expired: Observations older than everything that is kept.
        buffered: Job updates that reached the log through a buffer, not with their job.
        dead_letters: Batches that may have events in the window, could not be read or stored, and are not given up.
        discarded: The same, given up.
        failing_rules: User rules that failed on batches of the window: their metrics of those are missing, no others.
        left_out: Both in a sentence; "" where nothing is left out.
        holes: Batches missing from a producer's sequence: damage.
        ended_uncleanly: Workers that went silent without an end, with their last batch in the window: what was in
            their buffer is lost.
        uncertain_s: `append_interval` for each producer of those, of which a worker has two: so many seconds of
            custom observations may be missing at the most. They were made after that last batch, right after it
            if the worker was busy; job updates lie in the log with their job and are not among them.
        since: Start of the window, inclusive; None for all time.
        until: Its end, exclusive.
        source: Where its time lies: in days that are in the log ("raw"), in days that left it and are in the
            "opening", from which a rebuild begins, or in both. Of each event the day it was appended counts.
        raw_since: Start of the first day in the log; None if no day has left it.
        position: Last position of the ledger that is in the numbers.
        for_all_time: Names of the counts in here that are not the window's: they have no dates.
    """

    rejected: dict[str, int]
    dropped: int
    skewed: int
    expired: int
    buffered: int
    dead_letters: int
    discarded: int
    failing_rules: list[FailingRule]
    left_out: str
    holes: int
    ended_uncleanly: int
    uncertain_s: float
    since: datetime | None
    until: datetime | None
    source: Source
    raw_since: datetime | None
    position: int
    for_all_time: list[str]


class Facts(NamedTuple):
    """What the database knows about it.

    Attributes:
        counts: The live version's (reason -> how many).
        left_out: What it leaves out of the window that was asked for.
        last_gone: Last day that has left the log.
        ended: Worker and last batch of each producer that ended uncleanly.
    """

    position: int
    counts: dict[str, int]
    left_out: LeftOut
    holes: int
    last_gone: date | None
    ended: list[tuple[str, datetime]]


async def completeness(chancy: Chancy, since: datetime | None = None, until: datetime | None = None) -> Completeness:
    """Return the completeness of a window, or of all time.

    Args:
        since: Inclusive, aware.
        until: Exclusive, aware.

    Raises:
        MetricsLogError: A moment is not aware, or there is no metrics log.
    """
    check_aware(since, until)
    async with own_connection(chancy) as connection, short_transaction(connection) as cursor:
        facts = await read_facts(cursor, tables(chancy.prefix), chancy.prefix, span_of(since, until))
    return complete(facts, metrics_of(chancy).options.append_interval, since, until)


def span_of(since: datetime | None, until: datetime | None) -> Span:
    """Return the span between two aware moments."""
    return Span(*(None if moment is None else microseconds(moment) for moment in (since, until)))


def check_aware(*moments: datetime | None) -> None:
    """Raise `MetricsLogError` if a moment has no zone."""
    for moment in moments:
        if moment is not None and moment.tzinfo is None:
            raise MetricsLogError(f"{moment.isoformat()} has no zone: give an aware datetime, such as {moment}+00:00")


async def recent_completeness(chancy: Chancy, since: datetime, until: datetime) -> Completeness | None:
    """The same from what was known within `RECENT_S`; None where the database does not say. Never raises."""
    try:
        asked, facts = _recent.get(chancy, (-RECENT_S, None))
        now = time.monotonic()
        if now - asked >= RECENT_S:
            _recent[chancy] = now, facts  # whoever asks meanwhile takes what is known
            with anyio.move_on_after(_WAIT_S):
                async with chancy.pool.connection() as connection, short_transaction(connection) as cursor:
                    facts = await read_facts(cursor, tables(chancy.prefix), chancy.prefix)
                _recent[chancy] = now, facts
        if facts and facts.left_out:  # what of it concerns this window is asked for only where there is any
            with anyio.fail_after(_WAIT_S):
                async with chancy.pool.connection() as connection, short_transaction(connection) as cursor:
                    version, span = facts.left_out.version, span_of(since, until)
                    found = await left_out(cursor, tables(chancy.prefix), version, span)
            facts = facts._replace(left_out=found)
        return facts and complete(facts, metrics_of(chancy).options.append_interval, since, until)
    except Exception:  # the metrics themselves are answered without a database
        return None


_recent: WeakKeyDictionary[Chancy, tuple[float, Facts | None]] = WeakKeyDictionary()


def complete(
    facts: Facts, append_interval_s: float, since: datetime | None = None, until: datetime | None = None
) -> Completeness:
    """Say what *facts* mean for a window."""
    raw_since = None
    if facts.last_gone is not None:
        raw_since = datetime.combine(facts.last_gone + timedelta(days=1), time_of_day(), UTC)
    source: Source = "opening and raw"
    if raw_since is None or (since is not None and since >= raw_since):
        source = "raw"
    elif until is not None and until <= raw_since:
        source = "opening"
    ended = [
        worker
        for worker, seen_at in facts.ended
        if (since is None or seen_at >= since) and (until is None or seen_at < until)
    ]
    counts = facts.counts
    return Completeness(
        rejected={name.removeprefix("rejected:"): n for name, n in counts.items() if name.startswith("rejected:")},
        dropped=counts.get("dropped", 0),
        skewed=counts.get("skewed", 0),
        expired=counts.get("expired", 0),
        buffered=counts.get("buffered", 0),
        dead_letters=facts.left_out.batches - facts.left_out.discarded,
        discarded=facts.left_out.discarded,
        failing_rules=facts.left_out.rules,
        left_out=facts.left_out.sentence,
        holes=facts.holes,
        ended_uncleanly=len(set(ended)),
        uncertain_s=len(ended) * append_interval_s,
        since=since,
        until=until,
        source=source,
        raw_since=raw_since,
        position=facts.position,
        for_all_time=[] if since is None and until is None else _UNDATED,
    )


async def read_facts(
    cursor: AsyncCursor[TupleRow],
    names: Tables,
    prefix: str,
    span: Span = Span(),  # noqa: B008 # immutable
) -> Facts:
    """Ask the database once, of *span* what has dates.

    Raises:
        SchemaMissing: There is no live version.
    """
    await cursor.execute(
        sql.SQL(
            """
            SELECT v.version, v.position, v.counts,
                (SELECT coalesce(sum(holes), 0)::bigint FROM {producers}),
                (SELECT max(day) FROM {days} WHERE state IN ('opening', 'gone'))
            FROM {head} h
            JOIN {versions} v
                ON v.version = h.live
            """
        ).format(
            head=names.head,
            versions=names.versions,
            producers=names.producers,
            days=names.days,
        )
    )
    row = await cursor.fetchone()
    if row is None:
        raise SchemaMissing("the metrics log has no live version: run `chancy misc migrate`")
    version, position, counts, holes, last_gone = row
    ended = await _ended_uncleanly(cursor, names, prefix)
    return Facts(position, counts, await left_out(cursor, names, version, span), holes, last_gone, ended)


async def _ended_uncleanly(cursor: AsyncCursor[TupleRow], names: Tables, prefix: str) -> list[tuple[str, datetime]]:
    await cursor.execute(
        sql.SQL(
            """
            SELECT p.worker, p.seen_at
            FROM {producers} p
            WHERE NOT p.closed
                AND p.seen_at < clock_timestamp() - make_interval(secs => %(silent)s)
                AND NOT EXISTS (
                    SELECT 1
                    FROM {chancy_workers} w
                    WHERE w.worker_id = p.worker
                        AND w.expires_at > clock_timestamp()
                )
            """
        ).format(producers=names.producers, chancy_workers=sql.Identifier(f"{prefix}workers")),
        {"silent": SILENT_S},
    )
    return [(row[0], row[1].astimezone(UTC)) for row in await cursor.fetchall()]
