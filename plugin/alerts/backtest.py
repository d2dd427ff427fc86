"""Replay alert rules over the stored points: when each would have fired, for how long, and how bad it was."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from os import PathLike
from typing import NamedTuple

import msgspec
import numpy as np
from anyio import to_thread
from chancy import Chancy
from psycopg import sql

from chancy_metrics.events.database import Cursor, short_transaction
from chancy_metrics.events.errors import WrongMoment
from chancy_metrics.events.facts import microseconds
from chancy_metrics.events.hot_standby import NOW
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin.alerts.conditions import Flags, Judged, Points, firings, judge
from chancy_metrics.plugin.alerts.outcome import JudgedSeries, RuleReplay, sum_up
from chancy_metrics.plugin.alerts.points import no_points, read_alive, read_on_grid
from chancy_metrics.plugin.alerts.rules import Rule, quantile_of, read_rules
from chancy_metrics.plugin.alerts.watched import Finder, Watched
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.moments import from_s, utc
from chancy_metrics.plugin.reading.load import read_names
from chancy_metrics.projections.grid import BucketRange, Grid, bucket_ranges, grid_of
from chancy_metrics.projections.versions.lag import live_lag
from chancy_metrics.projections.versions.version import live_version

#: Series whose points are held in memory at once.
_AT_ONCE = 50


class JudgedTime(msgspec.Struct, frozen=True):
    """Time that was judged at one resolution.

    Attributes:
        until: Exclusive.
        unknown: Of its *buckets*, those in which the log holds nothing: rules neither fire nor resolve there.
    """

    resolution: str
    since: datetime
    until: datetime
    buckets: int
    unknown: int


class Backtest(msgspec.Struct, frozen=True):
    """Rules, replayed over the stored points; times in UTC.

    Attributes:
        since: Start of the first bucket judged; *until* is the end of the last, up to which everything is folded.
        asked_since: What was asked for; earlier than *since* where no points are kept.
        judged: What was judged at which resolution, the oldest first.
    """

    since: datetime
    until: datetime
    asked_since: datetime
    judged: list[JudgedTime]
    rules: list[RuleReplay]


async def backtest(chancy: Chancy, path: str | PathLike[str], *, since: datetime) -> Backtest:
    """Replay the rules of a TOML file, up to the last bucket that is complete.

    Each time is judged by the finest buckets that are kept of it.

    Args:
        path: The file; docs/alerts.md says what a rule may have.
        since: Start of the time to replay, aware.

    Raises:
        OSError: The file can't be read.
        MetricsLogError: A rule is wrong, or names an unknown series; or there is no metrics log.
        WrongMoment: *since* is not aware, out of bounds, or in the future.
    """
    since = utc(since)
    rules = read_rules(path)
    async with (
        bounded_connection(chancy) as connection,
        short_transaction(connection, isolation="REPEATABLE READ", index_only=True) as cursor,
    ):
        return await _replay(cursor, tables_for(chancy.prefix), rules, since)


class _Time(NamedTuple):
    """The time to judge: its grid, which has windows before it, too, and the place of its first bucket."""

    version: int
    parts: list[BucketRange]
    grid: Grid
    alive: Flags
    first: int

    def cut(self, judged: Judged) -> Judged:
        return Judged(judged.holds[self.first :], judged.values[self.first :])

    @property
    def own(self) -> Grid:
        return Grid(*(column[self.first :] for column in self.grid))


async def _replay(cursor: Cursor, tables: Tables, rules: Sequence[Rule], since: datetime) -> Backtest:
    finder = Finder(await read_names(cursor, tables))
    watched = [finder.find(rule) for rule in rules]
    before_s = max(rule.window_s for rule in rules)
    time = await _read_time(cursor, tables, since, before_s)
    replays = [await _replay_rule(cursor, tables, rule, some, time) for rule, some in zip(rules, watched, strict=True)]
    judged = _judged(time)
    begin, end = (judged[0].since, judged[-1].until) if judged else (since, since)
    return Backtest(begin, end, since, judged, replays)


async def _read_time(cursor: Cursor, tables: Tables, since: datetime, before_s: int) -> _Time:
    version = await live_version(cursor, tables)
    waiting_s = (await live_lag(cursor, tables)).waiting_s
    await cursor.execute(sql.SQL("SELECT {now}").format(now=NOW))
    row = await cursor.fetchone()
    assert row is not None
    end_us = microseconds(row[0]) - int(waiting_s * 1e6)
    since_s, end_s = microseconds(since) // 1_000_000, end_us // 1_000_000
    if since_s >= end_s:
        raise WrongMoment(
            f"{since.isoformat()} is not before {from_s(end_s).isoformat()}, up to which events are folded"
        )
    parts = [_whole(one, end_s) for one in bucket_ranges(version.horizons, since_s - before_s, end_s)]
    parts = [one for one in parts if one.first_s < one.end_s]
    grid = grid_of(parts)
    alive = await read_alive(cursor, tables, version.version, parts)
    first = max(0, int(np.searchsorted(grid.starts, since_s, side="right")) - 1)
    return _Time(version.version, parts, grid, alive, first)


def _whole(part: BucketRange, end_s: int) -> BucketRange:
    """Leave out a bucket that has not ended."""
    return part._replace(end_s=min(part.end_s, end_s // part.width_s * part.width_s))


def _judged(time: _Time) -> list[JudgedTime]:
    found, offset = [], 0
    for part in time.parts:
        size = (part.end_s - part.first_s) // part.width_s
        skipped = max(0, min(size, time.first - offset))
        alive = time.alive[offset + skipped : offset + size]
        offset += size
        if len(alive):
            begin = from_s(part.first_s + skipped * part.width_s)
            unknown = int((~alive).sum())
            found.append(JudgedTime(part.resolution, begin, from_s(part.end_s), len(alive), unknown))
    return found


async def _replay_rule(
    cursor: Cursor, tables: Tables, rule: Rule, watched: Sequence[Watched], time: _Time
) -> RuleReplay:
    done: list[JudgedSeries] = []
    for begin in range(0, len(watched), _AT_ONCE):
        some = watched[begin : begin + _AT_ONCE]
        numbers = {number for one in some for number in (one.number, *one.whole) if number is not None}
        sketches = any(quantile_of(rule.value_of(one.series.kind)) for one in some)
        points = await read_on_grid(
            cursor, tables, time.version, time.parts, time.grid, sorted(numbers), sketches=sketches
        )
        done += await to_thread.run_sync(_judge_all, rule, some, points, time)
    return sum_up(rule, watched, done, time.own)


def _judge_all(rule: Rule, watched: Sequence[Watched], points: dict[int, Points], time: _Time) -> list[JudgedSeries]:
    none = no_points(time.grid)

    def of(number: int | None) -> Points:
        return none if number is None else points.get(number, none)

    done = []
    for one in watched:
        whole = [of(number) for number in one.whole]
        judged = time.cut(judge(rule, one.series.kind, time.grid, time.alive, of(one.number), whole))
        done.append(JudgedSeries(one.key, judged, list(firings(rule, time.own, judged))))
    return done
