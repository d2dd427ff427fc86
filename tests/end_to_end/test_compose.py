"""examples/compose: its files agree with each other, and what its services run does what the README says.

There is no Docker here. So files are parsed, and each service's command runs as a process on the run's PostgreSQL.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml
from psycopg import sql

from examples.embedded import Server
from tests.command_lines import GROUPS, parse
from tests.factories import eventually
from tests.processes import ROOT, free_port
from tests.prometheus import running
from tests.scraping import Prometheus

FOLDER = ROOT / "examples" / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
BIN = Path(sys.executable).parent
LATEST_S = 60


def words_of(service: str) -> list[str]:
    command = SERVICES[service].get("command", [])
    return shlex.split(command) if isinstance(command, str) else list(command)


def steps_of(service: str) -> list[list[str]]:
    """The commands that a service runs, one after the other, without their redirections."""
    words = words_of(service)
    if words[:2] != ["sh", "-ec"]:
        return [words] if words else []
    return [shlex.split(step.partition(">")[0]) for step in words[2].split("&&")]


def our_commands() -> list[list[str]]:
    return [step for service in SERVICES for step in steps_of(service) if step[0] in GROUPS]


def mounts() -> list[tuple[str, str]]:
    """What is mounted, and where."""
    return [
        (source, target)
        for service in SERVICES.values()
        for source, target in (volume.split(":")[:2] for volume in service.get("volumes", []))
    ]


def test_every_service_is_made_of_what_is_there() -> None:
    for name, service in SERVICES.items():
        assert "image" in service, name
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] in ("service_completed_successfully", "service_healthy")
            assert (how["condition"] == "service_healthy") == ("healthcheck" in SERVICES[other]), (name, other)
        assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys()
        if "build" in service:
            assert (FOLDER / service["build"]["context"] / service["build"]["dockerfile"]).exists()
    assert [one for one in COMPOSE["secrets"].values() if not (FOLDER / one["file"]).exists()] == []
    files, volumes = [[source for source, _ in mounts() if ("/" in source) == is_file] for is_file in (True, False)]
    assert [path for path in files if not (FOLDER / path).exists()] == []
    assert set(volumes) == COMPOSE["volumes"].keys()


def test_it_runs_without_an_environment() -> None:
    asked = re.findall(r"\$\{(\w+)(:-\w+)?\}", (FOLDER / "compose.yaml").read_text())

    assert asked and [name for name, default in asked if not default] == []


@pytest.mark.parametrize("words", our_commands(), ids=" ".join)
def test_the_commands_are_taken(words: list[str]) -> None:
    assert parse(words).info_name in words


def test_grafana_is_given_every_name_that_its_provisioning_asks_for() -> None:
    provisioning = FOLDER / "../grafana/provisioning"
    text = "".join(path.read_text() for path in provisioning.rglob("*.yaml"))
    asked = {name for line in text.splitlines() for name in re.findall(r": \$(\w+)", line.partition("#")[0])}

    assert asked == {name for name in SERVICES["grafana"]["environment"] if name.startswith("CHANCY_")}
    [board] = [one for one in mounts() if one[0] == "dashboards" and one[1].startswith("/var/lib/grafana")]
    assert f"path: {board[1]}" in text


def test_the_image_has_the_package_its_extras_and_the_app() -> None:
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    admitted = {line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()[1:]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {path.partition("/")[0] for path in project["tool"]["setuptools"]["package-dir"].values()}
    [installed] = [shlex.split(line) for line in lines if line.startswith("RUN pip install")]
    [extras] = [re.findall(r"\w+", word.partition("[")[2]) for word in installed if word.startswith("/src[")]

    assert needed | {"pyproject.toml", "README.md", "LICENSE", "examples/compose/app.py"} == admitted
    assert [path for path in admitted if not (ROOT / path).exists()] == []
    assert set(extras) <= project["project"]["optional-dependencies"].keys()
    scripts = {one.name for one in importlib.metadata.entry_points(group="console_scripts")}
    assert {words[0] for words in our_commands()} <= scripts


def test_grafanas_role_has_the_rights_of_the_documents() -> None:
    def grants(text: str) -> list[str]:
        return re.findall(r"^GRANT [^;]*TO reader;", text, re.M)

    documented = (ROOT / "docs" / "roles.md").read_text()
    assert grants((FOLDER / "reader.sql").read_text()) == grants(documented) != []


@contextmanager
def going(folder: Path, environment: Mapping[str, str], *words: str) -> Iterator[None]:
    """Run a command for the length of a block, in the folder of the app; it must not end before."""
    log = folder / "log"
    with log.open("a") as out:
        process = subprocess.Popen(
            [BIN / words[0], *words[1:]], cwd=FOLDER, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(LATEST_S)


async def test_its_services_count_each_job_once_and_show_it_everywhere(
    server: Server, empty_dsn: str, tmp_path: Path
) -> None:
    database = psycopg.conninfo.conninfo_to_dict(empty_dsn)
    environment = os.environ | {"DATABASE_URL": empty_dsn, "PYTHONPATH": ".", "CHANCY_METRICS_APP": "app.chancy"}
    environment |= {"PGHOST": str(server.folder), "PGUSER": "postgres", "PGDATABASE": str(database["dbname"])}
    environment |= {"DASHBOARD_PASSWORD": "x", "READER_PASSWORD": "reader's", "PATH": f"{BIN}:{os.environ['PATH']}"}

    def run(*words: str) -> None:
        done = subprocess.run(words, cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=LATEST_S)
        assert done.returncode == 0, done.stdout + done.stderr

    ports = {"8000": free_port(), "9470": free_port()}
    rules, boards = tmp_path / "rules", tmp_path / "dashboards"

    def here(words: list[str]) -> list[str]:
        """A service's command with ports and paths of this test."""
        places = {"0.0.0.0:9470": f"127.0.0.1:{ports['9470']}", "0.0.0.0": "127.0.0.1", "8000": str(ports["8000"])}
        places |= {"/run/secrets/scrape-token": str(FOLDER / "scrape-token"), "/reader.sql": str(FOLDER / "reader.sql")}
        return [places.get(word, word) for word in words]

    rules.mkdir()
    boards.mkdir()
    run(*words_of("set-up"))
    run(*words_of("set-up"))  # at the next `up`
    run(*here(words_of("reader")))
    run(*(word.replace("/rules/", f"{rules}/").replace("/dashboards/", f"{boards}/") for word in words_of("files")))
    assert [json.loads(path.read_text())["title"] for path in boards.iterdir()]
    settings = (FOLDER / "prometheus.yml").read_text().replace("/run/secrets", str(FOLDER))
    settings = settings.replace("exporter:9470", f"127.0.0.1:{ports['9470']}").replace("15s", "1s")
    (tmp_path / "prometheus.yml").write_text(settings)
    promtool = shutil.which("promtool")
    assert promtool
    run(promtool, "check", "config", str(tmp_path / "prometheus.yml"))

    try:
        with ExitStack() as stack:
            for _ in range(SERVICES["worker"]["deploy"]["replicas"]):
                stack.enter_context(going(tmp_path, environment, *words_of("worker")))
            for service in ("dashboard", "exporter"):
                stack.enter_context(going(tmp_path, environment, *here(words_of(service))))
            client = stack.enter_context(running(tmp_path, settings))
            run(sys.executable, "-c", "import app; app.push(100)")

            async def have_ended() -> bool:
                with psycopg.connect(empty_dsn) as connection:
                    query = "SELECT count(*) FROM chancy_jobs WHERE state IN ('succeeded', 'failed')"
                    return connection.execute(query).fetchone() == (100,)

            async def prometheus_has_all() -> bool:
                found = Prometheus(client).query('sum(chancy_all_jobs_total{state!="retrying"})')
                return list(found.values()) == [100]

            def page() -> int:
                return httpx.get(f"http://127.0.0.1:{ports['8000']}/metrics-log").status_code

            def ended() -> float:
                dsn = psycopg.conninfo.make_conninfo(empty_dsn, user="reader", password="reader's")
                with psycopg.connect(dsn) as connection:
                    found = connection.execute(
                        "SELECT sum(sum) FROM chancy_metrics_points_1day WHERE subject = 'global'"
                        " AND measure = 'updates' AND state IN ('succeeded', 'failed')"
                    ).fetchone()
                return float(found[0]) if found else 0

            await eventually(have_ended, within_s=LATEST_S)
            run("chancy-metrics", "fold")  # a worker does, once it has been the leader for a while
            await eventually(prometheus_has_all, within_s=LATEST_S)
            groups = client.get("/api/v1/rules").json()["data"]["groups"]
            assert [group["name"] for group in groups] == ["chancy"]
            assert (page(), ended()) == (200, 100)
    finally:
        with psycopg.connect(empty_dsn, autocommit=True) as owner:
            owner.execute(sql.SQL("DROP OWNED BY reader; DROP ROLE reader"))
