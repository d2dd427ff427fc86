"""Write, encode, decode and reset the delta ring: one row per fold of the live version, with the points it changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple
from uuid import uuid4

import msgspec
import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.decoding import decode_as
from chancy_metrics.events.errors import Damaged
from chancy_metrics.events.facts import FIRST_US
from chancy_metrics.events.schema import Tables

#: Folds that the ring keeps; a follower further behind loads the rollups again.
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


class _Packed(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    series: bytes
    bucket: bytes
    values: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(dict[Literal["1min", "5min", "1hour", "1day"], _Packed])
_KIND = "delta ring"
#: Buckets of the years 1 to 9999.
_FIRST_S, _END_S = FIRST_US // 1_000_000, 253_402_300_800


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


def unpack_points(data: bytes, where: str = "") -> dict[str, ChangedPoints]:
    """Decode what `pack_points` made.

    Args:
        where: Where the bytes lie, for the message.

    Raises:
        Damaged: They are something else.
    """
    levels = decode_as(_decoder, data, _KIND, where)
    return {resolution: _unpack(packed, resolution, where) for resolution, packed in levels.items()}


def _unpack(packed: _Packed, resolution: str, where: str) -> ChangedPoints:
    size, rest = divmod(len(packed.bucket), 8)
    if rest or len(packed.series) != 4 * size or len(packed.values) != 8 * len(COLUMNS) * size:
        raise Damaged(f"is no {_KIND}: its columns at {resolution} have different lengths", where=where, kind=_KIND)
    points = ChangedPoints(
        np.frombuffer(packed.series, "<i4"),
        np.frombuffer(packed.bucket, "<i8"),
        np.frombuffer(packed.values, "<f8").reshape(-1, len(COLUMNS)),
    )
    if size and (
        points.bucket.min() < _FIRST_S
        or points.bucket.max() >= _END_S
        or np.isinf(points.values).any()
        or not (points.values[:, :2] > -(2.0**63)).all()
    ):
        raise Damaged(f"is no {_KIND}: a point at {resolution} is out of bounds", where=where, kind=_KIND)
    return points


async def write_ring(
    cursor: Cursor, tables: Tables, *, version: int, fold: int, position: int, points: Mapping[str, ChangedPoints]
) -> None:
    """Append the points that one fold of the live version changed, and delete the rows past `RING_SIZE`.

    The caller holds the version's lock.

    Args:
        fold: Number of the fold, one more than the version's last one.
        position: Ledger position of the version after the fold.
        points: Resolution -> the changed points.
    """
    await cursor.execute(
        sql.SQL("DELETE FROM {cache} WHERE fold <= %(oldest)s").format(cache=tables.cache),
        {"oldest": fold - RING_SIZE},
    )
    await cursor.execute(
        sql.SQL(
            """
            INSERT INTO {cache} (fold, version, position, token, points)
            VALUES (%(fold)s, %(version)s, %(position)s, %(token)s, %(points)b)
            """
        ).format(cache=tables.cache),
        {"fold": fold, "version": version, "position": position, "token": uuid4(), "points": pack_points(points)},
    )


async def reset_ring(cursor: Cursor, tables: Tables) -> None:
    """Replace the ring by one row without points, which makes every follower load the rollups again.

    Followers do so at a row of another version, or of this version at an earlier fold.
    """
    await cursor.execute(sql.SQL("DELETE FROM {cache}").format(cache=tables.cache))
    await cursor.execute(
        sql.SQL(
            """
            INSERT INTO {cache} (fold, version, position, token, points)
            SELECT folds, version, position, %(token)s, %(points)b
            FROM {versions}
            WHERE version = (SELECT live FROM {head})
            """
        ).format(cache=tables.cache, versions=tables.versions, head=tables.head),
        {"token": uuid4(), "points": pack_points({})},
    )
