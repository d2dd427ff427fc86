"""A baseline's merged points are the sum of its workers' segments, or the export that holds it is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from uuid import UUID

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chancy_metrics.events.batch import LogBatch
from chancy_metrics.events.codec import encode
from chancy_metrics.events.facts import Series
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.events.transfer.frames import Point, Points, Segments
from chancy_metrics.projections.fold.cells import Cells, select
from chancy_metrics.projections.fold.fold import Fold, fold
from chancy_metrics.projections.fold.levels import coarsen_expired, derive_points, merge_workers
from chancy_metrics.projections.fold.points import to_points
from chancy_metrics.projections.fold.sketch_codec import encode as sketch_of
from chancy_metrics.projections.versions import baseline_sums, segments_io
from chancy_metrics.projections.versions.baseline_io import check_points
from chancy_metrics.projections.versions.baseline_sums import BaselineSums
from chancy_metrics.projections.versions.segments_io import _framed, decode_segments
from tests.factories import NOON_US, a_row, a_run

SECOND = 1_000_000
#: Each resolution keeps a part of the two hours in which the events are.
HORIZONS = {
    "1min": NOON_US // SECOND - 600,
    "5min": NOON_US // SECOND - 1_500,
    "1hour": NOON_US // SECOND - 3_600,
    "1day": 0,
}
ALL = dict.fromkeys(RESOLUTIONS, 0)

_times = st.integers(0, 119).map(lambda minutes: NOON_US - minutes * 60 * SECOND)
_runs = st.builds(
    lambda key, values, at_us: a_run(f"app:{key[0]}", values, kind=key[1], at_us=at_us),  # type: ignore[arg-type]
    st.sampled_from([("n", "counter"), ("level", "gauge"), ("size", "histogram"), ("n", "histogram")]),
    st.lists(st.sampled_from([0.0, 1.0, -2.5, 0.1, 1e300, 5e-324]), min_size=1, max_size=4),
    _times,
)
_batches = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]), st.lists(_runs, max_size=4), st.lists(st.builds(a_row, _times), max_size=2)
    ),
    min_size=1,
    max_size=6,
)


def folded(batches: Sequence[tuple[str, Sequence[object], Sequence[object]]], horizons: Mapping[str, int]) -> Fold:
    """What these batches of workers add to a baseline with *horizons*."""
    made = []
    for position, (worker, runs, jobs) in enumerate(batches, start=1):
        one = encode(jobs, runs)  # type: ignore[arg-type]
        made.append(
            LogBatch(position, UUID(int=1), position, worker, NOON_US, one.events, one.codec, one.payload, one.sha256)
        )
    both = fold(made, horizons=horizons)
    return both._replace(cells=coarsen_expired(both.cells, horizons))


def points_of(both: Fold, horizons: Mapping[str, int]) -> list[Points]:
    """The merged points of a fold as frames."""
    frames = []
    for resolution, cells in derive_points(merge_workers(both.cells), horizons).items():
        points = [
            Point(
                *one.series,
                *(one.bucket, one.observations, one.last_us, f"{one.sum:f}", one.minimum, one.maximum, one.last),
                *(one.last_at or (None, None)),
                *(None, None, None, one.sketch or None),
            )
            for one in to_points(resolution, cells, [None], both.series)
        ]
        frames.append(Points(resolution, points))  # type: ignore[arg-type]
    return frames


DAY = date(2026, 3, 10)


def segments_of(both: Fold, horizons: Mapping[str, int] = ALL) -> list[Segments]:
    """The workers' cells of a fold as frames."""
    frames = []
    for number, name in sorted(enumerate(both.workers, start=1), key=lambda one: one[1]):
        mine = {resolution: select(cells, cells.worker == number) for resolution, cells in both.cells.items()}
        levels = {resolution: cells._replace(worker=0 * cells.worker) for resolution, cells in mine.items()}
        frames += _framed(name, [DAY], levels, dict(enumerate(both.series)), horizons)
    return frames


def fault(frames: Sequence[Points | Segments], horizons: Mapping[str, int]) -> str | None:
    sums = BaselineSums()
    for frame in frames:
        if isinstance(frame, Points):
            check_points(frame)
            sums.count(frame)
    faults = [sums.fault(frames, horizons, share) for share in range(sums.shares)]
    return next((one for one in faults if one), None)


def cells_of(frames: Sequence[Segments]) -> dict[tuple[str, Series, str, int], str]:
    """Each worker's cells as text, by their names."""
    found = {}
    for frame in frames:
        cells: Cells = decode_segments(frame)
        places = range(len(frame.segments))
        for point in to_points("", cells, [str(place) for place in places], frame.series):
            segment = frame.segments[int(point.worker or 0)]
            key = (segment.worker, point.series, segment.resolution, point.bucket)
            assert key not in found
            found[key] = str(point[4:])
    return found


@settings(deadline=None)
@given(_batches, st.sampled_from([ALL, HORIZONS]), st.integers(1, 3))
def test_what_was_folded_is_its_own_sum_in_however_many_shares_and_frames(
    batches: list[tuple[str, list[object], list[object]]], horizons: dict[str, int], shares: int
) -> None:
    both = folded(batches, horizons)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            baseline_sums, "SHARE_BYTES", max(1, sum(len(f.points) for f in points_of(both, horizons)) * 128 // shares)
        )
        whole = segments_of(both)
        patch.setattr(segments_io, "_MAX_COST", 150)
        cut = segments_of(both)

        assert fault([*points_of(both, horizons), *cut], horizons) is None

    assert cells_of(cut) == cells_of(whole)
    keys = [(one.worker, RESOLUTIONS[one.resolution], one.day, one.part) for f in cut for one in f.segments]
    assert len(set(keys)) == len(keys)


@settings(deadline=None)
@given(_batches, st.sampled_from([ALL, HORIZONS]), st.data())
def test_whatever_is_changed_in_a_point_is_found(
    batches: list[tuple[str, list[object], list[object]]], horizons: dict[str, int], data: st.DataObject
) -> None:
    both = folded(batches, horizons)
    points = points_of(both, horizons)
    assume(points)
    frame = data.draw(st.integers(0, len(points) - 1))
    place = data.draw(st.integers(0, len(points[frame].points) - 1))
    one = points[frame].points[place]
    changes: list[dict[str, object] | None] = [
        None,
        {"count": one.count + 1},
        {"sum": one.sum.partition(".")[0] + ".75"},
    ]
    changes += [{"last_us": one.last_us + 1}, {"min": one.min - abs(one.min) - 1}, {"max": one.max + abs(one.max) + 1}]
    changes += [{"unit": "other"}, {"bucket": one.bucket + 86_400}]
    if one.kind == "gauge":
        changes += [{"last": (one.last or 0) / 2 + 1}, {"last_index": (one.last_index or 0) + 1}]
    if one.sketch is not None:
        changes += [{"sketch": sketch_of([7], [one.count])}, {"sketch": None}]
    change = data.draw(st.sampled_from(changes))
    changed = [] if change is None else [msgspec.structs.replace(one, **change)]
    assume(changed != [one])
    points[frame] = Points(
        points[frame].resolution, points[frame].points[:place] + changed + points[frame].points[place + 1 :]
    )

    found = fault([*points, *segments_of(both)], horizons)

    assert found is not None


def test_segments_without_their_points_are_found_before_they_are_all_added_up() -> None:
    both = folded([("a", [a_run("app:n"), a_run("app:m")], [])], ALL)
    points = [Points(frame.resolution, frame.points[:1]) for frame in points_of(both, ALL)]

    assert fault([*points, *segments_of(both)], ALL) == "its workers have more 1min points than all of them together"
    assert fault(segments_of(both), ALL) == "its workers have more 1min points than all of them together"
    assert "2 of its points" not in str(fault(points_of(both, ALL), ALL))
    assert "8 of its points are not the sum" in str(fault(points_of(both, ALL), ALL))


def test_points_below_the_horizons_are_not_compared() -> None:
    both = folded([("a", [a_run("app:n", at_us=NOON_US - 7_000 * SECOND), a_run("app:n")], [])], ALL)

    assert fault([*points_of(both, HORIZONS), *segments_of(both)], HORIZONS) is None
    assert fault([*points_of(both, ALL), *segments_of(both)], HORIZONS) is None
    assert fault([*points_of(both, HORIZONS), *segments_of(both)], ALL) is not None


def test_frames_depend_neither_on_the_ids_of_names_nor_on_how_cells_were_coarsened() -> None:
    both = folded([("a", [a_run("app:n"), a_run("app:m"), a_run("app:m", kind="gauge")], [a_row()])], ALL)
    ids = dict(enumerate(both.series))
    turned = {100 - number: one for number, one in ids.items()}
    levels = {name: cells._replace(worker=0 * cells.worker) for name, cells in both.cells.items()}
    other = {name: cells._replace(series=100 - cells.series) for name, cells in levels.items()}
    later = dict.fromkeys(RESOLUTIONS, NOON_US // SECOND + 60) | {"1day": 0}

    assert _framed("a", [DAY], levels, ids, ALL) == _framed("a", [DAY], other, turned, ALL)
    coarse = coarsen_expired(levels, later)
    assert _framed("a", [DAY], levels, ids, later) == _framed("a", [DAY], coarse, ids, later) != []
