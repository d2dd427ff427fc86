"""What totals become as OTLP: every number of theirs, under names and units that OpenTelemetry knows."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE

from chancy_metrics.events.facts import KINDS, Kind, Series
from chancy_metrics.plugin.telemetry import otlp
from chancy_metrics.plugin.telemetry.families import Family, Member, families_of
from chancy_metrics.plugin.telemetry.otlp import requests_of
from chancy_metrics.plugin.telemetry.otlp_names import kind_of, name_of
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
from tests.otlp_receiver import metrics_of, points_of, resource_of

MAIL, QUEUE = ("code.function.name", "app.mail"), ("messaging.destination.name", "mail")
SYSTEM = ("messaging.system", "chancy")
DAY_US = 86_400_000_000
#: Boundaries of a bucket may round the other way in the test's own logarithm.
CLOSE = 1e-9


def sent(*totals: Total, **options: Any) -> ExportMetricsServiceRequest:
    (request,) = requests_of(families_of(some_totals(*totals)), {"service.name": "chancy"}, NOON_US, **options)
    return ExportMetricsServiceRequest.FromString(request.body)


def the_point(request: ExportMetricsServiceRequest) -> Any:
    (point,) = points_of(request).values()
    return point


def test_a_queues_run_times_are_the_conventions_process_duration() -> None:
    request = sent(a_total("queue:mail:execution_time", kind="histogram", unit="seconds", values=[0.5, 2.0, 2.0]))

    (metric,) = metrics_of(request)
    assert (metric.name, metric.unit) == ("messaging.process.duration", "s")
    assert metric.exponential_histogram.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
    assert {one.key: one.value.string_value for one in the_point(request).attributes} == dict(
        [SYSTEM, QUEUE, ("messaging.operation.name", "process")]
    )


def test_updates_are_whole_monotonic_sums_that_say_since_when_they_count() -> None:
    request = sent(a_total("job:app.mail:failed", 3), a_total("queue:mail:failed", 2))

    job, queue = metrics_of(request)
    assert (job.name, queue.name, job.unit) == ("chancy.job.updates", "chancy.queue.updates", "{update}")
    assert job.sum.is_monotonic and job.sum.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
    points = points_of(request)
    assert points["chancy.job.updates", frozenset([MAIL, ("chancy.job.state", "failed")])].as_int == 3
    point = points["chancy.queue.updates", frozenset([QUEUE, SYSTEM, ("chancy.job.state", "failed")])]
    assert (point.start_time_unix_nano, point.time_unix_nano) == ((NOON_US - DAY_US) * 1_000, NOON_US * 1_000)


def test_a_counter_to_which_less_than_nothing_was_added_is_not_monotonic() -> None:
    (metric,) = metrics_of(sent(a_total("orders:open", 3, minimum=-1.0)))

    assert metric.name == "orders.open" and not metric.sum.is_monotonic
    assert metric.sum.data_points[0].as_double == 3


def test_a_gauge_has_the_time_of_its_observation() -> None:
    point = the_point(sent(a_total("orders:open", 7, kind="gauge", unit="orders", last_us=NOON_US - 5_000_000)))

    assert (point.as_double, point.time_unix_nano) == (7, (NOON_US - 5_000_000) * 1_000)
    assert point.start_time_unix_nano == 0


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=40))
def test_each_value_is_in_the_bucket_that_holds_it(values: list[float]) -> None:
    point = the_point(sent(a_total("size", kind="histogram", values=values)))

    base = 2 ** (2.0**-point.scale)
    assert point.count == len(values) and (point.min, point.max) == (min(values), max(values))
    assert point.sum == math.fsum(values)
    assert point.zero_count == sum(value == 0 for value in values)
    for buckets, side in (
        (point.positive, sorted(value for value in values if value > 0)),
        (point.negative, sorted(-value for value in values if value < 0)),
    ):
        uppers = [
            (buckets.offset + number + 1) for number, count in enumerate(buckets.bucket_counts) for _ in range(count)
        ]
        assert len(uppers) == len(side) and len(buckets.bucket_counts) <= otlp.MAX_BUCKETS
        for upper, value in zip(uppers, side, strict=True):
            at = math.log(value, base)
            assert upper - 1 - CLOSE * abs(at) <= at <= upper + CLOSE * abs(at) + CLOSE


def test_a_wide_histogram_is_sent_coarser() -> None:
    narrow = the_point(sent(a_total("size", kind="histogram", values=[0.001, 1_000.0])))
    wide = the_point(sent(a_total("size", kind="histogram", values=[1e-300, 1e300])))

    assert (narrow.scale, sum(narrow.positive.bucket_counts)) == (6, 2)
    assert wide.scale < 6 and sum(wide.positive.bucket_counts) == 2
    assert len(wide.positive.bucket_counts) <= otlp.MAX_BUCKETS


def test_a_histogram_counts_what_is_in_its_buckets_where_summaries_were_imported() -> None:
    total = a_total("size", kind="histogram", values=[1.0, 2.0])
    total = Total(total.series, 12, 40.0, 0.5, 9.0, None, total.last_us, total.sketch, total.created_us)

    point = the_point(sent(total))

    assert (point.count, point.sum, point.min, point.max) == (2, 40.0, 0.5, 9.0)


def test_points_are_cut_into_requests_of_bounded_size() -> None:
    totals = some_totals(*(a_total(f"n:{number}", number) for number in range(100)))

    requests = list(requests_of(families_of(totals), {}, NOON_US, max_bytes=1_000))

    decoded = [ExportMetricsServiceRequest.FromString(one.body) for one in requests]
    assert len(requests) > 3 and sum(one.points for one in requests) == 100
    assert len({key for one in decoded for key in points_of(one)}) == 100
    assert all(one.points < 40 for one in requests)


def test_resource_and_scope_are_in_each_request() -> None:
    request = sent(a_total("n", 1))

    assert resource_of(request) == {"service.name": "chancy"}
    assert request.resource_metrics[0].scope_metrics[0].scope.name == "chancy-metrics"


@pytest.mark.parametrize(
    ("unit", "sent_as"),
    [("seconds", "s"), ("bytes", "By"), ("count", "1"), ("euro", "{euro}"), ("a {b} c", "{abc}"), ("€", "1")],
)
def test_units_are_those_of_ucum(unit: str, sent_as: str) -> None:
    (metric,) = metrics_of(sent(a_total(Series("n", "counter", unit), 1)))

    assert metric.unit == sent_as


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("orders:placed", "orders.placed"),
        ("9 lives", "custom.9_lives"),
        ("messaging:process:duration", "custom.messaging.process.duration"),
        ("chancy:job:updates", "custom.chancy.job.updates"),
        ("é", "custom._"),
        ("x" * 300, "x" * 255),
    ],
)
def test_a_custom_key_becomes_a_name_and_stays_an_attribute(key: str, name: str) -> None:
    ((found, attributes),) = points_of(sent(a_total(key, 1)))

    assert (found, attributes) == (name, frozenset([("chancy.key", key)]))


def test_every_series_of_the_plugin_has_a_name_of_its_own() -> None:
    own = [
        *(one for state in ("succeeded", "failed") for one in job_series("app.mail", "mail", state)),
        *(WORKERS_ACTIVE, SLOTS, SLOTS_USED, DRIFT, oldest_wait("mail")),
        *queue_depths("mail"),
        *table_sizes("jobs"),
    ]
    totals = some_totals(*(a_total(one, 1) for one in dict.fromkeys(own)))

    named = [
        (name_of(family, one), kind_of(one)) for family in families_of(totals) for one in family.members if one.total
    ]

    assert len(named) == len(set(own)) == len({(one.name, one.attributes) for one, _ in named})
    assert not [one for one, _ in named if not one.name.startswith(("chancy.", "messaging."))]
    by_name: dict[str, set[tuple[Kind, str]]] = {}
    for one, kind in named:
        by_name.setdefault(one.name, set()).add((kind, one.unit))
    assert [name for name, several in by_name.items() if len(several) > 1] == []


def test_what_is_no_series_is_below_the_plugins_own_name() -> None:
    family = Family("chancy_metrics_lag_seconds", "gauge", "seconds", "", [Member((("part", "a"),), 2.5)])

    (request,) = requests_of([family], {}, NOON_US)

    decoded = ExportMetricsServiceRequest.FromString(request.body)
    (metric,) = metrics_of(decoded)
    assert (metric.name, metric.unit) == ("chancy.metrics.lag", "s")
    assert list(points_of(decoded)) == [("chancy.metrics.lag", frozenset([("chancy.metrics.part", "a")]))]


@given(
    st.dictionaries(
        st.builds(
            Series,
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20),
            st.sampled_from(KINDS),
            st.sampled_from(["count", "seconds", "x"]),
        ),
        st.floats(0, 1e6),
        min_size=1,
        max_size=20,
    )
)
def test_no_two_series_share_name_unit_kind_and_attributes(totals: dict[Series, float]) -> None:
    request = sent(*(a_total(one, value) for one, value in totals.items()))

    found = [
        (
            metric.name,
            metric.unit,
            metric.WhichOneof("data"),
            frozenset((a.key, a.value.string_value) for a in p.attributes),
        )
        for metric in metrics_of(request)
        for p in getattr(metric, metric.WhichOneof("data")).data_points
    ]
    assert len(found) == len(set(found)) == len(totals)
