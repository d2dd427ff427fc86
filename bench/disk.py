"""Measure bytes on disk per job update, by batch size: log, pending, ledger and their indexes, with the batch's id."""

from __future__ import annotations

import time

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import tables_for
from chancy_metrics.projections.search.indexing import summarise

from .database import Databases, Producer, ask, connections, sequence_all
from .facts import batches_of, job_rows
from .harness import Row, Size, Target, check

_TABLES = ("metrics_log", "metrics_pending", "metrics_ledger", "metrics_producers", "metrics_head", "metrics_summaries")


async def run(pool: Databases, size: Size) -> list[Row]:
    rows = []
    for batch_size, batches, limit in (
        (1, size.of(20_000, 200), None),
        (20, size.of(10_000, 100), 80),
        (50, size.of(4_000, 50), None),
        (1_000, size.of(400, 10), 40),
    ):
        events = batch_size * batches
        encoded = batches_of(job_rows(events, until_us=time.time_ns() // 1_000, per_second=1_000), batch_size)
        with pool.database() as dsn:
            async with connections(dsn, 1, prepared=False) as (connection,):
                tables = tables_for("chancy_")
                before = await _bytes(connection)
                producer = Producer(connection)
                # Sequenced as it comes, as live: what was pending is vacuumed now and then and used again.
                chunk = max(1, batches // 10)
                for start in range(0, batches, chunk):
                    await producer.append(encoded[start : start + chunk])
                    await sequence_all(connection, tables)
                    await connection.execute("VACUUM chancy_metrics_pending, chancy_metrics_producers")
                while await summarise(connection, tables):
                    pass
                check("batches sequenced", await ask(connection, "SELECT count(*) FROM chancy_metrics_ledger"), batches)
                check("events", await ask(connection, "SELECT sum(events) FROM chancy_metrics_log"), events)
                grown = await _bytes(connection) - before
        target = None if limit is None else Target("ours", "<=", limit, f"<= {limit} B")
        payload = sum(len(batch.payload) for batch in encoded) / events
        work = f"job update on disk, batches of {batch_size:,} (payload alone: {payload:.0f} B)"
        rows.append(Row("disk", work, grown / events, "B", "min", target=target))
    return rows


async def _bytes(connection: Connection) -> int:
    total = 0
    for table in _TABLES:
        # A partitioned table itself has no bytes, another one no tree.
        size = """
            SELECT pg_total_relation_size(%(table)s::regclass)
                + coalesce((SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree(%(table)s::regclass)), 0)
        """
        total += int(await ask(connection, size, table=f"chancy_{table}"))
    return total
