"""How long things take as the log grows: `python -m bench.scale [--updates N ...] [--json FILE]`.

A log of each size, at a million job updates a day in batches of 1,000, and on it what a worker, an operator and an
auditor do. What should be flat has the same time in every column; what must be linear the same rate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, TypeVar
from uuid import UUID, uuid4

from chancy import Chancy
from psycopg import sql

from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import tables_for
from chancy_metrics.events.sequencer import sequence
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.audit.events import job_life
from chancy_metrics.plugin.audit.explain import explain
from chancy_metrics.plugin.audit.seal import check
from chancy_metrics.plugin.health.status_reader import read_status
from chancy_metrics.plugin.host.one_arena import use_one_arena
from chancy_metrics.plugin.host.options import DAY_S, DEFAULT_POINTS
from chancy_metrics.plugin.rebuilds.rebuild import rebuild
from chancy_metrics.plugin.worker.retention import prune_days
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.search.indexing import summarise
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.expiry import expire
from chancy_metrics.projections.versions.outcome import Advanced

from .database import Databases, Producer, an_app, connections, databases, sequence_all
from .facts import batches_of, job_rows, moved

_BATCH = 1_000
_A_DAY = 1_000_000
#: Batches that are really encoded; the others are these at other times, with other job ids.
_DISTINCT = 200
_TABLES = tables_for("chancy_")
_TURNS = 20
_SIZES = {"log": "^chancy_metrics_(log_|ledger|summaries)", "rollups": "^chancy_metrics_(1|5)"}
_SIZE = "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE relkind = 'r' AND relname ~ %s"
_COLUMNS = "day, producer, sequence, worker, first_us, last_us, events, closes, codec, payload, sha256"
_TYPES = ["date", "uuid", "int8", "text", "int8", "int8", "int4", "bool", "int2", "bytea", "bytea"]
_T = TypeVar("_T")


class Figure(NamedTuple):
    """What one thing took in a log of *updates*: seconds, or a rate for what reads or writes all of it."""

    updates: int
    work: str
    figure: float
    unit: str


async def measure(pool: Databases, updates: int) -> list[Figure]:
    """Fill a log and measure."""
    days = -(-updates // _A_DAY)
    today = datetime.now(UTC).date()
    found: list[Figure] = []

    def note(work: str, figure: float, unit: str = "s") -> None:
        found.append(Figure(updates, work, figure, unit))
        print(f"{updates:>12,}  {work:<34} {figure:>14,.4f} {unit}", file=sys.stderr)

    with pool.database() as dsn:
        async with connections(dsn, 1, prepared=False) as (connection,), an_app(dsn, Metrics()) as chancy:
            await make_days(connection, _TABLES, today=today - timedelta(days=days), ahead=days + 1)
            now_us = time.time_ns() // 1_000
            await expire(connection, _TABLES, horizons(now_us, DEFAULT_POINTS, 90 * DAY_S))
            ids = await _fill(connection, updates, now_us)
            note("order", await _timed(sequence_all(connection, _TABLES)) / updates * 1e6, "s a million")
            took = 0.0
            while not (done := await _advance(connection))[1].caught_up:
                took += done[0]
            note("fold", updates / (took + done[0]), "updates/s")
            took = 0.0
            while (chunk := await _measured(summarise(connection, _TABLES)))[1]:
                took += chunk[0]
            if took:  # a short log has no full range to summarise
                note("summarise", updates / took, "updates/s")
            await connection.execute("VACUUM ANALYZE")
            await _flat(connection, chancy, ids, note)
            await _note_sizes(connection, note)
            await _linear(connection, chancy, updates, today - timedelta(days=days), note)
    note("memory at its most", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MB")
    return found


async def _flat(connection: Connection, chancy: Chancy, ids: Sequence[UUID], note: Callable[..., None]) -> None:
    """What must not feel how long the log is."""
    producer = Producer(connection)
    one = [
        encode(job_rows(_BATCH, until_us=time.time_ns() // 1_000, per_second=1_000, seed=number))
        for number in range(_TURNS)
    ]
    appended, polled, folded = [], [], []
    for batch in one:
        appended.append(await _timed(producer.append([batch])))
        await sequence_all(connection, _TABLES)
        folded.append((await _advance(connection))[0])
        polled.append(await _timed(sequence(connection, _TABLES)))
    note("append a batch", _middle(appended))
    note("fold a batch", _middle(folded))
    note("poll", _middle(polled))
    note("status", _middle([await _timed(read_status(chancy)) for _ in range(5)]))
    note("audit job", _middle([await _timed(job_life(chancy, job_id)) for job_id in ids[:_TURNS]]))
    at = datetime.now(UTC) - timedelta(hours=2)
    for resolution in ("5min", "1hour"):
        made = [
            await _measured(explain(chancy, "queue:queue_0:throughput", at, resolution=resolution)) for _ in range(3)
        ]
        assert all(one.equal is not False for _, one in made)
        note(f"explain {resolution}", _middle([took for took, _ in made]))


async def _note_sizes(connection: Connection, note: Callable[..., None]) -> None:
    for name, pattern in _SIZES.items():
        cursor = await connection.execute(_SIZE, (pattern,))
        row = await cursor.fetchone()
        note(f"{name} on disk", float(row[0]) / 1e6 if row else 0, "MB")


async def _linear(connection: Connection, chancy: Chancy, updates: int, first: date, note: Callable[..., None]) -> None:
    """What reads all of it; a day of it in the case of prune_days."""
    took, checked = await _measured(check(chancy))
    assert not checked.found, checked
    note("audit check", updates / took, "updates/s")
    took, rebuilt = await _measured(rebuild(chancy))
    assert not rebuilt.different
    note("rebuild", updates / took, "updates/s")
    now_us = time.time_ns() // 1_000
    kept_s = (datetime.now(UTC).date() - first - timedelta(days=1)).days * DAY_S
    took, pruned = await _measured(prune_days(connection, _TABLES, BUILT_IN, now_us=now_us, log_retention_s=kept_s))
    note("prune a day" + (f" ({pruned[0].blocker})" if pruned and pruned[0].blocker else ""), took)


async def _fill(connection: Connection, updates: int, until_us: int) -> list[UUID]:
    """Append batches over as many days as there are millions, each into the day it ends in; return some job ids."""
    chance = random.Random(1)
    rate = _A_DAY / DAY_S
    templates = batches_of(
        job_rows(min(updates, _DISTINCT * _BATCH), until_us=until_us, per_second=max(1, round(rate))), _BATCH
    )
    count = updates // _BATCH
    producer, kept = uuid4(), []
    for start in range(0, count, 500):
        async with connection.transaction(), connection.cursor() as cursor:
            statement = sql.SQL(f"COPY {{}} ({_COLUMNS}) FROM STDIN (FORMAT BINARY)").format(_TABLES.log)
            async with cursor.copy(statement) as copy:
                copy.set_types(_TYPES)
                numbers = range(start, min(start + 500, count))
                days = []
                for number in numbers:
                    ends_us = until_us - int((count - 1 - number) * _BATCH / rate * 1e6)
                    ids = chance.randbytes(16 * _BATCH)
                    kept.append(UUID(bytes=ids[:16]))
                    batch = moved(templates[number % len(templates)], ids, ends_us)
                    days.append(datetime.fromtimestamp(ends_us / 1e6, UTC).date())
                    batch_id = days[-1], producer, number + 1, f"worker-{number % 4}"
                    times = batch.first_us, batch.last_us, batch.events, False
                    await copy.write_row((*batch_id, *times, batch.codec, batch.payload, batch.sha256))
            await cursor.execute(
                sql.SQL(
                    """
                    INSERT INTO {} (day, producer, sequence)
                    SELECT day, %(producer)s, sequence
                    FROM unnest(%(days)s::date[], %(sequences)s::bigint[]) AS n (day, sequence)
                    """
                ).format(_TABLES.pending),
                {"producer": producer, "days": days, "sequences": [number + 1 for number in numbers]},
            )
    chance.shuffle(kept)
    return kept[:100]


async def _advance(connection: Connection) -> tuple[float, Advanced]:
    return await _measured(advance(connection, _TABLES, folded_by="bench"))


async def _measured(work: Awaitable[_T]) -> tuple[float, _T]:
    started = time.perf_counter()
    result = await work
    return time.perf_counter() - started, result


async def _timed(work: Awaitable[object]) -> float:
    return (await _measured(work))[0]


def _middle(figures: Sequence[float]) -> float:
    return sorted(figures)[len(figures) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--updates", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    use_one_arena()  # as the commands do
    figures: list[Figure] = []
    with databases() as pool:
        for updates in options.updates:
            figures += asyncio.run(measure(pool, updates))
    if options.json:
        options.json.write_text(json.dumps([figure._asdict() for figure in figures], indent=1))


if __name__ == "__main__":
    main()
