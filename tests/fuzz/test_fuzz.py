"""Whatever bytes lie where ours should, they are read or refused with one error; `python -m tests.fuzz` goes on."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.formats import FORMATS, corpus, fault, mutant

#: Inputs a format: all of it takes some seconds.
INPUTS = 1_500

_LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
_TREES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(0, 9), inner), max_leaves=20
)


@pytest.mark.parametrize("name", FORMATS)
def test_valid_bytes_are_read_and_mutants_are_refused_with_one_error(name: str) -> None:
    for data in FORMATS[name].valid:
        FORMATS[name].read(data)
    chance = Random(f"{name} 1")

    for _ in range(INPUTS):
        data = mutant(chance, name)
        if (error := fault(name, data)) is not None:
            raise AssertionError(f"{data!r} is not refused as it should be") from error


@pytest.mark.parametrize("name", FORMATS)
def test_what_was_found_once_is_refused(name: str) -> None:
    files = corpus(name)

    assert files
    for file in files:
        if (error := fault(name, file.read_bytes())) is not None:
            raise AssertionError(f"{file} is not refused as it should be") from error


@given(st.sampled_from(["batch", "ring", "sketch", "meta"]), _TREES)
def test_any_message_is_read_or_refused_with_one_error(name: str, tree: Any) -> None:
    assert fault(name, msgspec.msgpack.encode(tree)) is None


@given(st.sampled_from(list(FORMATS)), st.binary(max_size=100))
def test_any_bytes_are_read_or_refused_with_one_error(name: str, data: bytes) -> None:
    assert fault(name, data) is None
