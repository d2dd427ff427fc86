"""The part of a job's `meta` that goes into the log: one MessagePack map of JSON values, of bounded depth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from chancy_metrics.events.decoding import decode_as
from chancy_metrics.events.errors import Damaged

#: Largest depth of nested lists and maps, the outermost map included: decoders recurse as deep.
MAX_DEPTH = 64

#: Largest overhead of a map beside its keys and values.
_MAP_BYTES = 5
_KIND = "kept meta"
_SCALARS = (str, int, float, bool, type(None), bytes, datetime)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(dict[str, Any])


def encode_meta(kept: Mapping[str, Any]) -> bytes:
    """Encode the kept meta of one job; values that JSON can't hold become text. Never raises."""
    try:
        if not _fault(kept):
            return _encoder.encode(kept)
    except Exception:  # JSON allows integers past 64 bits, MessagePack does not
        pass
    return _encoder.encode({key: _as_text(value) for key, value in kept.items()})


def encode_meta_within(kept: Mapping[str, Any], limit: int) -> bytes:
    """Encode the keys, in order, that fit into *limit* bytes together; b"" if none fits."""
    fits: dict[str, Any] = {}
    size = _MAP_BYTES
    for key, value in kept.items():
        more = len(encode_meta({key: value})) - 1
        if size + more <= limit:
            fits[key] = value
            size += more
    return encode_meta(fits) if fits else b""


def decode_meta(data: bytes | memoryview) -> dict[str, Any]:
    """Decode the kept meta of one job; all of it can be encoded as JSON.

    Raises:
        Damaged: The bytes are something else.
    """
    meta = decode_as(_decoder, data, _KIND)
    if fault := _fault(meta):
        raise Damaged(f"is no {_KIND}: {fault}", kind=_KIND)
    return meta


def _fault(meta: Mapping[str, Any]) -> str:
    """Return why *meta* can't be shown as JSON; "" if it can."""
    level: list[Any] = [meta]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, Mapping):
                if not all(isinstance(key, str | int) and not isinstance(key, bool) for key in one):
                    return "a key is neither text nor a whole number"
                values = one.values()
            else:
                values = one
            inner += [value for value in values if not isinstance(value, _SCALARS)]
        if not inner:
            return ""
        if not all(isinstance(value, Mapping | list | tuple) for value in inner):
            return "a value is nothing that JSON can say"
        level = inner
    return f"it is nested deeper than {MAX_DEPTH}"


def _as_text(value: Any) -> str:
    try:
        return json.dumps(value)  # ASCII
    except (TypeError, ValueError, RecursionError):
        return f"({type(value).__name__} that is no JSON)"
