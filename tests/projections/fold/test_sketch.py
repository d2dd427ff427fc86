"""Codes agree with exact integers at every boundary; sketches merge as a commutative monoid."""

from __future__ import annotations

import math
import random
import sys
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.events.errors import Damaged
from chancy_metrics.projections.fold.sketch import OFFSET, codes, merge_runs, quantile_many, starts_of
from chancy_metrics.projections.fold.sketch_codec import decode, decode_many, decode_sound_sketches, encode, encode_many

FINITE = st.floats(allow_nan=False, allow_infinity=False)
RUNS = st.lists(st.tuples(st.integers(0, 3), st.integers(-165_600, 165_600), st.integers(1, 2**40)), max_size=60)
Runs = tuple[np.ndarray, np.ndarray, np.ndarray]
SUBNORMAL = 2.0**-1022


def in_bucket(value: float, index: int) -> bool:
    """Is base**index < value <= base**(index + 1), where base**64 = 2? By integers: value**64 against 2**index."""
    numerator, denominator = value.as_integer_ratio()
    two_power = denominator.bit_length() - 1
    power = numerator**64

    def exceeds(exponent: int) -> bool:
        exponent += 64 * two_power
        return exponent < 0 or power > 1 << exponent

    return exceeds(index) and not exceeds(index + 1)


def code_of(value: float) -> int:
    return int(codes(np.array([value]))[0])


def boundary(step: int, bits: int) -> int:
    """floor(2**(step / 64) * 2**bits) by bisection, independent of the module's square roots."""
    low, high = 1 << bits, 1 << (bits + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**64 <= 1 << (step + 64 * bits) else (low, middle)
    return low


def runs_of(pairs: list[tuple[int, int, int]]) -> Runs:
    columns = np.array(pairs, dtype=np.int64).reshape(-1, 3)
    return columns[:, 0], columns[:, 1], columns[:, 2]


def joined(*parts: Runs) -> Runs:
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))  # type: ignore[return-value]


def listed(runs: Runs) -> list[list[int]]:
    return [column.tolist() for column in runs]


@pytest.mark.parametrize("exponent", [-1022, -1021, -500, -1, 0, 1, 52, 700, 1023])
def test_codes_change_at_the_first_float_past_each_boundary(exponent: int) -> None:
    for step in range(64):
        mantissa = boundary(step, 52)
        for near in (mantissa - 1, mantissa, mantissa + 1, mantissa + 2):
            value = math.ldexp(near, exponent - 52)

            assert in_bucket(value, code_of(value) - OFFSET), (step, near - mantissa)
        at = math.ldexp(mantissa, exponent - 52)
        assert code_of(math.nextafter(at, math.inf)) == code_of(at) + 1


@pytest.mark.parametrize("exponent", [-1023, -1024, -1030, -1050, -1068, -1073, -1074])
def test_subnormals_have_exact_codes_at_every_boundary(exponent: int) -> None:
    bits = exponent + 1074
    for step in range(64):
        mantissa = boundary(step, bits)
        for near in (mantissa - 1, mantissa, mantissa + 1):
            value = near * 5e-324
            if value > 0:
                assert in_bucket(value, code_of(value) - OFFSET), (step, near - mantissa)


@pytest.mark.parametrize("value", [5e-324, 1e-323, SUBNORMAL, math.nextafter(SUBNORMAL, 0), sys.float_info.max])
def test_the_ends_of_the_range_have_exact_codes(value: float) -> None:
    assert in_bucket(value, code_of(value) - OFFSET)
    assert code_of(value) > 0


@given(st.lists(FINITE, max_size=30))
def test_any_float_is_in_the_bucket_of_its_code(values: list[float]) -> None:
    for value, code in zip(values, codes(np.array(values, dtype=np.float64)).tolist(), strict=True):
        if value == 0:
            assert code == 0
        else:
            assert math.copysign(1, code) == math.copysign(1, value)
            assert in_bucket(abs(value), abs(code) - OFFSET)


@given(st.lists(FINITE, max_size=30))
def test_codes_sort_like_values(values: list[float]) -> None:
    in_order = codes(np.array(sorted(values), dtype=np.float64)).tolist()

    assert in_order == sorted(in_order)


def test_a_code_does_not_depend_on_the_values_around_it() -> None:
    source = np.random.default_rng(5)
    positive = source.lognormal(0, 5, 20_000)
    mixed = positive.copy()
    mixed[::7] *= -1
    mixed[1::7] = 0.0
    mixed[2::7] = 3e-310

    together = codes(mixed)

    assert together.dtype == np.int32
    assert (together[::7] == -codes(positive[::7])).all()
    assert (together[1::7] == 0).all()
    assert (together[2::7] == code_of(3e-310)).all()
    assert (together[3::7] == codes(positive)[3::7]).all()


@given(RUNS)
def test_decoding_gives_back_what_was_encoded(pairs: list[tuple[int, int, int]]) -> None:
    merged = merge_runs(*runs_of([(0, code, count) for _, code, count in pairs]))

    data = encode(merged[1], merged[2])

    assert decode(data) == (merged[1].tolist(), merged[2].tolist())
    assert encode(*decode(data)) == data


@given(RUNS, st.randoms(use_true_random=False))
def test_equal_sketches_have_equal_bytes(pairs: list[tuple[int, int, int]], shuffler: random.Random) -> None:
    shuffled = pairs[:]
    shuffler.shuffle(shuffled)

    one, other = (merge_runs(*runs_of(each)) for each in (pairs, shuffled))

    assert encode_many(starts_of(one[0], 4), *one[1:]) == encode_many(starts_of(other[0], 4), *other[1:])


@given(RUNS)
def test_encoding_many_is_encoding_each(pairs: list[tuple[int, int, int]]) -> None:
    owner, merged, counts = merge_runs(*runs_of(pairs))

    together = encode_many(starts_of(owner, 4), merged, counts)

    assert together == [encode(merged[owner == each], counts[owner == each]) for each in range(4)]


@given(RUNS)
def test_decoding_many_is_decoding_each(pairs: list[tuple[int, int, int]]) -> None:
    owner, merged, counts = merge_runs(*runs_of(pairs))
    sketches = encode_many(starts_of(owner, 4), merged, counts)

    whose, found, how_many = decode_many(sketches)

    assert [(found[whose == each].tolist(), how_many[whose == each].tolist()) for each in range(4)] == [
        decode(data) for data in sketches
    ]


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\xc1", b"\x92\x01", b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff"),
        *map(
            msgspec.msgpack.encode,
            [
                {"a": 1},
                [1],
                [1, 0],
                [1, -1],
                [1, 1, 0, 1],
                [1, 1, -1, 1],
                [2**18, 1],
                [1, 2**63],
                [1, 1, 2**63, 1],
                [1, 1, -(2**63), 1],
            ],
        ),
    ],
)
def test_bytes_that_are_no_sketch_are_refused(data: bytes) -> None:
    with pytest.raises(Damaged, match="no sketch"):
        decode(data)
    with pytest.raises(Damaged, match="number 2 is no sketch"):
        decode_many([encode([1, 2], [3, 4]), encode([], []), data, encode([1], [1])])
    owner, found, counts = decode_sound_sketches([encode([1, 2], [3, 4]), data, encode([5], [6])])
    assert (owner.tolist(), found.tolist(), counts.tolist()) == ([0, 0, 2], [1, 2, 5], [3, 4, 6])


@pytest.mark.parametrize("count, limit", [(10, 30), (100, 200), (10_000, 1_200)])
def test_a_sketch_is_small(count: int, limit: int) -> None:
    values = np.random.default_rng(3).lognormal(0, 1, count)
    found, counts = np.unique(codes(values), return_counts=True)

    assert len(encode(found, counts)) <= limit


@given(
    st.lists(st.lists(FINITE, max_size=40), min_size=1, max_size=4),
    st.sampled_from([(0, 1), (1, 2), (95, 100), (99, 100), (999, 1000), (1, 1)]),
)
def test_a_quantile_is_within_055_percent_of_the_value_of_its_rank(
    sketches: list[list[float]], q: tuple[int, int]
) -> None:
    owner = np.repeat(np.arange(len(sketches)), [len(values) for values in sketches])
    flat = np.array([value for values in sketches for value in values], dtype=np.float64)
    owner, found, counts = merge_runs(owner, codes(flat), np.ones(len(flat), dtype=np.int64))
    least = np.array([min(values, default=0.0) for values in sketches])
    greatest = np.array([max(values, default=0.0) for values in sketches])

    sizes = np.array([len(values) for values in sketches])

    answers = quantile_many(starts_of(owner, len(sketches)), found, counts, q, least, greatest, sizes)

    for values, answer in zip(sketches, answers.tolist(), strict=True):
        if not values:
            assert math.isnan(answer)
            continue
        rank = max(1, math.ceil(Fraction(*q) * len(values)))
        true = sorted(values)[rank - 1]
        assert min(values) <= answer <= max(values)
        assert abs(answer - true) <= max(0.0055 * abs(true), 5e-324)


def test_a_quantile_s_rank_is_exact_for_counts_beyond_what_floats_hold() -> None:
    low, high = code_of(1.0), code_of(100.0)
    half = 2**60
    ends = np.array([1.0]), np.array([100.0])

    def median(first: int, second: int) -> float:
        counts = np.array([first, second])
        both = np.array([first + second])
        return float(quantile_many(np.array([0, 2]), np.array([low, high]), counts, (1, 2), *ends, both)[0])

    assert median(half, half) == pytest.approx(1.0, rel=0.0055)
    assert median(half, half + 2) == pytest.approx(100.0, rel=0.0055)


def test_a_quantile_of_the_largest_floats_is_finite() -> None:
    largest = sys.float_info.max
    starts, counts = np.array([0, 1, 2]), np.array([1, 1])

    answers = quantile_many(
        starts,
        codes(np.array([largest, -largest])),
        counts,
        (1, 2),
        np.array([0, -largest]),
        np.array([largest, 0]),
        counts,
    )

    assert answers.tolist() == pytest.approx([largest, -largest], rel=0.0055)


@given(RUNS, RUNS, RUNS)
def test_merging_is_associative_and_commutative(
    a: list[tuple[int, int, int]], b: list[tuple[int, int, int]], c: list[tuple[int, int, int]]
) -> None:
    x, y, z = runs_of(a), runs_of(b), runs_of(c)

    whole = listed(merge_runs(*joined(x, y, z)))

    assert listed(merge_runs(*joined(merge_runs(*joined(x, y)), z))) == whole
    assert listed(merge_runs(*joined(z, merge_runs(*joined(y, x))))) == whole


@pytest.mark.parametrize("count", [1, 2**40])
@pytest.mark.parametrize("owner", [0, 2**42 - 1])
def test_merging_adds_up_equal_pairs_for_any_owner_and_count(owner: int, count: int) -> None:
    pairs = [(owner, 5, count), (owner, -OFFSET, 1), (owner, 5, 2), (0, 165_535, 3), (owner, -165_535, 4)]
    expected: dict[tuple[int, int], int] = {}
    for each, code, number in pairs:
        expected[each, code] = expected.get((each, code), 0) + number

    merged = merge_runs(*runs_of(pairs))

    assert list(zip(*listed(merged), strict=True)) == [(*key, expected[key]) for key in sorted(expected)]


def test_starts_bracket_each_owner_s_run() -> None:
    assert starts_of(np.array([1, 1, 3]), 5).tolist() == [0, 0, 2, 2, 3, 3]
    assert starts_of(np.array([], dtype=np.int64), 2).tolist() == [0, 0, 0]
