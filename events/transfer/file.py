"""The export file: write it, read its frames, check its digest.

A first line, MessagePack frames after their lengths, and a sha256 of all of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import msgspec

from chancy_metrics.events.decoding import HOSTILE, fault_of
from chancy_metrics.events.errors import DamagedExport
from chancy_metrics.events.ledger import LedgerEntry
from chancy_metrics.events.row_bounds import (
    MAX_PAYLOAD_BYTES,
)
from chancy_metrics.events.transfer.frames import (
    Baseline,
    Batch,
    Frame,
    Gone,
    GoneDay,
    Header,
    Points,
    Producer,
    Segments,
    Trailer,
    decode_frame,
    frame_name,
)

_WORD = b"chancy-metrics export "
_MAGIC = _WORD + b"1\n"
#: Behind the trailer: its length, and the digest.
_LENGTH = 4
_DIGEST = 32
_BLOCK = 1 << 20
#: Bytes of a trailer, of a frame with a batch (its payload, and its row), and of any other frame.
_MAX_TRAILER = 1 << 10
_MAX_BATCH = MAX_PAYLOAD_BYTES + (1 << 16)
_MAX_FRAME = 64 << 20
#: How a frame with a batch begins: an array of sixteen, and the word.
_BATCH_START = b"\xdc\x00\x10\xa5batch"

#: Order of the frames; some come once.
_RANK = {Header: 0, GoneDay: 1, Baseline: 2, Points: 3, Segments: 4, Producer: 5, Gone: 6, Batch: 6, Trailer: 7}
_SINGLE = (Header, Baseline, Trailer)
_encoder = msgspec.msgpack.Encoder()
_NO_BYTES = _encoder.encode(b"")
_trailer_decoder = msgspec.msgpack.Decoder(Trailer)


class Writer:
    """Writes frames to a file that it does not close."""

    def __init__(self, file: BinaryIO) -> None:
        self.positions = 0
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

    def put_entry(self, entry: LedgerEntry) -> None:
        self.positions += 1
        if entry.row is None:
            self.put(Gone(entry.position, *entry.batch_id, entry.events, entry.chain))
            return
        self.batches += 1
        self.events += entry.row.events
        # The payload is the frame's last field, so it need not be copied into the frame to be written behind it.
        start = _encoder.encode(Batch(entry.position, *entry.row, entry.events, entry.chain, b""))[: -len(_NO_BYTES)]
        start += _bytes_header(len(entry.payload))
        self._write((len(start) + len(entry.payload)).to_bytes(_LENGTH, "big"))
        self._write(start)
        self._write(entry.payload)

    def finish(self, at_us: int) -> bytes:
        """Write the trailer and the digest; return the digest of the content."""
        content = self._digest.digest()
        start = self.size_bytes
        self.put(Trailer(at_us, self.positions, self.batches, self.events, content))
        self._write((self.size_bytes - start - _LENGTH).to_bytes(_LENGTH, "big"))
        self._write(self._digest.digest())
        return content

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)


def _bytes_header(size: int) -> bytes:
    """Return the header that MessagePack writes before so many bytes."""
    code, width = (b"\xc4", 1) if size < 1 << 8 else (b"\xc5", 2) if size < 1 << 16 else (b"\xc6", 4)
    return code + size.to_bytes(width, "big")


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
        if length > min(_MAX_TRAILER, end - len(_MAGIC) - _LENGTH):
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
            if size > min(end - at - _LENGTH, _MAX_BATCH if start == _BATCH_START else _MAX_FRAME):
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
                raise _damaged(path, f"is damaged at byte {at}: {frame_name(frame)} may not stand there")
            yield frame
            at, last = at + _LENGTH + size, rank
        if at != end or last != _RANK[Trailer]:
            raise _damaged(path, f"is damaged at byte {at}: it ends without a trailer")


def _damaged(path: Path, fault: str) -> DamagedExport:
    return DamagedExport(fault, where=str(path))


def _check_magic(file: BinaryIO, path: Path) -> None:
    start = file.read(len(_MAGIC))
    if start.startswith(_WORD) and start != _MAGIC:
        raise _damaged(path, f"has format {start[len(_WORD) :]!r}, this code reads 1: use newer code")
    if start != _MAGIC:
        raise _damaged(path, "is no export of `chancy-metrics audit export`")
