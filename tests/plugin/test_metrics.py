"""The plugin's members: what Chancy and its users call."""

from __future__ import annotations

import logging
from decimal import Decimal

import pytest
from chancy import Chancy, Worker
from chancy.plugin import Plugin
from psycopg import sql

from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import InvalidObservation, PluginShared
from chancy_metrics.events.schema import MIGRATION_KEY, TABLES, Tables, tables_for
from chancy_metrics.plugin import Metrics, Observation, completeness
from tests.factories import a_host, a_job, an_app
from tests.plugin.recording.test_recorder import logged_values, read_log


async def test_what_one_worker_records_another_process_reads(dsn: str) -> None:
    async with a_host(dsn) as (worker, metrics), an_app(dsn) as (elsewhere, other):
        await metrics.increment_counter("app:orders", 2)
        await metrics.increment_counter("app:orders", 3)
        await metrics.record_gauge("app:slots", 7, unit="slots")
        await metrics.record_histogram_value("app:size", 0.5, unit="bytes")
        await metrics.flush(worker.chancy)

        found = await other.get_metrics(elsewhere, "app")

    assert {key: metric.values_1min[0][1] for key, metric in found.items() if key != "app:size"} == {
        "app:orders": 5.0,
        "app:slots": 7.0,
    }
    histogram = found["app:size"].values_1day[0][1]
    assert isinstance(histogram, dict)
    assert histogram == {"count": 1, "sum": 0.5, "avg": 0.5, "min": 0.5, "max": 0.5, "p50": 0.5, "p95": 0.5, "p99": 0.5}
    assert found["app:size"].unit == "bytes"


async def test_the_hubs_events_of_a_worker_are_stored_under_its_id(dsn: str) -> None:
    async with a_host(dsn) as (worker, metrics):
        await worker.increment_counter("app:steps", 2)
        await worker.record_gauge("app:level", 1)
        await worker.record_histogram_value("app:took", 0.25, unit="seconds")
        await metrics.flush(worker.chancy)

        mine = await metrics.get_metrics(worker.chancy, "app", worker.worker_id)

    assert sorted(mine) == ["app:level", "app:steps", "app:took"]
    assert mine["app:steps"].values_1min[0][1] == 2.0


async def test_a_hub_event_that_is_none_of_ours_is_counted_and_never_reaches_whoever_emitted_it(dsn: str) -> None:
    async with a_host(dsn) as (worker, metrics):
        for body in (None, [], {}, {"key": 1, "value": 1}, {"key": "app:x", "value": "many"}, {"key": ["x"]}):
            await worker.hub.emit("metrics.counter", body)
        await worker.hub.emit("metrics.counter", {"key": "app:good", "value": 1})
        await metrics.flush(worker.chancy)

        assert list(await metrics.get_metrics(worker.chancy, "app")) == ["app:good"]
        assert (await completeness(worker.chancy)).rejected == {"event": 2, "key": 3, "value": 1}


async def test_job_updates_make_the_built_ins_metrics_and_those_of_their_life(dsn: str) -> None:
    async with a_host(dsn) as (worker, metrics):
        await metrics.on_job_updated(worker=worker, job=a_job(func="app.work", queue="mail"))
        await metrics.flush(worker.chancy)

        found = await metrics.get_metrics(worker.chancy)

    assert {key: (metric.metric_type, metric.unit) for key, metric in found.items()} == {
        "global:status:succeeded": ("counter", "count"),
        "job:app.work:attempts": ("histogram", "attempts"),
        "job:app.work:execution_time": ("histogram", "seconds"),
        "job:app.work:succeeded": ("counter", "count"),
        "job:app.work:total_time": ("histogram", "seconds"),
        "job:app.work:wait_time": ("histogram", "seconds"),
        "queue:mail:execution_time": ("histogram", "seconds"),
        "queue:mail:succeeded": ("counter", "count"),
        "queue:mail:throughput": ("counter", "count"),
        "queue:mail:total_time": ("histogram", "seconds"),
        "queue:mail:wait_time": ("histogram", "seconds"),
    }
    took = found["job:app.work:execution_time"].values_1min[0][1]
    waited = found["job:app.work:wait_time"].values_1min[0][1]
    in_all = found["job:app.work:total_time"].values_1min[0][1]
    assert isinstance(took, dict) and isinstance(waited, dict) and isinstance(in_all, dict)
    assert (took["sum"], waited["sum"], in_all["sum"]) == (0.5, 1.0, 1.5)


async def test_an_invalid_observation_is_counted_and_does_not_raise(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    async with a_host(dsn) as (worker, metrics):
        with caplog.at_level(logging.WARNING, "chancy"):
            await metrics.increment_counter("app:bad", float("nan"))
            await metrics.increment_counter("app:bad", True)
        await metrics.increment_counter("app:bad", 1)
        await metrics.flush(worker.chancy)

        found = await metrics.get_metrics(worker.chancy, "app")

    assert found["app:bad"].values_1min[0][1] == 1.0
    assert len([record for record in caplog.records if record.name == "chancy"]) == 1
    assert "'app:bad'" in caplog.text and "nan" in caplog.text and "finite" in caplog.text


async def test_strict_raises_on_direct_calls(dsn: str) -> None:
    async with a_host(dsn, Metrics(strict=True)) as (worker, metrics):
        with pytest.raises(InvalidObservation, match=r"'app:bad'.*finite"):
            await metrics.record_gauge("app:bad", float("inf"))
        with pytest.raises(InvalidObservation, match="must be a string"):
            metrics.sync_increment_counter("", 1)
        await worker.increment_counter("app:bad", float("inf"))  # the hub's emitter is not the one to blame


async def test_an_observation_nobody_will_append_warns_once_and_is_kept_for_who_comes(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    with caplog.at_level(logging.WARNING, "chancy"):
        await metrics.increment_counter("app:early", 1)
        await metrics.increment_counter("app:early", 1)
    assert [record.message for record in caplog.records if "nobody appends" in record.message] == [
        caplog.records[0].message
    ]

    async with an_app(dsn, metrics) as (chancy, _), metrics.recording(chancy):
        await metrics.flush(chancy)
    async with an_app(dsn) as (chancy, other):
        await other.flush(chancy)
        assert (await other.get_metrics(chancy, "app"))["app:early"].values_1min[0][1] == 2.0


async def test_a_process_without_a_worker_records_in_a_block(dsn: str) -> None:
    async with an_app(dsn) as (chancy, metrics):
        async with metrics.recording(chancy, worker_id="web-1"):
            await metrics.increment_counter("app:requests", 3)
        await metrics.flush(chancy)

        assert (await metrics.get_metrics(chancy, "app", "web-1"))["app:requests"].values_1min[0][1] == 3.0


async def test_an_application_records_in_its_own_transaction(dsn: str, connection: Connection) -> None:
    async with an_app(dsn) as (chancy, metrics):
        async with connection.transaction():
            await metrics.record_in_transaction(
                chancy,
                connection.cursor(),
                Observation.counter("app:orders"),
                Observation.histogram("app:total", Decimal("9.5"), unit="euro"),
            )
        with pytest.raises(ZeroDivisionError):
            async with connection.transaction():
                await metrics.record_in_transaction(chancy, connection.cursor(), Observation.counter("app:orders"))
                raise ZeroDivisionError
        with pytest.raises(InvalidObservation):
            await metrics.record_in_transaction(chancy, connection.cursor(), Observation.counter("app:orders", "2"))  # type: ignore[arg-type]
        await metrics.flush(chancy)

        found = await metrics.get_metrics(chancy, "app")

    assert found["app:orders"].values_1min[0][1] == 1.0
    assert found["app:total"].unit == "euro"


async def test_two_workers_of_one_process_are_told_apart(dsn: str) -> None:
    async with an_app(dsn) as (chancy, metrics):
        workers = [Worker(chancy, worker_id=name, register_signal_handlers=False) for name in ("one", "two")]
        for worker in workers:
            await metrics.on_worker_started(worker=worker)
            await metrics.on_worker_started(worker=worker)
        for amount, worker in enumerate(workers, 1):
            await worker.increment_counter("app:x", amount)
        await metrics.flush(chancy)

        values = [
            (await metrics.get_metrics(chancy, "app:x", worker.worker_id))["app:x"].values_1min[0][1]
            for worker in workers
        ]
        together = (await metrics.get_metrics(chancy, "app:x"))["app:x"].values_1min[0][1]
        for worker in workers:
            await metrics.on_worker_stopped(worker=worker)
            await metrics.on_worker_stopped(worker=worker)

    assert (values, together) == ([1.0, 2.0], 3.0)


async def test_a_worker_that_stops_appends_its_buffer_and_closes_its_producers(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with a_host(dsn) as (worker, metrics):
        await metrics.increment_counter("app:last", 1)
    async with an_app(dsn) as (chancy, other):
        await other.flush(chancy)
        found = await other.get_metrics(chancy, "app")

    cursor = await connection.execute(sql.SQL("SELECT worker, closed FROM {}").format(tables.producers))
    assert await cursor.fetchall() == [(worker.worker_id, True)] * 2
    assert found["app:last"].values_1min[0][1] == 1.0


async def test_hooks_of_a_worker_that_never_started_work(dsn: str) -> None:
    async with an_app(dsn) as (chancy, metrics):
        worker = Worker(chancy, register_signal_handlers=False)
        await metrics.on_job_updated(worker=worker, job=a_job())
        await metrics.flush(chancy)

        assert "global:status:succeeded" in await metrics.get_metrics(chancy)
        await metrics.on_worker_stopped(worker=worker)


async def test_cleanup_deletes_what_expired_and_never_raises(dsn: str, empty_dsn: str) -> None:
    async with a_host(dsn, Metrics(maximum_metric_age=60)) as (worker, metrics):
        await metrics.increment_counter("app:x", 1)
        await metrics.flush(worker.chancy)
        assert await metrics.cleanup(worker.chancy) is None
    async with an_app(empty_dsn) as (chancy, metrics):
        assert await metrics.cleanup(chancy) is None


def test_the_plugin_names_itself_and_its_tables_as_chancy_asks() -> None:
    metrics = Metrics()

    assert type(metrics).__name__ == "Metrics"
    assert metrics.get_identifier() == "chancy.metrics"
    assert metrics.migrate_key() == MIGRATION_KEY == "metrics_log"
    assert metrics.migrate_package() == "chancy_metrics.migrations"
    assert metrics.api_plugin() == "chancy_metrics.plugin.http.dashboard.MetricsApiPlugin"
    assert metrics.get_tables() == list(TABLES)
    assert Chancy("postgresql://", plugins=[metrics]).plugins["chancy.metrics"] is metrics


async def test_one_plugin_in_two_apps_is_refused_at_the_second_start_and_the_first_goes_on(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    metrics = Metrics()
    other = Chancy(dsn, plugins=[metrics], prefix="other_")
    async with Chancy(dsn, plugins=[metrics]) as app, other:
        await other.migrate()
        async with Worker(app, register_signal_handlers=False), Worker(app, register_signal_handlers=False):
            await metrics.increment_counter("app:x", 1)
            with pytest.raises(PluginShared, match=r"another Chancy app already \(prefix 'chancy_'\)"):
                await Worker(other, register_signal_handlers=False).start()
            with pytest.raises(PluginShared, match="give each app a Metrics of its own"):
                async with metrics.recording(other):
                    pass
            with pytest.raises(PluginShared), metrics.sync_recording(other):
                pass
            await metrics.increment_counter("app:x", 2)
        async with metrics.recording(other):  # one behind the other is as good as one
            await metrics.increment_counter("app:x", 30)

    log = [value for written in await read_log(connection, tables) for value in logged_values([written], "app:x")]
    assert sorted(log) == [1, 2]
    assert logged_values(await read_log(connection, tables_for("other_")), "app:x") == [30]


async def test_an_app_that_was_closed_without_its_workers_end_stands_in_no_other_ones_way(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    metrics = Metrics()
    async with Chancy(dsn, plugins=[metrics]) as failed:
        await metrics.on_worker_started(worker=Worker(failed, register_signal_handlers=False))

    async with Chancy(dsn, plugins=[metrics]) as app, Worker(app, register_signal_handlers=False):
        await metrics.increment_counter("app:x", 1)

    assert logged_values(await read_log(connection, tables), "app:x") == [1]


class Fails(Plugin):
    """A plugin whose first start fails, behind ours."""

    failed = False

    @staticmethod
    def get_identifier() -> str:
        return "test.fails"

    async def on_worker_started(self, *, worker: Worker) -> None:
        if not self.failed:
            self.failed = True
            raise ConnectionRefusedError("not yet")


@pytest.mark.slow
async def test_direct_calls_go_to_the_worker_that_runs_and_not_to_one_whose_start_has_failed(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with an_app(dsn, plugins=[Fails()]) as (app, metrics):
        with pytest.raises(ConnectionRefusedError):
            await Worker(app, register_signal_handlers=False).start()
        async with Worker(app, register_signal_handlers=False):
            await metrics.increment_counter("app:x", 1)

    assert logged_values(await read_log(connection, tables), "app:x") == [1]
