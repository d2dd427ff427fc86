"""Choose the form of a scrape's answer by what its client accepts, and write it."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.facts import Kind
from chancy_metrics.plugin.telemetry.families import Family
from chancy_metrics.plugin.telemetry.protobuf_form import protobuf

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"
PROTOBUF = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
#: Content type -> what ends an answer.
ENDS = {OPENMETRICS: b"# EOF\n"}
#: Samples of a part, and of one series, roughly.
_PART_SAMPLES = 2_000
_SAMPLES: dict[Kind, int] = {"counter": 2, "gauge": 1, "histogram": 30}
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


class Part(NamedTuple):
    """A part of an answer.

    Attributes:
        families: Of the first and the last one maybe only some members.
        continues: Whether the first one began in the part before.
    """

    families: list[Family]
    continues: bool


def cut(families: Iterable[Family]) -> Iterator[Part]:
    """Cut families into parts that take some 20 ms to write."""
    part, room, continues = [], _PART_SAMPLES, False
    for family in families:
        samples = _SAMPLES[family.kind]
        start = 0
        while start < len(family.members):
            end = start + max(room // samples, 1)
            part.append(family._replace(members=family.members[start:end]))
            room -= samples * len(part[-1].members)
            start = end
            if room < samples:
                yield Part(part, continues)
                part, room, continues = [], _PART_SAMPLES, start < len(family.members)
    if part:
        yield Part(part, continues)


def write_part(part: Part, content_type: str) -> bytes:
    """Write a part in the form of a content type; `ENDS` has what follows the last one.

    Raises:
        MetricsLogError: The form needs a package that is not installed.
    """
    if content_type == PROTOBUF:
        return protobuf(part.families)
    require_text_forms()
    from chancy_metrics.plugin.telemetry.text_form import openmetrics_text, plain_text

    text = openmetrics_text(part.families) if content_type == OPENMETRICS else plain_text(part.families)
    text = text.removesuffix(ENDS.get(content_type, b""))
    while part.continues and text.startswith(b"# "):  # its name and type were said
        text = text[text.index(b"\n") + 1 :]
    return text


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
