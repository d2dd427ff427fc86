"""Measure the totals for exporters: advancing them by 20,000 job updates, and reading 5,000 series of them.

A third of the series are histograms of a hundred codes each; an exporter's read opens a connection of its own.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Awaitable, Callable

import numpy as np
from chancy import Chancy

from chancy_metrics.events.batch import ObservationRun
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.facts import DEFAULT_UNITS, KINDS, Series
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin import Metrics, read_totals
from chancy_metrics.plugin.folding.totals import advance_for
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.totals.read import read_served
from chancy_metrics.projections.versions.advance import advance

from .database import Databases, Producer, an_app, connections, sequence_all
from .facts import batches_of, job_rows
from .harness import Row, Size, Turn, by_turns, check, middle

_TABLES = tables_for("chancy_")
_HISTOGRAM_VALUES = 100


async def run(pool: Databases, size: Size) -> list[Row]:
    events, series, rounds = size.of(20_000, 500), size.of(5_000, 30), size.of(7, 1)
    with pool.database() as dsn:
        async with an_app(dsn, Metrics()) as chancy, connections(dsn, 1, prepared=False) as (connection,):
            await _record(connection, series)
            advanced = middle(await by_turns(rounds, {"totals": _advanced(connection, events)}))
            beside = middle(await by_turns(rounds, {"version": _folded(connection, events)}))
            read = middle(
                await by_turns(rounds, {"read": _read(connection, series), "exporter": _exported(chancy, series)})
            )
    return [
        Row(
            "totals",
            f"advancing them by {events:,} job updates, of {series:,} series",
            advanced["totals"] * 1_000,
            "ms",
            "median",
            beside["version"] * 1_000,
            "the live version",
        ),
        Row("totals", f"reading {series:,} series", read["read"] * 1_000, "ms", "median"),
        Row("totals", "the same by read_totals(), nothing to advance", read["exporter"] * 1_000, "ms", "median"),
    ]


async def _record(connection: Connection, series: int) -> None:
    """Record so many series of all kinds, and build the totals of them."""
    chance = np.random.default_rng(1)
    now_us = time.time_ns() // 1_000
    runs = []
    for number in range(series):
        kind = KINDS[number % len(KINDS)]
        values = chance.lognormal(0, 2, _HISTOGRAM_VALUES if kind == "histogram" else 1)
        key = Series(f"app:bench:{number}", kind, DEFAULT_UNITS[kind])
        runs.append(ObservationRun(key, [now_us] * len(values), array("d", values.tolist())))
    await Producer(connection).append([encode((), runs[start : start + 500]) for start in range(0, series, 500)])
    await sequence_all(connection, _TABLES)
    await _catch_up(connection)


async def _catch_up(connection: Connection) -> float:
    started = time.perf_counter()
    done = await advance_for(connection, _TABLES, BUILT_IN, folded_by="bench", within_s=60)
    check("totals caught up", done.caught_up, True)
    return time.perf_counter() - started


async def _append(connection: Connection, events: int) -> None:
    rows = job_rows(events, until_us=time.time_ns() // 1_000, per_second=1_000)
    await Producer(connection).append(batches_of(rows, 1_000))
    await sequence_all(connection, _TABLES)


def _advanced(connection: Connection, events: int) -> Turn:
    async def turn() -> float:
        await _append(connection, events)
        return await _catch_up(connection)

    return turn


def _folded(connection: Connection, events: int) -> Turn:
    """Fold as many into the live version, by the steps that it takes."""

    async def fold() -> None:
        while not (await advance(connection, _TABLES, folded_by="bench", rules=BUILT_IN)).caught_up:
            pass

    async def turn() -> float:
        await fold()
        await _append(connection, events)
        started = time.perf_counter()
        await fold()
        return time.perf_counter() - started

    return turn


def _read(connection: Connection, series: int) -> Turn:
    async def read() -> int:
        async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
            totals = await read_served(cursor, _TABLES)
        return 0 if totals is None else len(totals.series)

    return _timed(read, series)


def _exported(chancy: Chancy, series: int) -> Turn:
    async def read() -> int:
        return len((await read_totals(chancy)).series)

    return _timed(read, series)


def _timed(read: Callable[[], Awaitable[int]], series: int) -> Turn:
    async def turn() -> float:
        started = time.perf_counter()
        found = await read()
        took = time.perf_counter() - started
        check("all series are read", found >= series, True)
        return took

    return turn
