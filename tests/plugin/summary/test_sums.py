"""What a series comes to in a window is what all its observations there come to, at whatever resolution they are."""

from __future__ import annotations

import pytest

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.reading.load import read_names
from chancy_metrics.plugin.summary.sums import read_quantiles, read_sums
from chancy_metrics.projections.grid import BucketRange, bucket_ranges
from chancy_metrics.projections.versions.version import live_version
from tests.factories import fetch
from tests.feeder import Feeder


async def test_sums_and_quantiles_are_those_of_all_observations(connection: Connection, tables: Tables) -> None:
    feeder = Feeder(connection, tables)
    await feeder.gauge("app:g", {5: 4.0, 190: 9.0, 3: 7.0, 2: 6.0, 2_000: 1.0, 9_000: 50.0})
    await feeder.histogram("app:h", {2_000: [1.0] * 90, 190: [2.0] * 5, 3: [3.0] * 4, 2: [4.0], 9_000: [99.0] * 50})
    await feeder.fold()
    await feeder.expire()

    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        version = await live_version(cursor, tables)
        numbers = {series.key: number for number, series in (await read_names(cursor, tables)).items()}
        parts = bucket_ranges(version.horizons, feeder.minute(4_000) // 1_000_000, feeder.minute(0) // 1_000_000)
        found = await read_sums(cursor, tables, version.version, parts, list(numbers.values()))
        p95 = await read_quantiles(cursor, tables, version.version, parts, {numbers["app:h"]: found[numbers["app:h"]]})

    gauge, histogram = found[numbers["app:g"]], found[numbers["app:h"]]
    assert len({one.resolution for one in parts}) >= 3
    assert (gauge.observations, gauge.minimum, gauge.maximum, gauge.last) == (5, 1.0, 9.0, 6.0)
    assert gauge.last_us == feeder.minute(2)
    assert (histogram.observations, histogram.sum, histogram.last) == (100, 90 + 10 + 12 + 4, None)
    assert p95 == {numbers["app:h"]: pytest.approx(2.0, rel=0.0055)}


async def test_a_damaged_sketch_makes_the_quantiles_of_its_series_unknown(
    connection: Connection, tables: Tables
) -> None:
    feeder = Feeder(connection, tables)
    await feeder.histogram("app:damaged", {3: [1.0], 2: [2.0]})
    await feeder.histogram("app:sound", {3: [1.0], 2: [2.0]})
    await feeder.fold()
    await fetch(
        connection,
        r"UPDATE {r1min} SET sketch = '\xff' WHERE bucket = %(minute)s"
        " AND series = (SELECT id FROM {series} WHERE key = 'app:damaged')",
        tables,
        minute=feeder.minute(2) // 60_000_000 * 60,
    )

    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        version = await live_version(cursor, tables)
        numbers = {series.key: number for number, series in (await read_names(cursor, tables)).items()}
        parts = [BucketRange("1min", feeder.minute(10) // 1_000_000, feeder.minute(0) // 1_000_000)]
        sums = await read_sums(cursor, tables, version.version, parts, list(numbers.values()))
        p95 = await read_quantiles(cursor, tables, version.version, parts, sums)

    assert sums[numbers["app:damaged"]].observations == 2
    assert p95 == {numbers["app:sound"]: pytest.approx(2.0, rel=0.0055)}
