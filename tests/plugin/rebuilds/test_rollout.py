"""Newer rules take over by themselves, older ones leave folding alone, and metrics never stand still for good."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.folding.projector import fold_all
from chancy_metrics.plugin.health.completeness import completeness
from chancy_metrics.plugin.health.status_reader import read_status
from chancy_metrics.plugin.rebuilds.listing import list_versions
from chancy_metrics.plugin.rebuilds.rebuild import rebuild
from chancy_metrics.plugin.rebuilds.rollout import Rollout, RolloutPlan
from chancy_metrics.plugin.rebuilds.swap import swap, undo
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.rules.rule_set import RuleSet
from chancy_metrics.projections.versions.replay import replay, stored
from tests import rules
from tests.factories import LogWriter, a_row, an_app, damage, fetch, now_us, sequence_all, sequence_and_fold


class Code:
    """A deployment of the app: what its workers do when they look at the rules."""

    def __init__(self, chancy: Any, metrics: Metrics) -> None:
        self.chancy = chancy
        self.metrics = metrics

    async def look(self, *, standstill_s: float = 600) -> RolloutPlan:
        found = Rollout(self.chancy, "worker", self.metrics.options, self.chancy.log, standstill_s=standstill_s)
        return await found.run_once()

    async def fold(self) -> str:
        return (await fold_all(self.chancy, rules=self.metrics.options.rules)).reason


@asynccontextmanager
async def code(dsn: str, *made_by: Callable[..., Any], version: int = 0, **options: Any) -> AsyncIterator[Code]:
    async with an_app(dsn, Metrics(rules=made_by, rules_version=version, **options)) as (chancy, metrics):
        yield Code(chancy, metrics)


async def live(connection: Connection, tables: Tables) -> tuple[int, str]:
    """Number and rules of the live version."""
    query = "SELECT version, rules || '.' || user_rules FROM {versions} WHERE status = 'live'"
    [(version, pair)] = await fetch(connection, query, tables)
    return version, pair


async def counted(connection: Connection, tables: Tables, key: str) -> int:
    query = (
        "SELECT coalesce(sum(count), 0)::bigint FROM {r1day} r JOIN {series} s ON s.id = r.series"
        " WHERE key = %(key)s AND version = (SELECT live FROM {head})"
    )
    return int((await fetch(connection, query, tables, key=key))[0][0])


async def some_jobs(connection: Connection, tables: Tables, how_many: int = 3, **changes: Any) -> None:
    await LogWriter(connection, tables).append(jobs=[a_row(now_us(), **changes)] * how_many)


async def test_a_metric_invented_today_stands_over_the_jobs_of_yesterday(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await some_jobs(connection, tables)
    await sequence_and_fold(connection, tables)

    async with code(dsn, rules.first, version=1) as new:
        done = await new.look()
        again = await new.look()

    assert (done.cause, again) == ("newer", RolloutPlan())
    assert await live(connection, tables) == (2, "3.1")
    assert await counted(connection, tables, "made:by:first") == 3
    assert await counted(connection, tables, "global:status:succeeded") == 3
    assert diff(await stored(connection, tables), await replay(connection, tables, new.metrics.options.rules)) == []


async def test_old_and_new_code_side_by_side_never_swap_back_and_forth(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with code(dsn, rules.first, version=1) as old, code(dsn, rules.second, version=2) as new:
        await old.look()
        seen = []
        for _ in range(4):
            await some_jobs(connection, tables)
            await old.fold()
            await new.fold()
            await new.look()
            seen.append(await live(connection, tables))
            await old.look()
            seen.append(await live(connection, tables))

    assert seen == [(3, "3.2")] * 8
    assert await counted(connection, tables, "made:by:second") == 12
    assert await counted(connection, tables, "made:by:first") == 0


async def test_code_with_lower_rules_or_none_appends_and_reads_and_leaves_folding_alone(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with code(dsn, rules.first, version=2) as new, code(dsn) as script:
        await new.look()
        async with script.metrics.recording(script.chancy):
            await script.metrics.increment_counter("app:n", 4)
        refused = await script.fold()
        plan = await script.look()
        await new.fold()

        read = await script.metrics.get_metrics(script.chancy, "app:n")

    assert refused == "version 2 has rules 3.2, this code has 3.0"
    assert plan.cause is None and "leaves folding to newer code" in plan.reason
    assert [value for _, value in read["app:n"].values_1day] == [4]


async def test_undo_bars_the_rules_it_left_until_somebody_asks_for_them(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with code(dsn, rules.first, version=1) as old, code(dsn, rules.second, version=2) as new:
        await old.look()
        await new.look()
        await some_jobs(connection, tables)
        await new.fold()

        assert await undo(old.chancy) == 2
        blocked_rules = await new.look()
        assert await live(connection, tables) == (2, "3.1")
        assert await counted(connection, tables, "made:by:first") == 3

        await swap(new.chancy, 3)

    assert blocked_rules.cause is None and "an undo has blocked" in blocked_rules.reason
    assert await live(connection, tables) == (3, "3.2")
    assert await fetch(connection, "SELECT blocked_rules FROM {head}", tables) == [([],)]


async def test_undo_by_code_without_the_old_rules_is_refused(dsn: str, connection: Connection, tables: Tables) -> None:
    async with code(dsn, rules.first, version=1) as new:
        await new.look()
        with pytest.raises(Exception, match=r"has rules 3.0, this code has 3.1; run the same command with the code"):
            await undo(new.chancy)


async def test_after_a_deploy_is_rolled_back_the_old_version_is_taken_again(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with code(dsn, rules.first, version=1) as old, code(dsn, rules.second, version=2) as new:
        await old.look()
        await new.look()
        await some_jobs(connection, tables)
        await sequence_all(connection, tables)

        waits = await old.look(standstill_s=600)
        assert await live(connection, tables) == (3, "3.2")
        takes = await old.look(standstill_s=0)
        await old.fold()

        assert waits.cause is None
        assert (takes.cause, takes.version) == ("standstill", 2)
        assert await live(connection, tables) == (2, "3.1")
        assert await counted(connection, tables, "made:by:first") == 3

        await new.look()  # deployed again: the version on standby is promoted again
        assert await live(connection, tables) == (3, "3.2")
        await new.fold()
        assert await counted(connection, tables, "made:by:second") == 3


async def test_where_no_version_of_its_rules_is_kept_a_standstill_is_ended_by_backfilling_one(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with code(dsn, rules.first, version=5) as gone, code(dsn, rules.second, version=1) as left:
        await gone.look()
        await some_jobs(connection, tables)
        await sequence_all(connection, tables)

        takes = await left.look(standstill_s=0)
        await left.fold()

    assert takes.cause == "standstill"
    assert await live(connection, tables) == (3, "3.1")
    assert await counted(connection, tables, "made:by:second") == 3


async def test_equal_numbers_with_other_rules_are_refused_with_a_sentence(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with code(dsn, rules.first, version=1) as one, code(dsn, rules.second, version=1) as other:
        await one.look()
        plan = await other.look(standstill_s=0)
        refused = await other.fold()

    assert plan.cause is None
    assert plan.reason == refused
    assert "made by rules 3.1 named first, this code's 3.1 are named second: raise rules_version" in refused


async def test_durations_that_rules_1_made_of_a_clock_that_is_ahead_are_made_again(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await fetch(connection, "UPDATE {versions} SET rules = 1", tables)
    started_us = now_us() - 50_000
    ahead = a_row(started_us + 8 * 3_600_000_000, started_us=started_us, created_us=started_us, scheduled_us=started_us)
    await LogWriter(connection, tables).append(jobs=[ahead])
    await sequence_and_fold(connection, tables, RuleSet(built_in=1))

    async with code(dsn) as new:
        done = await new.look()
        answer = await new.metrics.get_metrics(new.chancy, "queue:default:execution_time", resolution="1day")
        facts = await completeness(new.chancy)

    assert (done.cause, await live(connection, tables)) == ("newer", (2, "3.0"))
    assert 0 < answer["series"]["queue:default:execution_time"].summary["max"] < 600
    assert facts.skewed == 1


async def test_a_live_version_of_older_code_is_replaced_by_one_with_total_times_since_the_log_began(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    for ago_us in (3_600_000_000, 0):
        at_us = now_us() - ago_us
        pushed = {"created_us": at_us - 9_000_000, "scheduled_us": at_us - 7_000_000}
        await LogWriter(connection, tables).append(jobs=[a_row(at_us, started_us=at_us, **pushed)])
    await sequence_and_fold(connection, tables)
    # As rules 2 have left it.
    await fetch(connection, "UPDATE {versions} SET rules = 2", tables)
    newer = "series IN (SELECT id FROM {series} WHERE key ~ ':(total_time|attempts)$')"
    for resolution in RESOLUTIONS:
        await fetch(connection, f'DELETE FROM "chancy_metrics_{resolution}" WHERE {newer}', tables)

    async with code(dsn) as new:
        older = await new.metrics.get_metrics(new.chancy, "job:app.work", resolution="1day")
        done = await new.look()
        await new.metrics.flush(new.chancy)
        answer = await new.metrics.get_metrics(new.chancy, "job:app.work", resolution="1day", limit=2)

    assert not {"job:app.work:total_time", "job:app.work:attempts"} & {*older["series"]}
    assert (done.cause, await live(connection, tables)) == ("newer", (2, "3.0"))
    total, attempts = (answer["series"][f"job:app.work:{name}"].summary for name in ("total_time", "attempts"))
    assert (total["count"], total["sum"], attempts["count"], attempts["sum"]) == (2, 14.0, 2, 2.0)
    assert diff(await stored(connection, tables), await replay(connection, tables, new.metrics.options.rules)) == []


async def test_without_auto_rebuild_it_only_says_that_a_rebuild_is_due(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with code(dsn, rules.first, version=1, auto_rebuild=False) as new:
        plan = await new.look()
        assert await live(connection, tables) == (1, "3.0")
        await rebuild(new.chancy)

    assert plan.cause is None and "a rebuild is due" in plan.reason
    assert await live(connection, tables) == (2, "3.1")


async def test_newer_rules_that_fail_do_not_take_over_by_themselves(
    dsn: str, connection: Connection, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    await some_jobs(connection, tables)
    await some_jobs(connection, tables, state="failed")
    await sequence_and_fold(connection, tables)

    async with code(dsn, rules.picky, version=1) as new:
        await new.look()
        logged = [record for record in caplog.records if "picky" in record.getMessage()]
        again = await new.look()
        withheld = await read_status(new.chancy)
        before = await live(connection, tables), await counted(connection, tables, "global:status:failed")
        listed = await list_versions(new.chancy)

        assert await swap(new.chancy) == 2
        taken = await read_status(new.chancy)

    assert before == ((1, "3.0"), 3)
    says = "what rule 'picky' makes of 1 batch (position 2: LookupError: no failed jobs, please)"
    assert [record.levelname for record in logged] == ["ERROR"] and says in logged[0].getMessage()
    assert again.cause is None and says in again.reason and "`chancy-metrics swap 2`" in again.reason
    assert withheld.withheld == [again.reason] and again.reason in withheld.unhealthy
    assert not any("could not be folded" in reason or "damage" in reason for reason in withheld.unhealthy)
    assert [one.leaves_out for one in listed] == ["", f"version 2 leaves out {says}"]

    assert await counted(connection, tables, "made:by:picky") == 3
    assert await counted(connection, tables, "global:status:failed") == 3
    letters = await fetch(connection, "SELECT version, rule, error FROM {dead_letters}", tables)
    assert letters == [(2, "picky", "LookupError: no failed jobs, please")]
    assert taken.withheld == [] and any("rule 'picky' failed on 1 batch" in reason for reason in taken.unhealthy)
    assert diff(await stored(connection, tables), await replay(connection, tables, new.metrics.options.rules)) == []


async def test_newer_rules_do_not_take_over_without_a_batch_that_the_live_version_has(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await some_jobs(connection, tables)
    await sequence_and_fold(connection, tables)
    await damage(connection, tables, "UPDATE {log} SET payload = 'x' WHERE events > 0")

    async with code(dsn, rules.first, version=1) as new:
        await new.look()
        plan = await new.look()

    assert (await live(connection, tables), await counted(connection, tables, "global:status:succeeded")) == (
        (1, "3.0"),
        3,
    )
    assert plan.reason.startswith("version 2 leaves out 1 batch of 3 events (position 1: the payload does not match")


async def test_a_version_that_was_withheld_is_made_anew_by_a_rebuild_and_by_mended_rules(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    def mended(jobs: Any) -> Any:
        return rules.first(jobs)

    await some_jobs(connection, tables, state="failed")
    await sequence_and_fold(connection, tables)
    async with code(dsn, rules.picky, version=1) as broken:
        await broken.look()
    mended.__name__ = "picky"
    async with code(dsn, mended, version=1) as same_number:
        assert (await same_number.look()).cause is None
        made = await rebuild(same_number.chancy)
    async with code(dsn, rules.picky, version=2) as broken, code(dsn, rules.first, version=3) as new:
        await broken.look()
        assert (await live(connection, tables))[1] == "3.1"
        await new.look()

    assert (made.version, made.leaves_out) == (3, "")
    assert (await live(connection, tables))[1] == "3.3"


async def test_metrics_do_not_stand_still_for_a_rule_that_fails(
    dsn: str, connection: Connection, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    await some_jobs(connection, tables, state="failed")
    await sequence_and_fold(connection, tables)
    await some_jobs(connection, tables, state="failed")
    await sequence_all(connection, tables)
    async with code(dsn, rules.picky, version=1) as left:
        await left.look(standstill_s=0)

    assert (await live(connection, tables))[1] == "3.1"
    assert any(one.levelname == "ERROR" and "did not leave out" in one.getMessage() for one in caplog.records)
