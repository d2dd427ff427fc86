"""Laws of coverage and open faults: what merging runs of verify must never lose or invent."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.projections.findings import Findings, Spot
from chancy_metrics.projections.verify.coverage import (
    Coverage,
    Fault,
    Seen,
    cover,
    ranges_of,
    settle,
    share,
    still_kept,
    unite,
)

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
MINUTE = Spot("difference", "1min", 600)

ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=6)


@given(runs=st.lists(ranges, max_size=6), since_s=st.integers(0, 20))
def test_each_second_has_the_time_of_the_last_run_that_looked_at_it(
    runs: list[list[tuple[int, int]]], since_s: int
) -> None:
    seen: list[Seen] = []
    expected: dict[int, int] = {}
    for number, run in enumerate(runs):
        seen = cover(seen, run, 100 + number, since_s=since_s)
        expected |= {second: 100 + number for first, end in run for second in range(max(first, since_s), end)}

    assert {second: one.at for one in seen for second in range(one.first, one.end)} == expected
    assert all(before.end <= after.first for before, after in pairwise(seen))
    assert all(one.first < one.end for one in seen)


def test_a_run_covers_nothing_after_itself_and_many_stretches_are_joined_under_the_earliest_time() -> None:
    assert cover([], [(0, 10**9)], 500) == [Seen(0, 500, 500)]
    seen: list[Seen] = []
    for number in range(300):
        seen = cover(seen, [(number, number + 1)], 1_000 + number)

    assert (seen[0], seen[-1].end) == (Seen(0, 201, 1_000), 300)
    apart = [Seen(number * 2, number * 2 + 1, 9_999) for number in range(300)]
    assert cover(apart, [], 10_000) == apart[-200:]  # a dropped range counts as not covered


def test_a_share_is_of_the_buckets_kept_until_now() -> None:
    found = share({"1min": [Seen(0, 300, 300)], "1hour": [Seen(0, 3_600, 350)]}, {"1min": 0, "1hour": 0}, 7_200)

    assert found.by_resolution == {"1min": 300 / 7_200, "1hour": 0.5}
    assert found.whole == (5 + 1) / (120 + 2)
    assert found.oldest_at == datetime.fromtimestamp(300, UTC)
    nothing = share({}, {}, 7_200)
    assert (nothing.whole, nothing.by_resolution, nothing.oldest_at) == (0, {}, None)


@given(some=ranges)
def test_stretches_together_are_what_they_were_in_order_and_apart(some: list[tuple[int, int]]) -> None:
    real = [(first, end) for first, end in some if first < end]

    united = unite([Coverage(ranges={"1min": [one]}) for one in real]).ranges.get("1min", [])

    assert {at for first, end in united for at in range(first, end)} == {
        at for first, end in real for at in range(first, end)
    }
    assert all(before[1] < after[0] for before, after in pairwise(united))


def a_run(first: int, end: int) -> Coverage:
    return unite([Coverage(ranges=ranges_of({"1min": first}, {"1min": end}))])


def test_a_fault_is_open_until_a_run_that_looks_there_finds_nothing() -> None:
    faults = settle([], a_run(0, 900), Counter({MINUTE: 2}), {MINUTE: "it is wrong"}, NOW)

    assert [(fault.spot, fault.count, str(fault)) for fault in faults] == [
        (MINUTE, 2, "it is wrong (and 1 more there)")
    ]
    assert settle(faults, a_run(0, 600), Counter(), {}, NOW) == faults
    assert settle(faults, a_run(660, 900), Counter(), {}, NOW) == faults
    assert settle(faults, Coverage(), Counter(), {}, NOW) == faults
    assert settle(faults, a_run(600, 660), Counter(), {}, NOW) == []
    assert settle(faults, Coverage(everywhere=True), Counter(), {}, NOW) == []
    later = NOW + timedelta(hours=1)
    [again] = settle(faults, a_run(0, 900), Counter({MINUTE: 1}), {}, later)
    assert (again.count, again.found_at, str(again)) == (
        1,
        later,
        "difference at 1min 1970-01-01 00:10:00 UTC: 1 finding",
    )


def test_a_check_that_every_run_makes_is_settled_by_every_run_and_one_without_a_spot_by_a_whole_one() -> None:
    found = Counter({Spot("head"): 1, Spot("ledger", "position"): 2, Spot("log", "day", 9): 1})
    faults = settle([], Coverage(), found, {}, NOW)

    after = settle(faults, a_run(0, 60), Counter(), {}, NOW)

    assert {fault.check for fault in after} == {"ledger", "log"}
    assert [str(fault) for fault in after] == [
        "ledger at several spots (position): 2 findings",
        "log at 0001-01-09: 1 finding",
    ]


def test_of_very_many_spots_the_rest_is_one_fault_and_nothing_is_forgotten() -> None:
    found = Counter({Spot("quantiles", "1min", bucket * 60): 1 for bucket in range(5_000)})

    faults = settle([], Coverage(), found, {}, NOW)
    after = settle(faults, a_run(0, 10**6), Counter(), {}, NOW)

    assert len(faults) == 1_001
    assert sum(fault.count for fault in faults) == 5_000
    assert [(fault.at, fault.count) for fault in after] == [(None, 4_000)]


def test_what_passed_below_the_horizon_is_no_fault_any_more() -> None:
    faults = [Fault(*spot, 1, NOW, "") for spot in (MINUTE, Spot("chain", "position", 3), Spot("cache"))]

    assert still_kept(faults, {"1min": 600}) == faults
    assert still_kept(faults, {"1min": 660}) == faults[1:]


def test_findings_are_counted_by_spot_also_those_that_are_not_listed() -> None:
    found, other = Findings(1), Findings(5)
    for number in range(3):
        found.add("quantiles", "here", "wrong", scale="1min", at=60)
        other.add("head", "there", f"wrong {number}")
    found.add_uncounted(Counter({Spot("log", "day", 1): 0, Spot("log", "day", 2): 4}))
    found.add_all(other)

    assert (found.count, len(found.kept)) == (10, 1)
    assert found.spots == {Spot("quantiles", "1min", 60): 3, Spot("log", "day", 2): 4, Spot("head"): 3}
    assert found.sentences == {Spot("quantiles", "1min", 60): "quantiles, here: wrong"}
