"""Which segments are merged: so few times that a cell is rewritten rarely, and so many that a worker has few."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.projections.rollups.tiers import (
    FAN_OUT,
    MOST_BYTES,
    MOST_CELLS,
    TIERS,
    Segment,
    choose,
    choose_whole,
    is_mostly_past,
    tier_of,
)

WIDTHS = list(RESOLUTIONS.values())
NONE_PAST = dict.fromkeys(WIDTHS, 0)


def a_segment(fold: int = 1, cells: int = 1, **changes: int) -> Segment:
    segment = Segment(1, 60, fold, 0, fold * 60, fold * 60 + 60, cells, 30 * cells, "")
    return segment._replace(**changes)


def merged(chosen: Sequence[Segment], resolution: int, cells: int) -> Segment:
    first, end = min(one.first_s for one in chosen), max(one.end_s for one in chosen)
    fold = max(one.fold for one in chosen)
    return a_segment(fold, cells, resolution=resolution, first_s=first // resolution * resolution, end_s=end)


def settled(segments: list[Segment], horizons: Mapping[int, int]) -> tuple[list[Segment], int]:
    """Merge until nothing is chosen; return what is left, and how many cells were rewritten."""
    rewritten = 0
    while chosen := choose(segments, horizons):
        gone = set(chosen)
        segments = [one for one in segments if one not in gone]
        segments.append(merged(chosen, 60, sum(one.cells for one in chosen)))
        rewritten += sum(one.cells for one in chosen)
    return segments, rewritten


@pytest.mark.parametrize(("cells", "folds", "each"), [(1, 4_000, 1), (1, 4_000, 20), (20, 4_000, 1), (500, 800, 1)])
def test_segments_and_rewrites_grow_like_the_logarithm(cells: int, folds: int, each: int) -> None:
    segments: list[Segment] = []
    rewritten = 0
    for fold in range(1, folds + 1):
        segments.append(a_segment(fold, cells))
        if fold % each == 0:
            segments, more = settled(segments, NONE_PAST)
            rewritten += more

            full = sum(one.cells >= TIERS[-1] for one in segments)
            assert len(segments) - full < FAN_OUT * (1 + tier_of(fold * cells))
    assert sum(one.cells for one in segments) == folds * cells
    assert rewritten <= 2 * folds * cells * math.log(folds, FAN_OUT)


def test_segments_of_the_same_bucket_are_merged_into_one_that_does_not_grow() -> None:
    segments: list[Segment] = []
    rewritten = 0
    for fold in range(1, 1_001):
        segments.append(a_segment(fold, 100))
        while chosen := choose(segments, NONE_PAST):
            gone = set(chosen)
            segments = [one for one in segments if one not in gone] + [merged(chosen, 60, 100)]
            rewritten += 100 * len(chosen)

    assert len(segments) < FAN_OUT
    assert rewritten < 1.2 * 100 * 1_000


def test_what_is_mostly_past_is_chosen_with_the_small_ones_its_cells_go_to() -> None:
    past, later = a_segment(1, 5_000), a_segment(9, 5_000)
    small, large = a_segment(1, 100, resolution=300), a_segment(2, 2_000, resolution=300)
    coarsest = a_segment(1, 100, resolution=3_600)

    chosen = choose([past, later, small, large, coarsest], NONE_PAST | {60: past.end_s})

    assert chosen == [past, small]


def test_a_segment_is_mostly_past_once_its_middle_is() -> None:
    segment = a_segment(first_s=600, end_s=1_200)

    assert [is_mostly_past(segment, NONE_PAST | {60: horizon}) for horizon in (900, 901)] == [False, True]


def test_a_day_of_the_baseline_is_rewritten_whole_or_not_at_all() -> None:
    day = [a_segment(-5, 100 * number, part=number, first_s=0, end_s=600) for number in range(1, 20)]

    assert choose_whole(day, NONE_PAST) == []
    assert sorted(choose_whole([*day, a_segment(-5, first_s=0, end_s=60)], NONE_PAST | {60: 60})) == sorted(
        [*day, a_segment(-5, first_s=0, end_s=60)]
    )


segments_of_a_worker = st.lists(
    st.builds(
        a_segment,
        fold=st.integers(1, 100),
        cells=st.sampled_from([1, 63, 64, 5_000, 60_000, 65_536, 250_000]),
        part=st.integers(0, 3),
        resolution=st.sampled_from(WIDTHS),
        size_bytes=st.sampled_from([100, 10_000, 20 << 20]),
    ),
    unique_by=lambda one: (one.resolution, one.fold, one.part),
    max_size=40,
)


@given(segments=segments_of_a_worker, horizon=st.sampled_from([0, 600, 3_000, 10_000]))
def test_a_choice_is_bounded_and_always_changes_something(segments: list[Segment], horizon: int) -> None:
    horizons = dict.fromkeys(WIDTHS, horizon)

    chosen = choose(segments, horizons)

    past = [one for one in segments if is_mostly_past(one, horizons)]
    assert len(set(chosen)) == len(chosen)
    assert not chosen or chosen[0] in past or len(chosen) > len({one.resolution for one in chosen})
    assert bool(chosen) or not past
    assert len(chosen) < 2 or sum(one.cells for one in chosen) <= MOST_CELLS
    assert len(chosen) < 2 or sum(one.size_bytes for one in chosen) <= MOST_BYTES
