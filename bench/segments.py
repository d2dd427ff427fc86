"""Measure workers' segments: compaction's CPU a cell, a cell's bytes on disk then, and a look-up of a worker's points.

The history is that of folds ten seconds apart; the look-up's worker has every bucket that the default settings keep.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.facts import Kind, Series
from chancy_metrics.events.schema import RESOLUTIONS, tables_for
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.reading.history import history
from chancy_metrics.plugin.reading.load import read_directly
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.fold.cells import Cells, Sketches, no_sketches
from chancy_metrics.projections.fold.fold import Fold
from chancy_metrics.projections.fold.levels import derive_points, merge_workers
from chancy_metrics.projections.fold.sketch import codes
from chancy_metrics.projections.grid import BucketRange
from chancy_metrics.projections.rollups.ids import number
from chancy_metrics.projections.rollups.segments import write_segments
from chancy_metrics.projections.rollups.write import store
from chancy_metrics.projections.versions.compact import Compacted, compact
from chancy_metrics.projections.versions.expiry import expire

from .database import Databases, ask, connections
from .harness import Row, Size, Target, Turn, by_turns, check, middle

_TABLES = tables_for("chancy_")
_FOLD_S = 10


async def run(pool: Databases, size: Size) -> list[Row]:
    rows = []
    with pool.database() as dsn:
        rows += await _compaction(dsn, size)
    for kind in ("counter", "histogram"):
        with pool.database() as dsn:
            rows += await _lookup(dsn, size, kind)
    return rows


async def _compaction(dsn: str, size: Size) -> list[Row]:
    """Fold for an hour, compact every 20 seconds, as a worker does."""
    workers, series, folds = size.of(40, 3), size.of(50, 4), size.of(360, 20)
    chance = np.random.default_rng(1)
    options = Metrics().options
    start_s = int(datetime.now(UTC).timestamp()) // 3_600 * 3_600 - 7_200
    done, cpu_s = Compacted(), 0.0
    async with connections(dsn, 1, prepared=False) as (connection,):
        for one in range(folds):
            now_s = start_s + one * _FOLD_S
            made = _cells(chance, workers, series, np.array([now_s // 60 * 60]), now_s, "counter")
            await _write(connection, {"1min": made}, workers, series, "counter", one + 1)
            if one % 2:
                kept = horizons(now_s * 1_000_000, options.max_points, options.maximum_metric_age)
                began = time.process_time()
                done += await compact(connection, _TABLES, kept)
                cpu_s += time.process_time() - began
        cells = int(await ask(connection, "SELECT sum(cells) FROM chancy_metrics_worker_segments"))
        left = int(await ask(connection, "SELECT count(*) FROM chancy_metrics_worker_segments"))
        await connection.execute("VACUUM FULL chancy_metrics_worker_segments")
        disk = int(await ask(connection, "SELECT pg_total_relation_size('chancy_metrics_worker_segments')"))
    folded = workers * series * folds
    raw = workers * folds
    return [
        Row(
            "segments",
            f"compaction, CPU a cell folded ({done.cells / folded:.1f} times)",
            cpu_s / folded * 1e6,
            "µs",
            "min",
        ),
        Row(
            "segments", f"compaction, CPU a segment of {series} cells that a fold wrote", cpu_s / raw * 1e6, "µs", "min"
        ),
        Row("segments", f"segments of a worker after {folds} folds", left / workers, "rows", "min"),
        Row(
            "segments",
            "disk of a kept cell without sketch, index and all",
            disk / cells,
            "B",
            "min",
            target=Target("ours", "<=", 30, "<= 30 B"),
        ),
    ]


async def _lookup(dsn: str, size: Size, kind: Kind) -> list[Row]:
    """Ask for one worker's points, as `get_metrics(worker_id=)` does."""
    series, rounds = size.of(500, 5), size.of(5, 1)
    chance = np.random.default_rng(1)
    options = Metrics().options
    now_s = int(datetime.now(UTC).timestamp())
    kept = horizons(now_s * 1_000_000, options.max_points, options.maximum_metric_age)
    async with connections(dsn, 1, prepared=False) as (connection,):
        await expire(connection, _TABLES, kept)
        levels = {
            name: np.arange(kept[name], now_s if name == "1min" else _before(kept, name), width)
            for name, width in RESOLUTIONS.items()
        }
        old = {name: _cells(chance, 1, series, buckets, now_s, kind) for name, buckets in levels.items()}
        await _write(connection, old, 1, series, kind, 1)
        today = _cells(chance, 1, series, np.array([now_s // 60 * 60]), now_s, kind)
        await _write(connection, {"1min": today}, 1, series, kind, 2, worker="of today")
        await compact(connection, _TABLES, kept)

        cpu_ms: dict[str, list[float]] = {}
        end_s = now_s // 300 * 300 + 300
        hours = BucketRange("5min", max(end_s - 6 * 3_600, kept["5min"]), end_s)

        def asks(name: str, worker: str, within: BucketRange | None = None) -> Turn:
            async def turn() -> float:
                began, worked = time.perf_counter(), time.process_time()
                async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
                    names, columns = await read_directly(cursor, _TABLES, worker, None, within=within)
                found = history(options, names, columns, None)
                took = time.perf_counter() - began
                cpu_ms.setdefault(name, []).append((time.process_time() - worked) * 1_000)
                check("series", len(found), series)
                return took * 1_000

            return turn

        asked = {
            "old": asks("old", "w0"),
            "window": asks("window", "w0", hours),
            "of today": asks("of today", "of today"),
        }
        figures = middle(await by_turns(rounds, asked))
    cells = sum(one.rows for one in old.values())
    what = f"points of one worker, {series} {kind}s"
    return [
        Row(
            "segments",
            f"{what}, {cells:,} cells of 90 days",
            figures["old"],
            "ms",
            "median",
            target=Target("ours", "<=", 50, "<= 50 ms"),
        ),
        Row("segments", f"{what}, of 90 days, CPU of this process", min(cpu_ms["old"]), "ms", "min"),
        Row("segments", f"{what}, six hours of 90 days", figures["window"], "ms", "median"),
        Row("segments", f"{what}, six hours of 90 days, CPU of this process", min(cpu_ms["window"]), "ms", "min"),
        Row("segments", f"{what}, of this minute, CPU of this process", min(cpu_ms["of today"]), "ms", "min"),
        Row(
            "segments",
            f"{what}, of this minute",
            figures["of today"],
            "ms",
            "median",
            target=Target("ours", "<=", 10, "<= 10 ms"),
        ),
    ]


def _before(kept: Mapping[str, int], name: str) -> int:
    """Where the next finer resolution begins, on this one's grid."""
    finer = list(RESOLUTIONS)[list(RESOLUTIONS).index(name) - 1]
    return -(-kept[finer] // RESOLUTIONS[name]) * RESOLUTIONS[name]


def _cells(
    chance: np.random.Generator, workers: int, series: int, buckets: np.ndarray, now_s: int, kind: Kind
) -> Cells:
    """Return a cell of each worker, series and bucket, of some observations in it."""
    rows = workers * series * len(buckets)
    worker = np.repeat(np.arange(1, workers + 1), series * len(buckets))
    bucket = np.tile(buckets, workers * series)
    observations = chance.integers(1, 200, rows)
    zeros = np.zeros(rows, np.int64)
    low = high = np.ones(rows)
    micro, sketches = observations * 1_000_000, no_sketches()
    if kind == "histogram":
        low = np.round(chance.lognormal(-2, 1, rows), 6)
        high = np.round(low * 4, 6)
        micro = np.round(observations * low * 1_500_000).astype(np.int64)
        each = 8
        observations = np.maximum(observations // each, 1) * each
        spread = np.sort(codes((low[:, None] * np.linspace(1, 4, each)).ravel()).reshape(rows, each), axis=1)
        sketches = Sketches(
            np.repeat(np.arange(rows), each), spread.ravel().astype(np.int32), np.repeat(observations // each, each)
        )
    return Cells(
        worker=worker,
        series=np.tile(np.repeat(np.arange(series), len(buckets)), workers),
        bucket=bucket,
        observations=observations,
        last_us=np.minimum(bucket + 59, now_s) * 1_000_000 + chance.integers(0, 1_000_000, rows),
        micro=micro,
        rest={},
        minimum=low,
        maximum=high,
        last=np.full(rows, np.nan),
        last_position=zeros,
        last_index=zeros,
        sketches=sketches,
    )


async def _write(
    connection: Connection,
    levels: dict[str, Cells],
    workers: int,
    series: int,
    kind: Kind,
    fold: int,
    *,
    worker: str = "",
) -> None:
    """Write cells as a fold would; of the merged points only days, by which a look-up knows the series."""
    names = [worker or f"w{one}" for one in range(workers)]
    folded = Fold.of_cells(names, [Series(f"bench:{one}", kind, "unit") for one in range(series)], levels)
    numbered = await number(connection, _TABLES, folded)
    async with short_transaction(connection) as cursor:
        if fold <= 2:
            merged = derive_points(merge_workers(numbered.cells))
            await store(cursor, _TABLES, 1, {"1day": merged["1day"]})
        await write_segments(cursor, _TABLES, 1, fold, numbered.cells)
