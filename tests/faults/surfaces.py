"""Read one counter from every surface that shows it: log, ledger, rollups, replay, `get_metrics`, HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx
from chancy import Chancy
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.routing import Route

from chancy_metrics.events.codec import decode
from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import RESOLUTIONS, Tables, tables_for
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.http.dashboard import MetricsApiPlugin
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.versions.replay import replay, stored
from tests.factories import an_app, connections, fetch

_IN_LOG = "SELECT l.codec, l.payload, l.sha256, l.events FROM {log} l"
_IN_LEDGER = _IN_LOG + " JOIN {ledger} USING (day, producer, sequence)"


async def everywhere(dsn: str, key: str, *, prefix: str = "chancy_") -> dict[str, float]:
    """Return each surface's total of a counter younger than 90 days; assert that replay and rollups are equal."""
    tables = tables_for(prefix)
    async with connections(dsn, 1) as (connection,), an_app(dsn, Metrics(), prefix=prefix) as (chancy, metrics):
        found = {
            "log": await _recorded(connection, tables, _IN_LOG, key),
            "ledger": await _recorded(connection, tables, _IN_LEDGER, key),
        }
        live, again = await stored(connection, tables), await replay(connection, tables)
        assert [str(difference) for difference in diff(live, again)] == []
        for resolution in RESOLUTIONS:
            for source, points in (("rollup", live), ("replay", again)):
                mine = [point for point in points if point.series.key == key and point.resolution == resolution]
                found[f"{source} {resolution}"] = float(sum(point.sum for point in mine if point.worker is None))
                found[f"{source} {resolution} by worker"] = float(sum(p.sum for p in mine if p.worker is not None))
        history = (await metrics.get_metrics(chancy, key)).get(key)
        found["get_metrics"] = sum(value for _, value in history.values_1day) if history else 0.0  # type: ignore[misc]
        window = await metrics.get_metrics(chancy, key, resolution="1day", limit=90)
        found["window"] = _summary(window["series"][key].summary if key in window["series"] else None)
        async with http(chancy) as client:
            answer = await client.get(f"/api/v1/metrics/{key}", params={"resolution": "1day", "limit": 90})
            series = answer.raise_for_status().json()["series"]
            found["http"] = _summary(series[key]["summary"] if key in series else None)
    return found


@asynccontextmanager
async def http(chancy: Chancy) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client of our routes, as the dashboard calls them, with a user logged in."""
    routes = [
        Route(route["path"], partial(route["endpoint"], chancy=chancy, worker=None), methods=route["methods"])
        for route in MetricsApiPlugin(None).routes()
    ]
    app = Starlette(routes=routes, middleware=[Middleware(AuthenticationMiddleware, backend=_Everybody())])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


class _Everybody(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser]:
        return AuthCredentials(["authenticated"]), SimpleUser("somebody")


async def _recorded(connection: Connection, tables: Tables, query: str, key: str) -> float:
    total = 0.0
    for codec, payload, digest, events in await fetch(connection, query, tables):
        columns = decode(codec, payload, digest, events).observations
        if columns is not None:
            ends = columns.lengths.cumsum()
            for series, start, end in zip(columns.series, ends - columns.lengths, ends, strict=True):
                total += float(columns.values[start:end].sum()) if series.key == key else 0.0
    return total


def _summary(value: object) -> float:
    assert value is None or isinstance(value, float)
    return value or 0.0
