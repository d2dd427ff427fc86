"""What many series cost: `python -m bench.cardinality [--series N ...] [--churn MINUTES] [--json FILE]`.

For each number of distinct counters, one observation each: memory of who records, folds, reads and verifies, each in a
process of its own; how long a fold, a reader's refresh and a verify take; bytes on disk; and whether `status` complains
of it. Then keys and worker ids that change all the time: how many names and rows there come to be, and how clean-up
takes them away again once they are past what is kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from chancy_metrics.events.batch import EncodedBatch, ObservationRun
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection
from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import RESOLUTIONS, tables_for
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.health.status_reader import read_status
from chancy_metrics.plugin.health.verify import verify
from chancy_metrics.plugin.host.options import DAY_S
from chancy_metrics.plugin.reading.follower import Reader
from chancy_metrics.plugin.recording.buffer import Buffer
from chancy_metrics.plugin.worker.maintenance import Maintenance
from chancy_metrics.projections.versions.advance import advance

from .database import Databases, Producer, an_app, ask, connections, databases, sequence_all
from .harness import check

_TABLES = tables_for("chancy_")
_FEW = 1_000
_MB = 1e6
#: Of the simulated minutes: new keys in each, and so many workers that are new every ten.
_NEW_KEYS, _WORKERS, _DEPLOY_MINUTES = 1_000, 4, 10
#: Clean-ups after everything expired, a minute apart as the leader's, before that counts as never.
_MAX_CLEANINGS = 2_000
_LEVELS = [f"chancy_metrics_{resolution}" for resolution in RESOLUTIONS]
_SIZE = "SELECT sum(pg_total_relation_size(relid))::bigint FROM unnest(%(tables)s::text[]::regclass[]) AS t (relid)"
Note = Callable[[str, float, str], None]


class Figure(NamedTuple):
    """What one thing took with so many *series*; after so many simulated minutes where keys change."""

    series: int
    work: str
    figure: float
    unit: str


async def measure(pool: Databases, series: int, note: Note) -> None:
    """Record, fold, read and verify *series* counters, each of the four in a process of its own."""
    with pool.database() as dsn:
        for role in _ROLES:
            for work, figure, unit in await _in_a_process(role, dsn, series):
                note(work, figure, unit)
        async with connections(dsn, 1, prepared=False) as (connection,), an_app(dsn, Metrics()) as chancy:
            there = await ask(connection, "SELECT count(*) FROM chancy_metrics_series")
            check("series", there in (series, series + _FEW), True)
            for name, relations in {"series": ["chancy_metrics_series"], "rollups": _LEVELS}.items():
                size = await ask(connection, _SIZE, tables=relations)
                note(f"{name} on disk, each", size / there, "B")
            started = time.perf_counter()
            status = await read_status(chancy)
            note("status", time.perf_counter() - started, "s")
            note("status complains of too many series", float(any("series" in one for one in status.unhealthy)), "")


async def record(dsn: str, series: int) -> Iterator[tuple[str, float, str]]:
    """A process that records: the buffer with everything in it, what stays of it, and the append."""
    async with connections(dsn, 1, prepared=False) as (connection,):
        producer, buffer, before = Producer(connection), Buffer(1_000_000), _memory("VmRSS")
        started = time.perf_counter()
        for number in range(series):
            buffer.record("counter", f"bench:{number}:count", 1.0, "count")
        took = time.perf_counter() - started
        full = _memory("VmRSS") - before
        started = time.perf_counter()
        batches = 0
        while (batch := buffer.cut()) is not None:
            await producer.append([batch])
            batches += batch.events
        appended = time.perf_counter() - started
        check("events appended", (batches, buffer.counts["dropped"]), (series, 0))
    return iter(
        [
            ("recorder: an observation of a new key", took / series * 1e6, "us"),
            ("recorder: memory, all of it buffered", full / _MB, "MB"),
            ("recorder: memory at its most", _memory("VmHWM") / _MB, "MB"),
            ("recorder: cut and appended", appended, "s"),
        ]
    )


async def project(dsn: str, series: int) -> Iterator[tuple[str, float, str]]:
    """A process that folds: everything new, then some of it again."""
    async with connections(dsn, 1, prepared=False) as (connection,):
        await sequence_all(connection, _TABLES)
        steps = await _fold(connection)
        check("events folded", await ask(connection, f"SELECT sum(count) FROM {_LEVELS[-1]}"), series)
        most = _memory("VmHWM")
        await _append(connection, range(0, series, max(1, series // _FEW)))
        again = await _fold(connection)
    return iter(
        [
            ("projector: all series new, all steps", sum(steps), "s"),
            ("projector: the longest step", max(steps), "s"),
            ("projector: memory at its most", most / _MB, "MB"),
            ("projector: a fold of 1,000 known series", sum(again), "s"),
        ]
    )


async def read(dsn: str, series: int) -> Iterator[tuple[str, float, str]]:
    """A process that reads: the first load, then what follows two folds."""
    async with connections(dsn, 1, prepared=False) as (connection,), an_app(dsn, Metrics()) as chancy:
        reader, before = Reader(chancy, lambda: 3_600, logging.getLogger("bench")), _memory("VmRSS")
        gaps: list[float] = []
        ticking = asyncio.create_task(_tick(gaps))
        loaded = await _timed(reader)
        await asyncio.sleep(0.02)
        ticking.cancel()
        held = _memory("VmRSS") - before
        most = _memory("VmHWM")
        check("series read", len((await reader.replica()).series), series)
        await _append(connection, range(0, series, max(1, series // _FEW)))
        await _fold(connection)
        known = await _timed(reader)
        await _append(connection, range(series, series + _FEW))
        await _fold(connection)
        new = await _timed(reader)
        copy = await reader.replica()
        check("series read", len(copy.series), series + _FEW)
        started = time.perf_counter()
        check("series found", len(copy.series.under("bench:7")), 1)
        first = time.perf_counter() - started
    return iter(
        [
            ("reader: first load", loaded, "s"),
            ("reader: of that, its event loop stood still for", max(gaps), "s"),
            ("reader: memory of the copy", held / _MB, "MB"),
            ("reader: memory at its most", most / _MB, "MB"),
            ("reader: refresh, 1,000 known series", known, "s"),
            ("reader: refresh, 1,000 new series", new, "s"),
            ("reader: first look-up after that", first, "s"),
        ]
    )


async def compare(dsn: str, series: int) -> Iterator[tuple[str, float, str]]:
    """A process that verifies: all points against the log."""
    async with an_app(dsn, Metrics()) as chancy:
        started = time.perf_counter()
        found = await verify(chancy)
        took = time.perf_counter() - started
    check("drift", (found.drift, found.points >= 2 * len(_LEVELS) * series), (0, True))
    return iter(
        [
            ("verify: everything", took, "s"),
            ("verify: points compared", float(found.points), ""),
            ("verify: memory at its most", _memory("VmHWM") / _MB, "MB"),
        ]
    )


_ROLES = {"record": record, "project": project, "read": read, "compare": compare}


async def churn(pool: Databases, minutes: int, note: Note) -> None:
    """Fold *minutes* minutes of keys that never come again, then clean up 91 days later."""
    with pool.database() as dsn:
        async with connections(dsn, 1, prepared=False) as (connection,):
            now_us = time.time_ns() // 60_000_000_000 * 60_000_000
            maintenance, producers = Maintenance(Metrics().options), list[Producer]()
            times: list[float] = []
            for minute in range(minutes):
                if minute % _DEPLOY_MINUTES == 0:
                    producers = [Producer(connection, worker=f"{minute}-{one}") for one in range(_WORKERS)]
                at_us = now_us - (minutes - minute) * 60_000_000
                keys = range(minute * _NEW_KEYS, (minute + 1) * _NEW_KEYS)
                for index, producer in enumerate(producers):
                    await producer.append([_batch(keys[index::_WORKERS], at_us)])
                await sequence_all(connection, _TABLES)
                times.append(sum(await _fold(connection)))
                await maintenance.clean(connection, _TABLES, now_us=at_us)
                if (minute + 1) % max(1, minutes // 3) == 0:
                    await _note_rows(connection, f"after {minute + 1} minutes", note)
            check("series", await ask(connection, "SELECT count(*) FROM chancy_metrics_series"), minutes * _NEW_KEYS)
            note("the last minute's fold", times[-1], "s")
            await _clean_up(connection, maintenance, now_us + 91 * DAY_S * 1_000_000, note)
            await _note_rows(connection, "after that", note)


async def _clean_up(connection: Connection, maintenance: Maintenance, now_us: int, note: Note) -> None:
    """Clean up until nothing is left."""
    times: list[float] = []
    left = "SELECT (SELECT count(*) FROM chancy_metrics_series) + (SELECT count(*) FROM chancy_metrics_workers)"
    while await ask(connection, left) and len(times) < _MAX_CLEANINGS:
        started = time.perf_counter()
        await maintenance.clean(connection, _TABLES, now_us=now_us)
        times.append(time.perf_counter() - started)
    note("clean-ups until all names are gone", len(times), "")
    note("the longest of them", max(times), "s")


async def _note_rows(connection: Connection, when: str, note: Note) -> None:
    for name, relations in {
        "series": ["chancy_metrics_series"],
        "workers": ["chancy_metrics_workers"],
        "producers": ["chancy_metrics_producers"],
        "points": _LEVELS,
        "workers' segments": ["chancy_metrics_worker_segments"],
    }.items():
        rows = sum([await ask(connection, f"SELECT count(*) FROM {one}") for one in relations])
        note(f"{name} {when}", rows, "")


def _batch(numbers: Sequence[int], at_us: int) -> EncodedBatch:
    return encode(
        (), [ObservationRun(Series(f"bench:{one}:count", "counter", "count"), [at_us], [1.0]) for one in numbers]
    )


async def _append(connection: Connection, numbers: Sequence[int]) -> None:
    await Producer(connection).append([_batch(numbers, time.time_ns() // 1_000)])
    check("batches sequenced", await sequence_all(connection, _TABLES), 1)


async def _fold(connection: Connection) -> list[float]:
    """Fold all there is; return the seconds of each step."""
    times: list[float] = []
    while True:
        started = time.perf_counter()
        done = await advance(connection, _TABLES, folded_by="bench")
        if done.caught_up:
            return times
        check("reason", done.reason, None)
        times.append(time.perf_counter() - started)


async def _tick(gaps: list[float]) -> None:
    """Note for ever how long each round of the event loop took."""
    last = time.perf_counter()
    while True:
        await asyncio.sleep(0.005)
        now = time.perf_counter()
        gaps.append(now - last)
        last = now


async def _timed(reader: Reader) -> float:
    started = time.perf_counter()
    await reader.refresh()
    return time.perf_counter() - started


def _memory(what: str) -> int:
    """Bytes of this process; `VmHWM` is the most it ever had. Linux only."""
    return int(Path("/proc/self/status").read_text().partition(f"{what}:")[2].split()[0]) * 1_024


async def _in_a_process(role: str, dsn: str, series: int) -> list[tuple[str, float, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.cardinality", "--role", role, dsn, "--series", str(series), stdout=PIPE
    )
    output, _ = await process.communicate()
    if process.returncode:  # its traceback is on stderr; what breaks at this size is a finding
        return [(f"the process that is to {role} fails, exit code", float(process.returncode), "")]
    return [tuple(one) for one in json.loads(output)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cardinality", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--series", type=int, nargs="*", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--churn", type=int, default=60, help="simulated minutes of keys that never come again")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--role", nargs=2, metavar=("ROLE", "DSN"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        role, dsn = options.role
        print(json.dumps(list(asyncio.run(_ROLES[role](dsn, *options.series)))))
        return
    figures: list[Figure] = []

    def noting(series: int) -> Note:
        def note(work: str, figure: float, unit: str) -> None:
            figures.append(Figure(series, work, figure, unit))
            print(f"{series:>10,}  {work:<42} {figure:>14,.4f} {unit}", file=sys.stderr)

        return note

    with databases() as pool:
        for series in options.series:
            asyncio.run(measure(pool, series, noting(series)))
        if options.churn:
            asyncio.run(churn(pool, options.churn, noting(options.churn * _NEW_KEYS)))
    if options.json:
        options.json.write_text(json.dumps([figure._asdict() for figure in figures], indent=1))


if __name__ == "__main__":
    main()
