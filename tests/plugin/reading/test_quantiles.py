"""Quantiles over a range: of all its values, and none where a point can't say which values it has."""

from __future__ import annotations

import random

import pytest

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.reading import quantiles as quantiles_module
from chancy_metrics.plugin.reading.quantiles import Quantiles, read_quantiles
from chancy_metrics.projections.grid import BucketRange
from tests.factories import LogWriter, a_run, fetch, now_us, sequence_and_fold

MINUTE_US = 60_000_000
#: The sketch's error.
ERROR = 0.0055


@pytest.fixture
async def values(connection: Connection, tables: Tables) -> dict[int, list[float]]:
    """Values of two histograms in four minutes, of which the first lies before the range, by the number of a series."""
    chance = random.Random(5)
    writer = LogWriter(connection, tables)
    recorded: dict[str, list[float]] = {"app:a": [], "app:b": []}
    for key, minutes_ago in [(key, minutes) for key in recorded for minutes in (5, 3, 2, 1)]:
        found = [chance.lognormvariate(minutes_ago, 1) for _ in range(40)]
        run = a_run(key, found, kind="histogram", unit="seconds", at_us=begin_us() - minutes_ago * MINUTE_US)
        await writer.append(runs=[run])
        if minutes_ago < 5:
            recorded[key] += found
    await sequence_and_fold(connection, tables)
    return {
        number: recorded[key]
        for number, key in await fetch(connection, "SELECT id, key FROM {series} WHERE kind = 'histogram'", tables)
    }


def begin_us() -> int:
    """Start of the current minute."""
    return now_us() // MINUTE_US * MINUTE_US


async def read(connection: Connection, tables: Tables, values: dict[int, list[float]]) -> dict[int, Quantiles]:
    end_s = begin_us() // 1_000_000
    async with short_transaction(connection) as cursor:
        return await read_quantiles(cursor, tables, [*values, 999_999], BucketRange("1min", end_s - 240, end_s))


@pytest.mark.parametrize("chunk", [1, 2_000])
async def test_they_are_those_of_all_values_however_many_are_read_at_once(
    connection: Connection,
    tables: Tables,
    values: dict[int, list[float]],
    monkeypatch: pytest.MonkeyPatch,
    chunk: int,
) -> None:
    monkeypatch.setattr(quantiles_module, "_CHUNK_ROWS", chunk)

    found = await read(connection, tables, values)

    assert found.keys() == values.keys()
    for number, those in values.items():
        exact = [sorted(those)[rank - 1] for rank in (60, 114, 119)]  # of 120: the 50th, 95th and 99th percentile
        assert list(found[number]) == pytest.approx(exact, rel=ERROR)


@pytest.mark.parametrize("sketch", ["NULL", "'\\x93'"])
async def test_a_point_without_a_sound_sketch_leaves_its_series_without_quantiles(
    connection: Connection, tables: Tables, values: dict[int, list[float]], sketch: str
) -> None:
    first, second = values
    changed = "UPDATE {r1min} SET sketch = " + sketch + " WHERE series = %(first)s RETURNING 1"
    assert await fetch(connection, changed, tables, first=first)

    assert (await read(connection, tables, values)).keys() == {second}
