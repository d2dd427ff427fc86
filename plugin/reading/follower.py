"""This process's copy of the shared cache: loaded in one snapshot, then followed fold by fold through the ring."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from logging import Logger
from typing import NamedTuple
from uuid import UUID

import numpy as np
import psycopg
from anyio import to_thread
from chancy import Chancy
from psycopg import sql

from chancy_metrics.events.database import Cursor, needs_schema, short_transaction
from chancy_metrics.events.errors import Damaged
from chancy_metrics.events.facts import Kind, Series
from chancy_metrics.events.schema import RESOLUTIONS, Tables, tables_for
from chancy_metrics.events.silent_server import Patience
from chancy_metrics.events.storable_text import storable, storable_worker
from chancy_metrics.plugin.host.connection import any_connection
from chancy_metrics.plugin.host.throttled_log import RateLimited
from chancy_metrics.plugin.reading.binary_copy import read_points
from chancy_metrics.plugin.reading.columns import Rows, put, rows_of, without_before
from chancy_metrics.plugin.reading.shown_keys import Names
from chancy_metrics.projections.rollups.delta_ring import ChangedPoints, unpack_points
from chancy_metrics.projections.versions.version import Version, live_version

#: Seconds without a read after which following ends.
IDLE_S = 300
#: Seconds to wait for the server at one look, or load; then its connection is given up.
ANSWER_S = 60

#: Resolution -> rows, for one series.
Tracks = dict[str, Rows]


class _RingPosition(NamedTuple):
    """Where a copy stands in the ring; the token tells a ring that was restored or swapped from the one it knew."""

    version: int
    fold: int
    token: UUID | None


class _News(NamedTuple):
    """What folds have changed past a copy's place, up to *place*."""

    changes: list[dict[str, ChangedPoints]]
    names: Mapping[int, Series]
    horizons: Mapping[str, int]
    place: _RingPosition


class Replica:
    """The merged points of the live version, by series number; a series is known while it has one.

    Attributes:
        horizons: Resolution -> start of the oldest bucket kept, seconds since 1970.
    """

    def __init__(self, place: _RingPosition, horizons: Mapping[str, int]) -> None:
        self.place = place
        self.horizons = horizons
        self.series = Names()
        self.tracks: dict[int, Tracks] = {}

    def put(self, changed: Mapping[str, ChangedPoints], names: Mapping[int, Series]) -> None:
        """Put changed points in, replacing those of the same bucket; a point without a name has expired since."""
        for resolution, points in changed.items():
            rows: dict[Kind, Rows] = {}
            for number, mine in _by_series(points):
                if number in names:
                    kind = names[number].kind
                    if kind not in rows:  # of all points at once: one by one takes twice as long
                        rows[kind] = rows_of(kind, points.bucket, points.values)
                    tracks = self.tracks.get(number, {})
                    # A new dict: whoever reads may have the one before.
                    self.tracks[number] = tracks | {resolution: put(tracks.get(resolution), rows[kind][mine])}

    def keep(self, names: Mapping[int, Series], horizons: Mapping[str, int]) -> None:
        """Let go of what lies below the horizons, and of the series that have nothing left."""
        if horizons != self.horizons:
            self.horizons = horizons
            for number, tracks in list(self.tracks.items()):
                self.tracks[number] = {
                    resolution: kept
                    for resolution, rows in tracks.items()
                    if len(kept := without_before(rows, horizons[resolution]))
                }
                if not self.tracks[number]:
                    del self.tracks[number]
        if self.tracks.keys() != self.series.keys():
            self.series = Names({number: names[number] for number in self.tracks})

    def after(self, news: _News) -> Replica:
        """Return what this becomes with what folds have changed; this one stays as it is, for those who read it."""
        later = Replica(self.place, self.horizons)
        later.series, later.tracks = self.series, dict(self.tracks)
        for points in news.changes:
            later.put(points, news.names)
        later.keep(news.names, news.horizons)
        later.series.under(None)  # their keys are put in order here, and not by whoever reads first
        later.place = news.place
        return later

    def become(self, later: Replica) -> None:
        """Take over everything of *later* at once."""
        self.place, self.horizons, self.series, self.tracks = later.place, later.horizons, later.series, later.tracks


class Reader:
    """Keeps one `Replica` for as long as somebody reads."""

    def __init__(
        self, chancy: Chancy, poll_interval: Callable[[], float], log: Logger, *, idle_s: float = IDLE_S
    ) -> None:
        self._chancy = chancy
        self._poll_interval = poll_interval
        self._idle_s = idle_s
        self._copy: Replica | None = None
        self._task: asyncio.Task[None] | None = None
        self._loading: asyncio.Task[Replica] | None = None
        self._began_at = 0.0
        self._wakeup = asyncio.Event()
        self._lock = asyncio.Lock()
        self._read_at = 0.0
        self._patience = Patience(ANSWER_S)
        self._warnings = RateLimited(log)

    def begin(self) -> None:
        """Load the copy in the background, unless it is there; what fails is tried again by whoever asks."""
        if not self.following and self._loading is None:
            self._began_at = time.monotonic()
            self._loading = asyncio.create_task(self.copy(), name="metrics_load")
            self._loading.add_done_callback(self._loaded)

    async def copy_soon(self, within_s: float) -> Replica | None:
        """Return the copy if it is there within so many seconds of the beginning of its load; None until then."""
        self.begin()
        if self._loading is None:
            return await self.copy()
        await asyncio.wait({loading := self._loading}, timeout=max(0.0, self._began_at + within_s - time.monotonic()))
        return loading.result() if loading.done() else None

    def _loaded(self, loading: asyncio.Task[Replica]) -> None:
        self._loading = None
        if loading.cancelled():
            return
        if (error := loading.exception()) is None:
            _freeze()
        else:
            self._warnings.warn("load", f"the metrics cache could not be loaded: {type(error).__name__}: {error}")

    async def copy(self) -> Replica:
        """Return the copy; the first call loads it, later ones ask the database nothing."""
        self._read_at = time.monotonic()
        if not self.following:
            await self._chancy.pool.open()  # as Chancy's own calls do; a closed app's pool is not opened again
            async with self._lock:
                if not self.following:
                    await self._refresh()
                    self._task = asyncio.create_task(self._follow_for_a_while(), name="metrics_reader")
        assert self._copy is not None
        return self._copy

    @property
    def following(self) -> bool:
        """Whether the copy is kept up to date."""
        return self._task is not None and not self._task.done()

    def wake(self) -> None:
        """A fold was announced."""
        self._wakeup.set()

    @property
    def loop_ended(self) -> bool:
        """Whether this reader belongs to an event loop that has ended."""
        return self._task is not None and self._task.get_loop().is_closed()

    async def refresh(self) -> None:
        """Bring the copy up to date: with what the ring has since, or by loading anew."""
        async with self._lock:  # an older snapshot must not be applied after a newer one
            await self._refresh()

    async def _refresh(self) -> None:
        try:
            await self._load_or_follow()
        except psycopg.OperationalError:  # a standby cancels what is in its way; a pool may hold a dead connection
            await self._load_or_follow()

    async def _load_or_follow(self) -> None:
        tables = tables_for(self._chancy.prefix)
        news = None
        async with any_connection(self._chancy) as connection:
            with needs_schema(tables), self._patience.waiting(connection):
                async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
                    if self._copy is not None:
                        news = await self._follow(cursor, tables, self._copy)
                    if news is None:
                        self._copy = await _load(cursor, tables)
        if news is not None and self._copy is not None:
            # In a thread, as the load: where 20,000 series change or expire at once, it takes half a second.
            self._copy.become(await to_thread.run_sync(self._copy.after, news))

    async def _follow(self, cursor: Cursor, tables: Tables, copy: Replica) -> _News | None:
        """Return what brings *copy* up to date; None if nothing does. What is damaged in the ring is named."""
        try:
            return await _follow(cursor, tables, copy)
        except Damaged as error:
            self._warnings.warn("ring", f"the metrics cache is loaded again from the rollups: {error}")
            return None

    async def _follow_for_a_while(self) -> None:
        pool = self._chancy.pool
        while time.monotonic() - self._read_at < self._idle_s:
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
    cursor: Cursor, tables: Tables, worker: str | None, prefix: str | None
) -> tuple[Names, dict[int, Tracks]]:
    """Read the points of one worker, or for None of all together, from the rollups, in the caller's snapshot.

    The series are those from which keys under *prefix* come, whether this worker has points of them or not.
    """
    if "\x00" in f"{prefix}{worker}":
        return Names(), {}  # PostgreSQL's text holds no NUL
    version = await live_version(cursor, tables)
    series = await _names_near(cursor, tables, version, prefix)
    copy = Replica(_RingPosition(version.version, 0, None), version.horizons)
    number = 0 if worker is None else await _worker_number(cursor, tables, worker)
    if number is not None and series:
        where = sql.SQL(
            "r.version = {version} AND r.worker = {worker} AND r.bucket >= {horizon} AND r.series = ANY({series})"
        )
        await _read_levels(cursor, tables, copy, series, where, worker=number, series=list(series))
    return Names(series), copy.tracks


async def _worker_number(cursor: Cursor, tables: Tables, worker: str) -> int | None:
    await cursor.execute(
        sql.SQL("SELECT id FROM {workers} WHERE name = %(name)s").format(workers=tables.workers),
        {"name": storable_worker(cursor, worker)},
    )
    row = await cursor.fetchone()
    return None if row is None else int(row[0])


async def _load(cursor: Cursor, tables: Tables) -> Replica:
    version = await live_version(cursor, tables)
    await cursor.execute(
        sql.SQL("SELECT version, fold, token FROM {cache} ORDER BY fold DESC LIMIT 1").format(cache=tables.cache)
    )
    row = await cursor.fetchone()
    place = (
        _RingPosition(*row)
        if row and row[0] == version.version
        else _RingPosition(version.version, version.folds, None)
    )
    copy = Replica(place, version.horizons)
    series = await _names(cursor, tables, None)
    where = sql.SQL("r.version = {version} AND r.worker = 0 AND r.bucket >= {horizon}")
    await _read_levels(cursor, tables, copy, series, where)
    await to_thread.run_sync(copy.keep, series, version.horizons)
    return copy


async def _read_levels(
    cursor: Cursor,
    tables: Tables,
    copy: Replica,
    known: Mapping[int, Series],
    where: sql.SQL,
    **values: object,
) -> None:
    for resolution in RESOLUTIONS:
        values |= {"version": copy.place.version, "horizon": copy.horizons[resolution]}
        points = await read_points(cursor, tables, resolution, where, values)
        # In a thread: of a hundred thousand series this takes seconds.
        await to_thread.run_sync(copy.put, {resolution: points}, known)


async def _follow(cursor: Cursor, tables: Tables, copy: Replica) -> _News | None:
    """Read what the ring has past the copy's place; None if the ring does not go on from there.

    Raises:
        Damaged: What it has there is nothing a fold wrote.
    """
    place = copy.place
    await cursor.execute(
        sql.SQL(
            """
            SELECT c.version, c.fold, c.token, CASE WHEN c.fold > %(fold)s THEN c.points END,
                v.version, v.folds, v.horizon_1min, v.horizon_5min, v.horizon_1hour, v.horizon_1day
            FROM {head} h
            JOIN {versions} v
                ON v.version = h.live
            LEFT JOIN {cache} c
                ON c.fold >= %(fold)s
            ORDER BY c.fold
            """
        ).format(head=tables.head, versions=tables.versions, cache=tables.cache),
        {"fold": place.fold},
        binary=True,
    )
    rows = await cursor.fetchall()
    if not rows:
        return None
    version, folds, *horizons = rows[0][4:]
    ring = [(_RingPosition(*row[:3]), row[3]) for row in rows if row[1] is not None]
    if place.token is not None and (not ring or ring.pop(0)[0] != place):
        return None
    # Nothing may be missing between the copy and the version.
    if version != place.version or len(ring) != folds - place.fold:
        return None
    if any((of.version, of.fold) != (version, place.fold + step) for step, (of, _) in enumerate(ring, 1)):
        return None
    changes, numbers = await to_thread.run_sync(_unpack, ring)
    known: Mapping[int, Series] = copy.series
    if missing := sorted(numbers - copy.series.keys()):
        known = {**copy.series, **await _names(cursor, tables, missing)}
    return _News(changes, known, dict(zip(RESOLUTIONS, horizons, strict=True)), ring[-1][0] if ring else place)


def _unpack(ring: list[tuple[_RingPosition, bytes]]) -> tuple[list[dict[str, ChangedPoints]], set[int]]:
    """Return what each fold has changed, and the numbers of the series in all of it."""
    changes = [unpack_points(points, f"fold {of.fold} of the shared cache") for of, points in ring]
    numbers = {int(one) for changed in changes for points in changed.values() for one in np.unique(points.series)}
    return changes, numbers


async def read_names(cursor: Cursor, tables: Tables) -> Names:
    """Return all series that have a name, also those without points."""
    return Names(await _names(cursor, tables, None))


async def _names(cursor: Cursor, tables: Tables, numbers: list[int] | None) -> dict[int, Series]:
    await cursor.execute(
        sql.SQL(
            "SELECT id, key, kind, unit FROM {series} WHERE %(ids)s::integer[] IS NULL OR id = ANY(%(ids)s)"
        ).format(series=tables.series),
        {"ids": numbers},
    )
    return {row[0]: Series(*row[1:]) for row in await cursor.fetchall()}


async def _names_near(cursor: Cursor, tables: Tables, version: Version, prefix: str | None) -> dict[int, Series]:
    """Return the known series at, below and above *prefix*.

    Above too: of a key's series with several types or units, all but one have their type and unit behind the key.
    """
    has_point = sql.SQL(" OR ").join(
        sql.SQL(
            """
            EXISTS (
                SELECT 1
                FROM {rollup} r
                WHERE r.version = %(version)s
                    AND r.worker = 0
                    AND r.series = s.id
                    AND r.bucket >= {horizon}
            )
            """
        ).format(rollup=tables.rollup(resolution), horizon=sql.Literal(version.horizons[resolution]))
        for resolution in RESOLUTIONS
    )
    await cursor.execute(
        sql.SQL(
            """
            SELECT s.id, s.key, s.kind, s.unit
            FROM {series} s
            WHERE (
                %(prefix)s::text IS NULL
                OR s.key = %(prefix)s
                OR starts_with(s.key, %(prefix)s || ':')
                OR starts_with(%(prefix)s, s.key || ':')
            )
                AND ({has_point})
            """
        ).format(series=tables.series, has_point=has_point),
        {"prefix": storable(cursor, prefix) if prefix else None, "version": version.version},
    )
    return {row[0]: Series(*row[1:]) for row in await cursor.fetchall()}


@cache
def _freeze() -> None:
    """Take what is in memory now out of the garbage collector's full rounds, once in a process.

    Only for a process that serves the page, whose requests bring on such a round many times a minute: of 20,000 series
    each stopped every thread for 60 ms, and found nothing, since a copy has no cycles. What is let go of later is freed
    by its reference count, as before. Only a cycle that is there now stays: those that nobody holds any more go first.
    """
    gc.collect()
    gc.freeze()


def _by_series(points: ChangedPoints) -> Iterator[tuple[int, slice]]:
    """Split points, which come by series, at each new series."""
    if not len(points.series):
        return
    starts = np.flatnonzero(np.concatenate(([True], points.series[1:] != points.series[:-1]))).tolist()
    for start, end in zip(starts, [*starts[1:], len(points.series)], strict=True):
        yield int(points.series[start]), slice(start, end)
