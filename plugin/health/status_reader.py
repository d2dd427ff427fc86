"""Read the status of the pipeline from the database, in one snapshot."""

from __future__ import annotations

from datetime import timedelta

import msgspec
from chancy import Chancy
from psycopg import sql
from psycopg.rows import DictRow, dict_row

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import NO_LIVE_VERSION, SchemaMissing
from chancy_metrics.events.facts import microseconds
from chancy_metrics.events.hot_standby import NOW, REPLAYED_AT
from chancy_metrics.events.infinite_times import read_infinite_times
from chancy_metrics.events.partitions import attached_days
from chancy_metrics.events.row_bounds import ID_IN_BOUNDS
from chancy_metrics.events.schema import TABLES, Tables, tables_for
from chancy_metrics.plugin.health.completeness import complete
from chancy_metrics.plugin.health.completeness_facts import SILENT_S, read_facts
from chancy_metrics.plugin.health.status import Status
from chancy_metrics.plugin.health.verdict import not_looked_at, unhealthy_reasons
from chancy_metrics.plugin.host.app import options_of
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.moments import in_utc
from chancy_metrics.plugin.host.options import DAY_S, Options
from chancy_metrics.plugin.rebuilds.listing import read_collected, read_unfinished
from chancy_metrics.plugin.rebuilds.rollout import RolloutPlan, read_all_withheld, read_rollout_plan
from chancy_metrics.plugin.worker.maintenance import series_count
from chancy_metrics.plugin.worker.retention import oldest_due
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.rules.rule_set import label
from chancy_metrics.projections.totals.read import read_states
from chancy_metrics.projections.verify.last_check import read_last_checked
from chancy_metrics.projections.verify.outcomes import read_last_verified
from chancy_metrics.projections.verify.records import read_unreadable
from chancy_metrics.projections.versions.grace import read_waited_for
from chancy_metrics.projections.versions.horizons_ahead import ahead_of
from chancy_metrics.projections.versions.horizons_ahead import sentence as ahead_sentence
from chancy_metrics.projections.versions.lag import appended_us, live_lag
from chancy_metrics.projections.versions.version import live_version

#: Sessions whose fold errors are shown.
_FOLD_ERRORS = 5


#: Positions before the head over which the rate is measured.
_RATE_POSITIONS = 1_000


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
        task = await read_rollout_plan(cursor, tables, options)
        unfinished = await read_unfinished(cursor, tables)
        collecting = await read_collected(cursor, tables)
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
        totals = await read_states(cursor, tables)
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
        at=in_utc(head["now"]),
        replayed_at=in_utc(head["replayed_at"]),
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
        collecting=collecting,
        withheld=withheld,
        position=head["position"],
        ordered_position=head["ledger_position"],
        folded_by=head["folded_by"],
        folding_since=in_utc(head["folding_since"]),
        folded_at=in_utc(head["folded_at"]),
        last_fold_events=head["fold_events"],
        totals=totals,
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
        not_looked_at=not_looked_at(status),
        unhealthy=unhealthy_reasons(status, missing)
        + ([ahead_sentence(live.version, live.horizons, hidden)] if hidden else [])
        + unreadable,
    )


def _rules_note(task: RolloutPlan, options: Options) -> str:
    if task.cause is None or task.reason:
        return task.reason
    takes = "backfills a version of its own" if task.version is None else f"continues version {task.version}"
    return f"rules {label(options.rules.pair)} are newer: a worker of this app {takes} and promotes it"


async def _head(cursor: Cursor, tables: Tables) -> DictRow:
    async with cursor.connection.cursor(row_factory=dict_row) as own:
        read_infinite_times(own)
        await own.execute(
            sql.SQL(
                """
                SELECT {now} AS now, ({now} AT TIME ZONE 'UTC')::date AS today, {replayed_at} AS replayed_at,
                    h.position AS ledger_position, v.version, v.rules, v.user_rules, v.position, v.folded_by,
                    v.folding_since, v.folded_at, v.fold_events, v.fold_us
                FROM {head} h
                JOIN {versions} v
                    ON v.version = h.live
                """
            ).format(now=NOW, replayed_at=REPLAYED_AT, head=tables.head, versions=tables.versions)
        )
        row = await own.fetchone()
    if row is None:
        raise SchemaMissing(NO_LIVE_VERSION)
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
    first = max(1, head["ledger_position"] - _RATE_POSITIONS)
    await cursor.execute(
        sql.SQL("SELECT day, producer, sequence FROM {ledger} WHERE position = %(first)s").format(ledger=tables.ledger),
        {"first": first},
    )
    batch_id = await cursor.fetchone()
    started_us = batch_id and await appended_us(cursor, tables, *batch_id)
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
