"""Which version may be promoted, by which cause: each sentence, and each case without one."""

from __future__ import annotations

import pytest

from chancy_metrics.projections.versions.promote import Cause, promotion_blocker
from chancy_metrics.projections.versions.version import Head, Version

LIVE = (2, 3)
ABOVE = [(2, 4), (3, 3), (3, 4)]
NOT_ABOVE = [(2, 2), (1, 3), (1, 2), (1, 4), (3, 2)]


def version(number: int, pair: tuple[int, int], status: str) -> Version:
    return Version(number, pair, [], status, 10, 1, True, None, {})


def said(pair: tuple[int, int], cause: Cause, *, blocked_rules: tuple[str, ...] = ()) -> str:
    """What keeps a version with the rules *pair* from being promoted over one with those of LIVE."""
    return promotion_blocker(
        version(8, pair, "ready"), version(7, LIVE, "live"), Head(10, 7, list(blocked_rules)), cause
    )


@pytest.mark.parametrize("cause", ["asked", "newer"])
@pytest.mark.parametrize("pair", ABOVE)
def test_newer_rules_may_come_where_they_are_asked_for_and_by_themselves(pair: tuple[int, int], cause: Cause) -> None:
    assert said(pair, cause) is None


@pytest.mark.parametrize("cause", ["asked", "newer"])
@pytest.mark.parametrize("pair", NOT_ABOVE)
def test_rules_of_which_a_number_is_lower_come_back_by_undo_only(pair: tuple[int, int], cause: Cause) -> None:
    assert said(pair, cause) == (
        f"version 8 has rules {pair[0]}.{pair[1]}, and those of the live version 7, 2.3, are not older: "
        "go back with `chancy-metrics undo`"
    )


def test_the_same_rules_are_taken_again_where_they_are_asked_for_and_never_by_themselves() -> None:
    assert said(LIVE, "asked") is None
    assert said(LIVE, "newer") == "version 8 has the rules of the live version"


def test_rules_that_an_undo_has_left_come_back_only_where_they_are_asked_for() -> None:
    assert said((2, 4), "newer", blocked_rules=("2.4",)) == (
        "rules 2.4 were left by an undo: only `chancy-metrics swap` takes them again"
    )
    assert said((2, 4), "asked", blocked_rules=("2.4",)) is None


def test_rules_that_an_undo_has_left_bar_no_others() -> None:
    assert said((2, 5), "newer", blocked_rules=("2.4", "3.5", "2.50", "12.5")) is None


@pytest.mark.parametrize("cause", ["undo", "standstill"])
@pytest.mark.parametrize("pair", [*ABOVE, LIVE, *NOT_ABOVE])
def test_an_undo_and_the_end_of_a_standstill_take_any_rules_blocked_ones_too(
    pair: tuple[int, int], cause: Cause
) -> None:
    assert said(pair, cause, blocked_rules=(f"{pair[0]}.{pair[1]}",)) is None
