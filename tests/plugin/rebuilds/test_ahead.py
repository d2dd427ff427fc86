"""Ranges of the ledger that are folded here, each while the next one is read."""

from __future__ import annotations

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.parallel.fold_task import Folded
from chancy_metrics.plugin.rebuilds.ahead import FoldHere
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.versions.version import live_version
from tests.factories import LogWriter, a_row, sequence_all


async def test_ranges_follow_on_each_other_wherever_they_begin(connection: Connection, tables: Tables) -> None:
    writer = LogWriter(connection, tables)
    for events in (1, 2, 3, 4):
        await writer.append(jobs=[a_row() for _ in range(events)])
    await sequence_all(connection, tables)
    async with short_transaction(connection) as cursor:
        live = await live_version(cursor, tables)
    assert live is not None
    folder = FoldHere(tables, BUILT_IN)

    async def fold_next(after: int, until: int = 4) -> Folded | None:
        return await folder.fold_next(connection, live, set(), after, until, 2)

    found = [await fold_next(after) for after in (0, 1, 2, 0, 1, 3, 4, 0)]

    assert [one and (one.position, one.fold.events) for one in found] == [
        *((1, 1), (2, 2), (3, 3)),
        *((1, 1), (2, 2), (4, 4), None, (1, 1)),
    ]
    # Nothing past the end of one call hides what came since.
    assert await fold_next(4) is None
    await writer.append(jobs=[a_row()])
    await sequence_all(connection, tables)
    assert (after := await fold_next(4, until=5)) is not None and after.position == 5
