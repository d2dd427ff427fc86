"""Text as the database's encoding can store it: other characters become escapes."""

from __future__ import annotations

from typing import Any

from psycopg import AsyncCursor, Cursor

from chancy_metrics.events.facts import bounded_worker

#: Encodings of databases, and Python's names of them; every other one counts as ASCII.
_PYTHON_ENCODINGS = {"UTF8": "utf-8", "LATIN1": "iso8859-1", "LATIN9": "iso8859-15", "WIN1252": "cp1252"}


def storable(cursor: AsyncCursor[Any] | Cursor[Any], text: str) -> str:
    """Return *text* with escapes, such as \\u20ac, for characters that this database can't store.

    An error may quote the very character that could not be stored.
    """
    if text.isascii() and "\x00" not in text:
        return text
    encoding = _PYTHON_ENCODINGS.get(cursor.connection.info.parameter_status("server_encoding") or "", "ascii")
    return text.replace("\x00", "\ufffd").encode(encoding, "backslashreplace").decode(encoding)


def storable_worker(cursor: AsyncCursor[Any] | Cursor[Any], worker_id: str) -> str:
    """Return a worker's id as this database stores it; queries must use the same."""
    return bounded_worker(storable(cursor, worker_id))
