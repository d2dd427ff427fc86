"""Answer GET overview?table=workers: who worked in a range that ends now, when it was last seen, and what it did."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec
from chancy import Chancy
from psycopg import sql

from chancy_metrics.events.database import Cursor, short_transaction
from chancy_metrics.events.facts import Series
from chancy_metrics.events.off_loop import in_thread
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.http.limits import room, work
from chancy_metrics.plugin.http.overview_rows import Asked, Cut, Group, Range
from chancy_metrics.plugin.reading.replica import Replica, SeriesColumns
from chancy_metrics.plugin.reading.window import finite_total
from chancy_metrics.plugin.reading.worker_points import columns_of
from chancy_metrics.projections.rollups.segments import read_window
from chancy_metrics.projections.rules.key_parts import key_parts
from chancy_metrics.projections.versions.version import live_version

WORKER_ORDERS = ("seen_at", "name")
#: Cells of workers' segments that one answer decodes, half a second's work; workers past them have no numbers.
MAX_CELLS = 2_000_000


class WorkerRow(msgspec.Struct, frozen=True):
    """What one worker did. Counts are null where its points are too many to be read for this answer.

    Attributes:
        started_at: Start of its last session; None if it has none, as a process without a worker.
        seen_at: When that session was last seen alive.
        ended_at: When it ended properly; None while it lives, or if it was killed.
        run_s: Seconds that its jobs ran.
        busy: Jobs that it ran at once, on average.
        keys: Series to show as charts of this worker.
    """

    name: str
    started_at: datetime | None
    seen_at: datetime | None
    ended_at: datetime | None
    count: int | None
    rate_per_s: float | None
    failed: int | None
    retried: int | None
    failure_ratio: float | None
    run_s: float | None
    busy: float | None
    counts: list[int | None]
    keys: list[str]


class _Worker(NamedTuple):
    """A worker with its id, if it has points in the range, and how many cells hold them."""

    name: str
    number: int | None
    cells: int
    started_at: datetime | None
    seen_at: datetime | None
    ended_at: datetime | None
    matching: int


async def worker_rows(chancy: Chancy, replica: Replica, window: Range, asked: Asked) -> tuple[list[WorkerRow], int]:
    """Return some of the workers that were seen in the range, or have points in it, and how many there are."""
    tables = tables_for(chancy.prefix)
    measured = await work(chancy, _measured, replica)
    columns: dict[str, dict[int, SeriesColumns]] = {}
    async with (
        room(chancy),
        bounded_connection(chancy) as connection,
        short_transaction(connection, isolation="REPEATABLE READ") as cursor,
    ):
        version = (await live_version(cursor, tables)).version
        found = await _read_workers(cursor, tables, version, window, asked)
        left = MAX_CELLS
        for one in found:
            left -= one.cells
            if left >= 0:
                columns[one.name] = await _read_columns(cursor, tables, version, window, one, measured)
    recorded = set(replica.recorded[window.within.resolution].tolist())
    rows = [_row(one, window, measured, columns.get(one.name), recorded) for one in found]
    return rows, found[0].matching if found else 0


class _Measured(NamedTuple):
    """Series by number of which a worker's points are read: the states of jobs, and how long those of queues ran."""

    series: dict[int, Series]
    states: Group
    run: Group


def _measured(replica: Replica) -> _Measured:
    measured = _Measured({}, Group("", {}), Group("", {}))
    for prefix in ("global:status", "queue"):
        for key, number in replica.series.under(prefix):
            parts = key_parts(replica.series[number])
            if parts.subject == "global":
                measured.states.series[f"updates:{parts.state}"] = number, key
            elif parts.subject == "queue" and parts.measure == "execution_time":
                measured.run.series[key] = number, key
            else:
                continue
            measured.series[number] = replica.series[number]
    return measured


async def _read_workers(cursor: Cursor, tables: Tables, version: int, window: Range, asked: Asked) -> list[_Worker]:
    await cursor.execute(
        sql.SQL(
            """
            WITH pointed AS (
                SELECT worker, sum(cells)::bigint AS cells
                FROM {segments}
                WHERE version = %(version)s
                    AND resolution <= %(width)s
                    AND end_s > %(first)s
                    AND first_s < %(end)s
                GROUP BY worker
            ), named AS (
                SELECT w.name, p.worker, p.cells
                FROM pointed p
                JOIN {workers} w
                    ON w.id = p.worker
            ), latest AS (
                SELECT DISTINCT ON (worker) worker AS name, started_at, seen_at, ended_at
                FROM {sessions}
                WHERE seen_at >= to_timestamp(%(first)s)
                ORDER BY worker, started_at DESC
            )
            SELECT name, n.worker, coalesce(n.cells, 0), l.started_at, l.seen_at, l.ended_at, count(*) OVER ()
            FROM named n
            FULL JOIN latest l USING (name)
            WHERE NOT EXISTS (
                SELECT
                FROM unnest(%(words)s::text[]) AS word
                WHERE strpos(lower(name), word) = 0
            )
            ORDER BY {order} {direction} NULLS LAST, name
            OFFSET %(after)s
            LIMIT %(limit)s
            """
        ).format(
            segments=tables.worker_segments,
            workers=tables.workers,
            sessions=tables.sessions,
            order=sql.Identifier(asked.order),
            direction=sql.SQL("DESC" if asked.descending else "ASC"),
        ),
        {
            "version": version,
            "width": window.width_s,
            "first": window.within.first_s,
            "end": window.within.end_s,
            "words": list(asked.words),
            "after": asked.after,
            "limit": asked.limit,
        },
    )
    return [_Worker(*row) for row in await cursor.fetchall()]


async def _read_columns(
    cursor: Cursor, tables: Tables, version: int, window: Range, one: _Worker, measured: _Measured
) -> dict[int, SeriesColumns]:
    if one.number is None or not measured.series:
        return {}
    within = window.within
    cells = await read_window(cursor, tables, version, *within, worker=one.number, series=list(measured.series))
    return await in_thread(columns_of, {within.resolution: cells}, measured.series)


def _row(
    one: _Worker, window: Range, measured: _Measured, columns: Mapping[int, SeriesColumns] | None, recorded: set[int]
) -> WorkerRow:
    keys = [key for _, key in measured.states.series.values()]
    session = one.name, one.started_at, one.seen_at, one.ended_at
    if columns is None:
        return WorkerRow(*session, None, None, None, None, None, None, None, [], keys)
    cut = Cut(measured.states, columns, window)
    sums, counts, run = cut.add_up(), cut.counts(), Cut(measured.run, columns, window)
    run_s = finite_total([found[1] for key in measured.run.series if (found := run.times(key)) is not None])
    return WorkerRow(
        *session,
        int(sums.count),
        sums.count / window.lived_s,
        int(sums.failed),
        int(sums.retried),
        sums.failure_ratio,
        run_s,
        run_s / window.lived_s,
        [int(counts.get(start, 0)) if start in recorded else None for start in window.buckets],
        keys,
    )
