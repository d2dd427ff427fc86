"""The routes of the page: its files, and the JSON that each path answers; docs/http.md describes them for callers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

import msgspec
import psycopg
from chancy import Chancy, Worker
from chancy.plugins.api.plugin import RouteT
from starlette.authentication import requires
from starlette.requests import Request
from starlette.responses import Response

from chancy_metrics.events.database import needs_schema, short_transaction
from chancy_metrics.events.errors import MetricsLogError, VersionRefused
from chancy_metrics.events.facts import EPOCH, MAX_KEY_BYTES, microseconds
from chancy_metrics.events.hot_standby import database_sentence
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.audit.events import JobLife, job_life
from chancy_metrics.plugin.audit.explain import Explained, explain
from chancy_metrics.plugin.audit.find_series import UnknownSeries
from chancy_metrics.plugin.audit.marks import Mark, read_marks
from chancy_metrics.plugin.health.status import Status
from chancy_metrics.plugin.health.status_reader import read_status
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.moments import plain_moment
from chancy_metrics.plugin.http.events import read_events
from chancy_metrics.plugin.http.files import SHELL, send_file
from chancy_metrics.plugin.http.limits import RETRY_S, Busy, room, work
from chancy_metrics.plugin.http.overview import TABLES, Overview, overview
from chancy_metrics.plugin.http.overview_order import BY_QUANTILE, PLAIN
from chancy_metrics.plugin.http.overview_rows import Asked
from chancy_metrics.plugin.http.overview_workers import WORKER_ORDERS
from chancy_metrics.plugin.http.parameters import Parameters, WrongParameter
from chancy_metrics.plugin.http.points import NAMES, KeptResolution, Points, kept_resolutions, points_in_window
from chancy_metrics.plugin.http.response import BoundedResponse
from chancy_metrics.plugin.http.scrape import scrape_route
from chancy_metrics.plugin.http.series import SeriesPage, WorkersPage, list_series, list_workers
from chancy_metrics.projections.search.event import Event

#: Seconds after which an answer is refused: a client that left holds nothing longer, and the server stops in time.
ANSWER_S = 12.0
MAX_SERIES, MAX_WORKERS, MAX_MARKS, MAX_LISTED = 1_000, 1_000, 1_000, 200
MAX_OVERVIEW_S, MAX_ROWS, MAX_ROWS_BEFORE = 90 * 86_400, 200, 1_000_000
MAX_RANGE_S = 10 * 365 * 86_400
#: Bytes of a cursor of marks: a moment and a text.
_MARK_CURSOR_BYTES = 17 + MAX_KEY_BYTES

#: The lists of events in an explanation.
_LISTS = ("largest", "failed", "first")
#: Bytes of JSON in the `meta` of an event that is part of an explanation or of a job's history.
_MAX_META_BYTES = 4_000

#: Returns what becomes the JSON of a 200; its errors become status codes in `_answering`.
Answer = Callable[[Chancy, Parameters], Awaitable[object]]
Endpoint = Callable[..., Awaitable[Response]]


class MarksPage(msgspec.Struct, frozen=True):
    """Some marks, in order of time and text.

    Attributes:
        next: The `after` of the next page; None on the last one.
    """

    marks: list[Mark]
    next: str | None


async def series(chancy: Chancy, given: Parameters) -> SeriesPage:
    prefix, after = given.text("prefix"), given.text("after")
    limit = given.whole("limit", minimum=1, maximum=MAX_SERIES, default=100)
    search = given.text("search")
    given.finish()
    return await list_series(chancy, prefix, search, after=after, limit=limit)


async def workers(chancy: Chancy, given: Parameters) -> WorkersPage:
    after = given.text("after")
    limit = given.whole("limit", minimum=1, maximum=MAX_WORKERS, default=100)
    given.finish()
    return await list_workers(chancy, after=after, limit=limit)


async def points(chancy: Chancy, given: Parameters) -> Points:
    key, worker = given.key(), given.text("worker_id")
    resolution = given.choice("resolution", NAMES, "5min")
    since, until = given.span()
    range_s = given.whole("range", minimum=60, maximum=MAX_RANGE_S)
    given.finish()
    if range_s is not None and (since or until):
        raise WrongParameter("range", str(range_s), "a value only where neither since nor until has one")
    return await points_in_window(chancy, key, resolution, since, until, worker, range_s=range_s)


async def overview_table(chancy: Chancy, given: Parameters) -> Overview:
    table = given.choice("table", TABLES, "functions")
    range_s = given.whole("range", minimum=60, maximum=MAX_OVERVIEW_S, default=86_400)
    orders, usual = (WORKER_ORDERS, "seen_at") if table == "workers" else ((*PLAIN, *BY_QUANTILE), "failed")
    asked = Asked(
        given.choice("order", orders, usual),
        given.choice("direction", ("descending", "ascending"), "descending") == "descending",
        (given.text("search") or "").casefold().split(),
        given.whole("after", minimum=0, maximum=MAX_ROWS_BEFORE, default=0),
        given.whole("limit", minimum=1, maximum=MAX_ROWS, default=50),
    )
    given.finish()
    return await overview(chancy, table, range_s, asked)


async def resolutions(chancy: Chancy, given: Parameters) -> dict[str, list[KeptResolution]]:
    given.finish()
    return {"resolutions": kept_resolutions(chancy)}


async def job(chancy: Chancy, given: Parameters) -> JobLife:
    job_id = given.identifier("job_id")
    given.finish()
    assert job_id is not None
    async with room(chancy, decodes=True):
        life = await job_life(chancy, job_id)
    return msgspec.structs.replace(life, updates=await work(chancy, _without_large_meta, life.updates))


async def explanation(chancy: Chancy, given: Parameters) -> Explained:
    key, at, worker = given.key(), given.moment("at"), given.text("worker_id")
    resolution = given.choice("resolution", NAMES, "1min")
    limit = given.whole("limit", minimum=1, maximum=MAX_LISTED, default=20)
    given.finish()
    if at is None:
        raise WrongParameter("at", "", "a moment in the bucket to explain, and must be given")
    async with room(chancy, decodes=True):
        found = await explain(chancy, key, at, resolution=resolution, worker_id=worker, limit=limit)
    lists = {name: await work(chancy, _without_large_meta, getattr(found, name)) for name in _LISTS}
    return msgspec.structs.replace(found, **lists)


def _without_large_meta(events: list[Event]) -> list[Event]:
    """Return the events without `meta` over `_MAX_META_BYTES`: an answer may have hundreds of events."""
    return [
        msgspec.structs.replace(
            event, meta={}, damage=event.damage or f"its meta of {size:,} bytes is left out here; GET …/events has it"
        )
        if event.meta and (size := len(msgspec.json.encode(event.meta))) > _MAX_META_BYTES
        else event
        for event in events
    ]


async def marks(chancy: Chancy, given: Parameters) -> MarksPage:
    since, until = given.span()
    after = given.text("after", max_bytes=_MARK_CURSOR_BYTES)
    limit = given.whole("limit", minimum=1, maximum=MAX_MARKS, default=100)
    given.finish()
    behind = None if after is None else _mark_at(after)
    async with room(chancy), bounded_connection(chancy) as connection, short_transaction(connection) as cursor:
        found = await read_marks(cursor, tables_for(chancy.prefix), since, until, after=behind, limit=limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    return MarksPage(found[:limit], None if last is None else f"{microseconds(last.at)}:{last.text}")


def _mark_at(cursor: str) -> Mark:
    """Parse a cursor of marks: moment and text, since several marks may have one moment."""
    at_us, colon, text = cursor.partition(":")
    if not (colon and text and at_us.isascii() and at_us.isdigit() and len(at_us) < 17):
        raise WrongParameter("after", cursor, "the last answer's next")
    return Mark(EPOCH + timedelta(microseconds=int(at_us)), text)


async def status(chancy: Chancy, given: Parameters) -> Status:
    given.finish()
    async with room(chancy):
        return await read_status(chancy)


#: By path under /api/v1/metrics-log.
ANSWERS: dict[str, Answer] = {
    "series": series,
    "points": points,
    "overview": overview_table,
    "resolutions": resolutions,
    "explain": explanation,
    "events": read_events,
    "jobs/{job_id}": job,
    "marks": marks,
    "workers": workers,
    "status": status,
}


def page_routes() -> list[RouteT]:
    """Return the routes; the page's files are public, its JSON needs the dashboard's token, a scrape one of its own."""
    return [
        _route("/metrics-log", _shell, "metrics_log"),
        _route("/metrics-log/prometheus", scrape_route, "metrics_log_prometheus"),
        _route("/metrics-log/{file}", _file, "metrics_log_file"),
        *(
            _route(f"/api/v1/metrics-log/{path}", _answering(answer), f"metrics_log_{path.partition('/')[0]}")
            for path, answer in ANSWERS.items()
        ),
    ]


async def _shell(request: Request, *, chancy: Chancy, worker: Worker) -> Response:
    return await send_file(request, SHELL)


async def _file(request: Request, *, chancy: Chancy, worker: Worker) -> Response:
    return await send_file(request, request.path_params["file"])


def _answering(answer: Answer) -> Endpoint:
    @requires(["authenticated"])
    async def endpoint(request: Request, *, chancy: Chancy, worker: Worker) -> Response:
        try:
            given = Parameters(request.query_params.multi_items(), request.path_params)
            with needs_schema(tables_for(chancy.prefix)):
                async with asyncio.timeout(ANSWER_S):
                    found = await answer(chancy, given)
            return _json(found)
        except WrongParameter as error:
            return _json({"title": str(error), "parameter": error.parameter, "allowed": error.allowed}, 422)
        except UnknownSeries as error:
            return _json({"title": str(error)}, 404)
        except VersionRefused as error:
            return _json({"title": str(error)}, 409)
        except Busy as error:
            return _json({"title": str(error)}, 503, {"Retry-After": str(RETRY_S)})
        except TimeoutError:
            late = (
                f"an answer may take at most {ANSWER_S:g} s: ask for less, or use `chancy-metrics`, which has no limit"
            )
            return _json({"title": late}, 503)
        except MetricsLogError as error:
            return _json({"title": str(error)}, 503)
        except psycopg.Error as error:
            return _json({"title": database_sentence(error)[:400]}, 503)

    return endpoint


def _json(body: object, status: int = 200, more: Mapping[str, str] | None = None) -> Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(more or {})}
    return BoundedResponse(msgspec.json.encode(body, enc_hook=plain_moment), status, headers, "application/json")


def _route(path: str, endpoint: Endpoint, name: str) -> RouteT:
    return {"path": path, "endpoint": endpoint, "methods": ["GET"], "name": name, "is_websocket": False}
