"""The fold equals plain Python over fractions and dicts, in any order, in any batching, at every resolution."""

from __future__ import annotations

import decimal
import uuid
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chancy_metrics.events import codec
from chancy_metrics.events.batch import LogBatch, ObservationRun
from chancy_metrics.events.facts import Combo, JobRow, Series
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.projections.fold import new_cells
from chancy_metrics.projections.fold.cells import Cells, concatenate, merge
from chancy_metrics.projections.fold.fold import Fold, fold
from chancy_metrics.projections.fold.levels import coarsen_expired, derive_points, projection_of
from chancy_metrics.projections.fold.sketch import codes, starts_of
from chancy_metrics.projections.rules.contributions import fed
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.search.columns import Matches
from chancy_metrics.projections.search.event import to_events

SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
T = 1_773_144_000 * SECOND  # 2026-03-10 12:00:00 UTC
LONGEST = 2**52
LONG_NAME = "module." + "é" * 600
EXECUTION, WAIT, TOTAL = "execution_time", "wait_time", "total_time"


class Source(NamedTuple):
    """A batch before its encoding."""

    position: int
    worker: str
    appended_us: int
    jobs: Sequence[JobRow] = ()
    observations: Sequence[ObservationRun] = ()
    counts: dict[str, int] = {}  # noqa: RUF012


class Point(NamedTuple):
    """A row of a rollup in plain Python."""

    count: int
    sum: Fraction
    minimum: float
    maximum: float
    last_us: int
    latest: tuple[float, int, int] | None  # a gauge's value, position and index
    sketch: dict[int, int]


Points = dict[tuple[str, str | None, Series, int], Point]  # (resolution, worker or None for all, series, bucket)


def job(
    at_us: int = T,
    func: str = "app.send",
    queue: str = "default",
    state: str = "succeeded",
    started_us: int | None = T - 2 * SECOND,
    completed_us: int | None = T,
    created_us: int = T - 5 * SECOND,
    scheduled_us: int = T - 5 * SECOND,
    attempt: int = 1,
) -> JobRow:
    combo = Combo(func, queue, state, attempt, "")
    return JobRow(bytes(16), combo, at_us, created_us, scheduled_us, started_us, completed_us, b"")


def run(*values: float, key: str = "app:size", kind: str = "histogram", unit: str = "MB", at_us: int = T):  # type: ignore[no-untyped-def]
    return ObservationRun(Series(key, kind, unit), [at_us] * len(values), array("d", values))  # type: ignore[arg-type]


def source(*events: JobRow | ObservationRun, position: int = 1, worker: str = "w1", appended_us: int = T) -> Source:
    jobs = [event for event in events if isinstance(event, JobRow)]
    return Source(position, worker, appended_us, jobs, [event for event in events if isinstance(event, ObservationRun)])


def log_batch(batch: Source) -> LogBatch:
    made = codec.encode(batch.jobs, batch.observations, batch.counts)
    return LogBatch(
        position=batch.position,
        producer=uuid.UUID(int=7),
        sequence=batch.position,
        worker=batch.worker,
        appended_us=batch.appended_us,
        events=made.events,
        codec=made.codec,
        payload=made.payload,
        sha256=made.sha256,
    )


def folded(*batches: Source) -> Fold:
    return fold([log_batch(batch) for batch in batches])


def key_of(stem: str, ending: str) -> str:
    key = stem + ending
    if len(key.encode()) <= 1_024:
        return key
    tail = f"~{sha256(key.encode()).hexdigest()[:16]}:{ending}"
    while len((stem + tail).encode()) > 1_024:
        stem = stem[:-1]
    return stem + tail


def took_us(row: JobRow, appended_us: int) -> dict[str, int]:
    """How long an update ran, waited and took, so far as it has these times: by the append at the latest."""
    times = {}
    due_us = max(row.created_us, row.scheduled_us)
    if row.started_us is not None and row.completed_us is not None:
        times[EXECUTION] = min(row.completed_us, appended_us) - min(row.started_us, appended_us)
    if row.started_us is not None and row.combo.state != "retrying":
        times[WAIT] = min(row.started_us, appended_us) - due_us
    if row.completed_us is not None and row.combo.state == "succeeded":
        began_us = row.created_us if row.combo.attempt > 1 else due_us
        times[TOTAL] = min(row.completed_us, appended_us) - began_us
    return times


def metrics_of(row: JobRow, appended_us: int) -> list[tuple[Series, Fraction]]:
    func, queue, state = row.combo[:3]
    made = [
        (Series(key_of(f"job:{func}:", state), "counter", "count"), Fraction(1)),
        (Series(key_of("global:status:", state), "counter", "count"), Fraction(1)),
        (Series(key_of(f"queue:{queue}:", "throughput"), "counter", "count"), Fraction(1)),
        (Series(key_of(f"queue:{queue}:", state), "counter", "count"), Fraction(1)),
    ]
    for name, took in took_us(row, appended_us).items():
        seconds = Fraction(min(max(took, 0), LONGEST), SECOND)
        made.append((Series(key_of(f"job:{func}:", name), "histogram", "seconds"), seconds))
        made.append((Series(key_of(f"queue:{queue}:", name), "histogram", "seconds"), seconds))
    if state in ("succeeded", "failed"):
        attempts = Fraction(min(max(row.combo.attempt, 0), 1_000_000))
        made.append((Series(key_of(f"job:{func}:", "attempts"), "histogram", "attempts"), attempts))
    return made


def is_skewed(row: JobRow, appended_us: int) -> bool:
    """Whether the update's clock and the database's contradict each other."""
    own = [row.at_us, *(at for at in (row.started_us, row.completed_us) if at is not None)]
    stamped = [row.created_us, *([] if row.started_us is None else [row.started_us])]
    return (
        max(own) > appended_us + SECOND
        or row.at_us < max(stamped) - SECOND
        or any(took < -SECOND or took > LONGEST for took in took_us(row, appended_us).values())
    )


def skewed_in(batch: Source) -> int:
    observed = [at for seen in batch.observations for at in seen.at_us]
    return sum(is_skewed(row, batch.appended_us) for row in batch.jobs) + sum(
        at > batch.appended_us + SECOND for at in observed
    )


def oracle(batches: Sequence[Source]) -> Points:
    seen: dict[tuple[str, str | None, Series, int], list[tuple[int, int, int, Fraction]]] = {}
    for batch in batches:
        facts = [
            (row.at_us, 0, series, value) for row in batch.jobs for series, value in metrics_of(row, batch.appended_us)
        ]
        index = 0
        for made in batch.observations:
            for at_us, value in zip(made.at_us, made.values, strict=True):
                facts.append((at_us, index, made.series, Fraction(value)))
                index += 1
        for own_us, at_index, series, value in facts:
            at = min(own_us, batch.appended_us)
            for resolution, width in RESOLUTIONS.items():
                for worker in (batch.worker, None):
                    cell = (resolution, worker, series, at // (width * SECOND) * width)
                    seen.setdefault(cell, []).append((at, batch.position, at_index, value))
    points: Points = {}
    for cell, values in seen.items():
        _, worker, series, _ = cell
        floats = [float(value) for *_, value in values]
        at, position, at_index, value = max(values, key=lambda fact: fact[:3])
        points[cell] = Point(
            count=len(values),
            sum=sum((value for *_, value in values), Fraction(0)),
            minimum=min(floats),
            maximum=max(floats),
            last_us=at,
            latest=(float(value), position, at_index) if series.kind == "gauge" else None,
            sketch=dict(sorted(Counter(code_of(value) for value in floats).items()))
            if series.kind == "histogram"
            else {},
        )
    return points


def code_of(value: float) -> int:
    return int(codes(np.array([value]))[0])


def points_of(folded: Fold, horizons: Mapping[str, int] | None = None) -> Points:
    """The points of all workers together and of each, at every resolution."""
    projection = projection_of(folded, horizons)
    return {
        key: point
        for levels in (projection.merged, derive_points(projection.by_worker, horizons))
        for name, cells in levels.items()
        for key, point in level(name, cells, folded).items()
    }


def level(resolution: str, cells: Cells, folded: Fold) -> Points:
    names = [None, *folded.workers]
    starts = starts_of(cells.sketches.owner, cells.rows)
    points: Points = {}
    for row in range(cells.rows):
        span = slice(starts[row], starts[row + 1])
        last = float(cells.last[row])
        last_at = (int(cells.last_position[row]), int(cells.last_index[row]))
        assert last == last or last_at == (0, 0)
        run_codes = cells.sketches.codes[span].tolist()
        assert run_codes == sorted(set(run_codes))
        cell = (resolution, names[cells.worker[row]], folded.series[cells.series[row]], int(cells.bucket[row]))
        assert cell not in points
        points[cell] = Point(
            count=int(cells.observations[row]),
            sum=Fraction(cells.sum_of(row)),
            minimum=float(cells.minimum[row]),
            maximum=float(cells.maximum[row]),
            last_us=int(cells.last_us[row]),
            latest=(last, *last_at) if last == last else None,
            sketch=dict(zip(run_codes, cells.sketches.counts[span].tolist(), strict=True)),
        )
    return points


def merged(folds: Sequence[Fold]) -> Fold:
    """Merge folds as replay and the versions do: renumber workers and series, put together, merge."""
    workers = list(dict.fromkeys(name for part in folds for name in part.workers))
    series = list(dict.fromkeys(key for part in folds for key in part.series))
    together = {}
    for resolution in RESOLUTIONS:
        parts = []
        for part in folds:
            if resolution in part.cells:
                cells = part.cells[resolution]
                worker = np.array([0, *(workers.index(name) + 1 for name in part.workers)])
                number = np.array([series.index(key) for key in part.series])
                parts.append(cells._replace(worker=worker[cells.worker], series=number[cells.series]))
        if parts:
            together[resolution] = merge(concatenate(parts))
    counts = sum((part.counts for part in folds), Counter[str]())
    return Fold(sum(part.events for part in folds), workers, series, together, counts, {})


NEAR = st.integers(-90 * SECOND, 90 * SECOND)
FAR = st.sampled_from([-40 * DAY, -DAY, -301 * SECOND, 2 * SECOND, DAY, -T - DAY])
INSTANT = st.builds(lambda offset: T + offset, NEAR | NEAR | FAR)
DURATION = st.integers(-SECOND, 100 * SECOND) | st.sampled_from([0, 1, -1, LONGEST, LONGEST + 1, -DAY, 400 * DAY])
JOB = st.builds(
    lambda at, func, queue, state, ran, waited, early, started, completed, ahead, attempt: job(
        at_us=at + ahead,
        func=func,
        queue=queue,
        state=state,
        started_us=at - ran if started else None,
        completed_us=at + ahead if completed else None,
        scheduled_us=at - ran - waited,
        created_us=at - ran - waited - early,
        attempt=attempt,
    ),
    INSTANT,
    st.sampled_from(["app.send", "app.tidy", LONG_NAME, LONG_NAME + "x", ""]),
    st.sampled_from(["default", "mail"]),
    st.sampled_from(["succeeded", "failed", "retrying", "expired", "état nouveau", "throughput", "execution_time"]),
    DURATION,
    DURATION,
    st.integers(-SECOND, SECOND),
    st.booleans() | st.just(True),
    st.booleans() | st.just(True),
    st.just(0) | st.sampled_from([1, SECOND, SECOND + 1, 8 * HOUR, 7_973 * 366 * DAY, -8 * HOUR, -DAY]),
    st.just(1) | st.sampled_from([2, 3, 25, 0, -1, 1_000_000, 1_000_001, -(2**63), 2**63 - 1]),
)
VALUE = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, -0.0, 0.1, 1.0, -1.0, 1e308, -1e308, 5e-324, 2.0**70]
)
RUN = st.builds(
    lambda key, kind, unit, pairs: ObservationRun(
        Series(key, kind, unit), [at for at, _ in pairs], array("d", [value for _, value in pairs])
    ),
    st.sampled_from(["app:size", "app:slots", "job:app.send:succeeded"]),
    st.sampled_from(["counter", "gauge", "histogram"]),
    st.sampled_from(["count", "MB"]),
    st.lists(st.tuples(INSTANT | st.just(T), VALUE), min_size=1, max_size=5),
)
SOURCES = st.lists(
    st.builds(
        Source,
        position=st.just(0),
        worker=st.sampled_from(["w1", "w2", "w3"]),
        appended_us=INSTANT,
        jobs=st.lists(JOB, max_size=6),
        observations=st.lists(RUN, max_size=4),
        counts=st.dictionaries(st.sampled_from(["dropped", "key"]), st.integers(0, 5), max_size=2),
    ),
    min_size=1,
    max_size=5,
).map(lambda batches: [batch._replace(position=number) for number, batch in enumerate(batches, 1)])


@pytest.mark.slow
@settings(deadline=None)
@given(SOURCES, st.randoms(use_true_random=False), st.sampled_from([0, new_cells._MANY_VALUES]))
def test_a_fold_of_any_order_of_batches_equals_the_oracle(sources: list[Source], random, many: int) -> None:  # type: ignore[no-untyped-def]
    shuffled = random.sample(sources, len(sources))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(new_cells, "_MANY_VALUES", many)
        result = folded(*shuffled)

    expected = Counter({"skewed": sum(map(skewed_in, sources))})
    for batch in sources:
        expected.update(batch.counts)
    assert points_of(result) == oracle(sources)
    assert result.counts == expected
    assert result.events == sum(len(b.jobs) + sum(len(r.values) for r in b.observations) for b in sources)
    assert set(result.series) == {series for _, _, series, _ in points_of(result)}
    assert set(result.workers) == {worker for _, worker, _, _ in points_of(result)} - {None}


@settings(deadline=None)
@given(SOURCES, st.lists(st.integers(0, 2), min_size=5, max_size=5), st.randoms(use_true_random=False))
def test_merged_folds_of_chunks_in_any_order_equal_the_fold_of_all(sources, piece_of, random) -> None:  # type: ignore[no-untyped-def]
    chunks = [
        [batch for batch, chunk in zip(sources, piece_of, strict=False) if chunk == number] for number in range(3)
    ]
    random.shuffle(chunks)

    result = merged([folded(*chunk) for chunk in chunks])

    whole = folded(*sources)
    assert points_of(result) == points_of(whole) == oracle(sources)
    assert result.counts == whole.counts
    assert result.events == whole.events


#: Horizons somewhere around the events, of each resolution on its own.
HORIZONS = st.fixed_dictionaries(
    {
        name: st.sampled_from([-40 * DAY, -DAY, -HOUR, -301 * SECOND, -60 * SECOND, 0, 120 * SECOND, DAY]).map(
            lambda offset, width=width: (T + offset) // (width * SECOND) * width
        )
        for name, width in RESOLUTIONS.items()
    }
)


@settings(deadline=None)
@given(SOURCES, HORIZONS)
def test_a_fold_above_horizons_has_every_point_that_is_kept_and_no_other(
    sources: list[Source], horizons: dict[str, int]
) -> None:
    result = fold([log_batch(batch) for batch in sources], horizons=horizons)

    kept = {key: point for key, point in oracle(sources).items() if key[3] >= horizons[key[0]]}
    assert points_of(result, horizons) == kept
    assert result.counts == folded(*sources).counts
    assert result.days == folded(*sources).days


@settings(deadline=None)
@given(SOURCES, HORIZONS)
def test_each_observation_is_in_one_cell_at_the_finest_resolution_that_is_kept(
    sources: list[Source], horizons: dict[str, int]
) -> None:
    finest = coarsen_expired(folded(*sources).cells, horizons)

    result = fold([log_batch(batch) for batch in sources], horizons=horizons)

    assert {name: level(name, cells, result) for name, cells in result.cells.items()} == {
        name: level(name, cells, folded(*sources)) for name, cells in finest.items()
    }


@settings(deadline=None, max_examples=50)
@given(SOURCES)
def test_events_are_explained_with_the_durations_that_were_folded(sources: list[Source]) -> None:
    for batch in sources:
        made = log_batch(batch)
        decoded = codec.decode(made.codec, made.payload, made.sha256, made.events)
        jobs = [*enumerate(batch.jobs)]
        events = to_events([Matches(made, decoded, np.arange(len(jobs)))]) if jobs else []
        for (index, row), event in zip(jobs, events, strict=True):
            values = dict(metrics_of(row, batch.appended_us))
            for series, value in values.items():
                found = fed(decoded, series, BUILT_IN, made.appended_us)
                assert found.values[found.indexes.tolist().index(index)] == float(value)
            times = {
                series.key.rsplit(":", 1)[1]: float(value)
                for series, value in values.items()
                if series.unit == "seconds"
            }
            assert (event.run_s, event.wait_s) == (times.get(EXECUTION), times.get(WAIT))


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(SOURCES)
def test_the_fold_of_one_series_has_the_points_it_has_among_others(sources: list[Source]) -> None:
    batches = [log_batch(batch) for batch in sources]
    whole = points_of(fold(batches))
    for series in {cell[2] for cell in whole}:
        alone = points_of(fold(batches, only=series))
        assert all(alone[cell] == whole[cell] for cell in whole if cell[2] == series)


@settings(deadline=None)
@given(SOURCES)
def test_rows_are_in_the_order_of_worker_series_and_bucket(sources: list[Source]) -> None:
    for cells in folded(*sources).cells.values():
        rows = list(zip(cells.worker.tolist(), cells.series.tolist(), cells.bucket.tolist(), strict=True))
        assert rows == sorted(set(rows))


def test_no_batches_make_no_points() -> None:
    assert fold([]) == Fold(0, [], [], {}, Counter(), {})


def test_an_empty_batch_adds_only_its_counts() -> None:
    result = folded(Source(1, "w1", T, counts={"dropped": 3}))

    assert result == Fold(0, [], [], {}, Counter(dropped=3), {})


def test_an_event_ahead_of_its_append_counts_at_its_append_and_as_skewed() -> None:
    result = folded(source(job(at_us=T + DAY), run(1.0, at_us=T + SECOND + 1), run(1.0, at_us=T + SECOND)))

    assert result.counts["skewed"] == 2
    assert {point.last_us for point in points_of(result).values()} == {T}


def test_a_late_event_lands_in_its_own_bucket() -> None:
    points = points_of(folded(source(run(1.0, at_us=T - 3 * DAY)), source(run(2.0), position=2)))

    series = Series("app:size", "histogram", "MB")
    assert points["1day", None, series, (T - 3 * DAY) // DAY * 86_400].count == 1
    assert points["1min", None, series, T // SECOND].count == 1


@pytest.mark.parametrize("ahead_us", [8 * HOUR, 7_973 * 366 * DAY])
def test_a_worker_whose_clock_is_ahead_makes_no_durations(ahead_us: int) -> None:
    result = folded(source(job(at_us=T + ahead_us, started_us=T - 1, completed_us=T + ahead_us)))

    [(_, ran)] = {
        (s.key, p.sum) for (_, _, s, _), p in points_of(result).items() if s.key == "job:app.send:" + EXECUTION
    }
    assert ran == Fraction(1, SECOND)
    assert result.counts["skewed"] == 1


LATE = 10 * SECOND


@pytest.mark.parametrize(
    ("skewed", "times"),
    [
        (0, {}),
        (0, {"at_us": T + LATE + SECOND, "completed_us": T + LATE + SECOND}),
        (1, {"at_us": T + LATE + SECOND + 1, "completed_us": T + LATE + SECOND + 1}),
        (1, {"at_us": T + LATE + SECOND + 1, "completed_us": None, "state": "retrying"}),
        (0, {"scheduled_us": T + DAY, "completed_us": None, "state": "retrying"}),  # due again tomorrow
        (1, {"started_us": T + LATE + SECOND + 1}),
        (0, {"started_us": T + SECOND, "created_us": T - 2 * SECOND}),
        (1, {"started_us": T + SECOND + 1, "created_us": T - 2 * SECOND}),  # its worker's clock is behind
        (1, {"started_us": T + SECOND + 1, "completed_us": None, "state": "retrying"}),
        (0, {"started_us": None, "created_us": T + SECOND}),
        (1, {"started_us": None, "created_us": T + SECOND + 1}),
        (0, {"scheduled_us": T - SECOND}),
        (1, {"scheduled_us": T - SECOND + 1}),
        (0, {"started_us": T - LONGEST, "created_us": T - LONGEST, "scheduled_us": T - LONGEST}),
        (1, {"started_us": T - LONGEST - 1, "created_us": T - LONGEST, "scheduled_us": T - LONGEST - 1}),
        (1, {"at_us": T + DAY, "completed_us": T + DAY, "started_us": T + 2 * DAY, "created_us": T + 3 * DAY}),
    ],
)
def test_an_update_whose_times_contradict_the_database_s_by_more_than_a_second_counts_once(
    skewed: int, times: dict[str, Any]
) -> None:
    update = source(job(**times), appended_us=T + LATE)

    assert folded(update).counts["skewed"] == skewed_in(update) == skewed


@pytest.mark.parametrize("ahead_us", [1, SECOND, SECOND + 1])
def test_a_negative_duration_counts_as_zero(ahead_us: int) -> None:
    result = folded(source(job(started_us=T + ahead_us, created_us=T + 2 * ahead_us, scheduled_us=T)))

    times = [point for (_, _, series, _), point in points_of(result).items() if series.unit == "seconds"]
    assert {(point.count, point.sum, point.minimum, point.maximum) for point in times} == {(1, 0, 0.0, 0.0)}


def test_a_retrying_update_has_an_execution_time_and_no_other_histogram() -> None:
    names = {series.key for series in folded(source(job(state="retrying"))).series if series.kind == "histogram"}

    assert names == {"job:app.send:execution_time", "queue:default:execution_time"}


@pytest.mark.parametrize(
    ("started", "completed", "expected"),
    [
        (True, True, {EXECUTION, WAIT, TOTAL}),
        (True, False, {WAIT}),
        (False, True, {TOTAL}),
        (False, False, set()),
    ],
)
def test_times_exist_only_where_both_their_ends_do(started: bool, completed: bool, expected: set[str]) -> None:
    result = folded(source(job(started_us=T - 1 if started else None, completed_us=T if completed else None)))

    assert {series.key.split(":")[-1] for series in result.series if series.unit == "seconds"} == expected


def sums_of(result: Fold) -> dict[str, Fraction]:
    """The sums of all workers over a day, by key without the function."""
    return {
        series.key.removeprefix("job:app.send:"): point.sum
        for (name, who, series, _), point in points_of(result).items()
        if (name, who) == ("1day", None) and series.key.startswith("job:")
    }


def test_a_job_that_succeeds_at_once_takes_from_when_it_was_due() -> None:
    due = {"created_us": T - 60 * SECOND, "scheduled_us": T - 9 * SECOND}

    sums = sums_of(folded(source(job(**due))))

    assert (sums[TOTAL], sums[EXECUTION], sums[WAIT], sums["attempts"]) == (9, 2, 7, 1)


def test_a_job_that_was_retried_takes_from_its_creation_over_all_attempts() -> None:
    pushed_us, retries = T - 60 * SECOND, []
    for attempt in (1, 2):
        started_us = T - (40 - 10 * attempt) * SECOND
        retry = job(state="retrying", attempt=attempt, at_us=started_us + SECOND, started_us=started_us)
        # RetryPlugin: the time it was due is the one of the next attempt.
        retries.append(retry._replace(created_us=pushed_us, scheduled_us=started_us + 9 * SECOND, completed_us=None))

    sums = sums_of(folded(source(*retries, job(attempt=3, created_us=pushed_us, scheduled_us=T - 3 * SECOND))))

    assert (sums["retrying"], sums["succeeded"], sums["attempts"], sums[TOTAL]) == (2, 1, 3, 60)


def test_a_job_that_failed_for_good_has_attempts_and_no_total_time() -> None:
    sums = sums_of(folded(source(job(state="failed", attempt=5))))

    assert (sums["failed"], sums["attempts"]) == (1, 5)
    assert TOTAL not in sums


def test_long_names_make_bounded_keys_that_stay_apart() -> None:
    keys = [s.key for s in folded(source(job(func=LONG_NAME), job(func=LONG_NAME + "x"))).series if "module" in s.key]

    assert len(set(keys)) == len(keys) == 10
    assert all(len(key.encode()) <= 1_024 for key in keys)
    assert {key.rsplit(":", 1)[1] for key in keys} == {"succeeded", EXECUTION, WAIT, TOTAL, "attempts"}


def test_one_key_with_two_kinds_and_units_makes_a_series_of_each() -> None:
    result = folded(source(run(1.0), run(2.0, kind="gauge"), run(3.0, unit="GB"), run(4.0, kind="counter")))

    sums = {
        series: point.sum
        for (name, who, series, _), point in points_of(result).items()
        if (name, who) == ("1min", None)
    }
    assert sorted(sums.values()) == [1, 2, 3, 4]
    assert {series.key for series in sums} == {"app:size"}


def test_the_latest_gauge_is_the_greatest_of_time_then_position_then_index() -> None:
    def gauge(*values: float, at_us: int = T) -> ObservationRun:
        return run(*values, key="app:slots", kind="gauge", at_us=at_us)

    batches = [
        source(gauge(9.0, at_us=T - 1), position=9),
        source(gauge(5.0, 6.0), gauge(4.0), position=3, worker="w2"),
        source(gauge(8.0), position=2, worker="w3"),
    ]

    points = points_of(folded(*batches))
    of_one_worker = points_of(folded(*(batch._replace(worker="w1") for batch in batches)))

    series = Series("app:slots", "gauge", "MB")
    assert of_one_worker["1min", "w1", series, T // SECOND].latest == (4.0, 3, 2)
    assert points["1min", None, series, T // SECOND].latest == (4.0, 3, 2)
    assert points["1day", "w1", series, T // DAY * 86_400].latest == (9.0, 9, 0)


@pytest.mark.parametrize("values", [(0.0, -0.0), (-0.0, 0.0), (-0.0,)])
@pytest.mark.parametrize("kind", ["gauge", "histogram", "counter"])
def test_minus_zero_is_zero(values: tuple[float, ...], kind: str) -> None:
    for cells in folded(source(run(*values, kind=kind))).cells.values():
        for column in (cells.minimum, cells.maximum, cells.last):
            assert not np.signbit(column[~np.isnan(column)]).any()


@pytest.mark.parametrize("values", [[0.1] * 10, [1e308, 1e308], [5e-324, 1e308, -1e308]])
def test_sums_of_observations_are_exact(values: list[float]) -> None:
    result = folded(source(run(*values)))

    assert {point.sum for point in points_of(result).values()} == {sum(map(Fraction, values))}


@pytest.mark.slow
def test_sums_past_64_bits_of_microseconds_are_exact() -> None:
    started = [T - LONGEST - number for number in range(-1_500, 1_500)]
    jobs = [job(started_us=at, created_us=at, scheduled_us=at) for at in started]
    batches = [source(*jobs), source(*jobs, position=2)]

    whole, chunks = folded(*batches), merged([folded(batch) for batch in batches])

    assert points_of(whole) == points_of(chunks) == oracle(batches)
    assert whole.counts == chunks.counts == {"skewed": 2 * 1_499}


@pytest.mark.slow
def test_sums_that_fit_64_bits_apart_and_not_together_are_exact() -> None:
    batches = [source(*[job(started_us=T - LONGEST)] * 1_900, position=number) for number in (1, 2, 3)]

    assert points_of(merged([folded(batch) for batch in batches])) == oracle(batches)


def test_the_host_s_decimal_context_changes_no_sum() -> None:
    batches = [source(*[job(started_us=T - LONGEST - 1)] * 2_500, run(0.1, 1e15)), source(run(0.7), position=2)]

    with decimal.localcontext(prec=3):
        result = points_of(merged([folded(batch) for batch in batches]))

    assert result == oracle(batches)


def test_events_before_1970_keep_their_time() -> None:
    batches = [source(job(at_us=-90 * SECOND), run(1.0, at_us=-1))]

    assert points_of(folded(*batches)) == oracle(batches)


def test_a_batch_that_can_t_be_decoded_is_dead_and_adds_nothing() -> None:
    good, bad, newer = (log_batch(source(job(), run(1.0), position=number)) for number in (1, 2, 3))
    bad = bad._replace(payload=bad.payload[:-1] + b"!")

    result = fold([bad, good, newer._replace(codec=99)])

    assert result.dead.keys() == {2, 3}
    assert "sha256" in result.dead[2]
    assert "99" in result.dead[3]
    assert points_of(result) == points_of(fold([good]))
    assert (result.events, result.counts) == (2, Counter())
