"""The workflows of GitHub Actions, and the check of a release, do what the project's own files do."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.release_check import EXTRAS, VERSIONS

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


def test_what_a_release_has_checked_is_what_it_publishes_and_without_a_token() -> None:
    jobs = read("release.yml")["jobs"]
    *_, check, keep = jobs["build"]["steps"]
    take, publish = jobs["publish"]["steps"]

    assert check["run"] == 'make release-check ARGS="--dist dist"'
    assert (keep["uses"].partition("@")[0], keep["with"]) == (
        "actions/upload-artifact",
        {"name": "dist", "path": "dist/"},
    )
    assert (take["uses"].partition("@")[0], take["with"]) == ("actions/download-artifact", keep["with"])
    assert publish == {"uses": "pypa/gh-action-pypi-publish@release/v1"}
    assert (jobs["publish"]["needs"], jobs["publish"]["permissions"]) == ("build", {"id-token": "write"})
    assert "secrets." not in (WORKFLOWS / "release.yml").read_text()


def test_a_release_looks_at_every_python() -> None:
    steps = read("release.yml")["jobs"]["build"]["steps"]
    pythons = " ".join(step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", ""))

    assert sorted(pythons.split()) == sorted(VERSIONS)


@pytest.mark.parametrize(
    ("tag", "heading", "goes"),
    [
        ("v1.2.0", "## 1.2.0 (2026-12-01)", True),
        ("v1.2.0", "## 1.2.0 (unreleased)", False),
        ("v1.2.1", "## 1.2.0 (2026-12-01)", False),
        ("v1.2.0", "## 1.1.0 (2026-12-01)", False),
    ],
)
def test_a_release_goes_on_if_its_tag_is_its_version_and_the_changelog_has_its_date(
    tag: str, heading: str, goes: bool, tmp_path: Path
) -> None:
    steps = read("release.yml")["jobs"]["build"]["steps"]
    [script] = [step["run"] for step in steps if step.get("name", "").startswith("The tag is the version")]
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"GITHUB_REF_NAME": tag, "PATH": path},
        capture_output=True,
    )

    assert (done.returncode == 0) == goes


def test_the_check_of_a_release_looks_at_every_extra_of_users() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]

    assert set(EXTRAS) == set(project["optional-dependencies"]) - OURS
