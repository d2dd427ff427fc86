"""The pictures in the documents are there, for both themes, and small."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from tests.test_documents import DOCUMENTS

PICTURE = re.compile(
    r'<picture>\n  <source media="\(prefers-color-scheme: dark\)" srcset="([^"]+)-dark\.png">\n'
    r'  <img alt="[^"]+" src="([^"]+)-light\.png">\n</picture>'
)
FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
MOST_BYTES = 250_000


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_shows_a_picture_for_each_theme(path: Path) -> None:
    text = path.read_text()

    assert len(PICTURE.findall(text)) == text.count("<picture>") == text.count("<img")
    for dark, light in PICTURE.findall(text):
        assert dark == light
        assert (path.parent / f"{dark}-dark.png").exists() and (path.parent / f"{light}-light.png").exists()


def test_every_picture_is_shown_and_small() -> None:
    texts = [path.read_text() for path in DOCUMENTS]
    pictures = sorted(FOLDER.iterdir())

    assert [one.name for one in pictures if not any(f"pictures/{one.name}" in text for text in texts)] == []
    assert [one.name for one in pictures if one.stat().st_size > MOST_BYTES] == []


def test_the_site_shows_the_picture_of_its_own_theme() -> None:
    source = [
        '<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="pictures/a-dark.png">\n'
        '  <img alt="A" src="pictures/a-light.png">\n</picture>\n'
    ]

    runpy.run_path(str(FOLDER.parent / "conf.py"))["show_pictures"](None, "page", source)

    assert source == ["![A](pictures/a-light.png){.only-light}\n![A](pictures/a-dark.png){.only-dark}\n"]
