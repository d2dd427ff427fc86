"""The tutorial prints what it says: its files and commands, run as a reader would, on an empty database."""

from __future__ import annotations

import re

import pytest

from examples.tutorial import PAGE, Failed, follow

#: What differs from run to run, and what stands for it.
MASKS = {
    r" +\d+:\d+  (?=worker)": " PLACE  ",
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}": "ID",
    r"\d{4}-\d\d-\d\d": "DATE",
    r"\d\d:\d\d(:\d\d(\.\d+)?)?": "TIME",
    r"[\d.,]+ (s|ms|min|h)\b": "TIME",
    r"last_us \d+ -> \d+": "last_us",
    r"[\d.,]+/min": "RATE",
    r"[\d,]+ a second": "RATE",
    r"(position +)\d+": r"\1N",
    # The leader may have sampled the queues meanwhile, and a burst may lie in two minutes.
    r"; 1 worker active": "",
    r"(?m)^waiting .*(\n {10}\w+  none due.*)*": "waiting",
    r"\d+ (points compared|events of|events in TIME|differ\b)": r"N \1",
    r"compared \d+ points": "compared N points",
    r"(?m)^[-+] .* (1min|5min|1hour) .*\n": "",
    # Under load one function is as slow as the other.
    r"(?m)^(slowest | {8}) shop\.\w+  p95 .*": r"\1 FUNCTION",
}


def masked(page: str) -> str:
    for pattern, name in MASKS.items():
        page = re.sub(pattern, name, page)
    return page


def test_following_the_tutorial_prints_what_it_shows(empty_dsn: str) -> None:
    page = PAGE.read_text()

    assert masked(follow(page, empty_dsn)).splitlines() == masked(page).splitlines()


def test_a_number_that_is_not_masked_makes_a_difference() -> None:
    page = PAGE.read_text()

    for shown, other in (("20 of 60 jobs", "21 of 60 jobs"), ("sum 600", "sum 601"), ("KeyError", "ValueError")):
        assert shown in page
        assert masked(page.replace(shown, other)) != masked(page)


@pytest.mark.parametrize(
    "page",
    [
        "Run it:\n\n```console\n$ false\n```\n",
        "`a.py`:\n\n```python\nx = 1\n```\n\n`a.py`:\n\n```diff\n-x = 2\n+x = 3\n```\n",
    ],
)
def test_a_page_that_can_not_be_followed_is_refused(empty_dsn: str, page: str) -> None:
    with pytest.raises(Failed):
        follow(page, empty_dsn)
