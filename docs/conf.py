"""Sphinx's settings for the site that `make docs` builds: no page of another host is needed to build or to read it."""

from __future__ import annotations

import inspect
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import chancy_metrics

if TYPE_CHECKING:  # a test runs this file where Sphinx is not installed
    from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))  # for llms.py

project = "chancy-metrics"
author = copyright = "the chancy-metrics maintainers"
release = version = chancy_metrics.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
# Inventories of other projects lie on other hosts: only where the site is published.
if "DOCS_INTERSPHINX" in os.environ:
    extensions.append("sphinx.ext.intersphinx")
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", None),
    "psycopg": ("https://www.psycopg.org/psycopg3/docs", None),
    "chancy": ("https://tkte.ch/chancy", None),
}
exclude_patterns = ["_build", "pictures"]

html_theme = "furo"
html_title = f"chancy-metrics {release}"
html_show_sphinx = html_show_copyright = False
templates_path: list[str] = []

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline", "colon_fence"]
default_role = "code"  # docstrings are Markdown where they quote code
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True


def setup(app: Sphinx) -> None:
    import llms

    app.connect("source-read", name_files_outside)
    app.connect("source-read", show_pictures)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("build-finished", llms.write)


def skip_fields(app: Sphinx, what: str, name: str, member: object, skip: bool, options: object) -> bool | None:
    """Leave out fields of tuples and structs: the docstring of their class has a line on each."""
    return True if inspect.isdatadescriptor(member) and not isinstance(member, property) else None


def name_files_outside(app: Sphinx, page: str, source: list[str]) -> None:
    """Name files of the repository that are no pages, where GitHub links to them."""
    source[0] = re.sub(r"\[`?([^]`]+)`?\]\(\.\./[^)]+\)", r"`\1`", source[0])


def show_pictures(app: Sphinx, page: str, source: list[str]) -> None:
    """Show of a picture, which GitHub chooses by the reader's theme, the one for the theme of this site."""
    source[0] = re.sub(
        r'<picture>\n *<source media="\(prefers-color-scheme: dark\)" srcset="([^"]+)">\n'
        r' *<img alt="([^"]+)" src="([^"]+)">\n</picture>',
        r"![\2](\3){.only-light}\n![\2](\1){.only-dark}",
        source[0],
    )
