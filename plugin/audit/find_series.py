"""Find the series that is shown under a key, or say which keys come near."""

from __future__ import annotations

from difflib import get_close_matches

from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.facts import Kind, Series
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.storable_text import storable
from chancy_metrics.plugin.reading.shown_keys import shown_keys

#: Keys that are compared for a suggestion.
_NEAR_KEYS = 5_000


class UnknownSeries(MetricsLogError):
    """There is no such series, or the key stands for several."""


async def find_series(cursor: Cursor, tables: Tables, key: str, kind: Kind | None, unit: str | None) -> Series:
    """Return the series that is shown under *key*."""
    found = await _like(cursor, tables, key)
    wanted = {
        number: series
        for number, series in found.items()
        if series.key == key and kind in (None, series.kind) and unit in (None, series.unit)
    }
    if wanted:
        return wanted[min(wanted)]
    shown = shown_keys(found)
    if key in shown and kind is None and unit is None:
        return found[shown[key]]
    if any(series.key == key for series in found.values()):
        kinds = ", ".join(f"{one.kind} in {one.unit}" for one in found.values() if one.key == key)
        asked = (kind or "points") if unit is None else f"{kind or 'points'} in {unit!r}"
        raise UnknownSeries(f"{key!r} has no {asked}: there is {kinds}")
    raise UnknownSeries(f"nothing was recorded under {key!r}{await _near(cursor, tables, key)}")


async def _like(cursor: Cursor, tables: Tables, key: str) -> dict[int, Series]:
    """Return the series of *key* and of each shorter key it begins with, since type and unit may be appended to it."""
    segments = key.split(":")
    keys = [":".join(segments[: size + 1]).replace("\x00", "") for size in range(len(segments))]
    await cursor.execute(
        sql.SQL("SELECT id, key, kind, unit FROM {series} WHERE key = ANY(%(keys)s)").format(series=tables.series),
        {"keys": [storable(cursor, one) for one in keys]},
    )
    return {row[0]: Series(*row[1:]) for row in await cursor.fetchall()}


async def _near(cursor: Cursor, tables: Tables, key: str) -> str:
    await cursor.execute(
        sql.SQL("SELECT DISTINCT key FROM {series} ORDER BY key LIMIT %(limit)s").format(series=tables.series),
        {"limit": _NEAR_KEYS},
    )
    near = get_close_matches(key, [row[0] for row in await cursor.fetchall()], n=3)
    return f"; near are {', '.join(map(repr, near))}" if near else ""
