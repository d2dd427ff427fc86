"""Read the pages of the reference: their sections, the rows of their tables, and the names in code."""

from __future__ import annotations

import re

from tests.processes import ROOT


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def section(name: str, heading: str) -> str:
    """Return what stands below a heading of a page, up to the next one of its level or above."""
    text = page(name)
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.M)
    assert found, f"docs/{name}.md has no heading {heading!r}"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.M)
    return rest[: end.start()] if end else rest


def rows(text: str) -> list[list[str]]:
    """Return the rows of all tables, without their heads, a text each cell."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", text + "\n", re.M):
        found += [
            [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in table.splitlines()[2:]
        ]
    return found


def code(cell: str) -> list[str]:
    """Return what stands in code in a cell."""
    return re.findall(r"`([^`]+)`", cell)
