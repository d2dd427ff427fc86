"""The two metric routes of Chancy's dashboard, answered from this process's replica of the cache."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from chancy import Chancy, Worker
from chancy.plugins.api.plugin import ApiPlugin, RouteT
from starlette.authentication import requires
from starlette.requests import Request
from starlette.responses import Response

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.plugin.health.completeness import Completeness, recent_completeness
from chancy_metrics.plugin.http.limits import RETRY_S, Busy, at_pace, room, work
from chancy_metrics.plugin.http.response import BoundedResponse
from chancy_metrics.plugin.http.routes import page_routes
from chancy_metrics.plugin.http.series import index_of
from chancy_metrics.plugin.metrics import Metrics, metrics_of
from chancy_metrics.plugin.reading.readers import reader_of
from chancy_metrics.plugin.reading.series_index import SeriesIndex
from chancy_metrics.plugin.reading.window import MAX_BUCKETS, Window
from chancy_metrics.projections.buckets import retention_s


class MetricsApiPlugin(ApiPlugin):
    """Serves the routes of Chancy 0.26, with its JSON and status codes, and the page."""

    def name(self) -> str:
        return "metrics"

    def routes(self) -> list[RouteT]:
        return [
            {
                "path": "/api/v1/metrics",
                "endpoint": self.list_metrics,
                "methods": ["GET"],
                "name": "get_metrics",
                "is_websocket": False,
            },
            {
                "path": "/api/v1/metrics/{prefix}",
                "endpoint": self.get_metric,
                "methods": ["GET"],
                "name": "get_metric_detail",
                "is_websocket": False,
            },
            *page_routes(),
        ]

    @staticmethod
    @requires(["authenticated"])
    async def list_metrics(request: Request, *, chancy: Chancy, worker: Worker) -> Response:
        """List every metric: category (the text before the first ":") -> names (the segment after it)."""
        try:
            await reader_of(chancy).replica()  # waits for all of it: a partial list would be wrong here
        except MetricsLogError as error:
            return Response(msgspec.json.encode({"title": str(error)}), 503, media_type="application/json")
        return BoundedResponse(await work(chancy, _categories, await index_of(chancy)), media_type="application/json")

    @staticmethod
    @requires(["authenticated"])
    async def get_metric(request: Request, *, chancy: Chancy, worker: Worker) -> Response:
        """Return the metrics under a prefix for a window; a range beyond the retention is cut."""
        params = request.query_params
        plugin = metrics_of(chancy)
        worker_id = params.get("worker_id")
        resolution: Any = params.get("resolution", "5min")  # get_metrics checks it
        try:
            async with room(chancy) if worker_id else at_pace(chancy):
                result = await plugin.get_metrics(
                    chancy,
                    metric_prefix=request.path_params["prefix"],
                    worker_id=worker_id,
                    resolution=resolution,
                    start=datetime.fromisoformat(params["start"]) if "start" in params else None,
                    end=datetime.fromisoformat(params["end"]) if "end" in params else None,
                    range_seconds=_range(plugin, resolution, int(params["range"])) if "range" in params else None,
                    limit=int(params["limit"]) if "limit" in params else None,
                )
            complete = await recent_completeness(chancy, result["start"], result["end"])
        except Busy as error:
            return Response(
                msgspec.json.encode({"title": str(error)}), 503, {"Retry-After": str(RETRY_S)}, "application/json"
            )
        except (ValueError, OverflowError) as error:
            return Response(msgspec.json.encode({"title": str(error)}), 422, media_type="application/json")
        except MetricsLogError as error:
            return Response(msgspec.json.encode({"title": str(error)}), 503, media_type="application/json")
        return BoundedResponse(await work(chancy, _window, result, complete), media_type="application/json")


def _categories(index: SeriesIndex) -> bytes:
    return msgspec.json.encode({"categories": index.categories, "count": len(index)})


def _window(result: Window, complete: Completeness | None) -> bytes:
    """Encode the answer series by series: the encoder lets no other thread run meanwhile."""
    # Chancy's json_dumps on dataclasses.asdict() takes a second for the largest answer.
    series = {
        key: msgspec.Raw(
            msgspec.json.encode(
                {
                    "type": metric.type,
                    "unit": metric.unit,
                    "data": metric.data,
                    "aggregation": metric.aggregation,
                    "sampled_at": metric.sampled_at,
                    "summary": metric.summary,
                }
            )
        )
        for key, metric in result["series"].items()
    }
    return msgspec.json.encode({**result, "completeness": complete, "series": series})


def _range(plugin: Metrics, resolution: str, seconds: int) -> int:
    """Cut a range to the retention: the dashboard's ranges are fixed, and a shorter retention must not refuse them."""
    if resolution not in RESOLUTIONS or seconds % RESOLUTIONS[resolution]:
        return seconds
    width = RESOLUTIONS[resolution]
    kept = retention_s(resolution, plugin.max_points, plugin.maximum_metric_age) // width * width
    return min(seconds, max(width, min(kept, MAX_BUCKETS * width)))
