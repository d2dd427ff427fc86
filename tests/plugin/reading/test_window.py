"""The two shapes of an answer, and which windows may be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from chancy.plugins.metrics import Metrics as BuiltIn
from freezegun import freeze_time
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.reading.columns import KEPT, Rows, put, rows_of, since, without_before
from chancy_metrics.plugin.reading.history import history
from chancy_metrics.plugin.reading.shown_keys import Names
from chancy_metrics.plugin.reading.window import WindowMetric, check_window, window
from chancy_metrics.projections.rollups.delta_ring import COLUMNS

NOW = datetime(2026, 3, 10, 12, 34, 56, tzinfo=UTC)
MIDNIGHT = datetime(2026, 3, 10, tzinfo=UTC)
LARGEST = 1.7976931348623157e308

COUNTER = Series("app:n", "counter", "count")
GAUGE = Series("app:level", "gauge", "slots")
HISTOGRAM = Series("app:took", "histogram", "seconds")


def some_rows(series: Series, *points: Mapping[str, float], first: datetime = MIDNIGHT, width_s: int = 60) -> Rows:
    """Rows of a series, one bucket after the other; each was last sampled a second after its bucket began."""
    start = int(first.timestamp())
    values = np.full((len(points), len(COLUMNS)), np.nan)
    for row, point in enumerate(points):
        for name, value in ({"last_us": (start + row * width_s + 1) * 1e6} | dict(point)).items():
            values[row, COLUMNS.index(name)] = value
    return rows_of(series.kind, start + width_s * np.arange(len(points)), values)


def a_summary(count: int = 1, total: float = 1.0, least: float = 1.0, most: float = 1.0) -> dict[str, float]:
    return {"count": count, "sum": total, "min": least, "max": most, "p50": least, "p95": most, "p99": most}


def ask(
    *columns: tuple[Series, Rows], start: datetime = MIDNIGHT, end: datetime = MIDNIGHT + timedelta(hours=1)
) -> dict[str, WindowMetric]:
    """The series of a window at the minute's resolution, half an hour past midnight."""
    names = Names({number: series for number, (series, _) in enumerate(columns)})
    rows = {number: {"1min": rows} for number, (_, rows) in enumerate(columns)}
    with freeze_time(MIDNIGHT + timedelta(minutes=30)):
        return window(Metrics().options, names, rows, None, "1min", start, end)["series"]


# -- which windows may be asked for -----------------------------------------------------------------------------------

_moments = st.one_of(
    st.none(),
    st.builds(
        lambda buckets, width, off, zone: (MIDNIGHT + timedelta(seconds=buckets * width + off)).astimezone(zone),
        st.integers(-1_200, 1_200),
        st.sampled_from([60, 300, 3_600, 86_400]),
        st.sampled_from([0, 0, 0, 1, 0.5, 30, 1_800]),
        st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=3))]),
    ),
    st.datetimes(),  # naive
    st.datetimes(timezones=st.just(UTC)),
)
_lengths = st.one_of(
    st.none(),
    st.integers(-2, 2_000),
    st.builds(lambda n, width: n * width, st.integers(-2, 1_500), st.sampled_from([60, 300, 3_600, 86_400])),
    st.integers(),
)


def outcome(call: Any, *arguments: Any, **options: Any) -> Any:
    """What a call gives: its result, or the class and message of what it raises."""
    try:
        return call(*arguments, **options)
    except (ValueError, OverflowError) as error:
        return type(error), str(error)


@settings(deadline=None)
@given(
    resolution=st.sampled_from([*RESOLUTIONS, "2min"]),
    start=_moments,
    end=_moments,
    range_seconds=_lengths,
    limit=_lengths,
    points=st.dictionaries(st.sampled_from(list(RESOLUTIONS)), st.integers(1, 3_000)),
    age_days=st.integers(1, 100),
)
@example("5min", None, None, None, None, {}, 90)
@example("5min", MIDNIGHT, None, 300, None, {}, 90)
@example("1min", None, None, None, 1_000, {"1min": 3_000}, 90)
@example("1min", None, None, None, 1_001, {"1min": 3_000}, 90)
def test_a_window_is_what_the_built_in_makes_of_it_or_has_its_message(
    resolution: Any,
    start: datetime | None,
    end: datetime | None,
    range_seconds: int | None,
    limit: int | None,
    points: dict[Any, int],
    age_days: int,
) -> None:
    settings: dict[str, Any] = {"max_points_per_resolution": points, "maximum_metric_age": age_days * 86_400}
    asked = {"start": start, "end": end, "range_seconds": range_seconds, "limit": limit}
    with freeze_time(NOW):
        theirs = outcome(BuiltIn(**settings).window, resolution, **asked)
        ours = outcome(Metrics(**settings).window, resolution, **asked)

    without_length = start is None and range_seconds is None and limit is None
    if without_length and theirs == (ValueError, "requested window exceeds 1000 buckets"):
        assert (ours[1] - ours[0]).total_seconds() == 1_000 * RESOLUTIONS[resolution]
    elif theirs[0] is OverflowError:
        assert ours == (ValueError, theirs[1])
    else:
        assert ours == theirs


@settings(deadline=None)
@given(points=st.dictionaries(st.sampled_from(list(RESOLUTIONS)), st.integers(1, 100_000)), age_s=st.integers(1, 10**8))
@example({}, 1_000)
@example({"1min": 1_001}, 90 * 86_400)
@freeze_time(NOW)
def test_a_query_without_a_length_never_raises(points: dict[Any, int], age_s: int) -> None:
    metrics = Metrics(max_points_per_resolution=points, maximum_metric_age=age_s)

    for resolution, width in RESOLUTIONS.items():
        start, end = check_window(metrics.options, resolution)
        buckets = (end - start).total_seconds() / width

        assert start <= NOW < end
        assert buckets == int(buckets)
        assert 1 <= buckets <= 1_000
        assert buckets == 1 or (end - start).total_seconds() <= min(86_400, metrics.retention(resolution))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"resolution": "2min", "limit": 0, "start": NOW}, "resolution must be 1min, 5min, 1hour or 1day"),
        ({"limit": 0, "range_seconds": 7}, "limit cannot be combined with start or range"),
        ({"limit": 0, "end": NOW}, "limit exceeds the retained bucket count"),
        ({"limit": 289}, "limit exceeds the retained bucket count"),
        ({"range_seconds": 301, "end": NOW}, "range must be a multiple of resolution within retention"),
        ({"range_seconds": 86_700}, "range must be a multiple of resolution within retention"),
        ({"start": NOW, "range_seconds": 300}, "start cannot be combined with range"),
        ({"start": NOW, "end": MIDNIGHT}, "start and end must be timezone-aware bucket boundaries"),
        ({"start": datetime(2026, 3, 10)}, "start and end must be timezone-aware bucket boundaries"),
        ({"start": MIDNIGHT, "end": MIDNIGHT}, "requested window exceeds retention"),
        ({"start": MIDNIGHT, "end": MIDNIGHT + timedelta(days=2)}, "requested window exceeds retention"),
    ],
)
@freeze_time(NOW)
def test_a_window_breaks_the_rules_in_the_built_ins_order(asked: dict[str, Any], message: str) -> None:
    assert outcome(BuiltIn().window, **asked) == (ValueError, message)
    assert outcome(Metrics().window, **asked) == (ValueError, message)


# -- 0.26's shape -----------------------------------------------------------------------------------------------------


def test_a_window_holds_its_first_bucket_and_not_its_end() -> None:
    rows = some_rows(COUNTER, *[{"sum": float(n)} for n in range(5)])
    minute = timedelta(minutes=1)

    found = ask((COUNTER, rows), start=MIDNIGHT + minute, end=MIDNIGHT + 3 * minute)["app:n"]

    assert [(point.timestamp, point.value) for point in found.data] == [
        (MIDNIGHT + minute, 1.0),
        (MIDNIGHT + 2 * minute, 2.0),
    ]
    assert (found.type, found.unit, found.aggregation, found.summary) == ("counter", "count", "sum", 3.0)
    assert found.sampled_at == MIDNIGHT + timedelta(minutes=2, seconds=1)
    assert all(moment.tzinfo is UTC for point in found.data for moment in (point.timestamp, point.sampled_at))


def test_the_latest_sample_sums_up_a_gauge_and_not_the_latest_bucket() -> None:
    late = MIDNIGHT.timestamp() * 1e6 + 1e9
    rows = some_rows(GAUGE, {"last": 4.0, "last_us": late}, {"last": 9.0})

    found = ask((GAUGE, rows))["app:level"]

    assert (found.aggregation, found.summary) == ("last", 4.0)


def test_histograms_are_merged_and_their_averages_not_averaged() -> None:
    rows = some_rows(HISTOGRAM, a_summary(1, 10.0, 10.0, 10.0), a_summary(9, 9.0, 0.5, 2.0))

    found = ask((HISTOGRAM, rows))["app:took"]

    assert found.summary == {"count": 10, "sum": 19.0, "avg": 1.9, "min": 0.5, "max": 10.0}
    assert found.data[0].value == {
        "count": 1,
        "sum": 10.0,
        "avg": 10.0,
        "min": 10.0,
        "max": 10.0,
        "p50": 10.0,
        "p95": 10.0,
        "p99": 10.0,
    }


def test_totals_are_rounded_once_and_finite() -> None:
    tenths = some_rows(COUNTER, *[{"sum": 0.1}] * 10)
    largest = some_rows(HISTOGRAM, *[a_summary(1, LARGEST, LARGEST, LARGEST)] * 3)

    found = ask((COUNTER, tenths), (HISTOGRAM, largest))

    assert found["app:n"].summary == 1.0
    assert found["app:took"].summary == {
        "count": 3,
        "sum": LARGEST,
        "avg": LARGEST / 3,
        "min": LARGEST,
        "max": LARGEST,
    }


def test_a_window_shows_nothing_older_than_what_is_kept() -> None:
    rows = some_rows(COUNTER, *[{"sum": float(n)} for n in range(60)], first=MIDNIGHT - timedelta(hours=1))

    found = ask((COUNTER, rows), start=MIDNIGHT - timedelta(hours=1), end=MIDNIGHT)["app:n"]

    assert [point.timestamp for point in found.data][:1] == [MIDNIGHT - timedelta(minutes=29)]
    assert len(found.data) == 29


def test_a_known_series_without_a_point_in_the_window_is_there_and_empty() -> None:
    found = ask((COUNTER, some_rows(COUNTER, {"sum": 1.0})), start=MIDNIGHT + timedelta(minutes=5))

    assert found["app:n"].data == []
    assert (found["app:n"].summary, found["app:n"].sampled_at) == (None, None)


def test_more_than_a_hundred_series_are_refused_in_a_window_only() -> None:
    names = Names({number: Series(f"app:{number}", "counter", "count") for number in range(101)})
    options = Metrics().options

    assert len(window(options, Names({n: names[n] for n in range(100)}), {}, "app", "1min", NOW, NOW)["series"]) == 100
    with pytest.raises(ValueError, match="prefix matches more than 100 series; choose a narrower prefix"):
        window(options, names, {}, "app", "1min", NOW, NOW)
    assert history(options, names, {}, None) == {}


# -- 0.24's shape -----------------------------------------------------------------------------------------------------


def test_a_history_is_newest_first_with_utc_datetimes_and_ends_where_retention_does() -> None:
    rows = some_rows(COUNTER, *[{"sum": float(n)} for n in range(90)])
    coarse = some_rows(COUNTER, {"sum": 7.0}, width_s=86_400)
    with freeze_time(MIDNIGHT + timedelta(minutes=89, seconds=30)):
        found = history(Metrics().options, Names({1: COUNTER}), {1: {"1min": rows, "1day": coarse}}, None)
    metric = found["app:n"]

    assert metric.values_1min[0] == (MIDNIGHT + timedelta(minutes=89), 89.0)
    assert metric.values_1min[-1] == (MIDNIGHT + timedelta(minutes=30), 30.0)
    assert len(metric.values_1min) == 60
    assert metric.values == {"1min": metric.values_1min, "5min": [], "1hour": [], "1day": [(MIDNIGHT, 7.0)]}
    assert repr(metric) == "Metric('counter', unit='count', points={'1min': 60, '1day': 1})"


def test_a_series_whose_points_have_all_expired_has_no_history() -> None:
    columns = {1: {"1min": some_rows(COUNTER, {"sum": 1.0})}}
    for after, keys in ((timedelta(minutes=59, seconds=59), ["app:n"]), (timedelta(hours=1), [])):
        with freeze_time(MIDNIGHT + after):
            assert list(history(Metrics().options, Names({1: COUNTER}), columns, None)) == keys


def test_an_answer_does_not_change_when_later_points_arrive() -> None:
    columns: dict[int, dict[str, Rows]] = {1: {"1min": some_rows(COUNTER, {"sum": 1.0})}}
    with freeze_time(MIDNIGHT):
        before = history(Metrics().options, Names({1: COUNTER}), columns, None)["app:n"]

    columns[1]["1min"] = put(columns[1]["1min"], some_rows(COUNTER, {"sum": 5.0}))

    assert before.values_1min == [(MIDNIGHT, 1.0)]


# -- columns ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.dictionaries(st.integers(0, 20), st.integers(0, 9), min_size=1), min_size=1))
def test_columns_hold_the_last_row_put_in_for_each_bucket(puts: list[dict[int, int]]) -> None:
    kept: Rows | None = None
    expected: dict[int, int] = {}
    for points in puts:
        before = None if kept is None else kept.copy()
        rows = np.array([(60 * bucket, 0, value) for bucket, value in points.items()], np.float64)
        changed = put(kept, rows)
        assert kept is None or np.array_equal(kept, before)
        kept, expected = changed, expected | points

    assert kept is not None
    assert [(row[0] / 60, row[2]) for row in kept.tolist()] == sorted(expected.items())
    assert since(kept, 300, 600)[:, 0].tolist() == [60 * bucket for bucket in sorted(expected) if 5 <= bucket < 10]
    assert without_before(kept, 300)[:, 0].tolist() == [60 * bucket for bucket in sorted(expected) if bucket >= 5]


def test_columns_keep_what_their_kind_is_read_for() -> None:
    assert {kind: 1 + len(names) for kind, names in KEPT.items()} == {"counter": 3, "gauge": 3, "histogram": 9}
    assert some_rows(HISTOGRAM, a_summary()).shape == (1, 9)
