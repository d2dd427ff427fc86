"""The totals are the sum of the log and the baseline up to their position, whatever happens beside them."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import NamedTuple

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.rules.rule_set import BUILT_IN, RuleSet
from chancy_metrics.projections.totals.advance import advance_totals
from chancy_metrics.projections.totals.read import Totals, read_served
from chancy_metrics.projections.versions.outcome import Advanced, Outcome
from chancy_metrics.projections.versions.version import live_version
from tests.factories import NOON_US, LogWriter, a_row, a_run, fetch, now_us, sequence_and_fold
from tests.faults.history import make_history


async def caught_up(connection: Connection, tables: Tables, rules: RuleSet = BUILT_IN, **options: int) -> Advanced:
    """Advance the totals as far as the ledger goes."""
    while True:
        done = await advance_totals(connection, tables, rules, folded_by="test", **options)
        if done.outcome not in (Outcome.FOLDED, Outcome.BUSY):
            return done


async def served(connection: Connection, tables: Tables) -> Totals | None:
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        return await read_served(cursor, tables)


class Row(NamedTuple):
    """What both a total and the points of a version say of a series, exactly."""

    count: int
    sum: Decimal
    min: float
    max: float
    last_us: int
    sketched: int


async def exact(connection: Connection, tables: Tables) -> dict[str, Row]:
    """The rows of the totals that are served, by key."""
    rows = await fetch(
        connection,
        "SELECT s.key, r.count, r.sum, r.min, r.max, r.last_us, coalesce(octet_length(r.sketch), 0) FROM {totals} r"
        " JOIN {series} s ON s.id = r.series JOIN {versions} v USING (version) WHERE v.status = 'totals'",
        tables,
    )
    return {key: Row(*row) for key, *row in rows}


async def added_up(connection: Connection, tables: Tables) -> dict[str, Row]:
    """The points of the live version, which has folded all that the totals have, added up by key."""
    async with short_transaction(connection) as cursor:
        live = await live_version(cursor, tables)
    rows = await fetch(
        connection,
        "SELECT s.key, sum(r.count)::bigint, trim_scale(sum(r.sum)), min(r.min), max(r.max), max(r.last_us), 0"
        " FROM {r1day} r JOIN {series} s ON s.id = r.series WHERE r.version = %(version)s GROUP BY s.key",
        tables,
        version=live.version,
    )
    return {key: Row(*row) for key, *row in rows}


def without_sketches(rows: dict[str, Row]) -> dict[str, Row]:
    return {key: row._replace(sketched=0) for key, row in rows.items()}


async def test_totals_are_the_baseline_and_the_log_added_up(connection: Connection, tables: Tables) -> None:
    await make_history(connection, tables)

    assert await served(connection, tables) is None
    done = await caught_up(connection, tables)

    assert done.outcome is Outcome.CAUGHT_UP
    found = await exact(connection, tables)
    assert len(found) > 10
    assert without_sketches(found) == await added_up(connection, tables)


async def test_what_comes_later_is_added(connection: Connection, tables: Tables) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(jobs=[a_row()], runs=[a_run("app:n", [0.1] * 10), a_run("app:level", [4.0], kind="gauge")])
    await sequence_and_fold(connection, tables)
    await caught_up(connection, tables)
    before = await served(connection, tables)
    await writer.append(
        runs=[
            a_run("app:n", [0.2]),
            a_run("app:late", [1.0]),
            a_run("app:level", [3.0], kind="gauge", at_us=NOON_US - 1),
            a_run("app:size", [1.0, 2.0, 2.0], kind="histogram", at_us=NOON_US - 86_400_000_000),
        ]
    )
    await sequence_and_fold(connection, tables)
    await caught_up(connection, tables)

    after = await served(connection, tables)

    assert before is not None and after is not None
    assert (after.generation, after.created_us) == (before.generation, before.created_us)
    assert (before.position, after.position) == (1, 2)
    totals = {one.series.key: one for one in after.series}
    assert [one.series for one in after.series] == sorted(one.series for one in after.series)
    assert (totals["app:n"].count, totals["app:n"].sum) == (11, math.fsum([0.1] * 10 + [0.2]))
    assert (totals["app:level"].last, totals["app:level"].last_us, totals["app:level"].min) == (4.0, NOON_US, 3.0)
    sketch = totals["app:size"].sketch
    assert sketch is not None and sketch.counts == [1, 2] and sketch.codes == sorted(sketch.codes)
    assert totals["app:n"].sketch is None
    assert totals["app:size"].series == Series("app:size", "histogram", "count")
    # Known from the first day of a series while the totals are built, and since they were last without it after that.
    day_us = NOON_US // 86_400_000_000 * 86_400_000_000
    assert (totals["app:n"].created_us, totals["app:late"].created_us) == (day_us, before.at_us)
    assert totals["app:size"].created_us == before.at_us <= after.at_us <= now_us()
