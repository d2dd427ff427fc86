"""Read a report from the database: `report` as a function."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import numpy as np
from chancy import Chancy

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import WrongMoment
from chancy_metrics.events.facts import microseconds
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin.alerts.points import read_alive
from chancy_metrics.plugin.audit.marks import Mark, read_marks
from chancy_metrics.plugin.health.completeness import Completeness, completeness
from chancy_metrics.plugin.health.status import Status
from chancy_metrics.plugin.health.status_reader import read_status
from chancy_metrics.plugin.host.app import options_of
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.moments import from_s, from_us, utc
from chancy_metrics.plugin.host.options import Options
from chancy_metrics.plugin.reading.load import read_names
from chancy_metrics.plugin.summary.changes import changes, slow_functions
from chancy_metrics.plugin.summary.period import Window, windows
from chancy_metrics.plugin.summary.problems import PATIENCE_S, problems
from chancy_metrics.plugin.summary.report import Failures, Flow, FunctionFailures, NewestError, Numbers, Report
from chancy_metrics.plugin.summary.seen import Known, Seen, usual_done, usual_share
from chancy_metrics.plugin.summary.sums import read_quantiles, read_sums
from chancy_metrics.plugin.summary.waiting import waiting
from chancy_metrics.projections.grid import grid_of
from chancy_metrics.projections.search.event import Event
from chancy_metrics.projections.search.query import EventQuery
from chancy_metrics.projections.search.scan import read_pages
from chancy_metrics.projections.versions.version import live_version

#: Of so many histograms with the largest sums, and so many with the largest values, quantiles are read.
_LARGEST_SUMS, _LARGEST_VALUES = 200, 50
#: Slowest and busiest functions, changes and marks that a report has.
_SLOW, _CHANGES, _MARKS = 10, 20, 20
#: Intervals of folds and of samples without anything new that are no silence yet.
_QUIET_INTERVALS = 3


async def report(chancy: Chancy, *, since: datetime | None = None) -> Report:
    """Say what happened from *since* on, against the same hours of the days before, and what in it is wrong.

    Args:
        since: Start of the time, aware; an hour ago by default.

    Raises:
        WrongMoment: *since* is not aware, out of bounds, or not in the past.
        MetricsLogError: There is no metrics log, or a table is locked.
        psycopg.OperationalError: The database can't be reached.
    """
    status = await read_status(chancy)
    now = status.at
    since = now - timedelta(hours=1) if since is None else utc(since)
    if since >= now:
        raise WrongMoment(f"{since.isoformat()} is not in the past: it is {now.isoformat()} by the database's clock")
    missing = await completeness(chancy, since)
    async with bounded_connection(chancy) as connection:
        seen = await _see_all(connection, tables_for(chancy.prefix), since, now)
        newest = await _newest_error(connection, tables_for(chancy.prefix), seen[0]) if seen else None
        async with short_transaction(connection) as cursor:
            marked = await read_marks(cursor, tables_for(chancy.prefix), since)
    return _report(status, missing, options_of(chancy), since, now, seen, newest, marked[-_MARKS:])


async def _see_all(connection: Connection, tables: Tables, since: datetime, now: datetime) -> list[Seen]:
    """Return the time itself, and the days before that can be compared with it; [] if nothing is kept of it."""
    async with short_transaction(connection, isolation="REPEATABLE READ", index_only=True) as cursor:
        version = await live_version(cursor, tables)
        known = Known(await read_names(cursor, tables))
        some = windows(version.horizons, microseconds(since) // 1_000_000, microseconds(now) // 1_000_000)
        seen = [await _see(cursor, tables, version.version, known, window) for window in some]
        seen = [one for one in seen if one.is_comparable or not one.window.days_before]
        if not seen:
            return []
        numbers = _largest(seen[0])
        return [await _with_quantiles(cursor, tables, version.version, one, numbers) for one in seen]


async def _see(cursor: Cursor, tables: Tables, version: int, known: Known, window: Window) -> Seen:
    grid = grid_of(window.parts)
    alive = await read_alive(cursor, tables, version, window.parts)
    ends = np.minimum(grid.ends, window.end_s)
    known_s = float((ends - grid.starts)[alive].sum())
    began_s, recorded_s = (float(grid.starts[alive][0]), float(ends[alive][-1])) if alive.any() else (None, None)
    sums = await read_sums(cursor, tables, version, window.parts, list(known.parts))
    return Seen(window, known, known_s, began_s, recorded_s, sums, {})


def _largest(now: Seen) -> list[int]:
    """Return the histograms whose quantiles are read: those with the largest sums, and with the largest values."""
    times = {number: now.sums[number] for number in now.known.times() if number in now.sums}
    by_sum = sorted(times, key=lambda number: -times[number].sum)[:_LARGEST_SUMS]
    by_value = sorted(times, key=lambda number: -times[number].maximum)[:_LARGEST_VALUES]
    return sorted({*by_sum, *by_value})


async def _with_quantiles(cursor: Cursor, tables: Tables, version: int, seen: Seen, numbers: Sequence[int]) -> Seen:
    some = {number: seen.sums[number] for number in numbers if number in seen.sums}
    return seen._replace(p95=await read_quantiles(cursor, tables, version, seen.window.parts, some))


async def _newest_error(connection: Connection, tables: Tables, now: Seen) -> NewestError | None:
    """Return the newest attempt that failed for the last time, else the newest that is tried again.

    The counter knows when it was, so that the skip index leaves out the rest of the log.
    """
    for state in ("failed", "retrying"):
        sums = now.of("global", "", "updates", state)
        if sums is None:
            continue
        at = from_us(sums.last_us)
        query = EventQuery(since=at, until=at + timedelta(microseconds=1), state=state)
        async for page in read_pages(connection, tables, query):
            for event in page.to_events():
                if event.job_id is not None:
                    return _as_error(event, event.job_id)
    return None


def _as_error(event: Event, job_id: UUID) -> NewestError:
    return NewestError(event.at, job_id, event.func or "", event.queue or "", event.state or "", event.error)


def _report(
    status: Status,
    missing: Completeness,
    options: Options,
    since: datetime,
    until: datetime,
    seen: Sequence[Seen],
    newest: NewestError | None,
    marked: list[Mark],
) -> Report:
    now, *days = seen or [_nothing(since, until)]
    recorded_at = None if now.recorded_s is None else min(until, from_s(now.recorded_s))
    fresh_s = max(PATIENCE_S, _QUIET_INTERVALS * max(options.sync_interval, options.collection_interval))
    flow, failures, queues = _flow(now, days), _failures(now, days, newest), waiting(now, days, until, fresh_s)
    slow = slow_functions(now, days)
    return Report(
        problems=problems(status, until, recorded_at, flow, queues, failures, fresh_s),
        since=from_s(now.window.first_s),
        until=until,
        replayed_at=status.replayed_at,
        unknown_s=max(0.0, now.window.end_s - now.window.first_s - now.known_s),
        began_at=None if now.began_s is None else from_s(now.began_s),
        recorded_at=recorded_at,
        days=len(days),
        first_numbers_s=None if status.position or now.began_s is not None else options.sync_interval,
        marks=marked,
        flow=flow,
        waiting=queues,
        failures=failures,
        slowest=sorted(slow, key=lambda one: -one.p95_s)[:_SLOW],
        busiest=sorted(slow, key=lambda one: -one.run_time_s)[:_SLOW],
        changes=changes(now, days)[:_CHANGES],
        numbers=_numbers(status, missing),
    )


def _nothing(since: datetime, until: datetime) -> Seen:
    """Return a time of which nothing is kept."""
    window = Window(0, int(since.timestamp()), int(until.timestamp()), [])
    return Seen(window, Known({}), 0.0, None, None, {}, {})


def _flow(now: Seen, days: Sequence[Seen]) -> Flow:
    done = now.done("global")
    return Flow(
        done,
        now.updates("global", "", "succeeded"),
        now.updates("global", "", "failed"),
        now.updates("global", "", "retrying"),
        done * 60 / now.known_s if now.known_s else 0.0,
        usual_done(now, days, "global"),
    )


def _failures(now: Seen, days: Sequence[Seen], newest: NewestError | None) -> Failures:
    functions = []
    for func in now.known.names("job"):
        failed, done = now.updates("job", func, "failed"), now.done("job", func)
        if failed:
            functions.append(FunctionFailures(func, failed, done, failed / done, usual_share(days, "job", func)))
    functions.sort(key=lambda one: (-one.failed, one.func))
    total = now.updates("global", "", "failed")
    return Failures(total, now.share("global"), usual_share(days, "global"), functions, newest)


def _numbers(status: Status, found: Completeness) -> Numbers:
    counts = {
        "left_out_batches": found.dead_letters,
        "failing_rules": len(found.failing_rules),
        "missing_batches": found.holes,
        "set_aside": found.set_aside,
        "lost": sum(found.lost.values()),
        "uncertain": sum(found.uncertain.values()),
        "in_memory": sum(found.in_memory.values()),
        "unclean_ends": found.ended_uncleanly,
        "dropped_ever": found.dropped,
        "dropped_job_updates_ever": found.dropped_job_updates,
    }
    verified, checked = status.verified, status.checked
    is_live = verified is not None and verified.version == status.version
    return Numbers(
        missing={name: count for name, count in counts.items() if count},
        lag_s=status.oldest_waiting_s,
        folded_at=status.folded_at,
        verified_at=verified.at if verified is not None and is_live and verified.points else None,
        verified_share=verified.share.whole if verified is not None and is_live else 0.0,
        open_faults=(verified.spots if verified else 0) + (checked.found - checked.given_up if checked else 0),
        not_looked_at=status.not_looked_at,
    )
