"""Whatever a report has, it is printed in 25 lines of 120 columns, safe to show, and the verdict comes first."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from unicodedata import east_asian_width

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from chancy_metrics.plugin.audit.marks import Mark
from chancy_metrics.plugin.cli.report import COLUMNS, LINES, name, report_lines
from chancy_metrics.plugin.host.escape import safe
from chancy_metrics.plugin.summary import report as records
from chancy_metrics.plugin.summary.report import Report
from chancy_metrics.plugin.summary.usual import Usual

AT = datetime(2026, 3, 10, 12, tzinfo=UTC)
NAMES = st.text(max_size=200) | st.text("名前の長い関数", min_size=50, max_size=200)
COUNTS, SHARES, SECONDS = st.integers(0, 2**53), st.floats(0, 1), st.floats(0, 1e9)
USUAL = st.none() | st.builds(Usual, SECONDS, SECONDS, SECONDS, st.integers(1, 7))


def several(each: st.SearchStrategy[object]) -> st.SearchStrategy[list[object]]:
    return st.lists(each, max_size=12)


KINDS = st.sampled_from(["pipeline", "silent", "standstill", "failures"])
QUEUES = st.builds(
    records.QueueState,
    NAMES,
    *[st.none() | COUNTS] * 4,
    *[st.none() | SECONDS] * 2,
    USUAL,
    st.none() | st.just(AT),
)
SLOW = st.builds(records.SlowFunction, NAMES, SECONDS, USUAL, COUNTS, SECONDS)
FAILING = st.builds(records.FunctionFailures, NAMES, COUNTS, COUNTS, SHARES, USUAL)
NEWEST = st.builds(records.NewestError, st.just(AT), st.just(uuid.UUID(int=7)), NAMES, NAMES, st.just("failed"), NAMES)
CHANGES = st.builds(
    records.Change,
    st.sampled_from(["jobs", "failure_share", "run_time_p95", "wait_time_p95"]),
    st.just("job"),
    NAMES,
    SECONDS,
    st.builds(Usual, SECONDS, SECONDS, SECONDS, st.integers(1, 7)),
)
NUMBERS = st.builds(
    records.Numbers,
    st.dictionaries(
        st.sampled_from(["lost", "unclean_ends", "dropped_job_updates_ever", "dropped_ever"]), st.integers(1, 9)
    ),
    SECONDS,
    st.just(AT),
    st.none() | st.just(AT),
    SHARES,
    COUNTS,
    several(NAMES),
)
REPORTS = st.builds(
    Report,
    several(st.builds(records.Problem, KINDS, st.text(max_size=900))),
    st.just(AT),
    st.just(AT),
    st.none() | st.just(AT),
    SECONDS,
    st.none() | st.just(AT),
    st.none() | st.just(AT),
    st.integers(0, 7),
    st.none() | SECONDS,
    several(st.builds(Mark, st.just(AT), NAMES)),
    st.builds(records.Flow, COUNTS, COUNTS, COUNTS, COUNTS, SECONDS, USUAL),
    st.builds(records.Waiting, st.booleans(), several(QUEUES), st.none() | COUNTS, st.none() | st.just(AT)),
    st.builds(records.Failures, COUNTS, st.none() | SHARES, USUAL, several(FAILING), st.none() | NEWEST),
    several(SLOW),
    several(SLOW),
    several(CHANGES),
    NUMBERS,
)


def columns(text: str) -> int:
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


@settings(deadline=None)
@given(REPORTS)
def test_a_report_has_25_lines_of_120_columns(found: Report) -> None:
    lines = report_lines(found)

    assert len(lines) <= LINES == 25
    assert [line for line in lines if columns(line) > COLUMNS or line != safe(line)] == []
    assert ("WRONG" in lines[0]) == bool(found.problems)
    labels = [line.split(" ")[0] for line in lines if not line.startswith(" ")][1:]
    assert labels == ["time", "flow", "waiting", "failures", "slowest", "changed", "numbers"]


@settings(deadline=None, max_examples=20)
@given(REPORTS, several(st.integers(1, 900)))
def test_what_is_wrong_takes_lines_of_the_lists_but_never_all(found: Report, sizes: list[int]) -> None:
    problems = [records.Problem("pipeline", "word " * (size // 5) + "end") for size in [*sizes, *[900] * 8]]

    lines = report_lines(structs.replace(found, problems=problems))

    assert len(lines) <= LINES
    assert lines[0] == f"{len(problems)} THINGS ARE WRONG"
    assert any(line.startswith("  and ") and "--json` has all" in line for line in lines)


@given(NAMES)
def test_a_long_name_keeps_its_beginning_and_its_end(text: str) -> None:
    shown, whole = name(text), safe(text)

    assert columns(shown) <= 40
    if shown != whole:
        begin, _, end = shown.partition("…")
        assert len(begin) > 5 and len(end) > 5 and whole.startswith(begin) and whole.endswith(end)


@pytest.mark.parametrize(
    ("began_s", "unknown_s", "line"),
    [
        (0, 60, "nothing was recorded in 1 min of it"),
        (40, 80, "nothing was recorded in 1 min 20 s of it"),
        (120, 120, "nothing was recorded before 12:02"),
        (120, 300, "nothing was recorded before 12:02 and in 3 min of it"),
    ],
)
@settings(deadline=None, max_examples=5)
@given(found=REPORTS)
def test_a_report_says_when_nothing_was_recorded(found: Report, began_s: int, unknown_s: int, line: str) -> None:
    began_at = AT + timedelta(seconds=began_s)

    lines = report_lines(structs.replace(found, problems=[], began_at=began_at, unknown_s=unknown_s))

    assert [text.strip() for text in lines if "nothing was recorded" in text] == [line]
