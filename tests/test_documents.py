"""The documents say what is there: commands, links, files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.processes import ROOT

DOCUMENTS = [path for folder in (ROOT, ROOT / "docs", ROOT / "bench") for path in sorted(folder.glob("*.md"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_of_a_document_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(((?!https?:)[^)]+)\)", path.read_text())

    assert [link for link in links if not leads_somewhere(path, link)] == []


def leads_somewhere(path: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    there = (path.parent / name).resolve() if name else path
    return there.exists() and (not anchor or anchor in headings(there))


def headings(path: Path) -> set[str]:
    """Anchors that GitHub gives a document's headings."""
    titles = re.findall(r"^#+ (.*)", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/design.md"])
def test_files_that_a_document_names_are_there(name: str) -> None:
    named = re.findall(r"`((?:\w+/)+\w+\.\w+)`", (ROOT / name).read_text())

    assert named and [path for path in named if not (ROOT / path).exists()] == []


def test_the_design_lists_every_module_with_what_lies_in_it() -> None:
    block = re.search(r"^```text\n(package/.*?)^```", (ROOT / "docs" / "design.md").read_text(), re.S | re.M)
    folder, listed = "", []
    for line in block[1].splitlines() if block else []:
        name, _, about = line.strip().partition(" ")
        assert about.strip(), f"{line!r} says nothing"
        if line.startswith(" "):
            listed.append(f"{folder}{name}")
        else:
            folder = name

    tops = ("package", "events", "projections", "plugin", "migrations")
    modules = [path.relative_to(ROOT) for top in tops for path in (ROOT / top).rglob("*.py")]
    assert sorted(listed) == sorted(path.as_posix() for path in modules if path.name != "__init__.py")


def test_the_readme_costs_what_was_measured() -> None:
    table = (ROOT / "README.md").read_text().partition("\n## What it costs\n")[2].partition("\n## ")[0]
    figures = [figure for row in re.findall(r"^\|.*?\|(.*)", table, re.M) for figure in re.findall(r"[\d.]+", row)]
    measured = re.findall(r"[\d.]+", (ROOT / "docs" / "performance.md").read_text())

    assert len(figures) > 10 and [figure for figure in figures if figure not in measured] == []
