"""The dashboards are whole: what their JSON names is there, and every query of theirs runs and answers right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg.rows import dict_row

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin import mark
from chancy_metrics.plugin.grafana import postgres, prometheus
from chancy_metrics.plugin.grafana.panels import PANELS
from tests.commands import run
from tests.factories import LogWriter, a_row, a_run, an_app, fetch, now_us, sequence_and_fold
from tests.plugin.grafana.interpolation import Chosen, interpolate_sql

DASHBOARDS: dict[str, Any] = {
    "postgres": postgres.dashboard(tables_for("chancy_")).to_json(),
    "prometheus": prometheus.dashboard().to_json(),
}
#: What Grafana gives by itself.
BUILT_IN = {"__interval", "__interval_ms", "__rate_interval", "__range", "__unixEpochFrom", "__unixEpochTo"}
#: `$1` is of a regular expression: no variable has such a name.
BUILT_IN |= {"__unixEpochFilter", "__timeFilter", "__all", "__field", "1"}
FUNC = 'app.it\'s "odd"'


def parts_of(value: Any) -> Iterator[Any]:
    yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from parts_of(part)


@pytest.mark.parametrize("kind", DASHBOARDS)
def test_a_dashboard_names_only_what_is_there(kind: str) -> None:
    dashboard = DASHBOARDS[kind]
    declared = {one["name"] for one in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard)))

    assert used - BUILT_IN <= declared
    assert declared - {"datasource"} <= used
    sources = [part["datasource"] for part in parts_of(dashboard) if isinstance(part, dict) and "datasource" in part]
    plugin = {"postgres": "grafana-postgresql-datasource", "prometheus": "prometheus"}[kind]
    assert sources and all(source == {"type": plugin, "uid": "${datasource}"} for source in sources)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids) == len(PANELS)
    for panel in dashboard["panels"]:
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
        assert panel["description"].endswith(".")


def test_installations_of_other_prefixes_have_dashboards_of_their_own() -> None:
    made = [postgres.dashboard(tables_for(prefix)).to_json() for prefix in ("chancy_", "second_", "third_")]

    assert len({one["uid"] for one in made}) == 3 and all(len(one["uid"]) <= 40 for one in made)
    assert [one["title"] for one in made] == [
        "Chancy jobs (PostgreSQL)",
        "Chancy jobs (PostgreSQL), second_",
        "Chancy jobs (PostgreSQL), third_",
    ]
    assert len({one["templating"]["list"][0]["current"]["value"] for one in made}) == 1


def test_no_two_panels_lie_on_one_another() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARDS["postgres"]["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23


def queries_of(dashboard: Any) -> dict[str, str]:
    """Panel -> SQL; also those of the variables and of the marks."""
    panels = {panel["title"]: panel["targets"][0]["rawSql"] for panel in dashboard["panels"]}
    variables = {one["name"]: one["query"] for one in dashboard["templating"]["list"] if one["type"] == "query"}
    return panels | variables | {"marks": dashboard["annotations"]["list"][0]["target"]["rawSql"]}


async def answers(
    connection: Connection, chosen: Chosen, since_s: int, until_s: int, interval_s: int
) -> dict[str, list[dict[str, Any]]]:
    dashboard = DASHBOARDS["postgres"]
    variables = {one["name"]: one.get("allValue", "") for one in dashboard["templating"]["list"]}
    found = {}
    for name, query in queries_of(dashboard).items():
        sent = interpolate_sql(query, variables, chosen, since_s, until_s, interval_s)
        async with connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(sent.encode())
            found[name] = await cursor.fetchall()
    return found


async def test_every_query_answers_right(dsn: str, connection: Connection, tables: Tables) -> None:
    now_s = now_us() // 1_000_000
    hour_s = now_s // 3_600 * 3_600 - 7_200
    writer = LogWriter(connection, tables)
    states = ["succeeded"] * 5 + ["failed"] * 3 + ["retrying"] * 2
    jobs = [a_row((hour_s + n) * 1_000_000, state=state, func=FUNC) for n, state in enumerate(states)]
    gauges = {
        ("queue:default:depth:pending", "jobs"): [7.0, 3.0],
        ("queue:default:oldest_wait_seconds", "seconds"): [90.0, 30.0],
        ("workers:active", "workers"): [2.0],
    }
    runs = [
        a_run(key, values, kind="gauge", unit=unit, at_us=hour_s * 1_000_000) for (key, unit), values in gauges.items()
    ]
    await writer.append(jobs=jobs, runs=runs)
    async with an_app(dsn) as (chancy, metrics):
        await mark(chancy, "deploy 1.42")
        await metrics.flush(chancy)

    found = await answers(connection, {}, now_s - 43_200, now_us() // 1_000_000 + 1, 3_600)

    assert found["func"] == [{"func": FUNC}] and found["queue"] == [{"queue": "default"}]
    assert [one["text"] for one in found["marks"]] == ["deploy 1.42"]
    for title, name in (("Throughput by function", FUNC), ("Throughput by queue", "default")):
        [point] = found[title]
        assert (point["time"].timestamp(), point["metric"], float(point["value"])) == (hour_s, name, 8 / 60)
    assert {one["metric"]: float(one["value"]) for one in found["Failures by function"]} == {
        f"{FUNC} failed": 3 / 60,
        f"{FUNC} retrying": 2 / 60,
    }
    [ratio] = found["Failure ratio by function"]
    [over_range] = found["Failure ratio"]
    assert float(ratio["value"]) == float(over_range["failure ratio"]) == 3 / 8
    [rate] = found["Jobs a minute"]
    assert float(rate["jobs a minute"]) == pytest.approx(8 / 720, rel=0.1)
    [stored] = await fetch(
        connection,
        "SELECT p50, p95, p99 FROM {r1hour} r JOIN {series} s ON s.id = r.series WHERE key = %(key)s",
        tables,
        key=f"job:{FUNC}:execution_time",
    )
    [point] = found["Run time by function"]
    assert (point["p50"], point["p95"], point["p99"]) == stored and point["func"] == FUNC
    assert [one["p95"] for one in found["Wait time by queue"]] == [pytest.approx(1.0, rel=0.01)]
    assert [(one["metric"], one["value"]) for one in found["Queue depth"]] == [("default pending", 7.0)]
    assert [one["value"] for one in found["Oldest wait by queue"]] == [90.0]
    assert found["Oldest wait"] == [{"oldest wait": None}]  # the sample is hours old
    later = await answers(connection, {}, hour_s - 60, hour_s + 300, 3_600)
    assert later["Oldest wait"] == [{"oldest wait": 30.0}]
    assert [(one["metric"], one["value"]) for one in found["Workers"]] == [("active", 2.0)]
    assert found["Lag"] == [{"lag": 0.0}]
    assert found["Pipeline"][0]["waiting_batches"] == 0


@pytest.mark.parametrize(("range_s", "interval_s", "width_s"), [(1_800, 5, 60), (7_200, 20, 300), (86_400, 600, 3_600)])
async def test_points_are_those_of_one_resolution_in_the_order_of_time(
    connection: Connection, tables: Tables, range_s: int, interval_s: int, width_s: int
) -> None:
    now_s = now_us() // 1_000_000
    await LogWriter(connection, tables).append(
        jobs=[a_row((now_s - ago) * 1_000_000, func=FUNC) for ago in range(0, 90_000, 60)]
    )
    await sequence_and_fold(connection, tables)
    await fetch(
        connection,
        "UPDATE {versions} SET horizon_1min = %(now)s - 3600, horizon_5min = %(now)s - 28800",
        tables,
        now=now_s,
    )

    kept = list(range(-(-(now_s - range_s) // width_s) * width_s, now_s + 1, width_s))

    for func, expected in ((None, kept), ([FUNC], kept), ([FUNC, "other"], kept), (["none"], [])):
        found = await answers(connection, {"func": func}, now_s - range_s, now_s, interval_s)
        assert [point["time"].timestamp() for point in found["Run time by function"]] == expected


async def test_a_new_installation_answers_nothing_and_fails_nowhere(connection: Connection) -> None:
    found = await answers(connection, {}, 1_800_000_000, 1_800_003_600, 60)

    shown = {
        name: rows for name, rows in found.items() if rows and any(value is not None for value in rows[0].values())
    }
    assert shown.keys() == {"Lag", "Pipeline"}


def test_the_command_prints_a_dashboard_of_the_apps_prefix(dsn: str) -> None:
    over_views, over_families = run(dsn, "grafana"), run(dsn, "grafana", "--datasource", "prometheus", "--json")

    assert json.loads(over_views.stdout) == DASHBOARDS["postgres"]
    assert json.loads(over_families.stdout) == DASHBOARDS["prometheus"]
    assert (over_views.stderr, over_families.stderr) == ("", "")
