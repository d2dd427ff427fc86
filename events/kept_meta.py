"""The part of a job's `meta` that goes into the log: one MessagePack map of JSON values, of bounded depth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from chancy_metrics.events.decoding import decode_as
from chancy_metrics.events.errors import Damaged

#: Lists and maps within each other, the outermost map included: what reads them recurses as deep.
MAX_DEPTH = 64

#: What a map takes beside its keys and values, at the most.
_MAP_BYTES = 5
_KIND = "kept meta"
_SCALARS = (str, int, float, bool, type(None), bytes, datetime)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(dict[str, Any])


def encode_meta(kept: Mapping[str, Any]) -> bytes:
    """Encode what is kept of one job's meta; a value that no reader could show becomes text. Never raises."""
    try:
        if not _fault(kept):
            return _encoder.encode(kept)
    except Exception:  # JSON holds what MessagePack does not: whole numbers past 64 bits
        pass
    return _encoder.encode({key: _as_text(value) for key, value in kept.items()})


def encode_meta_within(kept: Mapping[str, Any], limit: int) -> bytes:
    """Encode those of the keys, in order, that fit into *limit* bytes beside the ones before; b"" if none does."""
    fits: dict[str, Any] = {}
    size = _MAP_BYTES
    for key, value in kept.items():
        more = len(encode_meta({key: value})) - 1
        if size + more <= limit:
            fits[key] = value
            size += more
    return encode_meta(fits) if fits else b""


def decode_meta(data: bytes | memoryview) -> dict[str, Any]:
    """Return what was kept of one job's meta; all of it can be encoded as JSON.

    Raises:
        Damaged: The bytes are something else.
    """
    meta = decode_as(_decoder, data, _KIND)
    if fault := _fault(meta):
        raise Damaged(f"is no {_KIND}: {fault}", kind=_KIND)
    return meta


def _fault(meta: Mapping[str, Any]) -> str:
    """Why readers could not show *meta*, in words; "" if they can."""
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
