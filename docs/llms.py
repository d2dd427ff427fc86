"""Write llms.txt and llms-full.txt beside the site: its pages as a list, and as one text, for language models.

The form is that of https://llmstxt.org.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx


def write(app: Sphinx, error: Exception | None) -> None:
    """Write both files once the pages are built."""
    if error is not None or app.builder.format != "html":
        return
    pages = {page: Path(app.env.doc2path(page)).read_text() for page in _in_order(app, app.config.root_doc)}
    introduction = _first_paragraph(pages[app.config.root_doc])
    listed = [
        f"- [{app.env.titles[page].astext()}]({page}.html): {_first_paragraph(text)}"
        for page, text in pages.items()
        if page != app.config.root_doc
    ]
    head = f"# {app.config.project}\n\n> {introduction}\n\n"
    Path(app.outdir, "llms.txt").write_text(head + "## Documentation\n\n" + "\n".join(listed) + "\n")
    Path(app.outdir, "llms-full.txt").write_text(head + "\n\n".join(pages.values()))


def _in_order(app: Sphinx, page: str) -> list[str]:
    """Return *page* and those that its tables of contents list, in their order."""
    return [page, *(one for child in app.env.toctree_includes.get(page, []) for one in _in_order(app, child))]


def _first_paragraph(text: str) -> str:
    """Return the first paragraph below the title, as one line of plain text."""
    for block in re.split(r"\n\s*\n", text):
        if not re.match(r"[#`|!<:{(\[-]", block.strip()):
            return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", " ".join(block.split()))
    return ""
