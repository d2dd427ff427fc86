"""The totals are the sum of the log and the baseline up to their position, whatever happens beside them."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import NamedTuple

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.rules.rule_set import BUILT_IN, RuleSet, label
from chancy_metrics.projections.totals.advance import advance_totals, step_generation
from chancy_metrics.projections.totals.expiry import expire_totals
from chancy_metrics.projections.totals.generation import begin_generation
from chancy_metrics.projections.totals.read import Totals, read_served
from chancy_metrics.projections.versions.expiry import UnusedNames, drop_versions
from chancy_metrics.projections.versions.left_out import left_out
from chancy_metrics.projections.versions.outcome import Advanced, Outcome
from chancy_metrics.projections.versions.version import live_version, read_generations
from tests import rules
from tests.factories import NOON_US, LogWriter, a_row, a_run, damage, fetch, now_us, sequence_all, sequence_and_fold
from tests.faults.history import make_history


async def caught_up(connection: Connection, tables: Tables, rules: RuleSet = BUILT_IN, **options: int) -> Advanced:
    """Advance the totals as far as the ledger goes."""
    while True:
        done = await advance_totals(connection, tables, rules, folded_by="test", **options)
        if done.outcome not in (Outcome.FOLDED, Outcome.BUSY):
            return done


async def built_anew(connection: Connection, tables: Tables, *, steps: int = 100, step_events: int = 20_000) -> int:
    """Take so many steps of another generation at the most; return its number."""
    made = await begin_generation(connection, tables, BUILT_IN, by="test")
    for _ in range(steps):
        async with short_transaction(connection) as cursor:
            [mine] = [one for one in await read_generations(cursor, tables) if one.version == made.version]
        if mine.status == "totals":
            break
        await step_generation(connection, tables, mine, BUILT_IN, folded_by="test", step_events=step_events)
    return made.version


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
    stepped = "SELECT (extract(epoch FROM folded_at) * 1000000)::bigint FROM {versions} WHERE status = 'totals'"
    [(stepped_us,)] = await fetch(connection, stepped, tables)
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
    assert (totals["app:n"].created_us, totals["app:late"].created_us) == (day_us, stepped_us)
    assert totals["app:size"].created_us == stepped_us <= before.at_us <= after.at_us <= now_us()


async def advance_by(rules: RuleSet, connection: Connection, tables: Tables) -> dict[str, float]:
    """What the totals say after code with *rules* has read them, by key."""
    await caught_up(connection, tables, rules)
    found = await served(connection, tables)
    assert found is not None
    return {one.series.key: one.sum for one in found.series if one.series.key.startswith("made:by:")}


async def test_newer_rules_count_from_where_they_take_over_and_older_ones_only_read(
    connection: Connection, tables: Tables
) -> None:
    older, newer = RuleSet(user=1, rules=(rules.first,)), RuleSet(user=2, rules=(rules.first, rules.second))
    writer = LogWriter(connection, tables)
    said = []
    for code in (older, newer, older, newer):
        await writer.append(jobs=[a_row()])
        await sequence_all(connection, tables)
        said.append(await advance_by(code, connection, tables))

    assert said == [
        {"made:by:first": 1},
        {"made:by:first": 2, "made:by:second": 1},
        {"made:by:first": 2, "made:by:second": 1},
        {"made:by:first": 4, "made:by:second": 3},
    ]
    totals = await served(connection, tables)
    assert totals is not None
    created_us = {one.series.key: one.created_us for one in totals.series}
    assert created_us["made:by:second"] > created_us["made:by:first"]


async def test_older_rules_take_over_where_newer_ones_are_gone_for_an_hour(
    connection: Connection, tables: Tables
) -> None:
    older, newer = RuleSet(user=1, rules=(rules.first,)), RuleSet(user=2, rules=(rules.second,))
    writer = LogWriter(connection, tables)
    await writer.append(jobs=[a_row()])
    await sequence_all(connection, tables)
    await caught_up(connection, tables, newer)
    await fetch(connection, "UPDATE {versions} SET folded_at = folded_at - interval '2 hours'", tables)

    waits_for_nothing = await caught_up(connection, tables, older)
    await writer.append(jobs=[a_row()])
    await sequence_all(connection, tables)

    assert waits_for_nothing.outcome is Outcome.REFUSED
    assert waits_for_nothing.reason == f"generation 2 has rules {label(newer.pair)}, this code has {label(older.pair)}"
    assert await advance_by(older, connection, tables) == {"made:by:first": 1, "made:by:second": 1}


async def test_a_half_built_generation_of_older_rules_is_built_anew(connection: Connection, tables: Tables) -> None:
    older, newer = RuleSet(user=1, rules=(rules.first,)), RuleSet(user=2, rules=(rules.second,))
    writer = LogWriter(connection, tables)
    for _ in range(2):
        await writer.append(jobs=[a_row()])
    await sequence_all(connection, tables)
    for _ in range(2):  # the baseline, and the first batch
        await advance_totals(connection, tables, older, folded_by="test", step_events=1)

    assert await advance_by(newer, connection, tables) == {"made:by:second": 2}


async def test_a_batch_that_cannot_be_folded_and_what_a_failing_rule_makes_are_left_out_and_recorded(
    connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    picky = RuleSet(user=1, rules=(rules.picky,))
    await writer.append(jobs=[a_row()])
    await writer.append(jobs=[a_row(state="failed")])
    await writer.append(jobs=[a_row()], batch=None)
    await sequence_all(connection, tables)
    await damage(connection, tables, "UPDATE {log} SET payload = '\\x00' WHERE sequence = 3")

    assert await advance_by(picky, connection, tables) == {"made:by:picky": 1}

    totals = await served(connection, tables)
    assert totals is not None
    updates = {one.series.key: one.sum for one in totals.series}
    assert (updates["global:status:succeeded"], updates["global:status:failed"]) == (1, 1)
    async with short_transaction(connection) as cursor:
        left = await left_out(cursor, tables, totals.generation)
    assert (left.batches, [one.position for one in left.first], [one.rule for one in left.rules]) == (1, [3], ["picky"])


async def test_series_without_points_for_long_leave_and_names_of_totals_stay(
    connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(runs=[a_run("app:old"), a_run("app:new", at_us=NOON_US + 1)])
    await sequence_and_fold(connection, tables)
    await caught_up(connection, tables)
    for resolution in RESOLUTIONS:
        await fetch(connection, f"DELETE FROM {{r{resolution}}}", tables)
    await fetch(connection, "DELETE FROM {worker_segments}", tables)

    removed = await expire_totals(connection, tables, before_us=NOON_US + 1, chunk=10)
    await UnusedNames().delete(connection, tables)
    totals = await served(connection, tables)

    assert removed == 1
    assert totals is not None
    assert [one.series.key for one in totals.series] == ["app:new"]
    assert await fetch(connection, "SELECT key FROM {series}", tables) == [("app:new",)]
    await writer.append(runs=[a_run("app:old", [5.0])])
    await sequence_and_fold(connection, tables)
    await caught_up(connection, tables)
    assert (await exact(connection, tables))["app:old"].sum == 5


async def test_dropped_generations_leave_with_their_rows(connection: Connection, tables: Tables) -> None:
    await LogWriter(connection, tables).append(runs=[a_run()])
    await sequence_and_fold(connection, tables)
    await caught_up(connection, tables)
    made = await built_anew(connection, tables)

    await drop_versions(connection, tables, now_us=now_us())

    assert await fetch(connection, "SELECT version, sum FROM {totals}", tables) == [(made, 1)]
    assert await fetch(connection, "SELECT status FROM {versions} ORDER BY version", tables) == [
        ("baseline",),
        ("live",),
        ("totals",),
    ]
