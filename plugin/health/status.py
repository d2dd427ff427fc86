"""How the pipeline is: what waits, who folds, what is missing from the numbers, and whether that is all right."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import overload

import msgspec
from chancy import Chancy
from psycopg import sql
from psycopg.rows import DictRow, dict_row

from chancy_metrics.events.bounds import ID_IN_BOUNDS
from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import SchemaMissing
from chancy_metrics.events.facts import microseconds
from chancy_metrics.events.humanize import counted, is_or_are, moment
from chancy_metrics.events.lenient import be_lenient
from chancy_metrics.events.partitions import attached_days
from chancy_metrics.events.pending import set_aside_sentence
from chancy_metrics.events.schema import TABLES, Tables, tables_for
from chancy_metrics.events.standby import NOW, REPLAYED_AT
from chancy_metrics.plugin.health.completeness import SILENT_S, Completeness, complete, read_facts
from chancy_metrics.plugin.host.app import options_of
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.options import DAY_S, Options
from chancy_metrics.plugin.rebuilds.listing import Unfinished, read_unfinished
from chancy_metrics.plugin.rebuilds.rollout import Task, read_all_withheld, read_task, standstill_after_s
from chancy_metrics.plugin.recording.session_row import spell
from chancy_metrics.plugin.worker.maintenance import SERIES_ALARM, series_count
from chancy_metrics.plugin.worker.retention import DueDay, oldest_due
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.rules.rule_set import label
from chancy_metrics.projections.verify.last_check import read_last_checked
from chancy_metrics.projections.verify.outcomes import LastChecked, LastVerified, read_last_verified, read_unreadable
from chancy_metrics.projections.versions.grace import read_waited_for
from chancy_metrics.projections.versions.horizons_ahead import ahead_of
from chancy_metrics.projections.versions.horizons_ahead import sentence as ahead_sentence
from chancy_metrics.projections.versions.lag import appended_us, live_lag
from chancy_metrics.projections.versions.version import live_version

#: Events may wait this many cadences, and at least so many seconds, before that is unhealthy.
CADENCES = 3
PATIENCE_S = 30
#: So many sessions' errors are shown.
_FOLD_ERRORS = 5
#: Positions back from the head over which the rate is measured.
_RATE_POSITIONS = 1_000


class Status(msgspec.Struct, frozen=True):
    """The state of the pipeline; times are UTC, sizes bytes, durations seconds.

    Attributes:
        pending_batches: Without a position yet; *spilled_batches* of them are in the spill table, not in the log.
        set_aside: Entries that waited for a position, or are in the spill table, and are no batch.
        oldest_waiting_s: Since the oldest event was appended that the live version lacks; *silent_s* since its last
            step.
        fold_errors: Why sessions that live failed to fold when they last tried, each with its worker.
        waited_for: Which batch of an unknown codec the fold stands before, and until when, in words; "" for none.
        rules: Of the live version; *app_rules* are this app's, and *rules_note* says what comes of the difference.
        unfinished: Versions on their way to become the live one.
        withheld: Which of them do not take over by themselves since they leave out more than the live one, a sentence
            each.
        due_day: The oldest day that is to leave the log, and what keeps it.
        verified: What runs of `verify` have compared and what of their findings is open; None where none ran.
        checked: What the last `audit check` looked at and found; None where none ran.
        not_looked_at: What nobody has looked at, so that nothing in here speaks of it, a sentence each.
        replayed_at: On a hot standby, the last commit it knows of, which the rest is as of; None elsewhere.
        unhealthy: What is wrong and what to do, a sentence each.
    """

    at: datetime
    replayed_at: datetime | None
    log_bytes: int
    rollup_bytes: int
    events_per_s: float
    pending_batches: int
    spilled_batches: int
    set_aside: int
    oldest_waiting_s: float
    silent_s: float
    version: int
    rules: str
    app_rules: str
    rules_note: str
    unfinished: list[Unfinished]
    withheld: list[str]
    position: int
    ordered_position: int
    folded_by: str | None
    folding_since: datetime | None
    folded_at: datetime | None
    last_fold_events: int | None
    last_fold_s: float | None
    fold_errors: list[str]
    waited_for: str
    sync_interval_s: float
    series: int
    ambiguous_keys: list[str]
    completeness: Completeness
    verified: LastVerified | None
    checked: LastChecked | None
    first_day: date | None
    last_day: date | None
    days_ahead: int
    log_retention_days: float
    due_day: DueDay | None
    not_looked_at: list[str]
    unhealthy: list[str]


async def read_status(chancy: Chancy) -> Status:
    """Return the state of the pipeline, read in one snapshot; times UTC, sizes bytes, durations seconds.

    Raises:
        MetricsLogError: The tables are missing, older than this code or locked.
        psycopg.OperationalError: The database can't be reached.
    """
    async with bounded_connection(chancy) as connection:
        return await _read(connection, tables_for(chancy.prefix), options_of(chancy))


async def _read(connection: Connection, tables: Tables, options: Options) -> Status:
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        head = await _head(cursor, tables)
        pending, spilled = await _waiting(cursor, tables)
        lag = await live_lag(cursor, tables)
        task = await read_task(cursor, tables, options)
        unfinished = await read_unfinished(cursor, tables)
        withheld = await read_all_withheld(cursor, tables)
        due_day = await oldest_due(
            cursor,
            tables,
            options.rules,
            now_us=microseconds(head["now"]),
            log_retention_s=options.log_retention,
        )
        series = await series_count(connection, tables)
        days = await attached_days(cursor, tables)
        completeness = complete(await read_facts(cursor, tables), options.append_interval)
        sizes = await _sizes(cursor, tables)
        rate = await _rate(cursor, tables, head)
        ambiguous = await _ambiguous(cursor, tables)
        fold_errors = await _fold_errors(cursor, tables)
        waited_for = await read_waited_for(cursor, tables)
        unreadable = await read_unreadable(cursor, tables)
        hidden = ahead_of(
            (live := await live_version(cursor, tables)).horizons,
            horizons(microseconds(head["now"]), options.max_points, options.maximum_metric_age),
            int(head["now"].timestamp()),
        )
        checked = await read_last_checked(cursor, tables)
        verified = await read_last_verified(cursor, tables, head["version"], now_s=int(head["now"].timestamp()))
    today = head["today"]
    status = Status(
        at=_utc(head["now"]),
        replayed_at=_utc(head["replayed_at"]),
        log_bytes=sizes["log"],
        rollup_bytes=sizes["rollups"],
        events_per_s=rate,
        pending_batches=pending + spilled,
        spilled_batches=spilled,
        set_aside=completeness.set_aside,
        oldest_waiting_s=lag.waiting_s,
        silent_s=lag.silent_s,
        version=head["version"],
        rules=label((head["rules"], head["user_rules"])),
        app_rules=label(options.rules.pair),
        rules_note=_rules_note(task, options),
        unfinished=unfinished,
        withheld=withheld,
        position=head["position"],
        ordered_position=head["ordered"],
        folded_by=head["folded_by"],
        folding_since=_utc(head["folding_since"]),
        folded_at=_utc(head["folded_at"]),
        last_fold_events=head["fold_events"],
        fold_errors=fold_errors,
        waited_for=waited_for,
        last_fold_s=None if head["fold_us"] is None else head["fold_us"] / 1e6,
        sync_interval_s=options.sync_interval,
        series=series,
        ambiguous_keys=ambiguous,
        completeness=completeness,
        verified=verified,
        checked=checked,
        first_day=min(days, default=None),
        last_day=max(days, default=None),
        days_ahead=len([day for day in days if day > today]),
        log_retention_days=options.log_retention / DAY_S,
        due_day=due_day,
        not_looked_at=[],
        unhealthy=[],
    )
    missing = [day for day in (today, today + timedelta(days=1)) if day not in days]
    return msgspec.structs.replace(
        status,
        not_looked_at=_not_looked_at(status),
        unhealthy=_reasons(status, missing)
        + ([ahead_sentence(live.version, live.horizons, hidden)] if hidden else [])
        + unreadable,
    )


def _not_looked_at(status: Status) -> list[str]:
    """What a status without a fault must not be taken to say."""
    unseen = []
    if not status.position:
        unseen.append("nothing has been folded yet, so there are no numbers")
    last = status.verified
    if last is None or not last.share.whole:
        of = "the numbers were" if last is None or last.version == status.version else f"version {status.version} was"
        unseen.append(f"{of} never compared with the log: `chancy-metrics verify` does it")
    if (last is None or last.log_at is None) and status.checked is None:
        unseen.append(
            "the log and its order were never checked whole: `chancy-metrics verify` does it without a window"
        )
    return unseen


def _reasons(status: Status, missing_days: list[date]) -> list[str]:
    reasons = []
    patience = max(PATIENCE_S, CADENCES * status.sync_interval_s)
    if status.oldest_waiting_s > patience:
        reasons.append(
            f"events have been waiting for {status.oldest_waiting_s:.0f} s (more than {patience:.0f}): "
            f"{_why_waiting(status, patience)}"
        )
    if status.rules_note and status.rules == status.app_rules:
        reasons.append(f"this app can't fold: {status.rules_note}")
    reasons += status.completeness.unreadable
    if status.completeness.holes:
        reasons.append(
            f"{is_or_are(status.completeness.holes, 'batch')} missing from their producers' sequences: "
            "the log is damaged"
        )
    if status.set_aside:
        reasons.append(set_aside_sentence(status.set_aside))
    if status.completeness.dead_letters:
        reasons.append(
            f"{counted(dead := status.completeness.dead_letters, 'batch')} could not be read, or stored, and "
            f"{'is' if dead == 1 else 'are'} not in the numbers: {status.completeness.left_out}"
        )
    reasons += status.withheld
    reasons += [
        f"rule {rule.rule!r} failed on {counted(rule.batches, 'batch')}, of which only "
        "its own metrics are missing (position "
        f"{rule.position}: {rule.error[:200]}): mend it and raise rules_version"
        for rule in status.completeness.failing_rules
        if rule.batches > rule.discarded
    ]
    if (last := status.verified) is not None and last.found_since is not None:
        hidden = last.places - len(last.sentences)
        reasons.append(
            f"verify found {counted(last.different, 'difference')} and {counted(last.found, 'other fault')}, the first "
            f"at {moment(last.found_since)}, and no run over their place has found it right since: "
            f"{'; '.join(last.sentences)}" + (f"; and {hidden:,} more places" if hidden else "")
        )
    if (check := status.checked) is not None and check.found > check.given_up:
        hidden = check.found - check.given_up - len(check.sentences)
        reasons.append(
            f"the last audit check, at {moment(check.at)}, found {'; '.join(check.sentences)}"
            + (f"; and {hidden:,} more" if hidden else "")
            + ": the next one that finds nothing ends this"
        )
    if status.due_day is not None and status.due_day.hangs(status.at):
        reasons.append(f"{status.due_day}: {status.due_day.reason}")
    if status.completeness.in_memory:
        reasons.append(
            f"{spell(status.completeness.in_memory)} can't be appended now and are held in memory, where a kill would "
            "lose them: the workers' log says why"
        )
    if missing_days:
        days = ", ".join(str(day) for day in missing_days)
        reasons.append(f"the log has no partition for {days}: run `chancy misc migrate`, or let a worker make it")
    if status.series > SERIES_ALARM:
        reasons.append(f"there are more than {SERIES_ALARM:,} series: an id has most likely got into a key")
    return reasons


def _why_waiting(status: Status, patience_s: float) -> str:
    if status.waited_for:
        return status.waited_for
    if status.fold_errors:
        return f"folding fails: {'; '.join(status.fold_errors)}"
    if status.spilled_batches and status.silent_s <= patience_s:
        return (
            f"{is_or_are(status.spilled_batches, 'batch')} in the spill table, and the log does not take them: "
            "`SELECT * FROM pg_locks` says who holds a lock on it, the log of who folds whether it refuses them"
        )
    if status.silent_s <= patience_s and status.folded_by is not None:
        return f"{status.folded_by} folds, and does not keep up"
    if status.rules == status.app_rules:
        or_fold = "" if status.rules_note else " or run `chancy-metrics fold`"
        return f"no worker has folded for {status.silent_s:.0f} s; start one{or_fold}"
    if status.silent_s <= standstill_after_s(status.sync_interval_s):
        return f"no worker with rules {status.rules} folds, and this app has {status.app_rules}; start one"
    return f"{status.rules_note}; start a worker with rules {status.rules}, or one of this app, which takes over"


def _rules_note(task: Task, options: Options) -> str:
    if task.cause is None or task.reason:
        return task.reason
    takes = "fills a version of its own" if task.version is None else f"takes version {task.version}"
    return f"rules {label(options.rules.pair)} are newer: a worker of this app {takes}, and lets readers see it"


async def _head(cursor: Cursor, tables: Tables) -> DictRow:
    async with cursor.connection.cursor(row_factory=dict_row) as own:
        be_lenient(own)
        await own.execute(
            sql.SQL(
                """
                SELECT {now} AS now, ({now} AT TIME ZONE 'UTC')::date AS today, {replayed_at} AS replayed_at,
                    h.position AS ordered, v.version, v.rules, v.user_rules, v.position, v.folded_by,
                    v.folding_since, v.folded_at, v.fold_events, v.fold_us
                FROM {head} h
                JOIN {versions} v
                    ON v.version = h.live
                """
            ).format(now=NOW, replayed_at=REPLAYED_AT, head=tables.head, versions=tables.versions)
        )
        row = await own.fetchone()
    if row is None:
        raise SchemaMissing("the metrics log has no live version: run `chancy misc migrate`")
    return row


async def _fold_errors(cursor: Cursor, tables: Tables) -> list[str]:
    await cursor.execute(
        sql.SQL(
            """
            SELECT worker, fold_error
            FROM {sessions}
            WHERE fold_error IS NOT NULL
                AND ended_at IS NULL
                AND seen_at > {now} - make_interval(secs => %(silent)s)
            ORDER BY worker, session
            LIMIT %(limit)s
            """
        ).format(sessions=tables.sessions, now=NOW),
        {"silent": SILENT_S, "limit": _FOLD_ERRORS},
    )
    return [f"{worker}: {error}" for worker, error in await cursor.fetchall()]


async def _waiting(cursor: Cursor, tables: Tables) -> tuple[int, int]:
    """How many batches wait for their position, in the log and spilled."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT (SELECT count(*) FROM {pending}), (SELECT count(*) FROM {spill} WHERE {in_bounds})
            """
        ).format(pending=tables.pending, spill=tables.spill, in_bounds=sql.SQL(ID_IN_BOUNDS))
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


async def _rate(cursor: Cursor, tables: Tables, head: DictRow) -> float:
    first = max(1, head["ordered"] - _RATE_POSITIONS)
    await cursor.execute(
        sql.SQL("SELECT day, producer, sequence FROM {ledger} WHERE position = %(first)s").format(ledger=tables.ledger),
        {"first": first},
    )
    place = await cursor.fetchone()
    started_us = place and await appended_us(cursor, tables, *place)
    await cursor.execute(
        sql.SQL("SELECT coalesce(sum(events), 0)::bigint FROM {ledger} WHERE position > %(first)s").format(
            ledger=tables.ledger
        ),
        {"first": first},
    )
    row = await cursor.fetchone()
    seconds = (microseconds(head["now"]) - started_us) / 1e6 if started_us else 0
    return row[0] / seconds if row and seconds > 0 else 0.0


async def _sizes(cursor: Cursor, tables: Tables) -> dict[str, int]:
    others = [sql.Identifier(f"{tables.prefix}{table}") for table in TABLES if table != "metrics_log"]
    await cursor.execute(
        """
        SELECT (SELECT sum(pg_total_relation_size(relid))::bigint FROM pg_partition_tree(%(log)s::regclass)),
            (SELECT sum(pg_total_relation_size(name::regclass))::bigint FROM unnest(%(tables)s::text[]) AS t (name))
        """,
        {"tables": [table.as_string(cursor) for table in others], "log": tables.log.as_string(cursor)},
    )
    row = await cursor.fetchone()
    return {"log": row[0] or 0, "rollups": row[1] or 0} if row else {"log": 0, "rollups": 0}


async def _ambiguous(cursor: Cursor, tables: Tables) -> list[str]:
    await cursor.execute(
        sql.SQL("SELECT key FROM {series} GROUP BY key HAVING count(*) > 1 ORDER BY key LIMIT 20").format(
            series=tables.series
        )
    )
    return [row[0] for row in await cursor.fetchall()]


@overload
def _utc(moment: datetime) -> datetime: ...


@overload
def _utc(moment: None) -> None: ...


def _utc(moment: datetime | None) -> datetime | None:
    """The same instant in UTC: the session's zone is whatever the server says."""
    return None if moment is None else moment.astimezone(UTC)
