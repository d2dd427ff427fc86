"""The index of keys: what it finds is what looking at every key would find."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.plugin.reading.series_index import Listed, SeriesIndex

SIZES = ["table:a:total_size_bytes", "table:jobs:index_size_bytes", "table:z:table_size_bytes"]
KEYS = st.lists(
    st.text("aB:ß.\U0010ffff", min_size=1, max_size=6) | st.sampled_from([*SIZES, "table:", "table:a:rows", "z"]),
    unique=True,
    max_size=30,
)
TEXTS = st.text("aAbB:sß.\U0010ffff", max_size=3) | st.sampled_from(["t", "table", "table:", "table:j", "SIZE", "z"])


def an_index(keys: list[str]) -> SeriesIndex:
    return SeriesIndex(Listed(key, "counter", "count") for key in keys)


@given(KEYS, TEXTS, st.lists(TEXTS, max_size=2))
def test_it_finds_what_begins_so_and_has_every_word_in_any_case(keys: list[str], begin: str, words: list[str]) -> None:
    found = an_index(keys).find(begin, words)

    assert list(found) == sorted(
        (key for key in keys if key.startswith(begin) and all(word.casefold() in key.casefold() for word in words)),
        key=lambda key: (key in SIZES, key),
    )


def test_a_mistyped_size_of_a_table_is_found_and_so_is_what_lies_beside_it() -> None:
    index = an_index([*SIZES, "table:jobs:rows", "zebra"])

    assert index.near("table:jobs:index_size_byte")[0] == "table:jobs:index_size_bytes"
    assert index.near("table:jobs:row")[0] == "table:jobs:rows"


def test_a_mistyped_key_is_found_by_its_beginning_or_its_end_among_many() -> None:
    keys = [f"job:app.{name}{number}:failed" for name in ("mail", "bill", "ship") for number in range(2_000)]
    index = an_index([*keys, "queue:mail:failed", "x" * 1_024])

    for mistyped in ("qeue:mail:failed", "queue:mail:faild", "queue:mial:failed", "Queue:mail:failed"):
        assert index.near(mistyped)[0] == "queue:mail:failed", mistyped
    assert index.near("x" * 1_023) == ["x" * 1_024]
    assert index.near("nothing like it at all") == []
    assert an_index([]).near("a") == []
