"""The log folded once more, and what that differs in from what is stored: the one check behind every check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from anyio import to_thread
from psycopg import AsyncConnection, AsyncCursor, sql
from psycopg.rows import TupleRow

from chancy_metrics.events.facts import Series
from chancy_metrics.events.ledger import read_ledger
from chancy_metrics.events.log import read_batches, short_transaction
from chancy_metrics.events.partitions import gone_days
from chancy_metrics.events.schema import Tables

from .cells import Cells, concatenate, kept_of, merge
from .fold import Fold, fold
from .numbers import renumber
from .rules import BUILT_IN, RuleSet
from .sketch import encode_many, starts_of
from .stored import read_cells
from .versions import OPENING, Version, live_version

_PIECE = 500


class Point(NamedTuple):
    """One point of a projection, spelled out.

    Attributes:
        worker: Worker id; None in the points that hold all workers.
        tally: How many observations.
        bucket: Start of the bucket, seconds since 1970.
        last: Latest value of a gauge, else None.
        sketch: Encoded quantile sketch of a merged histogram, else b"".
    """

    resolution: str
    worker: str | None
    series: Series
    bucket: int
    tally: int
    sum: Decimal
    minimum: float
    maximum: float
    last_us: int
    last: float | None
    sketch: bytes


class Difference(NamedTuple):
    """A point that two projections do not agree on; None where one does not have it."""

    resolution: str
    worker: str | None
    series: Series
    bucket: int
    old: Point | None
    new: Point | None

    def __str__(self) -> str:
        where = f"{self.series.key} {self.resolution} {self.bucket} worker {self.worker or 'all'}"
        if self.old is None or self.new is None:
            return f"{where}: only in the {'new' if self.old is None else 'old'}"
        changed = [
            f"{name} {old!r} -> {new!r}"
            for name, old, new in zip(Point._fields, self.old, self.new, strict=True)
            if old != new
        ]
        return f"{where}: {', '.join(changed)}"


async def replay(
    connection: AsyncConnection[TupleRow], tables: Tables, rules: RuleSet = BUILT_IN, *, until: int | None = None
) -> list[Point]:
    """Fold the whole log again upon the opening, up to the live version's position (or *until*).

    Reads in one snapshot; memory grows with the points, not with the events. Leaves out what lies below the live
    version's horizons, and its dead letters.
    """
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        version = await live_version(cursor, tables)
        end = version.position if until is None else until
        total = Sum()
        await to_thread.run_sync(total.add, await read_cells(cursor, tables, OPENING, version.horizons))
        await replay_into(total, cursor, tables, rules, version, until=end)
    return points_of(total.fold(), version.horizons)


async def replay_into(
    total: Sum,
    cursor: AsyncCursor[TupleRow],
    tables: Tables,
    rules: RuleSet,
    version: Version,
    *,
    after: int = 0,
    until: int,
    day: date | None = None,
) -> None:
    """Add the log's batches past position *after* and up to *until* to *total*, as *version* would fold them.

    Leaves out the version's dead letters and what is in the opening.

    Args:
        day: Only batches of this day of the log.
    """
    dead = await _dead_letters(cursor, tables, version.version)
    gone = await gone_days(cursor, tables)
    while rows := await read_ledger(cursor, tables, after=after, limit=_PIECE, until=until):
        after = rows[-1].position
        places = [
            (row.position, row.batch_id)
            for row in rows
            if row.position not in dead and row.batch_id.day not in gone and day in (None, row.batch_id.day)
        ]
        if places:
            batches = await read_batches(cursor, tables, places)
            total.add(await to_thread.run_sync(fold, batches, rules))


async def stored(connection: AsyncConnection[TupleRow], tables: Tables) -> list[Point]:
    """Return what the live version holds."""
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        version = await live_version(cursor, tables)
        return points_of(await read_cells(cursor, tables, version.version, version.horizons), version.horizons)


def diff(old: Iterable[Point], new: Iterable[Point]) -> list[Difference]:
    """Return where two projections differ, exactly, sorted by place; [] if they are the same."""
    olds = {point[:4]: point for point in old}
    news = {point[:4]: point for point in new}
    places = sorted(olds.keys() | news.keys(), key=lambda place: (place[0], place[1] or "", *place[2:]))
    return [
        Difference(*place, olds.get(place), news.get(place)) for place in places if olds.get(place) != news.get(place)
    ]


class Sum:
    """Folds added up, in numbers of its own."""

    def __init__(self) -> None:
        self._events = 0
        self._workers: dict[str, int] = {}
        self._series: dict[Series, int] = {}
        self._levels: dict[str, Cells] = {}
        self._counts = Counter[str]()
        self._dead: dict[int, str] = {}

    def add(self, part: Fold) -> None:
        self._events += part.events
        self._counts.update(part.counts)
        self._dead.update(part.dead)
        workers = [self._workers.setdefault(name, len(self._workers) + 1) for name in part.workers]
        series = [self._series.setdefault(one, len(self._series)) for one in part.series]
        for resolution, cells in renumber(part.levels, series, workers).items():
            mine = [self._levels[resolution]] if resolution in self._levels else []
            self._levels[resolution] = merge(concatenate([*mine, cells]))

    def fold(self) -> Fold:
        """All of it as one fold."""
        return Fold(self._events, list(self._workers), list(self._series), self._levels, self._counts, self._dead)


def points_of(folded: Fold, horizons: Mapping[str, int]) -> list[Point]:
    """Spell out a fold's points, without those below the horizons."""
    return [
        point
        for resolution, cells in kept_of(folded.levels, horizons).items()
        for point in _points(resolution, cells, [None, *folded.workers], folded.series)
    ]


def _points(resolution: str, cells: Cells, workers: list[str | None], series: list[Series]) -> list[Point]:
    starts = starts_of(cells.sketches.owner, cells.rows)
    sketches = encode_many(starts, cells.sketches.codes, cells.sketches.counts)
    lengths = (starts[1:] - starts[:-1]).tolist()
    return [
        Point(
            resolution,
            workers[worker],
            series[number],
            bucket,
            count,
            cells.sum_of(row),
            minimum,
            maximum,
            last_us,
            None if last != last else last,
            sketches[row] if lengths[row] else b"",
        )
        for row, (worker, number, bucket, count, minimum, maximum, last_us, last) in enumerate(
            zip(
                cells.worker.tolist(),
                cells.series.tolist(),
                cells.bucket.tolist(),
                cells.tally.tolist(),
                cells.minimum.tolist(),
                cells.maximum.tolist(),
                cells.last_us.tolist(),
                cells.last.tolist(),
                strict=True,
            )
        )
    ]


async def _dead_letters(cursor: AsyncCursor[TupleRow], tables: Tables, version: int) -> set[int]:
    await cursor.execute(
        sql.SQL("SELECT position FROM {dead} WHERE version = %(version)s").format(dead=tables.dead_letters),
        {"version": version},
    )
    return {row[0] for row in await cursor.fetchall()}
