"""What a user imports comes from `chancy_metrics.plugin`, and says its arguments, units and errors."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from chancy_metrics import plugin
from chancy_metrics.plugin import Metrics
from tests.processes import ROOT

DOCUMENTS = [
    path
    for folder in (ROOT, ROOT / "docs", ROOT / "bench")
    for path in sorted(folder.glob("*.md"))
    if "chancy_metrics" in path.read_text() and path.name != "design.md"  # which is about the other modules
]
PUBLIC = {name: getattr(plugin, name) for name in plugin.__all__}
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}
METHODS = {
    name: getattr(value, "fget", None) or value
    for name, value in vars(Metrics).items()
    if not name.startswith("_") and (callable(value) or isinstance(value, property))
}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_import_from_the_public_api_alone(path: Any) -> None:
    text = re.sub(r"^\.\. click:: .*", "", path.read_text(), flags=re.M)  # Sphinx's name of the command, for no reader
    promised = {"plugin", "__version__", *(f"plugin.{name}" for name in plugin.__all__)}

    named = set(re.findall(r"\bchancy_metrics\.([\w.]*\w)", text))
    imported = {
        name.strip()
        for names in re.findall(r"from chancy_metrics\.plugin import ([\w, ]+)", text)
        for name in names.split(",")
    }

    assert named <= promised
    assert imported <= set(plugin.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_docstring_of_its_own(name: str) -> None:
    made_up = f"{name}("  # what dataclasses write where there is none

    assert (PUBLIC[name].__doc__ or made_up).startswith(made_up) is False


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_says_its_arguments_and_its_errors(name: str) -> None:
    assert undocumented(FUNCTIONS[name]) == []
    assert "\nRaises:\n" in (inspect.getdoc(FUNCTIONS[name]) or "")


@pytest.mark.parametrize("name", CLASSES)
def test_a_public_class_says_in_which_zone_its_times_are(name: str) -> None:
    kinds = [f"{kind}" for kind in getattr(CLASSES[name], "__annotations__", {}).values()]

    assert not any("datetime" in kind for kind in kinds) or re.search(r"\b(UTC|aware)\b", CLASSES[name].__doc__)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_plugin_has_a_docstring(name: str) -> None:
    assert METHODS[name].__doc__


def test_the_plugin_says_every_setting() -> None:
    assert undocumented(Metrics.__init__) == []


def undocumented(function: Callable[..., Any]) -> list[str]:
    """Keyword arguments that `Args:` leaves out, and moments of which it does not say that they are aware."""
    text = inspect.getdoc(function) or ""
    said = dict(re.findall(r"^    (\w+): ((?:.+\n?)(?:^ {8}.+\n?)*)", text.partition("\nArgs:\n")[2], re.M))
    asked = {one.name: f"{one.annotation}" for one in inspect.signature(function).parameters.values()}
    keywords = {
        one.name
        for one in inspect.signature(function).parameters.values()
        if one.kind is inspect.Parameter.KEYWORD_ONLY or one.default is not inspect.Parameter.empty
    }
    return [
        name
        for name, kind in asked.items()
        if (name in keywords and name not in said) or ("datetime" in kind and "aware" not in said.get(name, ""))
    ]
