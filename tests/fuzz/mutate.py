"""Valid bytes made invalid: bit by bit, and as trees of MessagePack, so that what is behind the lengths is reached."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec

#: Claims of 4 GiB of each kind, and nesting.
_CLAIMS = [bytes([code]) + b"\xff" * 4 for code in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF)]
_CLAIMS += [b"\x91" * 70, b"\x81\xa1a" * 70, b"\x91" * 20_000, b"\xff" * 9, bytes(9), b"\xc1"]
_LEAVES: list[Any] = [
    *(
        0,
        1,
        -1,
        2**15,
        2**31 - 1,
        2**31,
        2**53,
        2**59,
        2**62,
        2**63 - 1,
        2**63,
        2**64 - 1,
        -(2**31),
        -(2**59),
        -(2**63),
    ),
    *(0.0, -0.0, 1.5, 1e308, 5e-324, float("nan"), float("inf"), float("-inf")),
    *(None, True, False, [], {}, [[]], {"": ""}, {1: 1}, b"", b"\x00", b"\xff" * 16, bytes(32), b"\xff" * 64),
    *(
        "",
        "\x00",
        "x",
        "x" * 70,
        "x" * 5_000,
        "1970-01-01",
        "9999-12-31",
        "300000-01-01",
        "NaN",
        "1e999999999",
        "\u202e",
    ),
    *(msgspec.Raw(claim) for claim in _CLAIMS[5:8]),
    msgspec.Raw(b"\xa2\xed\xa0"),
    msgspec.msgpack.Ext(1, b"x"),
]


def mutate_bytes(chance: Random, data: bytes, others: list[bytes]) -> bytes:
    """Change *data* in one way or a few; *others* are what it may be spliced with."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        size = len(data)
        here = chance.randrange(size + 1)
        there = min(size, here + chance.choice((1, 2, 4, 8, 40)))
        way = chance.randrange(9)
        if way == 0 and here < size:
            data = data[:here] + bytes([data[here] ^ 1 << chance.randrange(8)]) + data[here + 1 :]
        elif way == 1 and here < size:
            data = data[:here] + bytes([chance.randrange(256)]) + data[here + 1 :]
        elif way == 2:
            data = data[:here]
        elif way == 3:
            data = data[:there] + data[here:there] * chance.randint(1, 5) + data[there:]
        elif way == 4:
            data = data[:here] + data[there:]
        elif way == 5:
            data = data[:here] + chance.choice(_CLAIMS) + data[chance.choice((here, there)) :]
        elif way == 6:
            data = data[there:] + data[:there]
        elif way == 7:
            other = chance.choice(others)
            data = data[:here] + other[chance.randrange(len(other) + 1) :]
        else:
            data = data[:here] + chance.randbytes(there - here) + data[there:]
    return data


def mutate_tree(chance: Random, tree: Any) -> Any:
    """Return a tree of lists, maps and leaves with one node changed, or two; *tree* itself stays."""
    for _ in range(chance.choice((1, 1, 2))):
        tree = _mutate(chance, tree, chance.randint(0, 5))
    return tree


def _mutate(chance: Random, node: Any, depth: int) -> Any:
    if depth and isinstance(node, list) and node:
        here = chance.randrange(len(node))
        return [*node[:here], _mutate(chance, node[here], depth - 1), *node[here + 1 :]]
    if depth and isinstance(node, dict) and node:
        key = chance.choice(list(node))
        if not chance.randrange(4):
            return {name: value for name, value in node.items() if name != key} | {_leaf(chance, node): node[key]}
        return node | {key: _mutate(chance, node[key], depth - 1)}
    if isinstance(node, list) and node and chance.randrange(2):
        return chance.choice((node[::-1], node + node, node[1:], node[:-1], [*node, chance.choice(node)], node * 50))
    if isinstance(node, bytes) and chance.randrange(2):
        return mutate_bytes(chance, node, [node or b"\x00"])
    if type(node) is int and chance.randrange(2):
        return max(-(2**63), min(2**64 - 1, node + chance.choice((-1, 1, 2**32, -(2**32), node, -2 * node))))
    return chance.choice(_LEAVES)


def _leaf(chance: Random, node: dict[Any, Any]) -> Any:
    """A key of the same kind as the others, or any that can be one."""
    return chance.choice([*node, *(leaf for leaf in _LEAVES if isinstance(leaf, str | int | float | bytes))])
