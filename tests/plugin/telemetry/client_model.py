"""Decode Prometheus' protobuf messages by the protobuf library, with the fields of metrics.proto of client_model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "io.prometheus.client"
#: Message -> fields: number, name, and type, where * means any number of them.
_MESSAGES = {
    "LabelPair": ["1 name string", "2 value string"],
    "Timestamp": ["1 seconds int64", "2 nanos int32"],
    "Gauge": ["1 value double"],
    "Counter": ["1 value double", "3 created_timestamp Timestamp"],
    "Bucket": ["1 cumulative_count uint64", "2 upper_bound double"],
    "BucketSpan": ["1 offset sint32", "2 length uint32"],
    "Histogram": [
        "1 sample_count uint64",
        "2 sample_sum double",
        "3 bucket *Bucket",
        "5 schema sint32",
        "6 zero_threshold double",
        "7 zero_count uint64",
        "9 negative_span *BucketSpan",
        "10 negative_delta *sint64",
        "12 positive_span *BucketSpan",
        "13 positive_delta *sint64",
        "15 created_timestamp Timestamp",
    ],
    "Metric": ["1 label *LabelPair", "2 gauge Gauge", "3 counter Counter", "7 histogram Histogram"],
    "MetricFamily": ["1 name string", "2 help string", "3 type int32", "4 metric *Metric", "5 unit string"],
}


def _make() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="metrics.proto", package=_PACKAGE, syntax="proto2")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields:
            number, called, kind = field.split()
            label = kinds.LABEL_REPEATED if kind.startswith("*") else kinds.LABEL_OPTIONAL
            one = message.field.add(name=called, number=int(number), label=label)
            kind = kind.removeprefix("*")
            if kind in _MESSAGES:
                one.type, one.type_name = kinds.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                one.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.MetricFamily"))


MetricFamily = _make()


def read_families(data: bytes) -> Iterator[Any]:
    """Read delimited messages; each byte must belong to one."""
    at = 0
    while at < len(data):
        size = shift = 0
        while True:
            byte = data[at]
            size |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                break
        message = MetricFamily.FromString(data[at : at + size])
        message.DiscardUnknownFields()
        assert message.ByteSize() == size  # there was none
        yield message
        at += size
    assert at == len(data)


def buckets(spans: Any, deltas: Any) -> dict[int, int]:
    """Return index -> count."""
    found: dict[int, int] = {}
    index = count = 0
    remaining = iter(deltas)
    for span in spans:
        index += span.offset
        for _ in range(span.length):
            count += next(remaining)
            found[index] = count
            index += 1
    assert next(remaining, None) is None
    return found
