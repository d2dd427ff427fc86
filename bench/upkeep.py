"""Measure the WAL of a point that advance() changes fold after fold, against plain HOT updates of the same columns.

The other table has the same shape. pg_waldump reads the WAL record by record, without page images.
"""

from __future__ import annotations

import asyncio
import random
import re
from array import array
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from itertools import chain
from statistics import median
from typing import NamedTuple

from psycopg import sql

from chancy_metrics.events.batch import ObservationRun
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection
from chancy_metrics.events.facts import Kind, Series, microseconds
from chancy_metrics.events.schema import RESOLUTIONS, tables_for
from chancy_metrics.projections.versions.advance import advance
from examples.embedded import wheel_binaries

from .database import Databases, Producer, ask, connections, sequence_all
from .harness import Row, Size, Target, Turn, at_most, by_turns, check, middle

_TABLES = tables_for("chancy_")
_LEVELS = [f"chancy_metrics_{resolution}" for resolution in RESOLUTIONS]
_SEGMENTS = "chancy_metrics_worker_segments"
_FLOOR = "bench_plain"
#: Values of a series in one fold, and in each of the twelve hours before the first one, its own hour too.
_VALUES, _AN_HOUR = 20, 100
#: Seconds of event time between folds: a minute has seven of them.
_STEP_S = 8
_COLUMNS = sql.SQL(
    "version, series, bucket, count, last_us, sum, min, max, last, last_position, last_index, p50, p95, p99"
)
_RECORD = re.compile(r"len \(rec/tot\):\s*(\d+)/\s*\d+,.* lsn: (\S+),.* desc: (\S+)")
_RELATION = re.compile(r"rel \d+/\d+/(\d+)")
#: Records that a changed row needs; the others prune pages, or mean that it was not HOT.
_UPDATES = ("HOT_UPDATE", "UPDATE", "UPDATE+INIT")
#: Pages written whole, once after each checkpoint.
_IMAGES = ("FPI", "FPI_FOR_HINT")


class _Written(NamedTuple):
    """A record of the WAL: of which table or index, its bytes as it lies there, without page images."""

    relation: int
    what: str
    size: int


async def run(pool: Databases, size: Size) -> list[Row]:
    series, rounds = size.of(100, 5), size.of(5, 1)
    with pool.database() as dsn:
        rows = await _counters(dsn, series, rounds)
    with pool.database() as dsn:
        rows += await _histograms(dsn, series, rounds)
    return rows


async def _counters(dsn: str, series: int, rounds: int) -> list[Row]:
    async with connections(dsn, 1, prepared=False) as (connection,):
        folds = _Folds(connection, "counter", series)
        await folds.begin()
        await connection.execute(sql.SQL(_PLAIN).format(plain=sql.Identifier(_FLOOR), columns=_COLUMNS))
        await connection.execute("CHECKPOINT")
        figures = middle(await by_turns(rounds, {"ours": folds.turn, "plain": _plain(connection)}))
    points = len(_LEVELS) * series
    spent: Counter[str] = Counter()
    for one in chain.from_iterable(folds.written[1:]):
        spent[one.what] += one.size
    own = median(folds.own[1:]) / series
    parts = " + ".join(f"{what} {size / points / rounds:.0f}" for what, size in spent.most_common())
    floor = figures["plain"], "plain HOT UPDATE of such a row"
    work = f"WAL of a changed point without sketch ({parts})"
    return [
        Row("upkeep", work, figures["ours"] / points, "B", "median", *floor, at_most(1.2)),
        Row("upkeep", "beside it a series' cell in the worker's segment", own, "B", "median"),
        Row("upkeep", "of the whole fold, ring and version too", median(folds.whole[1:]) / points, "B", "median"),
    ]


async def _histograms(dsn: str, series: int, rounds: int) -> list[Row]:
    async with connections(dsn, 1, prepared=False) as (connection,):
        folds = _Folds(connection, "histogram", series)
        await folds.begin()
        await connection.execute("CHECKPOINT")
        await by_turns(rounds, {"ours": folds.turn})
        check("rows with quantiles", await ask(connection, f"SELECT count(p99) FROM {_LEVELS[-1]}"), series)
        newest = "SELECT avg(length(sketch))::float8 FROM {0} WHERE bucket = (SELECT max(bucket) FROM {0})"
        sketches = [await ask(connection, newest.format(level)) for level in _LEVELS]
    merged = [median(sizes[name] for sizes in map(folds.by_level, folds.written[1:])) / series for name in _LEVELS]
    own = median(folds.own[1:]) / series
    parts = ", ".join(
        f"{level} {figure:.0f} with a sketch of {sketch:.0f}"
        for level, figure, sketch in zip(RESOLUTIONS, merged, sketches, strict=True)
    )
    work = f"WAL of a histogram's point a fold, all four levels merged ({parts})"
    goal = Target("ours", "<=", 600, "<= 600 B")
    return [
        Row("upkeep", work, sum(merged), "B", "median", target=goal),
        Row("upkeep", "beside it a series' cell in the worker's segment", own, "B", "median"),
    ]


class _Folds:
    """Folds of the same series in the same buckets, again and again, a few seconds later each.

    Attributes:
        written: What each turn wrote of the rollups; *own* is what it wrote of the worker's segment, and *whole* all
            that its fold wrote, both in bytes.
    """

    def __init__(self, connection: Connection, kind: Kind, series: int) -> None:
        self._connection = connection
        self._series = [Series(f"bench:{number}", kind, "number") for number in range(series)]
        self._producer = Producer(connection)
        self._chance = random.Random(1)
        self._start = datetime.combine(datetime.now(UTC).date() - timedelta(days=1), time(12, 31), UTC)
        self._number = 0
        self._tables: dict[int, str] = {}
        self._of_segments: set[int] = set()
        self.written: list[list[_Written]] = []
        self.own: list[float] = []
        self.whole: list[float] = []

    async def begin(self) -> None:
        """Give the day its values before, and each bucket its row."""
        hours = [microseconds(self._start) - hour * 3_600_000_000 - 900_000_000 for hour in range(12)]
        at_us = [at_us for at_us in hours for _ in range(_AN_HOUR)]
        for start in range(0, len(self._series), 10):
            runs = [ObservationRun(one, at_us, self._values(len(at_us))) for one in self._series[start : start + 10]]
            await self._append(runs)
        await self._fold_all()
        await self._append(self._runs())
        await self._fold_all()
        for name in _LEVELS:
            self._tables[await _filenode(self._connection, name)] = name
        toast = "SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = '{}'::regclass"
        for name in (_SEGMENTS, await ask(self._connection, toast.format(_SEGMENTS))):
            self._of_segments.add(await _filenode(self._connection, name))

    def by_level(self, written: Sequence[_Written]) -> Counter[str]:
        """Return the bytes of each rollup."""
        sizes: Counter[str] = Counter()
        for one in written:
            sizes[self._tables[one.relation]] += one.size
        return sizes

    async def turn(self) -> float:
        """Append, order and fold; return the bytes written of the rollups."""
        await self._append(self._runs())
        check("batches sequenced", await sequence_all(self._connection, _TABLES), 1)
        before = await _wal(self._connection)
        advanced = await advance(self._connection, _TABLES, folded_by="bench")
        after = await _wal(self._connection)
        check("fold", (advanced.events, advanced.reason), (_VALUES * len(self._series), None))
        records = await _records(self._connection, before, after)
        written = [one for one in records if one.relation in self._tables]
        updates = Counter(self._tables[one.relation] for one in written if one.what in _UPDATES)
        check("rows changed", updates, dict.fromkeys(_LEVELS, len(self._series)))
        self.written.append(written)
        self.own.append(float(sum(one.size for one in records if one.relation in self._of_segments)))
        self.whole.append(await _between(self._connection, before, after))
        return float(sum(one.size for one in written))

    def _runs(self) -> list[ObservationRun]:
        at_us = microseconds(self._start) + self._number * _STEP_S * 1_000_000
        self._number += 1
        return [ObservationRun(one, [at_us] * _VALUES, self._values(_VALUES)) for one in self._series]

    def _values(self, count: int) -> array[float]:
        if self._series[0].kind == "counter":
            return array("d", [1.0] * count)
        return array("d", [round(self._chance.lognormvariate(-2, 1), 6) for _ in range(count)])

    async def _append(self, runs: list[ObservationRun]) -> None:
        await self._producer.append([encode((), runs)])

    async def _fold_all(self) -> None:
        await sequence_all(self._connection, _TABLES)
        while not (await advance(self._connection, _TABLES, folded_by="bench")).caught_up:
            pass


_PLAIN = """
CREATE TABLE {plain} (LIKE chancy_metrics_1min INCLUDING STORAGE) WITH (fillfactor = 40);
ALTER TABLE {plain} ADD PRIMARY KEY (version, series, bucket);
INSERT INTO {plain} ({columns}) SELECT {columns} FROM chancy_metrics_1min;
INSERT INTO {plain} ({columns}) SELECT {columns} FROM chancy_metrics_5min ON CONFLICT DO NOTHING;
"""


def _plain(connection: Connection) -> Turn:
    async def turn() -> float:
        node = await _filenode(connection, _FLOOR)
        before = await _wal(connection)
        changed = await connection.execute(
            sql.SQL("UPDATE {} SET count = count + 20, last_us = last_us + 1000000, sum = trim_scale(sum + 20)").format(
                sql.Identifier(_FLOOR)
            )
        )
        written = [one for one in await _records(connection, before, await _wal(connection)) if one.relation == node]
        updates = Counter(one.what for one in written if one.what in _UPDATES)
        check("plain updates, all of them HOT", updates, {"HOT_UPDATE": changed.rowcount})
        return sum(one.size for one in written) / changed.rowcount

    return turn


async def _records(connection: Connection, start: str, end: str) -> list[_Written]:
    """What lies in the WAL from *start* to *end* of tables and indexes, in order."""
    folder = await ask(connection, "SHOW data_directory")
    dump = wheel_binaries() / "pg_waldump"
    process = await asyncio.create_subprocess_exec(
        dump, "--path", f"{folder}/pg_wal", "--start", start, "--end", end, stdout=PIPE
    )
    output, _ = await process.communicate()
    check("exit of pg_waldump", process.returncode, 0)
    found = []
    for line in output.decode().splitlines():
        record, relation = _RECORD.search(line), _RELATION.search(line)
        if record is not None and relation is not None and record[3] not in _IMAGES:
            aligned = -(-int(record[1]) // 8) * 8
            found.append(_Written(int(relation[1]), record[3], aligned))
    return found


async def _wal(connection: Connection) -> str:
    return str(await ask(connection, "SELECT pg_current_wal_flush_lsn()"))


async def _between(connection: Connection, start: str, end: str) -> float:
    return float(await ask(connection, "SELECT pg_wal_lsn_diff(%(end)s, %(start)s)", start=start, end=end))


async def _filenode(connection: Connection, table: str) -> int:
    return int(await ask(connection, "SELECT pg_relation_filenode(%(table)s::regclass)", table=table))
