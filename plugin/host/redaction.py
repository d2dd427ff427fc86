"""Remove passwords from connection errors and logs: libpq quotes the part of a DSN that it can't parse."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from urllib.parse import unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict

HIDDEN = "***"
_SCHEME = re.compile(r"\s*postgres(?:ql)?://")
_URI = re.compile(r"(\w://[^\s:/@\"']*:)[^\"'\n]*@")
_OPTION = re.compile(r"(?:ssl)?password\s*=\s*(.*?)\s*(?=\s[a-z_]+\s*=|&|$)", re.DOTALL)
#: The same in a text that is more than a DSN, where the next space ends it.
_GIVEN = re.compile(r"((?:ssl)?password\s?=\s?)(?:'(?:[^'\\]|\\.)*'|[^\s'\"&,;)]+)")
#: What may stand in a password that is not encoded, and so takes it apart.
_SEPARATORS = re.compile(r"[^\w.~-]+")
#: Texts of libpq that quote a part of the DSN.
_QUOTED = re.compile(
    r"((?:percent-encoded (?:token|value)|spaces found in|missing \"=\" after|connection option|URI query parameter"
    r"|in URI(?: \(expected [^)]*\))?:?|in URI:)[^\"]*)\".*\"",
    re.DOTALL,
)


def without_password(text: str, dsn: str = "") -> str:
    """Return *text* with every part of the password in *dsn* hidden, even if *dsn* can't be parsed.

    Without a DSN, hide what looks like a password of one, and what libpq quotes.
    """
    text = _URI.sub(rf"\1{HIDDEN}@", text)
    text = _QUOTED.sub(rf'\1"{HIDDEN}"', text)
    text = _GIVEN.sub(rf"\1{HIDDEN}", text)
    for secret in sorted(set(_secrets(dsn)), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    return text


class WithoutPasswords(logging.Filter):
    """Removes passwords from a logger's records, before any handler writes them."""

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        if (harmless := without_password(said)) != said:
            record.msg, record.args = harmless, ()
        return True


def _secrets(dsn: str) -> Iterator[str]:
    """Yield the password as it is written and as it is meant, and the chunks that a reader may take it for."""
    for written in _written(dsn):
        for one in (written, unquote(written, errors="replace"), written.strip("'")):
            yield from (chunk for chunk in (one, *_SEPARATORS.split(one)) if chunk)


def _written(dsn: str) -> Iterator[str]:
    try:
        yield str(conninfo_to_dict(dsn).get("password") or "")
    except (psycopg.Error, UnicodeError, ValueError):
        pass
    if scheme := _SCHEME.match(dsn):
        rest = dsn[scheme.end() :]
        options = rest.find("?", rest.find("@") + 1)
        address, query = (rest, "") if options < 0 else (rest[:options], rest[options:])
        yield address.rpartition("@")[0].partition(":")[2]
        dsn = query
    for found in _OPTION.finditer(dsn):
        yield found[1]
