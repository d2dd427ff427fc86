"""The file a log travels in: a first line, MessagePack frames with their lengths, and a digest of all of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Literal
from uuid import UUID

import msgspec

from .errors import MetricsLogError
from .facts import Kind
from .log import BatchId
from .seal import LogRow
from .stretch import Place

_WORD = b"chancy-metrics export "
_MAGIC = _WORD + b"1\n"
#: Behind the trailer: its length, and the digest.
_LENGTH = 4
_DIGEST = 32
_BLOCK = 1 << 20


class DamagedExport(MetricsLogError):
    """A file is no export, or not as it was written."""


class Header(msgspec.Struct, frozen=True, array_like=True, tag="header"):
    """The first frame.

    Attributes:
        day: The only day whose batches are in it; None if all are.
        position: Last position in it; 0 if it holds none.
        chain: Hash there.
    """

    day: date | None
    position: int
    chain: bytes


class GoneDay(msgspec.Struct, frozen=True, array_like=True, tag="day"):
    """A day whose batches are not in the file, because they left the log or belong to another day's file.

    Attributes:
        last_us: Its latest event, microseconds since 1970.
    """

    day: date
    last_position: int | None
    last_us: int | None


class Opening(msgspec.Struct, frozen=True, array_like=True, tag="opening"):
    """What the days that left the log added: where its points begin (resolution -> seconds), and its counts."""

    horizons: dict[str, int]
    counts: dict[str, int]


class Point(msgspec.Struct, frozen=True, array_like=True):
    """A row of the opening; *worker* is None in the row that holds all, *sum* a decimal number."""

    worker: str | None
    key: str
    kind: Kind
    unit: str
    bucket: int
    count: int
    last_us: int
    sum: str
    min: float
    max: float
    last: float | None
    last_position: int | None
    last_index: int | None
    p50: float | None
    p95: float | None
    p99: float | None
    sketch: bytes | None


class Points(msgspec.Struct, frozen=True, array_like=True, tag="points"):
    """Some rows of the opening, of one resolution."""

    resolution: Literal["1min", "5min", "1hour", "1day"]
    points: list[Point]


class Producer(msgspec.Struct, frozen=True, array_like=True, tag="producer"):
    """A long-lived producer as it stood at the last position."""

    producer: UUID
    worker: str
    last_sequence: int
    closed: bool
    holes: int
    seen_us: int


class Gone(msgspec.Struct, frozen=True, array_like=True, tag="gone"):
    """A place in the order whose batch is not in the file."""

    position: int
    day: date
    producer: UUID
    sequence: int
    events: int
    chain: bytes


class Batch(msgspec.Struct, frozen=True, array_like=True, tag="batch"):
    """A place in the order with its batch: every column of the log's row, and of the ledger's."""

    position: int
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
    placed_events: int
    chain: bytes
    payload: bytes


class Trailer(msgspec.Struct, frozen=True, array_like=True, tag="trailer"):
    """The last frame.

    Attributes:
        at_us: When the export began, by the database's clock, microseconds since 1970.
        places: How many positions are in it, and of them with their *batches*, which hold so many *events*.
        content: sha256 of everything before this frame: the same stretch of the same log has the same one.
    """

    at_us: int
    places: int
    batches: int
    events: int
    content: bytes


Frame = Header | GoneDay | Opening | Points | Producer | Gone | Batch | Trailer
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Frame)
_trailer_decoder = msgspec.msgpack.Decoder(Trailer)


class Writer:
    """Writes frames to a file that it does not close."""

    def __init__(self, file: BinaryIO) -> None:
        self.places = 0
        self.batches = 0
        self.events = 0
        self.size_bytes = 0
        self._file = file
        self._digest = sha256()
        self._write(_MAGIC)

    def put(self, frame: Frame) -> None:
        data = _encoder.encode(frame)
        self._write(len(data).to_bytes(_LENGTH, "big"))
        self._write(data)

    def put_place(self, place: Place) -> None:
        self.places += 1
        if place.row is None:
            self.put(Gone(place.position, *place.batch_id, place.events, place.chain))
            return
        self.batches += 1
        self.events += place.row.events
        self.put(Batch(place.position, *place.row, place.events, place.chain, place.payload))

    def finish(self, at_us: int) -> bytes:
        """Write the trailer and the digest; return the digest of the content."""
        content = self._digest.digest()
        start = self.size_bytes
        self.put(Trailer(at_us, self.places, self.batches, self.events, content))
        self._write((self.size_bytes - start - _LENGTH).to_bytes(_LENGTH, "big"))
        self._write(self._digest.digest())
        return content

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)


def place_of(frame: Gone | Batch) -> Place:
    """The place in the order that a frame holds."""
    if isinstance(frame, Gone):
        return Place(frame.position, BatchId(frame.day, frame.producer, frame.sequence), frame.events, frame.chain)
    row = LogRow(*(getattr(frame, name) for name in LogRow._fields))
    return Place(frame.position, BatchId(*row[:3]), frame.placed_events, frame.chain, row, frame.payload)


def check_whole(path: Path) -> Trailer:
    """Read the file once and compare it with the digest at its end; return its trailer. Memory stays flat.

    Raises:
        DamagedExport: It is no export, of a newer format, cut short or changed.
    """
    with path.open("rb") as file:
        _check_magic(file, path)
        size = os.fstat(file.fileno()).st_size
        digest, left = sha256(_MAGIC), size - len(_MAGIC) - _DIGEST
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            digest.update(block)
            left -= len(block)
        if left or file.read(_DIGEST) != digest.digest():
            raise DamagedExport(f"{path} is not as it was written: it was cut short or changed; copy it again")
        file.seek(size - _DIGEST - _LENGTH)
        length = int.from_bytes(file.read(_LENGTH), "big")
        file.seek(max(0, size - _DIGEST - _LENGTH - length))
        try:
            return _trailer_decoder.decode(file.read(length))
        except msgspec.MsgspecError as error:
            raise DamagedExport(f"{path} has no trailer: {error}") from error


def read_frames(path: Path) -> Iterator[Frame]:
    """Yield the frames of a file, one after the other.

    Raises:
        DamagedExport: What comes next is no frame.
    """
    with path.open("rb") as file:
        _check_magic(file, path)
        end = os.fstat(file.fileno()).st_size - _DIGEST - _LENGTH
        at = len(_MAGIC)
        while at < end:
            size = int.from_bytes(file.read(_LENGTH), "big")
            if size > end - at - _LENGTH:
                raise DamagedExport(f"{path} is damaged at byte {at}: no frame has {size} bytes there")
            try:
                yield _decoder.decode(file.read(size))
            except msgspec.MsgspecError as error:
                raise DamagedExport(f"{path} is damaged at byte {at}: {error}") from error
            at += _LENGTH + size


def _check_magic(file: BinaryIO, path: Path) -> None:
    start = file.read(len(_MAGIC))
    if start.startswith(_WORD) and start != _MAGIC:
        raise DamagedExport(f"{path} has format {start[len(_WORD) :]!r}, this code reads 1: use newer code")
    if start != _MAGIC:
        raise DamagedExport(f"{path} is no export of `chancy-metrics audit export`")
