"""Send totals to an OpenTelemetry collector by OTLP over HTTP, again and again; an outage of it costs no total.

Totals are cumulative, so a round that failed is not kept: the next one sends all that has been added since.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec
from chancy import Chancy
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.plugin.telemetry.otlp import Request, requests_of
from chancy_metrics.plugin.telemetry.scrape import read_scrape

#: Seconds that the collector may take to answer, as OpenTelemetry's exporters wait by default.
TIMEOUT_S = 10.0
#: Seconds before the first attempt after a failure, doubled each time, and at the most.
FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 60.0
#: Statuses after which the same request may be taken; by the specification all others are final.
_RETRYABLE = (429, 502, 503, 504)
_HEADERS = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip", "User-Agent": "chancy-metrics"}
_PATH = "/v1/metrics"
#: The highest one takes 27 times the CPU time for a tenth less.
_GZIP_LEVEL = 5
_SHOWN_CHARS = 200


class Pushed(msgspec.Struct, frozen=True):
    """One round: all totals as of one position of the ledger, and what became of them.

    Attributes:
        position: Of the totals; None if only the health of the pipeline could be read.
        taken_position: The last position of which each point was taken.
        generation: Of the totals.
        points: Points that were sent, in so many *requests*.
        rejected: How many of them the collector took the request without.
        message: What the collector said about it, or what could not be read; "" for nothing.
    """

    position: int | None
    taken_position: int | None
    generation: int | None
    points: int
    requests: int
    rejected: int
    message: str


class PushFailed(MetricsLogError):
    """The collector did not take a request.

    Attributes:
        retryable: Whether the same request may be taken later.
        after_s: Seconds that the collector asks to wait.
    """

    def __init__(self, sentence: str, *, retryable: bool, after_s: float | None = None) -> None:
        super().__init__(sentence)
        self.retryable = retryable
        self.after_s = after_s


class Pusher:
    """Sends all totals to one endpoint, a round at a time.

    Attributes:
        url: The endpoint without user and password, as messages show it.
        taken_position: The last position of which each point was taken; None before the first one.
    """

    def __init__(self, chancy: Chancy, endpoint: str, headers: Mapping[str, str], resource: Mapping[str, str]) -> None:
        self.url = _shown(endpoint)
        self.taken_position: int | None = None
        self._chancy = chancy
        self._endpoint = endpoint
        self._headers = {**_HEADERS, **headers}
        self._resource = resource

    async def push(self, client: httpx.AsyncClient) -> Pushed:
        """Read the totals and send them.

        Raises:
            PushFailed: A request was not taken; those before it were.
            MetricsLogError: The database could not be read.
        """
        scrape = await read_scrape(self._chancy)
        totals = scrape.totals
        now_us = time.time_ns() // 1_000 if totals is None else totals.at_us
        points = requests = rejected = 0
        messages = list(scrape.missing)
        for request in requests_of(scrape.families, self._resource, now_us):
            refused, message = await self._send(client, request)
            points, requests, rejected = points + request.points, requests + 1, rejected + refused
            if message:
                messages.append(message)
        if totals is not None and not rejected:
            self.taken_position = totals.position
        return Pushed(
            position=None if totals is None else totals.position,
            taken_position=self.taken_position,
            generation=None if totals is None else totals.generation,
            points=points,
            requests=requests,
            rejected=rejected,
            message="; ".join(dict.fromkeys(messages)),
        )

    async def _send(self, client: httpx.AsyncClient, request: Request) -> tuple[int, str]:
        """Send one request; return how many of its points were rejected, and the collector's message."""
        try:
            body = await asyncio.to_thread(gzip.compress, request.body, _GZIP_LEVEL)
            answer = await client.post(self._endpoint, content=body, headers=self._headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = str(error) or f"no answer within {TIMEOUT_S:g} s"
            raise PushFailed(f"{self.url} can't be reached: {why}", retryable=True) from error
        if not answer.is_success:
            raise self._refused(answer)
        return self._taken(answer)

    def _refused(self, answer: httpx.Response) -> PushFailed:
        said = _said(answer)
        sentence = f"{self.url} answered {answer.status_code} {answer.reason_phrase}".rstrip() + said
        return PushFailed(
            sentence + _what_to_do(answer.status_code),
            retryable=answer.status_code in _RETRYABLE,
            after_s=retry_after_s(answer.headers.get("Retry-After"), time.time()),
        )

    def _taken(self, answer: httpx.Response) -> tuple[int, str]:
        if not answer.content:
            return 0, ""
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        try:
            if kind != "application/x-protobuf":
                raise DecodeError(kind)
            partial = ExportMetricsServiceResponse.FromString(answer.content).partial_success
        except DecodeError:
            raise PushFailed(
                f"{self.url} answered {answer.status_code} with {kind or 'something'}, which no OTLP receiver does: "
                f"is its path right? A collector's is {_PATH}",
                retryable=False,
            ) from None
        return partial.rejected_data_points, partial.error_message[:_SHOWN_CHARS]


def client_for(timeout_s: float = TIMEOUT_S) -> httpx.AsyncClient:
    """Return the client for a `Pusher`; proxies are those of the environment."""
    return httpx.AsyncClient(timeout=timeout_s, follow_redirects=False)


def metrics_endpoint(url: str) -> str:
    """Return the URL to post to: that of a collector without a path gets `/v1/metrics`.

    Raises:
        ValueError: It is no URL of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError(f"{_shown(url)!r} is not a URL such as http://localhost:4318")
    return urlunsplit(parts._replace(path=_PATH if parts.path in ("", "/") else parts.path, fragment=""))


def pause_s(failures: int, error: Exception | None, every_s: float, jitter: float) -> float:
    """Return the seconds until the next round.

    Args:
        failures: How many rounds have failed one after the other, the last one by *error*.
        every_s: Seconds between rounds that succeed.
        jitter: From 0 to 1; spreads exporters that failed together.
    """
    if error is None:
        return every_s
    wanted = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10)) * (0.5 + jitter / 2)
    if isinstance(error, PushFailed):
        wanted = wanted if error.retryable else every_s
        wanted = wanted if error.after_s is None else error.after_s
    return wanted


async def push_forever(
    pusher: Pusher, every_s: float, on_push: Callable[[Pushed], object], on_failure: Callable[[Exception], object]
) -> None:
    """Send a round every *every_s* seconds, until cancelled. Outlives every failure of database and collector."""
    failures = 0
    async with client_for() as client:
        while True:
            began, failed = time.monotonic(), None
            try:
                on_push(await pusher.push(client))
                failures = 0
            except Exception as error:  # the next round sends all that this one should have
                failures, failed = failures + 1, error
                on_failure(error)
            pause = pause_s(failures, failed, every_s, random.random())
            await asyncio.sleep(max(0.0, pause - (time.monotonic() - began) * (failed is None)))


async def push_once(pusher: Pusher, within_s: float) -> Pushed:
    """Send one round; try again for up to *within_s* seconds where the collector may take it later.

    Raises:
        MetricsLogError: It was not taken, or the database could not be read.
    """
    until, failures = time.monotonic() + within_s, 0
    async with client_for() as client:
        while True:
            try:
                return await pusher.push(client)
            except PushFailed as error:
                failures += 1
                pause = pause_s(failures, error, 0.0, random.random())
                if not error.retryable or time.monotonic() + pause > until:
                    raise
            await asyncio.sleep(pause)


def retry_after_s(header: str | None, now_s: float) -> float | None:
    """Return the seconds of a Retry-After header, a number or a date; None if there is none, or none that says so."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return min(float(header), 86_400.0)
    try:
        at = parsedate_to_datetime(header)
    except ValueError:
        return None
    return min(max(0.0, at.timestamp() - now_s), 86_400.0)


def _what_to_do(status: int) -> str:
    if status in (401, 403):
        return ": give the credentials with --header, or OTEL_EXPORTER_OTLP_HEADERS"
    if status in (404, 405) or 300 <= status < 400:
        return f": is its path right? A collector's is {_PATH}"
    return ""


def _said(answer: httpx.Response) -> str:
    """Return what an error's body says, if it is text."""
    kind = answer.headers.get("Content-Type", "")
    if not kind.startswith(("text/plain", "application/json")):
        return ""
    text = " ".join(answer.text.split())[:_SHOWN_CHARS]
    return f" ({text})" if text else ""


def _shown(url: str) -> str:
    """Return a URL without user, password and query, which may be secret."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
