"""The chain: each position's hash covers the one before it and every column of its batch."""

from __future__ import annotations

from datetime import date
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

import msgspec

_encoder = msgspec.msgpack.Encoder()


class LogRow(NamedTuple):
    """Every column of a row of the log; its payload stands in it by its sha256."""

    day: date
    producer: UUID
    sequence: int
    worker: str
    first_us: int | None
    last_us: int | None
    appended_us: int
    events: int
    closes: bool
    codec: int
    sha256: bytes


def link(previous: bytes, position: int, row: LogRow) -> bytes:
    """Return the hash at *position*: sha256 over the MessagePack array of the previous hash and every column."""
    return sha256(_encoder.encode((previous, position, row.day.isoformat(), row.producer.bytes, *row[2:]))).digest()
