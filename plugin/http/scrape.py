"""Answer a scrape of Prometheus: who may scrape, in which form, and what is said where nothing can be read."""

from __future__ import annotations

import asyncio
import gzip
import hmac
import re
from collections.abc import Callable
from weakref import WeakKeyDictionary

import psycopg
from chancy import Chancy, Worker
from starlette.requests import Request
from starlette.responses import Response

from chancy_metrics.events.database import needs_schema
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.hot_standby import database_sentence, error_sentence
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.host.app import options_of
from chancy_metrics.plugin.http.limits import RETRY_S, room, work
from chancy_metrics.plugin.http.response import BoundedResponse
from chancy_metrics.plugin.telemetry.exposition import ENDS, accepted_form, cut, write_part
from chancy_metrics.plugin.telemetry.families import Family
from chancy_metrics.plugin.telemetry.scrape import Scrape, read_scrape

#: Seconds after which a scrape is refused: Prometheus waits for 10 by default.
SCRAPE_S = 9.0
_MAX_SENTENCE = 500
_FAILURES = (MetricsLogError, psycopg.Error, TimeoutError)
#: Answers from so many bytes on are compressed: a text shrinks to a tenth.
_COMPRESSED_BYTES = 1_000


class Trouble:
    """Tells when scrapes begin to go wrong, or go wrong for another reason, and when they are right again, once each.

    Args:
        tell: Takes a sentence.
    """

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._last = ""

    def note(self, problem: str) -> None:
        """Take what was wrong with a scrape; "" for nothing."""
        reason = _NUMBERS.sub("", problem)  # a time or a count in it is no other reason
        if reason != self._last:
            self._tell(f"metrics: a scrape can't be answered in full: {problem}" if problem else _RIGHT)
        self._last = reason


_NUMBERS = re.compile(r"\d+")
_RIGHT = "metrics: scrapes are answered in full again"
_troubles: WeakKeyDictionary[Chancy, Trouble] = WeakKeyDictionary()


async def scrape_route(request: Request, *, chancy: Chancy, worker: Worker) -> Response:
    """Answer on Chancy's API server, if `Metrics(scrape_token=…)` is set; the dashboard's tokens don't count here."""
    token = options_of(chancy).scrape_token
    if token is None:
        return _say(404, "scrapes are off here: Metrics(scrape_token=…) switches them on")
    trouble = _troubles.setdefault(chancy, Trouble(chancy.log.warning))
    return await answer_scrape(request, chancy, token, trouble)


async def answer_scrape(request: Request, chancy: Chancy, token: str | None, trouble: Trouble) -> Response:
    """Answer a scrape; without *token* anybody's."""
    if token is not None and not _is_held(request.headers.get("authorization", ""), token):
        return _say(401, "a scrape needs the header `Authorization: Bearer TOKEN` with the right token", bearer=True)
    form = accepted_form(request.headers.get("accept", ""))
    zipped = "gzip" in request.headers.get("accept-encoding", "")
    try:
        async with asyncio.timeout(SCRAPE_S):
            scrape = await _scrape(chancy)
            body, encoding = await _write(chancy, scrape.families, form, zipped)
    except _FAILURES as error:
        trouble.note(sentence := _sentence(error))
        return _say(503, sentence)
    trouble.note("; ".join(scrape.missing))
    headers = {"Cache-Control": "no-store", "Vary": "Accept, Accept-Encoding", **encoding}
    return BoundedResponse(body, 200, headers, form)


async def scrape_problem(chancy: Chancy) -> str:
    """Return why a scrape would not be answered in full now; "" if it would."""
    try:
        async with asyncio.timeout(SCRAPE_S):
            return "; ".join((await _scrape(chancy)).missing)
    except _FAILURES as error:
        return _sentence(error)


async def _scrape(chancy: Chancy) -> Scrape:
    with needs_schema(tables_for(chancy.prefix)):
        async with room(chancy):
            return await read_scrape(chancy)


def _sentence(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"a scrape may take at most {SCRAPE_S:g} s: the database is slow, or this process busy"
    said = database_sentence(error) if isinstance(error, psycopg.Error) else error_sentence(error)
    return said[:_MAX_SENTENCE]


def _is_held(header: str, token: str) -> bool:
    scheme, _, given = header.partition(" ")
    # Of bytes: text that is not ASCII can't be compared in constant time.
    return hmac.compare_digest(given.strip().encode(), token.encode()) and scheme.lower() == "bearer"


async def _write(chancy: Chancy, families: list[Family], form: str, zipped: bool) -> tuple[bytes, dict[str, str]]:
    """Return the body, and the header that says how it is compressed; in parts, so that this process' jobs get time."""
    parts = [await work(chancy, write_part, part, form) for part in cut(families)]
    body = b"".join(parts) + ENDS.get(form, b"")
    if not zipped or len(body) < _COMPRESSED_BYTES:
        return body, {}
    return await work(chancy, gzip.compress, body, 1), {"Content-Encoding": "gzip"}


def _say(status: int, sentence: str, *, bearer: bool = False) -> Response:
    headers = {"Cache-Control": "no-store"}
    if status == 503:
        headers["Retry-After"] = str(RETRY_S)
    if bearer:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(f"{sentence}\n", status, headers, "text/plain; charset=utf-8")
