"""A filter never denies what it was made of, hardly ever claims more, and says the same in PostgreSQL."""

from __future__ import annotations

import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.events.bloom import BITS_A_TOKEN, bit_positions, make_filter, token
from chancy_metrics.events.database import Connection
from tests.filters import may_hold

tokens = st.binary(min_size=16, max_size=16)


@given(st.lists(tokens, max_size=200), st.lists(tokens, max_size=20))
def test_what_a_filter_was_made_of_it_may_hold(inside: list[bytes], joined: list[bytes]) -> None:
    bits = make_filter([*inside, b"".join(joined)])

    assert all(may_hold(bits, one) for one in inside + joined)


@pytest.mark.parametrize("kind", ["random", "by time", "counted"])
def test_few_that_are_not_in_it_seem_to_be(kind: str) -> None:
    chance = random.Random(1)
    made = {
        "random": lambda _: chance.randbytes(16),
        "by time": lambda n: (1_773_144_000_000 + n // 100).to_bytes(6, "big") + chance.randbytes(10),
        "counted": lambda n: uuid.UUID(int=n).bytes,
    }[kind]
    everything = [made(number) for number in range(20_000)]
    inside, outside = everything[::2], everything[1::2]

    bits = make_filter(inside)

    assert len(bits) == -(-len(inside) * BITS_A_TOKEN // 8)
    assert sum(may_hold(bits, one) for one in outside) < 60  # 0.3 % of them are 32


def test_an_empty_filter_holds_nothing_and_the_same_token_twice_takes_no_room() -> None:
    one = token("key", "app:n")

    assert not may_hold(make_filter([]), one)
    assert make_filter([one] * 100) == make_filter([one])


def test_one_text_is_another_token_in_another_field() -> None:
    assert token("func", "app") != token("queue", "app")
    assert len(token("key", "\ud800")) == 16


async def test_the_bit_positions_are_those_that_postgresql_counts(connection: Connection) -> None:
    chance = random.Random(2)
    bits = make_filter([chance.randbytes(16) for _ in range(300)])
    asked = [chance.randbytes(16) for _ in range(200)]

    for one in asked:
        cursor = await connection.execute(
            "SELECT bool_and(get_bit(substring(%(bits)s::bytea FROM (stride %% octet_length(%(bits)s))::integer + 1"
            " FOR 1), bit) = 1) FROM unnest(%(strides)s::bigint[], %(bits_of)s::integer[]) AS p (stride, bit)",
            {
                "bits": bits,
                "strides": [at.stride for at in bit_positions(one)],
                "bits_of": [at.bit for at in bit_positions(one)],
            },
        )
        assert await cursor.fetchone() == (may_hold(bits, one),)
