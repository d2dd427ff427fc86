"""Run the migrations, one process at a time, and create the log's first partitions."""

from __future__ import annotations

from chancy import Chancy
from chancy.migrate import Migrator

from chancy_metrics.events.database import short_transaction
from chancy_metrics.events.partitions import DAYS_AHEAD, make_days
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.host.connection import DatabaseClock, own_connection

#: Milliseconds a migration may pause between two statements.
_STEP_MS = 60_000


async def migrate(chancy: Chancy, migrator: Migrator, clock: DatabaseClock, *, to_version: int | None) -> None:
    """Migrate under an advisory lock, so that concurrent calls run one after the other."""
    tables = tables_for(chancy.prefix)
    async with own_connection(chancy) as connection:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            chancy.log.warning(
                f"metrics: this database is encoded in {encoding}, which can't hold every key: a batch with one it "
                "can't hold is recorded and left out of the numbers, which `status` counts. UTF8 holds every key"
            )
        async with short_transaction(connection, idle_timeout_ms=_STEP_MS) as cursor:
            await cursor.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended(%(key)s, 0))", {"key": f"{chancy.prefix}{migrator.key}"}
            )
            await migrator.migrate(connection, to_version=to_version)
        now = await connection.execute(
            "SELECT clock_timestamp(), to_regclass(%(log)s) IS NOT NULL",
            {"log": tables.log.as_string(connection)},
            binary=True,
        )
        row = await now.fetchone()
        if row is not None and row[1]:
            clock.see(row[0])
            await make_days(connection, tables, today=clock.today(), ahead=DAYS_AHEAD)
