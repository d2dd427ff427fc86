"""The frames of an export file: their types, and decoding that checks every bound of a log."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from chancy_metrics.events.batch import BatchId, LogRow
from chancy_metrics.events.decoding import HOSTILE, fault_of
from chancy_metrics.events.errors import DamagedExport
from chancy_metrics.events.facts import FIRST_US, Kind, Series
from chancy_metrics.events.ledger import LedgerEntry
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

#: Bounds of a frame with segments.
MAX_FRAME_SERIES = 25_000
MAX_FRAME_SEGMENTS = 1_000

_FAR = 2**62
_Position = Annotated[int, msgspec.Meta(ge=1, lt=_FAR)]
_Sequence = Annotated[int, msgspec.Meta(ge=1, le=MAX_SEQUENCE)]
_Events = Annotated[int, msgspec.Meta(ge=0, le=MAX_EVENTS)]
_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
_Moment = Annotated[int, msgspec.Meta(ge=0, lt=END_US)]
_EventTime = Annotated[int, msgspec.Meta(ge=FIRST_US, le=FAR_US)]
_Seconds = Annotated[int, msgspec.Meta(ge=FIRST_US // 1_000_000, le=END_US // 1_000_000)]
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
    """The baseline of the days that left the log: its horizons (resolution -> seconds) and its counts."""

    horizons: Annotated[dict[str, _Seconds], msgspec.Meta(max_length=len(RESOLUTIONS))]
    counts: Annotated[dict[_Name, _Count], msgspec.Meta(max_length=10_000)]


class Point(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A merged row of the baseline; *sum* is a decimal number."""

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
    last_position: Annotated[int, msgspec.Meta(ge=0, lt=_FAR)] | None  # 0 of an imported gauge
    last_index: _Events | None
    p50: float | None
    p95: float | None
    p99: float | None
    sketch: bytes | None


class Points(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="points"):
    """Some rows of the baseline, of one resolution."""

    resolution: _Resolution
    points: Annotated[list[Point], msgspec.Meta(max_length=1_000)]


class Segment(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Cells of one worker that one day added to the baseline, all of one resolution.

    Attributes:
        day: The absorbed day that they came with.
        part: Tells segments of one worker, resolution and day apart.
        data: A run of `projections/fold/cell_codec.py`, whose series are places in the frame's list, from 0.
    """

    worker: _Name
    resolution: _Resolution
    day: date
    part: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
    data: bytes


class Segments(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="segments"):
    """Some segments of the baseline, and the series that are in them."""

    series: Annotated[list[Series], msgspec.Meta(max_length=MAX_FRAME_SERIES)]
    segments: Annotated[list[Segment], msgspec.Meta(min_length=1, max_length=MAX_FRAME_SEGMENTS)]


class Producer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="producer"):
    """A long-lived producer as it stood at the last position."""

    producer: UUID
    worker: _Name
    last_sequence: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)]
    closed: bool
    holes: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)]
    seen_us: _Moment


class Gone(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="gone"):
    """A ledger entry whose batch is not in the file."""

    position: _Position
    day: date
    producer: UUID
    sequence: _Sequence
    events: _Events
    chain: _Hash


class Batch(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="batch"):
    """A ledger entry with its batch: every column of its rows in log and ledger."""

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
    ledger_events: _Events
    chain: _Hash
    payload: Annotated[bytes, msgspec.Meta(max_length=MAX_PAYLOAD_BYTES)]


class Trailer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="trailer"):
    """The last frame.

    Attributes:
        at_us: When the export began, by the database's clock, microseconds since 1970.
        positions: How many positions are in it, and of them with their *batches*, which hold so many *events*.
        content: sha256 of everything before this frame: the same range of the same log has the same one.
    """

    at_us: _Moment
    positions: Annotated[int, msgspec.Meta(ge=0, lt=_FAR)]
    batches: Annotated[int, msgspec.Meta(ge=0, lt=_FAR)]
    events: Annotated[int, msgspec.Meta(ge=0, lt=_FAR)]
    content: _Hash


Frame = Header | GoneDay | Baseline | Points | Segments | Producer | Gone | Batch | Trailer
_decoder = msgspec.msgpack.Decoder(Frame)


def entry_of(frame: Gone | Batch) -> LedgerEntry:
    """Return the ledger entry that a frame holds."""
    if isinstance(frame, Gone):
        return LedgerEntry(
            frame.position, BatchId(frame.day, frame.producer, frame.sequence), frame.events, frame.chain
        )
    row = LogRow(*(getattr(frame, name) for name in LogRow._fields))
    return LedgerEntry(frame.position, BatchId(*row[:3]), frame.ledger_events, frame.chain, row, frame.payload)


def decode_frame(data: bytes) -> Frame:
    """Decode one frame and check that a log can hold its values.

    Raises:
        DamagedExport: The bytes are no frame, or its values are out of bounds.
    """
    try:
        frame = _decoder.decode(data)
    except HOSTILE as error:
        raise DamagedExport(f"is no frame: {fault_of(error)}") from error
    if fault := _fault(frame):
        raise DamagedExport(fault, where=frame_name(frame))
    return frame


def _fault(frame: Frame) -> str:
    """Return what no log can hold, beyond the bounds of single fields; "" if nothing."""
    if isinstance(frame, Header) and len(frame.chain) != (32 if frame.position else 0):
        return f"has a hash of {len(frame.chain)} bytes at position {frame.position}"
    for day in _days(frame):
        if not FIRST_DAY <= day <= LAST_DAY:
            return f"is of {day}, and a log has days from {FIRST_DAY} to {LAST_DAY}"
    if isinstance(frame, Batch) and (frame.first_us or 0) > (frame.last_us if frame.last_us is not None else FAR_US):
        return f"has a last event at {frame.last_us}, before its first one at {frame.first_us}"
    if isinstance(frame, Baseline) and frame.horizons.keys() != RESOLUTIONS.keys():
        return f"has horizons of {', '.join(frame.horizons)}, not of {', '.join(RESOLUTIONS)}"
    return ""


def _days(frame: Frame) -> list[date]:
    if isinstance(frame, Segments):
        return [one.day for one in frame.segments]
    if isinstance(frame, Header | GoneDay | Gone | Batch) and frame.day is not None:
        return [frame.day]
    return []


def frame_name(frame: Frame) -> str:
    return f"the {type(frame).__struct_config__.tag} frame"
