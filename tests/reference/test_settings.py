"""docs/settings.md has every argument of `Metrics`, with its default and the range that the code accepts."""

from __future__ import annotations

import inspect
import re

import pytest

from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.host import options
from tests.reference.pages import code, page, rows

PARAMETERS = inspect.signature(Metrics).parameters
TABLE = {code(row[0])[0]: row[1:] for row in rows(page("settings"))}


def test_every_argument_has_a_row_and_a_section_and_nothing_else_has() -> None:
    headings = re.findall(r"^## `(\w+)`$", page("settings"), re.M)

    assert list(TABLE) == headings == list(PARAMETERS)


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_a_section_says_what_the_argument_costs(name: str) -> None:
    text = page("settings").partition(f"\n## `{name}`\n")[2].partition("\n## ")[0]

    assert "- **Costs.**" in text
    assert re.search(r"- \*\*(Changed|Raised|Switched off)", text)


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_the_default_in_the_table_is_that_of_the_signature(name: str) -> None:
    default = PARAMETERS[name].default
    told = TABLE[name][1]

    is_number = isinstance(default, (int, float)) and not isinstance(default, bool)
    assert re.split(r"[ :](?!\d)", told)[0].strip() == (f"{default:,}" if is_number else str(default))


def test_the_buckets_kept_by_default_are_those_of_the_code() -> None:
    told = re.findall(r"(\w+) (\d+)", TABLE["max_points_per_resolution"][1].partition(":")[2])

    assert {name: int(count) for name, count in told} == options.DEFAULT_POINTS


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("sync_interval", 3_155_760_000),
        ("maximum_metric_age", 3_155_760_000),
        ("collection_interval", 3_155_760_000),
        ("append_interval", 3_155_760_000),
        ("log_retention", 3_155_760_000),
        ("lock_timeout", 2_147_483),
        ("max_meta_bytes", 1_048_576),
        ("rules_version", 2_147_483_647),
    ],
)
def test_the_greatest_value_in_the_table_is_accepted_and_the_next_one_refused(name: str, most: int) -> None:
    assert f"{most:,}" in TABLE[name][2]

    Metrics(**{name: most})  # type: ignore[arg-type] # one of its arguments
    with pytest.raises(ValueError, match=name):
        Metrics(**{name: most + 1})  # type: ignore[arg-type]
