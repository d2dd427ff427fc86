"""What was encoded decodes the same for ever; every other input is a typed error, at the cost of its own size."""

from __future__ import annotations

import random
import tracemalloc
from array import array
from hashlib import sha256
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chancy_metrics.events import codec
from chancy_metrics.events.batch import DecodedBatch, EncodedBatch, ObservationRun
from chancy_metrics.events.codec import decode, encode
from chancy_metrics.events.errors import DamagedBatch, UnknownCodec
from chancy_metrics.events.facts import KINDS, Combo, JobFacts, JobRow, Series
from tests.processes import ROOT

GOLDEN = ROOT / "tests" / "golden" / "codec_1.bin"
YEAR_1, YEAR_9999 = -62_135_596_800_000_000, 253_402_300_799_999_999
T = 1_773_144_000_000_000

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
INSTANT = st.integers(YEAR_1, YEAR_9999) | st.integers(T - 10**9, T + 10**9)
JOBS = st.lists(
    st.builds(
        JobRow,
        job_id=st.binary(min_size=16, max_size=16),
        combo=st.builds(Combo, TEXT, TEXT, TEXT, st.integers(0, 2**31), TEXT),
        at_us=INSTANT,
        created_us=INSTANT,
        scheduled_us=INSTANT,
        started_us=INSTANT | st.none(),
        completed_us=INSTANT | st.none(),
        meta=st.binary(max_size=8),
    ),
    max_size=8,
)
RUNS = st.lists(
    st.builds(
        lambda key, kind, unit, pairs: ObservationRun(
            Series(key, kind, unit), [at for at, _ in pairs], array("d", [value for _, value in pairs])
        ),
        TEXT.filter(bool),
        st.sampled_from(KINDS),
        TEXT.filter(bool),
        st.lists(st.tuples(INSTANT, st.floats(allow_nan=False, allow_infinity=False)), min_size=1, max_size=6),
    ),
    max_size=4,
)
COUNTS = st.dictionaries(TEXT, st.integers(0, 2**53 - 1), max_size=3)


def job(at_us: int = T, number: int = 0, **changes: Any) -> JobRow:
    row = JobRow(
        bytes([number]) * 16, Combo("f", "q", "succeeded", 1, ""), at_us, at_us - 9, at_us - 9, at_us - 5, at_us, b""
    )
    return row._replace(**changes)


def run(*values: float, key: str = "k") -> ObservationRun:
    return ObservationRun(Series(key, "gauge", "MB"), [T] * len(values), array("d", values))


def decoded(batch: EncodedBatch) -> DecodedBatch:
    return decode(batch.codec, batch.payload, batch.sha256, batch.events)


def decode_bytes(payload: bytes, events: int = 0) -> DecodedBatch:
    return decode(1, payload, sha256(payload).digest(), events)


def rows_of(batch: DecodedBatch) -> list[JobRow]:
    jobs = batch.jobs
    if jobs is None:
        return []
    return [
        JobRow(
            job_id=jobs.ids[16 * row : 16 * row + 16],
            combo=jobs.combos[jobs.combo[row]],
            at_us=int(jobs.at_us[row]),
            created_us=int(jobs.created_us[row]),
            scheduled_us=int(jobs.scheduled_us[row]),
            started_us=int(jobs.started_us[row]) if jobs.has_started[row] else None,
            completed_us=int(jobs.completed_us[row]) if jobs.has_completed[row] else None,
            meta=jobs.meta.get(row, b""),
        )
        for row in range(len(jobs.at_us))
    ]


def runs_of(batch: DecodedBatch) -> list[ObservationRun]:
    columns = batch.observations
    if columns is None:
        return []
    ends = np.cumsum(columns.lengths).tolist()
    return [
        ObservationRun(series, columns.at_us[end - size : end].tolist(), array("d", columns.values[end - size : end]))
        for series, size, end in zip(columns.series, columns.lengths.tolist(), ends, strict=True)
    ]


@settings(deadline=None)
@given(JOBS, RUNS, COUNTS)
def test_a_batch_decodes_to_what_was_encoded(jobs: list[JobRow], runs: list[ObservationRun], counts) -> None:  # type: ignore[no-untyped-def]
    batch = encode(jobs, runs, counts)

    result = decoded(batch)

    times = [row.at_us for row in jobs] + [at for run in runs for at in run.at_us]
    assert rows_of(result) == jobs
    assert runs_of(result) == runs
    assert result.counts == counts
    assert batch.events == len(times)
    assert (batch.first_us, batch.last_us) == ((min(times), max(times)) if times else (None, None))


@given(JOBS.filter(bool))
def test_a_batch_of_one_job_has_the_bytes_that_it_would_have_among_others(jobs: list[JobRow]) -> None:
    for job in jobs:
        facts = JobFacts.of([job])

        assert codec._encoder.encode(codec._pack_job(facts)) == codec._encoder.encode(codec._pack_jobs(facts))


@pytest.mark.parametrize(
    "wrong",
    [
        {"at_us": YEAR_1 - 1},
        {"started_us": -(2**60)},
        {"job_id": bytes(15)},
        {"combo": Combo("a\x00", "q", "failed", 1, "")},
        {"combo": Combo("a", "q", "failed", 2**63, "")},
    ],
)
def test_one_job_is_refused_for_what_several_are_refused_for(wrong: dict[str, Any]) -> None:
    one = job(**wrong)

    for jobs in ([one], [one, one]):
        with pytest.raises(ValueError):
            encode(jobs)


@given(JOBS.filter(bool))
def test_rows_turned_into_columns_and_back_are_the_same(jobs: list[JobRow]) -> None:
    assert JobFacts.of(jobs).rows() == jobs


def golden_batch() -> EncodedBatch:
    jobs = [
        JobRow(
            bytes(range(16)),
            Combo("app.send", "default", "succeeded", 1, ""),
            T,
            T - 9,
            T - 8,
            T - 5,
            T,
            b"\x81\xa1a\x01",
        ),
        JobRow(
            bytes(16),
            Combo("app.send", "mail", "retrying", 2, "ValueError"),
            T + 70_000,
            T,
            T + 10**9,
            T + 1,
            None,
            b"",
        ),
        JobRow(b"\xff" * 16, Combo("tâche", "default", "expired", 0, ""), T - 10**10, T - 10**11, T, None, T, b""),
    ]
    runs = [
        ObservationRun(Series("app:größe", "histogram", "MB"), [T, T + 1], array("d", [0.1, -1e308])),
        ObservationRun(Series("app:slots", "gauge", "number"), [T - 5], array("d", [5e-324])),
        ObservationRun(Series("app:orders", "counter", "count"), [T + 10**6], array("d", [2.0**70])),
    ]
    return encode(jobs, runs, {"dropped": 3, "key": 1})


def test_codec_1_writes_the_bytes_it_always_wrote() -> None:
    assert golden_batch().payload == GOLDEN.read_bytes()


def test_codec_1_reads_the_bytes_it_always_wrote() -> None:
    result = decode_bytes(GOLDEN.read_bytes(), events=7)

    assert [row.combo.func for row in rows_of(result)] == ["app.send", "app.send", "tâche"]
    assert [row.at_us for row in rows_of(result)] == [T, T + 70_000, T - 10**10]
    assert [row.created_us for row in rows_of(result)] == [T - 9, T, T - 10**11]
    assert [row.scheduled_us for row in rows_of(result)] == [T - 8, T + 10**9, T]
    assert [row.started_us for row in rows_of(result)] == [T - 5, T + 1, None]
    assert [row.completed_us for row in rows_of(result)] == [T, None, T]
    assert [row.meta for row in rows_of(result)] == [b"\x81\xa1a\x01", b"", b""]
    assert [row.job_id for row in rows_of(result)] == [bytes(range(16)), bytes(16), b"\xff" * 16]
    assert rows_of(result)[1].combo == Combo("app.send", "mail", "retrying", 2, "ValueError")
    assert [(run.series, run.at_us, run.values.tolist()) for run in runs_of(result)] == [
        (Series("app:größe", "histogram", "MB"), [T, T + 1], [0.1, -1e308]),
        (Series("app:slots", "gauge", "number"), [T - 5], [5e-324]),
        (Series("app:orders", "counter", "count"), [T + 10**6], [2.0**70]),
    ]
    assert result.counts == {"dropped": 3, "key": 1}


@pytest.mark.parametrize(
    ("span", "width"),
    [(0, 0), (1, 1), (255, 1), (256, 2), (2**16 - 1, 2), (2**16, 4), (2**32 - 1, 4), (2**32, 8)],
)
def test_a_column_is_as_narrow_as_its_values(span: int, width: int) -> None:
    fields = msgspec.msgpack.decode(encode([job(T), job(T + span, 1)]).payload)

    base, data = fields[1][5]
    assert (base, len(data)) == (T, 2 * width)


def test_a_job_takes_less_than_40_bytes_in_a_large_batch() -> None:
    source = random.Random(5)
    jobs = []
    for number in range(1_000):
        at = T + number * 1_000
        ran, waited = source.randrange(10**8), source.randrange(10**8)
        jobs.append(job(at, started_us=at - ran, created_us=at - ran - waited, scheduled_us=at - ran - waited))

    assert len(encode(jobs).payload) < 40_000


def test_an_unknown_codec_is_named_before_anything_is_read() -> None:
    with pytest.raises(UnknownCodec, match="codec 2"):
        decode(2, b"", b"", 0)


def test_changed_bytes_are_damage() -> None:
    batch = encode([job()])

    with pytest.raises(DamagedBatch, match="sha256"):
        decode(1, batch.payload[:-1], batch.sha256, 1)


def test_another_number_of_events_is_damage() -> None:
    batch = encode([job()])

    with pytest.raises(DamagedBatch, match="holds 1 events, its row says 2"):
        decode(1, batch.payload, batch.sha256, 2)


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 3))
def test_random_bytes_are_damage_or_a_batch(payload: bytes, events: int) -> None:
    decode_or_damage(payload, events)


@settings(deadline=None)
@given(JOBS, RUNS, st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_mutated_bytes_are_damage_or_a_batch(jobs, runs, changes) -> None:  # type: ignore[no-untyped-def]
    batch = encode(jobs, runs)
    payload = bytearray(batch.payload)
    for place, value in changes:
        payload[place % len(payload)] = value

    decode_or_damage(bytes(payload), batch.events)


def decode_or_damage(payload: bytes, events: int) -> None:
    try:
        result = decode_bytes(payload, events)
    except DamagedBatch:
        return
    assert len(rows_of(result)) + sum(len(run.values) for run in runs_of(result)) == events


INT64 = [-(2**63), -(2**63) + 1, -1, 0, 1, 2**59, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
HUGE = [2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
COLUMNS = {"combo": 2, "flags": 3, "at": 5, "completed": 6, "started": 7, "created": 8, "scheduled": 9}
# A payload as plain lists: [counts, jobs, observations]
FIELDS = msgspec.msgpack.decode(
    encode([job(), job(T + 7, 1)], [run(1.0, 2.0), run(3.0, key="l")]).payload, strict=False
)


def changed(path: tuple[Any, ...], value: Any) -> bytes:
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(FIELDS), strict=False)
    at = fields
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return msgspec.msgpack.encode(fields)


def test_the_unchanged_fields_are_a_batch() -> None:
    assert decode_bytes(msgspec.msgpack.encode(FIELDS), events=5).jobs


@pytest.mark.parametrize("base", INT64)
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("data", [b"", b"\x00\x01", b"\xff" * 2, b"\xff" * 4, b"\xff" * 8, b"\xff" * 16, b"\x00" * 16])
def test_extreme_columns_are_damage_or_times_whose_differences_fit(column: str, base: int, data: bytes) -> None:
    try:
        jobs = decode_bytes(changed((1, COLUMNS[column]), [base, data]), events=5).jobs
    except DamagedBatch:
        return
    assert jobs is not None
    assert jobs.combo.max() < len(jobs.combos)
    assert jobs.at_us.min() >= YEAR_1
    instants = [getattr(jobs, name).tolist() for name in ("created_us", "scheduled_us", "started_us", "completed_us")]
    for row in zip(jobs.at_us.tolist(), *instants, strict=True):
        assert all(abs(a - b) < 2**63 for a in row for b in row)


HOSTILE = {
    "a combo before the strings": ((1, 1, 0), [-1, 0, 0, 1, 0]),
    "a combo past the strings": ((1, 1, 0), [0, 99, 0, 1, 0]),
    "a combo far past the strings": ((1, 1, 0), [0, 2**64 - 1, 0, 1, 0]),
    "a combo of four": ((1, 1, 0), [0, 0, 0, 1]),
    "no combos": ((1, 1), []),
    "a row past the combos": ((1, 2), [0, b"\x00\x01"]),
    "a row before the combos": ((1, 2), [-1, b""]),
    "a row far past the combos": ((1, 2), [2**40, b""]),
    "a string with NUL": ((1, 0, 0), "f\x00"),
    "a string that is bytes": ((1, 0, 0), b"f"),
    "no ids": ((1, 4), b""),
    "ids of 31 bytes": ((1, 4), b"x" * 31),
    "ids of three rows": ((1, 4), b"x" * 48),
    "a column of three bytes": ((1, 5), [T, b"\x00\x01\x02"]),
    "a column of 6-byte integers": ((1, 5), [T, b"\x00" * 12]),
    "an integer past 64 bits": ((1, 5), [1e300, b""]),
    "meta past the rows": ((1, 10), {2: b"x"}),
    "meta before the rows": ((1, 10), {-1: b"x"}),
    "meta that is text": ((1, 10), {0: "x"}),
    "an unknown kind": ((2, 0, 0), ["k", 3, "MB"]),
    "a negative kind": ((2, 0, 0), ["k", -1, "MB"]),
    "an empty key": ((2, 0, 0), ["", 1, "MB"]),
    "a key of 1,025 bytes in other letters": ((2, 0, 0), ["é" * 512 + "k", 1, "MB"]),
    "a key of 1,025 bytes": ((2, 0, 0), ["k" * 1_025, 1, "MB"]),
    "a key with NUL": ((2, 0, 0), ["k\x00", 1, "MB"]),
    "an empty unit": ((2, 0, 0), ["k", 1, ""]),
    "a unit of 65 characters": ((2, 0, 0), ["k", 1, "u" * 65]),
    "fewer series than runs": ((2, 0), [["k", 1, "MB"]]),
    "no series": ((2, 0), []),
    "an empty run": ((2, 1), [3, 0]),
    "a negative run": ((2, 1), [4, -1]),
    "runs that wrap to the right sum": ((2, 1), [2**63 + 3, 2**63]),
    "no values": ((2,), [[], [], [0, b""], b""]),
    "no values and a column": ((2,), [[], [], [0, b"\x00"], b""]),
    "half a value": ((2, 3), b"\x00" * 20),
    "a value that is nan": ((2, 3), array("d", [1.0, float("nan"), 2.0]).tobytes()),
    "a value that is infinite": ((2, 3), array("d", [1.0, float("-inf"), 2.0]).tobytes()),
    "an observation before the year 1": ((2, 2), [YEAR_1 - 1, b""]),
    "a negative count": ((0,), {"dropped": -1}),
    "a count past 64 bits when added up": ((0,), {"dropped": 2**63}),
    "a reason with NUL": ((0,), {"\x00": 1}),
    "a field too many": ((1,), [*FIELDS[1], 0]),
    "a field too few": ((1,), FIELDS[1][:-1]),
} | {f"a run of {length}": ((2, 1), [length, 1]) for length in HUGE}


@pytest.mark.parametrize(("path", "value"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_fields_are_damage(path: tuple[Any, ...], value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    payload = changed(path, value)

    for few in (codec._FEW_SERIES, 0):  # very many series are checked all at once
        monkeypatch.setattr(codec, "_FEW_SERIES", few)
        for events in (2, 3, 5):
            with pytest.raises(DamagedBatch):
                decode_bytes(payload, events)


def test_very_many_series_are_what_a_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    series = [Series("a", "counter", "MB"), Series("b" * 1_024, "gauge", "u" * 64), Series("é" * 512, "histogram", "µ")]
    for some in (series, series[:2]):
        batch = encode((), [ObservationRun(one, [T], [1.0]) for one in some])
        for few in (codec._FEW_SERIES, 0):
            monkeypatch.setattr(codec, "_FEW_SERIES", few)
            found = decode(batch.codec, batch.payload, batch.sha256, batch.events).observations
            assert found is not None
            assert [(type(one), one) for one in found.series] == [(Series, one) for one in some]


NESTED = b"\x91" * 100_000 + b"\xc0"
BOMBS = {
    "a list of 4 G strings": b"\x93\x80\x9b\xdd\xff\xff\xff\xff",
    "a list of 4 G combos": b"\x93\x80\x9b\x90\xdd\xff\xff\xff\xff",
    "4 GB of ids": b"\x93\x80\x9b\x90\x90\x92\x00\xc4\x00\x92\x00\xc4\x00\xc6\xff\xff\xff\xff",
    "a map of 4 G counts": b"\x93\xdf\xff\xff\xff\xff",
    "4 G runs": b"\x93\x80\xc0\x94\xdd\xff\xff\xff\xff",
    "nesting instead of the payload": NESTED,
    "nesting behind the payload": b"\x94\x80\xc0\xc0" + NESTED,
    "nesting behind a column": b"\x93\x80\x9b\x90\x90\x93\x00\xc4\x00" + NESTED,
    "nesting in a map": b"\x93\x81\xa1x" + NESTED,
    "lone surrogates": b"\x93\x81\xa3\xed\xa0\x80\x01\xc0\xc0",
    "bytes behind the payload": b"\x93\x80\xc0\xc0\xc0",
    "an extension": b"\x93\x80\xd4\x01\x00\xc0",
}


@pytest.mark.parametrize("payload", [*BOMBS.values()], ids=BOMBS)
def test_a_small_payload_takes_little_memory_whatever_it_claims(payload: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(DamagedBatch):
            decode_bytes(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 4_000_000


ANY_TEXT = TEXT | st.sampled_from(["", "a\x00b", "é" * 600, "\ud800", "k" * 5_000])
ANY_INSTANT = INSTANT | st.sampled_from([YEAR_1 - 1, -(2**59) - 1, 2**59, 2**59 + 1, 2**63, 2**64])
ANY_ROW = st.builds(
    JobRow,
    job_id=st.sampled_from([b"i" * 16, b"i" * 16, b"", b"i" * 17]),
    combo=st.builds(Combo, ANY_TEXT, TEXT, TEXT, st.integers(-1, 2**65), ANY_TEXT),
    at_us=ANY_INSTANT,
    created_us=ANY_INSTANT,
    scheduled_us=ANY_INSTANT,
    started_us=ANY_INSTANT | st.none(),
    completed_us=ANY_INSTANT | st.none(),
    meta=st.binary(max_size=2),
)
ANY_RUN = st.builds(
    ObservationRun,
    st.builds(Series, ANY_TEXT, st.sampled_from([*KINDS, "sum"]), ANY_TEXT),
    st.lists(ANY_INSTANT, max_size=3),
    st.lists(st.floats(), max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(ANY_ROW, max_size=3),
    st.lists(ANY_RUN, max_size=2),
    st.dictionaries(ANY_TEXT, st.integers(-1, 2**53), max_size=2),
)
def test_whatever_encode_accepts_decode_accepts(
    jobs: list[JobRow], runs: list[ObservationRun], counts: dict[str, int]
) -> None:
    try:
        batch = encode(jobs, runs, counts)
    except (ValueError, OverflowError):
        return

    assert decode(batch.codec, batch.payload, batch.sha256, batch.events).counts == counts
