"""A database that went back in time lacks what came after, jobs and their updates alike; holes show it."""

from __future__ import annotations

import logging

from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.health.completeness import completeness
from chancy_metrics.plugin.health.status_reader import read_status
from chancy_metrics.plugin.host.connection import DatabaseClock
from chancy_metrics.plugin.recording.buffer import Buffer
from chancy_metrics.plugin.recording.recorder import Recorder
from tests.factories import an_app, connections, sequence_and_fold
from tests.faults.own_server import a_database, dump, own_server, restore


async def test_what_a_restore_has_undone_is_a_hole_of_each_producer_that_goes_on(tables: Tables) -> None:
    recorder = Recorder("web-0", Buffer(1_000), DatabaseClock(), logging.getLogger("web-0"))
    with own_server() as server:
        dsn = await a_database(server, "app")
        async with an_app(dsn) as (chancy, _):
            await recorder.open(chancy)
            dumped = dump(server, "app")
            recorder.buffer.record("counter", "app:undone", 1, None)
            assert await recorder.append(chancy)
        restore(server, "app", dumped)
        async with an_app(dsn) as (chancy, _), connections(dsn, 1) as (connection,):
            recorder.buffer.record("counter", "app:after", 1, None)
            assert await recorder.append(chancy)
            await sequence_and_fold(connection, tables)
            found, status = await completeness(chancy), await read_status(chancy)

    assert found.holes == 1
    assert [reason for reason in status.unhealthy if "missing from the sequences of producers" in reason]
