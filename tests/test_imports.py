"""What may import what, and what a worker that only records does not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from chancy_metrics import plugin

ROOT = Path(__file__).parent.parent
#: Folders, each of which imports from itself and from those above it. A total order, so no cycle passes.
ORDER = [
    "events",
    "events/transfer",
    "projections",
    "projections/rules",
    "projections/fold",
    "projections/rollups",
    "projections/versions",
    "projections/totals",
    "projections/search",
    "projections/explain",
    "projections/verify",
    "plugin/host",
    "plugin/recording",
    "plugin/reading",
    "plugin/folding",
    "plugin/transfer",
    "plugin/parallel",
    "plugin/rebuilds",
    "plugin/worker",
    "plugin/health",
    "plugin/telemetry",
    "plugin/grafana",
    "plugin/audit",
    "plugin/alerts",
    "plugin/summary",
    "plugin",
    "plugin/http",
    "plugin/cli",
]


def imported(module: Path) -> Iterator[str]:
    """Dotted names below `chancy_metrics` that *module* imports, wherever in it: of modules, or of names in them."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import in line {node.lineno}"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("chancy_metrics.") for name in found if name.startswith("chancy_metrics."))


def folder_of(root: Path, name: str) -> str:
    """The folder that the module or package *name* lies in, or the one of the module that holds that name."""
    path = root / name.replace(".", "/")
    while not path.is_dir() and not path.with_suffix(".py").exists():
        path = path.parent
    return (path if path.is_dir() else path.parent).relative_to(root).as_posix()


def upward(root: Path, order: list[str]) -> list[str]:
    """Imports that go up *order*, and folders that are not in it."""
    found = []
    for module in sorted(path for top in {one.split("/")[0] for one in order} for path in (root / top).rglob("*.py")):
        folder = module.parent.relative_to(root).as_posix()
        if folder not in order:
            found.append(f"{folder} has no place in the order")
            continue
        for name in imported(module):
            if order.index(there := folder_of(root, name)) > order.index(folder):
                found.append(f"{module.relative_to(root)} imports {name}, which lies in {there}")
    return found


def test_no_module_imports_upward() -> None:
    assert upward(ROOT, ORDER) == []


def test_every_folder_of_the_order_is_there() -> None:
    assert [folder for folder in ORDER if not (ROOT / folder / "__init__.py").exists()] == []


@pytest.mark.parametrize(
    ("modules", "found"),
    [
        ({"low/a.py": "from chancy_metrics.high import b"}, ["low/a.py imports high.b, which lies in high"]),
        ({"low/a.py": "from chancy_metrics.high.b import B"}, ["low/a.py imports high.b.B, which lies in high"]),
        ({"low/a.py": "if 1:\n    import chancy_metrics.high.b"}, ["low/a.py imports high.b, which lies in high"]),
        ({"low/sub/a.py": ""}, ["low/sub has no place in the order"]),
        (
            {"low/a.py": "from chancy_metrics.high import b", "high/b.py": "from chancy_metrics.low import a"},
            ["low/a.py imports high.b, which lies in high"],  # one side of every cycle goes up
        ),
        ({"high/b.py": "from chancy_metrics.low import a"}, []),
    ],
)
def test_an_upward_import_and_a_cycle_are_found(tmp_path: Path, modules: dict[str, str], found: list[str]) -> None:
    for name, text in {"low/a.py": "", "high/b.py": "", **modules}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert upward(tmp_path, ["low", "high"]) == found


def test_migrations_import_nothing_but_the_names_of_tables_and_the_bounds_of_their_rows() -> None:
    for module in (ROOT / "migrations").glob("v*.py"):
        others = {name for name in imported(module) if not name.startswith("migrations.")}
        assert {".".join(name.split(".")[:2]) for name in others} == {"events.row_bounds", "events.schema"}


def test_a_worker_that_only_records_loads_neither_numpy_nor_the_web() -> None:
    program = """
import asyncio, sys
from chancy_metrics.plugin import Metrics
metrics = Metrics()
asyncio.run(metrics.increment_counter("app:orders", 1))
print([name for name in sys.modules if name.startswith(("numpy", "starlette", "chancy_metrics.plugin.http"))])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_package_says_its_version_and_looks_it_up_only_when_asked() -> None:
    program = """
import sys, chancy_metrics
print("importlib.metadata" in sys.modules, chancy_metrics.__version__)
"""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", metadata.version("chancy-metrics")]


def test_nothing_of_ours_lies_beside_the_package() -> None:
    tops = ["package", "events", "projections", "plugin", "migrations"]
    program = f"import importlib.util as u; print([name for name in {tops} if u.find_spec(name)])"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_every_public_name_is_imported_from_where_it_is_defined() -> None:
    imports = {
        alias.name: f"{node.module}".removeprefix("chancy_metrics.")
        for node in ast.walk(ast.parse(Path(plugin.__file__).read_text()))
        if isinstance(node, ast.ImportFrom) and f"{node.module}".startswith("chancy_metrics.")
        for alias in node.names
    }

    assert {name: module for module, names in plugin._DEFINED_IN.items() for name in names.split()} == imports
    assert sorted(imports) == plugin.__all__ == sorted(plugin.__all__)
    assert [name for name in plugin.__all__ if not hasattr(plugin, name)] == []
    assert {name: module for name, module in imports.items() if not defines(module, name)} == {}


def defines(module: str, name: str) -> bool:
    nodes = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text()).body
    return name in {
        node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_no_folder_of_the_plugin_bears_a_public_name() -> None:
    names = {path.stem for path in Path(plugin.__file__).parent.iterdir()}

    assert names & set(plugin.__all__) == set()  # to import such a folder would replace the name
