"""The forms of a scrape's answer: read back by parsers of others, and equal to what was recorded."""

from __future__ import annotations

import math
import subprocess
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as plain_text_to_metric_families

from chancy_metrics.events.facts import KINDS, Kind, Series
from chancy_metrics.plugin.telemetry.exposition import (
    OPENMETRICS,
    PLAIN,
    PROTOBUF,
    accepted_form,
    cut,
    write_part,
)
from chancy_metrics.plugin.telemetry.families import Family, families_of
from chancy_metrics.plugin.telemetry.le_buckets import le_buckets
from chancy_metrics.plugin.telemetry.text_form import openmetrics_text, plain_text
from chancy_metrics.projections.fold.sketch import OFFSET, codes
from chancy_metrics.projections.totals.read import Total
from tests.factories import DAY_US, NOON_US, a_total, some_totals
from tests.plugin.telemetry.client_model import buckets, read_families
from tests.scraping import write_form

#: Accept of Prometheus 2.42, with native histograms switched on, and without.
NATIVE = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
    "application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
CLASSIC = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,*/*;q=0.1"
#: And of Prometheus 3.
NEWER = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,*/*;q=0.2"
)
HELD_KEYS = [
    "app-x/y", "3d:prints", 'say "no"', "two\nlines", "back\\slash", "ключ:鍵:🔑", "a:total", "a:bucket", "a:count",
    "a:sum", "a:created", "a:info", "a", "AbC", "{}", "\x01", "up", "chancy:jobs", "\u2028", "a\rx",
]  # fmt: skip


def held_families() -> list[Family]:
    """One of every kind of every key that a parser may stumble over, and some of the plugin's own."""
    custom = [a_total(key, 2.5, kind=kind, unit=unit) for key in HELD_KEYS for kind in KINDS for unit in ("", "euro")]
    own = [
        a_total('job:a "b"\n\\:failed', 3),
        a_total("job:a:execution_time", kind="histogram", unit="seconds", values=[0.25, 0.5, 1e-9, 1e9]),
        a_total("queue:a:depth:pending", 7, kind="gauge", unit="jobs"),
        a_total("app:delta", kind="histogram", values=[-3.0, 0.0, 3.0]),
    ]
    return families_of(some_totals(*own, *custom))


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (NATIVE, PROTOBUF),
        (CLASSIC, OPENMETRICS),
        (NEWER, OPENMETRICS),
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/html,application/xhtml+xml,*/*;q=0.8", PLAIN),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text; version=2.0.0", PLAIN),
        (
            "application/openmetrics-text; version=2.0.0, application/openmetrics-text; version=1.0.0; q=0.5",
            OPENMETRICS,
        ),
        ("application/openmetrics-text;q=0, text/plain", PLAIN),
        ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", PLAIN),
        ("application/json", PLAIN),
        (";;q=,=;,", PLAIN),
        ("text/plain;q=often, application/openmetrics-text;q=0.1", OPENMETRICS),
    ],
)
def test_the_form_is_the_one_that_the_client_likes_best(accept: str, form: str) -> None:
    assert accepted_form(accept) == form
    assert "2.0.0" not in form


def test_a_strict_parser_reads_all_of_openmetrics() -> None:
    families = held_families()

    read = {one.name: one for one in text_string_to_metric_families(write_form(families, OPENMETRICS).decode())}

    assert {name: (one.type, one.unit) for name, one in read.items()} == {
        one.name: (one.kind, one.unit) for one in families
    }
    assert {s.labels["func"] for s in read["chancy_jobs"].samples} == {'a "b"\n\\'}
    assert {s.value for s in read["chancy_jobs"].samples if s.name.endswith("_created")} == {(NOON_US - DAY_US) / 1e6}


@pytest.mark.parametrize("form", [OPENMETRICS, PLAIN])
def test_the_parts_of_an_answer_are_that_answer(form: str) -> None:
    """However many series a family has, its name and type are said once, and each part is small."""
    updates = [a_total(f"job:f{n}:succeeded", n) for n in range(5_000)]
    times = [a_total(f"job:f{n}:wait_time", kind="histogram", unit="seconds", values=[n]) for n in range(500)]
    families = [*held_families(), *families_of(some_totals(*updates, *times)), *held_families()[:2]]

    parts = list(cut(families))

    assert max(write_part(part, form).count(b"\n") for part in parts) < 2_500
    whole = openmetrics_text(families) if form == OPENMETRICS else plain_text(families)
    assert write_form(families, form) == whole


def test_promtool_finds_nothing_wrong_with_the_plain_text() -> None:
    data = write_form([one for one in held_families() if one.name.islower()], PLAIN)

    done = subprocess.run(["promtool", "check", "metrics"], input=data, capture_output=True)

    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert sum(one.type == "histogram" for one in plain_text_to_metric_families(data.decode())) > 20


def test_the_protobuf_library_reads_the_same_as_the_text_parser() -> None:
    families = held_families()
    read = {one.name: one for one in text_string_to_metric_families(write_form(families, OPENMETRICS).decode())}

    found = list(read_families(write_form(families, PROTOBUF)))

    assert [one.name.removesuffix("_total") for one in found] == [one.name for one in families]
    for family in found:
        text = read[family.name.removesuffix("_total")]
        assert (family.help, family.unit) == (text.documentation, text.unit)
        values = {(s.name, tuple(sorted(s.labels.items()))): s.value for s in text.samples}
        for metric in family.metric:
            labels = tuple(sorted((one.name, one.value) for one in metric.label))
            if text.type == "counter":
                assert values[family.name, labels] == metric.counter.value
            elif text.type == "gauge":
                assert values[family.name, labels] == metric.gauge.value
            else:
                for one in metric.histogram.bucket:
                    le = next(k for k in values if dict(k[1]).get("le") and float(dict(k[1])["le"]) == one.upper_bound
                              and {p for p in k[1] if p[0] != "le"} == set(labels))  # fmt: skip
                    assert values[le] == one.cumulative_count


_floats = st.floats(-(2.0**1018), 2.0**1018)
_powers = st.builds(math.ldexp, st.sampled_from([-1.0, 1.0]), st.integers(-1074, 1018))
_values = st.lists(_floats | _powers | st.floats(-1e4, 1e4) | st.just(0.0), min_size=1, max_size=30)


@given(_values)
def test_native_buckets_are_those_of_the_sketch(values: list[float]) -> None:
    histogram = native(a_total("app:took", kind="histogram", values=values))

    made: dict[int, int] = {}
    for code in codes(np.array(values)).tolist():
        made[code] = made.get(code, 0) + 1
    assert histogram.schema == 6 and histogram.zero_threshold == 0
    assert histogram.zero_count == made.pop(0, 0)
    found = buckets(histogram.positive_span, histogram.positive_delta)
    assert found == {code - OFFSET + 1: count for code, count in made.items() if code > 0}
    found = buckets(histogram.negative_span, histogram.negative_delta)
    assert found == {-code - OFFSET + 1: count for code, count in made.items() if code < 0}
    assert histogram.sample_count == len(values)


def test_an_index_of_a_native_bucket_ends_at_its_power() -> None:
    """Prometheus' bucket of index i holds base**(i - 1) < v <= base**i: 1 has 0, and what is just above it 1."""
    histogram = native(a_total("app:took", kind="histogram", values=[1.0, math.nextafter(1.0, 2), 2.0]))

    assert buckets(histogram.positive_span, histogram.positive_delta) == {0: 1, 1: 1, 64: 1}


@given(_values)
def test_classic_buckets_count_what_is_at_most_their_boundary(values: list[float]) -> None:
    found = le_buckets(a_total("app:took", kind="histogram", values=values))

    boundaries = [boundary for boundary, _ in found]
    assert boundaries == sorted(set(boundaries)) and boundaries[-1] == math.inf and len(boundaries) <= 90
    assert found == [(boundary, sum(value <= boundary for value in values)) for boundary in boundaries]
    assert max(values) <= 0 or max(values) > 2.0**1000 or found[-2][1] == len(values)


def test_boundaries_of_times_are_the_same_for_all() -> None:
    """Also of those that took no time at all: a boundary that comes later would make quantiles wrong for a while."""
    long, short, none = (
        le_buckets(a_total("job:a:wait_time", kind="histogram", unit="seconds", values=[value]))
        for value in (1e6, 1e-6, 0.0)
    )

    assert [one for one, _ in long] == [2.0**n for n in range(-10, 17)] + [math.inf]
    assert [one for one, _ in short] == [one for one, _ in none] == [one for one, _ in long]
    assert [count for _, count in long] == [0] * 27 + [1] and {count for _, count in none} == {1}


def test_a_sum_that_can_fall_is_left_out_of_the_text() -> None:
    text = write_form(families_of(some_totals(a_total("app:x", kind="histogram", values=[-1.0, 2.0]))), OPENMETRICS)

    assert b"_sum" not in text and b'app_x_bucket{le="0.0"} 1' in text


def test_imported_summaries_count_where_no_rate_sees_them() -> None:
    """They have no sketch, and a native histogram must have as many values as its buckets."""
    whole = a_total("app:took", kind="histogram", values=[1.0, 3.0])
    some, none = msgspec.structs.replace(whole, count=5), msgspec.structs.replace(whole, count=5, sketch=None)

    assert le_buckets(some)[-3:] == [(128.0, 2), (256.0, 2), (math.inf, 5)]
    assert le_buckets(none) == [(math.inf, 5)]
    assert (native(some).sample_count, native(none).sample_count) == (2, 0)
    assert native(none).positive_span


def native(total: Total) -> Any:
    (family,) = read_families(write_form(families_of(some_totals(total)), PROTOBUF))
    return family.metric[0].histogram


_any: st.SearchStrategy[Kind] = st.sampled_from(KINDS)


@given(st.lists(st.tuples(st.text(min_size=1), _any, st.text(min_size=1)), max_size=5))
def test_whatever_the_keys_are_a_strict_parser_reads_them(held: list[tuple[str, Kind, str]]) -> None:
    totals = [a_total(one) for one in {Series(*one) for one in held}]

    text = write_form(families_of(some_totals(*totals)), OPENMETRICS).decode()

    assert sum(len(one.samples) > 0 for one in text_string_to_metric_families(text)) <= len(totals)
