"""Say what is missing from the numbers, or late in them, in a window or at all."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from typing import Literal
from weakref import WeakKeyDictionary

import anyio
import msgspec
from chancy import Chancy

from chancy_metrics.events.database import short_transaction
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.health.completeness_facts import End, Facts, read_facts
from chancy_metrics.plugin.host.app import options_of
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.moments import span_of, utc
from chancy_metrics.projections.versions.left_out import FailingRule, left_out

#: Seconds that `recent_completeness` uses an answer of the database, and waits for a new one.
RECENT_S = 5
_WAIT_S = 0.5
#: Counts without dates: they are of all time whatever the window.
_UNDATED = [
    "rejected",
    "dropped",
    "dropped_job_updates",
    "skewed",
    "expired",
    "cut_meta",
    "buffered",
    "holes",
    "set_aside",
]

Source = Literal["raw", "baseline", "baseline and raw"]


class Completeness(msgspec.Struct, frozen=True):
    """What is known to be missing from the numbers, or late in them.

    All zero does not say that nothing is: a session that was killed is counted after `SILENT_S`, and a process that
    records without a worker or `recording()` block never is. Whether the numbers are right is checked by `verify`.

    Attributes:
        rejected: Invalid observations, by the rule they violate.
        dropped: Observations that a full buffer dropped, or whose batch could not be encoded.
        dropped_job_updates: Job updates that waited in memory, for log and spill table both could not take them, and
            were dropped like that.
        skewed: Events whose clock contradicts the database's by more than a second, each once: observations made after
            they were appended, or by a clock that was behind when their batch was cut; updates that happened, started
            or completed after they were appended, happened before their job was created or started, completed before
            they started, started before they were due, or took more than 142 years. They are in: at the time they were
            appended if ahead, in the old bucket they name if behind.
        expired: Observations older than every kept bucket.
        cut_meta: Job updates whose kept meta exceeds `max_meta_bytes`: some keys are not in the log.
        buffered: Job updates that were appended through a buffer, not in their job's transaction.
        dead_letters: Batches that may have events in the window, could not be folded, and are not given up.
        discarded: The same, but given up.
        failing_rules: User rules that failed on batches of the window; only their metrics are missing.
        left_out: Dead letters and failing rules in a sentence; "" for none.
        holes: Batches missing from a producer's sequence: damage.
        set_aside: Entries of the pending and spill tables that are no batch: damage.
        ended_uncleanly: Sessions of workers and `recording()` blocks that fell silent without an end, or ended with
            something unwritten, and were seen last in the window. One is silent after `SILENT_S`, whatever other
            session has its worker id.
        lost: What ended sessions report as not written: "observations", "job_updates", "dropped" observations,
            "dropped_job_updates" -> number.
        uncertain: What silent sessions held in memory when they were last seen, by the same kinds; lost unless written
            after that. Job updates are among it only while log and spill table both can't take them.
        uncertain_s: At most so many seconds of custom observations may be missing besides: the sum of the silent
            sessions' `append_interval`.
        in_memory: What live sessions hold in memory because they can't append it, by the same kinds.
        since: Start of the window, UTC, inclusive; None for all time.
        until: Its end, exclusive.
        source: Whether the days of the window are in the log ("raw"), have left it and are in the "baseline", from
            which a rebuild starts, or both. The day an event was appended counts.
        raw_since: Start of the first day in the log; None if no day has left it.
        position: Last position of the ledger that is in the numbers.
        waiting: Batches that are not in the numbers yet, whenever their events happened.
        for_all_time: Names of the counts that have no dates, and so are of all time.
        unreadable: Counts that could not be read and are missing here; a sentence each.
    """

    rejected: dict[str, int]
    dropped: int
    dropped_job_updates: int
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
    """Return the same from facts at most `RECENT_S` old; None if the database gives none. Never raises."""
    try:
        asked, facts = _recent.get(chancy, (-RECENT_S, None))
        now = time.monotonic()
        if now - asked >= RECENT_S:
            _recent[chancy] = now, facts  # concurrent calls use the known facts
            with anyio.move_on_after(_WAIT_S):
                async with chancy.pool.connection() as connection, short_transaction(connection) as cursor:
                    facts = await read_facts(cursor, tables_for(chancy.prefix))
                _recent[chancy] = now, facts
        if facts and facts.left_out:  # query the window only if anything is left out at all
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
    """Compute the completeness of a window from *facts*."""
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
        dropped_job_updates=counts.get("dropped_job_updates", 0),
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
