"""Measure a step of a version, advance() from reading the ledger to the commit, against folding its range in memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from chancy_metrics.events.batch import LogBatch
from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import tables_for
from chancy_metrics.projections.fold.fold import fold
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.step import STEP_EVENTS

from .database import Databases, Producer, ask, connections, sequence_all
from .facts import batches_of, job_rows, log_batches
from .harness import Row, Size, Turn, at_least, by_turns, check, middle


async def run(pool: Databases, size: Size) -> list[Row]:
    rows = []
    for per_second, goal in ((1_000, 0.5), (20, None)):
        rounds = size.of(15, 1)
        batch_size = 1_000
        facts = job_rows(
            STEP_EVENTS * (rounds + 1), until_us=time.time_ns() // 1_000 - 60_000_000, per_second=per_second
        )
        encoded = batches_of(facts, batch_size)
        steps = STEP_EVENTS // batch_size
        in_memory = log_batches(encoded, workers=1)
        with pool.database() as dsn:
            async with connections(dsn, 1, prepared=False) as (connection,):
                await Producer(connection).append(encoded)
                check("batches sequenced", await sequence_all(connection, tables_for("chancy_")), len(encoded))
                steps_of_batches = [in_memory[start : start + steps] for start in range(0, len(in_memory), steps)]
                cpu_s: list[float] = []
                figures = middle(
                    await by_turns(
                        rounds, {"advance": _advanced(connection, cpu_s), "memory": _folded(steps_of_batches)}
                    )
                )
                counted = """
                    SELECT sum(r.count) FROM chancy_metrics_1day r JOIN chancy_metrics_series s ON s.id = r.series
                    WHERE starts_with(s.key, 'global:status:')
                """
                check("events in the day's rollup", await ask(connection, counted), len(facts))
        work = f"advance(), {STEP_EVENTS // 1000}k job updates that came at {per_second:,}/s"
        target = None if goal is None else at_least(goal)
        for name, took_s, judged in (
            (work, figures["advance"], target),
            ("of that, by the CPU time of our process alone", statistics.median(cpu_s[1:]), None),
        ):
            rate, floor = STEP_EVENTS / took_s, STEP_EVENTS / figures["memory"]
            rows.append(Row("advance", name, rate, "events/s", "median", floor, "fold in memory", judged))
    return rows


def _advanced(connection: Connection, cpu_s: list[float]) -> Turn:
    async def turn() -> float:
        started, cpu_before = time.perf_counter(), time.process_time()
        advanced = await advance(connection, tables_for("chancy_"), folded_by="bench")
        took = time.perf_counter() - started
        cpu_s.append(time.process_time() - cpu_before)
        check("events advanced", (advanced.events, advanced.reason), (STEP_EVENTS, None))
        return took

    return turn


def _folded(steps_of_batches: Sequence[Sequence[LogBatch]]) -> Turn:
    left = iter(steps_of_batches)

    async def turn() -> float:
        batches = next(left)
        started = time.perf_counter()
        folded = fold(batches)
        took = time.perf_counter() - started
        check("events folded", folded.events, STEP_EVENTS)
        return took

    return turn
