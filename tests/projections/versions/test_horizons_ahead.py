"""What a horizon ahead hides is named, looked for by the settings, and folded again without a rebuild."""

from __future__ import annotations

import pytest

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.health.status_reader import read_status
from chancy_metrics.plugin.health.verify import verify
from chancy_metrics.plugin.worker.maintenance import Maintenance, mend_horizons
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.versions.horizons_ahead import ahead_of
from chancy_metrics.projections.versions.replay import replay, stored
from tests.factories import LogWriter, a_row, a_run, an_app, fetch, now_us, sequence_and_fold, total

DAY_US = 86_400_000_000
IN_2255 = 9_000_000_000


def test_a_setting_that_was_raised_is_no_clock_ahead() -> None:
    now = now_us()
    kept = horizons(now, {"1min": 60, "5min": 288, "1hour": 168, "1day": 90}, 90 * 86_400)
    later = horizons(now + DAY_US, {"1min": 60, "5min": 288, "1hour": 168, "1day": 90}, 90 * 86_400)
    shorter = horizons(now, {"1min": 60, "5min": 100, "1hour": 24, "1day": 30}, 90 * 86_400)

    assert ahead_of(kept, kept, now // 1_000_000) == {}
    assert ahead_of(shorter, kept, now // 1_000_000) == {}
    assert ahead_of(dict.fromkeys(RESOLUTIONS, 0), kept, now // 1_000_000) == {}
    assert ahead_of(later, kept, now // 1_000_000).keys() >= {"1min", "5min", "1hour"}
    assert ahead_of(kept | {"1day": IN_2255}, kept, now // 1_000_000) == {"1day": kept["1day"]}


async def test_a_clean_up_goes_by_no_clock_ahead_of_the_database(connection: Connection, tables: Tables) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n", at_us=now_us() - 1_000_000)])
    await sequence_and_fold(connection, tables)

    await Maintenance(Metrics().options).clean(connection, tables, now_us=now_us() + DAY_US)
    await LogWriter(connection, tables).append(runs=[a_run("app:n", at_us=now_us() - 1_000_000)])
    await sequence_and_fold(connection, tables)

    assert await total(connection, tables, "app:n") == [2] * 4


async def raise_all(connection: Connection, tables: Tables, at_s: int) -> None:
    await fetch(
        connection,
        "UPDATE {versions} SET horizon_1min = %(at)s, horizon_5min = %(at)s, horizon_1hour = %(at)s,"
        " horizon_1day = %(at)s WHERE version = 1",
        tables,
        at=at_s,
    )


@pytest.mark.parametrize("by", ["clean-up", "command"])
async def test_what_was_hidden_is_found_and_folded_again(
    by: str, dsn: str, connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    at = now_us() - 1_000_000
    gauge = a_run("app:g", [4.0], kind="gauge", unit="number", at_us=at)
    await writer.append(runs=[a_run("app:n", at_us=at), gauge], jobs=[a_row(at)])
    await sequence_and_fold(connection, tables)
    async with an_app(dsn) as (chancy, metrics):
        await metrics.get_metrics(chancy)
        await raise_all(connection, tables, IN_2255)
        await writer.append(runs=[a_run("app:n", at_us=at)])
        await sequence_and_fold(connection, tables)  # which leaves it out
        await metrics.readers.refresh(chancy)
        hidden = await metrics.get_metrics(chancy, "app:n")
        status = await read_status(chancy)
        found = await verify(chancy)
        if by == "command":
            told = await mend_horizons(chancy, metrics.options)
        else:
            await Maintenance(metrics.options).clean(connection, tables)
        await metrics.readers.refresh(chancy)
        shown = await metrics.get_metrics(chancy, "app:n")
        right = await verify(chancy)
        mended = await read_status(chancy)

    assert not hidden
    assert any("version 1 hides 1min before 2255-03-14 16:00 UTC" in one for one in status.unhealthy), status.unhealthy
    assert found.findings[0].check == "horizons"
    assert found.different and found.points
    if by == "command":
        assert told[0].endswith("points of version 1 that a horizon ahead hid are folded again")
    assert await total(connection, tables, "app:n") == [2] * 4
    assert diff(await stored(connection, tables), await replay(connection, tables)) == []
    assert shown["app:n"].values_1day[0][1] == 2
    assert (right.drift, mended.unhealthy) == (0, [])
