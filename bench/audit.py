"""Measure the audit on ten million job updates: find a job, summarise, list, write Parquet, follow, explain a point.

The first four are measured against decoding the same batches; following, by how soon it sees a sequenced event.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from uuid import UUID, uuid4

from chancy import Chancy
from psycopg import sql

from chancy_metrics.events.batch import EncodedBatch, LogBatch
from chancy_metrics.events.codec import decode, encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.partitions import attached_days
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.audit.events import events, job_life, pages
from chancy_metrics.plugin.audit.explain import explain
from chancy_metrics.plugin.host.escape import json_line
from chancy_metrics.plugin.transfer.json_lines import JSON_PAGE_EVENTS, json_lines
from chancy_metrics.plugin.transfer.parquet import PAGE_EVENTS, ParquetFolder
from chancy_metrics.projections.search.indexing import summarise
from chancy_metrics.projections.search.query import EventQuery
from chancy_metrics.projections.versions.advance import advance

from .database import Databases, Producer, an_app, ask, connections, sequence_all
from .facts import batches_of, job_rows, log_batches
from .harness import Row, Size, Target, Turn, by_turns, check, middle, percentile

_BATCH = 1_000
#: Batches that are really encoded; the others are these with other job ids.
_DISTINCT = 200
_PER_SECOND = 120


async def run(pool: Databases, size: Size) -> list[Row]:
    rows = []
    with pool.database() as dsn:
        async with connections(dsn, 1, prepared=False) as (connection,), an_app(dsn, Metrics()) as chancy:
            rows += await _one_job(connection, chancy, size)
    with pool.database() as dsn:
        async with connections(dsn, 1, prepared=False) as (connection,), an_app(dsn, Metrics()) as chancy:
            rows += await _all_events(connection, chancy, size)
            rows += await _followed(connection, chancy, size)
    with pool.database() as dsn:
        async with connections(dsn, 1, prepared=False) as (connection,), an_app(dsn, Metrics()) as chancy:
            rows += await _explained(connection, chancy, size)
    return rows


async def _one_job(connection: Connection, chancy: Chancy, size: Size) -> list[Row]:
    tables = tables_for("chancy_")
    batches = size.of(10_000, 30)
    encoded = batches_of(job_rows(min(batches, _DISTINCT) * _BATCH, until_us=_now_us(), per_second=_PER_SECOND), _BATCH)
    ids = await _fill(connection, tables, encoded, batches)
    check("batches sequenced", await sequence_all(connection, tables), batches)
    await connection.execute("ANALYZE")
    without = await _found(chancy, ids[0])
    started = time.perf_counter()
    made = 0
    while some := await summarise(connection, tables):
        made += some
    took = time.perf_counter() - started
    check("ranges", made, batches // 10)
    found = [await _found(chancy, job_id) for job_id in ids]
    nothing = [await _found(chancy, uuid4(), updates=0) for _ in ids]
    count = batches * _BATCH
    work = f"audit job, one of {count:,} job updates"
    return [
        Row("audit", work, percentile(found, 0.5), "s", "median", without, "without summaries: decoding all"),
        Row("audit", work, percentile(found, 0.99), "s", "p99", target=Target("ours", "<=", 0.5, "<= 0.5 s")),
        Row("audit", "audit job, an id that is not there", percentile(nothing, 0.99), "s", "p99"),
        Row("audit", "summarise, read and written", count / took, "events/s", "min"),
        Row("audit", "summaries on disk, a job update", await _summary_bytes(connection) / count, "B", "min"),
    ]


async def _found(chancy: Chancy, job_id: UUID, *, updates: int = 1) -> float:
    started = time.perf_counter()
    life = await job_life(chancy, job_id)
    took = time.perf_counter() - started
    check("updates of the job", (len(life.updates), life.unreadable), (updates, []))
    return took


async def _fill(connection: Connection, tables: Tables, encoded: Sequence[EncodedBatch], count: int) -> list[UUID]:
    """Append *count* batches by COPY, each with job ids of its own; return some of the ids."""
    chance = random.Random(1)
    async with short_transaction(connection) as cursor:
        day = (await attached_days(cursor, tables))[0]
    producer, kept = uuid4(), []
    for start in range(0, count, 500):
        numbers = range(start, min(start + 500, count))
        async with connection.transaction(), connection.cursor() as cursor:
            statement = sql.SQL(
                "COPY {} (day, producer, sequence, worker, first_us, last_us, events, closes, codec, payload, sha256)"
                " FROM STDIN (FORMAT BINARY)"
            ).format(tables.log)
            async with cursor.copy(statement) as copy:
                copy.set_types(
                    ["date", "uuid", "int8", "text", "int8", "int8", "int4", "bool", "int2", "bytea", "bytea"]
                )
                for number in numbers:
                    batch = encoded[number % len(encoded)]
                    ids = chance.randbytes(16 * _BATCH)
                    payload = batch.payload.replace(_ids_of(batch), ids)
                    kept.append(UUID(bytes=ids[:16]))
                    head = (day, producer, number + 1, "bench", batch.first_us, batch.last_us, batch.events, False)
                    await copy.write_row((*head, batch.codec, payload, sha256(payload).digest()))
            await cursor.execute(
                sql.SQL(
                    "INSERT INTO {} (day, producer, sequence)"
                    " SELECT %s, %s, n FROM generate_series(%s::bigint, %s::bigint) AS n"
                ).format(tables.pending),
                (day, producer, numbers.start + 1, numbers.stop),
            )
    return kept[:: max(1, count // 100)]


def _ids_of(batch: EncodedBatch) -> bytes:
    jobs = decode(batch.codec, batch.payload, batch.sha256, batch.events).jobs
    assert jobs is not None
    return jobs.ids


async def _all_events(connection: Connection, chancy: Chancy, size: Size) -> list[Row]:
    count = size.of(300_000, 2_000)
    encoded = batches_of(job_rows(count, until_us=_now_us(), per_second=_PER_SECOND), _BATCH)
    await Producer(connection).append(encoded)
    check("batches sequenced", await sequence_all(connection, tables_for("chancy_")), len(encoded))
    in_memory = log_batches(encoded)
    walls: dict[str, list[float]] = defaultdict(list)
    works = {"json": _as_json, "parquet": _as_parquet, "objects": _as_objects}
    turns = {name: _cpu(partial(work, chancy, count), walls[name]) for name, work in works.items()}
    turns["decode"] = _cpu(partial(_decoded, in_memory), walls["decode"])
    cpu = {name: count / took for name, took in middle(await by_turns(size.of(3, 1), turns)).items()}
    wall = {name: count / took for name, took in middle({name: several[1:] for name, several in walls.items()}).items()}
    rows = []
    for name, other, against, least in (
        ("json", "objects", "events encoded one by one", 200_000),
        ("parquet", "decode", "decoding the same in memory", 1_000_000),
    ):
        work = f"audit events --{name}, {count:,} job updates"
        target = Target("ours", ">=", least, f">= {least:,}/s")
        rows += [
            Row("audit", f"{work}, CPU", cpu[name], "events/s", "median", cpu[other], against, target),
            Row("audit", f"{work}, from start to end", wall[name], "events/s", "median", wall[other], against),
        ]
    return rows


def _cpu(work: Callable[[], Awaitable[None]], walls: list[float]) -> Turn:
    """Time our CPU, of all threads; add the time from start to end to *walls*."""

    async def turn() -> float:
        started, started_cpu = time.perf_counter(), time.process_time()
        await work()
        walls.append(time.perf_counter() - started)
        return time.process_time() - started_cpu

    return turn


async def _as_objects(chancy: Chancy, count: int) -> None:
    """An object of each event, and a line of JSON of each object."""
    lines = 0
    with open(os.devnull, "w") as nowhere:  # noqa: ASYNC230 # it never waits
        async for page in pages(chancy):
            for event in page.to_events():
                nowhere.write(json_line(event) + "\n")
            lines += page.events
    check("lines", lines, count)


async def _as_json(chancy: Chancy, count: int) -> None:
    lines = 0
    with open(os.devnull, "w") as nowhere:  # noqa: ASYNC230 # it never waits
        async for page in pages(chancy, page_events=JSON_PAGE_EVENTS):
            nowhere.write(json_lines(page.found).decode())
            lines += page.events
    check("lines", lines, count)


async def _as_parquet(chancy: Chancy, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder, ParquetFolder(Path(folder), EventQuery()) as export:
        async for page in pages(chancy, page_events=PAGE_EVENTS):
            export.write(page)
        export.finish()
    check("rows", export.events, count)


async def _decoded(batches: Sequence[LogBatch]) -> None:
    for batch in batches:
        decode(batch.codec, batch.payload, batch.sha256, batch.events)


async def _followed(connection: Connection, chancy: Chancy, size: Size) -> list[Row]:
    """Time from sequencing a batch until a follower has its event."""
    tables, producer, ages = tables_for("chancy_"), Producer(connection), []
    async with aclosing(events(chancy, follow=True)) as found:
        for number in range(size.of(40, 3)):
            following = asyncio.ensure_future(anext(found))
            await asyncio.sleep(0.3 + 0.01 * (number % 25))  # at every phase of its looks
            await producer.append([encode(job_rows(1, until_us=_now_us(), per_second=1, seed=number))])
            check("batches sequenced", await sequence_all(connection, tables), 1)
            sequenced_s = time.perf_counter()
            event = await following
            ages.append(time.perf_counter() - sequenced_s)
            check("position", event.position, await ask(connection, "SELECT position FROM chancy_metrics_head"))
    work = "audit events --follow: from its position to its reader"
    return [
        Row("audit", work, percentile(ages, 0.5), "s", "median"),
        Row("audit", work, percentile(ages, 0.99), "s", "p99", target=Target("ours", "<=", 1, "<= 1 s")),
    ]


async def _explained(connection: Connection, chancy: Chancy, size: Size) -> list[Row]:
    """A bucket of an hour with all its events explained: read, folded again, told apart."""
    tables, count = tables_for("chancy_"), size.of(105_300, 1_000)  # 95 % of them succeed
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    until_us = (int(hour.timestamp()) + 3_599) * 1_000_000
    encoded = batches_of(job_rows(count, until_us=until_us, per_second=max(1, count // 3_000)), _BATCH)
    await Producer(connection).append(encoded)
    check("batches sequenced", await sequence_all(connection, tables), len(encoded))
    while not (await advance(connection, tables, folded_by="bench")).caught_up:
        pass
    while await summarise(connection, tables):
        pass
    key = "global:status:succeeded"
    expected = await ask(
        connection,
        """
        SELECT r.count
        FROM chancy_metrics_1hour r
        JOIN chancy_metrics_series s
            ON s.id = r.series
        WHERE s.key = %(key)s
            AND r.bucket = %(bucket)s
        """,
        key=key,
        bucket=int(hour.timestamp()),
    )
    took = []
    for _ in range(size.of(20, 2)):
        started = time.perf_counter()
        explained = await explain(chancy, key, hour, resolution="1hour")
        took.append(time.perf_counter() - started)
        check("explained", (explained.events, explained.equal), (expected, True))
    work = f"explain of a 1hour point with {expected:,} events"
    return [
        Row("audit", work, percentile(took, 0.5), "s", "median"),
        Row("audit", work, percentile(took, 0.99), "s", "p99"),
    ]


async def _summary_bytes(connection: Connection) -> int:
    return int(await ask(connection, "SELECT pg_total_relation_size('chancy_metrics_summaries')"))


def _now_us() -> int:
    return time.time_ns() // 1_000
