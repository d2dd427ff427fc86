"""Encode columns of facts as the bytes of one batch, and decode them; every released codec stays decodable.

Codec 1 is one MessagePack array: a header, the strings once each, then every column as little-endian bytes
of the narrowest width that holds it. Nothing here imports numpy until a batch is decoded.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from operator import sub
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from chancy_metrics.events.batch import (
    DecodedBatch,
    EncodedBatch,
    JobColumns,
    LogBatch,
    ObservationColumns,
    ObservationRun,
)
from chancy_metrics.events.decoding import HOSTILE, fault_of
from chancy_metrics.events.errors import DamagedBatch, UnknownCodec
from chancy_metrics.events.facts import (
    FIRST_US,
    KINDS,
    MAX_KEY_BYTES,
    Combo,
    Instants,
    JobFacts,
    JobRow,
    Series,
    check_series,
)
from chancy_metrics.events.row_bounds import FAR_US, MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CODEC = 1
#: Counts in a batch's header of events that are in no batch: observations, and job updates.
DROPPED = ("dropped", "dropped_job_updates")

_STARTED = 1
_COMPLETED = 2
_WIDTHS = (("B", 1, 1 << 8), ("H", 2, 1 << 16), ("I", 4, 1 << 32), ("Q", 8, 1 << 64))
_TYPES = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}
_BIG_ENDIAN = sys.byteorder == "big"

#: Counts are exact in JSON, and their sums fit 64 bits.
_MAX_COUNT = 2**53

#: Batches of up to so many series are checked through a cache of twice the size.
_FEW_SERIES = 5_000

_Index = Annotated[int, msgspec.Meta(ge=0)]
_Count = Annotated[int, msgspec.Meta(ge=0, lt=_MAX_COUNT)]
#: Attempts fit 64 bits.
_ATTEMPTS = range(-(2**63), 2**63)
_Attempt = Annotated[int, msgspec.Meta(ge=_ATTEMPTS[0], le=_ATTEMPTS[-1])]
_KindIndex = Annotated[int, msgspec.Meta(ge=0, lt=len(KINDS))]


# Unknown fields are forbidden, not skipped: skipping recurses as deep as the bytes say.
class _Ints(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A column of integers: value = base + unsigned. No bytes at all where every value is the base."""

    base: int
    data: bytes


class _Jobs(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    strings: list[str]
    #: Numbers of strings: func, queue, state, (attempt), error.
    combos: list[tuple[_Index, _Index, _Index, _Attempt, _Index]]
    combo: _Ints
    flags: _Ints
    ids: bytes
    at: _Ints
    completed: _Ints  # relative to at
    started: _Ints  # at - started
    created: _Ints  # at - created
    scheduled: _Ints  # scheduled - created
    meta: dict[_Index, memoryview]  # row -> MessagePack of the kept keys, where it lies in the payload


class _Observations(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    series: list[tuple[str, _KindIndex, str]]
    lengths: list[_Index]  # run length of each series
    at: _Ints
    values: bytes  # float64


class _Payload(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    counts: dict[str, _Count]
    jobs: _Jobs | None
    observations: _Observations | None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Payload)


def encode(
    jobs: JobFacts | Sequence[JobRow] = (),
    observations: Sequence[ObservationRun] = (),
    counts: Mapping[str, int] | None = None,
) -> EncodedBatch:
    """Encode one batch. About 0.8 us and 34 bytes a job; 12 bytes an observation.

    Raises:
        ValueError: It is larger than `MAX_PAYLOAD_BYTES`, or `decode` would refuse it: a time before the year 1, a
            text with NUL, a value that is not finite, a key that breaks its rule, columns of different lengths.
    """
    facts = jobs if isinstance(jobs, JobFacts) else JobFacts.of(jobs) if jobs else None
    times: list[int] = []
    if facts:
        times += (facts.at.origin_us + min(facts.at.offsets), facts.at.origin_us + max(facts.at.offsets))
    for run in observations:
        times += (min(run.at_us), max(run.at_us))
    payload = _encoder.encode(
        _Payload(
            _checked_counts({**(counts or {}), **(facts.counts if facts else {})}),
            None if facts is None else _pack_job(facts) if len(facts.job_ids) == 1 else _pack_jobs(facts),
            _pack_observations(observations) if observations else None,
        )
    )
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a batch of {len(payload):,} bytes is too large: one has at most {MAX_PAYLOAD_BYTES:,}")
    return EncodedBatch(
        events=(len(facts.job_ids) if facts else 0) + sum(len(run.values) for run in observations),
        first_us=min(times, default=None),
        last_us=max(times, default=None),
        codec=CODEC,
        payload=payload,
        sha256=sha256(payload).digest(),
    )


def count_kinds(batch: EncodedBatch) -> Counter[str]:
    """Count "observations", "job_updates" and `DROPPED` events of a batch that this process encoded; no zeros."""
    raw = _decoder.decode(batch.payload)
    updates = len(raw.jobs.ids) // 16 if raw.jobs is not None else 0
    dropped = {name: raw.counts.get(name, 0) for name in DROPPED}
    return +Counter(observations=batch.events - updates, job_updates=updates, **dropped)


def decode(codec: int, payload: bytes, digest: bytes, events: int) -> DecodedBatch:
    """Decode one batch; total: every input gives a batch or a typed error.

    Raises:
        UnknownCodec: Newer code wrote it.
        DamagedBatch: The bytes don't match the producer's hash, or are no batch.
    """
    if codec != CODEC:
        raise UnknownCodec(f"codec {codec} is unknown to this code, which reads codec {CODEC}: upgrade the projector")
    if sha256(payload).digest() != digest:
        raise DamagedBatch("does not match its sha256: it was changed after it was appended")
    try:
        raw = _decoder.decode(payload)
        _refuse_nul(raw.counts)
        jobs = _unpack_jobs(raw.jobs) if raw.jobs is not None else None
        observations = _unpack_observations(raw.observations) if raw.observations is not None else None
    except HOSTILE as error:
        raise DamagedBatch(f"is no batch of codec {codec}: {fault_of(error)}") from error
    found = (len(jobs.at_us) if jobs else 0) + (len(observations.at_us) if observations else 0)
    if found != events:
        raise DamagedBatch(f"holds {found} events, its row says {events}")
    return DecodedBatch(raw.counts, jobs, observations)


def decode_batch(batch: LogBatch) -> DecodedBatch:
    """Decode a batch that was read from the log; raises like `decode`."""
    return decode(batch.codec, batch.payload, batch.sha256, batch.events)


def _pack_jobs(facts: JobFacts) -> _Jobs:
    rows = len(facts.job_ids)
    combos, strings = _numbers(), _numbers()
    index = list(map(combos.__getitem__, facts.combos))
    packed = [
        (strings[func], strings[queue], strings[state], attempt, strings[error])
        for func, queue, state, attempt, error in combos
    ]
    _refuse_nul(strings)
    if not all(attempt in _ATTEMPTS for _, _, _, attempt, _ in combos):
        raise ValueError("an attempt has a number past 64 bits")
    ids = b"".join(facts.job_ids)
    if (
        not len(ids) == 16 * rows == 16 * len(index)
        or not 0 <= min(facts.meta, default=0) <= max(facts.meta, default=0) < rows
    ):
        raise ValueError(f"{rows} job updates have {len(ids)} bytes of ids, {len(index)} combos or meta past them")
    return _Jobs(
        strings=list(strings),
        combos=packed,
        combo=_pack(index, rows),
        flags=_pack_flags(facts, rows),
        ids=ids,
        at=_pack(facts.at.offsets, rows, facts.at.origin_us, least=FIRST_US),
        completed=_pack_difference(facts.completed, facts.at, rows),
        started=_pack_difference(facts.at, facts.started, rows),
        created=_pack_difference(facts.at, facts.created, rows),
        scheduled=_pack_difference(facts.scheduled, facts.created, rows),
        meta={row: memoryview(kept) for row, kept in facts.meta.items()},
    )


def _pack_job(facts: JobFacts) -> _Jobs:
    """Return what `_pack_jobs` returns of a single update, in a third of the time: an idle worker has no others."""
    (func, queue, state, attempt, error), *others = facts.combos
    strings = list(dict.fromkeys((func, queue, state, error)))
    _refuse_nul(strings)
    if attempt not in _ATTEMPTS:
        raise ValueError("an attempt has a number past 64 bits")
    (job_id,) = facts.job_ids
    if others or len(job_id) != 16 or not facts.meta.keys() <= {0}:
        raise ValueError(f"a job update has {len(job_id)} bytes of ids, or several combos or meta")
    at, created = _only(facts.at), _only(facts.created)
    if at < FIRST_US:
        raise ValueError(f"a time of {at} is out of range")
    return _Jobs(
        strings=strings,
        combos=[(0, strings.index(queue), strings.index(state), attempt, strings.index(error))],
        combo=_Ints(0, b""),
        flags=_pack_flags(facts, 1),
        ids=job_id,
        at=_constant(at),
        completed=_constant(_only(facts.completed) - at),
        started=_constant(at - _only(facts.started)),
        created=_constant(at - created),
        scheduled=_constant(_only(facts.scheduled) - created),
        meta={row: memoryview(kept) for row, kept in facts.meta.items()},
    )


def _only(instant: Instants) -> int:
    (offset,) = instant.offsets
    return instant.origin_us + offset


def _constant(value: int) -> _Ints:
    if not -FAR_US <= value <= FAR_US:
        raise ValueError(f"a time of {value} is out of range")
    return _Ints(value, b"")


def _pack_flags(facts: JobFacts, rows: int) -> _Ints:
    if not facts.not_started and not facts.not_completed:
        return _Ints(_STARTED | _COMPLETED, b"")
    flags = [_STARTED | _COMPLETED] * rows
    for number in facts.not_started:
        flags[number] -= _STARTED
    for number in facts.not_completed:
        flags[number] -= _COMPLETED
    return _pack(flags, rows)


def _numbers() -> defaultdict[Any, int]:
    """Return a dictionary that numbers its keys in order of first use, from 0."""
    numbers: defaultdict[Any, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    return numbers


def _pack_difference(later: Instants, earlier: Instants, rows: int) -> _Ints:
    if later is earlier:
        return _Ints(0, b"")
    differences = list(map(sub, later.offsets, earlier.offsets))
    return _pack(differences, rows, later.origin_us - earlier.origin_us)


def _pack_observations(runs: Sequence[ObservationRun]) -> _Observations:
    at: list[int] = []
    values = array("d")
    for run in runs:
        at.extend(run.at_us)
        values.extend(run.values)
    if not math.isfinite(sum(values)) and not all(map(math.isfinite, values)):
        raise ValueError("a value is not finite")
    lengths = [len(run.values) for run in runs]
    if 0 in lengths or lengths != [len(run.at_us) for run in runs]:
        raise ValueError("a run has no values, or not as many times")
    kinds = [KINDS.index(run.series.kind) for run in runs]
    for run, kind in zip(runs, kinds, strict=True):
        _series(run.series.key, kind, run.series.unit)  # raises where it is none
    return _Observations(
        series=[(run.series.key, kind, run.series.unit) for run, kind in zip(runs, kinds, strict=True)],
        lengths=lengths,
        at=_pack(at, len(at), least=FIRST_US),
        values=_bytes(values),
    )


def _checked_counts(counts: Mapping[str, int]) -> dict[str, int]:
    _refuse_nul(counts)
    if counts and not 0 <= min(counts.values()) <= max(counts.values()) < _MAX_COUNT:
        raise ValueError(f"counts {dict(counts)!r:.200} must be within 0 and 2**53")
    return dict(counts)


def _pack(column: Sequence[int], rows: int, origin: int = 0, *, least: int = -FAR_US) -> _Ints:
    if len(column) != rows:
        raise ValueError(f"a column has {len(column)} rows, not {rows}")
    base = min(column)
    span = max(column) - base
    if not span:
        _check_range(origin + base, 0, least)
        return _Ints(origin + base, b"")
    for code, width, limit in _WIDTHS:
        if span < limit:
            _check_range(origin + base, _max_offset(width, span), least)
            return _Ints(origin + base, _bytes(array(code, [value - base for value in column])))
    raise OverflowError(f"a column spans {span}, more than 64 bits")


def _max_offset(width: int, span: int) -> int:
    """Return the largest offset from the base that a column of this width can hold; base plus offset must be a time."""
    return span if width in (0, 8) else 256**width - 1


def _check_range(base: int, span: int, least: int) -> None:
    if base < least or base + span > FAR_US:
        raise ValueError(f"a column from {base} to {base + span} is out of range")


def _bytes(column: array[int] | array[float]) -> bytes:
    if _BIG_ENDIAN:
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _unpack(column: _Ints, rows: int, least: int = -FAR_US) -> NDArray[np.int64]:
    import numpy as np

    base = column.base
    width, rest = divmod(len(column.data), rows)
    if rest or (width and width not in _TYPES):
        raise ValueError(f"{len(column.data)} bytes do not make a column of {rows}")
    if not width:
        values, span = np.full(rows, base, np.int64), 0
    else:
        unsigned = np.frombuffer(column.data, _TYPES[width])
        values = np.add(unsigned, base, dtype=np.int64, casting="unsafe")
        span = int(unsigned.max()) if width == 8 else 0
    _check_range(base, _max_offset(width, span), least)
    return values


def _unpack_jobs(jobs: _Jobs) -> JobColumns:
    rows, rest = divmod(len(jobs.ids), 16)
    if rest or not rows:
        raise ValueError(f"{len(jobs.ids)} bytes do not make job ids")
    strings = jobs.strings
    _refuse_nul(strings)
    # tuple.__new__ is what Combo() calls, at half the cost.
    combos = [
        tuple.__new__(Combo, (strings[func], strings[queue], strings[state], attempt, strings[error]))
        for func, queue, state, attempt, error in jobs.combos
    ]
    combo = _unpack(jobs.combo, rows, least=0)
    if int(combo.max()) >= len(combos) or max(jobs.meta, default=0) >= rows:
        raise ValueError("a row points past the combos, or meta past the rows")
    flags = _unpack(jobs.flags, rows)
    at = _unpack(jobs.at, rows, least=FIRST_US)
    created = at - _unpack(jobs.created, rows)
    return JobColumns(
        combos=combos,
        combo=combo,
        ids=jobs.ids,
        at_us=at,
        created_us=created,
        scheduled_us=created + _unpack(jobs.scheduled, rows),
        started_us=at - _unpack(jobs.started, rows),
        completed_us=at + _unpack(jobs.completed, rows),
        has_started=(flags & _STARTED) != 0,
        has_completed=(flags & _COMPLETED) != 0,
        meta=jobs.meta,
    )


def _unpack_observations(columns: _Observations) -> ObservationColumns:
    import numpy as np

    values = np.frombuffer(columns.values, "<f8")
    lengths = columns.lengths
    if not len(values) or 0 in lengths or sum(lengths) != len(values) or len(lengths) != len(columns.series):
        raise ValueError("the runs do not add up to the values")
    if not np.isfinite(values).all():
        raise ValueError("a value is not finite")
    return ObservationColumns(
        series=_all_series(columns.series),
        lengths=np.array(lengths, np.int64),
        at_us=_unpack(columns.at, len(values), least=FIRST_US),
        values=values,
    )


def _all_series(runs: Sequence[tuple[str, int, str]]) -> list[Series]:
    """Check the series of a batch: one by one through a cache, or all at once where they are very many."""
    if len(runs) <= _FEW_SERIES:
        return [_series(key, kind, unit) for key, kind, unit in runs]
    keys = [key for key, _, _ in runs]
    joined, sizes = "".join(keys), [len(key) for key in keys]
    for kind, unit in {(kind, unit) for _, kind, unit in runs}:
        _series(keys[0], kind, unit)
    if not (joined.isascii() and "\x00" not in joined and 0 < min(sizes) <= max(sizes) <= MAX_KEY_BYTES):
        return [check_series(key, KINDS[kind], unit) for key, kind, unit in runs]
    return [tuple.__new__(Series, (key, KINDS[kind], unit)) for key, kind, unit in runs]


@lru_cache(maxsize=2 * _FEW_SERIES)
def _series(key: str, kind: int, unit: str) -> Series:
    return check_series(key, KINDS[kind], unit)


def _refuse_nul(texts: Iterable[str]) -> None:
    if "\x00" in "".join(texts):
        raise ValueError("a string holds NUL, which PostgreSQL can't keep")
