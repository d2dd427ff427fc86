"""Measure folding the mix of a thousand producers (`bench.producers`), and what an update costs on disk and in WAL.

The same updates are folded in steps of several sizes: the larger a step, the more updates share a changed row. Then
the workers' segments are compacted, as the leader does.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping, Sequence
from uuid import uuid4

from psycopg import sql

from chancy_metrics.events.batch import EncodedBatch
from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import RESOLUTIONS, tables_for
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.compact import compact

from .database import Databases, ask, connections, sequence_all
from .facts import moved
from .harness import Row, Size, Target, check
from .load import SIZES, LoadProducer, encoded_batches

_TABLES = tables_for("chancy_")
_STEPS = (2_800, 10_000, 20_000)
_WORKERS = 1_000
#: Over how many seconds the updates came.
_SECONDS = 30
_WAL = Target("ours", "<=", 600, "<= 600 B")
_DISK = Target("ours", "<=", 300, "<= 300 B")


async def run(pool: Databases, size: Size) -> list[Row]:
    rows: list[Row] = []
    encoded = encoded_batches()
    for step in _STEPS:
        with pool.database() as dsn:
            async with connections(dsn, 1, prepared=False) as (connection,):
                updates = await _append(connection, encoded, size.of(100_000, 3_000))
                rows += await _fold(connection, updates, size.of(step, 1_000))
    return rows


async def _fold(connection: Connection, updates: int, step: int) -> list[Row]:
    await sequence_all(connection, _TABLES)
    await connection.execute("CHECKPOINT")
    before = await ask(connection, "SELECT pg_current_wal_lsn()::text")
    rates: list[float] = []
    folded = 0
    while folded < updates:
        started = time.perf_counter()
        done = await advance(connection, _TABLES, folded_by="bench", step_events=step)
        rates.append(done.events / (time.perf_counter() - started))
        folded += done.events
    check("updates folded", folded, updates)
    wal = await ask(connection, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), %(at)s)::bigint", at=before)
    disk = await _disk(connection)
    await compact(connection, _TABLES, dict.fromkeys(RESOLUTIONS, 0))
    compacting = await ask(connection, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), %(at)s)::bigint", at=before) - wal
    of = f"in steps of {step:,} updates of {_WORKERS:,} producers"
    return [
        Row("mix", f"advance() {of}", statistics.median(rates), "updates/s", "median"),
        Row("mix", f"WAL an update {of}", wal / folded, "B", "median", target=_WAL),
        Row("mix", "of compacting that, on top", compacting / folded, "B", "median"),
        Row("mix", f"rollups and segments on disk an update, {of}", disk / folded, "B", "median", target=_DISK),
    ]


async def _append(connection: Connection, encoded: Mapping[int, Sequence[EncodedBatch]], updates: int) -> int:
    """Append about so many updates, as they come within `_SECONDS`; return how many."""
    chance = random.Random(1)
    producers = [LoadProducer(uuid4(), f"producer-{number}") for number in range(_WORKERS)]
    sequences = dict.fromkeys(producers, 0)
    began_us = time.time_ns() // 1_000 - _SECONDS * 1_000_000
    appended = 0
    while appended < updates:
        producer = chance.choice(producers)
        (size,) = chance.choices(list(SIZES), list(SIZES.values()))
        at_us = began_us + appended * _SECONDS * 1_000_000 // updates
        sequences[producer] += 1
        batch = moved(chance.choice(encoded[size]), chance.randbytes(16 * size), at_us)
        await producer.append(connection, sequences[producer], batch)
        appended += size
    return appended


async def _disk(connection: Connection) -> int:
    tables = [*map(_TABLES.rollup, RESOLUTIONS), _TABLES.worker_segments]
    size = sql.SQL(" + ").join(
        sql.SQL("pg_total_relation_size({})").format(sql.Literal(table.as_string(connection))) for table in tables
    )
    return int(await ask(connection, sql.SQL("SELECT {}").format(size).as_string(connection)))
