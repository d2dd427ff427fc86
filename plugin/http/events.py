"""Answer GET events: page by page, where each answer has the position at which the next one starts."""

from __future__ import annotations

import re
import time
from contextlib import aclosing
from typing import get_args

import msgspec
from chancy import Chancy

from chancy_metrics.events.database import short_transaction
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.audit.events import pages
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.http.limits import room, work
from chancy_metrics.plugin.http.parameters import Parameters, WrongParameter
from chancy_metrics.projections.search.event import EventKind
from chancy_metrics.projections.search.query import EventCursor, EventQuery
from chancy_metrics.projections.search.scan import Page, read_end

#: Seconds after which a search answers with what it has found so far.
SEARCH_S = 2.0
MAX_EVENTS = 1_000
#: Bytes of JSON in a page, which has at least one event.
MAX_BYTES = 4_000_000
_KINDS: tuple[EventKind, ...] = get_args(EventKind)
_POSITION = re.compile(r"(?P<back>-?)(?P<position>\d{1,18})(:(?P<index>\d{1,9}))?", re.ASCII)
_POSITIONS = (
    "a position or position:index, as in the last answer's next; or -N for N batches before the end of the ledger"
)


class EventsPage(msgspec.Struct, frozen=True):
    """Some events, in the order of the ledger.

    Attributes:
        next: The position up to which was searched. With it as `after` the next page neither skips nor repeats events.
        more: There may be more events now; otherwise ask again later.
        gaps: Sentences on what could not be searched.
    """

    events: list[msgspec.Raw]
    next: str
    more: bool
    gaps: list[str]


async def read_events(chancy: Chancy, given: Parameters) -> EventsPage:
    """Return up to `limit` events after `after`; fewer if they are large, and maybe none if the search took too long.

    Raises:
        WrongParameter: A parameter is unknown or not allowed.
    """
    since, until = given.span()
    asked = given.text("after")
    selection = EventQuery(
        since=since,
        until=until,
        worker=given.text("worker_id"),
        producer=given.identifier("producer"),
        kinds=given.choices("kind", _KINDS),
        key=given.text("key"),
        prefix=given.text("prefix"),
        func=given.text("func"),
        queue=given.text("queue"),
        state=given.text("state"),
        job_id=given.identifier("job_id"),
        error=given.text("error"),
    )
    limit = given.whole("limit", minimum=1, maximum=MAX_EVENTS, default=100)
    given.finish()
    if asked is not None:
        selection = msgspec.structs.replace(selection, after=await _cursor(chancy, asked))
    async with room(chancy, decodes=True):
        return await _search(chancy, selection, limit)


async def _search(chancy: Chancy, selection: EventQuery, limit: int) -> EventsPage:
    found: list[msgspec.Raw] = []
    bytes_left = MAX_BYTES
    gaps: list[str] = []
    cursor, more = selection.start_cursor, False
    ends = time.monotonic() + SEARCH_S
    async with aclosing(pages(chancy, selection)) as searched:
        async for whole in searched:
            fitting = await work(chancy, _encode, whole.cut(limit - len(found)), bytes_left, not found)
            if whole.found and not fitting:
                more = True
                break
            page = whole.cut(len(fitting)) if whole.found else whole
            gaps += map(str, page.gaps)
            found += map(msgspec.Raw, fitting)
            bytes_left -= sum(map(len, fitting))
            cursor = page.cursor
            is_cut = len(fitting) < whole.events
            if more := len(found) == limit or is_cut or time.monotonic() > ends:
                break
    return EventsPage(found, str(cursor), more, gaps)


def _encode(page: Page, room_bytes: int, at_least_one: bool) -> list[bytes]:
    """Encode as many of the page's events as fit, each by itself."""
    encoded: list[bytes] = []
    for event in page.to_events():
        one = msgspec.json.encode(event)
        room_bytes -= len(one)
        if room_bytes < 0 and (encoded or not at_least_one):
            break
        encoded.append(one)
    return encoded


async def _cursor(chancy: Chancy, text: str) -> EventCursor:
    match = _POSITION.fullmatch(text)
    if match is None or (match["back"] and match["index"]):
        raise WrongParameter("after", text, _POSITIONS)
    async with room(chancy), bounded_connection(chancy) as connection, short_transaction(connection) as cursor:
        end = await read_end(cursor, tables_for(chancy.prefix))
    position = int(match["position"])
    if match["back"]:
        return EventCursor(max(0, end - position))
    if position > end:
        raise WrongParameter("after", text, f"{_POSITIONS}; the ledger ends at {end}")
    return EventCursor(position, None if match["index"] is None else int(match["index"]))
