"""Answer GET overview: the functions, queues or workers of an app with what each did in a range that ends now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Literal, get_args

import msgspec
from chancy import Chancy

from chancy_metrics.events.database import short_transaction
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.host import clock
from chancy_metrics.plugin.host.app import options_of
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.moments import from_s
from chancy_metrics.plugin.http.limits import Busy, room, work
from chancy_metrics.plugin.http.overview_order import BY_QUANTILE, Candidate, by_quantile, by_sums, promise
from chancy_metrics.plugin.http.overview_rows import (
    MEASURES,
    Asked,
    Cut,
    Group,
    Range,
    choose_range,
    group,
    recorded_since,
)
from chancy_metrics.plugin.http.overview_workers import WorkerRow, worker_rows
from chancy_metrics.plugin.reading.quantiles import Quantiles, read_quantiles
from chancy_metrics.plugin.reading.readers import reader_of
from chancy_metrics.plugin.reading.replica import Replica
from chancy_metrics.projections.rules.key_parts import Subject

#: Seconds a request waits for the replica of a process that has just begun.
_SOON_S = 8.0
#: Series that are grouped, and rows that are added up, in one call of a thread.
_SERIES_AT_ONCE, _ROWS_AT_ONCE = 2_000, 200
Table = Literal["functions", "queues", "workers"]
TABLES: tuple[Table, ...] = get_args(Table)
_SUBJECTS: dict[Table, Subject] = {"functions": "job", "queues": "queue"}
#: Measures whose charts a row leads to, in their order.
_CHARTS = (
    "throughput",
    "updates:succeeded",
    "updates:failed",
    "updates:retrying",
    *MEASURES.values(),
    "depth:pending",
    "oldest_wait_seconds",
)


class TimesInRange(msgspec.Struct, frozen=True):
    """A histogram of times over the whole range, seconds; without quantiles where a point in it has no sketch."""

    count: int
    sum_s: float
    p50: float | None
    p95: float | None
    p99: float | None


class Row(msgspec.Struct, frozen=True):
    """What one function or queue did.

    Attributes:
        count: Job updates, one for each attempt that ended.
        failed: Jobs that failed for good.
        retried: Attempts that failed and were followed, or are to be, by another.
        failure_ratio: Of the jobs that ended, the share that failed for good; None if none ended.
        count_before: `count` of the range before; None where not all of that is in the log or kept.
        change: By how much more jobs came per second than then, as a share of that: 1.0 is twice as many.
        counts: `count` of each bucket, oldest first; None where the log holds nothing of its time.
        keys: Series to show as charts.
        depth: Jobs of a queue that were due at the last sample; None without one of the last minutes.
        oldest_wait_s: How long the first of them had waited then.
    """

    name: str
    count: int
    rate_per_s: float
    failed: int
    retried: int
    failure_ratio: float | None
    count_before: int | None
    change: float | None
    run: TimesInRange | None
    wait: TimesInRange | None
    total: TimesInRange | None
    counts: list[int | None]
    keys: list[str]
    depth: int | None
    oldest_wait_s: float | None


class Overview(msgspec.Struct, frozen=True):
    """Some rows of a table, in the order that was asked for.

    Attributes:
        since: Start of the first bucket.
        until: End of the current one.
        recorded_since: Start of the first bucket kept in which anything was recorded; None if there is none.
        matching: Number of rows on all pages.
        certain: Whether the order is exact: by a quantile of very many rows it may not be.
        next: The `after` of the next page; None on the last one.
    """

    table: Table
    resolution: str
    width_s: int
    since: datetime
    until: datetime
    recorded_since: datetime | None
    generated_at: datetime
    rows: Sequence[Row | WorkerRow]
    matching: int
    certain: bool
    next: str | None


async def overview(chancy: Chancy, table: Table, range_s: int, asked: Asked) -> Overview:
    """Return rows of *table*, computed from this process's replica, and their quantiles from the rollups.

    Raises:
        Busy: This process has not loaded its replica yet.
    """
    replica = await reader_of(chancy).replica_soon(_SOON_S)
    if replica is None:
        raise Busy("this process still loads the numbers into its memory: try again in a moment")
    now = clock.utc_now()
    window = choose_range(options_of(chancy), replica, range_s, now)
    begun_s = recorded_since(options_of(chancy), replica, now)
    rows: Sequence[Row | WorkerRow]
    if table == "workers":
        certain = True
        rows, matching = await worker_rows(chancy, replica, window, asked)
    else:
        rows, matching, certain = await _rows(chancy, replica, window, table, asked)
    following = asked.after + asked.limit
    return Overview(
        table,
        window.within.resolution,
        window.width_s,
        from_s(window.within.first_s),
        from_s(window.within.end_s),
        None if begun_s is None else from_s(begun_s),
        now,
        rows,
        matching,
        certain,
        str(following) if matching > following else None,
    )


async def _rows(
    chancy: Chancy, replica: Replica, window: Range, table: Table, asked: Asked
) -> tuple[list[Row], int, bool]:
    """Return the rows that are asked for, how many there are on all pages, and whether their order is exact."""
    groups = await _groups(chancy, replica, table)
    groups = [one for one in groups if all(word in one.name.casefold() for word in asked.words)]
    candidates = await _candidates(chancy, replica, window, groups)
    read = partial(_quantiles, chancy, window)
    order, descending, wanted = asked.order, asked.descending, asked.after + asked.limit
    if order in BY_QUANTILE:
        promising = await _promising(chancy, candidates, order, descending=descending)
        ordered = await by_quantile(promising, order, window, read, descending=descending, wanted=wanted)
    else:
        ordered = by_sums(candidates, order, window, descending=descending)
    page = ordered.candidates[asked.after : wanted]
    quantiles = await read([number for one in page for number in _histograms(one).values()])
    rows = await work(chancy, lambda: [_row(one, window, replica, quantiles) for one in page])
    return rows, len(candidates), ordered.certain


async def _groups(chancy: Chancy, replica: Replica, table: Table) -> list[Group]:
    """Return the functions or queues of the replica by name; one may come in two parts, which are merged."""
    names = replica.series
    shown = names.under(None)
    parts: dict[str, Group] = {}
    for start in range(0, len(shown), _SERIES_AT_ONCE):
        for one in await work(chancy, group, shown[start : start + _SERIES_AT_ONCE], names, _SUBJECTS[table]):
            parts.setdefault(one.name, Group(one.name, {})).series.update(one.series)
    return [parts[name] for name in sorted(parts)]


async def _candidates(chancy: Chancy, replica: Replica, window: Range, groups: Sequence[Group]) -> list[Candidate]:
    """Return those that did something in the range or in the one before, or wait."""
    columns = replica.columns
    found: list[Candidate] = []

    def add_up(some: Sequence[Group]) -> list[Candidate]:
        cuts = [Cut(one, columns, window) for one in some]
        return [Candidate(one, cut, cut.add_up()) for one, cut in zip(some, cuts, strict=True)]

    for start in range(0, len(groups), _ROWS_AT_ONCE):
        found += await work(chancy, add_up, groups[start : start + _ROWS_AT_ONCE])
    return [one for one in found if one.sums.is_something]


async def _promising(
    chancy: Chancy, candidates: Sequence[Candidate], order: str, *, descending: bool
) -> list[tuple[float, Candidate]]:
    found: list[tuple[float, Candidate]] = []

    def promises(some: Sequence[Candidate]) -> list[tuple[float, Candidate]]:
        return [(promise(one, order, descending=descending), one) for one in some]

    for start in range(0, len(candidates), _ROWS_AT_ONCE):
        found += await work(chancy, promises, candidates[start : start + _ROWS_AT_ONCE])
    return found


async def _quantiles(chancy: Chancy, window: Range, series: Sequence[int]) -> dict[int, Quantiles]:
    if not series:
        return {}
    async with room(chancy), bounded_connection(chancy) as connection, short_transaction(connection) as cursor:
        return await read_quantiles(cursor, tables_for(chancy.prefix), series, window.within)


def _histograms(one: Candidate) -> dict[str, int]:
    """Return the numbers of its histograms that have values in the range."""
    return {name: one.group.series[MEASURES[name]][0] for name in one.sums.times}


def _row(one: Candidate, window: Range, replica: Replica, quantiles: dict[int, Quantiles]) -> Row:
    sums, counts = one.sums, one.cut.counts()
    recorded = set(replica.recorded[window.within.resolution].tolist())
    times = {
        name: TimesInRange(*sums.times[name], *quantiles.get(number, (None, None, None)))
        for name, number in _histograms(one).items()
    }
    return Row(
        one.group.name,
        int(sums.count),
        sums.count / window.lived_s,
        int(sums.failed),
        int(sums.retried),
        sums.failure_ratio,
        None if sums.before is None else int(sums.before),
        sums.change(window),
        times.get("run"),
        times.get("wait"),
        times.get("total"),
        [int(counts.get(start, 0)) if start in recorded else None for start in window.buckets],
        [one.group.series[measure][1] for measure in _CHARTS if measure in one.group.series],
        None if sums.waiting is None else int(sums.waiting),
        sums.oldest_s,
    )
