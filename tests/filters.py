"""What a Bloom filter says of a token, in Python: PostgreSQL asks it in the product."""

from __future__ import annotations

from chancy_metrics.events.bloom import bit_positions


def may_hold(bits: bytes, token: bytes) -> bool:
    """Whether *token* may be among those that the filter was made of."""
    return all(bits[at.stride % len(bits)] >> at.bit & 1 for at in bit_positions(token))
