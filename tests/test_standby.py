"""A hot standby answers: what only reads runs there, and says what can't be known or kept there."""

from __future__ import annotations

import psycopg

from chancy_metrics.events.schema import Tables
from tests.factories import LogWriter, a_run, an_app, connections, now_us, order_and_fold
from tests.standby import Standby


async def test_the_metrics_are_there(dsn: str, names: Tables, standby: Standby) -> None:
    async with connections(dsn, 1) as (connection,):
        await LogWriter(connection, names).append(runs=[a_run("app:n", at_us=now_us())])
        await order_and_fold(connection, names)
    await standby.arrived()
    there = standby.dsn(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"])
    async with an_app(there) as (chancy, metrics):
        assert (await metrics.get_metrics(chancy))["app:n"]
