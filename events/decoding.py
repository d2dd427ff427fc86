"""Stored bytes back into values: each format has one function that decodes it, and all of them one error."""

from __future__ import annotations

from typing import Protocol, TypeVar

import msgspec

from chancy_metrics.events.errors import Damaged

T = TypeVar("T", covariant=True)

#: What bytes that somebody made up can raise. No MemoryError: it says nothing of them, and the next try may have room.
HOSTILE = (msgspec.MsgspecError, ValueError, IndexError, OverflowError, RecursionError)


class Decoder(Protocol[T]):
    def decode(self, data: bytes | memoryview, /) -> T: ...


def decode_as(decoder: Decoder[T], data: bytes | memoryview, kind: str, where: str = "") -> T:
    """Return what *decoder* makes of *data*.

    Args:
        kind: What the bytes should be, such as "sketch".
        where: Where they lie, if that is known here.

    Raises:
        Damaged: They are something else.
    """
    try:
        return decoder.decode(data)
    except HOSTILE as error:
        raise Damaged(f"is no {kind}: {fault_of(error)}", where=where, kind=kind) from error


def fault_of(error: BaseException) -> str:
    """What *error* says, short; never empty."""
    return (str(error) or type(error).__name__)[:300]
