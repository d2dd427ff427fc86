"""Escape foreign text for a terminal, so that nothing in it moves the cursor, breaks the line or is invisible."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import msgspec

#: Unicode categories of characters that a terminal acts on, or that are invisible.
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
#: Letters and marks, by their category, that are drawn as nothing: fillers, joiners and selectors of variants.
_DRAWN_AS_NOTHING = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def safe(text: str) -> str:
    """Return *text* with every hidden character written as `\\u001b`, as JSON does."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(letter) if _is_hidden(letter) else letter for letter in text)


def json_line(value: Any, encoding: str = "utf-8") -> str:
    """Encode *value* as one line of JSON, which stays the same value when read back, and is safe to show.

    Args:
        encoding: The output's; characters it lacks are escaped.
    """
    return encodable(safe(msgspec.json.encode(value, enc_hook=repr).decode()), encoding)


def encodable(lines: str, encoding: str) -> str:
    """Escape what is not ASCII in those of some lines of JSON that have characters which *encoding* lacks."""
    if lines.isascii():
        return lines
    try:
        lines.encode(encoding)
    except UnicodeError:
        if "\n" in lines:
            return "\n".join(encodable(line, encoding) for line in lines.split("\n"))
        return "".join(letter if letter.isascii() else _escaped(letter) for letter in lines)
    return lines


def _is_hidden(letter: str) -> bool:
    return unicodedata.category(letter) in _HIDDEN or _DRAWN_AS_NOTHING.match(letter) is not None


def _escaped(letter: str) -> str:
    code = ord(letter)
    if code > 0xFFFF:  # the two halves that JSON wants
        return f"\\u{0xD800 + (code - 0x10000 >> 10):04x}\\u{0xDC00 + (code - 0x10000 & 0x3FF):04x}"
    return f"\\u{code:04x}"
