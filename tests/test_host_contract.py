"""What this plugin relies on in Chancy: a release that changes any of it fails here, with a sentence.

`pyproject.toml` allows the minor release that these hold for. To allow another one, install it, run this file, mend
what it names, and then run the whole suite: what a hook may do, and when it is called, is tested there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import chancy.hub
import chancy.migrate
import chancy.plugin
import pytest
from chancy import Chancy, QueuedJob, Worker
from chancy.plugins.api import Api
from chancy.plugins.api.plugin import ApiPlugin, RouteT
from chancy.plugins.metrics import Metrics as BuiltIn
from packaging.requirements import Requirement

from chancy_metrics.projections.rules.built_in import STATES

#: What we call or override -> the parameters it has to take.
CALLS: list[tuple[Callable[..., Any], set[str]]] = [
    (chancy.plugin.Plugin.run, {"worker", "chancy"}),
    (chancy.plugin.Plugin.cleanup, {"chancy"}),
    (chancy.plugin.Plugin.migrate, {"chancy", "to_version"}),
    (chancy.plugin.Plugin.migrator, {"chancy"}),
    (chancy.plugin.Plugin.on_worker_started, {"worker"}),
    (chancy.plugin.Plugin.on_worker_stopped, {"worker"}),
    (chancy.plugin.Plugin.on_job_updated, {"worker", "job"}),
    (chancy.plugin.Plugin.on_jobs_updated_in_transaction, {"worker", "jobs", "cursor"}),
    (chancy.hub.Hub.on, {"event", "f"}),
    (chancy.hub.Hub.remove, {"event", "handler"}),
    (chancy.hub.Hub.emit, {"event", "body"}),
    (chancy.migrate.Migrator.__init__, {"key", "migrations_package", "prefix"}),
    (chancy.migrate.Migrator.migrate, {"conn", "to_version"}),
    (chancy.migrate.Migrator.get_current_version, {"cursor"}),
    (chancy.migrate.Migration.up, {"migrator", "cursor"}),
    (chancy.migrate.Migration.down, {"migrator", "cursor"}),
    (ApiPlugin.__init__, {"api"}),
    (Worker.increment_counter, {"metric_key", "value", "unit"}),
    (Worker.record_gauge, {"metric_key", "value", "unit"}),
    (Worker.record_histogram_value, {"metric_key", "value", "unit"}),
]
#: The documented calls of the built-in plugin, which ours stands for.
BUILT_IN = [
    "increment_counter",
    "record_gauge",
    "record_histogram_value",
    "get_metrics",
    "list_metrics",
    "flush",
    "window",
    "retention",
    "cleanup",
    "get_tables",
    "on_job_updated",
    "on_worker_started",
    "on_worker_stopped",
    "run",
]
MEND = "chancy-metrics relies on it: see tests/test_host_contract.py"


@pytest.mark.parametrize(("call", "parameters"), CALLS, ids=[call.__qualname__ for call, _ in CALLS])
def test_what_we_call_or_override_takes_the_same_parameters(call: Callable[..., Any], parameters: set[str]) -> None:
    missing = parameters - set(inspect.signature(call).parameters)
    assert not missing, f"{call.__qualname__} of Chancy {version('chancy')} has no parameter {missing}. {MEND}"


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_built_in_plugin_has_the_calls_that_ours_stands_for(name: str) -> None:
    assert callable(getattr(BuiltIn, name, None)), f"Metrics.{name} is gone from Chancy {version('chancy')}. {MEND}"


def test_a_job_update_has_the_facts_that_the_log_keeps() -> None:
    relied_on = {"func", "queue", "state", "attempts", "max_attempts", "errors", "meta"}
    relied_on |= {"id", "created_at", "scheduled_at", "started_at", "completed_at"}
    missing = relied_on - {field.name for field in dataclasses.fields(QueuedJob)}

    assert not missing, f"QueuedJob of Chancy {version('chancy')} has no {missing}. {MEND}"
    assert {state.value for state in QueuedJob.State} == set(STATES), f"Chancy has other states of a job. {MEND}"


async def test_an_app_and_a_worker_have_the_members_that_we_read(dsn: str) -> None:
    app = Chancy(dsn, no_default_plugins=True)
    worker = Worker(app)

    for owner, name in [
        (app, "prefix"),
        (app, "dsn"),
        (app, "log"),
        (app, "plugins"),
        (app, "notifications"),
        (Chancy, "pool"),
        (worker, "worker_id"),
        (worker, "hub"),
        (worker, "manager"),
        (worker, "queue_update"),
        (worker, "flush"),
    ]:
        assert hasattr(owner, name), f"{type(owner).__name__}.{name} is gone from Chancy {version('chancy')}. {MEND}"
    assert isinstance(worker.is_leader, asyncio.Event), f"Worker.is_leader is no event any more. {MEND}"
    assert isinstance(app.plugins, dict), f"Chancy.plugins is no dict by identifier any more. {MEND}"


def test_our_plugin_has_the_identifier_of_the_built_in() -> None:
    assert BuiltIn.get_identifier() == "chancy.metrics", f"the built-in plugin has another identifier. {MEND}"


def test_the_api_takes_routes_of_plugins() -> None:
    assert set(RouteT.__annotations__) >= {"path", "endpoint", "methods", "name"}, MEND
    assert hasattr(Api, "build_starlette_app"), MEND


def test_the_installed_release_is_the_one_that_is_allowed() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    (host,) = (one for one in map(Requirement, project["dependencies"]) if one.name == "chancy")

    assert host.specifier.contains(version("chancy"))
    assert not host.specifier.contains("0.27.0"), "a newer Chancy is allowed than these were seen to hold for"
