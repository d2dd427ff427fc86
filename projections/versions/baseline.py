"""Absorb days into the baseline (version 0) before they are pruned, so that a rebuild without them is exact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import date, timedelta
from functools import partial
from typing import NamedTuple

from anyio import to_thread
from psycopg import sql
from psycopg.types.json import Jsonb

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import SchemaMissing
from chancy_metrics.events.humanize import counted
from chancy_metrics.events.log import APPENDED_US
from chancy_metrics.events.row_bounds import FIRST_DAY, LAST_DAY
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.buckets import bucket_of
from chancy_metrics.projections.fold.accumulator import Accumulator
from chancy_metrics.projections.fold.levels import coarsen_expired, derive_points, merge_workers
from chancy_metrics.projections.rollups.ids import number, still_numbered
from chancy_metrics.projections.rollups.segments import write_segments
from chancy_metrics.projections.rollups.write import store
from chancy_metrics.projections.rules.rule_set import RuleSet
from chancy_metrics.projections.versions.counts import added_counts
from chancy_metrics.projections.versions.left_out import copy_left_out, left_out, write_left_out
from chancy_metrics.projections.versions.replay import replay_into
from chancy_metrics.projections.versions.step import too_late
from chancy_metrics.projections.versions.totals_behind import totals_behind
from chancy_metrics.projections.versions.version import (
    Version,
    live_version,
    lock_version,
    no_baseline,
    raise_horizons,
    read_baselines,
    read_collecting,
    read_versions,
)

_BUSY = "another process works on the baseline; the next call tries again"


class _Span(NamedTuple):
    """A day's first and last position, both 0 if it has none, and the number of its batches that are pending."""

    first: int
    last: int
    pending: int


async def absorb_day(connection: Connection, tables: Tables, rules: RuleSet, day: date) -> str | None:
    """Add a closed day to every baseline; return None, or why that is not possible now, as a sentence.

    One transaction adds all of it and sets the day to "absorbed", so that happens once. A baseline keeps the buckets
    that any version keeps. The totals, which don't begin with it again, must be past the day. A batch that can't be
    read becomes a dead letter of the live version, and the day stays in the log until somebody discards that; so it
    does if a user's rule failed on one of its batches. Discarded dead letters are copied to the baseline. Memory grows
    with the day's points, not with its events.
    """
    async with short_transaction(connection) as cursor:
        live = await live_version(cursor, tables)
        if reason := await refusal(cursor, tables, rules, day):
            return reason
        span = await _span(cursor, tables, day)
        dead = dict.fromkeys(await _lost(cursor, tables, day, live), "its row is not in the log")
        kept = await _kept(cursor, tables)
    total = Accumulator(kept)
    if span.last and not dead:
        transaction = partial(short_transaction, connection)
        await replay_into(total, transaction, tables, rules, live, after=span.first - 1, until=span.last, day=day)
    folded = await to_thread.run_sync(total.fold)
    dead |= folded.dead
    if dead or folded.failed:
        async with short_transaction(connection) as cursor:
            await write_left_out(cursor, tables, live.version, dead, folded.failed)
            return await refusal(cursor, tables, rules, day)
    numbered = await number(connection, tables, folded)
    async with short_transaction(connection, index_only=True) as cursor:
        baselines = [one.version for one in await read_baselines(cursor, tables)]
        if live.baseline not in baselines:
            return no_baseline(live.baseline)
        for one in baselines:
            if await lock_version(cursor, tables, one) is None:
                return _BUSY
        # Under the lock of the live version's baseline no other baseline comes into use.
        if baselines != [one.version for one in await read_baselines(cursor, tables)]:
            return _BUSY
        if reason := await refusal(cursor, tables, rules, day):
            return reason
        if behind := await totals_behind(cursor, tables, day):
            return behind.sentence
        keeps = await _kept(cursor, tables)
        if (
            (await live_version(cursor, tables)).version != live.version
            or any(keeps[resolution] < kept[resolution] for resolution in RESOLUTIONS)
            or not await still_numbered(cursor, tables, numbered.series, numbered.workers)
            or not await _mark_absorbed(cursor, tables, day, span.last)
        ):
            return _BUSY
        cells = await to_thread.run_sync(coarsen_expired, numbered.cells, keeps)
        counts = folded.counts + Counter({"expired": too_late(folded.days, keeps)})
        points = derive_points(merge_workers(cells), keeps)
        for one in baselines:
            await store(cursor, tables, one, points, tells=False)
            await write_segments(cursor, tables, one, segment_of_day(day), cells, compressed=True)
            await copy_left_out(cursor, tables, live.version, one, day=day)
            await count(cursor, tables, one, counts)
            await raise_baseline_horizons(cursor, tables, one)
    return None


def segment_of_day(day: date) -> int:
    """Return the number that segments of the baseline have instead of a fold's: no version has a fold below zero."""
    return -(day - FIRST_DAY).days - 1


def day_of_segment(number: int) -> date | None:
    """Return the day that `segment_of_day` gives a number; None if it is that of no day."""
    days = -number - 1
    return FIRST_DAY + timedelta(days=days) if 0 <= days <= (LAST_DAY - FIRST_DAY).days else None


async def refusal(cursor: Cursor, tables: Tables, rules: RuleSet, day: date) -> str | None:
    """Return why *day* can't be absorbed into the baseline now, as a sentence; None if it can."""
    span = await _span(cursor, tables, day)
    if span.pending:
        return (
            f"{counted(span.pending, 'batch')} of {day} {'has' if span.pending == 1 else 'have'} no position in the "
            "ledger yet: a worker's next fold assigns it, or `chancy-metrics fold`"
        )
    for version in await read_versions(cursor, tables):
        if version.status != "dropped" and version.position < span.last:
            return (
                f"version {version.version} ({version.status}) is at position {version.position}, and {day} ends "
                f"at {span.last}: " + _what_to_do(version)
            )
    for one in await read_collecting(cursor, tables):
        return (
            f"archives are folded into baseline {one.version}, which would lack {day}: finish that with "
            "`chancy-metrics rebuild --archive DIR`, or drop it with `chancy-metrics rebuild --abort`"
        )
    live = await live_version(cursor, tables)
    undecided = await left_out(cursor, tables, live.version, day=day, undiscarded=True)
    if undecided.batches:
        first = undecided.first[0]
        return (
            f"the batch at position {first.position} could not be read ({first.error}): the day can leave once "
            f"`chancy-metrics discard {first.position} --why ...` has given it up"
        )
    if undecided.rules:
        rule = undecided.rules[0]
        return (
            f"rule {rule.rule!r} failed on {rule.batches:,} of its batches (position {rule.position}: {rule.error}), "
            "and makes nothing of them once the day is gone: mend the rule and raise rules_version, or give them up, "
            f"`chancy-metrics discard --rule {rule.rule} --why ...`"
        )
    if reason := live.refuses(rules):
        return f"the baseline has the live version's rules, which this code does not have: {reason}"
    return None


async def raise_baseline_horizons(cursor: Cursor, tables: Tables, number: int) -> dict[str, int]:
    """Raise a baseline's horizons to the earliest ones of the versions made from it, but not past its latest event.

    Below its horizons the baseline is incomplete. Past its latest event all batches are still in the log, so a
    version that keeps more than the present ones may go back as far as that. The caller holds the baseline's lock.

    Returns:
        Resolution -> start of the oldest bucket that is complete, seconds.

    Raises:
        SchemaMissing: There is no such version.
    """
    reached = await within_pruned_days(cursor, tables, await _kept(cursor, tables, number))
    raised = await raise_horizons(cursor, tables, number, reached)
    if raised is None:
        raise SchemaMissing(no_baseline(number))
    return raised


async def within_pruned_days(cursor: Cursor, tables: Tables, kept: Mapping[str, int]) -> dict[str, int]:
    """Return *kept*, horizons, but none past the buckets of the latest event of the days that left the log."""
    await cursor.execute(sql.SQL("SELECT max(last_us) FROM {days}").format(days=tables.days))
    row = await cursor.fetchone()
    last_us = row[0] if row else None
    return {
        resolution: 0 if last_us is None else min(kept[resolution], bucket_of(last_us, width) + width)
        for resolution, width in RESOLUTIONS.items()
    }


async def _kept(cursor: Cursor, tables: Tables, baseline: int | None = None) -> dict[str, int]:
    """Return resolution -> start of the oldest bucket that any version keeps, or one made from *baseline*, seconds."""
    versions = [
        version
        for version in await read_versions(cursor, tables)
        if version.status != "dropped" and baseline in (None, version.baseline)
    ]
    return {resolution: min(version.horizons[resolution] for version in versions) for resolution in RESOLUTIONS}


def _what_to_do(version: Version) -> str:
    if version.status == "live":
        return "wait for its next folds, or run `chancy-metrics fold`"
    if version.status == "standby":
        return "it is on standby for an `undo`, and is dropped when its time is over"
    return "finish it with `chancy-metrics rebuild`, or drop it with `chancy-metrics rebuild --abort`"


async def _span(cursor: Cursor, tables: Tables, day: date) -> _Span:
    await cursor.execute(
        sql.SQL(
            """
            SELECT coalesce(min(position), 0), coalesce(max(position), 0),
                (SELECT count(*) FROM {pending} WHERE day = %(day)s)
            FROM {ledger}
            WHERE day = %(day)s
            """
        ).format(ledger=tables.ledger, pending=tables.pending),
        {"day": day},
    )
    row = await cursor.fetchone()
    assert row is not None
    return _Span(*row)


async def _lost(cursor: Cursor, tables: Tables, day: date, live: Version) -> list[int]:
    """Return the positions of *day* whose rows are missing from the log, without those that are dead letters."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT o.position
            FROM {ledger} o
            WHERE o.day = %(day)s
                AND NOT EXISTS (
                    SELECT 1
                    FROM {log} l
                    WHERE l.day = %(day)s
                        AND l.producer = o.producer
                        AND l.sequence = o.sequence
                )
                AND NOT EXISTS (
                    SELECT 1
                    FROM {dead} d
                    WHERE d.version = %(version)s
                        AND d.position = o.position
                )
            """
        ).format(ledger=tables.ledger, log=tables.log, dead=tables.dead_letters),
        {"day": day, "version": live.version},
    )
    return [row[0] for row in await cursor.fetchall()]


async def _mark_absorbed(cursor: Cursor, tables: Tables, day: date, last: int) -> bool:
    """Set a closed day to "absorbed", with its last position and latest event; return False if it is not closed."""
    await cursor.execute(
        sql.SQL(
            """
            UPDATE {days}
            SET state = 'absorbed',
                changed_at = clock_timestamp(),
                last_position = %(last)s,
                last_us = (
                    SELECT max(least(last_us, {appended_us}))
                    FROM {log} l
                    WHERE day = %(day)s
                )
            WHERE day = %(day)s
                AND state = 'closed'
            """
        ).format(days=tables.days, log=tables.log, appended_us=sql.SQL(APPENDED_US)),
        {"day": day, "last": last},
    )
    return cursor.rowcount == 1


async def count(cursor: Cursor, tables: Tables, baseline: int, counts: Counter[str]) -> None:
    """Add *counts* to those of a baseline, whose lock the caller holds."""
    total = await added_counts(cursor, tables, baseline, counts)
    await cursor.execute(
        sql.SQL("UPDATE {versions} SET counts = coalesce(%(counts)s, counts) WHERE version = %(baseline)s").format(
            versions=tables.versions
        ),
        {"counts": None if total is None else Jsonb(total), "baseline": baseline},
    )
