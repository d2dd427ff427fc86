"""The wire format of the shared cache: the merged points one fold changed, with the values they have after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

#: Folds the ring remembers; who is further behind loads again.
RING_SIZE = 600

#: Columns of `ChangedPoints.values`, in this order; what a kind does not have is NaN.
COLUMNS = ("count", "last_us", "sum", "min", "max", "last", "p50", "p95", "p99")


class ChangedPoints(NamedTuple):
    """Merged points of one resolution.

    Attributes:
        series: Number of the series of each point.
        bucket: Start of its bucket, seconds since 1970.
        values: Float64 of shape (points, `COLUMNS`).
    """

    series: NDArray[np.int32]
    bucket: NDArray[np.int64]
    values: NDArray[np.float64]


class _Packed(msgspec.Struct, array_like=True, frozen=True):
    series: bytes
    bucket: bytes
    values: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(dict[str, _Packed])


def pack_points(levels: Mapping[str, ChangedPoints]) -> bytes:
    """Encode the changed points of each resolution."""
    return _encoder.encode(
        {
            resolution: _Packed(
                points.series.astype("<i4").tobytes(),
                points.bucket.astype("<i8").tobytes(),
                points.values.astype("<f8").tobytes(),
            )
            for resolution, points in levels.items()
        }
    )


def unpack_points(data: bytes) -> dict[str, ChangedPoints]:
    """Decode what `pack_points` made."""
    return {
        resolution: ChangedPoints(
            np.frombuffer(packed.series, "<i4"),
            np.frombuffer(packed.bucket, "<i8"),
            np.frombuffer(packed.values, "<f8").reshape(-1, len(COLUMNS)),
        )
        for resolution, packed in _decoder.decode(data).items()
    }
