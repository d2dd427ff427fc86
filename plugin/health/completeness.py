"""What is missing from the numbers, or late in them: the answer to "can I trust that number?" as a value."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Literal, NamedTuple
from uuid import UUID
from weakref import WeakKeyDictionary

import anyio
import msgspec
from chancy import Chancy
from psycopg import sql

from chancy_metrics.events.bounds import ID_IN_BOUNDS, LAST_DAY
from chancy_metrics.events.database import Cursor, short_transaction
from chancy_metrics.events.errors import Damaged, SchemaMissing
from chancy_metrics.events.humanize import counted
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.events.standby import NOW
from chancy_metrics.plugin.host.app import options_of
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.moments import span_of, utc
from chancy_metrics.projections.span import Span
from chancy_metrics.projections.versions.counts import decode_counts
from chancy_metrics.projections.versions.lag import count_waiting
from chancy_metrics.projections.versions.left_out import FailingRule, LeftOut, left_out

#: A session is taken for dead after so many seconds of silence; it shows every `presence.BEAT_S` that it lives.
SILENT_S = 180
#: `recent_completeness` asks the database again after so many seconds, and waits so long for the answer.
RECENT_S = 5
_WAIT_S = 0.5
#: What no window is known of: it is counted, not dated.
_UNDATED = ["rejected", "dropped", "skewed", "expired", "cut_meta", "buffered", "holes", "set_aside"]

Source = Literal["raw", "baseline", "baseline and raw"]


class Completeness(msgspec.Struct, frozen=True):
    """What is missing from the numbers, or late in them; all zero means that everything recorded is in them.

    It does not look at whether the numbers are right: `verify` does.

    Attributes:
        rejected: Invalid observations, by the rule they broke.
        dropped: Observations that a full buffer let go.
        skewed: Events whose clock contradicts the database's by more than a second, each once: observations made after
            they were appended, or by a clock that was behind when their batch was cut; updates that happened, started
            or completed after they were appended, happened before their job was created or started, completed before
            they started, started before they were due, or took more than 142 years. They are in: at the time they were
            appended if ahead, in the old bucket they name if behind.
        expired: Observations older than everything that is kept.
        cut_meta: Job updates with more kept meta than `max_meta_bytes`: some of its keys are not in the log.
        buffered: Job updates that reached the log through a buffer, not with their job.
        dead_letters: Batches that may have events in the window, could not be read or stored, and are not given up.
        discarded: The same, given up.
        failing_rules: User rules that failed on batches of the window: their metrics of those are missing, no others.
        left_out: Both in a sentence; "" where nothing is left out.
        holes: Batches missing from a producer's sequence: damage.
        set_aside: Entries that waited for a position, or are in the spill table, and are no batch: damage.
        ended_uncleanly: Sessions of workers and `recording()` blocks that fell silent without an end, or ended with
            something unwritten, and were seen last in the window. One is silent after `SILENT_S`, whatever other
            session has its worker id.
        lost: What those that did end say they could not write: "observations", "job_updates", "dropped" ones a
            full buffer had let go -> how many.
        uncertain: What those that fell silent had in memory when they were last seen, by the same kinds; it is lost
            unless it was written after that. Job updates are there only while log and spill are both locked, or
            refuse them.
        uncertain_s: So many seconds of custom observations may be missing on top at the most, the `append_interval`
            of each that fell silent; made right after it was seen last, if it was busy and the database within reach.
        in_memory: What sessions that live hold in memory now because they can't append it, by the same kinds.
        since: Start of the window, UTC, inclusive; None for all time.
        until: Its end, exclusive.
        source: Where its time lies: in days that are in the log ("raw"), in days that left it and are in the
            "baseline", from which a rebuild begins, or in both. Of each event the day it was appended counts.
        raw_since: Start of the first day in the log; None if no day has left it.
        position: Last position of the ledger that is in the numbers.
        waiting: Batches that are not in the numbers yet, whenever their events happened.
        for_all_time: Names of the counts in here that are not the window's: they have no dates.
        unreadable: What of the counts in here could not be read, and so is missing from them; a sentence each.
    """

    rejected: dict[str, int]
    dropped: int
    skewed: int
    expired: int
    cut_meta: int
    buffered: int
    dead_letters: int
    discarded: int
    failing_rules: list[FailingRule]
    left_out: str
    holes: int
    set_aside: int
    ended_uncleanly: int
    lost: dict[str, int]
    uncertain: dict[str, int]
    uncertain_s: float
    in_memory: dict[str, int]
    since: datetime | None
    until: datetime | None
    source: Source
    raw_since: datetime | None
    position: int
    waiting: int
    for_all_time: list[str]
    unreadable: list[str] = []


class End(NamedTuple):
    """A session that ended uncleanly, or holds what it can't append.

    Attributes:
        how: "silent" without an end, "lossy" with one, "alive".
        session: None where a producer has no session's row: it is known by its worker then.
        held: What it had in memory when it was last seen, by kind.
        append_interval_s: How old what is in memory may be; None where only the asking app's is known.
    """

    worker: str
    seen_at: datetime
    how: str = "silent"
    session: UUID | None = None
    held: dict[str, int] = {}  # noqa: RUF012 # nobody writes to it
    append_interval_s: float | None = None


class Facts(NamedTuple):
    """What the database knows about it.

    Attributes:
        counts: The live version's (reason -> how many).
        left_out: What it leaves out of the window that was asked for.
        last_gone: Last day that has left the log.
        ended: Each session that ended uncleanly or holds something.
        waiting: Batches past *position*, and those without one.
        unreadable: Which of all that could not be read, a sentence each.
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


async def completeness(chancy: Chancy, since: datetime | None = None, until: datetime | None = None) -> Completeness:
    """Return the completeness of a window, or of all time.

    Args:
        since: Inclusive, aware.
        until: Exclusive, aware.

    Raises:
        WrongMoment: A moment is not aware, or not from 1970 to 2199.
        MetricsLogError: There is no metrics log.
    """
    since, until = utc(since), utc(until)
    async with bounded_connection(chancy) as connection, short_transaction(connection) as cursor:
        facts = await read_facts(cursor, tables_for(chancy.prefix), span_of(since, until))
    return complete(facts, options_of(chancy).append_interval, since, until)


async def recent_completeness(chancy: Chancy, since: datetime, until: datetime) -> Completeness | None:
    """The same from what was known within `RECENT_S`; None where the database does not say. Never raises."""
    try:
        asked, facts = _recent.get(chancy, (-RECENT_S, None))
        now = time.monotonic()
        if now - asked >= RECENT_S:
            _recent[chancy] = now, facts  # whoever asks meanwhile takes what is known
            with anyio.move_on_after(_WAIT_S):
                async with chancy.pool.connection() as connection, short_transaction(connection) as cursor:
                    facts = await read_facts(cursor, tables_for(chancy.prefix))
                _recent[chancy] = now, facts
        if facts and facts.left_out:  # what of it concerns this window is asked for only where there is any
            with anyio.fail_after(_WAIT_S):
                async with chancy.pool.connection() as connection, short_transaction(connection) as cursor:
                    version, span = facts.left_out.version, span_of(since, until)
                    found = await left_out(cursor, tables_for(chancy.prefix), version, span)
            facts = facts._replace(left_out=found)
        return facts and complete(facts, options_of(chancy).append_interval, since, until)
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
    source: Source = "baseline and raw"
    if raw_since is None or (since is not None and since >= raw_since):
        source = "raw"
    elif until is not None and until <= raw_since:
        source = "baseline"
    ended = [
        one
        for one in facts.ended
        if one.how != "alive" and (since is None or one.seen_at >= since) and (until is None or one.seen_at < until)
    ]
    silent = [one for one in ended if one.how == "silent"]
    counts = facts.counts
    return Completeness(
        rejected={name.removeprefix("rejected:"): n for name, n in counts.items() if name.startswith("rejected:")},
        dropped=counts.get("dropped", 0),
        skewed=counts.get("skewed", 0),
        expired=counts.get("expired", 0),
        cut_meta=counts.get("cut:meta", 0),
        buffered=counts.get("buffered", 0),
        dead_letters=facts.left_out.batches - facts.left_out.discarded,
        discarded=facts.left_out.discarded,
        failing_rules=facts.left_out.rules,
        left_out=facts.left_out.sentence,
        holes=facts.holes,
        set_aside=facts.set_aside,
        ended_uncleanly=len({one.session or one.worker for one in ended}),
        lost=_held(one for one in ended if one.how == "lossy"),
        uncertain=_held(silent),
        uncertain_s=sum(
            append_interval_s if one.append_interval_s is None else one.append_interval_s for one in silent
        ),
        in_memory=_held(one for one in facts.ended if one.how == "alive"),
        since=since,
        until=until,
        source=source,
        raw_since=raw_since,
        position=facts.position,
        waiting=facts.waiting,
        for_all_time=[] if since is None and until is None else _UNDATED,
        unreadable=list(facts.unreadable),
    )


def _held(ends: Iterable[End]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in ends:
        total.update(one.held)
    return dict(total)


async def read_facts(
    cursor: Cursor,
    tables: Tables,
    span: Span = Span(),  # noqa: B008 # immutable
) -> Facts:
    """Ask the database once, of *span* what has dates.

    Raises:
        SchemaMissing: There is no live version.
    """
    await cursor.execute(
        sql.SQL(
            """
            SELECT v.version, v.position, v.counts::text,
                (SELECT least(coalesce(sum(greatest(holes, 0)), 0), 9007199254740991)::bigint FROM {producers}),
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
            spill=tables.spill,
            in_bounds=sql.SQL(ID_IN_BOUNDS),
            days=tables.days,
        ),
        {"last_day": LAST_DAY},
    )
    row = await cursor.fetchone()
    if row is None:
        raise SchemaMissing("the metrics log has no live version: run `chancy misc migrate`")
    version, position, text, holes, below_zero, set_aside, last_gone = row
    unreadable: list[str] = []
    counts = _counts(text, f"what version {version} counted", unreadable, "`chancy-metrics rebuild` counts again")
    if below_zero:
        unreadable.append(
            f"{counted(below_zero, 'producer')} with less than no holes, which is damage: they are left out here; "
            "`chancy-metrics audit check` names them"
        )
    ended = [*await _sessions(cursor, tables, unreadable), *await _without_session(cursor, tables)]
    left, waiting = await left_out(cursor, tables, version, span), await count_waiting(cursor, tables, position)
    return Facts(position, counts, left, holes, set_aside, last_gone, ended, waiting, tuple(unreadable))


def _counts(text: str, where: str, unreadable: list[str], remedy: str) -> dict[str, int]:
    """Decode counts; of those that can't be read, none, and it is said in *unreadable*, with the *remedy*."""
    try:
        return decode_counts(text, where)
    except Damaged as error:
        unreadable.append(f"{error}: it is left out here; {remedy}")
        return {}


async def _sessions(cursor: Cursor, tables: Tables, unreadable: list[str]) -> list[End]:
    """The sessions that fell silent, ended with something unwritten, or live and hold something.

    A producer's batch is a sign of life too, and one that is closed an end: the row may not have been written.
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
    """The open producers whose session has no row, of workers of which no such producer has been heard for a while."""
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
