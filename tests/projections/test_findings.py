"""Findings that are made in parts, in one process or many, are those of one pass: same counts, same words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.projections import findings
from chancy_metrics.projections.findings import Findings, FindingsParts

ONE = st.tuples(
    st.sampled_from(["log", "chain", "ledger"]), st.sampled_from(["position", ""]), st.integers(1, 9) | st.none()
)


def all_of(found: Findings) -> tuple[Any, ...]:
    return found.count, found.kept, found.spots, list(found.sentences.items())


@given(
    parts=st.lists(st.lists(ONE, max_size=8), max_size=6), limit=st.integers(0, 9), spots=st.sampled_from([3, 2_000])
)
def test_findings_of_parts_are_those_of_one_pass(parts: list[list[Any]], limit: int, spots: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(findings, "_MAX_SPOTS", spots)
        whole, merged = Findings(limit), Findings(limit)
        for part in parts:
            found = Findings(limit)
            for number, (check, scale, at) in enumerate(part):
                for into in (whole, found):
                    into.add(check, f"position {at}", f"sentence {number}", scale=scale, at=at)
            merged.add_parts(msgspec.msgpack.decode(msgspec.msgpack.encode(found.to_parts()), type=FindingsParts))

    assert (merged.count, merged.kept) == (whole.count, whole.kept)
    if spots == 2_000:
        assert all_of(merged) == all_of(whole)
