"""Runs of cells decode to what was encoded, the same for ever; other bytes give one error, or cells within bounds."""

from __future__ import annotations

import decimal
import tracemalloc
import zlib
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.facts import batches_of, job_rows, log_batches
from chancy_metrics.events.errors import Damaged
from chancy_metrics.events.facts import FIRST_US
from chancy_metrics.events.row_bounds import FAR_US
from chancy_metrics.projections.fold.cell_codec import DEFLATED, MAX_CODES, PLAIN, decode_runs, encode_runs
from chancy_metrics.projections.fold.cells import (
    Cells,
    Ints,
    no_sketches,
    select,
    starts_of_runs,
)
from chancy_metrics.projections.fold.exact_sum import EXACT, canonical, exact_sums
from chancy_metrics.projections.fold.fold import fold
from chancy_metrics.projections.fold.sketch import MAX_CODE, codes
from tests.processes import ROOT
from tests.projections.fold.test_cells import Row, cells_of
from tests.projections.fold.test_exact_sum import FLOATS
from tests.projections.fold.test_fold import job, log_batch, run, source

GOLDEN = ROOT / "tests" / "golden" / "cells_1.bin"
T = 1_773_144_000
LAST_S = FAR_US // 1_000_000 // 60 * 60


def sum_of(values: list[float]) -> Decimal:
    return exact_sums(np.array(values), np.zeros(len(values), np.int64), 1)[0]


BUCKETS = st.integers(-2, 8) | st.integers(FIRST_US // 60_000_000, FAR_US // 60_000_000) | st.just(LAST_S // 60)
KEYS = st.tuples(
    st.integers(1, 3),
    st.integers(0, 3) | st.integers(0, 2**31 - 1) | st.just(2**31 - 1),
    BUCKETS.map(lambda minute: minute * 60),
)
COUNTS = st.integers(1, 5) | st.integers(1, 2**53) | st.just(2**53)
WHOLE = st.integers(-(10**9), 10**9) | st.integers(-(2**53), 2**53)
VALUES = WHOLE.map(lambda micro: micro / 10**6) | FLOATS.map(lambda value: value + 0.0)
MICRO = st.integers(0, 10**9) | st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1])
RESTS = (
    st.lists(FLOATS, min_size=1, max_size=4).map(
        lambda values: exact_sums(np.array(values), np.zeros(len(values), int), 1)[0]
    )
    | st.integers(-(2**64), 2**64).map(lambda micro: canonical(EXACT.scaleb(Decimal(micro), -6)))
    | st.decimals(-(10**20), 10**20, allow_nan=False).map(canonical)
    | st.sampled_from([Decimal("0.1"), Decimal("-1e-300"), canonical(Decimal("1e324")), Decimal(0)])
)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    low, high = sorted((draw(VALUES), draw(VALUES)))
    count = draw(COUNTS)
    shape = draw(st.sampled_from(["sum", "both", "equal", "equal micro", "equal rest"]))
    micro, rest = draw(MICRO), draw(RESTS) if shape == "both" else Decimal(0)
    if shape.startswith("equal"):
        high = low
    if shape == "equal micro":
        whole = draw(WHOLE)
        low = high = whole / 10**6
        micro = whole * count if abs(whole * count) < 2**63 else 0
    if shape == "equal rest" or (shape == "both" and draw(st.booleans())):
        micro = 0
    if shape == "equal rest":
        rest = canonical(EXACT.multiply(Decimal(low), Decimal(count)))
    sketch = draw(st.sampled_from(["none", "one code", "codes"]))
    code = int(codes(np.array([low]))[0])
    found = {code: count} if sketch == "one code" else {}
    if sketch == "codes":
        found = draw(st.dictionaries(st.integers(-MAX_CODE, MAX_CODE), st.integers(1, 2**50), min_size=1, max_size=4))
        count = sum(found.values())
    gauge = st.tuples(st.integers(0, 2**62), st.integers(0, 2**31 - 1), VALUES | st.just(high))
    return Row(
        key=draw(KEYS),
        observations=count,
        micro=micro,
        rest=rest,
        minimum=low,
        maximum=high,
        last_us=draw(st.integers(FIRST_US, FAR_US) | st.integers(T * 10**6, T * 10**6 + 10**8)),
        last=draw(st.none() | gauge),
        sketch=found,
    )


ROWS = st.lists(rows(), min_size=1, max_size=12, unique_by=lambda row: row.key).map(sorted)


def runs_of(cells: Cells) -> tuple[Ints, list[int]]:
    """Where the runs of the workers of *cells* start and end, and the workers."""
    starts = np.append(starts_of_runs(cells.worker), cells.rows)
    return starts, cells.worker[starts[:-1]].tolist()


def assert_same(found: Cells, expected: Cells) -> None:
    for name, column in found.sketches._asdict().items():
        other = getattr(expected.sketches, name)
        assert column.dtype == other.dtype
        assert column.tolist() == other.tolist(), name
    assert {row: str(value) for row, value in found.rest.items()} == {
        row: str(value) for row, value in expected.rest.items()
    }
    for name in found._fields:
        if name not in ("sketches", "rest"):
            column, other = getattr(found, name), getattr(expected, name)
            assert column.dtype == other.dtype
            assert np.array_equal(column, other, equal_nan=column.dtype == np.float64), name


def decoded(*runs: bytes) -> Cells:
    return decode_runs(runs, range(1, len(runs) + 1))


@settings(deadline=None)
@given(ROWS, st.booleans())
def test_runs_decode_to_what_was_encoded(rows: list[Row], compressed: bool) -> None:
    cells = cells_of(rows)
    starts, workers = runs_of(cells)

    runs = encode_runs(cells, starts, compressed=compressed)

    assert len(runs) == len(workers)
    assert_same(decode_runs(runs, workers), cells)


@settings(deadline=None)
@given(ROWS, st.booleans())
def test_a_run_has_the_same_bytes_alone_and_among_others(rows: list[Row], compressed: bool) -> None:
    cells = cells_of(rows)
    starts, workers = runs_of(cells)

    alone = []
    for worker in workers:
        own = select(cells, cells.worker == worker)
        alone += encode_runs(own, np.array([0, own.rows]), compressed=compressed)

    assert alone == encode_runs(cells, starts, compressed=compressed)


@settings(deadline=None)
@given(ROWS)
def test_plain_and_compressed_runs_decode_together(rows: list[Row]) -> None:
    cells = cells_of(rows)
    starts, workers = runs_of(cells)
    plain, deflated = encode_runs(cells, starts), encode_runs(cells, starts, compressed=True)

    mixed = [(plain, deflated)[number % 2][number] for number in range(len(plain))]

    assert_same(decode_runs(mixed, workers), cells)


def test_runs_may_leave_out_rows_before_and_after() -> None:
    cells = cells_of([Row(key=(worker, 1, 60)) for worker in range(5)])

    runs = encode_runs(cells, np.array([1, 2, 3]))

    assert_same(decode_runs(runs, [1, 2]), select(cells, (cells.worker == 1) | (cells.worker == 2)))


def test_no_runs_are_no_cells() -> None:
    assert encode_runs(cells_of([]), np.array([0])) == []
    assert decode_runs([], []).rows == 0


def test_a_rest_of_zero_stays() -> None:
    cells = cells_of([Row(key=(1, number, 0), minimum=-1.0, maximum=number - 1.0) for number in range(3)])
    cells.rest.update({0: Decimal(0), 2: Decimal(0)})

    assert_same(decoded(*encode_runs(cells, np.array([0, 3]))), cells)


@settings(deadline=None)
@given(st.integers(-(2**53), 2**53) | st.integers(-(10**7), 10**7))
def test_whole_microseconds_are_exact(micro: int) -> None:
    cells = cells_of([Row(key=(1, 1, 0), micro=7, minimum=micro / 1e6, maximum=micro / 1e6)])

    assert decoded(*encode_runs(cells, np.array([0, 1]))).minimum.tolist() == [micro / 1e6]


def test_minus_zero_is_zero() -> None:
    cells = cells_of([Row(key=(1, 1, 0), minimum=-0.0, maximum=0.0, last=(1, 0, -0.0))])

    found = decoded(*encode_runs(cells, np.array([0, 1])))

    assert not np.signbit([found.minimum[0], found.maximum[0], found.last[0]]).any()


def test_the_host_s_decimal_context_changes_nothing() -> None:
    cells = cells_of([Row(key=(1, 1, 0), rest=Decimal("12345678901234567890.123456789"), maximum=2.0)])
    encoded = encode_runs(cells, np.array([0, 1]))

    with decimal.localcontext(prec=3, traps=[decimal.Inexact]):
        assert encode_runs(cells, np.array([0, 1])) == encoded
        assert_same(decoded(*encoded), cells)


def test_folded_cells_of_every_kind_and_resolution_survive() -> None:
    batches = [
        source(job(), run(1.5, 0.1, 1e300), run(2.0, 2.0, kind="counter"), run(5.0, 7.1, kind="gauge"), worker="w1"),
        source(job(state="failed"), run(0.1), run(-3.0, kind="gauge", key="app:n"), worker="w2", position=2),
    ]

    for cells in fold([log_batch(batch) for batch in batches]).cells.values():
        starts, workers = runs_of(cells)
        assert_same(decode_runs(encode_runs(cells, starts), workers), cells)
        assert_same(decode_runs(encode_runs(cells, starts, compressed=True), workers), cells)


def golden_cells() -> Cells:
    """A cell of each shape, in two buckets and series far apart."""
    third = sum_of([0.1, 0.2, 1e-9])
    at_us = T * 10**6
    code = int(codes(np.array([0.25]))[0])
    return cells_of(
        [
            Row((1, 0, T), 3, 3 * 10**6, minimum=1.0, maximum=1.0, last_us=at_us + 5),
            Row((1, 0, T + 60), 2, 5 * 10**6, minimum=1.0, maximum=4.0, last_us=at_us + 61 * 10**6),
            Row((1, 2, T - 3_600), 3, 0, third, 1e-9, 0.2, at_us - 1),
            Row((1, 3, T), 2, 0, Decimal(2 * 0.1), 0.1, 0.1, at_us),
            Row((1, 4, T), 2, 0, Decimal("-7.000001"), -6.0, -1.000001, at_us),
            Row((1, 5, T), 7, 9, Decimal("0.0000001"), -1e308, 1e308, at_us),
            Row((1, 6, T), 2, 0, Decimal(2**70), 2.0**69, 2.0**69, at_us),
            Row((1, 7, T), 2, 0, Decimal(3), 1.0, 2.0, at_us, (9, 4, 2.0)),
            Row((1, 8, T), 2, 0, Decimal(3), 1.0, 2.0, at_us, (10, 5, 1.0)),
            Row((1, 9, T), 3, 0, Decimal("4.5"), 0.5, 2.0, at_us, (2**62, 2**31 - 1, 1 / 3)),
            Row((1, 300, T), 2, 500_000, minimum=0.25, maximum=0.25, last_us=at_us, sketch={code: 2}),
            Row((1, 2**31 - 1, T), 6, 10**15, minimum=-2.5, maximum=5e8, last_us=at_us, sketch={-9: 1, 0: 2, 7: 3}),
        ]
    )


def test_format_1_writes_the_bytes_it_always_wrote() -> None:
    assert encode_runs(golden_cells(), np.array([0, 12])) == [GOLDEN.read_bytes()]


def test_format_1_reads_the_bytes_it_always_wrote() -> None:
    assert_same(decoded(GOLDEN.read_bytes()), golden_cells())


def test_format_2_writes_and_reads_what_it_always_did() -> None:
    stored = GOLDEN.with_name("cells_2.bin").read_bytes()  # not deflated: builds of zlib differ

    (found,) = encode_runs(golden_cells(), np.array([0, 12]), compressed=True)

    assert (found[0], zlib.decompress(found[1:])) == (DEFLATED, stored)
    assert_same(decoded(bytes([DEFLATED]) + zlib.compress(stored, 9)), golden_cells())


def cells_without_sketches(events: int, per_second: int) -> Cells:
    until_us = T * 10**6
    batches = batches_of(job_rows(events, until_us=until_us, per_second=per_second), 1_000)
    return fold(log_batches(batches, workers=1)).cells["1min"]._replace(sketches=no_sketches())


def test_a_cell_takes_less_than_10_bytes_in_a_large_compressed_run() -> None:
    cells = cells_without_sketches(20_000, 5)

    (data,) = encode_runs(cells, np.array([0, cells.rows]), compressed=True)

    assert cells.rows > 5_000
    assert len(data) < 10 * cells.rows


def test_a_cell_takes_less_than_20_bytes_in_a_small_run() -> None:
    cells = cells_without_sketches(5, 1)

    (data,) = encode_runs(cells, np.array([0, cells.rows]))

    assert 20 < cells.rows < 60
    assert len(data) < 20 * cells.rows


@pytest.mark.parametrize("maximum", [1.0, 2.0])
def test_a_sketch_may_lack_observations_that_were_imported_without_one(maximum: float) -> None:
    code = int(codes(np.array([1.0]))[0])
    cells = cells_of([Row((1, 1, T), 9, minimum=1.0, maximum=maximum, sketch={code: 2})])

    (data,) = encode_runs(cells, np.array([0, 1]))

    assert_same(decode_runs([data], [1]), cells)


def test_counters_of_ones_need_no_sums() -> None:
    def size(number: int) -> int:
        some = [Row((1, n, T), n + 1, (n + 1) * 10**6, minimum=1.0, maximum=1.0) for n in range(number)]
        return len(encode_runs(cells_of(some), np.array([0, number]))[0])

    assert size(200) - size(100) <= 201  # a series step and a count each, and a longer length


SOUND = {"key": (1, 1, T), "observations": 2, "minimum": 1.0, "maximum": 2.0, "sketch": {1: 1, 2: 1}}
UNSOUND: dict[str, tuple[dict[str, Any], str]] = {
    "no observations": ({"observations": 0, "sketch": {}}, "observations"),
    "too many observations": ({"observations": 2**53 + 1, "sketch": {}}, "observations"),
    "a minimum above the maximum": ({"minimum": 3.0}, "minimum"),
    "a minimum that is nan": ({"minimum": float("nan")}, "minimum"),
    "an infinite maximum": ({"maximum": float("inf")}, "minimum or maximum"),
    "an infinite gauge": ({"last": (1, 1, float("inf"))}, "gauge"),
    "a negative position": ({"last": (-1, 1, 1.0)}, "gauge"),
    "a position past its bound": ({"last": (2**62 + 1, 1, 1.0)}, "gauge"),
    "an index past its bound": ({"last": (1, 2**31, 1.0)}, "gauge"),
    "a position and no gauge": ({"last": (1, 1, float("nan"))}, "gauge"),
    "a negative series": ({"key": (1, -1, T)}, "series"),
    "a series past 32 bits": ({"key": (1, 2**31, T)}, "series"),
    "a bucket too early": ({"key": (1, 1, FIRST_US // 10**6 - 86_460)}, "bucket"),
    "a bucket too late": ({"key": (1, 1, LAST_S + 60)}, "bucket"),
    "a time too early": ({"last_us": FIRST_US - 1}, "time"),
    "a time too late": ({"last_us": FAR_US + 1}, "time"),
    "a code past its bound": ({"sketch": {1: 1, MAX_CODE + 1: 1}}, "sketch"),
    "a count of none": ({"sketch": {1: 2, 2: 0}}, "sketch"),
    "counts of more than the observations": ({"sketch": {1: 1, 2: 2}}, "sketch"),
    "counts that wrap around": ({"sketch": dict.fromkeys(range(2**11), 2**53) | {-1: 2}}, "sketch"),
    "a rest that is nan": ({"rest": Decimal("nan")}, "rest"),
    "an infinite rest": ({"rest": Decimal("-inf")}, "rest"),
    "a rest too large": ({"rest": Decimal("1e400")}, "rest"),
    "a rest with too many digits": ({"rest": Decimal("1e-1081"), "micro": 1}, "rest"),
}


@pytest.mark.parametrize("case", UNSOUND)
def test_what_would_be_refused_is_not_written(case: str) -> None:
    changes, words = UNSOUND[case]
    sound, unsound = Row(**SOUND), Row(**(SOUND | changes))  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=f"run 1: .*{words}"):
        encode_runs(cells_of([sound, unsound]), np.array([0, 1, 2]))


@pytest.mark.parametrize(
    ("starts", "words"),
    [([0, 3], "run 0: .*several workers"), ([0, 0, 3], "run 0: it has no cells"), ([0, 1, 1, 3], "run 1: it has no")],
)
def test_runs_that_are_none_are_not_written(starts: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        encode_runs(cells_of([Row((1, 1, 0)), Row((2, 1, 0)), Row((2, 1, 60))]), np.array(starts))


@pytest.mark.parametrize("keys", [[(1, 2, 0), (1, 1, 0)], [(1, 1, 60), (1, 1, 0)], [(1, 1, 60), (1, 1, 60)]])
def test_cells_out_of_order_are_not_written(keys: list[tuple[int, int, int]]) -> None:
    with pytest.raises(ValueError, match="do not ascend"):
        encode_runs(cells_of([Row(key) for key in keys]), np.array([0, 2]))


#: The columns of a run as plain lists, and the changes that make it none.
FIELDS = msgspec.msgpack.decode(encode_runs(golden_cells(), np.array([0, 12]))[0][1:])
HUGE = 2**63 - 1
HOSTILE: dict[str, tuple[tuple[int, ...], Any]] = {
    "no cells": ((0,), 0),
    "more cells than columns": ((0,), 13),
    "very many cells": ((0,), 2**20),
    "too many cells": ((0,), 2**20 + 1),
    "a constant series": ((1,), 7),
    "a series of no bytes": ((1, 1), b""),
    "a first series below 0": ((1, 0), -1),
    "series past 64 bits": ((1, 0), HUGE),
    "a first bucket too early": ((2,), -(2**62)),
    "a unit of 0": ((3,), 0),
    "units past the bound": ((3,), 2**59 // 10**6),
    "equal buckets of a series": ((4,), 0),
    "a column of 3-byte integers": ((5,), [0, bytes(36)]),
    "half a column": ((5,), [0, bytes(6)]),
    "a column for a third of the cells": ((5,), [0, bytes(64)]),
    "no observations": ((5,), 0),
    "a time past its bound": ((6,), 2**59),
    "times that wrap around": ((6,), [HUGE, b"\xff" * 96]),
    "a negative shape": ((7,), -1),
    "a shape past its bits": ((7,), 256),
    "a shape with an unknown sum": ((7,), 5),
    "a shape with an unknown sketch": ((7,), 192),
    "a shape of equal floats": ((7,), 8),
    "shapes without the columns": ((7,), 2),
    "minima past the maxima": ((9,), -(10**9)),
    "a sum past 64 bits": ((8,), 2**62),
    "no floats": ((11,), None),
    "floats that are nan": ((11, 0), b"\xff" * len(FIELDS[11][0])),
    "half the floats": ((11, 0), FIELDS[11][0][:-4]),
    "no gauges": ((12,), None),
    "a gauge before the first position": ((12, 2), -1),
    "an index past its bound": ((12, 3), 2**31),
    "no rests": ((13,), None),
    "a rest over too high a power": ((13, 0), 1_075),
    "a rest over too many digits": ((13, 0), -1_081),
    "a rest of no bytes": ((13, 1), [0, b"\x00\x00\x00"]),
    "rests of other sizes": ((13, 1), [FIELDS[13][1][0] + 1, FIELDS[13][1][1]]),
    "rests of very many bytes": ((13, 1), [HUGE, FIELDS[13][1][1]]),
    "rests without their last byte": ((13, 2), FIELDS[13][2][:-1]),
    "no sketches": ((14,), None),
    "a sketch of no codes": ((14, 0), 0),
    "a sketch of too many codes": ((14, 0), MAX_CODES + 1),
    "a sketch of very many codes": ((14, 0), MAX_CODES),
    "a code past its bound": ((14, 1), MAX_CODE),
    "a code past 64 bits": ((14, 1), HUGE),
    "codes that stay": ((14, 2), 0),
    "codes that descend": ((14, 2), -1),
    "constant counts": ((14, 3), 2),
    "counts of none": ((14, 3), [0, b"\x00\x03\x03"]),
    "counts of more than all observations": ((14, 3), [1, b"\x7f\x7f\x7f"]),
}


def changed(path: tuple[int, ...], value: Any) -> bytes:
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(FIELDS))
    at = fields
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return bytes([PLAIN]) + msgspec.msgpack.encode(fields)


def test_minus_zero_in_hostile_floats_is_zero() -> None:
    floats = np.frombuffer(FIELDS[11][0], "<f8").copy()
    floats[0] = -0.0

    found = decoded(changed((11, 0), floats.tobytes()))

    assert 0.0 in found.minimum
    assert not np.signbit(found.minimum[found.minimum == 0]).any()


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_columns_are_damage_and_the_run_is_named(case: str) -> None:
    sound = GOLDEN.read_bytes()

    with pytest.raises(Damaged, match=r"^row 2 is no run of cells: ") as caught:
        decode_runs([sound, sound, changed(*HOSTILE[case])], [1, 2, 3], "row {}".format)
    assert (caught.value.kind, caught.value.where) == ("run of cells", "row 2")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "its format is 0, and this code reads 1 and 2"),
        (b"\x03", "its format is 3"),
        (b"\x01", "truncated"),
        (GOLDEN.read_bytes() + b"\x00", "trailing"),
        (b"\x02", "its end is missing"),
        (b"\x02xx", "Error"),
        (b"\x02" + zlib.compress(GOLDEN.read_bytes()[1:]) + b"x", "bytes follow it"),
        (b"\x02" + zlib.compress(bytes(65 << 20)), "more than 67,108,864 bytes"),
    ],
)
def test_bytes_of_no_run_are_damage(data: bytes, words: str) -> None:
    with pytest.raises(Damaged, match=f"^run 0 is no run of cells: .*{words}"):
        decode_runs([data], [1])


@settings(deadline=None)
@given(ROWS, st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_mutated_bytes_are_damage_or_cells_that_can_be_encoded(rows: list[Row], changes: list[tuple[int, int]]) -> None:
    cells = cells_of(rows)
    data = bytearray(encode_runs(cells, runs_of(cells)[0])[0])
    for place, value in changes:
        data[place % len(data)] = value

    try:
        found = decoded(bytes(data))
    except Damaged:
        return
    (again,) = encode_runs(found, np.array([0, found.rows]))
    assert_same(decoded(again), found)


def test_damaged_bytes_do_not_claim_more_than_they_hold() -> None:
    hostile = [
        changed((0,), 2**20),
        changed((14, 0), MAX_CODES),
        changed((13, 1), [HUGE, FIELDS[13][1][1]]),
    ]

    for data in hostile:
        tracemalloc.start()
        with pytest.raises(Damaged):
            decoded(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
