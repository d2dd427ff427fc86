"""The manifests in the documents are ones: each parses, and the real command takes each command line in them."""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tests.command_lines import parse
from tests.processes import ROOT

KUBERNETES, PRODUCTION = ROOT / "docs" / "kubernetes.md", ROOT / "docs" / "production.md"
#: Kind -> path to the template of its pods.
PODS = {
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
    "Job": ("spec", "template", "spec"),
    "Deployment": ("spec", "template", "spec"),
}
FIVE_FIELDS = r"(?:\S+ ){4}\S+"


def blocks(language: str, path: Path) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)


def manifests() -> list[dict[str, Any]]:
    return [one for text in blocks("yaml", KUBERNETES) for one in yaml.safe_load_all(text)]


def units() -> list[configparser.ConfigParser]:
    found = []
    for text in blocks("ini", PRODUCTION):
        unit = configparser.ConfigParser(strict=True, interpolation=None)
        unit.optionxform = str  # type: ignore[assignment, method-assign] # names keep their capitals
        unit.read_string(text)
        found.append(unit)
    return found


def crontab() -> list[tuple[str, str]]:
    """When, and what, of each line."""
    lines = [line for text in blocks("text", PRODUCTION) for line in text.splitlines() if not re.match(r"\w+=", line)]
    return [(line[: m.end()], line[m.end() :]) for line in lines if (m := re.match(FIVE_FIELDS, line))]


def command_lines() -> Iterator[list[str]]:
    for one in manifests():
        for container in pod_of(one)["containers"]:
            yield container["command"]
    for unit in units():
        if "Service" in unit:
            yield shlex.split(unit["Service"]["ExecStart"])
    for _, line in crontab():
        (inner,) = re.findall(r"\$\((.*?) 2>&1\)", line)
        yield shlex.split(inner)


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    pod: Any = manifest
    for key in PODS[manifest["kind"]]:
        pod = pod[key]
    return pod  # type: ignore[no-any-return]


def test_there_are_manifests_of_each_kind() -> None:
    assert [one["kind"] for one in manifests()].count("CronJob") >= 3
    assert len(units()) == 4 and len(crontab()) == 2
    assert len(list(command_lines())) == 12


@pytest.mark.parametrize("words", [*command_lines()], ids=" ".join)
def test_the_command_takes_each_command_line(words: list[str]) -> None:
    assert parse(words).info_name in words


@pytest.mark.parametrize(
    "words", ["chancy-metrics verfy", "chancy-metrics verify --budget soon", "chancy-metrics fold x"]
)
def test_a_wrong_command_line_is_found(words: str) -> None:
    with pytest.raises(click.UsageError):
        parse(words.split())


@pytest.mark.parametrize("manifest", manifests(), ids=lambda one: one["metadata"]["name"])
def test_a_manifest_has_what_kubernetes_asks_for(manifest: dict[str, Any]) -> None:
    versions = {"CronJob": "batch/v1", "Job": "batch/v1", "Deployment": "apps/v1"}
    pod = pod_of(manifest)

    assert manifest["apiVersion"] == versions[manifest["kind"]]
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", manifest["metadata"]["name"])
    assert {"name", "image", "command"} <= pod["containers"][0].keys()
    names = {one["name"] for one in pod["containers"][0]["env"]}
    assert names >= {"CHANCY_METRICS_APP", "DATABASE_URL"}
    if manifest["kind"] == "CronJob":
        assert re.fullmatch(FIVE_FIELDS, manifest["spec"]["schedule"])
    if manifest["kind"] in ("CronJob", "Job"):
        assert pod["restartPolicy"] in ("Never", "OnFailure")
    else:
        spec = manifest["spec"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    mounted = {one["name"] for container in pod["containers"] for one in container.get("volumeMounts", [])}
    assert mounted == {one["name"] for one in pod.get("volumes", [])}


def test_units_have_sections_that_systemd_knows() -> None:
    for unit in units():
        assert set(unit.sections()) <= {"Unit", "Service", "Timer", "Install"}
        assert unit["Unit"]["Description"]
        assert ("Service" in unit) != ("Timer" in unit)
