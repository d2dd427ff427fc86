"""What may import what, and what a worker that only records does not load."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from chancy_metrics import plugin

ROOT = Path(__file__).parent.parent
BELOW = {
    "plugin": {"plugin", "projections", "events"},
    "projections": {"projections", "events"},
    "events": {"events"},
    "migrations": {"events"},
}


def imported(module: Path) -> set[str]:
    """Our packages that *module* imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name.startswith("chancy_metrics.")}
    return found


@pytest.mark.parametrize("package", BELOW)
def test_no_module_imports_upward(package: str) -> None:
    for module in (ROOT / package).glob("*.py"):
        assert imported(module) <= BELOW[package], module


def test_migrations_import_nothing_but_the_names_of_tables_and_the_bounds_of_their_rows() -> None:
    for module in (ROOT / "migrations").glob("v*.py"):
        lines = re.findall(r"^[ \t]*(?:from|import) chancy_metrics.*", module.read_text(), re.MULTILINE)
        assert lines == ["from chancy_metrics.events import bounds, schema"]


def test_a_worker_that_only_records_does_not_load_numpy() -> None:
    program = """
import asyncio, sys
from chancy_metrics.plugin import Metrics
metrics = Metrics()
asyncio.run(metrics.increment_counter("app:orders", 1))
print("numpy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


def test_nothing_of_ours_lies_beside_the_package() -> None:
    program = f"import importlib.util as u; print([name for name in {list(BELOW)} if u.find_spec(name)])"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_what_the_readme_names_is_importable_from_the_plugin() -> None:
    named = {"Metrics", "Observation", "Derived", "JobColumns", "NotRecording", "InvalidObservation", "MetricsLogError"}

    assert named <= set(plugin.__all__)
    assert all(hasattr(plugin, name) for name in plugin.__all__)
