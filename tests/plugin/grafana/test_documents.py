"""What docs/grafana.md and examples/grafana tell to copy works as it stands there."""

from __future__ import annotations

import re

import pytest
import yaml
from psycopg import AsyncConnection

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin.grafana import postgres, prometheus
from tests.factories import LogWriter, a_row, a_run, now_us, sequence_and_fold
from tests.plugin.grafana.interpolation import interpolate_sql
from tests.processes import ROOT
from tests.roles import ROLES, as_role

DOCUMENT = (ROOT / "docs" / "grafana.md").read_text()
PROVISIONING = ROOT / "examples" / "grafana" / "provisioning"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.S)


async def answer_as(dsn: str, role: str, query: str) -> list[tuple[object, ...]]:
    async with await AsyncConnection.connect(as_role(dsn, role), autocommit=True) as connection:
        return await (await connection.execute(query.encode())).fetchall()


async def test_a_reader_can_run_the_examples(
    dsn: str, roles: tuple[str, ...], connection: Connection, tables: Tables
) -> None:
    now_s = now_us() // 1_000_000
    row, run = a_row(now_s * 1_000_000, func="app.mail"), a_run("orders:placed", [2.0], at_us=now_s * 1_000_000)
    await LogWriter(connection, tables).append(jobs=[row], runs=[run])
    await sequence_and_fold(connection, tables)
    sent = interpolate_sql(blocks("text")[0], {}, {}, now_s - 3_600, now_s, 60)

    quantiles, placed, [longest] = [
        await answer_as(dsn, roles[ROLES.index("reader")], one) for one in sent.strip().split(";\n")
    ]

    assert [row[1:] for row in quantiles] == [(pytest.approx(0.5, rel=0.01),) * 3]
    assert [value for _, value in placed] == [2]
    assert longest[:2] == ("app.mail", 1)


async def test_a_scaler_gets_one_number_by_each_query(dsn: str, roles: tuple[str, ...], connection: Connection) -> None:
    await connection.execute(
        "INSERT INTO chancy_jobs (id, queue, func, state, scheduled_at) SELECT gen_random_uuid(), 'mail', 'app.mail',"
        " state, now() - interval '90 seconds' FROM unnest(ARRAY['pending', 'retrying', 'running']) AS state"
    )
    scaled, authentication = yaml.safe_load_all(blocks("yaml")[0])
    queries = [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]]

    [due], [wait], [unfinished] = [
        await answer_as(dsn, roles[ROLES.index("scaler")], query) for query in [*queries, blocks("sql")[0]]
    ]

    assert (due, wait, unfinished) == ((2,), (91,), (3,))
    assert scaled["kind"] == "ScaledObject" and authentication["kind"] == "TriggerAuthentication"
    for trigger in scaled["spec"]["triggers"]:
        assert trigger["type"] == "postgresql"
        assert float(trigger["metadata"]["targetQueryValue"]) > 0
        assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]


def test_the_provisioned_data_sources_are_those_of_the_dashboards() -> None:
    [sources] = yaml.safe_load_all((PROVISIONING / "datasources" / "chancy.yaml").read_text())
    [boards] = yaml.safe_load_all((PROVISIONING / "dashboards" / "chancy.yaml").read_text())

    assert sources["apiVersion"] == boards["apiVersion"] == 1
    dashboards = (postgres.dashboard(tables_for("chancy_")), prometheus.dashboard())
    assert [(one["type"], one["uid"], one["name"]) for one in sources["datasources"]] == [
        (one.plugin, one.uid, one.source) for one in dashboards
    ]
    assert sources["datasources"][0]["user"] in ROLES
    [provider] = boards["providers"]
    assert (provider["type"], provider["options"]["path"]) == ("file", "/var/lib/grafana/dashboards/chancy")
    for name in ("DB_HOST", "DB_NAME", "DB_SSLMODE", "READER_PASSWORD", "PROMETHEUS_URL"):
        assert f"$CHANCY_{name}" in str(sources) and f"`CHANCY_{name}`" in DOCUMENT
    assert provider["options"]["path"] in DOCUMENT
