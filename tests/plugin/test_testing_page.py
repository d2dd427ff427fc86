"""docs/testing.md: the files on it are a suite of tests that passes, and fails where the app records something else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples.embedded import Server
from tests.processes import ROOT

pytestmark = pytest.mark.slow


def write_files(folder: Path) -> None:
    page = (ROOT / "docs" / "testing.md").read_text()
    for name, text in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", page, re.M | re.S):
        (folder / name).write_text(text)
    [settings] = re.findall(r"^```toml\n(.*?)^```", page, re.M | re.S)
    (folder / "pyproject.toml").write_text(settings)


def run_in(folder: Path, server: Server) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider"],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        | {"TEST_DATABASE_URL": server.dsn()},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout + done.stderr


def test_the_suite_on_the_page_passes(tmp_path: Path, server: Server) -> None:
    write_files(tmp_path)

    assert re.search(r"^5 passed", run_in(tmp_path, server), re.M)


def test_it_fails_where_the_app_counts_twice(tmp_path: Path, server: Server) -> None:
    write_files(tmp_path)
    shop = tmp_path / "shop.py"
    shop.write_text(shop.read_text().replace('"shop:orders", 1', '"shop:orders", 2'))

    assert re.search(r"^3 failed, 2 passed", run_in(tmp_path, server), re.M)
