"""From the built-in plugin to ours and back, on one database."""

from __future__ import annotations

import os
import subprocess
import sys

import psycopg
from chancy import Chancy
from chancy.plugins.metrics import Metrics as BuiltIn

from tests.factories import an_app


def chancy_cli(dsn: str, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "chancy.cli.cli", "--app", "tests.app.chancy", *arguments],
        env=os.environ | {"DSN": dsn},
        check=True,
        capture_output=True,
    )


def our_tables(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relname LIKE 'chancy_metric%' AND relkind IN ('r', 'p')"
        ).fetchall()
    return {row[0] for row in rows} - {"chancy_metrics", "chancy_metric_definitions"}


async def record_with_built_in(dsn: str) -> None:
    built_in = BuiltIn()
    async with Chancy(dsn, plugins=[built_in]) as chancy:
        await chancy.migrate()
        await built_in.increment_counter("app:old", 1)
        await built_in.flush(chancy)


async def test_a_database_of_the_built_in_takes_ours_and_goes_back(empty_dsn: str) -> None:
    await record_with_built_in(empty_dsn)

    chancy_cli(empty_dsn, "misc", "migrate")
    async with an_app(empty_dsn) as (chancy, metrics):
        async with metrics.recording(chancy):
            await metrics.increment_counter("app:new", 1)
        await metrics.flush(chancy)
        assert list(await metrics.get_metrics(chancy, "app")) == ["app:new"]

    chancy_cli(empty_dsn, "misc", "migrate", "--plugin", "Metrics", "-t", "0")
    assert our_tables(empty_dsn) == set()
    await record_with_built_in(empty_dsn)
    built_in = BuiltIn()
    async with Chancy(empty_dsn, plugins=[built_in]) as chancy:
        assert await chancy.is_up_to_date()
        assert (await built_in.get_metrics(chancy, "app"))["series"]["app:old"].summary == 2.0


async def test_ours_can_come_back_after_it_was_removed(dsn: str) -> None:
    chancy_cli(dsn, "misc", "migrate", "--plugin", "Metrics", "-t", "0")
    chancy_cli(dsn, "misc", "migrate")

    async with an_app(dsn) as (chancy, metrics):
        async with metrics.recording(chancy):
            await metrics.increment_counter("app:again", 1)
        await metrics.flush(chancy)
        assert list(await metrics.get_metrics(chancy)) == ["app:again"]
