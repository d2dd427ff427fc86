"""Choose the form of a scrape's answer by what its client accepts, and write it."""

from __future__ import annotations

import importlib
from typing import NamedTuple

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.plugin.telemetry.families import Family
from chancy_metrics.plugin.telemetry.protobuf_form import protobuf

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"
PROTOBUF = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
_MESSAGE = {"proto": "io.prometheus.client.MetricFamily", "encoding": "delimited"}


class _Accepted(NamedTuple):
    media: str
    parameters: dict[str, str]

    @property
    def weight(self) -> float:
        try:
            return float(self.parameters.get("q", "1"))
        except ValueError:
            return 0.0

    @property
    def form(self) -> str | None:
        """The content type that this asks for; None if there is no such form."""
        given = self.parameters
        if self.media == "application/vnd.google.protobuf":
            return PROTOBUF if all(given.get(name) == value for name, value in _MESSAGE.items()) else None
        if self.media == "application/openmetrics-text":
            return OPENMETRICS if given.get("version", "1.0.0") in ("1.0.0", "0.0.1") else None
        return PLAIN if self.media in ("text/plain", "text/*", "*/*") else None


def accepted_form(accept: str) -> str:
    """Return the content type to answer an `Accept` header with; `PLAIN` where it names no form there is."""
    known = [one for one in map(_parse, accept.split(",")) if one.form and one.weight > 0]
    best = max(known, key=lambda one: one.weight, default=None)  # the first of several
    return (best and best.form) or PLAIN


def write_form(families: list[Family], content_type: str) -> bytes:
    """Write *families* in the form of a content type.

    Raises:
        MetricsLogError: The form needs a package that is not installed.
    """
    if content_type == PROTOBUF:
        return protobuf(families)
    require_text_forms()
    from chancy_metrics.plugin.telemetry.text_form import openmetrics_text, plain_text

    return openmetrics_text(families) if content_type == OPENMETRICS else plain_text(families)


def require_text_forms() -> None:
    """Check that the text forms can be written.

    Raises:
        MetricsLogError: prometheus_client is not installed.
    """
    try:
        importlib.import_module("prometheus_client")
    except ImportError:
        raise MetricsLogError(
            "answers to Prometheus need prometheus_client: pip install 'chancy-metrics[prometheus]'"
        ) from None


def _parse(one: str) -> _Accepted:
    media, *rest = (part.strip() for part in one.split(";"))
    pairs = (part.partition("=") for part in rest)
    return _Accepted(media.lower(), {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs})
