"""What DuckDB makes of exported events is what the projector made of the log."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import anyio
import duckdb
import pytest

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.fold.exact_sum import to_float
from chancy_metrics.projections.versions.replay import stored
from examples.parquet_fold import fold
from tests.factories import NOON_US, LogWriter, a_row, a_run, sequence_and_fold
from tests.plugin.audit.test_audit_events import audit

#: (resolution, worker or None, key, kind, unit, bucket) -> (count, last_us, sum, min, max, last)
Rollups = dict[tuple[Any, ...], tuple[Any, ...]]
DAY_US = 86_400_000_000


async def points_of(connection: Connection, tables: Tables) -> Rollups:
    return {
        (one.resolution, one.worker, *one.series, one.bucket): (
            *(one.observations, one.last_us, to_float(one.sum), one.minimum, one.maximum, one.last),
        )
        for one in await stored(connection, tables)
    }


def folded(folder: Path) -> Rollups:
    with duckdb.connect() as database:
        return {row[:6]: row[6:] for row in fold(database, str(folder)).fetchall()}


async def some_jobs(connection: Connection, tables: Tables, chance: random.Random) -> None:
    """Of two workers and of two days; some never ran, some started before they were due, some are tried again."""
    for worker in ("w1", "w2"):
        rows = []
        for number in range(300):
            at_us = NOON_US + chance.randrange(2 * DAY_US)
            run_us, wait_us = int(chance.lognormvariate(11, 2)), int(chance.lognormvariate(10, 2)) - 5_000
            state = chance.choice(["succeeded"] * 8 + ["failed", "retrying"])
            row = a_row(at_us, state=state, func=f"app.work_{number % 7}", scheduled_us=at_us - run_us - wait_us)
            row = row._replace(
                combo=row.combo._replace(queue=f"queue {number % 3}"),
                created_us=at_us - run_us - wait_us,
                started_us=None if number % 20 == 0 else at_us - run_us,
                completed_us=None if state == "retrying" else at_us,
            )
            rows.append(row)
        for start in range(0, len(rows), 100):
            await LogWriter(connection, tables, worker).append(jobs=rows[start : start + 100])


async def test_job_updates_come_to_the_same_numbers_to_the_last_bit(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await some_jobs(connection, tables, random.Random(1))
    await sequence_and_fold(connection, tables)
    assert audit(dsn, "events", "--after", "0", "--parquet", str(tmp_path / "log")).returncode == 0

    rollups = folded(tmp_path / "log")

    assert rollups == await points_of(connection, tables)
    assert {key[0] for key in rollups} == set(RESOLUTIONS)
    assert {key[1] for key in rollups} == {"w1", "w2", None}


async def test_observations_do_too_but_for_the_rounding_of_their_sums(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    chance = random.Random(1)
    for worker in ("w1", "w2"):
        writer = LogWriter(connection, tables, worker)
        for number in range(20):
            at_us = NOON_US + number // 2 * 20_000_000
            values = [round(chance.lognormvariate(0, 3), 3) for _ in range(50)]
            await writer.append(
                runs=[
                    a_run("app:money", values, unit="euro", at_us=at_us),
                    a_run("app:open", values[:3], kind="gauge", unit="number", at_us=at_us),
                    a_run("app:took", [0.1 * value for value in values], kind="histogram", unit="number", at_us=at_us),
                ]
            )
    await sequence_and_fold(connection, tables)
    assert audit(dsn, "events", "--after", "0", "--parquet", str(tmp_path / "log")).returncode == 0

    rollups, expected = folded(tmp_path / "log"), await points_of(connection, tables)

    def without_sum(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return values[:2] + values[3:]

    assert {key: without_sum(values) for key, values in rollups.items()} == {
        key: without_sum(values) for key, values in expected.items()
    }
    for key, values in rollups.items():
        assert values[2] == pytest.approx(expected[key][2], rel=1e-15, abs=0), key


async def test_the_script_writes_one_parquet_file(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await LogWriter(connection, tables).append(jobs=[a_row()])
    await sequence_and_fold(connection, tables)
    assert audit(dsn, "events", "--after", "0", "--parquet", str(tmp_path / "log")).returncode == 0

    await anyio.run_process(
        [sys.executable, "examples/parquet_fold.py", tmp_path / "log", tmp_path / "rollups.parquet"]
    )

    count = f"SELECT count(*) FROM '{tmp_path / 'rollups.parquet'}'"
    assert duckdb.sql(count).fetchall() == [(len(await points_of(connection, tables)),)]
