"""The alert rules, run by promtool over series as a scrape has them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from chancy_metrics.plugin.telemetry.alert_rules import alert_rules
from tests.commands import run
from tests.processes import ROOT

#: Rule -> series with their values, one every 15 s, and the minutes after which it must not fire yet, and must fire.
CASES: dict[str, tuple[dict[str, str], str, str, dict[str, str]]] = {
    # Stopped at the second minute: until then jobs wait for 2 s.
    "ChancyOldestWait": (
        {'chancy_queue_oldest_wait_seconds{queue="mail"}': "2x8 2+15x20"},
        "2m30s",
        "3m15s",
        {"queue": "mail"},
    ),
    # Nobody samples from the fifth minute on; the totals are still read.
    "ChancyNoWorker": (
        {'chancy_metrics_readable{part="totals"}': "1x80", "chancy_workers_active": "2x20 stale"},
        "7m",
        "8m",
        {"severity": "critical"},
    ),
    "ChancyStalled": (
        {
            'chancy_queue_depth{queue="mail",state="running"}': "3x200",
            'chancy_queue_throughput_total{queue="mail"}': "0+5x40 200x160",
            'chancy_queue_depth{queue="busy",state="running"}': "3x200",
            'chancy_queue_throughput_total{queue="busy"}': "0+5x200",
        },
        "20m",
        "31m",
        {"queue": "mail"},
    ),
    "ChancyFailureRatio": (
        {
            'chancy_queue_jobs_total{queue="mail",state="failed"}': "0x40 0+1x200",
            'chancy_queue_jobs_total{queue="mail",state="succeeded"}': "0+9x240",
            'chancy_queue_jobs_total{queue="few",state="failed"}': "0x40 1x200",
            'chancy_queue_jobs_total{queue="few",state="succeeded"}': "0x240",
        },
        "10m",
        "30m",
        {"queue": "mail"},
    ),
    "ChancyPipelineLag": ({"chancy_metrics_lag_seconds": "0x20 0+15x60"}, "10m", "16m", {}),
    "ChancyDeadLetters": ({"chancy_metrics_dead_letters": "0x20 1x20"}, "4m", "6m", {}),
    # They were lost long ago until the fifth minute.
    "ChancyLostJobUpdates": (
        {"chancy_metrics_lost_job_updates": "7x20 9x60"},
        "4m",
        "6m",
        {"severity": "critical"},
    ),
    "ChancyMetricsUnhealthy": ({"chancy_metrics_healthy": "1x20 0x80"}, "14m", "17m", {}),
}


def fires(folder: Path, series: dict[str, str], alert: str, at: str) -> list[dict[str, str]]:
    """Return the labels of each *alert* that fires at that time, from what promtool says where it expects none.

    Each series comes from two targets, as where several processes of one cluster are scraped.
    """
    (folder / "chancy.rules.yml").write_text(alert_rules())
    test = {
        "rule_files": ["chancy.rules.yml"],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [
                    {"series": of_target(name, target), "values": values}
                    for name, values in series.items()
                    for target in ("a:9470", "b:9470")
                ],
                "alert_rule_test": [
                    {
                        "eval_time": at,
                        "alertname": alert,
                        "exp_alerts": [],
                    }
                ],
            }
        ],
    }
    (folder / "test.yml").write_text(json.dumps(test))  # JSON is YAML
    done = subprocess.run(["promtool", "test", "rules", "test.yml"], cwd=folder, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert ("got:" in said) == (done.returncode != 0), said
    return [
        {name: value for name, value in re.findall(r'(\w+)="([^"]*)"', labels) if name != "alertname"}
        for labels in re.findall(r"Labels:\{([^}]*)\}", said.partition("got:")[2])
    ]


def of_target(series: str, target: str) -> str:
    name, _, labels = series.partition("{")
    return f'{name}{{job="chancy",instance="{target}",{labels or "}"}'


@pytest.mark.parametrize("alert", CASES)
def test_a_rule_fires_once_for_all_targets_and_not_before(alert: str, tmp_path: Path) -> None:
    series, before, after, labels = CASES[alert]
    told: dict[str, Any] = {"job": "chancy", "severity": "warning", **labels}

    assert fires(tmp_path, series, alert, before) == []
    assert fires(tmp_path, series, alert, after) == [told]


def test_a_scrape_that_is_gone_or_has_no_totals_is_told(tmp_path: Path) -> None:
    readable = 'chancy_metrics_readable{part="totals"}'
    told = [{"severity": "critical"}]

    assert fires(tmp_path, {readable: "1x80"}, "ChancyScrapeGone", "15m") == []
    assert fires(tmp_path, {readable: "1x20 _x60"}, "ChancyScrapeGone", "16m") == told
    assert fires(tmp_path, {readable: "1x20 0x60"}, "ChancyScrapeGone", "16m") == told


def test_a_sample_without_any_worker_is_told_too(tmp_path: Path) -> None:
    series = {'chancy_metrics_readable{part="totals"}': "1x40", "chancy_workers_active": "2x20 0x20"}

    assert fires(tmp_path, series, "ChancyNoWorker", "7m") == []
    assert fires(tmp_path, series, "ChancyNoWorker", "8m") == [{"job": "chancy", "severity": "critical"}]


def test_every_rule_is_tested_here() -> None:
    assert set(re.findall(r"alert: (\w+)", alert_rules())) == {*CASES, "ChancyScrapeGone"}


def test_the_command_prints_them_as_promtool_takes_them(tmp_path: Path) -> None:
    done = run("", "alert-rules")
    (tmp_path / "chancy.rules.yml").write_text(done.stdout)

    checked = subprocess.run(["promtool", "check", "rules", "chancy.rules.yml"], cwd=tmp_path, capture_output=True)

    assert (done.returncode, done.stderr, checked.returncode) == (0, "", 0), checked.stderr
    assert json.loads(run("", "alert-rules", "--json").stdout) == {"rules": alert_rules()}


def test_promtool_takes_what_the_document_shows(tmp_path: Path) -> None:
    shown = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "prometheus.md").read_text(), re.S | re.M)
    for text in shown:
        (tmp_path / "shown.yml").write_text(text)
        check = ["rules"] if text.startswith("groups:") else ["config", "--syntax-only"]
        done = subprocess.run(["promtool", "check", *check, "shown.yml"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert len(shown) == 4
