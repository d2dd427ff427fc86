"""Readers that poll through swaps, undos, a crash and a restore see one version entire, and never an older one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from chancy import Chancy

from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.rebuilds.rebuild import rebuild
from chancy_metrics.plugin.rebuilds.swap import swap, undo
from chancy_metrics.projections.rules.rule_set import RuleSet
from tests import rules
from tests.factories import an_app, eventually
from tests.faults.history import Load, live_load
from tests.faults.own_server import a_database, crash, dump, own_server, restore
from tests.faults.polling import Sightings, polled_cache, polled_http
from tests.processes import web

FIRST, SECOND = "made:by:first", "made:by:second"
OLD, NEW = 2, 3


class Code(NamedTuple):
    """An app with a user's rules."""

    chancy: Chancy
    rules: RuleSet


@asynccontextmanager
async def two_versions(dsn: str, tables: Tables) -> AsyncIterator[tuple[Code, Code, Load]]:
    """Two deployments with a version each, both of which fold under load; the newer one's version is live."""
    async with (
        an_app(dsn, Metrics(rules=[rules.first], rules_version=1)) as (old, one),
        an_app(dsn, Metrics(rules=[rules.second], rules_version=2)) as (new, other),
        live_load(dsn, tables, rules=[one.options.rules, other.options.rules]) as load,
    ):
        assert [(await rebuild(app)).version for app in (old, new)] == [OLD, NEW]
        yield Code(old, one.options.rules), Code(new, other.options.rules), load


async def see(key: str, *readers: Sightings) -> None:
    """Wait until each reader sees *key*, and more under it than now."""
    before = [reader.total for reader in readers]

    async def seen() -> bool:
        return all(reader.key == key and reader.total > total for reader, total in zip(readers, before, strict=True))

    await eventually(seen)


def assert_never_torn(reader: Sightings) -> None:
    assert reader.wrong() == []
    assert reader.answers > 20


async def test_readers_see_swap_and_undo_at_once_and_entirely(dsn: str, tables: Tables) -> None:
    async with two_versions(dsn, tables) as (old, new, _):
        with web(dsn) as url:
            async with polled_cache(dsn) as cache, polled_http(url) as http:
                await see(SECOND, cache, http)
                for turn in range(6):
                    assert await undo(old.chancy) == OLD
                    if turn % 2:  # else back at once, whether anybody has seen it or not
                        await see(FIRST, cache, http)
                    assert await swap(new.chancy, NEW) == NEW
                    await see(SECOND, cache, http)

    for reader in (cache, http):
        assert_never_torn(reader)
        assert reader.falls() == []
        assert {key for one in reader.all for key in one.made} == {FIRST, SECOND}
        assert {one.status for one in reader.all} == {200}


async def test_readers_see_no_older_version_after_a_crash_and_exactly_the_restored_one_after_a_restore(
    tables: Tables,
) -> None:
    with own_server() as server:
        dsn = await a_database(server, "read")
        async with two_versions(dsn, tables) as (old, new, _):
            with web(dsn) as url:
                async with polled_cache(dsn) as cache, polled_http(url) as http:
                    await see(SECOND, cache, http)
                    crash(server)
                    await see(SECOND, cache, http)
                    dumped = dump(server, "read")
                    await undo(old.chancy)
                    await see(FIRST, cache, http)
                    for reader in (cache, http):
                        assert_never_torn(reader)
                        assert reader.falls() == []

                    restore(server, "read", dumped)
                    for reader in (cache, http):
                        reader.all.clear()
                    await see(SECOND, cache, http)
                    assert await undo(old.chancy) == OLD
                    await see(FIRST, cache, http)
                    assert await swap(new.chancy, NEW) == NEW
                    await see(SECOND, cache, http)

        for reader in (cache, http):
            assert_never_torn(reader)
            assert len(reader.falls()) <= 1  # to what was restored, and on from there
