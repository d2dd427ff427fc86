"""The user's rules make observations of job updates; one that raises costs its own on that batch, and says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from chancy_metrics.events.batch import LogBatch
from chancy_metrics.events.codec import decode, encode
from chancy_metrics.events.facts import Series
from chancy_metrics.plugin import Derived, JobColumns, Metrics
from chancy_metrics.projections.fold.cells import Cells
from chancy_metrics.projections.fold.fold import Fold, fold
from chancy_metrics.projections.fold.levels import projection_of
from chancy_metrics.projections.rules.derive import derive
from chancy_metrics.projections.rules.rule_set import RuleSet, is_above
from tests import rules
from tests.factories import NOON_US, a_row, a_run


def batch(*rows: Any, position: int = 1, runs: Iterable[Any] = ()) -> LogBatch:
    encoded = encode(rows, list(runs))
    return LogBatch(
        position, _PRODUCER, position, "w", NOON_US + 10**9, encoded.events, 1, encoded.payload, encoded.sha256
    )


_PRODUCER: Any = None


def sums(folded: Fold) -> dict[str, float]:
    cells: Cells | None = projection_of(folded).merged.get("1day")
    if cells is None:
        return {}
    return {folded.series[cells.series[row]].key: float(cells.sum_of(row)) for row in range(cells.rows)}


def test_the_cost_of_a_customer_comes_out_of_the_kept_meta() -> None:
    rows = [
        a_row(meta=msgspec.msgpack.encode({"customer": name, "cost": cost}))
        for name, cost in [("a", 1.5), ("b", 2), ("a", 0.25)]
    ]

    folded = fold([batch(*rows, a_row())], RuleSet(user=1, rules=(rules.cost_per_customer,)))

    found = sums(folded)
    assert (found["customer:a:cost"], found["customer:b:cost"]) == (1.75, 2)
    assert Series("customer:a:cost", "counter", "EUR") in folded.series
    assert found["global:status:succeeded"] == 4


def test_a_derived_observation_has_its_update_s_time_and_worker() -> None:
    folded = fold([batch(a_row(NOON_US), a_row(NOON_US + 120_000_000))], RuleSet(user=1, rules=(rules.first,)))

    minutes = folded.cells["1min"]
    mine = [row for row in range(minutes.rows) if folded.series[minutes.series[row]].key == "made:by:first"]
    assert {(int(minutes.worker[row]), int(minutes.bucket[row]) - NOON_US // 10**6) for row in mine} == {
        (1, 0),
        (1, 120),
    }


def test_a_rule_sees_no_time_after_the_append_and_an_update_ahead_of_it_counts_as_skewed_once() -> None:
    def took(jobs: JobColumns) -> Iterator[Derived]:
        yield Derived.histogram("made:took", [0], jobs.completed_us - jobs.started_us)

    appended_us = NOON_US + 10**9  # see batch()
    ahead = a_row(appended_us + 10**12, started_us=appended_us - 7)

    folded = fold([batch(ahead)], RuleSet(user=1, rules=(took,)))

    assert sums(folded)["made:took"] == 7
    assert folded.counts["skewed"] == 1


@pytest.mark.parametrize("order", [(rules.latest, rules.later), (rules.later, rules.latest)])
def test_of_two_gauges_at_one_time_the_later_rule_s_is_the_latest(order: tuple[Any, ...]) -> None:
    folded = fold([batch(a_row())], RuleSet(user=1, rules=order))

    cells = folded.cells["1min"]
    [last] = {cells.last[row] for row in range(cells.rows) if folded.series[cells.series[row]].key == "made:by:last"}
    assert last == (2 if order[1] is rules.later else 1)


def test_what_a_rule_makes_comes_behind_what_the_batch_holds() -> None:
    recorded = a_run("made:by:last", [7.0], kind="gauge", unit="number")

    folded = fold([batch(a_row(), runs=[recorded])], RuleSet(user=1, rules=(rules.latest,)))

    cells = folded.cells["1min"]
    assert {cells.last[row] for row in range(cells.rows) if folded.series[cells.series[row]].key == "made:by:last"} == {
        1.0
    }


def test_a_rule_that_raises_costs_what_it_makes_of_that_batch_and_nothing_else() -> None:
    good, bad = batch(a_row()), batch(a_row(state="failed"), position=2, runs=[a_run("app:n")])

    folded = fold([good, bad], RuleSet(user=1, rules=(rules.picky, rules.first)))

    assert (folded.dead, folded.failed) == ({}, {(2, "picky"): "LookupError: no failed jobs, please"})
    found = sums(folded)
    assert (found["made:by:picky"], found["made:by:first"]) == (1, 2)
    assert (found["global:status:failed"], found["app:n"], folded.events) == (1, 1, 3)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("an error of the error")


@pytest.mark.parametrize(
    ("raised", "says"),
    [
        (Mute(), "Mute: its text can't be read"),
        (SystemExit(3), "SystemExit: 3"),
        (asyncio.CancelledError(), "CancelledError"),
        (ExceptionGroup("two", [ValueError(), KeyError()]), "ExceptionGroup: two (2 sub-exceptions)"),
    ],
)
def test_whatever_a_rule_raises_ends_neither_the_fold_nor_the_process(raised: BaseException, says: str) -> None:
    def rule(_: JobColumns) -> list[Derived]:
        raise raised

    folded = fold([batch(a_row())], RuleSet(user=1, rules=(rule, rules.first)))

    assert folded.failed == {(1, "rule"): says}
    assert (sums(folded)["made:by:first"], sums(folded)["global:status:succeeded"]) == (1, 1)


def test_a_rule_that_failed_on_a_batch_before_is_not_asked_again() -> None:
    again = batch(a_row())._replace(without=frozenset({"first"}))

    folded = fold([again], RuleSet(user=1, rules=(rules.first, rules.second)))

    assert folded.failed == {}
    assert "made:by:first" not in sums(folded) and sums(folded)["made:by:second"] == 1


def made(*derived: object) -> Callable[[JobColumns], Iterator[Any]]:
    def rule(jobs: JobColumns) -> Iterator[Any]:
        yield from derived

    return rule


@pytest.mark.parametrize(
    ("derived", "says"),
    [
        ("app:n", "makes Derived.counter"),
        (Derived(Series("a", "counter", "count"), 1, 1), "within 0 and 0"),
        (Derived(Series("a", "counter", "count"), -1, 1), "within 0 and 0"),
        (Derived(Series("a", "counter", "count"), 0.5, 1), "whole numbers"),
        (Derived(Series("a", "counter", "count"), 0, float("nan")), "finite"),
        (Derived(Series("a", "counter", "count"), [0, 0], [1, 2, 3]), "shape"),
        (Derived(Series("a", "counter", "count"), 0, "many"), "could not convert"),
    ],
)
def test_what_is_no_observation_of_these_updates_is_refused(derived: object, says: str) -> None:
    folded = fold([batch(a_row())], RuleSet(user=1, rules=(made(derived),)))

    [error] = folded.failed.values()
    assert says in error
    assert all(key.startswith(("job:", "global:", "queue:")) for key in sums(folded))


def test_a_batch_s_own_observations_come_first_and_those_of_each_rule_behind_them_in_order() -> None:
    jobs = [a_row(NOON_US + second * 1_000_000) for second in range(2)]
    runs = [a_run("app:n", [5.0, 6.0]), a_run("app:level", [7.0], kind="gauge", unit="x")]
    encoded = encode(jobs, runs)
    own = decode(1, encoded.payload, encoded.sha256, encoded.events)

    derived, _ = derive(own, RuleSet(user=1, rules=(rules.second, rules.later)), NOON_US + 10**9)
    with_made = derived.observations

    assert with_made is not None
    assert [series.key for series in with_made.series] == ["app:n", "app:level", "made:by:second", "made:by:last"]
    assert with_made.lengths.tolist() == [2, 1, 2, 2]
    assert with_made.values.tolist() == [5, 6, 7, 1, 1, 2, 2]
    assert with_made.at_us.tolist() == [NOON_US] * 3 + [NOON_US, NOON_US + 1_000_000] * 2


def test_where_rules_make_nothing_a_batch_keeps_what_is_its_own() -> None:
    encoded = encode([a_row()], [a_run("app:n", [5.0])])
    own = decode(1, encoded.payload, encoded.sha256, encoded.events)

    kept = derive(own, RuleSet(user=1, rules=(made(),)), NOON_US)[0].observations

    assert kept is not None and own.observations is not None
    assert (kept.series, kept.values.tolist()) == (own.observations.series, [5.0])


def test_a_key_that_breaks_a_rule_is_refused_where_it_is_made() -> None:
    def rule(jobs: JobColumns) -> Iterator[Derived]:
        yield Derived.counter("", 0)

    assert "key '' must be" in fold([batch(a_row())], RuleSet(user=1, rules=(rule,))).failed[1, "rule"]


def test_no_rows_make_nothing_and_none_is_nothing() -> None:
    nothing = RuleSet(user=1, rules=(made(Derived.counter("a", np.empty(0, np.int64))), lambda jobs: None))  # type: ignore[dict-item, return-value, arg-type]

    assert "a" not in sums(fold([batch(a_row())], nothing))


def test_pairs_are_above_where_one_number_is_higher_and_none_lower() -> None:
    assert is_above((1, 1), (1, 0)) and is_above((2, 3), (1, 3)) and is_above((2, 4), (1, 3))
    assert not is_above((1, 0), (1, 0)) and not is_above((1, 0), (1, 1)) and not is_above((2, 0), (1, 1))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rules": [rules.first]}, "rules need a rules_version"),
        ({"rules": [rules.first], "rules_version": True}, "rules_version=True"),
        ({"rules": [rules.first], "rules_version": -1}, "rules_version=-1"),
        ({"rules": ["first"], "rules_version": 1}, "a rule is a function"),
        ({"rules": [lambda jobs: ()], "rules_version": 1}, "a rule is a function with a name"),
        ({"rules": [rules.first, rules.first], "rules_version": 1}, "two rules named 'first'"),
        ({"auto_rebuild": 1}, "auto_rebuild=1"),
    ],
)
def test_the_constructor_says_what_is_wrong_with_rules(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Metrics(**arguments)
