"""Decode stored bytes of any format with one error, `Damaged`, for whatever damaged bytes can raise."""

from __future__ import annotations

from typing import Protocol, TypeVar

import msgspec

from chancy_metrics.events.errors import Damaged

T = TypeVar("T", covariant=True)

#: What decoding of damaged or forged bytes can raise. Not MemoryError, which may pass.
HOSTILE = (msgspec.MsgspecError, ValueError, IndexError, OverflowError, RecursionError)


class Decoder(Protocol[T]):
    def decode(self, data: bytes | memoryview, /) -> T: ...


def decode_as(decoder: Decoder[T], data: bytes | memoryview, kind: str, where: str = "") -> T:
    """Decode *data*.

    Args:
        kind: What the bytes should be, such as "sketch".
        where: Where they lie, if known.

    Raises:
        Damaged: The bytes are something else.
    """
    try:
        return decoder.decode(data)
    except HOSTILE as error:
        raise Damaged(f"is no {kind}: {fault_of(error)}", where=where, kind=kind) from error


def fault_of(error: BaseException) -> str:
    """Return the text of *error*, cut to 300 characters; never empty."""
    return (str(error) or type(error).__name__)[:300]
