"""Verify that log, ledger, rollups and cache agree, in full or in random samples, and keep the outcome."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime
from random import Random

import msgspec
import psycopg
from chancy import Chancy

from chancy_metrics.events.database import Connection, database_now_us, short_transaction
from chancy_metrics.events.facts import microseconds
from chancy_metrics.events.hot_standby import error_sentence
from chancy_metrics.events.schema import RESOLUTIONS, Tables, tables_for
from chancy_metrics.plugin.health.completeness import completeness
from chancy_metrics.plugin.host.app import options_of, worker_of
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.moments import utc
from chancy_metrics.plugin.host.options import Options
from chancy_metrics.plugin.parallel.replay_task import ReplayInTasks
from chancy_metrics.plugin.parallel.source import check_read_dsn, source_of
from chancy_metrics.plugin.recording import in_transaction
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.findings import Finding, Findings, Spot
from chancy_metrics.projections.fold.points import Difference
from chancy_metrics.projections.rollups.read import first_day
from chancy_metrics.projections.rules.measured import DRIFT
from chancy_metrics.projections.span import Span, draw
from chancy_metrics.projections.verify.coverage import Coverage, Record, Share, unite
from chancy_metrics.projections.verify.outcomes import Run, keep
from chancy_metrics.projections.verify.records import read_open_positions
from chancy_metrics.projections.verify.replay import RangeCheck, check_global_state, check_span
from chancy_metrics.projections.verify.totals import TotalsCheck, check_totals, served_generation
from chancy_metrics.projections.versions.horizons_ahead import ahead_of
from chancy_metrics.projections.versions.horizons_ahead import sentence as ahead_sentence
from chancy_metrics.projections.versions.version import live_version

#: Differences, and findings, that are kept; further ones are only counted.
SHOWN = 100
#: Milliseconds to wait for a fold that has locked the version's row.
_KEEP_LOCK_MS = 10_000


class Verified(msgspec.Struct, frozen=True):
    """The outcome of a run of verify.

    Attributes:
        at: When it began, UTC.
        spans: Ranges of time that were replayed: 1, or with a budget as many as there was time for.
        version: The live version, at *position* of the ledger.
        events: Events that were replayed.
        points: Points that were compared.
        different: How many of them differ; `differences` has the first ones, stored (old) against replayed (new).
        found: Number of other findings; `findings` has the first ones.
        ended_uncleanly: Sessions that ended uncleanly: no finding, but what they held in memory is lost.
        left_out: What the version leaves out of that time, in words; "" for nothing. Neither side has it.
        nothing: Why nothing was compared, in words; "" if something was.
        open: Open findings and differences of this run and earlier ones; None if the outcome could not be kept.
        share: How much of the version's kept buckets was compared by now; None if the outcome could not be kept.
        totals: What was done about the totals for exporters.
        notes: Further remarks, as sentences.
    """

    at: datetime
    took_s: float
    since: datetime | None
    until: datetime | None
    spans: int
    version: int
    position: int
    events: int
    points: int
    different: int
    differences: list[Difference]
    found: int
    findings: list[Finding]
    ended_uncleanly: int
    left_out: str
    nothing: str
    open: int | None
    share: Share | None
    totals: TotalsCheck
    notes: list[str]

    @property
    def drift(self) -> int:
        """Differences and findings of this run unite; 0 if everything it compared agrees."""
        return self.different + self.found


async def verify(
    chancy: Chancy,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    budget_s: float | None = None,
    totals: bool = False,
    chance: Random | None = None,
    executor: Executor | None = None,
    read_dsn: str | None = None,
) -> Verified:
    """Replay the log and compare the result exactly with the rollups and the cache; keep the outcome for `status`.

    Takes no lock that others wait for: the log is read in short transactions, the rollups in one snapshot for each
    range of time. Without arguments the whole log is replayed and the whole ledger checked; with *since* or *until*
    the buckets that lie entirely between them, and the batches with events there. The cache, the head of the ledger
    and the producers are checked each time.

    A finding stays open until a run that covers its spot finds nothing there.

    Args:
        since: Inclusive, aware.
        until: Exclusive, aware.
        budget_s: Seconds after which no further random day or hour is drawn; at least one is verified, each part once.
        totals: Compare the totals for exporters, too: all of the log is folded once more, whatever the window.
        chance: The source of randomness.
        executor: Runs tasks that replay ranges of the ledger; without one, this process does.
        read_dsn: The database from which the tasks read the log: a replica of the app's, by default that itself.

    Raises:
        VersionRefused: The live version has other rules than this code.
        WrongMoment: A moment is not aware, or not from 1970 to 2199.
        MetricsLogError: The live version changed too often meanwhile, or there is no metrics log; a rule can't be
            imported by tasks, or *read_dsn* is no replica.
        WorkersLost: The processes or machines of the executor are gone.
    """
    check_read_dsn(executor, read_dsn)
    since, until = utc(since), utc(until)
    options = options_of(chancy)
    tables, started = tables_for(chancy.prefix), time.monotonic()
    asked = Span(*(None if moment is None else microseconds(moment) for moment in (since, until)))
    async with bounded_connection(chancy) as connection:
        at = await _now(connection)
        spans: Iterable[Span] = [asked]
        if budget_s is not None:
            spans = await _draw(connection, tables, asked, at, chance or Random())
        async with short_transaction(connection) as cursor:
            open_positions = await read_open_positions(cursor, tables)
            live = await live_version(cursor, tables)
        kept = horizons(microseconds(at), options.max_points, options.maximum_metric_age)
        hidden = ahead_of(live.horizons, kept, int(at.timestamp()))
        found = Findings(SHOWN)
        if hidden:
            found.add("horizons", f"version {live.version}", ahead_sentence(live.version, live.horizons, hidden))
        elsewhere = None
        if executor is not None:
            source = source_of(chancy, read_dsn)
            elsewhere = ReplayInTasks(executor, source, connection, options.rules, limit=SHOWN)
        # First, since a hundred findings are shown, and one of these may be the cause of many of the others.
        found.add_all(await check_global_state(connection, tables, limit=SHOWN))
        checked = []
        differences: list[Difference] = []
        for span in spans:
            one = await check_span(
                connection,
                tables,
                options.rules,
                span,
                limit=SHOWN,
                open_positions=open_positions,
                kept=hidden,
                elsewhere=elsewhere,
            )
            checked.append(one)
            differences += one.diff.differences[: SHOWN - len(differences)]
            found.add_all(one.findings)
            if budget_s is not None and time.monotonic() - started >= budget_s:
                break
        about_totals = await _check_totals(connection, tables, options, found, at, elsewhere, wanted=totals)
        points = sum(one.diff.points for one in checked)
        whole = await completeness(chancy, since, until)
        verified = Verified(
            at=at,
            took_s=round(time.monotonic() - started, 3),
            since=since,
            until=until,
            spans=len(checked),
            version=checked[-1].version,
            position=checked[-1].position,
            events=sum(one.events for one in checked),
            points=points,
            different=sum(one.diff.different for one in checked),
            differences=differences,
            found=found.count,
            findings=found.kept,
            ended_uncleanly=whole.ended_uncleanly,
            left_out=whole.left_out,
            nothing="" if points else _why_nothing(checked, at),
            open=None,
            share=None,
            totals=about_totals,
            notes=[] if whole.source == "raw" or whole.raw_since is None else [_pruned(whole.raw_since)],
        )
        return await _remember(chancy, connection, tables, verified, _run(verified, checked, found))


async def _check_totals(
    connection: Connection,
    tables: Tables,
    options: Options,
    found: Findings,
    at: datetime,
    elsewhere: ReplayInTasks | None,
    *,
    wanted: bool,
) -> TotalsCheck:
    if not wanted:
        served = await served_generation(connection, tables)
        if served is None:
            return TotalsCheck()
        return TotalsCheck(served.version, served.position, not_compared="this run was not asked to (`--totals`)")
    if any(spot.check in ("log", "payload") for spot in found.spots):
        return TotalsCheck(not_compared="the log lacks batches: the findings say which")
    silent_us = microseconds(at) - options.maximum_metric_age * 1_000_000
    return await check_totals(
        connection, tables, options.rules, found, silent_us=silent_us, limit=SHOWN, elsewhere=elsewhere
    )


def _pruned(raw_since: datetime) -> str:
    return (
        f"days before {raw_since:%Y-%m-%d} have left the log: their part is taken from the baseline "
        "and was not replayed"
    )


def _why_nothing(checked: Sequence[RangeCheck], at: datetime) -> str:
    """Return why no point was compared."""
    if not checked[-1].position:
        return "nothing was folded yet"
    now_s = at.timestamp()
    if not any(first < min(end, now_s) for one in checked for first, end in one.ranges()):
        return "no kept bucket lies entirely in that time"
    return "there are no points in that time" if len(checked) == 1 else "there are no points in the ranges drawn"


def _run(verified: Verified, checked: Sequence[RangeCheck], found: Findings) -> Run:
    """Return what to keep of a run: only ranges that were compared with its last version."""
    same = [one for one in checked if one.version == verified.version]
    spots = found.spots.copy()
    sentences = dict(found.sentences)
    for one in checked:
        spots.update(one.diff.spots)
        for difference in one.diff.differences:
            sentences.setdefault(Spot("difference", difference.resolution, difference.bucket), str(difference))
    covered = unite([one.covered for one in same])
    if not verified.points and not covered.everywhere:
        covered = Coverage()  # comparing nothing clears nothing
    has_totals = verified.totals.series is not None
    if has_totals:
        covered = covered._replace(checks=covered.checks | {"totals"})
    ranges = {name: list(covered.ranges.get(name, ())) for name in RESOLUTIONS}
    last = Record(
        at=verified.at,
        since=verified.since,
        until=verified.until,
        spans=verified.spans,
        position=verified.position,
        points=verified.points,
    )
    return Run(verified.version, verified.at, last, covered, ranges, spots, sentences, has_totals)


async def _now(connection: Connection) -> datetime:
    cursor = await connection.execute("SELECT clock_timestamp()", binary=True)
    row = await cursor.fetchone()
    assert row is not None
    return row[0].astimezone(UTC)  # type: ignore[no-any-return] # psycopg's rows have no types


async def _draw(connection: Connection, tables: Tables, asked: Span, at: datetime, chance: Random) -> Iterable[Span]:
    async with short_transaction(connection) as cursor:
        version = await live_version(cursor, tables)
        first_s = await first_day(cursor, tables, version.version)
    if first_s is None:
        return [asked]
    since_us = first_s * 1_000_000
    asked = asked._replace(since_us=since_us if asked.since_us is None else max(asked.since_us, since_us))
    return list(draw(asked, version.horizons, microseconds(at), chance)) or [asked]


async def _remember(chancy: Chancy, connection: Connection, tables: Tables, verified: Verified, run: Run) -> Verified:
    """Keep coverage and open faults for `status`, and record the number of open faults as the gauge `DRIFT`."""
    try:
        async with short_transaction(connection, lock_timeout_ms=_KEEP_LOCK_MS) as cursor:
            kept = await keep(cursor, tables, run, now_s=await database_now_us(cursor) // 1_000_000)
        notes = verified.notes.copy()
        if kept.expired:
            notes.append(f"{kept.expired:,} earlier findings ended: their buckets are not kept any more")
        verified = msgspec.structs.replace(verified, open=kept.open, share=kept.share, notes=notes)
        if verified.points or verified.drift:
            async with short_transaction(connection, lock_timeout_ms=_KEEP_LOCK_MS) as cursor:
                worker = worker_of(chancy)
                await in_transaction.measure(cursor, tables, DRIFT, kept.open, worker=worker)
    except psycopg.Error as error:  # report the findings even if they can't be kept
        told = f"the outcome of verify could not be kept for `status`: {error_sentence(error)}"
        chancy.log.warning(told)
        return msgspec.structs.replace(verified, notes=[*verified.notes, told])
    return verified
