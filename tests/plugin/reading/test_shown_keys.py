"""Which keys show which series, and which of them lie under a prefix."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.events.facts import Series
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.reading.shown_keys import Names, shown_keys


@pytest.mark.parametrize(
    ("prefix", "matches"),
    [
        ("queue:alpha", ["queue:alpha", "queue:alpha:failed"]),
        ("queue", ["queue:alpha", "queue:alpha:failed", "queue:alphab", "queue:alphab:failed"]),
        ("queue:", []),
        ("que", []),
        ("queue:%", []),
        ("queue:alpha:", []),
    ],
)
def test_a_prefix_matches_whole_segments(prefix: str, matches: list[str]) -> None:
    keys = ["queue:alpha", "queue:alpha:failed", "queue:alphab", "queue:alphab:failed", "queue;x", "que_e:x", "r"]
    names = Names({number: Series(key, "counter", "count") for number, key in enumerate(keys)})

    assert [key for key, _ in names.under(prefix)] == matches
    assert [key for key in keys if Metrics.matches_prefix(prefix, key)] == matches
    assert [key for key, _ in names.under(None)] == [key for key, _ in names.under("")] == sorted(keys)


@given(
    keys=st.sets(st.text("a:;9é\U0001f600", min_size=1, max_size=6)),
    prefix=st.text("a:;9é\U0001f600", min_size=1, max_size=4),
)
def test_keys_under_a_prefix_are_those_that_match_it(keys: set[str], prefix: str) -> None:
    names = Names({number: Series(key, "counter", "count") for number, key in enumerate(sorted(keys, key=hash))})

    assert [key for key, _ in names.under(prefix)] == [
        key for key in sorted(keys) if Metrics.matches_prefix(prefix, key)
    ]


def test_of_a_key_with_two_types_or_units_the_smallest_number_has_the_key() -> None:
    assert shown_keys(
        {
            7: Series("app:x", "gauge", "bytes"),
            3: Series("app:x", "counter", "count"),
            5: Series("app:x", "counter", "bytes"),
            9: Series("app:x:gauge:bytes", "counter", "count"),
        }
    ) == {"app:x": 3, "app:x:counter:bytes": 5, "app:x:gauge:bytes": 9, "app:x:gauge:bytes:gauge:bytes": 7}
