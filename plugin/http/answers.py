"""What each JSON route answers: the parameters it takes, and whom it asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import msgspec
from chancy import Chancy

from chancy_metrics.events.database import short_transaction
from chancy_metrics.events.facts import EPOCH, MAX_KEY_BYTES, microseconds
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.audit.events import JobLife, job_life
from chancy_metrics.plugin.audit.explain import Explained, explain
from chancy_metrics.plugin.audit.marks import Mark, read_marks
from chancy_metrics.plugin.health.status import Status, read_status
from chancy_metrics.plugin.host.bounded_reads import reading
from chancy_metrics.plugin.http.events import read_events, without_large_meta
from chancy_metrics.plugin.http.limits import room, work
from chancy_metrics.plugin.http.parameters import Parameters, WrongParameter
from chancy_metrics.plugin.http.points import NAMES, KeptResolution, Points, kept_resolutions, read_points
from chancy_metrics.plugin.http.series import SeriesPage, WorkersPage, list_series, list_workers

MAX_SERIES, MAX_WORKERS, MAX_MARKS, MAX_LISTED = 1_000, 1_000, 1_000, 200
MAX_RANGE_S = 10 * 365 * 86_400
#: Of a place among marks: a moment and a text.
_MOST_PLACE_BYTES = 17 + MAX_KEY_BYTES

#: What of an explanation are events.
_LISTS = ("largest", "failed", "first")

#: Raises `WrongParameter` and what it asks raises; the result is made JSON.
Answer = Callable[[Chancy, Parameters], Awaitable[object]]


class MarksPage(msgspec.Struct, frozen=True):
    """Some marks, in order of time and text.

    Attributes:
        next: What `after` must be for the next page; None on the last one.
    """

    marks: list[Mark]
    next: str | None


async def series(chancy: Chancy, given: Parameters) -> SeriesPage:
    prefix, after = given.text("prefix"), given.text("after")
    limit = given.whole("limit", least=1, most=MAX_SERIES, default=100)
    search = given.text("search")
    given.finish()
    return await list_series(chancy, prefix, search, after=after, limit=limit)


async def workers(chancy: Chancy, given: Parameters) -> WorkersPage:
    after = given.text("after")
    limit = given.whole("limit", least=1, most=MAX_WORKERS, default=100)
    given.finish()
    return await list_workers(chancy, after=after, limit=limit)


async def points(chancy: Chancy, given: Parameters) -> Points:
    key, worker = given.key(), given.text("worker_id")
    resolution = given.choice("resolution", NAMES, "5min")
    since, until = given.span()
    range_s = given.whole("range", least=60, most=MAX_RANGE_S)
    given.finish()
    if range_s is not None and (since or until):
        raise WrongParameter("range", str(range_s), "a value only where neither since nor until has one")
    return await read_points(chancy, key, resolution, since, until, worker, range_s=range_s)


async def resolutions(chancy: Chancy, given: Parameters) -> dict[str, list[KeptResolution]]:
    given.finish()
    return {"resolutions": kept_resolutions(chancy)}


async def job(chancy: Chancy, given: Parameters) -> JobLife:
    job_id = given.identifier("job_id")
    given.finish()
    assert job_id is not None
    async with room(chancy, decodes=True):
        life = await job_life(chancy, job_id)
    return msgspec.structs.replace(life, updates=await work(chancy, without_large_meta, life.updates))


async def explanation(chancy: Chancy, given: Parameters) -> Explained:
    key, at, worker = given.key(), given.moment("at"), given.text("worker_id")
    resolution = given.choice("resolution", NAMES, "1min")
    limit = given.whole("limit", least=1, most=MAX_LISTED, default=20)
    given.finish()
    if at is None:
        raise WrongParameter("at", "", "a moment in the bucket to explain, and must be given")
    async with room(chancy, decodes=True):
        found = await explain(chancy, key, at, resolution=resolution, worker_id=worker, limit=limit)
    lists = {name: await work(chancy, without_large_meta, getattr(found, name)) for name in _LISTS}
    return msgspec.structs.replace(found, **lists)


async def marks(chancy: Chancy, given: Parameters) -> MarksPage:
    since, until = given.span()
    after = given.text("after", most_bytes=_MOST_PLACE_BYTES)
    limit = given.whole("limit", least=1, most=MAX_MARKS, default=100)
    given.finish()
    behind = None if after is None else _mark_at(after)
    async with room(chancy), reading(chancy) as connection, short_transaction(connection) as cursor:
        found = await read_marks(cursor, tables_for(chancy.prefix), since, until, after=behind, limit=limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    return MarksPage(found[:limit], None if last is None else f"{microseconds(last.at)}:{last.text}")


def _mark_at(place: str) -> Mark:
    """Several marks may have one moment: a place among them is the moment and the text."""
    at_us, colon, text = place.partition(":")
    if not (colon and text and at_us.isascii() and at_us.isdigit() and len(at_us) < 17):
        raise WrongParameter("after", place, "a place among marks, as in the last answer's next")
    return Mark(EPOCH + timedelta(microseconds=int(at_us)), text)


async def status(chancy: Chancy, given: Parameters) -> Status:
    given.finish()
    async with room(chancy):
        return await read_status(chancy)


#: By path under /api/v1/metrics-log.
ANSWERS: dict[str, Answer] = {
    "series": series,
    "points": points,
    "resolutions": resolutions,
    "explain": explanation,
    "events": read_events,
    "jobs/{job_id}": job,
    "marks": marks,
    "workers": workers,
    "status": status,
}
