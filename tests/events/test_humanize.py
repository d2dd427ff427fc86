"""Words for numbers: one observation, no sixty minutes, no thousand megabytes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.events.humanize import counted, is_or_are, size, span


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "batch", "0 batches"),
        (1, "observation", "1 observation"),
        (2, "observation", "2 observations"),
        (1_000, "job update", "1,000 job updates"),
        (1, "series", "1 series"),
        (2, "series", "2 series"),
    ],
)
def test_one_is_one_and_the_rest_are_several(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text
    assert is_or_are(number, noun) == text + (" is" if number == 1 else " are")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        *((0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (99_949, "99.9 kB"), (99_950, "100 kB")),
        *((999_499, "999 kB"), (999_500, "1.0 MB"), (999_999_999, "1.0 GB"), (10**15, "1.0 PB"), (10**19, "10000 PB")),
    ],
)
def test_a_size_has_no_thousand_of_a_unit(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0 s"), (0.25, "0.25 s"), (9.9999, "10 s"), (59.4, "59 s"), (59.6, "1 min"), (90, "1 min 30 s")),
        *(
            (3_599.6, "1 h"),
            (7_199, "2 h"),
            (5_400, "1 h 30 min"),
            (86_399, "1 d"),
            (86_400 * 3 + 4 * 3_600, "3 d 4 h"),
        ),
    ],
)
def test_a_span_is_carried_into_the_next_unit(seconds: float, text: str) -> None:
    assert span(seconds) == text


@given(st.floats(0, 4e9))
def test_no_span_has_sixty_of_anything(seconds: float) -> None:
    parts = dict(part.split(" ")[::-1] for part in re.findall(r"[\d.,e+-]+ \w+", span(seconds)))
    limits = {"s": 60, "min": 60, "h": 24}

    assert all(float(value.replace(",", "")) < limits.get(unit, 1e9) for unit, value in parts.items()), span(seconds)
    assert abs(
        sum(float(v.replace(",", "")) * {"s": 1, "min": 60, "h": 3600, "d": 86400}[u] for u, v in parts.items())
        - seconds
    ) <= max(0.5, seconds / 40)


@given(st.integers(0, 10**17))
def test_no_size_has_a_thousand_of_anything(count: int) -> None:
    assert re.fullmatch(r"(\d{1,3}|\d{1,2}\.\d) ([kMGTP]?B)", size(count)), size(count)
