"""`chancy-metrics otlp`: send the totals to an OpenTelemetry collector."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.humanize import counted, span
from chancy_metrics.plugin.cli.command import command
from chancy_metrics.plugin.cli.errors import sentence_of
from chancy_metrics.plugin.cli.output import FOUND_SOMETHING, Door
from chancy_metrics.plugin.cli.types import Duration

if TYPE_CHECKING:
    from chancy_metrics.plugin.telemetry.push import Pushed

#: Seconds for which `--once` tries again, and within which a failure that goes on is told once.
_ONCE_S, _TOLD_S = 10.0, 60.0


class _Pair(click.ParamType):  # type: ignore[type-arg] # generic only in newer releases of click
    """A pair KEY=VALUE."""

    name = "key=value"

    def __init__(self, *, is_header: bool) -> None:
        self._is_header = is_header

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        key, equals, text = str(value).partition("=")
        if not equals or not key.strip():
            self.fail(f"{key!r} is not KEY=VALUE", param, ctx)
        if not (key + text).isprintable() or (self._is_header and not (key + text).isascii()):
            self.fail(f"{key!r} has a character that can't be sent", param, ctx)
        return key.strip(), text.strip()


@command("otlp")
@click.option(
    "--endpoint",
    metavar="URL",
    help="Where to send: http://collector:4318, or a whole URL with its path. By default that of "
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT.",
)
@click.option("--every", "every_s", type=Duration(), default="15s", show_default=True, help="Time between two rounds.")
@click.option("--once", is_flag=True, help="Send one round and exit: with 3 if points were rejected.")
@click.option(
    "--header",
    "headers",
    type=_Pair(is_header=True),
    multiple=True,
    help="A header of each request; secret ones belong into OTEL_EXPORTER_OTLP_HEADERS, which nobody else sees.",
)
@click.option(
    "--resource",
    "attributes",
    type=_Pair(is_header=False),
    multiple=True,
    help="An attribute of the resource, such as deployment.environment.name=prod.",
)
@click.pass_obj
def otlp_command(
    door: Door,
    endpoint: str | None,
    every_s: float,
    once: bool,
    headers: Sequence[tuple[str, str]],
    attributes: Sequence[tuple[str, str]],
) -> None:
    """Send the totals to an OpenTelemetry collector by OTLP over HTTP, until SIGTERM.

    Run one for each database. An outage of the collector costs no total: the next round sends all that was added
    meanwhile.
    """
    try:
        from chancy_metrics.plugin.telemetry.push import Pusher, push_forever, push_once
        from chancy_metrics.plugin.telemetry.resource import read_pairs, resource_of
    except ImportError as error:
        raise MetricsLogError(f"sending needs {error.name}: pip install 'chancy-metrics[otlp]'") from None
    if every_s < 1:
        raise click.BadParameter("at least 1s", param_hint="--every")
    url = _endpoint(endpoint)
    chancy, _ = door.load()
    sent_headers = dict([*read_pairs(os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")), *headers])

    async def send() -> int:
        resource = await resource_of(chancy, os.environ, attributes)
        pusher = Pusher(chancy, url, sent_headers, resource)
        teller = _Teller(door, pusher.url)
        if once:
            done = await push_once(pusher, _ONCE_S)
            teller.pushed(done)
            return FOUND_SOMETHING if done.rejected or done.position is None else 0
        sending = asyncio.ensure_future(push_forever(pusher, every_s, teller.pushed, teller.failed))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, sending.cancel)
        try:
            await sending
        except asyncio.CancelledError:
            if not sending.cancelled() or asyncio.current_task().cancelling():  # type: ignore[union-attr] # in a task
                raise
        return 0

    if code := door.run(send()):
        sys.exit(code)


def _endpoint(given: str | None) -> str:
    from chancy_metrics.plugin.telemetry.push import metrics_endpoint

    whole, base = (os.environ.get(f"OTEL_EXPORTER_OTLP_{name}") for name in ("METRICS_ENDPOINT", "ENDPOINT"))
    url = given or whole or (f"{base.rstrip('/')}/v1/metrics" if base else None)
    if url is None:
        raise click.UsageError("say where to send: give --endpoint http://localhost:4318")
    try:
        return metrics_endpoint(url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--endpoint") from None


class _Teller:
    """Tells what has changed: the first round, failures, rejections, and when all is right again."""

    def __init__(self, door: Door, url: str) -> None:
        self._door = door
        self._url = url
        self._trouble = ""
        self._failing_since: float | None = None
        self._told_at = 0.0
        self._began = False

    def pushed(self, done: Pushed) -> None:
        if self._door.as_json:
            self._door.say_json(done)
        elif not self._began:
            at = "without totals" if done.position is None else f"at position {done.position:,}"
            self._door.say(f"sent {counted(done.points, 'point')} {at} to {self._url}")
        self._began = True
        trouble = ""
        if done.rejected:
            trouble = f"{self._url} rejected {done.rejected:,} of {counted(done.points, 'point')}"
        if done.message:
            trouble = f"{trouble}: {done.message}" if trouble else done.message
        if trouble:
            self._tell(trouble)
        elif self._failing_since is not None:
            lasted = span(time.monotonic() - self._failing_since)
            self._door.tell(f"{self._url} takes all points again after {lasted}: no total was lost")
            self._trouble, self._failing_since = "", None

    def failed(self, error: Exception) -> None:
        self._tell(f"{sentence_of(error)}; the next round sends all that is missing")

    def _tell(self, trouble: str) -> None:
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if trouble != self._trouble or now - self._told_at >= _TOLD_S:
            self._door.tell(trouble)
            self._trouble, self._told_at = trouble, now
