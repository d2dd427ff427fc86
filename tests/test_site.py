"""The site has every page and every public name, once."""

from __future__ import annotations

import re

from chancy_metrics import plugin
from tests.processes import ROOT

DOCS = ROOT / "docs"


def test_every_public_name_has_one_entry_in_the_api() -> None:
    listed = re.findall(r"\.\. auto\w+:: chancy_metrics\.plugin\.(\w+)", (DOCS / "api.md").read_text())

    assert sorted(listed) == sorted(plugin.__all__)


def test_every_page_is_in_the_table_of_contents() -> None:
    tables = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(), re.S)
    listed = [
        line
        for table in tables
        for line in table.split()
        if not line.startswith(":") and (DOCS / f"{line}.md").exists()
    ]

    assert sorted(listed) == sorted(path.stem for path in DOCS.glob("*.md") if path.stem != "index")
