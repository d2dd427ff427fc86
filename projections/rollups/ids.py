"""Assign the integer ids that stand for series and worker names in the rollups; an id never changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import NamedTuple, TypeVar

import numpy as np
from anyio import to_thread
from psycopg import sql

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.fold.cells import ALL_WORKERS, Cells, merge
from chancy_metrics.projections.fold.fold import Fold
from chancy_metrics.projections.rollups.arrays import Array, texts

_Name = TypeVar("_Name", Series, str)


class Numbered(NamedTuple):
    """A fold's cells with the database's ids, sorted by them; and those ids."""

    cells: dict[str, Cells]
    series: list[int]
    workers: list[int]


async def number(connection: Connection, tables: Tables, folded: Fold) -> Numbered:
    """Replace a fold's numbers by the database's ids, and insert new names in transactions of their own."""
    if not folded.cells:
        return Numbered({}, [], [])
    by_series = await number_series(connection, tables, folded.series)
    by_name = await number_workers(connection, tables, folded.workers)
    series = [by_series[one] for one in folded.series]
    workers = [by_name[name] for name in folded.workers]
    return Numbered(await to_thread.run_sync(renumber, folded.cells, series, workers), series, workers)


def renumber(levels: Mapping[str, Cells], series: Sequence[int], workers: Sequence[int]) -> dict[str, Cells]:
    """Return *levels* with other numbers: `series[i]` for series i, `workers[i]` for worker i + 1."""
    series_numbers, worker_numbers = np.array(series, np.int64), np.array([ALL_WORKERS, *workers], np.int64)
    return {
        resolution: merge(cells._replace(worker=worker_numbers[cells.worker], series=series_numbers[cells.series]))
        for resolution, cells in levels.items()
    }


async def number_series(connection: Connection, tables: Tables, series: Sequence[Series]) -> dict[Series, int]:
    """Return the number of each series, and give new ones a number.

    New ones are inserted in a transaction of their own: inside a fold, two folds with the same new series would wait
    for each other.
    """
    insert = sql.SQL(
        """
        INSERT INTO {series} (key, kind, unit)
        SELECT *
        FROM unnest(%(keys)s::text[], %(kinds)s::text[], %(units)s::text[])
        ON CONFLICT DO NOTHING
        """
    ).format(series=tables.series)
    find = partial(_find_series, connection, tables)
    return await _find_or_insert(connection, tables.series, series, find, insert, _columns)


async def number_workers(connection: Connection, tables: Tables, workers: Sequence[str]) -> dict[str, int]:
    """Return the number of each worker id, and give new ones a number; like `number_series`."""
    insert = sql.SQL("INSERT INTO {workers} (name) SELECT unnest(%(names)s::text[]) ON CONFLICT DO NOTHING").format(
        workers=tables.workers
    )
    find = partial(_find_workers, connection, tables)
    return await _find_or_insert(connection, tables.workers, workers, find, insert, _names)


async def _find_or_insert(
    connection: Connection,
    table: sql.Identifier,
    wanted: Sequence[_Name],
    find: Callable[[Sequence[_Name]], Awaitable[dict[_Name, int]]],
    insert: sql.Composed,
    parameters: Callable[[Cursor, Sequence[_Name]], Mapping[str, Array]],
) -> dict[_Name, int]:
    """Find the numbers of names, insert those without one, and find again, until each has its number.

    One pass does, unless the clean-up deletes a new name before it has a point.
    """
    known = await find(wanted)
    for attempt in count():
        if not (missing := sorted(set(wanted) - known.keys())):
            break
        if attempt:
            await _catch_up(connection, table)
        async with short_transaction(connection) as cursor:
            await cursor.execute(insert, parameters(cursor, missing))
        known |= await find(missing)
    return known


async def still_numbered(cursor: Cursor, tables: Tables, series: Sequence[int], workers: Sequence[int]) -> bool:
    """Whether all these ids still exist: the clean-up deletes unused ones, but not under the lock of the caller."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT (SELECT count(*) FROM {series} WHERE id = ANY(%(series)s)),
                (SELECT count(*) FROM {workers} WHERE id = ANY(%(workers)s))
            """
        ).format(series=tables.series, workers=tables.workers),
        {"series": list(series), "workers": list(workers)},
    )
    return await cursor.fetchone() == (len(series), len(workers))


async def _catch_up(connection: Connection, table: sql.Identifier) -> None:
    """Raise a table's sequence past the ids in the table.

    It is behind after a restore of data alone or a switch-over by logical replication, and each insert would then only
    try as many taken ids as there are new names.
    """
    async with short_transaction(connection) as cursor:
        await cursor.execute(
            sql.SQL(
                """
                SELECT setval(s.name, max(t.id))
                FROM {table} t
                CROSS JOIN (SELECT pg_get_serial_sequence(%(table)s, 'id')::regclass) AS s (name)
                GROUP BY s.name
                HAVING max(t.id) > coalesce(pg_sequence_last_value(s.name), 0)
                """
            ).format(table=table),
            {"table": table.as_string(cursor)},
        )


async def _find_series(connection: Connection, tables: Tables, series: Sequence[Series]) -> dict[Series, int]:
    async with short_transaction(connection) as cursor:
        await cursor.execute(
            sql.SQL(
                """
                SELECT s.key, s.kind, s.unit, s.id
                FROM unnest(%(keys)s::text[], %(kinds)s::text[], %(units)s::text[]) AS wanted (key, kind, unit)
                JOIN {series} s
                    ON s.key = wanted.key
                    AND s.kind = wanted.kind
                    AND s.unit = wanted.unit
                """
            ).format(series=tables.series),
            _columns(cursor, series),
        )
        return {Series(*row[:3]): row[3] for row in await cursor.fetchall()}


async def _find_workers(connection: Connection, tables: Tables, workers: Sequence[str]) -> dict[str, int]:
    async with short_transaction(connection) as cursor:
        await cursor.execute(
            sql.SQL("SELECT name, id FROM {workers} WHERE name = ANY(%(names)s::text[])").format(
                workers=tables.workers
            ),
            _names(cursor, workers),
        )
        return dict(await cursor.fetchall())


def _columns(cursor: Cursor, series: Sequence[Series]) -> dict[str, Array]:
    keys, kinds, units = zip(*series, strict=True) if series else ((), (), ())
    return {"keys": texts(cursor, keys), "kinds": texts(cursor, kinds), "units": texts(cursor, units)}


def _names(cursor: Cursor, workers: Sequence[str]) -> dict[str, Array]:
    return {"names": texts(cursor, workers)}
