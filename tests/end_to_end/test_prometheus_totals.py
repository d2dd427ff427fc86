"""A real Prometheus over a cluster that is killed, rebuilt and pruned: no counter falls, and none misses an update."""

from __future__ import annotations

import signal
from pathlib import Path

import anyio
import httpx
import pytest

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from tests.commands import run, serving
from tests.factories import an_app
from tests.faults.test_workers_killed import a_worker, push_load, until_saved
from tests.faults.truth import install_truth
from tests.plugin.http.test_scrape import samples
from tests.plugin.telemetry.test_exposition import CLASSIC
from tests.plugin.worker.test_retention import an_old_day
from tests.scraping import Found, scraping

COUNTERS = ("chancy_jobs_total", "chancy_queue_jobs_total", "chancy_queue_throughput_total", "chancy_all_jobs_total")
THROUGHPUT = "chancy_queue_throughput_total{queue='load'}"


async def test_no_counter_falls_or_misses_an_update_whatever_happens(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await install_truth(connection)
    await an_old_day(connection, tables)
    async with an_app(dsn, Metrics()) as (chancy, _):
        await push_load(chancy, 5_000)
    with serving(dsn) as (url, _), scraping(tmp_path / "p", url, native=True, every_s=0.5) as server:
        async with a_worker(dsn, 1) as first:
            await until_saved(connection, 50)
            server.until("sum(chancy_jobs_total) > bool 0")
            created = created_at(url)
            await until_saved(connection, 200)
            first.kill()
        async with a_worker(dsn, 1) as second:
            await until_saved(connection, 100)
            assert run(dsn, "rebuild").returncode == 0
            await until_saved(connection, 100)
            assert "dropped" in run(dsn, "prune").stdout
            assert run(dsn, "undo").returncode == 0
            await until_saved(connection, 100)
            second.send_signal(signal.SIGTERM)
            with anyio.fail_after(30):
                await second.wait()
        assert run(dsn, "fold").returncode == 0

        saved = await saved_by_series(connection)
        server.until("sum(chancy_jobs_total)", sum(saved.values()))
        counters = {name: server.query(f"resets({name}[5m])") for name in COUNTERS}
        shown = server.query("sum by (func, state) (chancy_jobs_total) > 0")
        (first_s, first_value), *_, (last_s, _) = server.samples(THROUGHPUT)
        # A range that begins and ends with a scrape is not extrapolated.
        increase = server.value(f"increase({THROUGHPUT}[{round((last_s - first_s) * 1_000)}ms])", last_s)
        dips = server.value("sum(resets(histogram_count(chancy_queue_execution_seconds)[5m:500ms]))")
        old = server.value("app_old_total")
        assert created and created_at(url, created) == created

    assert shown == saved
    assert {value for found in counters.values() for value in found.values()} == {0} and dips == 0
    assert increase == pytest.approx(sum(saved.values()) - first_value, abs=1e-6)
    assert old == 1


async def saved_by_series(connection: Connection) -> Found:
    cursor = await connection.execute("SELECT func, state, count(*) FROM truth GROUP BY func, state")
    return {(("func", func), ("state", state)): count for func, state, count in await cursor.fetchall()}


def created_at(url: str, like: dict[str, float] | None = None) -> dict[str, float]:
    """Since when each counter and histogram counts, of those in *like* if that is given."""
    found = samples(httpx.get(url, headers={"Accept": CLASSIC}).text)
    return {name: value for name, value in found.items() if "_created{" in name and (like is None or name in like)}
