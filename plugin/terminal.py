"""Text that others wrote, as a terminal may show it: nothing in it moves the cursor, turns the line or hides."""

from __future__ import annotations

import unicodedata
from typing import Any

import msgspec

#: Kinds of characters that a terminal acts on, or that nobody can see.
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


def safe(text: str) -> str:
    """Return *text* with every character that is not to be seen spelled as `\\u001b`, as JSON does."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(letter) if unicodedata.category(letter) in _HIDDEN else letter for letter in text)


def json_line(value: Any) -> str:
    """Encode *value* as one line of JSON, which stays the same value when read back, and is safe to show."""
    return safe(msgspec.json.encode(value, enc_hook=repr).decode())


def _spelled(letter: str) -> str:
    code = ord(letter)
    if code > 0xFFFF:  # the two halves that JSON wants
        return f"\\u{0xD800 + (code - 0x10000 >> 10):04x}\\u{0xDC00 + (code - 0x10000 & 0x3FF):04x}"
    return f"\\u{code:04x}"
