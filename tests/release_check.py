"""Check that a release could go out, as `make release-check`: each line says what was looked at, and what was not.

Builds sdist and wheel, checks their metadata, installs the wheel on each Python from 3.11 on that this machine has,
lists the licences of what it brings along, asks for known vulnerabilities, and runs tests with the lowest and with
the newest version of each dependency that is allowed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
EXTRAS = "web,page,cli,parquet,archives,dask,prometheus,otlp"
#: Tests that touch every dependency, in a minute or two.
TESTS = ("tests/events", "tests/projections/fold", "tests/plugin/cli", "tests/plugin/transfer", "tests/plugin/http")
#: Run in a clean environment: imports every public name, and prints the licence of each distribution there.
_IMPORT_ALL = """
import importlib.metadata as metadata, json, pathlib
import chancy_metrics, chancy_metrics.plugin as plugin
for name in plugin.__all__:
    getattr(plugin, name)
assert (pathlib.Path(chancy_metrics.__file__).parent / "py.typed").exists(), "py.typed is missing"
assert chancy_metrics.__version__ == metadata.version("chancy-metrics")
def licence(one):
    classified = [c.split(" :: ")[-1] for c in one.metadata.get_all("Classifier", []) if c.startswith("License ::")]
    return one.metadata.get("License-Expression") or ", ".join(classified) or (one.metadata.get("License") or "")[:60]
print(json.dumps({one.name: [one.version, licence(one)] for one in metadata.distributions()}))
"""


class Failed(Exception):
    """A check that a release does not pass."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-tests", action="store_true", help="leave out the tests with other versions")
    tests = not parser.parse_args().no_tests
    failures = 0
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        for line, failed in check(Path(folder), tests):
            print(f"{'FAILED' if failed else 'ok    '}  {line}", flush=True)
            failures += failed
    print(f"\n{failures} checks failed" if failures else "\nall checks passed, those that are 'not looked at' aside")
    return int(failures > 0)


def check(folder: Path, tests: bool) -> Iterator[tuple[str, bool]]:
    """Yield what was looked at, and whether it failed."""
    try:
        wheel = _build(folder)
        yield f"sdist and wheel are built, and twine finds nothing: {wheel.name}", False
    except Failed as error:
        yield f"build: {error}", True
        return
    found = dict(_pythons())
    for version in VERSIONS:
        if version not in found:
            yield f"Python {version}: not looked at, it is not on this machine", False
            continue
        yield from _installed(folder / version, found[version], wheel)
    yield from _audited(folder)
    if tests:
        for resolution in ("lowest-direct", "highest"):
            yield from _tested(folder / resolution, found[min(found)], resolution)


def _build(folder: Path) -> Path:
    _run([sys.executable, "-m", "build", "--outdir", folder / "dist", "."])
    made = sorted((folder / "dist").iterdir())
    _run([sys.executable, "-m", "twine", "check", "--strict", *made])
    return next(one for one in made if one.suffix == ".whl")


def _pythons() -> Iterator[tuple[str, Path]]:
    """Yield version and path of the Pythons of this machine, on PATH or of pyenv."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in VERSIONS:
        beside = sorted(kept.glob(f"{version}.*/bin/python"))
        if beside:
            yield version, beside[-1]
        elif found := shutil.which(f"python{version}"):
            yield version, Path(found)


def _installed(place: Path, python: Path, wheel: Path) -> Iterator[tuple[str, bool]]:
    """Install the wheel alone in a clean environment, import all that is public, run the command, list licences."""
    label = f"Python {place.name}"
    try:
        _environment(place, python)
        _install(place, [wheel])
        brought = json.loads(_run([place / "bin/python", "-c", _IMPORT_ALL], cwd="/"))
        printed = _run([place / "bin/chancy-metrics", "--version"], cwd="/").strip()
    except Failed as error:
        yield f"{label}: {error}", True
        return
    yield f"{label}: installed, every public name imported, {printed}", False
    nameless = sorted(name for name, (_, licence) in brought.items() if not licence)
    listed = ", ".join(f"{name} {version} ({licence})" for name, (version, licence) in sorted(brought.items()))
    yield f"{label}: licences: {listed}", False
    if nameless:
        yield f"{label}: no licence is named by {', '.join(nameless)}", True


def _audited(folder: Path) -> Iterator[tuple[str, bool]]:
    """Ask for known vulnerabilities of what the newest environment holds."""
    places = [folder / version for version in VERSIONS if (folder / version).exists()]
    if not places:
        return
    listed = folder / "brought.txt"
    listed.write_text(
        _run(["uv", "pip", "freeze", "--python", places[-1] / "bin/python", "--exclude", "chancy-metrics"])
    )
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--requirement",
        listed,
        "--no-deps",
        "--disable-pip",
        "--format",
        "json",
    ]
    done = subprocess.run([*command, "--timeout", "10"], capture_output=True, text=True)
    try:
        looked_at = json.loads(done.stdout)["dependencies"]
    except ValueError:
        yield f"known vulnerabilities: not looked at, pip-audit says: {_last_line(done.stderr)}", False
        return
    for one in looked_at:  # one without its data is skipped, and is not sound for that
        if "skip_reason" in one:
            yield f"known vulnerabilities of {one['name']}: not looked at: {one['skip_reason']}", False
        elif one["vulns"]:
            known = ", ".join(vulnerability["id"] for vulnerability in one["vulns"])
            yield f"known vulnerabilities of {one['name']} {one['version']}: {known}", True
        else:
            yield f"known vulnerabilities of {one['name']} {one['version']}: none", False


def _tested(place: Path, python: Path, resolution: str) -> Iterator[tuple[str, bool]]:
    """Run tests with the lowest or the newest allowed version of each dependency."""
    try:
        _environment(place, python)
        _install(place, ["--resolution", resolution, "--editable", f".[{EXTRAS}]"])
        _install(place, ["--editable", ".[test]"])  # what is installed already stays as it is
        told = _run(
            [place / "bin/python", "-m", "pytest", "-q", "-n", "2", "-m", "not slow", "-p", "no:cacheprovider", *TESTS]
        )
    except Failed as error:
        yield f"tests with the {resolution} versions: {error}", True
        return
    yield f"tests with the {resolution} versions: {_last_line(told)}", False


def _environment(place: Path, python: Path) -> None:
    _run(["uv", "venv", "--quiet", "--python", python, place])


def _install(place: Path, what: Sequence[str | Path]) -> None:
    _run(["uv", "pip", "install", "--quiet", "--python", place / "bin/python", *what])


def _run(command: Sequence[str | Path], cwd: str | None = None) -> str:
    """Run a command, and return what it prints.

    Raises:
        Failed: With the last lines of what it printed.
    """
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, "PATH": tools})
    if done.returncode:
        tail = "\n        ".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise Failed(f"{' '.join(map(str, command[:4]))} … ended with {done.returncode}\n        {tail}")
    return done.stdout


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


if __name__ == "__main__":
    sys.exit(main())
