"""A small OTLP receiver: decodes each request by OpenTelemetry's own messages, checks its laws, and answers as told."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)


class Answer(NamedTuple):
    """What the receiver answers to one request."""

    status: int = 200
    body: bytes = b""
    kind: str = "application/x-protobuf"
    headers: dict[str, str] = {}  # noqa: RUF012 # nobody adds to it


def rejecting(points: int, message: str) -> Answer:
    response = ExportMetricsServiceResponse()
    response.partial_success.rejected_data_points = points
    response.partial_success.error_message = message
    return Answer(body=response.SerializeToString())


class Receiver:
    """Keeps what it took; `answers` are given one after the other, then each request is taken."""

    def __init__(self, port: int = 0) -> None:
        self.taken: list[ExportMetricsServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.answers: list[Answer] = []
        self.attempts = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.attempts += 1
                answer = receiver.answers.pop(0) if receiver.answers else Answer()
                if self.path != "/v1/metrics":
                    answer = Answer(404, b"no such path", "text/plain")
                if answer.status == 200:
                    receiver.headers.append({key.lower(): value for key, value in self.headers.items()})
                    receiver.taken.append(decoded(body))
                self.send_response(answer.status)
                for key, value in ({"Content-Type": answer.kind} | answer.headers).items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def points(self, number: int = -1) -> dict[tuple[str, frozenset[tuple[str, str]]], Any]:
        """The points of one request: (name, attributes) -> point."""
        return points_of(self.taken[number])

    @contextmanager
    def running(self) -> Iterator[Receiver]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


def decoded(body: bytes) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest.FromString(gzip.decompress(body))
    for metric in metrics_of(request):
        assert metric.name and metric.unit
        if metric.WhichOneof("data") == "exponential_histogram":
            for point in metric.exponential_histogram.data_points:
                buckets = sum(point.positive.bucket_counts) + sum(point.negative.bucket_counts)
                assert point.count == point.zero_count + buckets
    return request


def metrics_of(request: ExportMetricsServiceRequest) -> list[Any]:
    return [
        metric
        for of_resource in request.resource_metrics
        for of_scope in of_resource.scope_metrics
        for metric in of_scope.metrics
    ]


def resource_of(request: ExportMetricsServiceRequest) -> dict[str, str]:
    return {one.key: one.value.string_value for one in request.resource_metrics[0].resource.attributes}


def points_of(request: ExportMetricsServiceRequest) -> dict[tuple[str, frozenset[tuple[str, str]]], Any]:
    found = {}
    for metric in metrics_of(request):
        for point in getattr(metric, metric.WhichOneof("data")).data_points:
            key = metric.name, frozenset((one.key, one.value.string_value) for one in point.attributes)
            assert key not in found, key
            found[key] = point
    return found
