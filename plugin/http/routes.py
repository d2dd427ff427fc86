"""Our page at /metrics-log and the JSON behind it; docs/http.md describes both for who calls them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import psycopg
from chancy import Chancy, Worker
from chancy.plugins.api.plugin import RouteT
from starlette.authentication import requires
from starlette.requests import Request
from starlette.responses import Response

from chancy_metrics.events.database import needs_schema
from chancy_metrics.events.errors import MetricsLogError, VersionRefused
from chancy_metrics.events.schema import tables_for
from chancy_metrics.events.standby import sentence
from chancy_metrics.plugin.audit.explain import UnknownSeries
from chancy_metrics.plugin.http.answers import ANSWERS, Answer
from chancy_metrics.plugin.http.files import SHELL, send_file
from chancy_metrics.plugin.http.limits import RETRY_S, Busy
from chancy_metrics.plugin.http.parameters import Parameters, WrongParameter
from chancy_metrics.plugin.http.response import BoundedResponse

#: Seconds until an answer is there or refused: who went away takes no room for longer, and no stop waits for longer.
ANSWER_S = 12.0

Endpoint = Callable[..., Awaitable[Response]]


def page_routes() -> list[RouteT]:
    """Return our routes; the shell and its files are public, everything else needs the dashboard's token."""
    return [
        _route("/metrics-log", _shell, "metrics_log"),
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
            late = f"an answer takes {ANSWER_S:g} s here at the most: ask for less, or a command, which has no limit"
            return _json({"title": late}, 503)
        except MetricsLogError as error:
            return _json({"title": str(error)}, 503)
        except psycopg.OperationalError as error:
            return _json({"title": f"the database did not answer: {sentence(error)[:300]}"}, 503)

    return endpoint


def _json(body: object, status: int = 200, more: Mapping[str, str] | None = None) -> Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(more or {})}
    return BoundedResponse(msgspec.json.encode(body), status, headers, "application/json")


def _route(path: str, endpoint: Endpoint, name: str) -> RouteT:
    return {"path": path, "endpoint": endpoint, "methods": ["GET"], "name": name, "is_websocket": False}
