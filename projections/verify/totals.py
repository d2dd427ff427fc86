"""Check the totals that exporters read against the baseline and the log, folded again up to the totals' position."""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing
from functools import partial

import msgspec
import numpy as np
from anyio import to_thread

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.facts import Series
from chancy_metrics.events.humanize import counted
from chancy_metrics.events.partitions import gone_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.findings import Findings, Spot
from chancy_metrics.projections.fold.accumulator import Accumulator
from chancy_metrics.projections.fold.cells import Cells, as_all_workers, coarsen, merge, select
from chancy_metrics.projections.fold.diff import diff_projections
from chancy_metrics.projections.fold.fold import Fold
from chancy_metrics.projections.fold.levels import Projection
from chancy_metrics.projections.fold.points import Comparison, Difference
from chancy_metrics.projections.rollups.read import read_days, read_totals
from chancy_metrics.projections.rollups.soundness import ALL_TIME_S
from chancy_metrics.projections.rules.rule_set import RuleSet
from chancy_metrics.projections.totals.generation import HORIZONS
from chancy_metrics.projections.totals.read import begun_before
from chancy_metrics.projections.verify.replay import RangeReplay
from chancy_metrics.projections.versions.replay import log_snapshot, replay_into
from chancy_metrics.projections.versions.replay_base import ReplayBase, ReplayBaseChanged, retry_while_changed
from chancy_metrics.projections.versions.version import Version, live_version, read_generations, read_version

#: The resolution under which totals are compared: they are folded as days, and have one bucket.
_AS = "1day"


class TotalsCheck(msgspec.Struct, frozen=True):
    """What a run of verify did about the totals.

    Attributes:
        generation: The one that is served, at *position*; None if none is.
        series: How many series were compared; None if none were.
        not_compared: Why none were, or some were not, as a sentence; "" if all were.
    """

    generation: int | None = None
    position: int | None = None
    series: int | None = None
    not_compared: str = ""


async def served_generation(connection: Connection, tables: Tables) -> Version | None:
    """Return the generation that is served; None if none is."""
    async with short_transaction(connection) as cursor:
        return await _served(cursor, tables)


async def check_totals(
    connection: Connection,
    tables: Tables,
    rules: RuleSet,
    found: Findings,
    *,
    silent_us: int,
    limit: int,
    elsewhere: RangeReplay | None = None,
) -> TotalsCheck:
    """Add up the baseline and the log anew, as `rebuild --totals` does, and compare that with what is served.

    In memory: nothing is written, and the log is read in short transactions. It has a cell of each worker and series a
    day. Where days have left the log, series that began before the baseline's horizon are not compared: a part of them
    is in no rollup any more.

    Args:
        silent_us: Series without a point since then may have been deleted: they need not be there.
        limit: Differences with a sentence.
        elsewhere: Replays the ledger instead of this process.

    Raises:
        MetricsLogError: Days went into the baseline faster than the log was replayed.
    """
    return await retry_while_changed(
        lambda: _attempt(connection, tables, rules, found, silent_us, limit, elsewhere), "the totals were verified"
    )


async def _attempt(
    connection: Connection,
    tables: Tables,
    rules: RuleSet,
    found: Findings,
    silent_us: int,
    limit: int,
    elsewhere: RangeReplay | None,
) -> TotalsCheck:
    total = Accumulator(HORIZONS)
    async with log_snapshot(connection, tables) as cursor:
        mine = await _served(cursor, tables)
        if mine is None:
            return TotalsCheck(not_compared="no totals are served")
        if reason := mine.refuses(rules):
            return TotalsCheck(mine.version, mine.position, not_compared=reason)
        gone = await gone_days(cursor, tables)
        stored = await read_totals(cursor, tables, mine.version)
        baseline = await read_version(cursor, tables, (await live_version(cursor, tables)).baseline)
        since_s = baseline.horizons[_AS] if baseline is not None and gone else 0
        too_old = await begun_before(cursor, tables, mine.version, since_s * 1_000_000)
        if baseline is not None:
            await to_thread.run_sync(total.add, await read_days(cursor, tables, baseline.version))
    if elsewhere is None:
        transaction = partial(short_transaction, connection)
        await replay_into(total, transaction, tables, rules, mine, until=mine.position)
    else:
        async with aclosing(elsewhere.replay(ReplayBase(mine, gone), HORIZONS, 0, mine.position, frozenset())) as parts:
            async for part in parts:
                await to_thread.run_sync(total.add, part.fold)
    async with short_transaction(connection) as cursor:
        if await gone_days(cursor, tables) != gone:
            raise ReplayBaseChanged
    if total.dead or total.failed:
        why = "batches that are in them can't be folded any more: the findings say which"
        return TotalsCheck(mine.version, mine.position, not_compared=why)
    diff = await to_thread.run_sync(_compare, stored, total.fold(), too_old, silent_us, limit)
    for one in diff.differences:
        key, kind, unit = one.series
        text = (
            f"{_change(one)} by baseline and log up to position {mine.position:,}: somebody changed it, or its rules "
            "or the baseline are others by now; `chancy-metrics rebuild --totals` corrects it"
        )
        found.add("totals", f"{key} ({kind}, {unit})", text)
    found.add_uncounted(Counter({Spot("totals"): diff.different - len(diff.differences)}))
    old = f"{counted(len(too_old), 'series')} began before the days that the baseline keeps"
    return TotalsCheck(mine.version, mine.position, diff.points, old if too_old else "")


async def _served(cursor: Cursor, tables: Tables) -> Version | None:
    return next((one for one in await read_generations(cursor, tables) if one.status == "totals"), None)


def _compare(stored: Fold, made: Fold, too_old: set[Series], silent_us: int, limit: int) -> Comparison:
    """Compare totals with a sum by days, without series that are too old, or may have been deleted as silent."""
    known = set(stored.series)
    old = Projection([], stored.series, _kept(stored, [one not in too_old for one in stored.series], 0), {})
    days = made.cells.get(_AS)
    made = made._replace(cells={} if days is None else {_AS: coarsen(merge(as_all_workers(days)), ALL_TIME_S)})
    gone = _kept(made, [one not in known for one in made.series], silent_us)
    there = _kept(made, [one in known and one not in too_old for one in made.series], 0)
    new = Projection([], made.series, there, {})
    return diff_projections(old, new, limit=limit).plus(
        diff_projections(Projection([], [], {}, {}), Projection([], made.series, gone, {}), limit=limit)
    )


def _kept(fold: Fold, wanted: list[bool], since_us: int) -> dict[str, Cells]:
    """Return the cells of the series that are *wanted*, if their latest event is not before *since_us*."""
    keep = np.array(wanted, bool)
    return {name: select(one, keep[one.series] & (one.last_us >= since_us)) for name, one in fold.cells.items()}


def _change(one: Difference) -> str:
    if one.new is None:
        return "nothing adds up to it"
    return "it is missing" if one.old is None else f"it should be another one ({one.change})"
