"""Encode numpy columns as binary PostgreSQL arrays, all values at once: one by one takes longer than the statement."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from psycopg.adapt import Dumper
from psycopg.pq import Format

from chancy_metrics.events.database import Cursor

_INT4, _INT8, _FLOAT8, _BYTEA, _TEXT = 23, 20, 701, 17, 25
_SIZE = struct.Struct("!i")
_NULL = _SIZE.pack(-1)


class Array:
    """A parameter for `%(name)s::integer[]` and the like; the statement has to name the type."""

    def __init__(self, data: bytes) -> None:
        self.data = data


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Array) -> bytes:
        return obj.data


def take_arrays(cursor: Cursor) -> None:
    """Register `Array` as a parameter type of *cursor*."""
    cursor.adapters.register_dumper(Array, _ArrayDumper)


def integers(column: NDArray[np.int64], known: NDArray[np.bool_] | None = None) -> Array:
    """Return an `integer[]`; NULL where not *known*."""
    return _fixed(column, ">i4", _INT4, known)


def bigints(column: NDArray[np.int64], known: NDArray[np.bool_] | None = None) -> Array:
    """Return a `bigint[]`; NULL where not *known*."""
    return _fixed(column, ">i8", _INT8, known)


def doubles(column: NDArray[np.float64], known: NDArray[np.bool_] | None = None) -> Array:
    """Return a `double precision[]`; NULL where not *known*."""
    return _fixed(column, ">f8", _FLOAT8, known)


def blobs(values: Sequence[bytes]) -> Array:
    """Return a `bytea[]`; NULL for b""."""
    body = b"".join([_SIZE.pack(len(value)) + value if value else _NULL for value in values])
    return Array(_header(_BYTEA, len(values), nulls=True) + body)


def texts(cursor: Cursor, values: Sequence[str]) -> Array:
    """Return a `text[]` in the encoding of the cursor's connection, and register its type there."""
    take_arrays(cursor)
    encoding = cursor.connection.info.encoding
    encoded = [value.encode(encoding) for value in values]
    body = b"".join([_SIZE.pack(len(value)) + value for value in encoded])
    return Array(_header(_TEXT, len(encoded), nulls=False) + body)


def _fixed(
    column: NDArray[np.int64] | NDArray[np.float64], wire: str, oid: int, known: NDArray[np.bool_] | None
) -> Array:
    fields = np.empty(len(column), [("size", ">i4"), ("value", wire)])
    fields["size"] = fields.dtype["value"].itemsize
    fields["value"] = column
    if known is None:
        return Array(_header(oid, len(column), nulls=False) + fields.tobytes())
    fields["size"][~known] = -1
    data = fields.view(np.uint8).reshape(len(column), fields.itemsize)
    kept = np.ones(data.shape, bool)
    kept[~known, 4:] = False  # a NULL is its size alone
    return Array(_header(oid, len(column), nulls=True) + data[kept].tobytes())


def _header(oid: int, size: int, *, nulls: bool) -> bytes:
    return struct.pack("!iiIii", 1, nulls, oid, size, 1) if size else struct.pack("!iiI", 0, 0, oid)
