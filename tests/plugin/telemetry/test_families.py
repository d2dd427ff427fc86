"""Families: what a series becomes for exporters, and names that no two series share."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.events.facts import KINDS, Kind, Series
from chancy_metrics.plugin.telemetry import families, pipeline
from chancy_metrics.plugin.telemetry.custom_names import custom_names
from chancy_metrics.plugin.telemetry.families import RECORDED_S, Family, families_of
from chancy_metrics.projections.rules.built_in import job_series
from chancy_metrics.projections.rules.measured import (
    DRIFT,
    SLOTS,
    SLOTS_USED,
    WORKERS_ACTIVE,
    oldest_wait,
    queue_depths,
    table_sizes,
)
from chancy_metrics.projections.totals.read import Total
from tests.factories import NOON_US, a_total, some_totals
from tests.processes import ROOT

#: Endings that samples have in the text form.
ENDINGS = ("_total", "_bucket", "_count", "_sum", "_created", "_info", "_gsum", "_gcount")


def by_name(*totals: Total) -> dict[str, Family]:
    return {one.name: one for one in families_of(some_totals(*totals))}


def values(family: Family) -> dict[str, float]:
    return {",".join(f"{name}={value}" for name, value in one.labels): one.value for one in family.members}


def test_updates_of_functions_and_of_queues_are_separate_families() -> None:
    found = by_name(
        a_total("job:app.mail:succeeded", 3),
        a_total("queue:mail:succeeded", 3),
        a_total("queue:mail:throughput", 3),
        a_total("global:status:succeeded", 3),
    )

    assert sorted(found) == ["chancy_all_jobs", "chancy_jobs", "chancy_queue_jobs", "chancy_queue_throughput"]
    assert values(found["chancy_jobs"])["func=app.mail,state=succeeded"] == 3
    assert values(found["chancy_queue_jobs"])["queue=mail,state=succeeded"] == 3
    assert values(found["chancy_all_jobs"]) == {"state=succeeded": 3}


def test_the_first_failure_is_an_increase_from_zero() -> None:
    found = by_name(a_total("job:app.mail:succeeded", 3))

    assert values(found["chancy_jobs"]) == {
        "func=app.mail,state=succeeded": 3,
        "func=app.mail,state=failed": 0,
        "func=app.mail,state=retrying": 0,
    }


def test_times_are_histograms_in_seconds() -> None:
    found = by_name(
        *(
            a_total(f"{stem}:{measure}", 3, kind="histogram", unit="seconds")
            for stem in ("job:app.mail", "queue:mail")
            for measure in ("execution_time", "wait_time", "total_time")
        ),
        a_total("job:app.mail:attempts", 3, kind="histogram", unit="attempts"),
    )

    assert [(name, one.kind, one.unit) for name, one in found.items()] == [
        ("chancy_job_attempts", "histogram", "attempts"),
        ("chancy_job_execution_seconds", "histogram", "seconds"),
        ("chancy_job_total_time_seconds", "histogram", "seconds"),
        ("chancy_job_wait_seconds", "histogram", "seconds"),
        ("chancy_queue_execution_seconds", "histogram", "seconds"),
        ("chancy_queue_total_time_seconds", "histogram", "seconds"),
        ("chancy_queue_wait_seconds", "histogram", "seconds"),
    ]


def test_a_gauge_that_was_not_sampled_lately_is_absent() -> None:
    depth = Series("queue:mail:depth:pending", "gauge", "jobs")
    at_us = some_totals().at_us

    assert by_name(a_total(depth, 7, last_us=at_us - 300_000_000))
    assert not by_name(a_total(depth, 7, last_us=at_us - 300_000_001))
    assert by_name(a_total("app:open", 7, kind="gauge", last_us=at_us - int(RECORDED_S * 1e6)))
    assert not by_name(a_total("app:open", 7, kind="gauge", last_us=at_us - int(RECORDED_S * 1e6) - 1))


def test_a_counter_that_can_fall_is_shown_as_a_gauge() -> None:
    (family,) = families_of(some_totals(a_total("app:balance", 3, minimum=-2.0)))

    assert (family.name, family.kind, family.members[0].value) == ("app_balance", "gauge", 3)


def test_marks_are_one_family_and_can_be_taken_back() -> None:
    found = by_name(a_total("mark:deploy 1.42"), a_total("mark:deploy 1.43", 0, minimum=-1.0))

    assert {name: (one.kind, values(one)) for name, one in found.items()} == {
        "chancy_marks": ("gauge", {"mark=deploy 1.42": 1, "mark=deploy 1.43": 0})
    }


def test_custom_metrics_keep_their_words() -> None:
    held: list[tuple[str, Kind, str, str]] = [
        ("orders:placed", "counter", "count", "orders_placed"),
        ("orders:total", "counter", "count", "orders"),
        ("orders:total", "histogram", "euro", "orders_total_euro"),
        ("orders:took", "histogram", "seconds", "orders_took_seconds"),
        ("orders:took_seconds", "gauge", "seconds", "orders_took_seconds"),
        ("orders:count", "gauge", "number", "orders_count_value"),
        ("a-b/c d", "gauge", "number", "a_b_c_d"),
        ("3d:prints", "counter", "count", "custom_3d_prints"),
        ("chancy:jobs", "counter", "count", "custom_chancy_jobs"),
        ("up", "gauge", "number", "custom_up"),
        ("ключ", "gauge", "number", "custom"),
        ('say "no"\n', "gauge", "€", "say_no"),
        ("size", "gauge", "MB/s", "size_mb_s"),
    ]

    for key, kind, unit, name in held:
        series = Series(key, kind, unit)
        assert custom_names([(series, kind)])[series].family == name, key


def test_two_of_one_name_are_told_apart() -> None:
    found = by_name(
        a_total("app:n", 1, kind="gauge"),
        a_total("app/n", 2, kind="gauge"),
        a_total("app:m", 3, kind="gauge", unit="€"),
        a_total("app:m", 4, kind="gauge", unit="$"),
        a_total("app:x", 5, kind="gauge"),
        a_total("app:x", 6),
    )

    assert {name: values(one) for name, one in found.items()} == {
        "app_n": {"key=app:n": 1, "key=app/n": 2},
        "app_m": {"key=app:m,unit=€": 3, "key=app:m,unit=$": 4},
        "app_x_value": {"": 5},
        "app_x_counted": {"": 6},
    }


_texts = st.text(st.sampled_from('ab_:-/ é0\n"'), min_size=1, max_size=6)
_words = st.sampled_from(["a", "a:total", "a:bucket", "a_count", "total", "value", "a:value", "a:counted:seconds"])
_series = st.builds(
    Series,
    _texts | _words,
    st.sampled_from(KINDS),
    st.sampled_from(["count", "number", "seconds", "total", "value", "é"]),
)


@given(st.sets(_series, max_size=12))
def test_names_are_legal_and_no_two_series_share_one(held: set[Series]) -> None:
    names = custom_names((one, one.kind) for one in held)

    assert all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name.family) for name in names.values())
    assert all(not name.family.endswith(ENDINGS) for name in names.values())
    assert all(name.family.endswith(f"_{name.unit}") for name in names.values() if name.unit)
    assert len({(name.family, name.labels) for name in names.values()}) == len(held)
    assert len({(name.family, one.kind, name.unit) for one, name in names.items()}) == len(
        {name.family for name in names.values()}
    )


def test_totals_of_the_future_count_as_sampled_now() -> None:
    assert by_name(a_total("app:open", 7, kind="gauge", last_us=NOON_US * 2))


def test_every_series_of_the_plugin_has_a_family_of_its_own() -> None:
    own = [
        *job_series("app.work", "default", "succeeded"),
        *table_sizes("jobs"),
        *queue_depths("default"),
        *(oldest_wait("default"), WORKERS_ACTIVE, SLOTS, SLOTS_USED, DRIFT),
    ]
    found = by_name(*(a_total(one) for one in own))

    assert [name for name in found if not name.startswith("chancy_")] == []
    assert len({(name, one.labels) for name, family in found.items() for one in family.members if one.total}) == len(
        own
    )


def test_the_document_names_every_family() -> None:
    text = (ROOT / "docs" / "prometheus.md").read_text()
    own = [one.name for one in (*families._OWN.values(), families._MARKS)]
    health = re.findall(r'"(chancy_\w+)"', Path(pipeline.__file__).read_text())

    assert len(health) > 10
    assert [name for name in own + health if not re.search(rf"`{name}(_total)?`", text)] == []
