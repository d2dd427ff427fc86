"""Measure verifying a log, with replay and every check, against folding it in memory; and comparing points alone."""

from __future__ import annotations

import time
from collections.abc import Sequence

from chancy_metrics.events.batch import EncodedBatch, LogBatch
from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.health.verify import verify
from chancy_metrics.projections.fold.accumulator import Accumulator
from chancy_metrics.projections.fold.diff import diff_projections
from chancy_metrics.projections.fold.fold import fold
from chancy_metrics.projections.fold.levels import Projection, projection_of
from chancy_metrics.projections.versions.advance import advance

from .database import Databases, Producer, an_app, connections, sequence_all
from .facts import batches_of, job_rows, log_batches
from .harness import Row, Size, Turn, by_turns, check, middle

WORKERS = 4


async def run(pool: Databases, size: Size) -> list[Row]:
    count = size.of(1_000_000, 2_000)
    facts = job_rows(count, until_us=time.time_ns() // 1_000 - 60_000_000, per_second=100)
    encoded = batches_of(facts, 200)
    in_memory = log_batches(encoded, workers=WORKERS)
    points: list[int] = []
    with pool.database() as dsn:
        async with connections(dsn, 1, prepared=False) as (connection,):
            await _fill(connection, encoded)
        figures = middle(
            await by_turns(size.of(3, 1), {"verify": _verified(dsn, count, points), "memory": _folded(in_memory)})
        )
    total = Accumulator()
    total.add(fold(in_memory))
    folded = total.fold()
    compared = middle(await by_turns(size.of(5, 1), {"diff": _compared(projection_of(folded))}))
    work = f"verify, {count:,} job updates, {points[0]:,} stored points"
    stored = sum(cells.rows for cells in folded.cells.values())
    return [
        Row(
            "verify", work, count / figures["verify"], "events/s", "median", count / figures["memory"], "fold in memory"
        ),
        Row("verify", f"comparing alone, {stored:,} cells of workers", stored / compared["diff"], "cells/s", "median"),
    ]


async def _fill(connection: Connection, encoded: Sequence[EncodedBatch]) -> None:
    tables = tables_for("chancy_")
    for number in range(WORKERS):
        await Producer(connection, worker=f"worker-{number}").append(encoded[number::WORKERS])
    check("batches sequenced", await sequence_all(connection, tables), len(encoded))
    while not (done := await advance(connection, tables, folded_by="bench")).caught_up:
        check("reason not to fold", done.reason, None)


def _verified(dsn: str, count: int, points: list[int]) -> Turn:
    async def turn() -> float:
        async with an_app(dsn, Metrics()) as chancy:
            started = time.perf_counter()
            found = await verify(chancy)
            took = time.perf_counter() - started
        check("drift", (found.drift, found.events), (0, count))
        points.append(found.points)
        return took

    return turn


def _folded(batches: Sequence[LogBatch]) -> Turn:
    async def turn() -> float:
        total = Accumulator()
        started = time.perf_counter()
        for start in range(0, len(batches), 250):
            total.add(fold(batches[start : start + 250]))
        total.fold()
        return time.perf_counter() - started

    return turn


def _compared(points: Projection) -> Turn:
    async def turn() -> float:
        started = time.perf_counter()
        check("differences", diff_projections(points, points, limit=1).different, 0)
        return time.perf_counter() - started

    return turn
