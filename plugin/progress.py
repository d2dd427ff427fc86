"""How far a long piece of work is, as its callers are told."""

from __future__ import annotations

import msgspec


class LedgerProgress(msgspec.Struct, frozen=True):
    """How far a walk through the order is: at *position* of *until*, past so many events since it began."""

    position: int
    until: int
    events: int
    events_per_s: float
