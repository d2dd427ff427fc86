"""The file a log travels in: a first line, MessagePack frames with their lengths, and a digest of all of it.

What is read is checked against every bound of a log, so that nothing of a file is taken before all of it can be.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Annotated, BinaryIO, Literal
from uuid import UUID

import msgspec

from chancy_metrics.events.batch import BatchId, LogRow
from chancy_metrics.events.decoding import HOSTILE, fault_of
from chancy_metrics.events.errors import DamagedExport
from chancy_metrics.events.facts import FIRST_US, Kind
from chancy_metrics.events.row_bounds import (
    END_US,
    FAR_US,
    FIRST_DAY,
    HASH_BYTES,
    LAST_DAY,
    MAX_CODEC,
    MAX_EVENTS,
    MAX_PAYLOAD_BYTES,
    MAX_SEQUENCE,
)
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.events.transfer.rows import LedgerEntry

_WORD = b"chancy-metrics export "
_MAGIC = _WORD + b"1\n"
#: Behind the trailer: its length, and the digest.
_LENGTH = 4
_DIGEST = 32
_BLOCK = 1 << 20
#: Bytes of a trailer, of a frame with a batch (its payload, and its row), and of any other frame.
_MOST_TRAILER = 1 << 10
_MOST_BATCH = MAX_PAYLOAD_BYTES + (1 << 16)
_MOST_FRAME = 64 << 20
#: How a frame with a batch begins: an array of sixteen, and the word.
_BATCH_START = b"\xdc\x00\x10\xa5batch"

_LAST_US = END_US
_FAR = 2**62

_Position = Annotated[int, msgspec.Meta(ge=1, lt=_FAR)]
_Sequence = Annotated[int, msgspec.Meta(ge=1, le=MAX_SEQUENCE)]
_Events = Annotated[int, msgspec.Meta(ge=0, le=MAX_EVENTS)]
_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
_Moment = Annotated[int, msgspec.Meta(ge=0, lt=_LAST_US)]
_EventTime = Annotated[int, msgspec.Meta(ge=FIRST_US, le=FAR_US)]
_Seconds = Annotated[int, msgspec.Meta(ge=FIRST_US // 1_000_000, le=_LAST_US // 1_000_000)]
_Hash = Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
#: A name PostgreSQL can keep, and find by an index.
_Name = Annotated[str, msgspec.Meta(max_length=1_024, pattern=r"\A[^\x00]*\Z")]
_Decimal = Annotated[str, msgspec.Meta(max_length=2_100, pattern=r"\A-?[0-9]{1,1000}(\.[0-9]{1,1100})?\Z")]
_Resolution = Literal["1min", "5min", "1hour", "1day"]


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="header"):
    """The first frame.

    Attributes:
        day: The only day whose batches are in it; None if all are.
        position: Last position in it; 0 if it holds none.
        chain: Hash there.
    """

    day: date | None
    position: Annotated[int, msgspec.Meta(ge=0, lt=_FAR)]
    chain: Annotated[bytes, msgspec.Meta(max_length=32)]


class GoneDay(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="day"):
    """A day whose batches are not in the file, because they left the log or belong to another day's file.

    Attributes:
        last_us: Its latest event, microseconds since 1970.
    """

    day: date
    last_position: Annotated[int, msgspec.Meta(ge=0, lt=_FAR)] | None
    last_us: _EventTime | None


class Baseline(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="baseline"):
    """What the days that left the log added: where its points begin (resolution -> seconds), and its counts."""

    horizons: Annotated[dict[str, _Seconds], msgspec.Meta(max_length=len(RESOLUTIONS))]
    counts: Annotated[dict[_Name, _Count], msgspec.Meta(max_length=10_000)]


class Point(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A row of the baseline; *worker* is None in the row that holds all, *sum* a decimal number."""

    worker: _Name | None
    key: str
    kind: Kind
    unit: str
    bucket: _Seconds
    count: Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
    last_us: _EventTime
    sum: _Decimal
    min: float
    max: float
    last: float | None
    last_position: _Position | None
    last_index: _Events | None
    p50: float | None
    p95: float | None
    p99: float | None
    sketch: bytes | None


class Points(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="points"):
    """Some rows of the baseline, of one resolution."""

    resolution: _Resolution
    points: Annotated[list[Point], msgspec.Meta(max_length=1_000)]


class Producer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="producer"):
    """A long-lived producer as it stood at the last position."""

    producer: UUID
    worker: _Name
    last_sequence: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)]
    closed: bool
    holes: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)]
    seen_us: _Moment


class Gone(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="gone"):
    """A place in the order whose batch is not in the file."""

    position: _Position
    day: date
    producer: UUID
    sequence: _Sequence
    events: _Events
    chain: _Hash


class Batch(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="batch"):
    """A place in the order with its batch: every column of the log's row, and of the ledger's."""

    position: _Position
    day: date
    producer: UUID
    sequence: _Sequence
    worker: _Name
    first_us: _EventTime | None
    last_us: _EventTime | None
    appended_us: _Moment
    events: _Events
    closes: bool
    codec: Annotated[int, msgspec.Meta(ge=1, le=MAX_CODEC)]
    sha256: _Hash
    placed_events: _Events
    chain: _Hash
    payload: Annotated[bytes, msgspec.Meta(max_length=MAX_PAYLOAD_BYTES)]


class Trailer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="trailer"):
    """The last frame.

    Attributes:
        at_us: When the export began, by the database's clock, microseconds since 1970.
        places: How many positions are in it, and of them with their *batches*, which hold so many *events*.
        content: sha256 of everything before this frame: the same range of the same log has the same one.
    """

    at_us: _Moment
    places: Annotated[int, msgspec.Meta(ge=0, lt=_FAR)]
    batches: Annotated[int, msgspec.Meta(ge=0, lt=_FAR)]
    events: Annotated[int, msgspec.Meta(ge=0, lt=_FAR)]
    content: _Hash


Frame = Header | GoneDay | Baseline | Points | Producer | Gone | Batch | Trailer
#: How frames follow each other; some come once.
_RANK = {Header: 0, GoneDay: 1, Baseline: 2, Points: 3, Producer: 4, Gone: 5, Batch: 5, Trailer: 6}
_SINGLE = (Header, Baseline, Trailer)
_encoder = msgspec.msgpack.Encoder()
_NO_BYTES = _encoder.encode(b"")
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

    def put_place(self, place: LedgerEntry) -> None:
        self.places += 1
        if place.row is None:
            self.put(Gone(place.position, *place.batch_id, place.events, place.chain))
            return
        self.batches += 1
        self.events += place.row.events
        # The payload is the frame's last field, so it need not be copied into the frame to be written behind it.
        start = _encoder.encode(Batch(place.position, *place.row, place.events, place.chain, b""))[: -len(_NO_BYTES)]
        start += _bytes_header(len(place.payload))
        self._write((len(start) + len(place.payload)).to_bytes(_LENGTH, "big"))
        self._write(start)
        self._write(place.payload)

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


def _bytes_header(size: int) -> bytes:
    """What MessagePack writes before so many bytes."""
    code, width = (b"\xc4", 1) if size < 1 << 8 else (b"\xc5", 2) if size < 1 << 16 else (b"\xc6", 4)
    return code + size.to_bytes(width, "big")


def place_of(frame: Gone | Batch) -> LedgerEntry:
    """The place in the order that a frame holds."""
    if isinstance(frame, Gone):
        return LedgerEntry(
            frame.position, BatchId(frame.day, frame.producer, frame.sequence), frame.events, frame.chain
        )
    row = LogRow(*(getattr(frame, name) for name in LogRow._fields))
    return LedgerEntry(frame.position, BatchId(*row[:3]), frame.placed_events, frame.chain, row, frame.payload)


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
            raise _damaged(path, "is not as it was written: it was cut short or changed; copy it again")
        end = size - _DIGEST - _LENGTH
        file.seek(max(0, end))
        length = int.from_bytes(file.read(_LENGTH), "big")
        if length > min(_MOST_TRAILER, end - len(_MAGIC) - _LENGTH):
            raise _damaged(path, f"has no trailer: none has {length:,} bytes")
        file.seek(end - length)
        return _decode_trailer(file.read(length), path)


def _decode_trailer(data: bytes, path: Path) -> Trailer:
    try:
        return _trailer_decoder.decode(data)
    except HOSTILE as error:
        raise _damaged(path, f"has no trailer: {fault_of(error)}") from error


def read_frames(path: Path) -> Iterator[Frame]:
    """Yield the frames of a file, one after the other, each within the bounds of a log. Holds one at once.

    Raises:
        DamagedExport: What comes next is no frame, or none that may come there; where the file ends without its
            trailer, too.
    """
    with path.open("rb") as file:
        _check_magic(file, path)
        end = os.fstat(file.fileno()).st_size - _DIGEST - _LENGTH
        at, last = len(_MAGIC), -1
        while at < end:
            size = int.from_bytes(file.read(_LENGTH), "big")
            start = file.peek(len(_BATCH_START))[: len(_BATCH_START)]
            if size > min(end - at - _LENGTH, _MOST_BATCH if start == _BATCH_START else _MOST_FRAME):
                raise _damaged(path, f"is damaged at byte {at}: no frame has {size:,} bytes there")
            try:
                frame = decode_frame(file.read(size))
            except DamagedExport as error:
                raise _damaged(path, f"is damaged at byte {at}: {error}") from error
            except MemoryError:
                raise _damaged(
                    path, f"its frame at byte {at} needs {size:,} bytes of memory, which are not free"
                ) from None
            rank = _RANK[type(frame)]
            if rank < last or (rank == last and isinstance(frame, _SINGLE)) or (last < 0 and rank):
                raise _damaged(path, f"is damaged at byte {at}: {_name(frame)} may not stand there")
            yield frame
            at, last = at + _LENGTH + size, rank
        if at != end or last != _RANK[Trailer]:
            raise _damaged(path, f"is damaged at byte {at}: it ends without a trailer")


def decode_frame(data: bytes) -> Frame:
    """Decode one frame and check that a log can hold what it says.

    Raises:
        DamagedExport: It is none, or it says what no log can hold.
    """
    try:
        frame = _decoder.decode(data)
    except HOSTILE as error:
        raise DamagedExport(f"is no frame: {fault_of(error)}") from error
    if fault := _fault(frame):
        raise DamagedExport(fault, where=_name(frame))
    return frame


def _fault(frame: Frame) -> str:
    """What of a frame no log can hold, past the bounds of its fields, in words; "" if nothing is."""
    if isinstance(frame, Header) and len(frame.chain) != (32 if frame.position else 0):
        return f"has a hash of {len(frame.chain)} bytes at position {frame.position}"
    if isinstance(frame, Header | GoneDay | Gone | Batch) and frame.day and not FIRST_DAY <= frame.day <= LAST_DAY:
        return f"is of {frame.day}, and a log has days from {FIRST_DAY} to {LAST_DAY}"
    if isinstance(frame, Batch) and (frame.first_us or 0) > (frame.last_us if frame.last_us is not None else FAR_US):
        return f"has a last event at {frame.last_us}, before its first one at {frame.first_us}"
    if isinstance(frame, Baseline) and frame.horizons.keys() != RESOLUTIONS.keys():
        return f"has horizons of {', '.join(frame.horizons)}, not of {', '.join(RESOLUTIONS)}"
    return ""


def _name(frame: Frame) -> str:
    return f"the {type(frame).__struct_config__.tag} frame"


def _damaged(path: Path, fault: str) -> DamagedExport:
    return DamagedExport(fault, where=str(path))


def _check_magic(file: BinaryIO, path: Path) -> None:
    start = file.read(len(_MAGIC))
    if start.startswith(_WORD) and start != _MAGIC:
        raise _damaged(path, f"has format {start[len(_WORD) :]!r}, this code reads 1: use newer code")
    if start != _MAGIC:
        raise _damaged(path, "is no export of `chancy-metrics audit export`")
