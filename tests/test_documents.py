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


#: Row of the README's table of costs -> the rows of docs/performance.md that it sums up, by what they begin with.
COSTS = {
    "a worker's CPU time for a finished job": ("one finished job, both hooks", "the same, 20 / 1 a transaction"),
    "saving 1,000 / 20 finished jobs": ("`Worker.flush`, 1,000 jobs", "`Worker.flush`, 20 jobs"),
    "disk of the log for a million jobs": ("disk a job update",),
    "memory and start of a worker": ("import in a worker", "its memory"),
}


def test_the_readme_costs_what_was_measured() -> None:
    table = (ROOT / "README.md").read_text().partition("\n## What it costs\n")[2].partition("\n## ")[0]
    rows = [row.split("|")[1:-1] for row in re.findall(r"^\| [^|\n]*\w.*", table, re.M)]
    measured = [row.split("|")[1:] for row in re.findall(r"^\| .*", (ROOT / "docs/performance.md").read_text(), re.M)]

    wrong = []
    for work, ours, against in rows:
        summed_up = next(begins for name, begins in COSTS.items() if work.strip().startswith(name))
        found = [row for row in measured if row[0].strip().startswith(summed_up)]
        assert len(found) == len(summed_up), work
        # Of a row in performance.md: ours, and what it is compared with.
        for figures, column in ((ours, 1), (against, 3)):
            known = {figure for row in found for figure in re.findall(r"[\d.]+", row[column])}
            wrong += [f"{work.strip()}: {one}" for one in re.findall(r"[\d.]+", figures) if one not in known]
    assert len(rows) == len(COSTS) and wrong == []
