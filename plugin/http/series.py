"""Find series and workers: search the keys page by page, and read the points of one."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple
from weakref import WeakKeyDictionary

import msgspec
import numpy as np
from chancy import Chancy
from numpy.typing import NDArray
from psycopg import sql

from chancy_metrics.events.database import Cursor, short_transaction
from chancy_metrics.events.facts import Kind, Series
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.audit.find_series import UnknownSeries
from chancy_metrics.plugin.host.app import options_of
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.http.limits import room, work
from chancy_metrics.plugin.reading.history import has_kept, kept_since
from chancy_metrics.plugin.reading.load import read_directly, read_names, read_recorded
from chancy_metrics.plugin.reading.readers import reader_of
from chancy_metrics.plugin.reading.replica import Replica, SeriesColumns
from chancy_metrics.plugin.reading.series_index import Listed, SeriesIndex, place
from chancy_metrics.plugin.reading.shown_keys import Names
from chancy_metrics.projections.grid import BucketRange

#: Seconds a request waits for the replica of the cache to be loaded; then it asks the database.
SOON_S = 1.0


class ListedSeries(msgspec.Struct, frozen=True):
    """A series with points."""

    key: str
    type: Kind
    unit: str


class SeriesPage(msgspec.Struct, frozen=True):
    """Some series, by key.

    Attributes:
        matching: Number of series on all pages.
        next: The `after` of the next page; None on the last one.
    """

    series: list[ListedSeries]
    matching: int
    next: str | None


class WorkersPage(msgspec.Struct, frozen=True):
    """Ids of some workers with kept points; *next* as in `SeriesPage`."""

    workers: list[str]
    next: str | None


async def list_series(
    chancy: Chancy, prefix: str | None, search: str | None = None, *, after: str | None, limit: int
) -> SeriesPage:
    """Return series whose key starts with *prefix*, even within a segment, and has each word of *search*.

    From this process's replica of the cache; while that is being loaded, all known series count.
    """
    index = await index_of(chancy)
    return await work(chancy, _page, index, prefix or "", (search or "").split(), after, limit)


def _page(index: SeriesIndex, begin: str, words: Sequence[str], after: str | None, limit: int) -> SeriesPage:
    found = index.find(begin, words)
    first = 0 if after is None else bisect_right(found, place(after), key=place)
    page = found[first : first + limit]
    more = len(found) > first + limit
    return SeriesPage([ListedSeries(*index.series(key)) for key in page], len(found), page[-1] if more else None)


class _Indexed(NamedTuple):
    """An index, and what it was made of: a fold or an expired bucket may remove series."""

    fold: int
    kept: tuple[int, ...]
    series: asyncio.Task[SeriesIndex]


_indexes: WeakKeyDictionary[Replica, _Indexed] = WeakKeyDictionary()


async def index_of(chancy: Chancy) -> SeriesIndex:
    """Return the index of series with points now; it is made once for all requests between two folds."""
    replica = await reader_of(chancy).replica_soon(SOON_S)
    if replica is None:
        async with room(chancy), bounded_connection(chancy) as connection, short_transaction(connection) as cursor:
            names = await read_names(cursor, tables_for(chancy.prefix))
        return await work(chancy, _index, names)
    kept = kept_since(options_of(chancy))
    at = (replica.position.fold, tuple(kept.values()))
    indexed = _indexes.get(replica)
    if indexed is None or indexed[:2] != at or _has_failed(indexed.series):
        making = asyncio.create_task(
            work(chancy, _index_kept, replica.series, replica.columns, kept), name="metrics_index"
        )
        indexed = _indexes[replica] = _Indexed(*at, making)
    return await asyncio.shield(indexed.series)  # other requests wait for it, too


def _has_failed(making: asyncio.Task[SeriesIndex]) -> bool:
    return making.done() and (making.cancelled() or making.exception() is not None)


def _index(names: Names) -> SeriesIndex:
    return SeriesIndex(Listed(key, names[number].kind, names[number].unit) for key, number in names.under(None))


def _index_kept(names: Names, columns: Mapping[int, SeriesColumns], kept: Mapping[str, int]) -> SeriesIndex:
    return SeriesIndex(
        Listed(key, names[number].kind, names[number].unit)
        for key, number in names.under(None)
        if has_kept(columns.get(number, {}), kept)
    )


async def list_workers(chancy: Chancy, *, after: str | None, limit: int) -> WorkersPage:
    tables = tables_for(chancy.prefix)
    async with room(chancy), bounded_connection(chancy) as connection, short_transaction(connection) as cursor:
        await cursor.execute(
            sql.SQL(
                """
                SELECT name
                FROM {workers}
                WHERE id <> 0
                    AND (%(after)s::text IS NULL OR name > %(after)s)
                ORDER BY name
                LIMIT %(limit)s
                """
            ).format(workers=tables.workers),
            {"after": after, "limit": limit + 1},
        )
        workers = [row[0] for row in await cursor.fetchall()]
    return WorkersPage(workers[:limit], workers[limit - 1] if len(workers) > limit else None)


class Found(NamedTuple):
    """A series, its points of all workers together, and the buckets of a window in which any series has a point."""

    series: Series
    columns: SeriesColumns
    recorded: NDArray[np.int64]


async def find_points(chancy: Chancy, key: str, within: BucketRange) -> Found:
    """Return the series that *key* shows, with its points.

    Raises:
        UnknownSeries: It has none; the message has the keys that come near.
    """
    replica = await reader_of(chancy).replica_soon(SOON_S)
    if replica is None:
        names, columns, recorded = await _all_points_in_rollups(chancy, key, within)
    else:
        names, columns, recorded = replica.series, replica.columns, replica.recorded[within.resolution]
    number = names.number_of(key)
    found = {} if number is None else columns.get(number, {})
    if number is None or not has_kept(found, kept_since(options_of(chancy))):
        near = await work(chancy, (await index_of(chancy)).near, key)
        like = f"; like it are {', '.join(map(repr, near))}" if near else ""
        raise UnknownSeries(f"there is no series {key!r}{like}: GET …/series lists them")
    return Found(names[number], found, recorded)


async def find_worker_points(chancy: Chancy, key: str, worker_id: str, within: BucketRange) -> SeriesColumns:
    """Return one worker's points of the series that *key* shows, of those buckets; {} if it has none."""
    async with _snapshot(chancy) as cursor:
        names, columns = await read_directly(cursor, tables_for(chancy.prefix), worker_id, key, within=within)
    number = names.number_of(key)
    return {} if number is None else columns.get(number, {})


async def _all_points_in_rollups(
    chancy: Chancy, key: str, within: BucketRange
) -> tuple[Names, dict[int, SeriesColumns], NDArray[np.int64]]:
    tables = tables_for(chancy.prefix)
    async with _snapshot(chancy) as cursor:
        names, columns = await read_directly(cursor, tables, None, key)
        return names, columns, await read_recorded(cursor, tables, within)


@asynccontextmanager
async def _snapshot(chancy: Chancy) -> AsyncIterator[Cursor]:
    async with (
        room(chancy),
        bounded_connection(chancy) as connection,
        short_transaction(connection, isolation="REPEATABLE READ") as cursor,
    ):
        yield cursor
