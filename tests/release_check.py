"""Check that a release could go out, as `make release-check`: each line says what was looked at, and what was not.

Builds the sdist, and the wheel from it; checks their metadata and files; installs the wheel on each Python from 3.11
on that this machine has and runs it on a database, without extras and with each alone; lists the licences of what it
brings along; asks for known vulnerabilities; and runs the sdist's tests with the lowest version of each dependency
that is allowed on the oldest of these Pythons, and with the newest version on the newest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psycopg
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from psycopg import sql

from examples.embedded import Server

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
#: Tests that touch every dependency, in a few minutes.
TESTS = (
    "tests/test_host_contract.py",
    "tests/events",
    "tests/projections/fold",
    *(f"tests/plugin/{folder}" for folder in ("cli", "transfer", "http", "telemetry", "parallel")),
)
#: What the sdist leaves out: files for GitHub and git alone.
NOT_IN_SDIST = (".gitignore",)
#: Without an extra: what needs it says so. With the extra alone: the same command comes further.
NEEDS = {
    "parquet": ("audit", "events", "--parquet", "parquet"),
    "archives": ("rebuild", "--archive", "memory://archives"),
    "dask": ("rebuild", "--dask", "no-scheduler"),
    "prometheus": ("serve", "--listen", "127.0.0.1:{taken}"),
    "otlp": ("otlp", "--once", "--endpoint", "http://127.0.0.1:{taken}"),
}
#: Every extra that a user may install; that of `cli` only makes tables of lines.
EXTRAS = ("cli", "web", "page", *NEEDS)
#: The app of the commands.
_APP = """
import asyncio, os
from chancy import Chancy
from chancy_metrics.plugin import Metrics

chancy = Chancy(os.environ["DSN"], plugins=[Metrics()])

async def migrate():
    async with chancy:
        await chancy.migrate()

if __name__ == "__main__":
    asyncio.run(migrate())
"""
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
#: Run with an extra: how many files the page has, and whether plotly's script is there.
_PAGE = """
import json
from chancy_metrics.plugin.http import routes
from chancy_metrics.plugin.http.files import files, plotly_script
print(json.dumps([len(files()), plotly_script() is not None]))
"""


class Failed(Exception):
    """A check that a release does not pass."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-tests", action="store_true", help="leave out the tests with other versions")
    parser.add_argument("--dist", type=Path, help="a folder for the sdist and the wheel, if no check fails")
    options = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        for line, failed in check(Path(folder), not options.no_tests):
            print(f"{'FAILED' if failed else 'ok    '}  {line}", flush=True)
            failures += failed
        if options.dist and not failures:
            shutil.copytree(Path(folder) / "dist", options.dist)
    print(f"\n{failures} checks failed" if failures else "\nall checks passed, those that are 'not looked at' aside")
    return int(failures > 0)


def check(folder: Path, tests: bool) -> Iterator[tuple[str, bool]]:
    """Yield what was looked at, and whether it failed."""
    try:
        built = _build(folder)
        yield f"sdist is built, wheel is built from it, and twine finds nothing: {built.wheel.name}", False
    except Failed as error:
        yield f"build: {error}", True
        return
    yield _complete(built.source)
    found = dict(_pythons())
    looked_at = [version for version in VERSIONS if version in found]
    with Server() as server:
        for version in VERSIONS:
            if version not in found:
                yield f"Python {version}: not looked at, it is not on this machine", False
                continue
            yield from _installed(folder / version, found[version], built.wheel, server)
        for extra in NEEDS:
            yield from _needed(folder, extra, found[looked_at[-1]], looked_at[-1], built.wheel, server)
        yield from _page(folder, found[looked_at[-1]], built.wheel)
    yield from _audited(folder)
    if tests:
        yield from _tested(folder / "lowest", found[looked_at[0]], looked_at[0], "lowest-direct", built.source)
        yield from _tested(folder / "newest", found[looked_at[-1]], looked_at[-1], "highest", built.source)


class Built(NamedTuple):
    """The wheel, and the folder that the sdist was unpacked into."""

    wheel: Path
    source: Path


def _build(folder: Path) -> Built:
    _run([sys.executable, "-m", "build", "--outdir", folder / "dist", "."])  # the wheel from the sdist
    made = sorted((folder / "dist").iterdir())
    _run([sys.executable, "-m", "twine", "check", "--strict", *made])
    wheel = next(one for one in made if one.suffix == ".whl")
    with tarfile.open(next(one for one in made if one.suffix == ".gz")) as sdist:
        sdist.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    return Built(wheel, source)


def _complete(source: Path) -> tuple[str, bool]:
    """Compare the files of the sdist with those of the repository."""
    expected = [name for name in _run(["git", "ls-files"]).splitlines() if name not in NOT_IN_SDIST]
    missing = [name for name in expected if not (source / name).is_file()]
    if missing:
        return f"sdist: {len(missing)} files of the repository are missing: {', '.join(missing[:12])} …", True
    return f"sdist: has all {len(expected)} files of the repository, so tests, documents and examples too", False


def _pythons() -> Iterator[tuple[str, Path]]:
    """Yield version and path of the Pythons of this machine, on PATH or of pyenv."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in VERSIONS:
        beside = sorted(kept.glob(f"{version}.*/bin/python"))
        if beside:
            yield version, beside[-1]
        elif found := shutil.which(f"python{version}"):
            yield version, Path(found)


def _installed(place: Path, python: Path, wheel: Path, server: Server) -> Iterator[tuple[str, bool]]:
    """Install the wheel alone in a clean environment, import all that is public, run commands, list licences."""
    label = f"Python {place.name}"
    try:
        _environment(place, python)
        _install(place, [wheel])
        brought = json.loads(_run([place / "bin/python", "-c", _IMPORT_ALL], cwd="/"))
        printed = _run([place / "bin/chancy-metrics", "--version"], cwd="/").strip()
        yield f"{label}: installed, every public name imported, {printed}", False
        dsn = _database(server, f"python_{place.name.replace('.', '_')}", place)
        status = _command(place, dsn, "status")
        if status.returncode not in (0, 1) or "Traceback" in status.stdout + status.stderr:
            raise Failed(f"status ended with {status.returncode}: {_last_line(status.stdout + status.stderr)}")
        yield f"{label}: migrated a database, and status says: {status.stdout.splitlines()[0]}", False
    except Failed as error:
        yield f"{label}: {error}", True
        return
    nameless = sorted(name for name, (_, licence) in brought.items() if not licence)
    listed = ", ".join(f"{name} {version} ({licence})" for name, (version, licence) in sorted(brought.items()))
    yield f"{label}: licences: {listed}", False
    if nameless:
        yield f"{label}: no licence is named by {', '.join(nameless)}", True


def _needed(
    folder: Path, extra: str, python: Path, version: str, wheel: Path, server: Server
) -> Iterator[tuple[str, bool]]:
    """Run what needs an extra without any, and with this one alone."""
    named = f"pip install 'chancy-metrics[{extra}]'"
    try:
        dsn = _database(server, f"extra_{extra}", folder / version)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            words = [word.format(taken=taken.getsockname()[1]) for word in NEEDS[extra]]
            without = _command(folder / version, dsn, *words)
            _environment(folder / extra, python)
            _install(folder / extra, [f"chancy-metrics[{extra}] @ {wheel.as_uri()}"])
            having = _command(folder / extra, dsn, *words)
    except Failed as error:
        yield f"extra {extra}: {error}", True
        return
    said = without.stderr.strip()
    told = named in said and "\n" not in said and without.returncode > 0
    yield f"extra {extra}: without it, {words[0]} says: {said}", not told
    said = _last_line(having.stderr + having.stdout)
    yield f"extra {extra}: with it alone, it says: {said}", "Traceback" in having.stderr or "pip install" in said


def _page(folder: Path, python: Path, wheel: Path) -> Iterator[tuple[str, bool]]:
    """Look for the page's files in the wheel, and for plotly's script with the extra that brings it."""
    for extra, has_charts in (("web", False), ("page", True)):
        try:
            _environment(folder / extra, python)
            _install(folder / extra, [f"chancy-metrics[{extra}] @ {wheel.as_uri()}"])
            files, charts = json.loads(_run([folder / extra / "bin/python", "-c", _PAGE], cwd="/"))
        except Failed as error:
            yield f"extra {extra}: {error}", True
            continue
        expected = sum(path.suffix in (".html", ".css", ".js") for path in Path("plugin/http/page").iterdir())
        line = f"extra {extra}: the routes are imported, the page has {files} of {expected} files, charts: {charts}"
        yield line, (files, charts) != (expected, has_charts)


def _audited(folder: Path) -> Iterator[tuple[str, bool]]:
    """Ask for known vulnerabilities of what the newest environment holds."""
    places = [folder / version for version in VERSIONS if (folder / version).exists()]
    listed = folder / "brought.txt"
    listed.write_text(
        _run(["uv", "pip", "freeze", "--python", places[-1] / "bin/python", "--exclude", "chancy-metrics"])
    )
    command = [sys.executable, "-m", "pip_audit", "--requirement", listed, "--no-deps", "--disable-pip"]
    done = subprocess.run([*command, "--format", "json", "--timeout", "10"], capture_output=True, text=True)
    try:
        answered = json.loads(done.stdout)["dependencies"]
    except ValueError:
        yield f"known vulnerabilities: not looked at, pip-audit says: {_last_line(done.stderr)}", False
        return
    skipped = [one["name"] for one in answered if "skip_reason" in one]  # is not sound for that
    sound = [one["name"] for one in answered if "skip_reason" not in one and not one["vulns"]]
    if skipped:
        yield f"known vulnerabilities: not looked at, since pip-audit has no data on {', '.join(skipped)}", False
    if sound:
        yield f"known vulnerabilities: none of {', '.join(sound)}", False
    for one in answered:
        if one.get("vulns"):
            known = ", ".join(vulnerability["id"] for vulnerability in one["vulns"])
            yield f"known vulnerabilities: {known} of {one['name']} {one['version']}", True


def _tested(place: Path, python: Path, version: str, resolution: str, source: Path) -> Iterator[tuple[str, bool]]:
    """Run the sdist's tests with the lowest or the newest allowed version of each dependency."""
    label = f"tests of the sdist on Python {version} with the {place.name} versions"
    try:
        _environment(place, python)
        _install(place, ["--resolution", resolution, "--editable", f"{source}[{','.join(EXTRAS)}]"])
        _install(place, ["--editable", f"{source}[test]"])  # what is installed already stays as it is
        if resolution == "lowest-direct":
            yield f"{label}: {_above_the_bound(place)}", False
        command = [place / "bin/python", "-m", "pytest", "-n", "2", "-m", "not slow", *TESTS]
        told = _run(command, cwd=str(source), CI="true")  # the same drawn cases each time, without deadlines
    except Failed as error:
        yield f"{label}: {error}", True
        return
    yield f"{label}: {_last_line(told)}", False


def _above_the_bound(place: Path) -> str:
    """Say which dependencies could not be had in the lowest version that is allowed, since another one wants more."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    listed = project["dependencies"] + [one for extra in EXTRAS for one in project["optional-dependencies"][extra]]
    frozen = json.loads(_run(["uv", "pip", "list", "--format", "json", "--python", place / "bin/python"]))
    has = {canonicalize_name(one["name"]): Version(one["version"]) for one in frozen}
    above = {}
    for wanted in map(Requirement, listed):
        lowest = [Version(one.version) for one in wanted.specifier if one.operator == ">="]
        name = canonicalize_name(wanted.name)
        if lowest and has[name] > lowest[0]:
            above[name] = f"{name} {has[name]} for >={lowest[0]}"
    return f"above their bound, since others want more: {', '.join(above.values())}" if above else "all at their bound"


def _database(server: Server, name: str, place: Path) -> str:
    """Make a database, and migrate it with the app by what *place* has; return its DSN."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    (place / "shop.py").write_text(_APP)
    _run([place / "bin/python", "shop.py"], cwd=str(place), DSN=server.dsn(name))
    return server.dsn(name)


def _command(place: Path, dsn: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `chancy-metrics` on the app in an environment of its own, within a minute."""
    (place / "shop.py").write_text(_APP)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [place / "bin/chancy-metrics", "--app", "shop.chancy", *words],
        capture_output=True,
        text=True,
        cwd=place,
        env=environment | {"DSN": dsn},
        timeout=60,
    )


def _environment(place: Path, python: Path) -> None:
    _run(["uv", "venv", "--quiet", "--python", python, place])


def _install(place: Path, what: Sequence[str | Path]) -> None:
    _run(["uv", "pip", "install", "--quiet", "--python", place / "bin/python", *what])


def _run(command: Sequence[str | Path], cwd: str | None = None, **environment: str) -> str:
    """Run a command, and return what it prints.

    Raises:
        Failed: With the last lines of what it printed.
    """
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": tools} | environment
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    if done.returncode:
        tail = "\n        ".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise Failed(f"{' '.join(map(str, command[:4]))} … ended with {done.returncode}\n        {tail}")
    return done.stdout


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


if __name__ == "__main__":
    sys.exit(main())
