"""Write families as Prometheus' protobuf messages, each with its length before it: the form with native histograms.

The fields are those of metrics.proto of github.com/prometheus/client_model: see
https://prometheus.io/docs/specs/native_histograms/ for what the ones of a histogram mean.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from chancy_metrics.events.facts import Kind
from chancy_metrics.plugin.telemetry.families import Family, Member
from chancy_metrics.plugin.telemetry.le_buckets import NOTHING, le_buckets
from chancy_metrics.projections.fold.sketch import OFFSET, SCALE
from chancy_metrics.projections.totals.read import Sketch, Total

_TYPES: dict[Kind, int] = {"counter": 0, "gauge": 1, "histogram": 4}
#: Wire types of a field.
_VARINT, _FIXED64, _BYTES = 0, 1, 2


def protobuf(families: Iterable[Family]) -> bytes:
    """Write each family as a delimited `MetricFamily`."""
    return b"".join(varint(len(message)) + message for message in map(_family, families))


def varint(value: int) -> bytes:
    """Encode a number from 0 on, seven bits a byte."""
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)


def zigzag(value: int) -> int:
    """Return what stands for a signed number of 64 bits: numbers near 0 are short."""
    return value << 1 if value >= 0 else -value * 2 - 1


def spans(buckets: Sequence[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[int]]:
    """Return runs of buckets without a gap, and the difference of each count to the one before.

    Args:
        buckets: (index, count), ascending.

    Returns:
        (buckets left out before the run, its length), where the first starts at index 0; the differences.
    """
    runs: list[tuple[int, int]] = []
    deltas = []
    following = before = 0
    for index, count in buckets:
        if runs and index == following:
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((index - following, 1))
        deltas.append(count - before)
        following, before = index + 1, count
    return runs, deltas


def _family(family: Family) -> bytes:
    name = f"{family.name}_total" if family.kind == "counter" else family.name
    return b"".join(
        (
            _text(1, name),
            _text(2, family.about),
            _number(3, _TYPES[family.kind]),
            *(_message(4, _metric(family.kind, member)) for member in family.members),
            _text(5, family.unit) if family.unit else b"",
        )
    )


def _metric(kind: Kind, member: Member) -> bytes:
    labels = b"".join(_message(1, _text(1, name) + _text(2, value)) for name, value in sorted(member.labels))
    total = member.total
    if kind == "gauge":
        return labels + _message(2, _double(1, member.value))
    if kind == "counter":
        created = b"" if total is None else _message(3, _timestamp(total.created_us))
        return labels + _message(3, _double(1, member.value) + created)
    assert total is not None
    return labels + _message(7, _histogram(total))


def _histogram(total: Total) -> bytes:
    sketch = total.sketch or NOTHING
    zeros, negative, positive = _split(sketch)
    return b"".join(
        (
            _number(1, sum(sketch.counts)),  # as many as are in the buckets, or it is refused
            _double(2, total.sum),
            *(_message(3, _number(1, count) + _double(2, boundary)) for boundary, count in le_buckets(total)),
            _number(5, zigzag(SCALE)),
            _double(6, 0.0),  # the zero bucket holds nothing but zeros
            _number(7, zeros),
            _runs(9, 10, negative),
            _runs(12, 13, positive) or _message(12, _number(1, 0)),  # a span of none says that it is native
            _message(15, _timestamp(total.created_us)),
        )
    )


def _split(sketch: Sketch) -> tuple[int, list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the zeros, and (index, count) of the negative and the positive buckets.

    Our bucket of index i ends at base**(i + 1), and the format's at base**i.
    """
    pairs = list(zip(sketch.codes, sketch.counts, strict=True))
    zeros = sum(count for code, count in pairs if code == 0)
    negative = [(-code - OFFSET + 1, count) for code, count in reversed(pairs) if code < 0]
    positive = [(code - OFFSET + 1, count) for code, count in pairs if code > 0]
    return zeros, negative, positive


def _runs(span_field: int, delta_field: int, buckets: list[tuple[int, int]]) -> bytes:
    runs, deltas = spans(buckets)
    written = [_message(span_field, _number(1, zigzag(offset)) + _number(2, length)) for offset, length in runs]
    return b"".join(written + [_number(delta_field, zigzag(delta)) for delta in deltas])


def _timestamp(at_us: int) -> bytes:
    seconds, micros = divmod(at_us, 1_000_000)
    return _number(1, seconds) + _number(2, micros * 1000)


def _key(field: int, wire_type: int) -> bytes:
    return varint(field << 3 | wire_type)


def _number(field: int, value: int) -> bytes:
    return _key(field, _VARINT) + varint(value)


def _double(field: int, value: float) -> bytes:
    return _key(field, _FIXED64) + struct.pack("<d", value)


def _message(field: int, body: bytes) -> bytes:
    return _key(field, _BYTES) + varint(len(body)) + body


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())
