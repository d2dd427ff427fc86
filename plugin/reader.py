"""This process's copy of the shared cache: loaded in one snapshot, then followed fold by fold through the ring."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from logging import Logger
from typing import NamedTuple
from uuid import UUID

import numpy as np
from chancy import Chancy
from psycopg import AsyncCursor, sql
from psycopg.rows import TupleRow

from chancy_metrics.events.facts import Series
from chancy_metrics.events.log import short_transaction
from chancy_metrics.events.schema import RESOLUTIONS, Tables, tables
from chancy_metrics.projections.ring import ChangedPoints, unpack_points
from chancy_metrics.projections.versions import live_version

from .copying import read_points
from .limited_log import RateLimited
from .tracks import Rows, put, rows_of

#: Seconds without a read after which following ends.
IDLE_S = 300

#: Resolution -> rows, for one series.
Tracks = dict[str, Rows]


class _Place(NamedTuple):
    """Where a copy stands in the ring; the token tells a ring that was restored or swapped from the one it knew."""

    version: int
    fold: int
    token: UUID | None


class Copy:
    """The merged points of the live version, by series number."""

    def __init__(self, place: _Place) -> None:
        self.place = place
        self.series: dict[int, Series] = {}
        self.tracks: dict[int, Tracks] = {}

    def learn(self, series: Mapping[int, Series]) -> None:
        """Add names; a series that was cleaned up and came again under a new number leaves its old one."""
        again = {one: number for number, one in series.items()}
        for number, one in list(self.series.items()):
            if again.get(one, number) != number:
                del self.series[number]
                self.tracks.pop(number, None)
        self.series.update(series)

    def put(self, resolution: str, points: ChangedPoints) -> None:
        """Put changed points in, replacing those of the same bucket."""
        for number, mine in _by_series(points):
            series = self.series.get(number)
            if series is not None:
                tracks = self.tracks.setdefault(number, {})
                rows = rows_of(series.kind, points.bucket[mine], points.values[mine])
                tracks[resolution] = put(tracks.get(resolution), rows)


class Reader:
    """Keeps one `Copy` for as long as somebody reads."""

    def __init__(self, chancy: Chancy, poll_interval: Callable[[], float], log: Logger) -> None:
        self._chancy = chancy
        self._poll_interval = poll_interval
        self._copy: Copy | None = None
        self._task: asyncio.Task[None] | None = None
        self._wakeup = asyncio.Event()
        self._loading = asyncio.Lock()
        self._read_at = 0.0
        self._warnings = RateLimited(log)

    async def copy(self) -> Copy:
        """Return the copy; the first call loads it, later ones ask the database nothing."""
        self._read_at = time.monotonic()
        if self._task is None or self._task.done():
            await self._chancy.pool.open()  # as Chancy's own calls do; a closed app's pool is not opened again
        if self._copy is None or self._task is None or self._task.done():
            async with self._loading:
                if self._copy is None or self._task is None or self._task.done():
                    await self.refresh()
                    self._task = asyncio.create_task(self._follow_for_a_while(), name="metrics_reader")
        assert self._copy is not None
        return self._copy

    def wake(self) -> None:
        """A fold was announced."""
        self._wakeup.set()

    @property
    def loop_ended(self) -> bool:
        """Whether this reader belongs to an event loop that has ended."""
        return self._task is not None and self._task.get_loop().is_closed()

    async def refresh(self) -> None:
        """Bring the copy up to date: with what the ring has since, or by loading anew."""
        names = tables(self._chancy.prefix)
        async with (
            self._chancy.pool.connection() as connection,
            short_transaction(connection, isolation="REPEATABLE READ") as cursor,
        ):
            if self._copy is None or not await _follow(cursor, names, self._copy):
                self._copy = await _load(cursor, names)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _follow_for_a_while(self) -> None:
        pool = self._chancy.pool
        while time.monotonic() - self._read_at < IDLE_S and not pool.closed:
            try:
                async with asyncio.timeout(self._poll_interval()):
                    await self._wakeup.wait()
            except TimeoutError:
                pass
            self._wakeup.clear()
            if pool.closed:
                break  # the app was closed; a later read of it opens a new pool
            try:
                await self.refresh()
            except Exception as error:  # readers go on with what they have until the database is back
                self._warnings.warn(
                    "follow", f"the metrics cache could not be followed: {type(error).__name__}: {error}"
                )
        self._copy = None


async def read_worker(
    cursor: AsyncCursor[TupleRow], names: Tables, worker: str, prefix: str | None
) -> tuple[dict[int, Series], dict[int, Tracks]]:
    """Read the points of one worker, of the series under *prefix*, from the rollups; in the caller's snapshot."""
    version = await live_version(cursor, names)
    await cursor.execute(
        sql.SQL(
            """
            SELECT id, key, kind, unit
            FROM {series}
            WHERE %(prefix)s::text IS NULL
                OR key = %(prefix)s
                OR starts_with(key, %(prefix)s || ':')
            """
        ).format(series=names.series),
        {"prefix": prefix or None},
    )
    copy = Copy(_Place(version.version, 0, None))
    copy.series = {row[0]: Series(*row[1:]) for row in await cursor.fetchall()}
    await cursor.execute(
        sql.SQL("SELECT id FROM {workers} WHERE name = %(name)s").format(workers=names.workers), {"name": worker}
    )
    row = await cursor.fetchone()
    if row is not None and copy.series:
        where = sql.SQL(
            "r.version = {version} AND r.worker = {worker} AND r.bucket >= {horizon} AND r.series = ANY({series})"
        )
        await _read_levels(cursor, names, copy, where, version.horizons, worker=row[0], series=list(copy.series))
    return copy.series, copy.tracks


async def _load(cursor: AsyncCursor[TupleRow], names: Tables) -> Copy:
    version = await live_version(cursor, names)
    await cursor.execute(
        sql.SQL("SELECT version, fold, token FROM {cache} ORDER BY fold DESC LIMIT 1").format(cache=names.cache)
    )
    row = await cursor.fetchone()
    copy = Copy(_Place(*row) if row and row[0] == version.version else _Place(version.version, version.folds, None))
    copy.learn(await _names(cursor, names, None))
    where = sql.SQL("r.version = {version} AND r.worker = 0 AND r.bucket >= {horizon}")
    await _read_levels(cursor, names, copy, where, version.horizons)
    return copy


async def _read_levels(
    cursor: AsyncCursor[TupleRow],
    names: Tables,
    copy: Copy,
    where: sql.SQL,
    horizons: Mapping[str, int],
    **values: object,
) -> None:
    for resolution in RESOLUTIONS:
        values |= {"version": copy.place.version, "horizon": horizons[resolution]}
        copy.put(resolution, await read_points(cursor, names, resolution, where, values))


async def _follow(cursor: AsyncCursor[TupleRow], names: Tables, copy: Copy) -> bool:
    """Apply what the ring has past the copy's place; False if the ring does not go on from there."""
    place = copy.place
    await cursor.execute(
        sql.SQL(
            """
            SELECT h.live, c.version, c.fold, c.token, CASE WHEN c.fold > %(fold)s THEN c.points END
            FROM {head} h
            LEFT JOIN {cache} c
                ON c.fold >= %(fold)s
            ORDER BY c.fold
            """
        ).format(head=names.head, cache=names.cache),
        {"fold": place.fold},
        binary=True,
    )
    rows = await cursor.fetchall()
    if not rows or rows[0][0] != place.version:
        return False
    known = [row for row in rows if row[2] is not None]
    if place.token is not None:
        if not known or (known[0][2], known[0][3]) != (place.fold, place.token):
            return False
        known = known[1:]
    elif known and known[0][2] != place.fold + 1:
        return False
    if any(row[1] != place.version for row in known):
        return False
    for _, version, number, token, data in known:
        changed = unpack_points(data)
        numbers = {int(one) for points in changed.values() for one in np.unique(points.series)}
        if missing := sorted(numbers - copy.series.keys()):
            copy.learn(await _names(cursor, names, missing))
        for resolution, points in changed.items():
            copy.put(resolution, points)
        copy.place = _Place(version, number, token)
    return True


async def _names(cursor: AsyncCursor[TupleRow], names: Tables, numbers: list[int] | None) -> dict[int, Series]:
    await cursor.execute(
        sql.SQL(
            "SELECT id, key, kind, unit FROM {series} WHERE %(ids)s::integer[] IS NULL OR id = ANY(%(ids)s)"
        ).format(series=names.series),
        {"ids": numbers},
    )
    return {row[0]: Series(*row[1:]) for row in await cursor.fetchall()}


def _by_series(points: ChangedPoints) -> Iterator[tuple[int, slice]]:
    """Split points, which come by series, at each new series."""
    if not len(points.series):
        return
    starts = np.flatnonzero(np.concatenate(([True], points.series[1:] != points.series[:-1]))).tolist()
    for start, end in zip(starts, [*starts[1:], len(points.series)], strict=True):
        yield int(points.series[start]), slice(start, end)
