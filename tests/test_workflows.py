"""The workflows of GitHub Actions, and the check of a release, do what the project's own files do."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.release_check import EXTRAS

#: Extras of the project's own files.
OURS = {"demo", "test", "dev", "docs", "release"}
WORKFLOWS = Path(".github/workflows")


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((WORKFLOWS / name).read_text())
    return found


@pytest.mark.parametrize("path", sorted(WORKFLOWS.iterdir()), ids=lambda path: path.name)
def test_a_workflow_has_jobs_of_steps_and_no_rights_it_does_not_need(path: Path) -> None:
    workflow = read(path.name)

    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])
        assert all(
            Path(word).exists() for step in job["steps"] for word in step.get("run", "").split() if word == ".ci/run"
        )


def test_ci_runs_what_decides_here() -> None:
    steps = read("ci.yml")["jobs"]["all"]["steps"]

    assert steps[-1] == {"run": "bash .ci/run"}
    assert steps[-2]["uses"].startswith("actions/checkout@")


def test_a_release_is_checked_before_it_is_published_without_a_token() -> None:
    jobs = read("release.yml")["jobs"]

    assert "make release-check" in [step.get("run") for step in jobs["build"]["steps"]]
    assert (jobs["publish"]["needs"], jobs["publish"]["permissions"]) == ("build", {"id-token": "write"})
    assert "secrets." not in (WORKFLOWS / "release.yml").read_text()


def test_the_check_of_a_release_looks_at_every_extra_of_users() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]

    assert set(EXTRAS) == set(project["optional-dependencies"]) - OURS
