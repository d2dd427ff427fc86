"""What is read of one worker within a window of time is what all of its points say there."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.plugin.reading.columns import since
from chancy_metrics.plugin.reading.load import read_directly
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.grid import BucketRange
from chancy_metrics.projections.versions.compact import compact
from chancy_metrics.projections.versions.expiry import expire
from tests.factories import LogWriter, a_run, fetch, sequence_and_fold

FIRST_S = int(datetime(2026, 3, 10, tzinfo=UTC).timestamp())
POINTS = {"1min": 120, "5min": 144, "1hour": 48, "1day": 6}
HOURS = 30


async def read(connection: Connection, tables: Tables, within: BucketRange | None = None) -> dict[int, dict[str, Any]]:
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        return (await read_directly(cursor, tables, "w", None, within=within))[1]


async def fold_hours(connection: Connection, tables: Tables) -> dict[str, int]:
    """Fold a batch every half an hour, compact half-way, and let what has passed its horizon expire."""
    writer = LogWriter(connection, tables, "w")
    kept = horizons((FIRST_S + HOURS * 3_600) * 1_000_000, POINTS, 90 * 86_400)
    for number in range(2 * HOURS):
        at_us = (FIRST_S + number * 1_800) * 1_000_000
        runs = [
            a_run("app:n", [number], at_us=at_us),
            a_run("app:took", [0.5, number], kind="histogram", unit="seconds", at_us=at_us),
        ]
        await writer.append(runs=runs)
        await sequence_and_fold(connection, tables)
        if number == HOURS:
            await compact(connection, tables, kept)
    await expire(connection, tables, kept)
    return kept


async def test_a_window_holds_what_all_points_say_there(connection: Connection, tables: Tables) -> None:
    await fold_hours(connection, tables)
    everything = await read(connection, tables)

    for name, hours, length in product(RESOLUTIONS, (0, 6, 24, 29), (1, 24)):
        width = RESOLUTIONS[name]
        first_s = (FIRST_S + hours * 3_600) // width * width
        within = BucketRange(name, first_s, first_s + max(width, length * 3_600))

        found = await read(connection, tables, within)

        wanted = {
            number: {name: cut.tolist()}
            for number, levels in everything.items()
            if name in levels and len(cut := since(levels[name], within.first_s, within.end_s))
        }
        assert {number: {of: rows.tolist() for of, rows in one.items()} for number, one in found.items()} == wanted
    assert len(everything) == 2


@pytest.mark.parametrize(("name", "is_read"), [("1min", True), ("5min", True), ("1hour", False), ("1day", False)])
async def test_a_window_reads_no_segment_of_a_coarser_resolution(
    connection: Connection, tables: Tables, name: str, is_read: bool
) -> None:
    kept = await fold_hours(connection, tables)
    await compact(connection, tables, kept)
    within = BucketRange("5min", FIRST_S + (HOURS - 4) * 3_600, FIRST_S + HOURS * 3_600)
    before = await read(connection, tables, within)

    query = f"UPDATE {{worker_segments}} SET data = '\\x00' WHERE resolution = {RESOLUTIONS[name]}"
    await fetch(connection, query, tables)

    after = await read(connection, tables, within)
    same = {number: one["5min"].tolist() for number, one in after.items()} == {
        number: one["5min"].tolist() for number, one in before.items()
    }
    assert same is not is_read
