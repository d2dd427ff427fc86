"""Which series and workers there are, page by page."""

from __future__ import annotations

from difflib import get_close_matches

import msgspec
from chancy import Chancy
from psycopg import sql

from chancy_metrics.events.facts import Kind
from chancy_metrics.events.log import short_transaction
from chancy_metrics.events.schema import tables

from .explain import UnknownSeries
from .metrics import metrics_of
from .reading import reading
from .window import Metric


class ListedSeries(msgspec.Struct, frozen=True):
    """A series that has points."""

    key: str
    type: Kind
    unit: str


class SeriesPage(msgspec.Struct, frozen=True):
    """Some series, by key.

    Attributes:
        matching: How many there are on all pages.
        next: What `after` must be for the next page; None on the last one.
    """

    series: list[ListedSeries]
    matching: int
    next: str | None


class WorkersPage(msgspec.Struct, frozen=True):
    """Ids of some workers that points are kept of; *next* as of series."""

    workers: list[str]
    next: str | None


async def list_series(chancy: Chancy, prefix: str | None, *, after: str | None, limit: int) -> SeriesPage:
    """Return series whose key begins with *prefix*, also in the middle of a segment; from this process's copy."""
    begin = prefix or ""
    segments, colon, _ = begin.rpartition(":")
    found = await metrics_of(chancy).get_metrics(chancy, segments if colon else None)
    matching = [(key, metric) for key, metric in sorted(found.items()) if key.startswith(begin)]
    page = [(key, metric) for key, metric in matching if after is None or key > after][: limit + 1]
    return SeriesPage(
        [ListedSeries(key, metric.metric_type, metric.unit) for key, metric in page[:limit]],
        len(matching),
        page[limit - 1][0] if len(page) > limit else None,
    )


async def list_workers(chancy: Chancy, *, after: str | None, limit: int) -> WorkersPage:
    names = tables(chancy.prefix)
    async with reading(chancy) as connection, short_transaction(connection) as cursor:
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
            ).format(workers=names.workers),
            {"after": after, "limit": limit + 1},
        )
        workers = [row[0] for row in await cursor.fetchall()]
    return WorkersPage(workers[:limit], workers[limit - 1] if len(workers) > limit else None)


async def metric_of(chancy: Chancy, key: str) -> Metric:
    """Return the points of all workers of one series.

    Raises:
        UnknownSeries: It has none; the message has the keys that come near.
    """
    plugin = metrics_of(chancy)
    metric = (await plugin.get_metrics(chancy, key)).get(key)
    if metric is None:
        near = get_close_matches(key, await plugin.list_metrics(chancy), n=3)
        like = f"; like it are {', '.join(map(repr, near))}" if near else ""
        raise UnknownSeries(f"there is no series {key!r}{like}: GET …/series lists them")
    return metric
